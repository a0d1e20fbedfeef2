package freshness

import (
	"context"
	"errors"
	"fmt"
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
	at     time.Time
	since  time.Time // the record's timestamp
	syncID string    // empty for what is no event
}

// backlogs looks the partitions of topics up, and reads the head of each that lags. Of a topic for
// backfills that does not exist there are none.
//
// The ends are asked for before the committed offsets: what was in a log by then and is below the
// committed offset has left Kafka, so a partition without a backlog had none at that moment.
func (p *Probe) backlogs(ctx context.Context, channels map[string]order.Channel) ([]backlog, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	var all []backlog
	for topic := range channels {
		spans, err := p.Reader.Spans(ctx, topic, time.Time{})
		if _, optional := p.Backfill[topic]; optional && errors.Is(err, topics.ErrNoTopic) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, s := range spans {
			all = append(all, backlog{Span: s})
		}
	}
	if len(all) == 0 {
		return nil, nil
	}
	if err := p.passCommitted(ctx, all); err != nil {
		return nil, err
	}
	readers, ctx := errgroup.WithContext(ctx)
	readers.SetLimit(headReaders)
	for i := range all {
		if b := &all[i]; b.Len() > 0 {
			readers.Go(func() error {
				m, found, err := p.Reader.Head(ctx, b.Span)
				if found {
					b.head = headOf(m, channels[m.Topic])
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

func headOf(m kafka.Message, channel order.Channel) *head {
	h := &head{offset: m.Offset, at: m.Time.UTC(), since: m.Time.UTC()}
	e, err := order.Decode(order.Record{
		Topic: m.Topic, Partition: m.Partition, Offset: m.Offset, Timestamp: m.Time, Value: m.Value,
	}, channel)
	if err != nil {
		return h // a dead letter to be
	}
	h.syncID = e.SyncID
	if e.OccurredAt.Before(h.at) { // a later one is an ERP whose clock is ahead
		h.at = e.OccurredAt
	}
	return h
}

// passCommitted leaves of each log what is not committed.
func (p *Probe) passCommitted(ctx context.Context, all []backlog) error {
	partitions := map[string][]int{}
	for _, b := range all {
		partitions[b.Topic] = append(partitions[b.Topic], b.Partition)
	}
	c := kafka.Client{Addr: kafka.TCP(p.Reader.Brokers...), Transport: p.Reader.Transport}
	response, err := c.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: p.Group, Topics: partitions})
	if err == nil {
		err = response.Error
	}
	if errors.Is(err, kafka.GroupIdNotFound) {
		return nil // no starter has ever run
	}
	if err != nil {
		return fmt.Errorf("ask Kafka for the offsets of group %s: %w", p.Group, err)
	}
	type place struct {
		topic     string
		partition int
	}
	committed := map[place]int64{}
	for topic, found := range response.Topics {
		for _, f := range found {
			if f.Error != nil {
				return fmt.Errorf("ask Kafka for the offsets of group %s: topic %s, partition %d: %w", p.Group, topic, f.Partition, f.Error)
			}
			committed[place{topic, f.Partition}] = f.CommittedOffset
		}
	}
	for i := range all {
		b := &all[i]
		offset, ok := committed[place{b.Topic, b.Partition}]
		if !ok {
			return errors.New("ask Kafka for the offsets of group " + p.Group + ": the answer lacks a partition of topic " + b.Topic)
		}
		// None yet, deleted since, or of a topic that was made anew: the starter begins at the log's
		// start then.
		if offset >= b.First && offset <= b.End {
			b.First = offset
		}
	}
	return nil
}
