package target

import (
	"context"
	"time"

	"ordersync/internal/order"
)

// Arrivals are the applied events of an order by where they stood in Kafka, as far as it tells
// whether another event would be overtaken by them. It is of the moment it was read.
type Arrivals struct {
	// last and latest have, for each partition, the event with the highest offset and the one with
	// the latest timestamp.
	last, latest map[partition]Entry
}

type partition struct {
	topic string
	id    int
}

// Arrivals reads what of an order was applied.
func (t *Target) Arrivals(ctx context.Context, syncID string) (Arrivals, error) {
	entries, err := t.Timeline(ctx, syncID)
	if err != nil {
		return Arrivals{}, err
	}
	a := Arrivals{last: map[partition]Entry{}, latest: map[partition]Entry{}}
	for _, e := range entries {
		if e.Outcome != order.Applied {
			continue
		}
		at := partition{e.SourceTopic, e.SourcePartition}
		if known, ok := a.last[at]; !ok || e.SourceOffset > known.SourceOffset {
			a.last[at] = e
		}
		if known, ok := a.latest[at]; !ok || e.ReceivedAt.After(known.ReceivedAt) {
			a.latest[at] = e
		}
	}
	return a, nil
}

// After finds an applied event that arrived after the place s. An event without a version, which goes
// by its arrival, must not be applied from there any more: it would bring older data back.
//
// Arrival is the offset within a partition, and the timestamp between partitions. Within one, a
// later timestamp counts as well: the offsets of a topic that was made anew begin at 0 again. Times
// that do not tell count as after.
func (a Arrivals) After(s order.Source) (Entry, bool) {
	home := partition{s.Topic, s.Partition}
	if e, ok := a.last[home]; ok && e.SourceOffset > s.Offset {
		return e, true
	}
	received := s.ReceivedAt.Truncate(time.Millisecond) // what the ledger keeps
	for at, e := range a.latest {
		if e.ReceivedAt.After(received) || at != home && e.ReceivedAt.Equal(received) {
			return e, true
		}
	}
	return Entry{}, false
}
