package intake

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"ordersync/internal/devstack/devtest"
	"ordersync/internal/order"
	"ordersync/internal/publish"
	"ordersync/internal/recordset/recordsettest"
)

// What only a real broker does: it compacts, and writes its own time. `make test-real` runs these.

// setupApache is a bundle on a real broker, with one topic of one partition.
func setupApache(t *testing.T, config ...kafka.ConfigEntry) (b *bundle, topic string) {
	t.Helper()
	if os.Getenv(devtest.KafkaVariable) == "" {
		t.Skip("needs a real Kafka: make test-real")
	}
	b = &bundle{t: t, brokers: devtest.Kafka(t), prefix: devtest.Name(t, "o") + "-"}
	b.kafka = &kafka.Client{Addr: kafka.TCP(b.brokers...), Transport: &kafka.Transport{MetadataTTL: 100 * time.Millisecond}}
	topic = b.prefix + "online"
	response, err := b.kafka.CreateTopics(t.Context(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{
		{Topic: topic, NumPartitions: 1, ReplicationFactor: 1, ConfigEntries: config},
		{Topic: b.prefix + deadLetters, NumPartitions: 1, ReplicationFactor: 1},
	}})
	require.NoError(t, err)
	require.NoError(t, errors.Join(response.Errors[topic], response.Errors[b.prefix+deadLetters]))
	devtest.Eventually(t, time.Minute, func() error { // a new topic has no leader at first
		offsets, err := b.kafka.ListOffsets(t.Context(), &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{
			topic: {kafka.LastOffsetOf(0)}, b.prefix + deadLetters: {kafka.LastOffsetOf(0)},
		}})
		if err != nil {
			return err
		}
		for _, found := range offsets.Topics {
			err = errors.Join(err, found[0].Error)
		}
		return err
	}, "the topics have leaders")
	b.temporal = dial(t, "default")
	b.producer = publish.New(publish.Options{Brokers: b.brokers, Transport: b.kafka.Transport, DeadLetterTopic: b.prefix + deadLetters})
	t.Cleanup(func() { require.NoError(t, b.producer.Close()) })
	return b, topic
}

func (b *bundle) optionsOf(topic string) Options {
	o := b.options()
	o.Topics = map[string]order.Channel{topic: order.Online}
	o.Group = b.prefix + "group"
	return o
}

// awaitAll waits until a group has committed all of the partition.
func (b *bundle) awaitAll(group, topic string) {
	b.t.Helper()
	devtest.Eventually(b.t, time.Minute, func() error {
		offsets, err := b.kafka.ListOffsets(b.t.Context(), &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{topic: {kafka.LastOffsetOf(0)}}})
		if err != nil {
			return err
		}
		response, err := b.kafka.OffsetFetch(b.t.Context(), &kafka.OffsetFetchRequest{GroupID: group, Topics: map[string][]int{topic: {0}}})
		if err != nil || response.Error != nil {
			return errors.Join(err, response.Error)
		}
		if at, end := response.Topics[topic][0].CommittedOffset, offsets.Topics[topic][0].LastOffset; at != end {
			return fmt.Errorf("%d of %d is committed", at, end)
		}
		return nil
	}, "all is committed")
}

// Compaction leaves a batch without its last records, and an idempotent producer's last batch without any. Both keep their
// last offsets, so a reader that goes by records asks for them for ever.
func TestApacheKafkaCompacts(t *testing.T) {
	b, topic := setupApache(t,
		kafka.ConfigEntry{ConfigName: "cleanup.policy", ConfigValue: "compact"}, kafka.ConfigEntry{ConfigName: "segment.ms", ConfigValue: "500"},
		kafka.ConfigEntry{ConfigName: "min.cleanable.dirty.ratio", ConfigValue: "0.001"}, kafka.ConfigEntry{ConfigName: "max.compaction.lag.ms", ConfigValue: "1000"})
	producer := func() *kgo.Client {
		return b.kgo(kgo.DefaultProduceTopic(topic), kgo.ProducerLinger(100*time.Millisecond), kgo.ProducerBatchMaxBytes(900<<10), kgo.ProducerBatchCompression(kgo.NoCompression()))
	}
	next := int64(0)
	// batch writes events of orders in one batch, each larger than a small fetch.
	batch := func(c *kgo.Client, version int, orders ...int) {
		t.Helper()
		var records []*kgo.Record
		for _, n := range orders {
			noise := make([]byte, 10<<10)
			_, _ = rand.Read(noise)
			value := fmt.Sprintf(`{"sync_id":%q,"event":"order_updation","version":%d,"data":%q}`, b.syncID(n), version, hex.EncodeToString(noise))
			records = append(records, &kgo.Record{Key: []byte(b.syncID(n)), Value: []byte(value)})
		}
		require.NoError(t, c.ProduceSync(t.Context(), records...).FirstErr())
		next += int64(len(records))
		require.Equal(t, next-1, records[len(records)-1].Offset)
	}
	first, second, third := producer(), producer(), producer()
	batch(first, 1, 0, 1, 2, 3, 4, 5) // 0 to 5, of which 3 to 5 go
	batch(second, 2, 3, 4)            // 6 and 7, of which nothing stays
	batch(third, 3, 3, 4)
	batch(third, 3, 5)

	read := func() (offsets []int64) {
		for at := int64(0); at < next; {
			to, failed, err := Committed{Brokers: b.brokers, Transport: b.kafka.Transport}.Fetch(t.Context(), topic, 0, at, time.Second,
				func(m kafka.Message) error { offsets = append(offsets, m.Offset); return nil })
			require.NoError(t, errors.Join(failed, err))
			require.Greater(t, to, at, "it goes on")
			at = to
		}
		return offsets
	}
	filler := 0
	devtest.Eventually(t, 2*time.Minute, func() error {
		filler++
		batch(third, 1, 1000+filler) // rolls the segment, as only then is it compacted
		if got := read(); !slices.Equal(got[:6], []int64{0, 1, 2, 8, 9, 10}) {
			return fmt.Errorf("not compacted yet: offsets %v", got)
		}
		return nil
	}, "the broker compacts")

	got, err := fetch(t.Context(), b.kafka.Transport, b.brokers, topic, 0, 3, fetchLeast, order.MaxValue, time.Second)
	require.NoError(t, err)
	messages, err := got.more(t.Context(), partMost)
	require.NoError(t, err)
	require.Empty(t, messages, "the end of the first batch")
	require.Equal(t, int64(6), got.next)

	o := b.optionsOf(topic)
	m := b.run(o)
	b.awaitAll(o.Group, topic)
	for n, version := range map[int]int64{0: 1, 1: 1, 2: 1, 3: 3, 4: 3, 5: 3, 1000 + filler: 1} {
		b.awaitVersions(b.syncID(n), version)
	}
	require.NoError(t, m.Ready())
}

func TestApacheKafkaWritesItsOwnTime(t *testing.T) {
	b, topic := setupApache(t, kafka.ConfigEntry{ConfigName: "message.timestamp.type", ConfigValue: "LogAppendTime"})
	began := time.Now().Add(-time.Minute) // the broker's clock is this one's
	m := message(topic, b.syncID(1), order.Creation, 1)
	m.Time = time.Date(2001, 1, 1, 0, 0, 0, 0, time.UTC)
	b.publish(m)
	var at time.Time
	_, failed, err := Committed{Brokers: b.brokers, Transport: b.kafka.Transport}.Fetch(t.Context(), topic, 0, 0, 10*time.Second,
		func(m kafka.Message) error { at = m.Time; return nil })
	require.NoError(t, errors.Join(failed, err))
	require.True(t, at.After(began), "%s", at)
}

// A default topic takes 300 MiB of blanks.
func TestApacheKafkaTakesBlanks(t *testing.T) {
	b, topic := setupApache(t)
	b.produce(topic, 0, recordsettest.Blanks(0, 300<<20))
	b.publish(message(topic, b.syncID(1), order.Creation, 1))
	o := b.optionsOf(topic)
	m := b.run(o)
	b.awaitVersions(b.syncID(1), 1)
	b.awaitAll(o.Group, topic)
	require.NoError(t, m.Ready())
}
