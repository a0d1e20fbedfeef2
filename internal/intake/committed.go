package intake

import (
	"context"
	"errors"
	"time"

	"github.com/segmentio/kafka-go"

	"ordersync/internal/order"
	"ordersync/internal/recordset"
)

// Committed reads partitions as the starter does, without a group: committed records only, within the same bounds.
type Committed struct {
	Brokers   []string
	Transport kafka.RoundTripper
	// MaxValue is the largest value that is kept, in bytes; 0 is order.MaxValue. The message of a larger one has none.
	MaxValue int
}

// Fetch fetches once from offset on, waiting up to wait for the first record, and calls take with every record until it
// returns an error. next is where to go on. failed is an error of take, err one of the fetch; both may come after records.
//
// In the place of a batch that stays unreadable stands one message of its first offset, whose value is no event.
func (c Committed) Fetch(ctx context.Context, topic string, partition int, offset int64, wait time.Duration, take func(kafka.Message) error) (next int64, failed, err error) {
	return c.fetch(ctx, topic, partition, offset, fetchMost, wait, take)
}

// Peek is Fetch for those who want the first record: it reads as little as Kafka gives, which is the batch that the record
// is in.
func (c Committed) Peek(ctx context.Context, topic string, partition int, offset int64, wait time.Duration, take func(kafka.Message) error) (next int64, failed, err error) {
	return c.fetch(ctx, topic, partition, offset, fetchLeast, wait, take)
}

func (c Committed) fetch(ctx context.Context, topic string, partition int, offset int64, bytes int, wait time.Duration, take func(kafka.Message) error) (next int64, failed, err error) {
	maxValue := c.MaxValue
	if maxValue == 0 {
		maxValue = order.MaxValue
	}
	for check := 1; ; check++ {
		got, err := fetch(ctx, c.Transport, c.Brokers, topic, partition, offset, bytes, maxValue, wait)
		if err != nil {
			return offset, nil, err
		}
		for {
			messages, err := got.more(ctx, partMost)
			for _, m := range messages {
				if failed := take(m.Message); failed != nil {
					return m.Offset, failed, nil
				}
			}
			offset = got.next
			var corrupt *recordset.CorruptError
			if errors.As(err, &corrupt) {
				if check < doubtChecks {
					break
				}
				m := got.unreadable(corrupt)
				return got.next, take(m.Message), nil
			}
			if err != nil || len(messages) == 0 {
				return offset, nil, err
			}
		}
		bytes = doubtBytes
		if err := pause(ctx, doubtInterval); err != nil {
			return offset, nil, err
		}
	}
}
