// Package load publishes a file of events, one JSON object a line, as Kafka records. It looks at a
// line only as far as it must to address it; whether the line is an event is for the pipeline to
// say, which makes a visible dead letter of it if not.
package load

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/segmentio/kafka-go"

	"ordersync/internal/order"
	"ordersync/internal/publish"
)

// MaxLine is the longest line that is read, in bytes: what the dead-letter topic can still hold.
const MaxLine = 16 << 20

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
	// Channel is that of every line, whatever its own field says; empty takes the field.
	Channel order.Channel
	// Publish is publish.Producer's: it returns once all records are acknowledged, keeps the order
	// of those of one key, and answers with publish.Errors.
	Publish func(ctx context.Context, msgs ...kafka.Message) error
	// Malformed is told of every line that could not be published, by its number from 1 on.
	Malformed func(line int, err error)
	// Progress is told after every call, from one goroutine. May be nil.
	Progress func(Progress)
}

// Progress is how far a load has come.
type Progress struct {
	Lines     int   // lines read and dealt with, empty ones too
	Bytes     int64 // of those lines
	Published int   // records acknowledged
	Malformed int   // lines that are no addressable object, or that the broker refused for their size
}

// Lines publishes the lines of r. Malformed lines are reported and passed over, and are no error
// of Lines. Where Kafka fails it stops, as going on would let later events of an order overtake
// the failed ones; the same where ctx ends, after the call that is under way. Either way the first
// Progress.Lines lines are dealt with.
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
			return p, fmt.Errorf("the lines up to %d are published, of those after it not all are: %w", p.Lines, err)
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
			return p, fmt.Errorf("the lines up to %d are published, the next cannot be read: %w", p.Lines, c.err)
		}
	}
}

// call is a stretch of lines that goes to Kafka together.
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
	lines := &lineReader{in: bufio.NewReaderSize(r, 64<<10)}
	var c call
	flush := func(lines int, bytes int64) bool {
		c.lines, c.bytes = lines, bytes
		select {
		case calls <- c:
			c = call{}
			return true
		case <-ctx.Done():
			return false
		}
	}
	for {
		linesBefore, bytesBefore := lines.count, lines.bytes
		text, err := lines.next()
		switch {
		case errors.Is(err, io.EOF):
			flush(lines.count, lines.bytes)
			return
		case errors.Is(err, errLineTooLong):
			c.malformed = append(c.malformed, badLine{lines.count, err})
		case err != nil:
			c.err = err
			flush(linesBefore, bytesBefore)
			return
		case len(text) > 0:
			m, err := Message(text, o.Topics, o.Channel)
			if err != nil {
				c.malformed = append(c.malformed, badLine{lines.count, err})
				break
			}
			c.messages = append(c.messages, m)
			c.numbers = append(c.numbers, lines.count)
			c.size += len(text)
		}
		if len(c.messages) >= callRecords || c.size >= callBytes || len(c.malformed) >= callRecords {
			if !flush(lines.count, lines.bytes) {
				return
			}
		}
	}
}

var errLineTooLong = fmt.Errorf("the line is longer than %d bytes", MaxLine)

// lineReader reads lines without holding more than MaxLine bytes of one.
type lineReader struct {
	in    *bufio.Reader
	count int   // lines read
	bytes int64 // and their bytes, line ends included
}

// next is the next line without the white space around it, io.EOF after the last, or
// errLineTooLong for a line that was passed over.
func (l *lineReader) next() ([]byte, error) {
	var text []byte
	tooLong := false
	for {
		part, err := l.in.ReadSlice('\n')
		l.bytes += int64(len(part))
		if tooLong = tooLong || len(text)+len(part) > MaxLine; tooLong {
			text = nil
		} else {
			text = append(text, part...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case errors.Is(err, io.EOF) && len(part) == 0 && len(text) == 0 && !tooLong:
			return nil, io.EOF
		case err != nil && !errors.Is(err, io.EOF):
			return nil, err
		}
		l.count++
		if tooLong {
			return nil, errLineTooLong
		}
		if l.count == 1 {
			text = bytes.TrimPrefix(text, []byte("\ufeff")) // a byte order mark
		}
		return bytes.TrimSpace(text), nil
	}
}
