// Package load publishes a file of events as Kafka records: NDJSON, one JSON object a line, or a stream of
// JSON objects and arrays of them. It looks at an object only as far as it must to address it; whether the
// object is an event is for the pipeline to say, which makes a visible dead letter of it if not.
package load

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/segmentio/kafka-go"

	"ordersync/internal/order"
	"ordersync/internal/publish"
)

// Limits of one call to the broker.
const (
	callRecords = 1000
	callBytes   = 4 << 20
	callTime    = 30 * time.Second
)

// Options of Lines.
type Options struct {
	// Topics has the topic of each channel.
	Topics map[order.Channel]string
	// Channel is that of every record, whatever its own field says; empty takes the field.
	Channel order.Channel
	// Publish is publish.Producer's: it returns once all records are acknowledged, keeps the order
	// of those of one key, and answers with publish.Errors.
	Publish func(ctx context.Context, msgs ...kafka.Message) error
	// Malformed is told of every record that could not be published, by the number of the line that it
	// begins on, from 1 on.
	Malformed func(line int, err error)
	// Progress is told after every call, from one goroutine. May be nil.
	Progress func(Progress)
}

// ErrUnreadable is in the chain of the error of a file that cannot be read to its end.
var ErrUnreadable = errors.New("the next cannot be read")

// Progress is how far a load has come.
type Progress struct {
	Lines     int   // lines read and dealt with, empty ones too
	Bytes     int64 // of those lines
	Published int   // records acknowledged
	Malformed int   // records that are no addressable object, or that the broker refused for their size
}

// Records are those dealt with.
func (p Progress) Records() int { return p.Published + p.Malformed }

// Lines publishes the records of r. Malformed ones are reported and passed over, and are no error
// of Lines. Where Kafka fails it stops, as going on would let later events of an order overtake
// the failed ones; the same where ctx ends, after the call that is under way. Either way the first
// Progress.Records records are dealt with. A file of another format is a *FormatError, and nothing of it is
// published.
func Lines(ctx context.Context, r io.Reader, o Options) (Progress, error) {
	calls := make(chan call, 1) // the next call is read while one is under way
	reading, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		defer close(calls)
		read(reading, r, o, calls)
	}()

	var p Progress
	for {
		if ctx.Err() != nil {
			return p, context.Cause(ctx)
		}
		var c call
		select {
		case <-ctx.Done(): // a pipe may give nothing for long
			return p, context.Cause(ctx)
		case next, open := <-calls:
			if !open {
				return p, nil
			}
			c = next
		}
		refused, err := c.publish(ctx, o.Publish)
		if err != nil {
			return p, fmt.Errorf("the first %d records are dealt with, of those after them not all are published: %w", p.Records(), err)
		}
		for _, bad := range append(c.malformed, refused...) {
			o.Malformed(bad.line, bad.err)
			p.Malformed++
		}
		p.Published += len(c.messages) - len(refused)
		p.Lines, p.Bytes = c.lines, c.bytes
		if o.Progress != nil {
			o.Progress(p)
		}
		if c.err != nil {
			var format *FormatError
			if errors.As(c.err, &format) {
				return p, c.err
			}
			return p, fmt.Errorf("the first %d records are dealt with, %w: %w", p.Records(), ErrUnreadable, c.err)
		}
	}
}

// call is a stretch of records that goes to Kafka together.
type call struct {
	messages  []kafka.Message
	numbers   []int // the line of each message
	size      int
	malformed []badLine
	lines     int   // lines read up to its end
	bytes     int64 // and their bytes
	err       error // why reading ended after it, if not for the end of the file
}

type badLine struct {
	line int
	err  error
}

// publish finishes what it began even where ctx ends, so that the caller knows what is published.
// It hands back the lines that the broker refuses for their size; any other failure is an error.
func (c call) publish(ctx context.Context, write func(context.Context, ...kafka.Message) error) (refused []badLine, err error) {
	if len(c.messages) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTime)
	defer cancel()
	err = write(ctx, c.messages...)
	var each publish.Errors
	if !errors.As(err, &each) {
		return nil, err
	}
	for i, failure := range each {
		switch {
		case failure == nil:
		case publish.TooLarge(failure):
			refused = append(refused, badLine{c.numbers[i], fmt.Errorf("%d bytes are more than the broker takes: %w", len(c.messages[i].Value), failure)})
		default:
			return nil, fmt.Errorf("line %d: %w", c.numbers[i], err)
		}
	}
	return refused, nil
}

// read cuts r into calls until its end, or until ctx ends and nobody takes them any more.
func read(ctx context.Context, r io.Reader, o Options, calls chan<- call) {
	records := NewReader(r)
	var c call
	flush := func() bool {
		c.lines, c.bytes = records.count, records.bytes
		select {
		case calls <- c:
			c = call{}
			return true
		case <-ctx.Done():
			return false
		}
	}
	for {
		text, line, err := records.Next()
		switch {
		case errors.Is(err, io.EOF):
			flush()
			return
		case TooLong(err):
			c.malformed = append(c.malformed, badLine{line, err})
		case err != nil:
			c.err = err
			flush()
			return
		default:
			m, err := Message(text, o.Topics, o.Channel)
			if err != nil {
				c.malformed = append(c.malformed, badLine{line, err})
				break
			}
			c.messages = append(c.messages, m)
			c.numbers = append(c.numbers, line)
			c.size += len(text)
		}
		if len(c.messages) >= callRecords || c.size >= callBytes || len(c.malformed) >= callRecords {
			if !flush() {
				return
			}
		}
	}
}
