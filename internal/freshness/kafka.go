package freshness

import (
	"context"
	"time"

	"github.com/segmentio/kafka-go"
	"golang.org/x/sync/errgroup"

	"ordersync/internal/order"
	"ordersync/internal/topics"
)

const (
	requestTimeout = 10 * time.Second
	// headReaders are the partitions whose heads are read at once.
	headReaders = 4
)

// backlog is what of a partition the group has not finished: Offsets from its committed one to the
// end of the log.
type backlog struct {
	topics.Span
	// head is the first record of it; nil where there is none.
	head *head
}

// head is the record that a partition goes on with.
type head struct {
	offset int64
	// at is the ERP's time of its event. What is no event has the record's, and a record is never
	// younger than its timestamp.
	at time.Time
	// since is the record's timestamp, or when it was looked at where that is not plausible.
	since  time.Time
	syncID string // empty for what is no event
}

// backlogs looks the partitions of topics up, and reads the head of each that lags. Of a topic for
// backfills that does not exist there are none.
//
// The ends are asked for before the committed offsets: what was in a log by then and is below the
// committed offset has left Kafka, so a partition without a backlog had none at that moment.
func (p *Probe) backlogs(ctx context.Context, channels map[string]order.Channel) ([]backlog, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	spans, err := p.Reader.SpansOf(ctx, channels, p.Backfill, time.Time{})
	if err != nil {
		return nil, err
	}
	if len(spans) == 0 {
		return nil, nil
	}
	if err := p.Reader.PassCommitted(ctx, p.Group, spans); err != nil {
		return nil, err
	}
	all := make([]backlog, len(spans))
	for i, s := range spans {
		all[i].Span = s
	}
	readers, ctx := errgroup.WithContext(ctx)
	readers.SetLimit(headReaders)
	for i := range all {
		if b := &all[i]; b.Len() > 0 {
			readers.Go(func() error {
				m, found, err := p.Reader.Head(ctx, b.Span)
				if found {
					b.head = headOf(m, channels[m.Topic], time.Now())
				}
				return err
			})
		}
	}
	if err := readers.Wait(); err != nil {
		return nil, err
	}
	return all, nil
}

func headOf(m kafka.Message, channel order.Channel, now time.Time) *head {
	since := m.Time.UTC()
	if !order.Plausible(since, now) {
		since = now.UTC()
	}
	h := &head{offset: m.Offset, at: since, since: since}
	e, err := order.Decode(order.Record{
		Topic: m.Topic, Partition: m.Partition, Offset: m.Offset, Timestamp: m.Time, Value: m.Value,
	}, channel)
	if err != nil {
		return h // a dead letter to be
	}
	h.syncID = e.SyncID
	if e.OccurredAt.Before(h.at) && order.Plausible(e.OccurredAt, now) { // a later one is an ERP whose clock is ahead
		h.at = e.OccurredAt
	}
	return h
}
