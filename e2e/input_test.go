package e2e

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"ordersync/internal/order"
)

// Whatever stands in a topic, it is applied or becomes a dead letter with the reason and the
// original bytes, and the orders around it go on.
func TestBadInput(t *testing.T) {
	b := setup(t)
	online := b.topics()[order.Online]
	bad := []struct {
		name   string
		value  []byte
		reason order.Reason
	}{
		{"null", nil, order.NullValue},
		{"empty", []byte{}, order.MalformedJSON},
		{"malformed", []byte(`{"sync_id":1,`), order.MalformedJSON},
		{"no JSON", []byte("hello"), order.MalformedJSON},
		{"an array", []byte(`[{"sync_id":1,"event":"order_creation","data":1}]`), order.MalformedJSON},
		{"no sync_id", []byte(`{"event":"order_creation","data":1}`), order.MissingField},
		{"no event", []byte(`{"sync_id":1,"data":1}`), order.MissingField},
		{"no data", []byte(`{"sync_id":1,"event":"order_creation"}`), order.MissingField},
		{"null data", []byte(`{"sync_id":1,"event":"order_creation","data":null}`), order.MissingField},
		{"unknown event", []byte(`{"sync_id":1,"event":"order_deletion","data":1}`), order.UnknownEvent},
		{"event of a wrong type", []byte(`{"sync_id":1,"event":7,"data":1}`), order.InvalidField},
		{"sync_id of a wrong type", []byte(`{"sync_id":1.5,"event":"order_creation","data":1}`), order.InvalidField},
		{"version of a wrong type", []byte(`{"sync_id":1,"event":"order_creation","data":1,"version":"two"}`), order.InvalidField},
		{"version 0", []byte(`{"sync_id":1,"event":"order_creation","data":1,"version":0}`), order.InvalidField},
		{"event_id of a wrong type", []byte(`{"sync_id":1,"event":"order_creation","data":1,"event_id":[]}`), order.InvalidField},
		{"data nested too deeply", []byte(`{"sync_id":1,"event":"order_creation","data":` + strings.Repeat("[", 101) + strings.Repeat("]", 101) + `}`), order.TooDeep},
		{"invalid UTF-8", []byte("{\"sync_id\":1,\"event\":\"order_creation\",\"data\":\"\xff\"}"), order.InvalidUTF8},
		{"oversize", []byte(`{"sync_id":1,"event":"order_creation","data":"` + strings.Repeat("x", 2<<20) + `"}`), order.ValueTooLarge},
	}
	s := seed(t)
	good := orders(s, 30)
	for i, c := range bad {
		// In every partition, and between the events of orders.
		b.produce(online, place{partition: i % partitions, key: fmt.Appendf(nil, "key %d", i)}, c.value, kgo.ProducerBatchCompression(kgo.ZstdCompression()))
		b.load(ndjson(t, good[5*i%len(good):min(len(good), 5*i%len(good)+5)]))
	}
	b.load(ndjson(t, good))
	b.run()
	summary := b.settle(time.Minute)
	require.Equal(t, len(bad), summary.DeadLetters)
	b.requireModel(good)
	b.requireCommitted()
	b.requireNoneRunning()

	letters := b.deadLetters()
	require.Len(t, letters, len(bad))
	for i, c := range bad {
		at := slices.IndexFunc(letters, func(l letter) bool { return string(l.key) == fmt.Sprintf("key %d", i) })
		require.GreaterOrEqual(t, at, 0, "%s: no dead letter", c.name)
		require.Equal(t, string(c.reason), letters[at].reason, c.name)
		require.Equal(t, online, letters[at].topic, c.name)
		if c.reason == order.ValueTooLarge {
			letters[at].requireDigest(t, c.value)
			continue
		}
		require.Equal(t, c.value == nil, letters[at].value == nil, "%s: null stays null", c.name)
		require.True(t, string(c.value) == string(letters[at].value), "%s: the original bytes", c.name)
	}
}

// requireDigest finds size and digest in the place of a value that is too large to keep.
func (l letter) requireDigest(t *testing.T, value []byte) {
	t.Helper()
	digest := sha256.Sum256(value)
	require.Nil(t, l.value)
	require.Equal(t, []string{strconv.Itoa(len(value)), hex.EncodeToString(digest[:])}, []string{l.size, l.sha256})
}

// A producer that compresses gets values past the topic's limit, which counts the compressed
// bytes. They are read in full, up to the limit of an event.
func TestCompressedLargeValues(t *testing.T) {
	b := setup(t)
	b.run()
	online := b.topics()[order.Online]
	event := func(syncID string, size int) []byte {
		frame := `{"sync_id":"` + syncID + `","event":"order_creation","data":""}`
		return []byte(strings.Replace(frame, `"data":"`, `"data":"`+strings.Repeat("0", size-len(frame)), 1))
	}
	fits, exceeds := event("fits", order.MaxValue), event("exceeds", 3<<20)
	zstd := kgo.ProducerBatchCompression(kgo.ZstdCompression())
	b.produce(online, keyed("exceeds", kafka.Murmur2Balancer{}), exceeds, zstd)
	b.produce(online, keyed("fits", kafka.Murmur2Balancer{}), fits, zstd)
	b.settle(time.Minute)
	require.Equal(t, 1, b.count(ledgerRows))
	require.Equal(t, len(fits)-len(event("fits", 100))+100-len(`{"sync_id":"fits","event":"order_creation","data":""}`),
		b.count("SELECT LENGTH(JSON_UNQUOTE(data)) FROM orders WHERE sync_id = 'fits'"))
	letters := b.deadLetters()
	require.Len(t, letters, 1)
	require.Equal(t, string(order.ValueTooLarge), letters[0].reason)
	letters[0].requireDigest(t, exceeds)
	b.requireCommitted()
}

// Events of a transaction count when it is committed, and never when it is aborted.
func TestTransactionalProducer(t *testing.T) {
	b := setup(t)
	b.run()
	online := b.topics()[order.Online]
	producer := b.client(kgo.TransactionalID(b.environ["KAFKA_GROUP"]), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	transaction := func(end kgo.TransactionEndTry, syncIDs ...int) {
		t.Helper()
		require.NoError(t, producer.BeginTransaction())
		for _, id := range syncIDs {
			at := keyed(fmt.Sprint(id), kafka.Murmur2Balancer{})
			for version, kind := range order.Kinds {
				require.NoError(t, producer.ProduceSync(t.Context(), &kgo.Record{
					Topic: online, Partition: int32(at.partition), Key: at.key,
					Value: fmt.Appendf(nil, `{"sync_id":%d,"event":%q,"version":%d,"data":{"end":%t}}`, id, kind, version+1, bool(end)),
				}).FirstErr())
			}
		}
		require.NoError(t, producer.EndTransaction(t.Context(), end))
	}
	// An order of its own in the aborted one, and events that the committed one then brings for good.
	transaction(kgo.TryAbort, 1, 2, 3)
	transaction(kgo.TryCommit, 2, 3, 4)
	transaction(kgo.TryAbort, 5)

	summary := b.settle(time.Minute)
	require.Equal(t, 9, summary.Events)
	require.Equal(t, 9, b.count(ledgerRows+" WHERE outcome = 'applied'"))
	require.Equal(t, 3, b.count("SELECT COUNT(*) FROM orders WHERE sync_id IN ('2', '3', '4') AND status = 'invoiced' AND JSON_VALUE(data, '$.end') IN ('true', '1')"))
	require.Equal(t, 3, b.count("SELECT COUNT(*) FROM orders"))
	require.Empty(t, b.deadLetters())
	b.requireAppliedOnce()
	b.requireCommitted() // past the markers at the end
}
