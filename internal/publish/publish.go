// Package publish writes to Kafka: events, keyed by their order so that one partition holds all of
// an order's, and dead letters, which keep everything of the record they stand for.
//
// A write is acknowledged by all in-sync replicas before it counts. Whoever publishes decides what
// to do about an error: nothing here retries a topic or a broker that does not exist.
package publish

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"
)

// Settings of the writers. The zero values of kafka.Writer's literal would acknowledge nothing,
// spread an order over all partitions and wait a second for a batch to fill.
const (
	// batchTimeout is how long a message waits for others to share its request.
	batchTimeout = 5 * time.Millisecond
	// batchBytes is the most that shares a request. It stays below a topic's default limit of
	// 1,048,588 bytes for a batch, which the broker would otherwise refuse as a whole.
	batchBytes = 900 << 10
	// batchMessages is how many messages share a request at most, and pageMessages where a whole page of
	// them is published. kafka-go sets the memory for so many aside for every request, so a few
	// messages do not use the writer of the pages.
	batchMessages, pageMessages = 100, 1000
	// maxBytes is the largest single message that is offered to the broker, which knows the topic's
	// own limit. It is above the 16 MiB of the dead-letter topic since that counts after compression.
	maxBytes = 64 << 20
	// attempts bounds the writer's own retries of a produce request that failed in passing.
	attempts = 3
	// closeTimeout bounds Close: the writers cannot be told to give up on what they are writing.
	closeTimeout = 5 * time.Second
)

// Options configure a Producer.
type Options struct {
	Brokers []string
	// Transport connects to the brokers (TLS, SASL); nil is a plain one.
	Transport kafka.RoundTripper
	// DeadLetterTopic is where DeadLetter writes to.
	DeadLetterTopic string
}

// Producer writes messages and dead letters. It may be used by several goroutines at once.
type Producer struct {
	deadLetterTopic string
	batches         *kafka.Writer
	// pages writes more than batchMessages.
	pages *kafka.Writer
	// singles writes what does not fit into a batch, each message alone and compressed.
	singles *kafka.Writer
}

// New makes a Producer. It contacts no broker.
func New(o Options) *Producer {
	writer := func() *kafka.Writer {
		return &kafka.Writer{
			Addr:         kafka.TCP(o.Brokers...),
			Balancer:     kafka.Murmur2Balancer{},
			RequiredAcks: kafka.RequireAll,
			BatchTimeout: batchTimeout,
			BatchBytes:   batchBytes,
			MaxAttempts:  attempts,
			Transport:    o.Transport,
		}
	}
	p := &Producer{deadLetterTopic: o.DeadLetterTopic, batches: writer(), pages: writer(), singles: writer()}
	p.batches.BatchSize = batchMessages
	p.pages.BatchSize = pageMessages
	p.pages.BatchTimeout = time.Millisecond // a page comes as a whole: there is nothing to wait for
	p.singles.BatchSize = 1
	p.singles.BatchBytes = maxBytes
	p.singles.Compression = kafka.Zstd
	return p
}

// Errors are the failures of one Publish, at the index of the message they belong to; nil stands
// for a message that was acknowledged.
type Errors []error

func (e Errors) Error() string {
	failed, first := 0, error(nil)
	for _, err := range e {
		if err == nil {
			continue
		}
		if failed++; first == nil {
			first = err
		}
	}
	return fmt.Sprintf("%d of %d messages were not published, the first: %v", failed, len(e), first)
}

// Unwrap lets errors.Is and errors.As look at each failure.
func (e Errors) Unwrap() []error { return e }

// ErrNotSent is the error of a message that was not sent, as one before it has failed.
var ErrNotSent = errors.New("not sent, as a message before it was not published")

// Publish writes the messages, each to the topic and by the key it names, and returns when all are
// acknowledged or given up. The error is an Errors, except where ctx ended, which leaves open what was
// written.
//
// Messages of the same key keep their order, also where some fail: none is written while one before it
// is not. So the same messages can be published again, as a whole, without one overtaking another. Only a
// message that is too large is passed over.
//
// For that a run is no more than one request takes. The messages of a partition then share a batch, which
// the broker takes or leaves as a whole; those of several batches would fail one by one. That holds as
// long as nobody else publishes to the same partitions with this Producer.
func (p *Producer) Publish(ctx context.Context, messages ...kafka.Message) error {
	failures := make(Errors, len(messages))
	failed := false
	for start := 0; start < len(messages); {
		writer, end := p.run(messages, start)
		err := p.write(ctx, writer, messages[start:end], failures[start:end])
		if ctx.Err() != nil && err != nil {
			return fmt.Errorf("publish: %w", ctx.Err())
		}
		failed = failed || err != nil
		start = end
		if stopped(failures[:end]) {
			for i := range failures[end:] {
				failures[end+i] = ErrNotSent
			}
			break
		}
	}
	if failed {
		return failures
	}
	return nil
}

// write writes a run. The messages of a batch that was refused for its size go once more, each alone:
// then those are known that are too large.
func (p *Producer) write(ctx context.Context, writer *kafka.Writer, messages []kafka.Message, failures Errors) error {
	err := writer.WriteMessages(ctx, messages...)
	if !spread(err, failures) || len(messages) == 1 || ctx.Err() != nil {
		return err
	}
	for i, failure := range failures {
		switch {
		case !TooLarge(failure):
		case stopped(failures[:i]):
			failures[i] = ErrNotSent
		default:
			failures[i] = nil
			spread(p.singles.WriteMessages(ctx, messages[i]), failures[i:i+1])
		}
	}
	for _, failure := range failures {
		if failure != nil {
			return failures
		}
	}
	return nil
}

// stopped tells whether a message failed that can be published later.
func stopped(failures Errors) bool {
	return slices.ContainsFunc(failures, func(err error) bool { return err != nil && !TooLarge(err) })
}

// run finds the writer of the message at start, and the end of the messages that go along with it.
// A large one goes alone, between its neighbours, so that the order within a key is kept.
func (p *Producer) run(messages []kafka.Message, start int) (*kafka.Writer, int) {
	bytes, end := size(messages[start]), start+1
	if bytes > batchBytes {
		return p.singles, end
	}
	for end < len(messages) && end-start < pageMessages {
		if bytes += size(messages[end]); bytes > batchBytes {
			break
		}
		end++
	}
	if end-start <= batchMessages {
		return p.batches, end
	}
	return p.pages, end
}

// spread sorts a writer's error to its messages, and tells whether there was one.
func spread(err error, failures Errors) bool {
	var each kafka.WriteErrors
	switch {
	case err == nil:
		return false
	case errors.As(err, &each) && len(each) == len(failures):
		copy(failures, each)
	default:
		for i := range failures {
			failures[i] = err
		}
	}
	return true
}

// TooLarge tells whether a message was refused for its size, by the client or by the broker.
func TooLarge(err error) bool {
	var client kafka.MessageTooLargeError
	return errors.As(err, &client) || errors.Is(err, kafka.MessageSizeTooLarge) || errors.Is(err, kafka.RecordListTooLarge)
}

// size is an upper bound of what a message takes in a batch, in bytes.
func size(m kafka.Message) int {
	const record, header = 64, 8 // lengths, timestamp, offset and framing
	n := record + len(m.Key) + len(m.Value)
	for _, h := range m.Headers {
		n += header + len(h.Key) + len(h.Value)
	}
	return n
}

// Close waits for what is being written, for at most 5 s.
func (p *Producer) Close() error {
	done := make(chan error, 1)
	go func() { done <- errors.Join(p.batches.Close(), p.pages.Close(), p.singles.Close()) }()
	select {
	case err := <-done:
		return err
	case <-time.After(closeTimeout):
		return fmt.Errorf("publish: a broker has not acknowledged the last messages within %v", closeTimeout)
	}
}
