package intake

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"ordersync/internal/devstack/devtest"
	"ordersync/internal/order"
	"ordersync/internal/publish"
)

// headers of a dead letter, by name.
func headers(m kafka.Message) map[string]string {
	all := make(map[string]string)
	for _, h := range m.Headers {
		all[h.Key] = string(h.Value)
	}
	return all
}

func TestRecordsThatAreNoEventsBecomeDeadLetters(t *testing.T) {
	b := setup(t)
	id := b.syncID(1)
	key := []byte(id)
	p := home(id)
	large := []byte(`{"sync_id":"` + id + `","event":"order_updation","data":"` + strings.Repeat("x", 2<<20) + `"}`)
	bad := []kafka.Message{
		{Topic: "online", Key: key, Value: nil},
		{Topic: "online", Key: key, Value: []byte{}},
		{Topic: "online", Key: key, Value: []byte("no json")},
		{Topic: "online", Key: key, Value: []byte(`{"sync_id":1,"event":"order_cancelation","data":1}`)},
		{Topic: "online", Key: key, Value: []byte(`{"sync_id":1,"event":"order_creation"}`)},
		{Topic: "online", Key: key, Value: []byte("{\"sync_id\":1,\"event\":\"order_creation\",\"data\":\"\xff\"}")},
		{Topic: "online", Key: key, Value: large},
	}
	reasons := []order.Reason{
		order.NullValue, order.MalformedJSON, order.MalformedJSON, order.UnknownEvent, order.MissingField,
		order.InvalidUTF8, order.ValueTooLarge,
	}
	all := []kafka.Message{message("online", id, order.Creation, 1)}
	all = append(all, bad...)
	all = append(all, message("online", id, order.Update, 2))
	b.publish(all...) // the large one compressed: the topic's limit counts after compression

	o := b.options()
	registry := prometheus.NewRegistry()
	o.Registerer = registry
	b.run(o)
	b.awaitVersions(id, 1, 2)
	b.awaitCommitted("online", p, int64(len(all)))
	letters := b.buried()
	require.Len(t, letters, len(bad))
	for n, letter := range letters {
		require.Equal(t, key, letter.Key)
		if reasons[n] == order.ValueTooLarge {
			require.Nil(t, letter.Value, "it was never in memory as a whole")
			require.Equal(t, strconv.Itoa(len(large)), headers(letter)[publish.HeaderSize])
			require.Equal(t, fmt.Sprintf("%x", sha256.Sum256(large)), headers(letter)[publish.HeaderSHA256])
			continue
		}
		require.Equal(t, bad[n].Value, letter.Value, "the original bytes, null stays null")
	}
	require.Equal(t, float64(len(bad)), value(t, registry, "dead_letters_total", "online"))
	for _, reason := range reasons {
		require.NotZero(t, value(t, registry, "dead_letters_total", string(reason)), reason)
	}
	devtest.Eventually(t, 30*time.Second, func() error {
		lag, committed := value(t, registry, "lag", "online", strconv.Itoa(p)), value(t, registry, "committed_offset", "online", strconv.Itoa(p))
		if lag != 0 || committed != float64(len(all)) {
			return fmt.Errorf("lag %v, committed %v", lag, committed)
		}
		return nil
	}, "the metrics have the commit")
}

func TestBodyDecidesWhichOrderItIs(t *testing.T) {
	b := setup(t)
	id := b.syncID(1)
	foreign, none, padded := message("store", id, order.Creation, 1), message("store", id, order.Update, 2), message("store", id, order.Update, 3)
	foreign.Key, none.Key, padded.Key = []byte("somebody else"), nil, []byte(" "+id)
	b.publish(foreign, none, padded, message("store", id, order.Update, 4))
	o := b.options()
	registry := prometheus.NewRegistry()
	o.Registerer = registry
	b.run(o)
	devtest.Eventually(t, 30*time.Second, func() error {
		h, err := b.handed(id)
		if got := h.versions(); err == nil && len(got) != 4 {
			return fmt.Errorf("%v", got)
		}
		return err
	}, "all four handed over")
	require.Equal(t, 3.0, value(t, registry, "foreign_key_total", "store"))
	elsewhere := 0.0
	for _, key := range []string{"somebody else", " " + id} {
		if home(key) != home(id) {
			elsewhere++
		}
	}
	// The record without a key may be anywhere.
	require.InDelta(t, elsewhere+0.5, value(t, registry, "foreign_partition_total", "store"), 0.5)
}

func TestAbortedTransactionIsNotReadAndItsMarkersArePassed(t *testing.T) {
	b := setup(t)
	id := b.syncID(1)
	p := int32(home(id))
	producer := b.kgo(kgo.TransactionalID(b.prefix), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	transaction := func(end kgo.TransactionEndTry, versions ...int) {
		require.NoError(t, producer.BeginTransaction())
		for _, version := range versions {
			m := message("online", id, order.Update, version)
			require.NoError(t, producer.ProduceSync(t.Context(), &kgo.Record{Topic: "online", Partition: p, Key: m.Key, Value: m.Value}).FirstErr())
		}
		require.NoError(t, producer.EndTransaction(t.Context(), end))
	}
	transaction(kgo.TryCommit, 1, 2) // 0, 1, marker 2
	transaction(kgo.TryAbort, 3, 4)  // 3, 4, marker 5
	transaction(kgo.TryCommit, 5)    // 6, marker 7
	transaction(kgo.TryAbort, 6)     // 8, marker 9

	m := b.run(b.options())
	b.awaitVersions(id, 1, 2, 5)
	b.awaitCommitted("online", int(p), 10)
	m.stop()

	transaction(kgo.TryAbort, slices.Repeat([]int{7}, 30)...)
	transaction(kgo.TryCommit, 8)
	o := b.options()
	o.Limits.MaxInFlight = 5 // fewer than the aborted records in the way
	b.run(o)
	b.awaitVersions(id, 1, 2, 5, 8)
	b.awaitCommitted("online", int(p), 10+31+2)
}

func TestOpenTransactionHoldsBackOnlyWhatFollows(t *testing.T) {
	b := setup(t)
	before, after := b.syncID(1), b.syncID(2)
	producer := b.kgo(kgo.TransactionalID(b.prefix), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	write := func(id string) {
		m := message("online", id, order.Creation, 1)
		require.NoError(t, producer.ProduceSync(t.Context(), &kgo.Record{Topic: "online", Partition: 0, Key: m.Key, Value: m.Value}).FirstErr())
	}
	require.NoError(t, producer.BeginTransaction())
	write(before)
	require.NoError(t, producer.EndTransaction(t.Context(), kgo.TryCommit))
	require.NoError(t, producer.BeginTransaction())
	write(after)

	b.run(b.options())
	b.awaitVersions(before, 1)
	b.awaitCommitted("online", 0, 2)
	_, err := b.handed(after)
	require.Error(t, err, "it is not committed yet")
	require.NoError(t, producer.EndTransaction(t.Context(), kgo.TryCommit))
	b.awaitVersions(after, 1)
}

// The server's limit is reached by a client that makes payloads larger, as encryption does.
func TestEventThatTemporalRefusesForItsSizeBecomesADeadLetter(t *testing.T) {
	b := setup(t)
	id := b.syncID(1)
	events := []kafka.Message{
		message("online", id, order.Creation, 1), message("online", id, order.Update, 2),
		message("online", id, order.Update, 3), message("online", id, order.Update, 4),
	}
	b.publish(events...)
	m := b.run(b.options(), func(i *Intake) {
		call := i.call
		i.call = func(ctx context.Context, events []order.Event) error {
			sent := slices.Clone(events)
			for n := range sent {
				if sent[n].Version == 3 {
					sent[n].Data = []byte(`"` + strings.Repeat("x", 3<<20) + `"`)
				}
			}
			return call(ctx, sent)
		}
	})
	b.awaitVersions(id, 1, 2, 4)
	b.awaitCommitted("online", home(id), 4)
	letters := b.buried()
	require.Len(t, letters, 1)
	require.Equal(t, events[2].Value, letters[0].Value)
	h := headers(letters[0])
	require.Equal(t, string(order.ValueTooLarge), h[publish.HeaderReason])
	require.Contains(t, h[publish.HeaderDetail], "Blob data size exceeds limit")
	require.Equal(t, "2", h[publish.HeaderOffset])
	require.Equal(t, id, h[publish.HeaderSyncID])
	require.NoError(t, m.Ready())
}
