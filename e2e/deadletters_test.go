package e2e

import (
	"context"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"ordersync/internal/publish"
)

// client is another Kafka client than the one that ordersync uses.
func (b *bundle) client(options ...kgo.Opt) *kgo.Client {
	b.Helper()
	c, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(b.cfg.Kafka.Brokers...)}, options...)...)
	require.NoError(b, err)
	b.Cleanup(c.Close)
	return c
}

// letter is a dead letter.
type letter struct {
	key, value []byte // nil where they are null
	reason     string
	topic      string // of the record it stands for
	place      string // of that record: topic/partition/offset
	// size and sha256 stand for a value that was too large to keep; empty otherwise.
	size, sha256 string
}

// deadLetters reads the dead-letter topic, which has one partition, to its end.
func (b *bundle) deadLetters() []letter {
	b.Helper()
	topic := b.cfg.Kafka.DeadLetterTopic
	answer, err := b.kafka.ListOffsets(b.Context(), &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{topic: {kafka.LastOffsetOf(0)}}})
	require.NoError(b, err)
	require.NoError(b, answer.Topics[topic][0].Error)
	end := int(answer.Topics[topic][0].LastOffset)

	var letters []letter
	reader := b.client(kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxBytes(64<<20), kgo.FetchMaxPartitionBytes(64<<20))
	ctx, cancel := context.WithTimeout(b.Context(), 30*time.Second)
	defer cancel()
	for len(letters) < end {
		fetches := reader.PollFetches(ctx)
		require.NoError(b, fetches.Err0())
		for _, r := range fetches.Records() {
			letters = append(letters, letter{key: r.Key, value: r.Value, reason: header(r, publish.HeaderReason), topic: header(r, publish.HeaderTopic),
				place: header(r, publish.HeaderTopic) + "/" + header(r, publish.HeaderPartition) + "/" + header(r, publish.HeaderOffset),
				size:  header(r, publish.HeaderSize), sha256: header(r, publish.HeaderSHA256),
			})
		}
	}
	return letters
}

func header(r *kgo.Record, key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}
