// Package topics reads again what Kafka's topics hold, for those that look back: what is settled,
// what lies in the dead-letter topic, what is missing in the ledger. Like the starter it sees
// committed records only. It is no member of a group and commits nothing.
package topics

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"
	"golang.org/x/sync/errgroup"

	"ordersync/internal/intake"
	"ordersync/internal/order"
)

// Limits of reading.
const (
	fetchWait = 500 * time.Millisecond
	// maxIdle is how many fetches in a row may bring nothing before the end of what was published,
	// and refusedPause the time after one that was refused: a leader may be moving.
	maxIdle        = 20
	refusedPause   = 200 * time.Millisecond
	requestTimeout = 10 * time.Second
)

// Reader reads topics. Brokers and Transport are those of kafka.Client.
type Reader struct {
	Brokers   []string
	Transport kafka.RoundTripper
	// MaxValue is the largest value that is kept of a record, in bytes; 0 is order.MaxValue. A larger one is left out,
	// without being held in memory.
	MaxValue int
}

func (r Reader) committed() intake.Committed {
	return intake.Committed{Brokers: r.Brokers, Transport: r.Transport, MaxValue: r.MaxValue}
}

// ErrNoTopic is the error for a topic that does not exist.
var ErrNoTopic = errors.New("does not exist")

// Span is the records of a partition at First and above, below End.
type Span struct {
	Topic      string
	Partition  int
	First, End int64
}

// Len counts the offsets of a span. A gap of them, such as a transaction's marker, is no record.
func (s Span) Len() int64 { return max(0, s.End-s.First) }

// Spans looks up what a topic's partitions hold now, from the first record on that has a timestamp
// of since or later. The zero time is the log's start, and so is one before 1970, which timestamps do not reach.
func (r Reader) Spans(ctx context.Context, topic string, since time.Time) ([]Span, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	c := kafka.Client{Addr: kafka.TCP(r.Brokers...), Transport: r.Transport}
	meta, err := c.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
	if err != nil {
		return nil, fmt.Errorf("ask Kafka at %v for topic %s: %w", r.Brokers, topic, err)
	}
	if len(meta.Topics) != 1 || errors.Is(meta.Topics[0].Error, kafka.UnknownTopicOrPartition) {
		return nil, fmt.Errorf("topic %s %w; create it with `ordersync setup`", topic, ErrNoTopic)
	}
	if err := meta.Topics[0].Error; err != nil {
		return nil, fmt.Errorf("topic %s: %w", topic, err)
	}
	var ask []kafka.OffsetRequest
	for _, p := range meta.Topics[0].Partitions {
		ask = append(ask, kafka.FirstOffsetOf(p.ID), kafka.LastOffsetOf(p.ID))
		if since.UnixMilli() > 0 {
			ask = append(ask, kafka.TimeOffsetOf(p.ID, since))
		}
	}
	offsets, err := c.ListOffsets(ctx, &kafka.ListOffsetsRequest{
		Topics: map[string][]kafka.OffsetRequest{topic: ask}, IsolationLevel: kafka.ReadCommitted,
	})
	if err != nil {
		return nil, fmt.Errorf("ask Kafka for the offsets of topic %s: %w", topic, err)
	}
	var spans []Span
	for _, p := range offsets.Topics[topic] {
		if p.Error != nil {
			return nil, fmt.Errorf("ask Kafka for the offsets of topic %s, partition %d: %w", topic, p.Partition, p.Error)
		}
		s := Span{topic, p.Partition, p.FirstOffset, p.LastOffset}
		for at := range p.Offsets { // none or one
			if s.First = at; at < 0 {
				s.First = s.End // no record is as young
			}
		}
		spans = append(spans, s)
	}
	return spans, nil
}

// SpansOf is Spans of several topics. Those that are optional need not exist: one that does not holds
// nothing.
func (r Reader) SpansOf(ctx context.Context, channels, optional map[string]order.Channel, since time.Time) ([]Span, error) {
	var all []Span
	for _, topic := range slices.Sorted(maps.Keys(channels)) {
		spans, err := r.Spans(ctx, topic, since)
		if _, may := optional[topic]; may && errors.Is(err, ErrNoTopic) {
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, spans...)
	}
	return all, nil
}

// PassCommitted leaves of each span what a group has not committed: what its members have not handed
// over yet. A group that has none for a partition, or none that its log holds, as after the topic was
// made anew, begins at the log's start, as the starter does. Members that have gone past the end of a
// span since it was looked up leave nothing of it.
func (r Reader) PassCommitted(ctx context.Context, group string, spans []Span) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	partitions := map[string][]int{}
	for _, s := range spans {
		partitions[s.Topic] = append(partitions[s.Topic], s.Partition)
	}
	c := kafka.Client{Addr: kafka.TCP(r.Brokers...), Transport: r.Transport}
	response, err := c.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: group, Topics: partitions})
	if err == nil {
		err = response.Error
	}
	if errors.Is(err, kafka.GroupIdNotFound) {
		return nil // no starter has ever run
	}
	if err != nil {
		return fmt.Errorf("ask Kafka for the offsets of group %s: %w", group, err)
	}
	type place struct {
		topic     string
		partition int
	}
	committed := map[place]int64{}
	for topic, found := range response.Topics {
		for _, f := range found {
			if f.Error != nil {
				return fmt.Errorf("ask Kafka for the offsets of group %s: topic %s, partition %d: %w", group, topic, f.Partition, f.Error)
			}
			committed[place{topic, f.Partition}] = f.CommittedOffset
		}
	}
	for i := range spans {
		s := &spans[i]
		offset, ok := committed[place{s.Topic, s.Partition}]
		if !ok {
			return fmt.Errorf("ask Kafka for the offsets of group %s: the answer lacks a partition of topic %s", group, s.Topic)
		}
		if offset > s.End {
			end, err := r.end(ctx, s.Topic, s.Partition)
			if err != nil {
				return err
			}
			if offset > end {
				continue
			}
			offset = s.End
		}
		s.First = max(s.First, offset)
	}
	return nil
}

// end is where a partition's log ends now.
func (r Reader) end(ctx context.Context, topic string, partition int) (int64, error) {
	now, err := r.Spans(ctx, topic, time.Time{})
	if err != nil {
		return 0, err
	}
	i := slices.IndexFunc(now, func(s Span) bool { return s.Partition == partition })
	if i < 0 {
		return 0, fmt.Errorf("topic %s: partition %d is gone", topic, partition)
	}
	return now[i].End, nil
}

// Head is the first record of a span, and whether there is one: offsets may be of transaction
// markers and aborted records alone.
func (r Reader) Head(ctx context.Context, s Span) (head kafka.Message, found bool, err error) {
	err = r.read(ctx, s, r.committed().Peek, func(m kafka.Message) error {
		head, found = m, true
		return errFound
	})
	if found {
		err = nil
	}
	return head, found, err
}

// errFound ends a reading that has what it wants.
var errFound = errors.New("found")

// Read hands each record of a span to take, by offset, until one returns an error.
func (r Reader) Read(ctx context.Context, s Span, take func(kafka.Message) error) error {
	return r.read(ctx, s, r.committed().Fetch, take)
}

// fetch is one of intake.Committed's.
type fetch func(ctx context.Context, topic string, partition int, offset int64, wait time.Duration, take func(kafka.Message) error) (next int64, failed, err error)

func (r Reader) read(ctx context.Context, s Span, fetch fetch, take func(kafka.Message) error) error {
	idle := 0
	for at := s.First; at < s.End; {
		next, failed, err := fetch(ctx, s.Topic, s.Partition, at, fetchWait, func(m kafka.Message) error {
			if m.Offset >= s.End {
				return nil
			}
			return take(m)
		})
		if failed != nil {
			return failed
		}
		if next > at {
			at, idle = next, 0
			continue
		}
		switch idle++; {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case idle < maxIdle && err != nil:
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-time.After(refusedPause):
			}
		case idle < maxIdle:
		case err != nil:
			return fmt.Errorf("read topic %s, partition %d, from offset %d: %w", s.Topic, s.Partition, at, err)
		default:
			return fmt.Errorf("topic %s, partition %d: nothing to read at offset %d, though it ends at %d only", s.Topic, s.Partition, at, s.End)
		}
	}
	return nil
}

// Merge hands the records of all spans to take, one after the other, until one returns an error:
// those of a partition by offset, and among partitions the one with the earliest timestamp first.
// Events of an order in several partitions so come in about the order in which they were published.
// It holds one fetch of each partition in memory.
func (r Reader) Merge(ctx context.Context, spans []Span, take func(kafka.Message) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var readers errgroup.Group
	var all streams
	for _, span := range spans {
		records := make(chan kafka.Message)
		all = append(all, &stream{records: records})
		readers.Go(func() error {
			defer close(records)
			err := r.Read(ctx, span, func(m kafka.Message) error {
				select {
				case records <- m:
					return nil
				case <-ctx.Done():
					return context.Cause(ctx)
				}
			})
			if err != nil {
				cancel(err) // the others need not be read to their ends
			}
			return err
		})
	}
	err := all.merge(ctx, take)
	cancel(err)
	if failed := readers.Wait(); err == nil {
		err = failed
	}
	return err
}

// stream is a partition's records, of which head is next.
type stream struct {
	records <-chan kafka.Message
	head    kafka.Message
}

// advance takes the next record, and tells whether there is one.
func (s *stream) advance() (ok bool) {
	s.head, ok = <-s.records
	return ok
}

// streams is a heap of those that have a head.
type streams []*stream

func (s streams) merge(ctx context.Context, take func(kafka.Message) error) error {
	var open streams
	for _, one := range s {
		if one.advance() {
			open = append(open, one)
		}
	}
	heap.Init(&open)
	for len(open) > 0 && ctx.Err() == nil {
		next := open[0]
		if err := take(next.head); err != nil {
			return err
		}
		if next.advance() {
			heap.Fix(&open, 0)
		} else {
			heap.Pop(&open)
		}
	}
	return context.Cause(ctx)
}

func (s streams) Len() int           { return len(s) }
func (s streams) Less(i, j int) bool { return s[i].head.Time.Before(s[j].head.Time) }
func (s streams) Swap(i, j int)      { s[i], s[j] = s[j], s[i] }
func (s *streams) Push(x any)        { *s = append(*s, x.(*stream)) }
func (s *streams) Pop() any {
	last := (*s)[len(*s)-1]
	*s = (*s)[:len(*s)-1]
	return last
}
