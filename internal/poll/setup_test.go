package poll_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ordersync/internal/devstack"
	"ordersync/internal/devstack/devtest"
	"ordersync/internal/erp"
	"ordersync/internal/order"
	"ordersync/internal/poll"
	"ordersync/internal/publish"
	"ordersync/internal/target"
)

func TestMain(m *testing.M) { devtest.Main(m) }

const letters = "order-events.dead-letter"

// start is when the ERP of the tests begins.
var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// source is an ERP in memory. Its cursor is the time and the number of the last row.
type source struct {
	mu    sync.Mutex
	rows  []row
	pages int
	// before is called before each page, without the lock.
	before func(page int) error
	// most is how many rows of a page are not too much; 0 for any.
	most int
}

type row struct {
	erp.Row
	n int
}

// add makes rows visible, in any order.
func (s *source) add(rows ...erp.Row) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range rows {
		s.rows = append(s.rows, row{r, len(s.rows) + 1})
	}
	slices.SortStableFunc(s.rows, func(a, b row) int {
		return cmp.Or(a.ChangedAt.Compare(b.ChangedAt), cmp.Compare(a.n, b.n))
	})
}

func place(at time.Time, n int) erp.Cursor { return erp.Cursor(fmt.Sprintf("%d/%d", at.UnixNano(), n)) }

func parse(c erp.Cursor) (time.Time, int, error) {
	if c == "" {
		return time.Time{}, 0, nil
	}
	at, n, _ := strings.Cut(string(c), "/")
	nanos, err := strconv.ParseInt(at, 10, 64)
	number, err2 := strconv.Atoi(n)
	if err = errors.Join(err, err2); err != nil {
		err = fmt.Errorf("%w: %w", erp.ErrCursor, err)
	}
	return time.Unix(0, nanos).UTC(), number, err
}

func (s *source) Page(_ context.Context, r erp.Request) (erp.Page, error) {
	s.mu.Lock()
	s.pages++
	page, before := s.pages, s.before
	s.mu.Unlock()
	if before != nil {
		if err := before(page); err != nil {
			return erp.Page{}, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.most != 0 && r.Limit > s.most {
		return erp.Page{}, fmt.Errorf("%d rows: %w", r.Limit, erp.ErrTooMuch)
	}
	at, n, err := parse(r.After)
	if err != nil {
		return erp.Page{}, err
	}
	p := erp.Page{Next: r.After}
	for _, row := range s.rows {
		if after := cmp.Or(row.ChangedAt.Compare(at), cmp.Compare(row.n, n)); after <= 0 || !r.Until.IsZero() && !row.ChangedAt.Before(r.Until) {
			continue
		}
		if p.More = len(p.Rows) == r.Limit; p.More {
			break
		}
		p.Rows = append(p.Rows, row.Row)
		p.Next = place(row.ChangedAt, row.n)
	}
	return p, nil
}

func (s *source) Rewind(_ context.Context, c erp.Cursor, overlap time.Duration) (erp.Cursor, error) {
	at, _, err := parse(c)
	return place(at.Add(-overlap), 0), err
}

func (s *source) From(t time.Time) (erp.Cursor, error) { return place(t, 0), nil }

func (s *source) Orders(context.Context, erp.Cursor, int) (erp.OrderPage, error) {
	return erp.OrderPage{}, errors.ErrUnsupported
}

func (s *source) Known(context.Context, []string) (map[string]bool, error) {
	return nil, errors.ErrUnsupported
}

func (s *source) Close() error { return nil }

// change is a row that is an event. Version 0 is none: its id then comes of its data.
func change(t testing.TB, syncID string, version int64, at time.Time) erp.Row {
	t.Helper()
	e := order.Event{
		SyncID: syncID, Kind: order.Update, Version: version, Channel: order.Online, OccurredAt: at,
		Data: json.RawMessage(strconv.FormatInt(at.UnixNano(), 10)),
	}
	e.ID = order.ParseEventID(fmt.Sprint(syncID, version, at.UnixNano()))
	value, err := e.Message()
	require.NoError(t, err)
	return erp.Row{Event: e, Value: value, ChangedAt: at}
}

// invoice is a row that is an invoice, under an event_id of its own. Every one of an order is the same.
func invoice(t testing.TB, syncID string, version int64, at time.Time) erp.Row {
	t.Helper()
	row := change(t, syncID, version, at)
	row.Event.Kind, row.Event.ID, row.Event.Data = order.Invoice, order.ParseEventID("invoice "+syncID), json.RawMessage(`{"n":1}`)
	var err error
	row.Value, err = row.Event.Message()
	require.NoError(t, err)
	row.Event, err = order.Decode(order.Record{Value: row.Value}, order.Online)
	require.NoError(t, err)
	return row
}

// changes are n rows a second apart, of the first versions of n orders.
func changes(t testing.TB, n int) []erp.Row {
	t.Helper()
	var all []erp.Row
	for i := range n {
		all = append(all, change(t, fmt.Sprint("order ", i), 1, start.Add(time.Duration(i)*time.Second)))
	}
	return all
}

// bundle is a poller between a source of the test's own and real servers.
type bundle struct {
	*poll.Poller
	*source
	kafka  *devstack.Kafka
	target *target.Target
	log    *strings.Builder
	// registry gets the metrics of the next process; nil for none.
	registry prometheus.Registerer
}

func setup(t *testing.T) *bundle {
	t.Helper()
	b := &bundle{source: &source{}, kafka: devtest.KafkaEmbedded(t), log: &strings.Builder{}}
	client := &kafka.Client{Addr: kafka.TCP(b.kafka.Brokers()...)}
	var topics []kafka.TopicConfig
	for _, topic := range []string{"online", "store", "online.backfill", letters} {
		topics = append(topics, kafka.TopicConfig{Topic: topic, NumPartitions: 3, ReplicationFactor: 1})
	}
	_, err := client.CreateTopics(t.Context(), &kafka.CreateTopicsRequest{Topics: topics})
	require.NoError(t, err)
	dsn := devtest.MySQL(t)
	b.target, err = target.Open(dsn, target.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.target.Close()) })
	require.NoError(t, b.target.Migrate(t.Context()))
	b.restart(t)
	return b
}

// restart is a new process: it remembers nothing.
func (b *bundle) restart(t *testing.T) {
	t.Helper()
	producer := publish.New(publish.Options{Brokers: b.kafka.Brokers(), DeadLetterTopic: letters})
	t.Cleanup(func() { require.NoError(t, producer.Close()) })
	b.Poller = poll.New(poll.Options{
		Source: b.source, Producer: producer, Ledger: b.target,
		Topics:         map[order.Channel]string{order.Online: "online", order.Store: "store"},
		BackfillTopics: map[order.Channel]string{order.Online: "online.backfill"},
		Registerer:     b.registry, Logger: slog.New(slog.NewTextHandler(b.log, nil)),
	})
}

func on(order.PollState) bool { return true }

// task is the first stretch of a poll that follows on last.
func task(last order.PollState) order.PollTask {
	return order.PollTask{State: last, Begin: true, Overlap: time.Minute, PageSize: 100}
}

// poll polls to the end of the source.
func (b *bundle) poll(t *testing.T, last order.PollState) order.PollState {
	t.Helper()
	state, err := b.Poll(t.Context(), task(last), on)
	require.NoError(t, err)
	require.False(t, state.More)
	return state
}

// apply brings records to the ledger, each once.
func (b *bundle) apply(t *testing.T, records []*kgo.Record) {
	t.Helper()
	for _, r := range records {
		e, err := order.Decode(order.Record{
			Topic: r.Topic, Partition: int(r.Partition), Offset: r.Offset, Timestamp: r.Timestamp, Value: r.Value,
		}, order.Online)
		require.NoError(t, err)
		_, err = b.target.Apply(t.Context(), order.Step{Event: e, InsertMissing: true})
		require.NoError(t, err)
	}
}

// records are all that a topic has, by partition and offset.
func (b *bundle) records(t *testing.T, topic string) []*kgo.Record {
	t.Helper()
	client := &kafka.Client{Addr: kafka.TCP(b.kafka.Brokers()...)}
	var asked []kafka.OffsetRequest
	for partition := range 3 {
		asked = append(asked, kafka.LastOffsetOf(partition))
	}
	ends, err := client.ListOffsets(t.Context(), &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{topic: asked}})
	require.NoError(t, err)
	n := 0
	for _, end := range ends.Topics[topic] {
		n += int(end.LastOffset)
	}
	c, err := kgo.NewClient(kgo.SeedBrokers(b.kafka.Brokers()...), kgo.ConsumeTopics(topic))
	require.NoError(t, err)
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var all []*kgo.Record
	for len(all) < n {
		got := c.PollFetches(ctx)
		require.NoError(t, got.Err())
		all = append(all, got.Records()...)
	}
	slices.SortFunc(all, func(a, b *kgo.Record) int {
		return cmp.Or(cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
	})
	return all
}

// refuse has the brokers refuse produce requests for a partition of online while which says so.
func (b *bundle) refuse(which func(partition int32) bool) {
	b.kafka.Cluster().ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		b.kafka.Cluster().KeepControl()
		request := r.(*kmsg.ProduceRequest)
		response := request.ResponseKind().(*kmsg.ProduceResponse)
		refused := false
		for _, t := range request.Topics {
			topic := kmsg.NewProduceResponseTopic()
			topic.Topic = t.Topic
			for _, p := range t.Partitions {
				refused = refused || t.Topic == "online" && which(p.Partition)
				partition := kmsg.NewProduceResponseTopicPartition()
				partition.Partition, partition.ErrorCode = p.Partition, int16(kafka.TopicAuthorizationFailed)
				topic.Partitions = append(topic.Partitions, partition)
			}
			response.Topics = append(response.Topics, topic)
		}
		return response, nil, refused
	})
}

func headerOf(r *kgo.Record, key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}
