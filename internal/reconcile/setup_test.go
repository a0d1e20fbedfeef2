package reconcile

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"ordersync/internal/devstack/devtest"
	"ordersync/internal/erp"
	"ordersync/internal/order"
	"ordersync/internal/publish"
	"ordersync/internal/target"
)

func TestMain(m *testing.M) { devtest.Main(m) }

// books is an ERP in memory. It lists its orders in the order of their numbers, which is not that of
// the target's keys.
type books struct {
	erp.Source // nothing else is asked of it
	orders     map[string]erp.Order
	// before, if set, is called before the nth question of a kind.
	before func(kind string, nth int) error
	asked  map[string]int
}

func (b *books) ask(kind string) error {
	b.asked[kind]++
	if b.before == nil {
		return nil
	}
	return b.before(kind, b.asked[kind])
}

func (b *books) Orders(_ context.Context, after erp.Cursor, limit int) (erp.OrderPage, error) {
	if err := b.ask("orders"); err != nil {
		return erp.OrderPage{}, err
	}
	number := func(id string) int {
		n, err := strconv.Atoi(id)
		if err != nil {
			panic(err)
		}
		return n
	}
	from := 0
	if after != "" {
		from = number(string(after)) + 1
	}
	page := erp.OrderPage{Next: after}
	for _, id := range slices.SortedFunc(maps.Keys(b.orders), func(x, y string) int { return number(x) - number(y) }) {
		switch {
		case number(id) < from:
		case len(page.Orders) == limit:
			page.More = true
			return page, nil
		default:
			page.Orders = append(page.Orders, b.orders[id])
			page.Next = erp.Cursor(id)
		}
	}
	return page, nil
}

func (b *books) Known(_ context.Context, ids []string) (map[string]bool, error) {
	if err := b.ask("known"); err != nil {
		return nil, err
	}
	known := map[string]bool{}
	for _, id := range ids {
		if _, ok := b.orders[id]; ok {
			known[id] = true
		}
	}
	return known, nil
}

// old is when orders were changed that nobody is waiting for any more.
var old = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func (b *books) put(id string, version int64, data string) {
	b.orders[id] = erp.Order{SyncID: id, Channel: order.Online, Version: version, Data: json.RawMessage(data), ChangedAt: old}
}

// bundle is both ends.
type bundle struct {
	*testing.T
	*Reconciler
	books *books
	// topic reads what repairs publish.
	brokers []string
}

func setup(t *testing.T, change ...func(*Options)) *bundle {
	t.Helper()
	shop, err := target.Open(devtest.MySQL(t), target.Options{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() { _ = shop.Close() })
	require.NoError(t, shop.Migrate(t.Context()))
	b := &bundle{T: t, books: &books{orders: map[string]erp.Order{}, asked: map[string]int{}}}
	o := Options{ERP: b.books, Target: shop, Topics: map[string]order.Channel{"online": order.Online, "store": order.Store}, Logger: slog.New(slog.DiscardHandler)}
	for _, f := range change {
		f(&o)
	}
	b.Reconciler = New(o)
	return b
}

// withKafka gives repairs a topic.
func withKafka(b *bundle) *bundle {
	b.Helper()
	b.brokers = devtest.KafkaEmbedded(b.T).Brokers()
	response, err := (&kafka.Client{Addr: kafka.TCP(b.brokers...)}).CreateTopics(b.Context(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{
		Topic: "online", NumPartitions: 3, ReplicationFactor: 1,
		ConfigEntries: []kafka.ConfigEntry{{ConfigName: "max.message.bytes", ConfigValue: "500000"}},
	}}})
	require.NoError(b, err)
	require.NoError(b, response.Errors["online"])
	b.producer = publish.New(publish.Options{Brokers: b.brokers})
	b.Cleanup(func() { _ = b.producer.Close() })
	return b
}

// published are the first n events of the topic.
func (b *bundle) published(n int) map[string]order.Event {
	b.Helper()
	c, err := kgo.NewClient(kgo.SeedBrokers(b.brokers...), kgo.ConsumeTopics("online"))
	require.NoError(b, err)
	defer c.Close()
	ctx, cancel := context.WithTimeout(b.Context(), 20*time.Second)
	defer cancel()
	events := map[string]order.Event{}
	for read := 0; read < n; {
		got := c.PollFetches(ctx)
		require.NoError(b, got.Err())
		for _, r := range got.Records() {
			e, err := order.Decode(order.Record{Topic: r.Topic, Partition: int(r.Partition), Offset: r.Offset, Timestamp: r.Timestamp, Value: r.Value}, order.Online)
			require.NoError(b, err)
			require.Equal(b, e.SyncID, string(r.Key))
			if known, ok := events[e.SyncID]; ok {
				require.Equal(b, known.ID, e.ID, "a repair that is published again is the same event")
			}
			events[e.SyncID] = e
			read++
		}
	}
	return events
}

// row puts an order into the target.
func (b *bundle) row(id string, version int64, data string) {
	b.Helper()
	v := any(version)
	if version == 0 {
		v = nil
	}
	b.exec(`REPLACE INTO orders (sync_id, channel, data, version, status, created_at, updated_at) VALUES (?, 'online', ?, ?, 'open', NOW(), NOW())`, id, data, v)
}

func (b *bundle) exec(query string, args ...any) {
	b.Helper()
	_, err := b.target.DB().ExecContext(b.Context(), query, args...)
	require.NoError(b, err)
}

// both puts an order into both ends.
func (b *bundle) both(id string, version int64, data string) {
	b.Helper()
	b.books.put(id, version, data)
	b.row(id, version, data)
}

// skip writes a version of an order off, as an operator does.
func (b *bundle) skip(id string, version int64) {
	b.Helper()
	_, err := b.target.Skip(b.Context(), order.Event{
		SyncID: id, ID: uuid.New(), Kind: order.Update, Version: version, Channel: order.Online, OccurredAt: old,
		Source: order.Source{Topic: "online", ReceivedAt: old},
	})
	require.NoError(b, err)
}

// walkOf is a walk of its own run.
func walkOf(pageSize int) order.Walk {
	return order.Walk{PageSize: pageSize, Found: order.Reconciliation{RunID: uuid.NewString(), By: "support@shop", StartedAt: time.Now().UTC()}}
}

func (b *bundle) run(w order.Walk) order.Reconciliation {
	b.Helper()
	found, err := b.Reconcile(b.Context(), w, func(order.Walk) {})
	require.NoError(b, err)
	return found
}

// classes are the findings by their orders.
func classes(t *testing.T, f order.Reconciliation) map[string]order.Drift {
	t.Helper()
	got := map[string]order.Drift{}
	counts := map[order.Drift]int64{}
	for _, class := range order.Drifts {
		counts[class] = 0
	}
	for _, finding := range f.Findings {
		require.NotContains(t, got, finding.SyncID)
		got[finding.SyncID] = finding.Class
		counts[finding.Class]++
	}
	if len(f.Findings) < order.MaxFindings {
		require.Equal(t, counts, f.Counts)
	}
	return got
}

var errDown = errors.New("the ERP is down")

func amend(id, original string) order.Action {
	return order.Action{ID: uuid.New(), SyncID: id, Name: "amend", By: "support@shop", At: time.Now(), Effect: "replaced", Original: json.RawMessage(original)}
}

func data(n int) string { return fmt.Sprintf(`{"total": %d, "note": "order %d"}`, n, n) }
