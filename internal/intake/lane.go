package intake

import (
	"time"

	"github.com/cenkalti/backoff/v5"

	"ordersync/internal/order"
)

// Bounds of one call to Temporal.
const (
	// maxCallEvents and maxCallBytes bound a batch, in order.Event.Size. The SDK warns above
	// 512 KiB, and the server refuses 2 MiB. A single event always makes a batch.
	maxCallEvents = 100
	maxCallBytes  = 512 << 10
	// callInterval is the least time between two calls of an order. More than 100 signals that
	// arrive during one workflow task make the server fail it, and tasks of some seconds are normal.
	callInterval = 100 * time.Millisecond
	// callTimeout bounds one call. What it sent may have been received.
	callTimeout = 10 * time.Second
)

// state is what a lane does. It has a timer while it rests and stands in its topic's queue while it
// is ready.
type state int

const (
	resting state = iota
	ready
	calling
)

// lane is one order with work in flight: its records, first in, first out, and at most one call to
// Temporal at a time. What arrives during a call shares the next one. A lane disappears when it has
// rested after its last call and nothing came.
type lane struct {
	syncID  string
	share   *share
	pending []*record
	state   state
	timer   *time.Timer

	// atMost bounds the next batch after one was refused for its size; 0 for no such bound.
	atMost int
	// attempts counts the failures in a row, and backoff spaces them; nil while there are none.
	attempts int
	backoff  *backoff.ExponentialBackOff
}

// batch is what the next call carries. It is valid until drop.
func (l *lane) batch() []*record {
	most := min(len(l.pending), maxCallEvents)
	if l.atMost > 0 {
		most = min(most, l.atMost)
	}
	n, bytes := 1, l.pending[0].event.Size()
	for n < most {
		bytes += l.pending[n].event.Size()
		if bytes > maxCallBytes {
			break
		}
		n++
	}
	return l.pending[:n]
}

// drop removes the first n records, and what batch gave of them.
func (l *lane) drop(n int) {
	clear(l.pending[:n])
	l.pending = l.pending[n:]
}

// failed counts a failure and says how long to rest.
func (l *lane) failed() time.Duration {
	l.attempts++
	if l.backoff == nil {
		l.backoff = newBackoff()
	}
	return l.backoff.NextBackOff()
}

// succeeded forgets the failures and what they bounded.
func (l *lane) succeeded() {
	l.attempts, l.backoff, l.atMost = 0, nil, 0
}

func events(records []*record) []order.Event {
	all := make([]order.Event, len(records))
	for i, r := range records {
		all[i] = r.event
	}
	return all
}
