package poll

import (
	"crypto/sha256"
	"fmt"
	"sync"
	"time"

	"ordersync/internal/erp"
	"ordersync/internal/order"
)

// recent are rows that were published lately and acknowledged: Kafka has them, whatever the ledger
// says. An order that is stuck would else be sent the same event with every poll of the overlap, and all that a
// page has published with every attempt at the rest of it. It is forgotten with the process, which
// costs nothing but that.
type recent struct {
	mu sync.Mutex
	// now is filled until it is full, and becomes before. Both together are the last rows, and when they
	// were acknowledged, in nanoseconds since 1970.
	now, before map[digest]int64
}

// recentRows is how many are remembered at least: an overlap of a minute at 1,000 events a second.
const recentRows = 60_000

// digest stands for a row. Two rows of the same digest would be taken for one; at 128 bits there are none.
type digest [16]byte

// eventDigest is that of an event which is published. It holds all by which order.Event's SameAs tells two events
// of one identity apart.
func eventDigest(row erp.Row) digest {
	e := row.Event
	data := e.Digest
	switch {
	case e.Kind == order.Invoice: // whose version may be another when it is read again
		e.Version = 0
	case e.Versioned():
		data = ""
	}
	sum := sha256.Sum256(fmt.Appendf(e.ID[:], "%d %s %s %s", e.Version, e.Kind, data, e.SyncID))
	return digest(sum[:16])
}

// has tells whether a row was acknowledged at a time or later.
func (r *recent) has(d digest, since time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	at, ok := r.now[d]
	if !ok {
		at, ok = r.before[d]
	}
	return ok && (since.IsZero() || at >= since.UnixNano())
}

func (r *recent) add(d digest) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now == nil || len(r.now) >= recentRows {
		r.now, r.before = make(map[digest]int64), r.now
	}
	r.now[d] = time.Now().UnixNano()
}
