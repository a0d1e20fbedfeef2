package freshness_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"ordersync/internal/config"
	"ordersync/internal/devstack/devtest"
	"ordersync/internal/freshness"
	"ordersync/internal/order"
	"ordersync/internal/pod"
	"ordersync/internal/publish"
)

// pipeline is a deployment whose worker and starter run when they are told to.
type pipeline struct {
	*freshness.Probe
	t        *testing.T
	cfg      config.Config
	producer *publish.Producer
	exec     func(statement string)
}

func openPipeline(t *testing.T) *pipeline {
	t.Helper()
	cfg, err := config.Load(map[string]string{
		"KAFKA_BROKERS":       strings.Join(devtest.KafkaEmbedded(t).Brokers(), ","),
		"TEMPORAL_ADDRESS":    devtest.Temporal(t),
		"TEMPORAL_TASK_QUEUE": devtest.Name(t, "queue"),
		"MYSQL_DSN":           devtest.MySQL(t),
		"HTTP_ADDRESS":        config.NoServer,
	})
	require.NoError(t, err)
	quiet := slog.New(slog.DiscardHandler)
	_, err = pod.Setup(t.Context(), cfg, quiet, pod.SetupOptions{})
	require.NoError(t, err)
	transport := pod.KafkaTransport(cfg)
	p := &pipeline{t: t, cfg: cfg, producer: pod.NewProducer(cfg, transport)}
	t.Cleanup(func() { require.NoError(t, p.producer.Close()); transport.CloseIdleConnections() })
	temporal, err := pod.DialTemporal(t.Context(), cfg, quiet)
	require.NoError(t, err)
	t.Cleanup(temporal.Close)
	shop, err := pod.OpenTarget(cfg, quiet)
	require.NoError(t, err)
	t.Cleanup(func() { _ = shop.Close() })
	p.exec = func(statement string) {
		t.Helper()
		_, err := shop.DB().ExecContext(t.Context(), statement)
		require.NoError(t, err)
	}
	p.Probe = pod.NewProbe(cfg, transport, temporal, shop)
	return p
}

// run starts a process; it ends with stop, or the test.
func (p *pipeline) run(what func(context.Context, config.Config, *slog.Logger, ...pod.Option) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		assert.NoError(p.t, what(ctx, p.cfg, slog.New(slog.DiscardHandler)))
	}()
	stop = func() { cancel(); <-ended }
	p.t.Cleanup(stop)
	return stop
}

func (p *pipeline) publish(topic, syncID, value string) {
	p.t.Helper()
	require.NoError(p.t, p.producer.Publish(p.t.Context(), kafka.Message{Topic: topic, Key: []byte(syncID), Value: []byte(value)}))
}

func creation(syncID string, total int, occurred time.Time) string {
	return fmt.Sprintf(`{"sync_id":%q,"event":"order_creation","version":1,"data":{"total":%d},"occurred_at":%q}`, syncID, total, occurred.Format(time.RFC3339Nano))
}

// await looks until a channel is as wanted.
func (p *pipeline) await(channel order.Channel, what string, want func(freshness.Channel) bool) freshness.Channel {
	p.t.Helper()
	var found freshness.Channel
	devtest.Eventually(p.t, 30*time.Second, func() error {
		s, err := p.Look(p.t.Context())
		if err != nil {
			return err
		}
		for _, c := range s.Channels {
			if c.Channel == channel && want(c) {
				found = c
				return nil
			}
		}
		state, err := json.Marshal(s)
		require.NoError(p.t, err)
		return errors.New(string(state))
	}, what)
	return found
}

func synced(c freshness.Channel) bool {
	return c.Oldest == nil && *c.AgeSeconds == 0 && *c.WaitingSeconds == 0 && *c.Lag == 0
}

// The way of an event, and what is told of its age wherever it waits.
func TestLook(t *testing.T) {
	p := openPipeline(t)
	s, err := p.Look(t.Context())
	require.NoError(t, err)
	require.Len(t, s.Channels, 3)
	for _, c := range s.Channels {
		assert.True(t, synced(c), "nothing was published")
		assert.Zero(t, *c.EventsPerSecond)
		assert.Nil(t, c.P50)
	}
	assert.Zero(t, *s.DeadLetters)
	assert.Zero(t, s.TaskQueue.Pollers)
	assert.Nil(t, s.Poll)

	// In Kafka, as nobody reads it.
	occurred := time.Now().Add(-90 * time.Minute).UTC().Truncate(time.Microsecond)
	p.publish("online", "good", creation("good", 1, occurred))
	p.publish("store", "none", `{"sync_id":"none"}`)
	p.publish("international.backfill", "old", creation("old", 1, occurred))
	published := time.Now()
	s, err = p.Look(t.Context())
	require.NoError(t, err)
	online, store, international := s.Channels[0], s.Channels[1], s.Channels[2]
	assert.InDelta(t, 90*60, *online.AgeSeconds, 60)
	assert.EqualValues(t, 1, *online.Lag)
	assert.Equal(t, occurred, online.Oldest.At)
	assert.Equal(t, freshness.InKafka, online.Oldest.Where)
	assert.Less(t, *online.WaitingSeconds, 60.0, "it came late, and waits for a moment only")
	assert.Equal(t, "good", online.Oldest.SyncID)
	assert.Regexp(t, `^online/\d+/0$`, online.Oldest.Record)
	assert.WithinDuration(t, published, store.Oldest.At, time.Minute, "what is no event is as old as its record")
	assert.True(t, synced(international), "a backfill counts for no age")
	assert.Equal(t, []int64{0, 0, 1}, []int64{s.Backfills[0].Lag, s.Backfills[1].Lag, s.Backfills[2].Lag})

	// In Temporal, as no worker is there: no lag, and an age all the same.
	p.run(pod.RunStarter)
	online = p.await(order.Online, "a task waits for a worker", func(c freshness.Channel) bool {
		return *c.Lag == 0 && c.Oldest != nil && c.Oldest.Where == freshness.InTaskQueue
	})
	assert.Positive(t, *online.AgeSeconds)

	// Applied.
	stopWorker := p.run(pod.RunWorker)
	online = p.await(order.Online, "all is synced", synced)
	assert.Positive(t, *online.EventsPerSecond)
	assert.Positive(t, *online.P99)
	s, err = p.Look(t.Context())
	require.NoError(t, err)
	assert.EqualValues(t, 1, *s.DeadLetters)
	assert.Equal(t, 1, s.TaskQueue.Pollers)

	// Refused by the target: the order is blocked, no lag, and the event goes on growing older.
	p.exec("ALTER TABLE orders ADD CONSTRAINT no_loss CHECK (JSON_VALUE(data, '$.total') >= 0)")
	p.publish("store", "bad", creation("bad", -1, occurred))
	isBlocked := func(c freshness.Channel) bool { return *c.Blocked == 1 && *c.Lag == 0 && c.Oldest != nil }
	store = p.await(order.Store, "an order is blocked", isBlocked)
	assert.WithinDuration(t, time.Now(), store.Oldest.Since, time.Minute)
	store.Oldest.Since = time.Time{}
	assert.Equal(t, freshness.Oldest{At: occurred, Where: freshness.InOrder, SyncID: "bad", Stuck: "blocked"}, *store.Oldest)
	p.await(order.Store, "its event gets older", func(c freshness.Channel) bool {
		return *c.AgeSeconds > *store.AgeSeconds && *c.WaitingSeconds > *store.WaitingSeconds
	})
	p.await(order.Online, "the other channel is not concerned", synced)

	// Without a worker nobody can be asked again, but what is known stays known.
	stopWorker()
	store = p.await(order.Store, "still blocked", isBlocked)
	assert.Equal(t, occurred, store.Oldest.At)

	// As a metric.
	registry := prometheus.NewRegistry()
	exporter := freshness.NewExporter(p.Probe, registry, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); exporter.Run(ctx) }()
	devtest.Eventually(t, 30*time.Second, func() error {
		values := gathered(t, registry)
		if values["ordersync_freshness_seconds store"] < 90*60 || values["ordersync_freshness_orders_blocked store"] != 1 {
			return fmt.Errorf("%v", values)
		}
		assert.Zero(t, values["ordersync_freshness_seconds online"])
		assert.Positive(t, values["ordersync_freshness_waiting_seconds store"])
		assert.Contains(t, values, "ordersync_freshness_lag international")
		assert.InDelta(t, time.Now().Unix(), values["ordersync_freshness_looked_timestamp_seconds"], 60)
		return nil
	}, "the metrics tell")
	cancel()
	<-ended

	// A poll that is late may have missed what is as old as its end.
	read := time.Now().Add(-3 * time.Hour)
	poll := func(p freshness.Poll, err error) func(context.Context) (freshness.Poll, bool, error) {
		return func(context.Context) (freshness.Poll, bool, error) { return p, true, err }
	}
	p.Polled = poll(freshness.Poll{ReadUntil: read, Every: 2 * time.Hour}, nil)
	p.await(order.Online, "a poll is not late before three are missing", synced)
	p.Polled = poll(freshness.Poll{ReadUntil: read, Every: time.Minute, Paused: true}, nil)
	online = p.await(order.Online, "the poll is late", func(c freshness.Channel) bool { return c.Oldest != nil })
	assert.Equal(t, freshness.InERP, online.Oldest.Where)
	assert.InDelta(t, 3*3600, *online.AgeSeconds, 60)
	// So may one that never came through, or whose end Temporal has forgotten.
	p.Polled = poll(freshness.Poll{BegunAt: time.Now().Add(-5 * time.Second), Every: time.Second}, nil)
	p.await(order.Online, "it has just begun", synced)
	p.Polled = poll(freshness.Poll{BegunAt: read, Every: time.Minute}, nil)
	online = p.await(order.Online, "it does not come through", func(c freshness.Channel) bool { return c.Oldest != nil })
	assert.Equal(t, freshness.InERP, online.Oldest.Where)
	assert.InDelta(t, 3*3600, *online.WaitingSeconds, 60)

	// What cannot be looked up is not told, and the rest is.
	p.Polled = poll(freshness.Poll{}, errors.New("boom"))
	p.exec("DROP TABLE order_events")
	s, err = p.Look(t.Context())
	require.ErrorContains(t, err, "boom")
	require.ErrorContains(t, err, "order_events")
	assert.Len(t, s.Problems, 2)
	assert.Nil(t, s.Channels[1].AgeSeconds)
	assert.Nil(t, s.Channels[1].EventsPerSecond)
	assert.EqualValues(t, 1, *s.Channels[1].Blocked)
}

// gathered are the values of a registry by name and label.
func gathered(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	require.NoError(t, err)
	values := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, label := range m.GetLabel() {
				name += " " + label.GetValue()
			}
			values[name] = m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return values
}
