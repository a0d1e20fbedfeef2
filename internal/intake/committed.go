package intake

import (
	"context"
	"time"

	"github.com/segmentio/kafka-go"
)

// FetchCommitted reads a partition as the starter does, without a group: committed records from
// offset on, waiting up to wait for the first. next is where to go on; an error may come along with
// messages read before it.
func FetchCommitted(ctx context.Context, tr kafka.RoundTripper, brokers []string, topic string, partition int, offset int64, wait time.Duration) (messages []kafka.Message, next int64, err error) {
	f, err := fetch(ctx, tr, brokers, topic, partition, offset, fetchMost, wait)
	return f.messages, f.next, err
}

// PeekCommitted is FetchCommitted for those who want the first record: it reads as little as Kafka
// gives, which is the batch that the record is in.
func PeekCommitted(ctx context.Context, tr kafka.RoundTripper, brokers []string, topic string, partition int, offset int64, wait time.Duration) (messages []kafka.Message, next int64, err error) {
	f, err := fetch(ctx, tr, brokers, topic, partition, offset, fetchLeast, wait)
	return f.messages, f.next, err
}
