package e2e

import (
	"bytes"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"ordersync/internal/order"
)

// Messages of the three required fields alone, as somebody types them into any client: without an
// event_id and a version they are new events each time they are sent.
func TestMinimalMessages(t *testing.T) {
	b := setup(t)
	b.run()
	online := b.topics()[order.Online]

	// Each way to send a message: what key it gets, if any, and which partition.
	ways := []struct {
		name string
		send func(syncID string, value []byte)
	}{
		{"the key murmur2 as Java does", func(syncID string, value []byte) { b.produce(online, keyed(syncID, kafka.Murmur2Balancer{}), value) }},
		{"the key CRC32 as librdkafka does", func(syncID string, value []byte) { b.produce(online, keyed(syncID, kafka.CRC32Balancer{}), value) }},
		{"a foreign key", func(_ string, value []byte) {
			b.produce(online, keyed("customer 17850", kafka.Murmur2Balancer{}), value)
		}},
		{"no key", func(_ string, value []byte) { b.produce(online, place{partition: 4}, value) }},
	}
	if kcat, err := exec.LookPath("kcat"); err == nil {
		ways = append(ways, struct {
			name string
			send func(string, []byte)
		}{"kcat", func(syncID string, value []byte) {
			send := exec.CommandContext(t.Context(), kcat, "-P", "-b", b.environ["KAFKA_BROKERS"], "-t", online, "-K", "|")
			send.Stdin = strings.NewReader(syncID + "|" + string(value) + "\n")
			out, err := send.CombinedOutput()
			require.NoError(t, err, "%s", out)
		}})
	}
	for i, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			first, second := fmt.Sprint(2*i+1), fmt.Sprint(2*i+2) // the orders
			count := func(query string) int { return b.count(query+" AND sync_id IN (?, ?)", first, second) }
			for _, times := range []int{1, 2} {
				for _, m := range []struct {
					syncID string
					kind   order.Kind
					data   string
				}{
					{first, order.Creation, "this data should sync to MySQL db"},
					{second, order.Creation, "and this"},
					{first, order.Update, "this data has changed"},
					{second, order.Update, "and this too"},
					{first, order.Invoice, "an invoice"},
				} {
					way.send(m.syncID, fmt.Appendf(nil, `{"sync_id":%s,"data":%q,"event":%q}`, m.syncID, m.data, m.kind))
				}
				b.settle(time.Minute)
				require.Equal(t, 2, count("SELECT COUNT(*) FROM orders WHERE TRUE"))
				require.Equal(t, 1, b.count(`SELECT COUNT(*) FROM orders WHERE sync_id = ? AND status = 'invoiced' AND version IS NULL AND JSON_UNQUOTE(data) = 'this data has changed'`, first))
				require.Equal(t, 1, b.count(`SELECT COUNT(*) FROM orders WHERE sync_id = ? AND status = 'open' AND version IS NULL AND JSON_UNQUOTE(data) = 'and this too'`, second))
				require.Equal(t, times, count("SELECT COUNT(*) FROM invoices WHERE TRUE"))
				require.Equal(t, 5*times, count(ledgerRows+" WHERE TRUE"))
				stale := 2 * (times - 1)
				require.Equal(t, stale, count(ledgerRows+" WHERE outcome = 'stale'"))
				require.Equal(t, stale, count(ledgerRows+" WHERE outcome = 'stale' AND kind = 'order_creation'"))
				require.Equal(t, 5*times-stale, count(ledgerRows+" WHERE outcome = 'applied'"))
			}
		})
	}
	b.requireAppliedOnce()
	b.requireCommitted()
	require.Empty(t, b.deadLetters())
}

// place is where a record goes to, and its key, nil for none.
type place struct {
	key       []byte
	partition int
}

// partitions of each topic, as setup makes them.
const partitions = 6

// keyed is the place of a key under a client's partitioner.
func keyed(key string, balancer kafka.Balancer) place {
	numbers := make([]int, partitions)
	for i := range numbers {
		numbers[i] = i
	}
	return place{[]byte(key), balancer.Balance(kafka.Message{Key: []byte(key)}, numbers...)}
}

// produce sends one record, whatever it is.
func (b *bundle) produce(topic string, at place, value []byte, options ...kgo.Opt) {
	b.Helper()
	c := b.client(append([]kgo.Opt{kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchMaxBytes(16 << 20)}, options...)...)
	defer c.Close()
	record := &kgo.Record{Topic: topic, Partition: int32(at.partition), Key: at.key, Value: bytes.Clone(value)}
	require.NoError(b, c.ProduceSync(b.Context(), record).FirstErr())
}
