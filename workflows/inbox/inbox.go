// Package inbox decides what happens next to one order. It is the pure core of the OrderSync
// workflow: it takes events as they arrive and the results of the steps that were tried, and says
// which step comes next, or what the order waits for. It knows no workflow, no clock and no
// database, so tables and a fuzz test can prove the order rules on it alone.
//
//	          Add                      Next
//	events ────────> pending ────────────────────> Apply ──> Resolve │ Lacks │ Refuse │ Delay
//	                    │                          Skip  ──> Resolve
//	                    └─ Overflow (while stuck)  Hold, Block, Rest
//
// Rules of order:
//   - Pending events are in order of arrival, but a versioned event goes before the first pending
//     event with a higher version; ties go creation, update, invoice, then arrival. Arrival is the
//     order in Kafka: what was sent again late goes before what stood after it in its partition.
//   - While the target lacks the order, creations go first, then updates, then invoices. With no
//     creation pending the step is held for a window, which a creation ends; after it an update is
//     applied as an insert, and an invoice blocks until a creation or update arrives.
//   - An event on which the order is stuck stays the next one until it is resolved, whatever
//     arrives: nobody's decision about it is overtaken.
package inbox

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/google/uuid"

	"ordersync/internal/order"
)

// Bounds of what an order keeps while it is stuck. Both hold for everything pending, the stuck
// event included, because all of it must fit into the 2 MiB of a continue-as-new; a single event
// always fits.
const (
	MaxPending = 1000
	MaxBytes   = 1 << 20
)

// window is how many resolved events are remembered to drop redeliveries without asking the
// target. The ledger decides; the window only saves the question.
const window = 256

// UnknownOrder is the type of the block of an invoice whose order the target lacks.
const UnknownOrder = "UnknownOrder"

// Presence is what is known of the order in the target.
type Presence string

// The order may be unknown to us (a new run), absent or present in the target.
const (
	Unknown Presence = ""
	Absent  Presence = "absent"
	Present Presence = "present"
)

// Stuck is the step that could not be done. While it is set, its event is the next one.
type Stuck struct {
	EventID uuid.UUID `json:"event_id"`
	// Blocked waits for an operator; otherwise the step is being tried.
	Blocked bool `json:"blocked,omitempty"`
	// Skip makes the next step a skip: an operator gave the event up.
	Skip bool `json:"skip,omitempty"`
	// Amended tells that an operator replaced the event's data.
	Amended bool `json:"amended,omitempty"`
	// Type and Message are the last error's; both are empty where an operator tried a held step.
	Type    string    `json:"type,omitempty"`
	Message string    `json:"message,omitempty"`
	Since   time.Time `json:"since"`
}

// Inbox is the state of one order. Its JSON form is carried by continue-as-new.
type Inbox struct {
	HoldWindow time.Duration `json:"hold_window"`
	Pending    []order.Event `json:"pending,omitempty"`
	// Recent are the ids of the last resolved events, oldest first.
	Recent   []uuid.UUID `json:"recent,omitempty"`
	Presence Presence    `json:"presence,omitempty"`
	// HeldSince and HoldUntil are set while the order is absent: the window for its creation.
	HeldSince time.Time `json:"held_since,omitzero"`
	HoldUntil time.Time `json:"hold_until,omitzero"`
	Stuck     *Stuck    `json:"stuck,omitempty"`
	// Resolved counts all events that left through the ledger.
	Resolved int64 `json:"resolved"`

	bytes int
	known map[uuid.UUID]bool // ids of Pending and Recent
}

// New is the inbox of an order of which nothing is known yet.
func New(holdWindow time.Duration) *Inbox {
	b := &Inbox{HoldWindow: holdWindow}
	b.index()
	return b
}

// UnmarshalJSON restores a carried inbox.
func (b *Inbox) UnmarshalJSON(raw []byte) error {
	type plain Inbox
	if err := json.Unmarshal(raw, (*plain)(b)); err != nil {
		return err
	}
	b.index()
	return nil
}

func (b *Inbox) index() {
	b.known = make(map[uuid.UUID]bool, len(b.Pending)+len(b.Recent))
	b.bytes = 0
	for _, e := range b.Pending {
		b.known[e.ID] = true
		b.bytes += e.Size()
	}
	for _, id := range b.Recent {
		b.known[id] = true
	}
}

// Add queues an event where the order rules put it. It answers false, and drops the event, if it
// is pending already or was resolved a short while ago.
func (b *Inbox) Add(e order.Event) bool {
	if b.known[e.ID] {
		return false
	}
	b.known[e.ID] = true
	b.bytes += e.Size()
	at := slices.IndexFunc(b.Pending, func(p order.Event) bool { return precedes(e, p) })
	if at < 0 {
		at = len(b.Pending)
	}
	b.Pending = slices.Insert(b.Pending, at, e)
	return true
}

// precedes tells whether an event goes before one that is pending.
func precedes(e, pending order.Event) bool {
	switch {
	case e.Versioned() != pending.Versioned():
		return false
	case !e.Versioned():
		// A replay, or a signal that could not be read at first, brings it late.
		mine, other := e.Source, pending.Source
		return mine.Topic == other.Topic && mine.Partition == other.Partition && mine.Offset < other.Offset &&
			!mine.ReceivedAt.After(other.ReceivedAt) // else the topic was made anew
	case e.Version != pending.Version:
		return e.Version < pending.Version
	default:
		return e.Kind.Rank() < pending.Kind.Rank()
	}
}

// Action is what an order does next.
type Action int

// The actions of Next.
const (
	// Rest: nothing is pending.
	Rest Action = iota
	// Apply: try Next.Step, then report Resolve, Lacks, Refuse or Delay.
	Apply
	// Skip: write Next.Step's event off, then report Resolve.
	Skip
	// Hold: the target lacks the order; wait for a creation until Next.Until.
	Hold
	// Block: wait for an operator, or for what ends Next.Type by itself.
	Block
)

// Next is an action and what it acts on.
type Next struct {
	Action Action
	Step   order.Step
	// Until ends a Hold.
	Until time.Time
	// Type, Message and Since describe a Block; Since also a Hold.
	Type    string
	Message string
	Since   time.Time
}

// Next says what the order does at now. It changes nothing.
func (b *Inbox) Next(now time.Time) Next {
	i := b.head()
	if i < 0 {
		return Next{Action: Rest}
	}
	next := Next{Action: Apply, Step: order.Step{Event: b.Pending[i]}}
	waited := b.Presence == Absent && !now.Before(b.HoldUntil)
	if s := b.Stuck; s != nil {
		next.Type, next.Message, next.Since = s.Type, s.Message, s.Since
		next.Step.InsertMissing = waited
		switch {
		case s.Skip:
			next.Action = Skip
		case s.Blocked:
			next.Action = Block
		}
		return next
	}
	if b.Presence != Absent || next.Step.Event.Kind == order.Creation {
		return next
	}
	next.Since = b.HeldSince
	switch {
	case !waited:
		next.Action, next.Until = Hold, b.HoldUntil
	case next.Step.Event.Kind == order.Update:
		next.Step.InsertMissing = true
	default:
		next.Action, next.Type = Block, UnknownOrder
		next.Message = "the target lacks the order; a creation or an update of it frees the invoice"
	}
	return next
}

// head is the index of the next event, or -1.
func (b *Inbox) head() int {
	if b.Stuck != nil {
		return b.find(b.Stuck.EventID)
	}
	best := -1
	for i, e := range b.Pending {
		if b.Presence != Absent {
			return i
		}
		if best < 0 || e.Kind.Rank() < b.Pending[best].Kind.Rank() {
			best = i
		}
		if e.Kind == order.Creation {
			break
		}
	}
	return best
}

func (b *Inbox) find(id uuid.UUID) int {
	return slices.IndexFunc(b.Pending, func(e order.Event) bool { return e.ID == id })
}

// absent notes that the target lacks the order. The window to wait for its creation begins when
// that is first learned.
func (b *Inbox) absent(now time.Time) {
	if b.Presence != Absent {
		b.Presence, b.HeldSince, b.HoldUntil = Absent, now, now.Add(b.HoldWindow)
	}
}

// presence notes that the order is there, or that nobody knows.
func (b *Inbox) presence(p Presence) {
	b.Presence, b.HeldSince, b.HoldUntil = p, time.Time{}, time.Time{}
}

// Upcoming are at most limit pending events in the order in which they would be applied if nothing
// else arrived.
func (b *Inbox) Upcoming(limit int) []order.Event {
	all := slices.Clone(b.Pending)
	if b.Presence == Absent {
		slices.SortStableFunc(all, func(x, y order.Event) int { return x.Kind.Rank() - y.Kind.Rank() })
	}
	if s := b.Stuck; s != nil {
		slices.SortStableFunc(all, func(x, y order.Event) int { return rank(x, s.EventID) - rank(y, s.EventID) })
	}
	return all[:min(limit, len(all))]
}

func rank(e order.Event, first uuid.UUID) int {
	if e.ID == first {
		return 0
	}
	return 1
}

// Resolve takes an event out whose ledger row is committed.
func (b *Inbox) Resolve(id uuid.UUID, r order.Result, now time.Time) {
	i := b.find(id)
	if i < 0 {
		return
	}
	b.bytes -= b.Pending[i].Size()
	b.Pending = slices.Delete(b.Pending, i, i+1)
	b.Recent = append(b.Recent, id)
	if len(b.Recent) > window {
		delete(b.known, b.Recent[0])
		b.Recent = slices.Delete(b.Recent, 0, 1)
	}
	b.Resolved++
	b.Stuck = nil
	switch {
	case r.Status != "":
		b.presence(Present)
	case len(b.Pending) == 0:
		// Whatever comes next, perhaps much later, has a window of its own.
		b.presence(Unknown)
	default:
		b.absent(now)
	}
}

// Lacks takes the target's answer that it does not have the order. The event stays pending.
func (b *Inbox) Lacks(now time.Time) {
	b.absent(now)
	b.Stuck = nil
}

// Refuse blocks the order on the event: the target will never take it as it is.
func (b *Inbox) Refuse(id uuid.UUID, errType, message string, now time.Time) {
	b.stick(id, errType, message, now)
	b.Stuck.Blocked = true
}

// Delay notes that the event could not be applied yet and is being retried.
func (b *Inbox) Delay(id uuid.UUID, errType, message string, now time.Time) {
	b.stick(id, errType, message, now)
	b.Stuck.Blocked = false
}

// stick keeps since when the order has been stuck on the event, over all the attempts.
func (b *Inbox) stick(id uuid.UUID, errType, message string, now time.Time) {
	if b.Stuck == nil || b.Stuck.EventID != id {
		b.Stuck = &Stuck{EventID: id, Since: now}
	}
	b.Stuck.Type, b.Stuck.Message = errType, message
}

// StuckOn is the event the order is stuck on now, blocked, held or retrying; nil if it is not
// stuck. Operator signals act on it.
func (b *Inbox) StuckOn(now time.Time) *order.Event {
	switch next := b.Next(now); {
	case b.Stuck != nil, next.Action == Hold, next.Action == Block:
		return &next.Step.Event
	default:
		return nil
	}
}

// Retry makes the stuck step the next one to be tried. It ends the hold of an update, which is
// then applied as an insert; a held invoice is tried and goes on waiting if the order still lacks.
func (b *Inbox) Retry(now time.Time) {
	e := b.StuckOn(now)
	if e == nil {
		return
	}
	if b.Stuck == nil && e.Kind == order.Update {
		b.HoldUntil = now
	}
	b.pin(e.ID)
	b.Stuck.Blocked = false
}

// pin makes the event the order waits with the one an operator acts on.
func (b *Inbox) pin(id uuid.UUID) {
	if b.Stuck == nil {
		b.Stuck = &Stuck{EventID: id, Since: b.HeldSince}
	}
}

// Amend replaces the stuck event's data and tries it.
func (b *Inbox) Amend(data json.RawMessage, now time.Time) {
	e := b.StuckOn(now)
	if e == nil {
		return
	}
	i := b.find(e.ID)
	b.bytes += len(data) - len(b.Pending[i].Data)
	b.Pending[i].Data = data
	b.Retry(now)
	b.Stuck.Amended = true
}

// Skip makes the next step a skip of the stuck event.
func (b *Inbox) Skip(now time.Time) {
	e := b.StuckOn(now)
	if e == nil {
		return
	}
	b.pin(e.ID)
	b.Stuck.Blocked, b.Stuck.Skip = false, true
}

// Fits tells whether what is pending is within the bounds.
func (b *Inbox) Fits() bool {
	return len(b.Pending) <= 1 || len(b.Pending) <= MaxPending && b.bytes <= MaxBytes
}

// Overflow takes out what a stuck order cannot keep, from the tail, and returns it in its order.
// It never takes the stuck event. For an order that is not stuck it does nothing: its events are
// about to be applied, and a creation that has just ended a hold must not be thrown out. waits tells
// that the order waits for something the inbox does not know of.
func (b *Inbox) Overflow(now time.Time, waits bool) []order.Event {
	if b.Fits() {
		return nil
	}
	stuck := b.StuckOn(now)
	if stuck == nil && waits {
		stuck = &b.Pending[b.head()]
	}
	if stuck == nil {
		return nil
	}
	keep := stuck.ID
	var out []order.Event
	for i := len(b.Pending) - 1; i >= 0 && !b.Fits(); i-- {
		e := b.Pending[i]
		if e.ID == keep {
			continue
		}
		b.bytes -= e.Size()
		delete(b.known, e.ID)
		b.Pending = slices.Delete(b.Pending, i, i+1)
		out = append(out, e)
	}
	slices.Reverse(out)
	return out
}
