package publish

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ordersync/internal/devstack"
	"ordersync/internal/devstack/devtest"
	"ordersync/internal/order"
)

func TestMain(m *testing.M) { devtest.Main(m) }

const letters = "order-events.dead-letter"

func setup(t *testing.T) (*Producer, *devstack.Kafka) {
	t.Helper()
	server := devtest.KafkaEmbedded(t)
	p := New(Options{Brokers: server.Brokers(), DeadLetterTopic: letters})
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	return p, server
}

func create(t *testing.T, server *devstack.Kafka, topic string, partitions, maxBytes int) {
	t.Helper()
	client := &kafka.Client{Addr: kafka.TCP(server.Brokers()...)}
	response, err := client.CreateTopics(t.Context(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{
		Topic: topic, NumPartitions: partitions, ReplicationFactor: 1,
		ConfigEntries: []kafka.ConfigEntry{{ConfigName: "max.message.bytes", ConfigValue: strconv.Itoa(maxBytes)}},
	}}})
	require.NoError(t, err)
	require.NoError(t, response.Errors[topic])
}

// read returns the first n records of a topic, by another client than the one that wrote them.
func read(t *testing.T, server *devstack.Kafka, topic string, n int) []*kgo.Record {
	t.Helper()
	c, err := kgo.NewClient(kgo.SeedBrokers(server.Brokers()...), kgo.ConsumeTopics(topic), kgo.FetchMaxBytes(64<<20))
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
	require.Len(t, all, n)
	return all
}

func headerOf(r *kgo.Record, key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

// incompressible bytes, so that a topic's limit is met whatever the compression.
func incompressible(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

func TestPublishKeepsAKeyInOnePartitionAndInOrder(t *testing.T) {
	p, server := setup(t)
	create(t, server, "online", 6, 16<<20)
	var all []kafka.Message
	for n := range 300 {
		m := kafka.Message{Topic: "online", Key: fmt.Append(nil, "order-", n%7), Value: fmt.Append(nil, n)}
		if n%50 == 3 { // too large for a batch, between its neighbours
			m.Value = append(append(m.Value, ' '), bytes.Repeat([]byte("x"), 2<<20)...)
		}
		all = append(all, m)
	}
	require.NoError(t, p.Publish(t.Context(), all...))
	last := make(map[string]int)
	partition := make(map[string]int32)
	for _, r := range read(t, server, "online", len(all)) {
		key := string(r.Key)
		digits, _, _ := bytes.Cut(r.Value, []byte(" "))
		n, err := strconv.Atoi(string(digits))
		require.NoError(t, err)
		if before, ok := last[key]; ok {
			require.Less(t, before, n, "the order within a key")
			require.Equal(t, partition[key], r.Partition)
		}
		last[key], partition[key] = n, r.Partition
	}
	// Java's and librdkafka's murmur2 (partitioner=murmur2_random) agree on these.
	java := kgo.StickyKeyPartitioner(nil).ForTopic("online")
	for key, at := range partition {
		require.Equal(t, java.Partition(&kgo.Record{Key: []byte(key)}, 6), int(at), key)
	}
}

func TestPublishSaysWhichMessagesFailed(t *testing.T) {
	p, server := setup(t)
	create(t, server, "small", 1, 10<<10)
	create(t, server, "online", 1, 1<<20)
	message := func(topic string, size int) kafka.Message {
		return kafka.Message{Topic: topic, Key: []byte("1"), Value: incompressible(size)}
	}
	err := p.Publish(t.Context(), message("online", 10), message("small", 20<<10), message("online", 2<<20), message("online", 10))
	var failures Errors
	require.ErrorAs(t, err, &failures)
	require.Len(t, failures, 4)
	require.NoError(t, failures[0])
	require.ErrorIs(t, failures[1], kafka.MessageSizeTooLarge)
	require.ErrorIs(t, failures[2], kafka.MessageSizeTooLarge)
	require.NoError(t, failures[3])
	require.ErrorIs(t, err, kafka.MessageSizeTooLarge)
	require.ErrorContains(t, err, "2 of 4 messages were not published")
	require.Len(t, read(t, server, "online", 2), 2, "those that did not fail are there")
}

func TestPublishToAMissingTopicIsAnError(t *testing.T) {
	p, _ := setup(t)
	err := p.Publish(t.Context(), kafka.Message{Topic: "missing", Value: []byte("x")})
	require.ErrorIs(t, err, kafka.UnknownTopicOrPartition)
}

// A kafka.Writer made as a literal asks for no acknowledgement at all.
func TestPublishAsksForTheAcknowledgementOfAllReplicas(t *testing.T) {
	p, server := setup(t)
	create(t, server, "online", 1, 1<<20)
	asked := make(chan int16, 1)
	server.Cluster().ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		asked <- r.(*kmsg.ProduceRequest).Acks
		return nil, nil, false
	})
	require.NoError(t, p.Publish(t.Context(), kafka.Message{Topic: "online", Value: []byte("x")}))
	require.Equal(t, int16(-1), <-asked)
}

var source = order.Source{Topic: "online", Partition: 3, Offset: 1 << 40, ReceivedAt: time.Date(2024, 5, 6, 7, 8, 9, 123e6, time.UTC)}

func TestDeadLetterKeepsTheRecord(t *testing.T) {
	for name, letter := range map[string]order.DeadLetter{
		"event":     {Source: source, Key: []byte("42"), Value: []byte(`{"sync_id": 42, "event":"order_creation","data":{}}`), Reason: order.OrderBlocked, Detail: "behind a stuck order"},
		"null":      {Source: source, Key: []byte("k"), Reason: order.NullValue, Detail: "no value"},
		"empty":     {Source: source, Key: []byte{}, Value: []byte{}, Reason: order.MalformedJSON, Detail: "empty"},
		"no key":    {Source: source, Value: []byte{0xff, 0}, Reason: order.InvalidUTF8, Detail: string(bytes.Repeat([]byte("ä"), 2000))},
		"large":     {Source: source, Key: []byte("k"), Value: incompressible(12 << 20), Reason: order.ValueTooLarge},
		"zeros":     {Source: source, Key: []byte("k"), Value: make([]byte, 20<<20), Reason: order.ValueTooLarge},
		"too large": {Source: source, Key: []byte("k"), Value: incompressible(17 << 20), Reason: order.ValueTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			p, server := setup(t)
			create(t, server, letters, 1, 16<<20)
			require.NoError(t, p.DeadLetter(t.Context(), letter))
			r := read(t, server, letters, 1)[0]
			require.Equal(t, letter.Key == nil, r.Key == nil)
			require.True(t, bytes.Equal(letter.Key, r.Key))
			require.Equal(t, "online", headerOf(r, HeaderTopic))
			require.Equal(t, "3", headerOf(r, HeaderPartition))
			require.Equal(t, "1099511627776", headerOf(r, HeaderOffset))
			require.Equal(t, "2024-05-06T07:08:09.123Z", headerOf(r, HeaderTimestamp))
			require.Equal(t, string(letter.Reason), headerOf(r, HeaderReason))
			if name == "too large" {
				digest := sha256.Sum256(letter.Value)
				require.Nil(t, r.Value)
				require.Equal(t, strconv.Itoa(17<<20), headerOf(r, HeaderSize))
				require.Equal(t, hex.EncodeToString(digest[:]), headerOf(r, HeaderSHA256))
				return
			}
			require.Equal(t, letter.Value == nil, r.Value == nil, "null stays null")
			require.True(t, bytes.Equal(letter.Value, r.Value), "the original bytes")
			require.Empty(t, headerOf(r, HeaderSize))
			if name == "event" {
				require.Equal(t, "42", headerOf(r, HeaderSyncID))
			}
			require.LessOrEqual(t, len(headerOf(r, HeaderDetail)), maxDetail+len("…"))
		})
	}
}

func TestDeadLettersOfAKeyStayInOrder(t *testing.T) {
	p, server := setup(t)
	create(t, server, letters, 3, 16<<20)
	for n := range 20 {
		letter := order.DeadLetter{Source: source, Key: []byte("k"), Value: fmt.Append(nil, n), Reason: order.MalformedJSON}
		if n%5 == 0 {
			letter.Value = append(letter.Value, incompressible(1<<20)...)
		}
		require.NoError(t, p.DeadLetter(t.Context(), letter))
	}
	for n, r := range read(t, server, letters, 20) {
		require.True(t, bytes.HasPrefix(r.Value, fmt.Append(nil, n)))
	}
}

func TestDeadLetterWithoutItsTopicIsAnError(t *testing.T) {
	p, _ := setup(t)
	err := p.DeadLetter(t.Context(), order.DeadLetter{Source: source, Value: []byte("x"), Reason: order.MalformedJSON})
	require.ErrorIs(t, err, kafka.UnknownTopicOrPartition)
	require.ErrorContains(t, err, letters)
}

func TestCloseDoesNotWaitForEver(t *testing.T) {
	server := devtest.KafkaEmbedded(t)
	p := New(Options{Brokers: server.Brokers()})
	create(t, server, "online", 1, 1<<20)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	server.Cluster().ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		server.Cluster().KeepControl()
		cancel()
		return nil, nil, true
	})
	err := p.Publish(ctx, kafka.Message{Topic: "online", Value: []byte("x")})
	require.ErrorIs(t, err, context.Canceled)
	began := time.Now()
	require.ErrorContains(t, p.Close(), "has not acknowledged")
	require.Less(t, time.Since(began), 2*closeTimeout)
}

// refuse makes the brokers refuse a produce request for good if the function says so.
func refuse(server *devstack.Kafka, which func(topic string, partition int32) bool) {
	server.Cluster().ControlKey(int16(kmsg.Produce), func(r kmsg.Request) (kmsg.Response, error, bool) {
		server.Cluster().KeepControl()
		request := r.(*kmsg.ProduceRequest)
		response := request.ResponseKind().(*kmsg.ProduceResponse)
		refused := false
		for _, t := range request.Topics {
			topic := kmsg.NewProduceResponseTopic()
			topic.Topic = t.Topic
			for _, p := range t.Partitions {
				refused = refused || which(t.Topic, p.Partition)
				partition := kmsg.NewProduceResponseTopicPartition()
				partition.Partition, partition.ErrorCode = p.Partition, int16(kafka.TopicAuthorizationFailed)
				topic.Partitions = append(topic.Partitions, partition)
			}
			response.Topics = append(response.Topics, topic)
		}
		return response, nil, refused
	})
}

// A page is published again as a whole if some of it fails. Then nothing may already be there that
// came after what failed.
func TestNothingOvertakesAMessageThatFailed(t *testing.T) {
	p, server := setup(t)
	create(t, server, "online", 2, 1<<20)
	var all []kafka.Message
	for n := range 2500 {
		all = append(all, kafka.Message{Topic: "online", Key: fmt.Append(nil, n%7), Value: fmt.Append(nil, n)})
	}
	requests := 0
	refuse(server, func(_ string, partition int32) bool {
		if partition != 1 {
			return false
		}
		requests++
		return requests == 2 // in the midst of the page
	})
	var failures Errors
	require.ErrorAs(t, p.Publish(t.Context(), all...), &failures)
	first := slices.IndexFunc(failures, func(err error) bool { return err != nil })
	require.ErrorIs(t, failures[first], kafka.TopicAuthorizationFailed)
	require.ErrorIs(t, failures[len(all)-1], ErrNotSent)
	failedKeys := map[string]bool{}
	acknowledged := 0
	for i, failure := range failures {
		key := string(all[i].Key)
		if failure == nil {
			acknowledged++
			require.False(t, failedKeys[key], "message %d overtook one of its key", i)
		}
		failedKeys[key] = failedKeys[key] || failure != nil
	}
	require.Positive(t, acknowledged)

	require.NoError(t, p.Publish(t.Context(), all...))
	next := map[string]int{} // by key, of those that come for the first time
	for _, r := range read(t, server, "online", acknowledged+len(all)) {
		n, err := strconv.Atoi(string(r.Value))
		require.NoError(t, err)
		key := string(r.Key)
		expected, ok := next[key]
		if !ok {
			expected = n % 7
		}
		require.LessOrEqual(t, n, expected, "message %d came before %d", n, expected)
		if n == expected {
			next[key] = n + 7
		}
	}
}

// A topic's limit may be below what is put into a batch. Only what is too large by itself is refused.
func TestABatchThatIsTooLargeGoesOneByOne(t *testing.T) {
	p, server := setup(t)
	create(t, server, "small", 1, 10<<10)
	var all []kafka.Message
	for n := range 20 {
		all = append(all, kafka.Message{Topic: "small", Key: []byte("k"), Value: incompressible(1 << 10)})
		all[n].Value[0] = byte(n)
	}
	all[7].Value = incompressible(11 << 10)
	var failures Errors
	require.ErrorAs(t, p.Publish(t.Context(), all...), &failures)
	for n, failure := range failures {
		require.Equal(t, n == 7, TooLarge(failure), "%d: %v", n, failure)
		require.Equal(t, n == 7, failure != nil)
	}
	for n, r := range read(t, server, "small", 19) {
		if n >= 7 {
			n++
		}
		require.Equal(t, byte(n), r.Value[0])
	}
}
