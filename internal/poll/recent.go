package poll

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

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

// digests are those of the events under which a row may have been published, that of its Event first. They hold all by
// which order.Event's SameAs tells two events of one identity apart.
func digests(row erp.Row) []digest {
	var all []digest
	for _, e := range events(row) {
		data := e.Digest
		switch {
		case row.Earlier != uuid.Nil: // the identity comes from the content
			e.Version, data = 0, ""
		case e.Kind == order.Invoice: // whose version may be another when it is read again
			e.Version = 0
		case e.Versioned():
			data = ""
		}
		sum := sha256.Sum256(fmt.Appendf(e.ID[:], "%d %s %s %s", e.Version, e.Kind, data, e.SyncID))
		all = append(all, digest(sum[:16]))
	}
	return all
}

// has returns whether a row was acknowledged at a time or later, under one of its identities.
func (r *recent) has(row erp.Row, since time.Time) bool {
	all := digests(row)
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(all, func(d digest) bool {
		at, ok := r.now[d]
		if !ok {
			at, ok = r.before[d]
		}
		return ok && (since.IsZero() || at >= since.UnixNano())
	})
}

func (r *recent) add(row erp.Row) {
	d := digests(row)[0]
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now == nil || len(r.now) >= recentRows {
		r.now, r.before = make(map[digest]int64), r.now
	}
	r.now[d] = time.Now().UnixNano()
}
