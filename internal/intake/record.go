package intake

import (
	"github.com/segmentio/kafka-go"

	"ordersync/internal/order"
)

// record is one fetched record on its way to Temporal, or to the dead-letter topic. It keeps the
// original bytes, which a dead letter needs, beside what was read in them.
type record struct {
	message   kafka.Message
	event     order.Event
	rejection *order.Rejection // why it is no event; nil if it is one

	partition *partition
	tracker   *tracker // where its end is noted
}

// size is what the record counts against the bound of bytes in flight.
func (r *record) size() int {
	return len(r.message.Key) + len(r.message.Value) + r.event.Size()
}

func (r *record) deadLetter(reason order.Reason, detail string) order.DeadLetter {
	return order.DeadLetter{
		Source: order.Source{
			Topic:      r.message.Topic,
			Partition:  r.message.Partition,
			Offset:     r.message.Offset,
			ReceivedAt: r.message.Time,
		},
		Key:    r.message.Key,
		Value:  r.message.Value,
		Reason: reason,
		Detail: detail,
	}
}
