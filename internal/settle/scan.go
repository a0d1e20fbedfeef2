package settle

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"

	"ordersync/internal/intake"
)

// Limits of reading.
const (
	fetchWait = 500 * time.Millisecond
	// patience is how long fetches in a row may bring nothing before the end of what was published,
	// as while a partition gets a new leader.
	patience       = 30 * time.Second
	retryPause     = 200 * time.Millisecond
	requestTimeout = 10 * time.Second
)

// span is the committed records of a partition: those at first and above, below end.
type span struct {
	topic      string
	partition  int
	first, end int64
}

// reader reads topics as the starter does: committed records only.
type reader struct {
	brokers   []string
	transport kafka.RoundTripper
}

// spans looks up what a topic's partitions hold now.
func (r reader) spans(ctx context.Context, topic string) ([]span, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	c := kafka.Client{Addr: kafka.TCP(r.brokers...), Transport: r.transport}
	meta, err := c.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
	if err != nil {
		return nil, fmt.Errorf("ask Kafka at %v for topic %s: %w", r.brokers, topic, err)
	}
	if len(meta.Topics) != 1 || errors.Is(meta.Topics[0].Error, kafka.UnknownTopicOrPartition) {
		return nil, fmt.Errorf("topic %s does not exist; create it with `ordersync setup`", topic)
	}
	if err := meta.Topics[0].Error; err != nil {
		return nil, fmt.Errorf("topic %s: %w", topic, err)
	}
	var ask []kafka.OffsetRequest
	for _, p := range meta.Topics[0].Partitions {
		ask = append(ask, kafka.FirstOffsetOf(p.ID), kafka.LastOffsetOf(p.ID))
	}
	offsets, err := c.ListOffsets(ctx, &kafka.ListOffsetsRequest{
		Topics: map[string][]kafka.OffsetRequest{topic: ask}, IsolationLevel: kafka.ReadCommitted,
	})
	if err != nil {
		return nil, fmt.Errorf("ask Kafka for the offsets of topic %s: %w", topic, err)
	}
	var spans []span
	for _, p := range offsets.Topics[topic] {
		if p.Error != nil {
			return nil, fmt.Errorf("ask Kafka for the offsets of topic %s, partition %d: %w", topic, p.Partition, p.Error)
		}
		spans = append(spans, span{topic, p.Partition, p.FirstOffset, p.LastOffset})
	}
	return spans, nil
}

// read hands each record of a span to take.
func (r reader) read(ctx context.Context, s span, take func(kafka.Message)) error {
	progress := time.Now()
	for at := s.first; at < s.end; {
		messages, next, err := intake.FetchCommitted(ctx, r.transport, r.brokers, s.topic, s.partition, at, fetchWait)
		for _, m := range messages {
			if m.Offset < s.end {
				take(m)
			}
		}
		if next > at {
			at, progress = next, time.Now()
			continue
		}
		if time.Since(progress) > patience {
			if err == nil {
				err = fmt.Errorf("nothing came, though the partition ends at %d only", s.end)
			}
			return fmt.Errorf("read topic %s, partition %d, from offset %d: %w", s.topic, s.partition, at, err)
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(retryPause):
		}
	}
	return nil
}
