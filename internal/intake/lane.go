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
	// fullFirst and fullMost bound the time between two questions whether a full run has become smaller.
	fullFirst, fullMost = 200 * time.Millisecond, 5 * time.Second
)

// lane is one order with work in flight: its records, first in, first out, and at most one call to
// Temporal at a time. It is ready (in its share's queue), calling, or resting (its timer runs), and
// each leads to the next:
//
//	new ──> ready ──> calling ──> resting ──> ready, with what has arrived since
//	                                     └──> gone, if nothing has
type lane struct {
	syncID  string
	share   *share
	pending []*record
	bytes   int // of pending, in record.size
	timer   *time.Timer

	// atMost bounds the next batch after one was refused for its size; 0 for no such bound.
	atMost int
	// attempts counts the failures in a row, and backoff spaces them; nil while there are none.
	attempts int
	backoff  *backoff.ExponentialBackOff
	// full spaces the questions whether the order's run has become smaller; nil while it has room.
	full *backoff.ExponentialBackOff
}

// batch is what the next call carries. It is valid until drop.
func (n *lane) batch() []*record {
	most := min(len(n.pending), maxCallEvents)
	if n.atMost > 0 {
		most = min(most, n.atMost)
	}
	count, bytes := 1, n.pending[0].event.Size()
	for count < most {
		bytes += n.pending[count].event.Size()
		if bytes > maxCallBytes {
			break
		}
		count++
	}
	return n.pending[:count]
}

// put adds a record at the end.
func (n *lane) put(r *record) {
	n.pending = append(n.pending, r)
	n.bytes += r.size()
}

// drop removes the first count records, and what batch gave of them.
func (n *lane) drop(count int) {
	for _, r := range n.pending[:count] {
		n.bytes -= r.size()
	}
	clear(n.pending[:count])
	n.pending = n.pending[count:]
}

// failed counts a failure and says how long to rest.
func (n *lane) failed() time.Duration {
	n.attempts++
	if n.backoff == nil {
		n.backoff = newBackoff()
	}
	return n.backoff.NextBackOff()
}

// succeeded forgets the failures and what they bounded.
func (n *lane) succeeded() {
	n.attempts, n.backoff, n.atMost, n.full = 0, nil, 0, nil
}

// waits says how long to rest before a full run is asked about again.
func (n *lane) waits() time.Duration {
	if n.full == nil {
		n.full = &backoff.ExponentialBackOff{InitialInterval: fullFirst, Multiplier: 1.5, RandomizationFactor: 0.5, MaxInterval: fullMost}
	}
	return n.full.NextBackOff()
}

// trouble is what the lane's failures are noted under.
func (n *lane) trouble() string { return "order " + n.syncID }

func events(records []*record) []order.Event {
	all := make([]order.Event, len(records))
	for i, r := range records {
		all[i] = r.event
	}
	return all
}
