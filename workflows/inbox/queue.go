package inbox

import (
	"slices"
	"sort"
	"time"

	"github.com/google/uuid"

	"ordersync/internal/order"
)

// queue holds an order's pending events in the order in which the rules apply them. To add one costs
// about the same however many wait: thousands may arrive in one workflow task, which has a second.
//
// It is a linked list with indexes into it. The versioned events of the list are always sorted, and so
// are the unversioned ones of a partition unless their topic was created again. So a binary search finds
// the event that a new one goes before.
type queue struct {
	first, last *node
	byID        map[uuid.UUID]*node
	// versioned has the events with a version, sorted by version, kind and arrival.
	versioned []*node
	// strands have the events without a version, by the partition they came from.
	strands map[partition][]*strand
	bytes   int // the sum of the events' sizes
}

type node struct {
	event      order.Event
	prev, next *node
}

type partition struct {
	topic string
	id    int
}

// strand has unversioned events of one partition, in the order of the list. A partition has one, and one
// more for each time that its topic was created again.
type strand struct {
	nodes []*node
	// latest is the youngest record's timestamp: what was received after it goes before none of them.
	latest time.Time
	// broken is set once the offsets do not rise: it is then searched one by one.
	broken bool
}

func newQueue() queue {
	return queue{byID: map[uuid.UUID]*node{}, strands: map[partition][]*strand{}}
}

func (q *queue) len() int { return len(q.byID) }

// add puts an event before the first one that it precedes, or at the end.
func (q *queue) add(e order.Event) {
	n := q.keep(e)
	if e.Versioned() {
		i := sort.Search(len(q.versioned), func(i int) bool { return precedes(e, q.versioned[i].event) })
		q.insert(n, at(q.versioned, i))
		q.versioned = slices.Insert(q.versioned, i, n)
		return
	}
	from := partition{e.Source.Topic, e.Source.Partition}
	for _, s := range q.strands[from] {
		if i := s.place(e); i < len(s.nodes) {
			q.insert(n, s.nodes[i])
			s.insert(i, n)
			return
		}
	}
	q.insert(n, nil)
	q.extend(from, n)
}

// keep makes the event's node, which has no place in the list yet.
func (q *queue) keep(e order.Event) *node {
	n := &node{event: e}
	q.byID[e.ID] = n
	q.bytes += e.Size()
	return n
}

// place is the index of the first event that e precedes, or the number of events.
func (s *strand) place(e order.Event) int {
	if e.Source.ReceivedAt.After(s.latest) {
		return len(s.nodes)
	}
	from := 0
	if !s.broken {
		from = sort.Search(len(s.nodes), func(i int) bool { return s.nodes[i].event.Source.Offset > e.Source.Offset })
	}
	for i := from; i < len(s.nodes); i++ {
		if precedes(e, s.nodes[i].event) {
			return i
		}
	}
	return len(s.nodes)
}

func (s *strand) insert(i int, n *node) {
	source := n.event.Source
	s.broken = s.broken || i > 0 && s.nodes[i-1].event.Source.Offset > source.Offset
	s.nodes = slices.Insert(s.nodes, i, n)
	if source.ReceivedAt.After(s.latest) {
		s.latest = source.ReceivedAt
	}
}

// extend adds the last event of the list to the last strand of its partition, or begins another one.
func (q *queue) extend(from partition, n *node) {
	strands := q.strands[from]
	if len(strands) == 0 || strands[len(strands)-1].end() > n.event.Source.Offset {
		strands = append(strands, &strand{})
		q.strands[from] = strands
	}
	s := strands[len(strands)-1]
	s.insert(len(s.nodes), n)
}

// end is the last event's offset.
func (s *strand) end() int64 { return s.nodes[len(s.nodes)-1].event.Source.Offset }

func at(nodes []*node, i int) *node {
	if i == len(nodes) {
		return nil
	}
	return nodes[i]
}

// insert links n into the list before another node, or at the end where that is nil.
func (q *queue) insert(n, before *node) {
	prev := q.last
	if before != nil {
		prev = before.prev
	}
	n.prev, n.next = prev, before
	if prev == nil {
		q.first = n
	} else {
		prev.next = n
	}
	if before == nil {
		q.last = n
	} else {
		before.prev = n
	}
}

// remove takes an event out.
func (q *queue) remove(n *node) {
	if n.prev == nil {
		q.first = n.next
	} else {
		n.prev.next = n.next
	}
	if n.next == nil {
		q.last = n.prev
	} else {
		n.next.prev = n.prev
	}
	e := n.event
	delete(q.byID, e.ID)
	q.bytes -= e.Size()
	if e.Versioned() {
		i := sort.Search(len(q.versioned), func(i int) bool { return !precedes(q.versioned[i].event, e) })
		i += slices.Index(q.versioned[i:], n)
		q.versioned = slices.Delete(q.versioned, i, i+1)
		return
	}
	from := partition{e.Source.Topic, e.Source.Partition}
	strands := q.strands[from]
	for which, s := range strands {
		i := slices.Index(s.nodes, n)
		if i < 0 {
			continue
		}
		s.nodes = slices.Delete(s.nodes, i, i+1)
		if len(s.nodes) == 0 {
			strands = slices.Delete(strands, which, which+1)
		}
		break
	}
	q.strands[from] = strands
	if len(strands) == 0 {
		delete(q.strands, from)
	}
}

// events are all that is pending, in order.
func (q *queue) events() []order.Event {
	all := make([]order.Event, 0, q.len())
	for n := q.first; n != nil; n = n.next {
		all = append(all, n.event)
	}
	return all
}

// restore rebuilds the queue from events in their order. It does not sort them again: an event without
// a version may stand where the order of arrival, known only then, has put it.
func (q *queue) restore(events []order.Event) {
	*q = newQueue()
	for _, e := range events {
		n := q.keep(e)
		q.insert(n, nil)
		if e.Versioned() {
			q.versioned = append(q.versioned, n)
			continue
		}
		q.extend(partition{e.Source.Topic, e.Source.Partition}, n)
	}
}

// precedes reports whether an event goes before one that is pending.
func precedes(e, pending order.Event) bool {
	switch {
	case e.Versioned() != pending.Versioned():
		return false
	case !e.Versioned():
		// A replay, or a signal that could not be read at first, brings it late.
		mine, other := e.Source, pending.Source
		return mine.Topic == other.Topic && mine.Partition == other.Partition && mine.Offset < other.Offset &&
			!mine.ReceivedAt.After(other.ReceivedAt) // else the topic was created again
	case e.Version != pending.Version:
		return e.Version < pending.Version
	default:
		return e.Kind.Rank() < pending.Kind.Rank()
	}
}
