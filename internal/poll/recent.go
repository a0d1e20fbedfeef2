package poll

import (
	"crypto/sha256"
	"sync"

	"ordersync/internal/target"
)

// recent are events that were published lately and acknowledged: Kafka has them, whatever the ledger
// says. An order that is stuck would else be sent the same event with every poll of the overlap. It is
// forgotten with the process, which costs nothing but that.
type recent struct {
	mu sync.Mutex
	// now is filled until it is full, and becomes before. Both together are the last events.
	now, before map[digest]struct{}
}

// recentEvents is how many are remembered at least: an overlap of a minute at 1,000 events a second.
const recentEvents = 60_000

// digest stands for an event. Two events of the same digest would be taken for one; at 128 bits there are none.
type digest [16]byte

func digestOf(key target.EventKey) digest {
	sum := sha256.Sum256(append(key.ID[:], key.SyncID...))
	return digest(sum[:16])
}

func (r *recent) has(key target.EventKey) bool {
	d := digestOf(key)
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.now[d]; ok {
		return true
	}
	_, ok := r.before[d]
	return ok
}

func (r *recent) add(key target.EventKey) {
	d := digestOf(key)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.now == nil || len(r.now) >= recentEvents {
		r.now, r.before = make(map[digest]struct{}), r.now
	}
	r.now[d] = struct{}{}
}
