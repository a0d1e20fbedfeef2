package erpsim

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"time"

	"ordersync/internal/order"
)

// Faults are what an ERP does to its changes, each as a probability from 0 to 1.
type Faults struct {
	// Late changes become visible up to LateBy after their changed_at: their transaction took so long.
	Late   float64
	LateBy time.Duration
	// Twice changes are told again some changes later, with a younger changed_at.
	Twice float64
	// Swapped updates and invoices become visible before the one of their order that precedes them.
	Swapped float64
}

// Usual are the faults of an ordinary ERP.
var Usual = Faults{Late: 0.05, LateBy: 3 * time.Second, Twice: 0.03, Swapped: 0.03}

// change is an event and when it becomes visible.
type change struct {
	Event
	late  time.Duration
	again bool // it was told before
}

// farthest is how many changes later one is told again, at most.
const farthest = 100

// plan puts the events into the order in which they become visible. Where versions do not tell their
// order, that is how they happened, and none is late: nobody could put them right.
func plan(o Options) []change {
	r := rand.New(rand.NewPCG(o.Seed, 0))
	changes := make([]change, len(o.Events))
	before := map[string]int{} // an order's last event that is no creation
	for i, e := range o.Events {
		changes[i] = change{Event: e}
		if e.Kind == order.Creation {
			continue
		}
		j, ok := before[e.SyncID]
		if swap := r.Float64() < o.Faults.Swapped; swap && ok && e.Versioned() {
			changes[i], changes[j] = changes[j], changes[i]
		}
		before[e.SyncID] = i
	}

	type placed struct {
		change
		place int
	}
	all := make([]placed, 0, len(changes))
	for i, c := range changes {
		if r.Float64() < o.Faults.Late && c.Versioned() && o.Faults.LateBy > 0 {
			c.late = 1 + time.Duration(r.Int64N(int64(o.Faults.LateBy)))
		}
		all = append(all, placed{c, i})
		if r.Float64() < o.Faults.Twice {
			all = append(all, placed{change{Event: c.Event, again: true}, i + 1 + r.IntN(farthest)})
		}
	}
	slices.SortStableFunc(all, func(a, b placed) int { return cmp.Compare(a.place, b.place) })
	planned := make([]change, len(all))
	for i, p := range all {
		planned[i] = p.change
	}
	return planned
}
