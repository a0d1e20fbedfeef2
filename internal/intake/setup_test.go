package intake

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"

	"ordersync/internal/connect"
	"ordersync/internal/devstack/devtest"
	"ordersync/internal/order"
	"ordersync/internal/publish"
	"ordersync/workflows"
)

func TestMain(m *testing.M) { devtest.Main(m) }

const (
	testPartitions = 6
	deadLetters    = "order-events.dead-letter"
)

var testTopics = map[string]order.Channel{
	"online": order.Online, "store": order.Store, "international": order.International,
}

// bundle is an intake's surroundings: a Kafka of the test's own, and a Temporal that the tests of
// this binary share. No worker runs: what the intake handed over stands in the histories.
type bundle struct {
	t        *testing.T
	cluster  *kfake.Cluster
	brokers  []string
	kafka    *kafka.Client
	temporal client.Client
	producer *publish.Producer
	prefix   string // of the sync_ids of this test
}

func setup(t *testing.T, topics ...string) *bundle {
	t.Helper()
	if len(topics) == 0 {
		topics = slices.Sorted(maps.Keys(testTopics))
	}
	server := devtest.KafkaEmbedded(t)
	b := &bundle{t: t, cluster: server.Cluster(), brokers: server.Brokers(), prefix: devtest.Name(t, "o") + "-"}
	b.kafka = &kafka.Client{Addr: kafka.TCP(b.brokers...), Transport: &kafka.Transport{MetadataTTL: 100 * time.Millisecond}}
	for _, topic := range topics {
		b.createTopic(topic, testPartitions)
	}
	b.createTopic(deadLetters, 3)
	b.temporal = dial(t, "default")
	b.producer = publish.New(publish.Options{Brokers: b.brokers, DeadLetterTopic: deadLetters})
	t.Cleanup(func() { require.NoError(t, b.producer.Close()) })
	return b
}

func dial(t *testing.T, namespace string) client.Client {
	t.Helper()
	c, err := connect.Temporal(t.Context(), client.Options{
		HostPort: devtest.Temporal(t), Namespace: namespace, DataConverter: workflows.DataConverter(), Logger: quiet(),
	})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func (b *bundle) createTopic(name string, partitions int) {
	b.t.Helper()
	response, err := b.kafka.CreateTopics(b.t.Context(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{
		Topic: name, NumPartitions: partitions, ReplicationFactor: 1,
		ConfigEntries: []kafka.ConfigEntry{{ConfigName: "max.message.bytes", ConfigValue: fmt.Sprint(16 << 20)}},
	}}})
	require.NoError(b.t, err)
	require.NoError(b.t, response.Errors[name])
}

func (b *bundle) options() Options {
	return Options{
		Brokers: b.brokers, Group: "ordersync", Topics: testTopics,
		Temporal: b.temporal, TaskQueue: "nobody-" + b.prefix,
		Settings:    workflows.Settings{Rules: workflows.Rules, HoldWindow: time.Minute, IdleTimeout: time.Hour},
		DeadLetters: b.producer, Logger: quiet(),
	}
}

// member is a running intake.
type member struct {
	*Intake
	stop func() // returns when Run has
}

// awaitTrouble waits until something has failed, and gives its error.
func (m *member) awaitTrouble(t *testing.T, what string) error {
	t.Helper()
	var err error
	devtest.Eventually(t, 30*time.Second, func() error {
		m.troubles.mu.Lock()
		defer m.troubles.mu.Unlock()
		if err = m.troubles.ongoing[what].err; err == nil {
			return errors.New("no trouble yet")
		}
		return nil
	}, what+" fails")
	return err
}

func (b *bundle) run(o Options, prepare ...func(*Intake)) *member {
	b.t.Helper()
	i, err := New(o)
	require.NoError(b.t, err)
	for _, change := range prepare {
		change(i)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := i.Run(ctx); err != nil {
			b.t.Error(err)
		}
	}()
	m := &member{Intake: i, stop: sync.OnceFunc(func() {
		cancel()
		<-done
	})}
	b.t.Cleanup(m.stop)
	return m
}

// syncID is that of the test's n-th order.
func (b *bundle) syncID(n int) string { return fmt.Sprintf("%s%d", b.prefix, n) }

// message is an event of an order, keyed as it should be.
func message(topic, syncID string, kind order.Kind, version int) kafka.Message {
	value, err := json.Marshal(map[string]any{
		"sync_id": syncID, "event": kind, "version": version, "data": map[string]any{"total": version},
	})
	if err != nil {
		panic(err)
	}
	return kafka.Message{Topic: topic, Key: []byte(syncID), Value: value}
}

func (b *bundle) publish(messages ...kafka.Message) {
	b.t.Helper()
	require.NoError(b.t, b.producer.Publish(b.t.Context(), messages...))
}

// handed is what Temporal holds of one order's running or last run: how it was started, and the
// events in the order in which they came.
type handed struct {
	started int // events in the input
	signals int
	events  []order.Event
	summary string
	eager   bool
}

func (h handed) versions() []int64 {
	var all []int64
	for _, e := range h.events {
		all = append(all, e.Version)
	}
	return all
}

func (b *bundle) handed(syncID string) (handed, error) {
	var h handed
	converter := workflows.DataConverter()
	history := b.temporal.GetWorkflowHistory(b.t.Context(), workflows.WorkflowID(syncID), "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for history.HasNext() {
		event, err := history.Next()
		if err != nil {
			return h, err
		}
		if a := event.GetWorkflowExecutionStartedEventAttributes(); a != nil {
			var in workflows.Input
			if err := converter.FromPayloads(a.GetInput(), &in); err != nil {
				return h, err
			}
			h.started, h.events, h.eager = len(in.Events), append(h.events, in.Events...), a.GetEagerExecutionAccepted()
			if err := converter.FromPayload(event.GetUserMetadata().GetSummary(), &h.summary); err != nil {
				return h, err
			}
		}
		if a := event.GetWorkflowExecutionSignaledEventAttributes(); a != nil {
			var batch workflows.Batch
			if err := converter.FromPayloads(a.GetInput(), &batch); err != nil {
				return h, err
			}
			h.signals++
			h.events = append(h.events, batch.Events...)
		}
	}
	return h, nil
}

// awaitVersions waits until Temporal holds these versions of an order, in this order.
func (b *bundle) awaitVersions(syncID string, versions ...int64) {
	b.t.Helper()
	devtest.Eventually(b.t, 30*time.Second, func() error {
		h, err := b.handed(syncID)
		if err == nil && !slices.Equal(h.versions(), versions) {
			err = fmt.Errorf("Temporal holds versions %v", h.versions())
		}
		return err
	}, fmt.Sprintf("order %s handed over as %v", syncID, versions))
}

// awaitOnce waits until Temporal holds each of these versions of an order, whatever else is repeated.
func (b *bundle) awaitOnce(syncID string, versions ...int64) {
	b.t.Helper()
	devtest.Eventually(b.t, 30*time.Second, func() error {
		h, err := b.handed(syncID)
		got := h.versions()
		slices.Sort(got)
		if err == nil && !slices.Equal(slices.Compact(got), versions) {
			err = fmt.Errorf("Temporal holds versions %v", h.versions())
		}
		return err
	}, fmt.Sprintf("order %s handed over as %v", syncID, versions))
}

// committed is the group's offset of a partition, -1 if there is none.
func (b *bundle) committed(topic string, partition int) int64 {
	b.t.Helper()
	response, err := b.kafka.OffsetFetch(b.t.Context(), &kafka.OffsetFetchRequest{
		GroupID: "ordersync", Topics: map[string][]int{topic: {partition}},
	})
	require.NoError(b.t, err)
	if errors.Is(response.Error, kafka.GroupIdNotFound) {
		return -1
	}
	require.NoError(b.t, response.Error)
	return response.Topics[topic][0].CommittedOffset
}

func (b *bundle) awaitCommitted(topic string, partition int, offset int64) {
	b.t.Helper()
	devtest.Eventually(b.t, 30*time.Second, func() error {
		if at := b.committed(topic, partition); at != offset {
			return fmt.Errorf("%d is committed", at)
		}
		return nil
	}, fmt.Sprintf("offset %d of %s/%d committed", offset, topic, partition))
}

// home is the partition an order belongs to.
func home(syncID string) int {
	all := make([]int, testPartitions)
	for n := range all {
		all[n] = n
	}
	return kafka.Murmur2Balancer{}.Balance(kafka.Message{Key: []byte(syncID)}, all...)
}

// buried reads the dead letters that are there.
func (b *bundle) buried() []kafka.Message {
	b.t.Helper()
	var all []kafka.Message
	for p := range 3 {
		offset := int64(0)
		for {
			next, failed, err := Committed{Brokers: b.brokers, Transport: b.kafka.Transport, MaxValue: 16 << 20}.Fetch(b.t.Context(), deadLetters, p, offset, time.Millisecond,
				func(m kafka.Message) error { all = append(all, m); return nil })
			require.NoError(b.t, errors.Join(failed, err))
			if next == offset {
				break
			}
			offset = next
		}
	}
	return all
}

// counted reads a counter.
func counted(t *testing.T, c prometheus.Counter) float64 {
	t.Helper()
	var m dto.Metric
	require.NoError(t, c.Write(&m))
	return m.GetCounter().GetValue()
}

// value reads a registered metric, summed over what has these values of labels.
func value(t *testing.T, r *prometheus.Registry, name string, labels ...string) float64 {
	t.Helper()
	families, err := r.Gather()
	require.NoError(t, err)
	sum := 0.0
	for _, f := range families {
		if f.GetName() != "ordersync_intake_"+name {
			continue
		}
	metrics:
		for _, m := range f.GetMetric() {
			for _, want := range labels {
				if !slices.ContainsFunc(m.GetLabel(), func(l *dto.LabelPair) bool { return l.GetValue() == want }) {
					continue metrics
				}
			}
			sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return sum
}

// kgo is a client of franz-go, for what kafka-go cannot do: transactions and administration.
func (b *bundle) kgo(options ...kgo.Opt) *kgo.Client {
	b.t.Helper()
	c, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(b.brokers...)}, options...)...)
	require.NoError(b.t, err)
	b.t.Cleanup(c.Close)
	return c
}

// witness checks every commit that reaches the broker: all events below it must have been handed
// over by then, whoever commits. Dead letters do not pass it.
type witness struct {
	b        *bundle
	mu       sync.Mutex
	handed   map[string]map[int64]int // by topic/partition and offset
	commits  int
	breaches []string
}

func (b *bundle) witness() *witness {
	w := &witness{b: b, handed: make(map[string]map[int64]int)}
	b.cluster.ControlKey(int16(kmsg.OffsetCommit), func(request kmsg.Request) (kmsg.Response, error, bool) {
		b.cluster.KeepControl()
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, topic := range request.(*kmsg.OffsetCommitRequest).Topics {
			for _, p := range topic.Partitions {
				w.commits++
				place := fmt.Sprintf("%s/%d", topic.Topic, p.Partition)
				for offset := range p.Offset {
					if w.handed[place][offset] == 0 {
						w.breaches = append(w.breaches, fmt.Sprintf("%s: %d was committed before %d was handed over", place, p.Offset, offset))
						break
					}
				}
			}
		}
		return nil, nil, false
	})
	return w
}

// watch lets the witness see what an intake hands over.
func (w *witness) watch(i *Intake) {
	call := i.call
	i.call = func(ctx context.Context, events []order.Event) error {
		if err := call(ctx, events); err != nil {
			return err
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, e := range events {
			place := fmt.Sprintf("%s/%d", e.Source.Topic, e.Source.Partition)
			if w.handed[place] == nil {
				w.handed[place] = make(map[int64]int)
			}
			w.handed[place][e.Source.Offset]++
		}
		return nil
	}
}

// seen counts the events handed over, each once.
func (w *witness) seen() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, offsets := range w.handed {
		n += len(offsets)
	}
	return n
}

func (w *witness) check() {
	w.b.t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	require.NotZero(w.b.t, w.commits)
	require.Empty(w.b.t, w.breaches)
}
