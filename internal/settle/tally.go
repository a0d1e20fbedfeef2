package settle

import (
	"cmp"
	"encoding/hex"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/google/uuid"

	"ordersync/internal/order"
	"ordersync/internal/target"
)

// Tally ticks events off, one by one. It keeps an identity for each, some hundred bytes, and not the
// events. It is pure: what Kafka, the ledger and Temporal say is told to it. Not for use by
// several goroutines at once.
type Tally struct {
	orders  []string
	orderOf map[string]int32
	topics  []string
	topicOf map[string]int16
	events  []event
	// eventOf has the first event of each identity.
	eventOf map[identity]int32
	aliases map[int32]order.Alias // of the events that have one
	open    []int32               // events still outstanding, in no order
	// The last look-up was for open[asked:cursor]; the next goes on at cursor.
	asked, cursor int

	rejected map[place]*rejection
	letters  letters

	records    int
	duplicates int
	settled    [states]int
	rejections int // rejected records whose dead letter is there
	invoices   int // applied ones

	began       time.Time
	first, last time.Time       // broker timestamp of the first record, last commit
	patient     map[string]bool // topics whose events have no latency
	latencies   []uint32        // ms from broker timestamp to commit
}

// state is what became of an event so far.
type state uint8

const (
	outstanding state = iota
	applied
	stale
	skipped
	deadLettered
	states
)

// identity is an event's, with the order's number for its id.
type identity struct {
	order int32
	id    uuid.UUID
}

// place is a record's, with the topic's number for its name.
type place struct {
	offset    int64
	partition int32
	topic     int16
}

type event struct {
	identity
	content
	place       // of its newest record
	at    int64 // that record's timestamp, Unix milliseconds
	// next is the next event of this identity, 0 if there is none. The first event is never next.
	next  int32
	state state
	// another tells that the ledger has another event of this identity.
	another bool
}

// content is what tells two events of one identity apart.
type content struct {
	version int64
	digest  [16]byte // of the data; zero where there is a version, and where it is not known
	kind    uint8    // order.Kind.Rank
}

func contentOf(e order.Event) content {
	c := content{version: e.Version, kind: uint8(e.Kind.Rank())}
	if !e.Versioned() {
		_, _ = hex.Decode(c.digest[:], []byte(e.Digest)) // Decode of order made it
	}
	return c
}

// is returns whether the entry is that of the event, and not of another event of its identity.
func (c content) is(entry target.Entry) bool {
	e := order.Event{Kind: order.Kinds[c.kind], Version: c.version}
	if c.digest != [16]byte{} {
		e.Digest = hex.EncodeToString(c.digest[:])
	}
	return entry.Is(e)
}

type rejection struct {
	at           time.Time
	deadLettered bool
}

// letters are the dead letters seen so far.
type letters struct {
	// byPlace has the timestamp of the record at the place that the letter stands for. It tells a
	// topic made anew from the old one.
	byPlace map[place]time.Time
	// byEvent has the newest letter of each event.
	byEvent map[named]letter
	// unticked tells that letters came since they were last ticked off.
	unticked bool
}

// named is an event, also where another one has its identity.
type named struct {
	identity
	content
}

type letter struct {
	place       // of the record it stands for
	at    int64 // its own timestamp, Unix milliseconds
}

// covers tells whether a dead letter settles the event: not if the event was published anew since,
// to be tried again. A duplicate that came between event and letter went with it.
func (l letter) covers(e *event) bool {
	return newer(l.place, e.place) || l.at >= e.at
}

// NewTally is an empty one. Of patient topics nobody asks how long their events take.
func NewTally(patient ...string) *Tally {
	t := &Tally{
		began:   time.Now(),
		orderOf: map[string]int32{}, topicOf: map[string]int16{}, eventOf: map[identity]int32{}, aliases: map[int32]order.Alias{},
		rejected: map[place]*rejection{},
		letters:  letters{byPlace: map[place]time.Time{}, byEvent: map[named]letter{}},
		patient:  map[string]bool{},
	}
	for _, topic := range patient {
		t.patient[topic] = true
	}
	return t
}

// Published notes the record of an event. The same event again is a duplicate. Another event of the same identity
// is an event of its own: one of them can be in the ledger, the other becomes a dead letter.
func (t *Tally) Published(e order.Event) {
	t.record(e.Source.ReceivedAt)
	id := identity{t.orderNumber(e.SyncID), e.ID}
	at, what := t.place(e.Source), contentOf(e)
	number := int32(len(t.events))
	first, known := t.eventOf[id]
	for i := first; known; {
		other := &t.events[i]
		if other.content == what {
			t.duplicates++
			if newer(at, other.place) {
				other.place, other.at = at, e.Source.ReceivedAt.UnixMilli()
			}
			return
		}
		if other.next == 0 {
			other.next = number
			break
		}
		i = other.next
	}
	if !known {
		t.eventOf[id] = number
	}
	if alias := e.Alias(); alias.ID != uuid.Nil {
		t.aliases[number] = alias
	}
	t.open = append(t.open, number)
	t.events = append(t.events, event{identity: id, content: what, place: at, at: e.Source.ReceivedAt.UnixMilli()})
}

// Rejected notes a record that is no event; only a dead letter settles it.
func (t *Tally) Rejected(source order.Source) {
	t.record(source.ReceivedAt)
	t.rejected[t.place(source)] = &rejection{at: source.ReceivedAt}
}

func (t *Tally) record(at time.Time) {
	t.records++
	if order.Plausible(at, t.began) && (t.first.IsZero() || at.Before(t.first)) {
		t.first = at
	}
}

// newer tells whether a comes after b. Between partitions there is no order; the later told wins.
func newer(a, b place) bool {
	return a.topic != b.topic || a.partition != b.partition || a.offset >= b.offset
}

// DeadLetter notes a dead letter written at a time: the source of the record it stands for, and the
// event in its value, nil if there is none. It may come before or after that record is noted.
func (t *Tally) DeadLetter(written time.Time, source order.Source, e *order.Event) {
	l := letter{place: t.place(source), at: written.UnixMilli()}
	t.letters.byPlace[l.place] = source.ReceivedAt
	t.letters.unticked = true
	if e == nil {
		return
	}
	id := named{identity{t.orderNumber(e.SyncID), e.ID}, contentOf(*e)}
	if before, ok := t.letters.byEvent[id]; !ok || newer(l.place, before.place) {
		t.letters.byEvent[id] = l
	}
}

// TickDeadLetters ticks off what the dead letters noted so far settle.
func (t *Tally) TickDeadLetters() {
	if !t.letters.unticked {
		return
	}
	t.letters.unticked = false
	for at, r := range t.rejected {
		if of, ok := t.letters.byPlace[at]; ok && !r.deadLettered && of.Equal(r.at) {
			r.deadLettered = true
			t.rejections++
		}
	}
	t.open = slices.DeleteFunc(t.open, func(i int32) bool {
		e := &t.events[i]
		if l, ok := t.letters.byEvent[named{e.identity, e.content}]; !ok || !l.covers(e) {
			if at, ok := t.letters.byPlace[e.place]; !ok || at.UnixMilli() != e.at {
				return false
			}
		}
		e.state = deadLettered
		t.settled[deadLettered]++
		return true
	})
	t.asked, t.cursor = 0, 0
}

// Next hands out up to n outstanding events to look up, going round all of them.
func (t *Tally) Next(n int) []target.EventKey {
	if t.cursor >= len(t.open) {
		t.cursor = 0
	}
	t.asked = t.cursor
	t.cursor = min(t.cursor+n, len(t.open))
	keys := make([]target.EventKey, 0, t.cursor-t.asked)
	for _, i := range t.open[t.asked:t.cursor] {
		keys = append(keys, t.key(i))
	}
	return keys
}

func (t *Tally) key(i int32) target.EventKey {
	e := &t.events[i]
	return target.EventKey{SyncID: t.orders[e.order], ID: e.id, Alias: t.aliases[i]}
}

// Tick ticks off the events that the ledger has, of those that Next handed out last, and tells how
// many.
func (t *Tally) Tick(found map[target.EventKey]target.Entry) int {
	t.asked, t.cursor = min(t.asked, len(t.open)), min(t.cursor, len(t.open))
	before := len(t.open)
	window := slices.DeleteFunc(slices.Clone(t.open[t.asked:t.cursor]), func(i int32) bool {
		e := &t.events[i]
		entry, ok := found[t.key(i)]
		if e.another = ok && !e.is(entry); !ok || e.another {
			return false
		}
		t.tick(e, entry)
		return true
	})
	t.open = slices.Replace(t.open, t.asked, t.cursor, window...)
	t.cursor = t.asked + len(window)
	return before - len(t.open)
}

func (t *Tally) tick(e *event, entry target.Entry) {
	switch entry.Outcome {
	case order.Applied:
		e.state = applied
		if order.Invoice.Rank() == int(e.kind) {
			t.invoices++
		}
	case order.Stale:
		e.state = stale
	default:
		e.state = skipped
	}
	t.settled[e.state]++
	if entry.AppliedAt.After(t.last) {
		t.last = entry.AppliedAt
	}
	if !t.patient[entry.SourceTopic] && order.Plausible(entry.ReceivedAt, entry.AppliedAt) {
		took := max(0, entry.Latency().Milliseconds())
		t.latencies = append(t.latencies, uint32(min(took, math.MaxUint32)))
	}
}

// Behind counts the outstanding events that belong to one of the orders, and those orders.
func (t *Tally) Behind(blocked map[string]bool) (events, orders int) {
	if len(blocked) == 0 {
		return 0, 0
	}
	seen := map[int32]bool{}
	for _, i := range t.open {
		if number := t.events[i].order; blocked[t.orders[number]] {
			events++
			seen[number] = true
		}
	}
	return events, len(seen)
}

// Orders are the first n orders with outstanding events that fit, in no order.
func (t *Tally) Orders(n int, fits func(syncID string) bool) (all []string) {
	seen := map[int32]bool{}
	for _, i := range t.open {
		number := t.events[i].order
		if seen[number] || !fits(t.orders[number]) {
			continue
		}
		seen[number] = true
		if all = append(all, t.orders[number]); len(all) == n {
			break
		}
	}
	return all
}

// Outstanding counts the events and rejected records that are not settled.
func (t *Tally) Outstanding() int { return len(t.open) + len(t.rejected) - t.rejections }

// Open counts the events that are not ticked off.
func (t *Tally) Open() int { return len(t.open) }

// Total counts what there is to settle: the events and the rejected records.
func (t *Tally) Total() int { return len(t.events) + len(t.rejected) }

// Waiting is something that is not settled.
type Waiting struct {
	SyncID    string     `json:"sync_id,omitempty"`
	EventID   *uuid.UUID `json:"event_id,omitempty"`
	Kind      order.Kind `json:"event,omitempty"`
	Topic     string     `json:"topic"`
	Partition int        `json:"partition"`
	Offset    int64      `json:"offset"`
	// Reason says what is missing.
	Reason string `json:"reason"`
}

// First lists the first n things that are outstanding and not behind one of the blocked orders, by
// their place in Kafka.
func (t *Tally) First(n int, blocked map[string]bool) []Waiting {
	var first []Waiting
	at := func(p place) Waiting {
		return Waiting{Topic: t.topics[p.topic], Partition: int(p.partition), Offset: p.offset}
	}
	for _, i := range t.open {
		e := t.events[i]
		if id := t.orders[e.order]; !blocked[id] {
			w := at(e.place)
			w.SyncID, w.EventID, w.Kind, w.Reason = id, &e.id, order.Kinds[e.kind], "not in the ledger"
			if e.another {
				w.Reason = "the ledger has another event of this event_id, and there is no dead letter of this one yet"
			}
			first = insert(first, w, n)
		}
	}
	for p, r := range t.rejected {
		if !r.deadLettered {
			w := at(p)
			w.Reason = "no event, and no dead letter of it yet"
			first = insert(first, w, n)
		}
	}
	return first
}

// insert keeps the n lowest places, sorted.
func insert(first []Waiting, w Waiting, n int) []Waiting {
	i, _ := slices.BinarySearchFunc(first, w, func(a, b Waiting) int {
		return cmp.Or(cmp.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition), cmp.Compare(a.Offset, b.Offset))
	})
	if i == n {
		return first
	}
	first = slices.Insert(first, i, w)
	return first[:min(n, len(first))]
}

// orderNumber and place give names numbers, so that an event takes few bytes.
func (t *Tally) orderNumber(id string) int32 {
	number, ok := t.orderOf[id]
	if !ok {
		number = int32(len(t.orders))
		t.orderOf[id] = number
		t.orders = append(t.orders, id)
	}
	return number
}

func (t *Tally) place(s order.Source) place {
	number, ok := t.topicOf[s.Topic]
	if !ok {
		number = int16(len(t.topics))
		t.topicOf[s.Topic] = number
		t.topics = append(t.topics, s.Topic)
	}
	return place{offset: s.Offset, partition: int32(s.Partition), topic: number}
}

// Summary is what came of everything published. Events without Duplicates are the sum of Applied,
// Stale, Skipped, DeadLetters, Blocked, Unwell and Outstanding.
type Summary struct {
	Events      int `json:"events"`     // records in the topics of the channels and of their backfills
	Duplicates  int `json:"duplicates"` // of these, events published before
	Applied     int `json:"applied"`
	Stale       int `json:"stale"`
	Skipped     int `json:"skipped"`
	Orders      int `json:"orders"`
	Invoices    int `json:"invoices"` // applied ones
	DeadLetters int `json:"dead_letters"`
	Blocked     int `json:"blocked"` // events behind a blocked order
	// BlockedOrders are the orders those stand behind.
	BlockedOrders int `json:"blocked_orders"`
	// Unwell are events of orders that do not get on for another reason, and UnwellOrders the first of those.
	Unwell       int           `json:"unwell"`
	UnwellOrders []UnwellOrder `json:"unwell_orders"`
	Outstanding  int           `json:"outstanding"`

	// EventsPerSecond is over the events in the ledger, from the first broker timestamp to the last
	// commit; 0 where that is not known.
	EventsPerSecond float64 `json:"events_per_second"`
	// P50 and P99 are from broker timestamp to commit, in milliseconds, without backfills.
	P50 int64 `json:"p50_ms"`
	P99 int64 `json:"p99_ms"`

	FirstPublished *time.Time `json:"first_published,omitempty"`
	LastApplied    *time.Time `json:"last_applied,omitempty"`

	// Waiting are the first of what is outstanding.
	Waiting []Waiting `json:"waiting"`
}

// UnwellOrder is an order whose outstanding events do not arrive by themselves, and why.
type UnwellOrder struct {
	SyncID  string        `json:"sync_id"`
	Trouble order.Trouble `json:"trouble"`
}

// maxUnwell is how many unwell orders a summary names.
const maxUnwell = 100

// maxWaiting is how many outstanding things a summary names.
const maxWaiting = 10

// Summary adds up, given the orders that are blocked now, and those that do not get on for another reason.
func (t *Tally) Summary(blocked map[string]bool, unwell map[string]order.Trouble) Summary {
	behind, orders := t.Behind(blocked)
	others, settled := map[string]bool{}, maps.Clone(blocked)
	for syncID := range unwell {
		if !blocked[syncID] {
			others[syncID] = true
			if settled == nil {
				settled = map[string]bool{}
			}
			settled[syncID] = true
		}
	}
	ill, _ := t.Behind(others)
	s := Summary{
		Events: t.records, Duplicates: t.duplicates,
		Applied: t.settled[applied], Stale: t.settled[stale], Skipped: t.settled[skipped],
		Invoices: t.invoices, DeadLetters: t.settled[deadLettered] + t.rejections,
		Blocked: behind, BlockedOrders: orders, Outstanding: t.Outstanding() - behind - ill,
		Unwell: ill, UnwellOrders: []UnwellOrder{}, Waiting: append([]Waiting{}, t.First(maxWaiting, settled)...),
	}
	for _, syncID := range t.Orders(maxUnwell, func(syncID string) bool { return others[syncID] }) {
		s.UnwellOrders = append(s.UnwellOrders, UnwellOrder{syncID, unwell[syncID]})
	}
	counted := make([]bool, len(t.orders))
	for _, e := range t.events {
		if !counted[e.order] {
			counted[e.order] = true
			s.Orders++
		}
	}
	if !t.first.IsZero() {
		s.FirstPublished = &t.first
	}
	if !t.last.IsZero() {
		s.LastApplied = &t.last
		if took := t.last.Sub(t.first).Seconds(); took > 0 {
			inLedger := t.settled[applied] + t.settled[stale] + t.settled[skipped]
			s.EventsPerSecond = math.Round(10*float64(inLedger)/took) / 10
		}
	}
	slices.Sort(t.latencies)
	s.P50, s.P99 = percentile(t.latencies, 50), percentile(t.latencies, 99)
	return s
}

// percentile is the nearest-rank one of sorted values.
func percentile(sorted []uint32, p int) int64 {
	if len(sorted) == 0 {
		return 0
	}
	rank := (len(sorted)*p + 99) / 100
	return int64(sorted[max(rank, 1)-1])
}
