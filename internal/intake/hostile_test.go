package intake

import (
	"bytes"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/stretchr/testify/require"

	"ordersync/internal/order"
	"ordersync/internal/publish"
	"ordersync/internal/recordset/recordsettest"
)

// produce writes a batch as it is.
func (b *bundle) produce(topic string, partition int, batch []byte) {
	b.t.Helper()
	response, err := b.kafka.RawProduce(b.t.Context(), &kafka.RawProduceRequest{
		Topic: topic, Partition: partition, RequiredAcks: kafka.RequireAll,
		RawRecords: protocol.RawRecordSet{Reader: bytes.NewReader(append([]byte{
			byte(len(batch) >> 24), byte(len(batch) >> 16), byte(len(batch) >> 8), byte(len(batch)),
		}, batch...))},
	})
	require.NoError(b.t, err)
	require.NoError(b.t, response.Error)
}

func TestBlanksBecomeADeadLetterAndTakeNoMemory(t *testing.T) {
	b := setup(t)
	id := b.syncID(1)
	p := home(id)
	const size = 300 << 20
	b.publish(message("online", id, order.Creation, 1))
	b.produce("online", p, recordsettest.Blanks(0, size))
	b.publish(message("online", id, order.Update, 2))

	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	most := before.HeapAlloc
	m := b.run(b.options())
	for b.committed("online", p) != 3 {
		var now runtime.MemStats
		runtime.ReadMemStats(&now)
		most = max(most, now.HeapAlloc)
		require.NoError(t, t.Context().Err())
		time.Sleep(time.Millisecond) //nolint:forbidigo // the memory is looked at again and again
	}
	b.awaitVersions(id, 1, 2)
	require.Less(t, (most-before.HeapAlloc)>>20, uint64(60), "MiB")
	letters := b.buried()
	require.Len(t, letters, 1)
	require.Nil(t, letters[0].Value)
	h := headers(letters[0])
	require.Equal(t, string(order.ValueTooLarge), h[publish.HeaderReason])
	require.Equal(t, strconv.Itoa(size), h[publish.HeaderSize])
	require.Equal(t, "1", h[publish.HeaderOffset])
	require.NoError(t, m.Ready())
}

// The records of one batch together are larger than what may be in flight: they are handed on as there is room.
func TestBatchLargerThanTheBounds(t *testing.T) {
	b := setup(t)
	id := b.syncID(1)
	p := home(id)
	const count, each = 300, 200 << 10 // 58 MiB
	batch := recordsettest.Batch{Last: count - 1, Attributes: 4, Compress: recordsettest.Codecs["zstd"].Compress}
	for n := range int64(count) {
		value := fmt.Sprintf(`{"sync_id":%q,"event":"order_updation","version":%d,"data":%q}`, b.syncID(int(n)), n+1, strings.Repeat(" ", each))
		batch.Records = append(batch.Records, recordsettest.Record{Offset: n, At: time.Now().UnixMilli(), Value: []byte(value)})
	}
	b.produce("online", p, batch.Bytes())
	batch = recordsettest.Batch{}
	o := b.options()
	o.Limits.MaxBytes = 3 << 20 // of which the topic has a third
	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	m := b.run(o)
	most := before.HeapAlloc
	for b.committed("online", p) != count {
		var now runtime.MemStats
		runtime.ReadMemStats(&now)
		most = max(most, now.HeapAlloc)
		require.NoError(t, t.Context().Err())
		time.Sleep(time.Millisecond) //nolint:forbidigo // the memory is looked at again and again
	}
	b.awaitVersions(b.syncID(0), 1)
	b.awaitVersions(b.syncID(count-1), count)
	require.Less(t, (most-before.HeapAlloc)>>20, uint64(60), "MiB")
	require.NoError(t, m.Ready())
}

func TestBatchThatCannotBeReadBecomesADeadLetter(t *testing.T) {
	b := setup(t)
	id := b.syncID(1)
	p := home(id)
	// The broker looks at the checksum of a compressed batch, and not into it.
	bad := recordsettest.Batch{Last: 4, Attributes: 4}
	b.publish(message("online", id, order.Creation, 1))
	b.produce("online", p, bad.Wrap([]byte("this is no zstd at all"), 5))
	b.publish(message("online", id, order.Update, 2))
	o := b.options()
	registry := prometheus.NewRegistry()
	o.Registerer = registry
	m := b.run(o)
	b.awaitVersions(id, 1, 2)
	b.awaitCommitted("online", p, 7)
	letters := b.buried()
	require.Len(t, letters, 1)
	h := headers(letters[0])
	require.Equal(t, string(order.CorruptBatch), h[publish.HeaderReason])
	require.Equal(t, "1", h[publish.HeaderOffset])
	require.Contains(t, h[publish.HeaderDetail], "offsets 1 to 5")
	require.Contains(t, string(letters[0].Value), "this is no zstd at all", "the batch as it is stored")
	require.Equal(t, 1.0, value(t, registry, "dead_letters_total", string(order.CorruptBatch)))
	require.NoError(t, m.Ready())
}

// No dead letter can take the key, so it goes without.
func TestKeyThatIsTooLarge(t *testing.T) {
	b := setup(t)
	id := b.syncID(1)
	p := home(id)
	key := bytes.Repeat([]byte("k"), 3<<20)
	event := message("online", id, order.Creation, 1).Value
	b.produce("online", p, recordsettest.Batch{Last: 1, Attributes: 4, Compress: recordsettest.Codecs["zstd"].Compress, Records: []recordsettest.Record{
		{Offset: 0, Key: key, Value: []byte("no event")}, {Offset: 1, Key: key, Value: event},
	}}.Bytes())
	m := b.run(b.options())
	b.awaitVersions(id, 1)
	b.awaitCommitted("online", p, 2)
	letters := b.buried()
	require.Len(t, letters, 1)
	require.Nil(t, letters[0].Key)
	require.Equal(t, "no event", string(letters[0].Value))
	require.Equal(t, strconv.Itoa(len(key)), headers(letters[0])[publish.HeaderKeySize])
	require.NoError(t, m.Ready())
}

// Producers also write no time, or seconds for milliseconds. Such a record is as old as it is known.
func TestTimestampsThatAreNone(t *testing.T) {
	b := setup(t)
	registry := prometheus.NewRegistry()
	o := b.options()
	o.Registerer = registry
	hold := make(chan struct{})
	var records []recordsettest.Record
	for n, ms := range []int64{-1, 0, time.Now().Unix(), time.Now().UnixMicro()} {
		m := message("online", b.syncID(n), order.Creation, 1)
		records = append(records, recordsettest.Record{Offset: int64(n), At: ms, Value: m.Value})
	}
	b.produce("online", 0, recordsettest.Batch{Last: 3, Records: records}.Bytes())
	m := b.run(o, b.holding(hold))
	b.awaitInFlight(m, len(records))
	require.Less(t, value(t, registry, "oldest_unfinished_seconds", "online", "0"), time.Hour.Seconds())
	close(hold)
	for n := range records {
		b.awaitVersions(b.syncID(n), 1)
	}
	b.awaitCommitted("online", 0, int64(len(records)))
}

func TestTimeThatCannotBeReadIsCounted(t *testing.T) {
	b := setup(t)
	id := b.syncID(1)
	event := func(version int, occurred string) kafka.Message {
		value := fmt.Sprintf(`{"sync_id":%q,"event":"order_updation","version":%d,"data":1,"occurred_at":%s}`, id, version, occurred)
		return kafka.Message{Topic: "online", Key: []byte(id), Value: []byte(value)}
	}
	b.publish(event(1, `"yesterday"`), event(2, `1700000000`), event(3, `"2026-01-01t00:00:00z"`), event(4, `null`))
	o := b.options()
	registry := prometheus.NewRegistry()
	o.Registerer = registry
	b.run(o)
	b.awaitVersions(id, 1, 2, 3, 4)
	b.awaitCommitted("online", home(id), 4)
	require.Equal(t, 2.0, value(t, registry, "unread_times_total", "online"))
	h, err := b.handed(id)
	require.NoError(t, err)
	require.Equal(t, h.events[0].Source.ReceivedAt, h.events[0].OccurredAt)
	require.Equal(t, 2026, h.events[2].OccurredAt.Year())
	require.Empty(t, b.buried())
}
