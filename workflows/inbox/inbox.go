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
	"bytes"
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
	plain
	queue queue
	// recent are the last resolved events, oldest first, and resolved the same by their ids.
	recent   []uuid.UUID
	resolved map[uuid.UUID]Identity
}

// plain is what is carried as it stands.
type plain struct {
	HoldWindow time.Duration `json:"hold_window"`
	Presence   Presence      `json:"presence,omitempty"`
	// HeldSince and HoldUntil are set while the order is absent: the window for its creation.
	HeldSince time.Time `json:"held_since,omitzero"`
	HoldUntil time.Time `json:"hold_until,omitzero"`
	Stuck     *Stuck    `json:"stuck,omitempty"`
	// Resolved counts all events that left through the ledger.
	Resolved int64 `json:"resolved"`
}

// carried is the JSON form of an Inbox.
type carried struct {
	plain
	Pending []order.Event `json:"pending,omitempty"`
	// Recent are the ids of the last resolved events, oldest first; Identities, in the same order, say
	// which events they were. A run that an earlier release carried over has none.
	Recent     []uuid.UUID `json:"recent,omitempty"`
	Identities []Identity  `json:"identities,omitempty"`
}

// Identity is what two events of the same id must agree on to be the same event.
type Identity struct {
	Kind    order.Kind `json:"event,omitempty"` // empty where it is not known
	Version int64      `json:"version,omitempty"`
	Digest  string     `json:"digest,omitempty"`
}

func (i Identity) same(e order.Event) bool {
	return i.Kind == "" || e.SameAs(i.Kind, i.Version, i.Digest)
}

// New is the inbox of an order of which nothing is known yet.
func New(holdWindow time.Duration) *Inbox {
	return &Inbox{plain: plain{HoldWindow: holdWindow}, queue: newQueue(), resolved: map[uuid.UUID]Identity{}}
}

// MarshalJSON writes the inbox to be carried. As the data converter does, it leaves "<" as it is.
func (b *Inbox) MarshalJSON() ([]byte, error) {
	c := carried{plain: b.plain, Pending: b.queue.events(), Recent: b.recent}
	for _, id := range b.recent {
		c.Identities = append(c.Identities, b.resolved[id])
	}
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	err := enc.Encode(c)
	return out.Bytes(), err
}

// UnmarshalJSON restores a carried inbox.
func (b *Inbox) UnmarshalJSON(raw []byte) error {
	var c carried
	if err := json.Unmarshal(raw, &c); err != nil {
		return err
	}
	*b = Inbox{plain: c.plain, recent: c.Recent, resolved: make(map[uuid.UUID]Identity, len(c.Recent))}
	for i, id := range c.Recent {
		var known Identity
		if i < len(c.Identities) {
			known = c.Identities[i]
		}
		b.resolved[id] = known
	}
	b.queue.restore(c.Pending)
	return nil
}

// Arrival is what Add did with an event.
type Arrival int

// The answers of Add.
const (
	// Queued: the event is pending now.
	Queued Arrival = iota
	// Duplicate: the event is pending already, or was resolved a short while ago. It is dropped.
	Duplicate
	// Conflict: another event of the same id is pending, or was resolved a short while ago. The new one
	// is not queued; it must become a dead letter.
	Conflict
)

// Other names the event whose identity e has, after Add has answered Conflict.
func (b *Inbox) Other(e order.Event) string {
	if n := b.queue.byID[e.ID]; n != nil {
		return n.event.Name()
	}
	known := b.resolved[e.ID]
	return order.NameOf(known.Kind, known.Version)
}

// Add queues an event where the order rules put it, unless it has come before.
func (b *Inbox) Add(e order.Event) Arrival {
	known, is := b.resolved[e.ID]
	if n := b.queue.byID[e.ID]; n != nil {
		known, is = identity(n.event), true
	}
	switch {
	case !is:
		b.queue.add(e)
		return Queued
	case known.same(e):
		return Duplicate
	default:
		return Conflict
	}
}

func identity(e order.Event) Identity {
	return Identity{Kind: e.Kind, Version: e.Version, Digest: e.Digest}
}

// Len is the number of pending events.
func (b *Inbox) Len() int { return b.queue.len() }

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
	head := b.head()
	if head == nil {
		return Next{Action: Rest}
	}
	next := Next{Action: Apply, Step: order.Step{Event: head.event}}
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

// head is the next event; nil if none is pending.
func (b *Inbox) head() *node {
	if b.Stuck != nil {
		return b.queue.byID[b.Stuck.EventID]
	}
	best := b.queue.first
	if b.Presence != Absent {
		return best
	}
	for n := best; n != nil; n = n.next {
		if n.event.Kind.Rank() < best.event.Kind.Rank() {
			best = n
		}
		if n.event.Kind == order.Creation {
			break
		}
	}
	return best
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
	all := b.queue.events()
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
	n := b.queue.byID[id]
	if n == nil {
		return
	}
	b.queue.remove(n)
	b.recent = append(b.recent, id)
	b.resolved[id] = identity(n.event)
	if len(b.recent) > window {
		delete(b.resolved, b.recent[0])
		b.recent = slices.Delete(b.recent, 0, 1)
	}
	b.Resolved++
	b.Stuck = nil
	switch {
	case r.Status != "":
		b.presence(Present)
	case b.queue.len() == 0:
		// Whatever comes next, perhaps much later, has a window of its own.
		b.presence(Unknown)
	default:
		b.absent(now)
	}
}

// Waits notes, after an event has left, that an order which still lacks in the target waits with another
// event from now on. The window for its creation stays as it was. What an operator said of the event
// before it must not hit this one.
func (b *Inbox) Waits(now time.Time) {
	if b.Presence == Absent {
		b.HeldSince = now
	}
}

// Drop takes an event out that goes to the dead-letter topic: it counts as resolved, and later events
// go on.
func (b *Inbox) Drop(id uuid.UUID) {
	n := b.queue.byID[id]
	if n == nil {
		return
	}
	b.queue.remove(n)
	b.Stuck = nil
	if b.queue.len() == 0 && b.Presence == Absent {
		b.presence(Unknown)
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
	n := b.queue.byID[e.ID]
	b.queue.bytes += len(data) - len(n.event.Data)
	n.event.Data = data
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

// Fits reports whether what is pending is within the bounds.
func (b *Inbox) Fits() bool { return b.within(MaxPending, MaxBytes) }

func (b *Inbox) within(events, bytes int) bool {
	return b.queue.len() <= 1 || b.queue.len() <= events && b.queue.bytes <= bytes
}

// Overflow takes out what a stuck order cannot keep, from the tail, and returns it in its order.
// It never takes the stuck event. For an order that is not stuck it does nothing: its events are
// about to be applied, and a creation that has just ended a hold must not be thrown out. waits says
// that the order waits for something the inbox does not know of.
func (b *Inbox) Overflow(now time.Time, waits bool) []order.Event {
	if b.Fits() {
		return nil
	}
	stuck := b.StuckOn(now)
	switch {
	case stuck != nil:
		return b.cut(stuck.ID, MaxPending, MaxBytes)
	case waits:
		return b.cut(b.head().event.ID, MaxPending, MaxBytes)
	default:
		return nil
	}
}

// Cut takes out, from the tail, what does not leave room: a quarter of the bounds remains, whether the
// order is stuck or not. It returns it in its order. It never takes the next event. A run whose history
// nears the server's limit must continue as new, also while events keep arriving.
func (b *Inbox) Cut() []order.Event {
	head := b.head()
	if head == nil {
		return nil
	}
	return b.cut(head.event.ID, MaxPending/4, MaxBytes/4)
}

// cut takes events out from the tail until what is left is within the bounds. It leaves the event of
// the id keep.
func (b *Inbox) cut(keep uuid.UUID, events, bytes int) []order.Event {
	var out []order.Event
	for n := b.queue.last; n != nil && !b.within(events, bytes); {
		prev := n.prev
		if n.event.ID != keep {
			b.queue.remove(n)
			out = append(out, n.event)
		}
		n = prev
	}
	slices.Reverse(out)
	return out
}
