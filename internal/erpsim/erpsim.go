// Package erpsim is an ERP for demos and tests. Its orders grow as time passes, or by hand, and it has
// the habits of real ones: it commits late, tells the same change twice, tells an older version after a
// newer one, and is away now and then. All of that is drawn from a seed. What it has told so far it also
// knows as a model of the target.
//
//	events ── plan: late, twice, out of order ──> to come ──Grow, Advance──> told, by (changed_at, id)
//	                                                                          ├─ HTTP: /events, /orders
//	                                                                          ├─ Mirror: tables of MySQL
//	                                                                          └─ Model
package erpsim

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"ordersync/internal/order"
	"ordersync/internal/simulate"
)

// Options of an ERP.
type Options struct {
	// Events are what happens in it, in that order. The events of an order have versions, or none has.
	Events []Event
	// Seed decides what the faults hit.
	Seed   uint64
	Faults Faults
	// Token is what requests must bear; empty if nothing.
	Token string
}

// Event is something that happens in the ERP.
type Event struct {
	order.Event // OccurredAt is zero where the ERP does not tell it
	// Line is how the ERP tells it: a JSON object with the event's fields and its channel.
	Line []byte
}

// ERP is a simulated one. It may be used by several goroutines at once.
type ERP struct {
	token string
	door  door

	mu       sync.Mutex
	planned  int
	toCome   []change
	told     []told // by (changed_at, id)
	events   []order.Event
	latest   map[string]time.Time // an order's last changed_at
	toldAt   time.Time            // when the last change became visible
	standing standing

	// It grows by a change every gap, the next one at due; a gap of 0 is no growth.
	gap time.Duration
	due time.Time
}

// told is a change that can be seen. Its id is its place among them in the order of becoming visible.
type told struct {
	change
	at time.Time // changed_at
	id int64
}

func (t told) compare(other told) int {
	if c := t.at.Compare(other.at); c != 0 {
		return c
	}
	return int(t.id - other.id)
}

// New makes an ERP that has told nothing yet.
func New(o Options) (*ERP, error) {
	versioned := map[string]bool{}
	for _, e := range o.Events {
		if before, ok := versioned[e.SyncID]; ok && before != e.Versioned() {
			return nil, fmt.Errorf("order %s has events with and without a version: what they come to depends on their delivery", e.SyncID)
		}
		versioned[e.SyncID] = e.Versioned()
	}
	toCome := plan(o)
	return &ERP{
		token: o.Token, door: newDoor(), planned: len(toCome), toCome: toCome, latest: map[string]time.Time{},
	}, nil
}

// Grow tells so many changes a second from now on, without anything having to be called.
func (s *ERP) Grow(perSecond float64) error {
	if perSecond <= 0 {
		return errors.New("an ERP grows by more than 0 changes a second")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.grow()
	s.gap = max(1, time.Duration(float64(time.Second)/perSecond))
	s.due = now().Add(s.gap)
	return nil
}

// Advance tells the next n changes now.
func (s *ERP) Advance(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.grow()
	for range min(n, len(s.toCome)) {
		s.tell(now())
	}
}

// Finish tells everything that is left.
func (s *ERP) Finish() { s.Advance(s.planned) }

// Progress is how far an ERP has come.
type Progress struct {
	// Told are the changes that can be seen, ToCome the others.
	Told, ToCome int
	// Orders were told something of.
	Orders int
	// At is when the last change became visible. One that was committed late has an older changed_at.
	At time.Time
	// Requests is the number of those that came, Refused of those that found it away.
	Requests, Refused int
}

// Progress tells how far the ERP has come.
func (s *ERP) Progress() Progress {
	requests, refused := s.door.counts()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.grow()
	return Progress{
		Told: len(s.told), ToCome: len(s.toCome), Orders: len(s.latest), At: s.toldAt,
		Requests: requests, Refused: refused,
	}
}

// Model is what a target holds that has everything told so far.
func (s *ERP) Model() simulate.Model {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.grow()
	return simulate.Expect(slices.Values(s.events))
}

// grow tells what has become due. It happens when somebody looks.
func (s *ERP) grow() {
	if s.gap == 0 {
		return
	}
	for len(s.toCome) > 0 && !s.due.After(now()) {
		s.tell(s.due)
		s.due = s.due.Add(s.gap)
	}
}

// tell makes the next change visible at a time.
func (s *ERP) tell(at time.Time) {
	next := told{change: s.toCome[0], at: at.Add(-s.toCome[0].late), id: int64(len(s.told) + 1)}
	s.toCome = s.toCome[1:]
	i, _ := slices.BinarySearchFunc(s.told, next, told.compare)
	s.told = slices.Insert(s.told, i, next)
	s.events = append(s.events, next.Event.Event)
	if next.at.After(s.latest[next.SyncID]) {
		s.latest[next.SyncID] = next.at
	}
	if at.After(s.toldAt) {
		s.toldAt = at
	}
}

// now is the time as precise as databases keep it.
func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }
