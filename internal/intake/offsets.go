package intake

import (
	"cmp"
	"slices"
	"sync"
	"time"
)

// tracker knows what may be committed of one partition: everything below the first fetched record
// that is not finished. Offsets have gaps (transaction markers, aborted records, compaction), so it
// counts on no offset but those it was given.
//
// It belongs to one generation. A call that outlives its generation still finishes its record here,
// and nobody reads it any more.
type tracker struct {
	mu sync.Mutex
	// open holds, by ascending offset, the first unfinished record and all fetched after it.
	open       []inFlight
	unfinished int   // of open
	next       int64 // where the next fetch begins
	// committed is the offset the group's next owner would begin at.
	committed int64
	// known tells that Kafka holds committed; a position found by looking it up is not known yet.
	known bool
}

type inFlight struct {
	offset   int64
	received time.Time
	finished bool
}

// newTracker begins at offset start. known tells that it is the committed one.
func newTracker(start int64, known bool) *tracker {
	return &tracker{next: start, committed: start, known: known}
}

// fetched notes a record that is from now on in flight. Offsets must rise.
func (t *tracker) fetched(offset int64, received time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open = append(t.open, inFlight{offset: offset, received: received})
	t.unfinished++
	t.next = max(t.next, offset+1)
}

// passed notes that nothing below next is still to be fetched.
func (t *tracker) passed(next int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.next = max(t.next, next)
}

// finish notes that the record at offset is durably in Temporal or in the dead-letter topic.
func (t *tracker) finish(offset int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	i, found := slices.BinarySearchFunc(t.open, offset, func(f inFlight, offset int64) int { return cmp.Compare(f.offset, offset) })
	if !found || t.open[i].finished {
		return
	}
	t.open[i].finished = true
	t.unfinished--
	done := 0
	for done < len(t.open) && t.open[done].finished {
		done++
	}
	t.open = t.open[done:]
}

// position is the offset that may be committed: the group's next owner begins there.
func (t *tracker) position() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.positionLocked()
}

func (t *tracker) positionLocked() int64 {
	if len(t.open) > 0 {
		return t.open[0].offset
	}
	return t.next
}

// uncommitted is the position, and whether Kafka does not know it yet.
func (t *tracker) uncommitted() (int64, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	position := t.positionLocked()
	return position, !t.known || position != t.committed
}

// commit notes that Kafka holds offset.
func (t *tracker) commit(offset int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.committed, t.known = offset, true
}

// window counts the offsets, gaps included, that a restart would read again once the record at
// offset is fetched.
func (t *tracker) window(offset int64) int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return offset + 1 - t.committed
}

// standing is a partition at one moment.
type standing struct {
	next       int64
	committed  int64
	unfinished int       // records in flight
	oldest     time.Time // the timestamp of the first record not finished; zero if there is none
}

func (t *tracker) standing() standing {
	t.mu.Lock()
	defer t.mu.Unlock()
	s := standing{next: t.next, committed: t.committed, unfinished: t.unfinished}
	if len(t.open) > 0 {
		s.oldest = t.open[0].received
	}
	return s
}
