package intake

import (
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"

	"ordersync/internal/order"
)

// record is one fetched record on its way to Temporal, or to the dead-letter topic. It keeps the
// original bytes, which a dead letter needs, beside what was read in them.
type record struct {
	message   kafka.Message
	event     order.Event
	rejection *order.Rejection // why it is no event; nil if it is one
	// keyDigest and valueDigest stand for a key and a value that were too large to keep.
	keyDigest, valueDigest *order.Digest

	partition *partition
	tracker   *tracker // where its end is noted
}

// size is what the record counts against the bound of bytes in flight.
func (r *record) size() int {
	return len(r.message.Key) + len(r.message.Value) + r.event.Size()
}

// since is when the record was written. One without a plausible timestamp counts from now on.
func (r *record) since() time.Time {
	if now := time.Now(); !order.Plausible(r.message.Time, now) {
		return now
	}
	return r.message.Time
}

func (r *record) deadLetter(reason order.Reason, detail string) order.DeadLetter {
	return order.DeadLetter{
		Source: order.Source{
			Topic:      r.message.Topic,
			Partition:  r.message.Partition,
			Offset:     r.message.Offset,
			ReceivedAt: r.message.Time,
		},
		Key:         r.message.Key,
		Value:       r.message.Value,
		KeyDigest:   r.keyDigest,
		ValueDigest: r.valueDigest,
		Reason:      reason,
		Detail:      detail,
	}
}

// event is the event in a message, and whether its occurred_at could not be read. Every error is a *order.Rejection.
func (m incoming) event(channel order.Channel) (e order.Event, unreadTime bool, err error) {
	switch {
	case m.corrupt != nil:
		return order.Event{}, false, &order.Rejection{Reason: order.CorruptBatch, Detail: fmt.Sprintf(
			"%v; it stands for all events of these offsets: have them published again", m.corrupt)}
	case m.valueDigest != nil:
		return order.Event{}, false, &order.Rejection{Reason: order.ValueTooLarge, Detail: fmt.Sprintf(
			"the value has %d bytes, the limit is %d", m.valueDigest.Size, order.MaxValue)}
	}
	fields, err := order.ParseFields(m.Value)
	if err != nil {
		return order.Event{}, false, err
	}
	e, err = fields.Event(order.Record{Topic: m.Topic, Partition: m.Partition, Offset: m.Offset, Timestamp: m.Time}, channel)
	// Only an event with the record's timestamp may have a time that could not be read. Few are looked at twice.
	if err == nil && !fields.Absent("occurred_at") && e.OccurredAt.Equal(e.Source.ReceivedAt) {
		_, read := fields.OccurredAt()
		unreadTime = !read
	}
	return e, unreadTime, err
}
