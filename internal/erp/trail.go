package erp

import (
	"cmp"
	"encoding/json"
	"fmt"
	"time"
)

// maxNext is the most bytes of a service's own cursor.
const maxNext = 1024

// httpCursor is a place in a service's changes. Times are microseconds since 1970, UTC.
type httpCursor struct {
	Kind string `json:"kind"`
	step
	// Trail are the steps that led here, the oldest first.
	Trail []step `json:"trail,omitempty"`
	// Began is the ERP's clock when the poll that came here began; 0 before its first page.
	Began int64 `json:"began,omitempty"`
	// Walk guards the poll against a list without an end.
	Walk walk `json:"walk,omitzero"`
	// Before is the Began of the poll before the one that begins here, and Overlap how far that goes back.
	Before  int64 `json:"before,omitempty"`
	Overlap int64 `json:"overlap,omitempty"`
	// Versioned reports that an event had a version of its own, so that none is derived for the others.
	Versioned bool `json:"versioned,omitempty"`
}

const httpKind = "http"

// step is a place that was reached.
type step struct {
	// Next is the service's own cursor; without one the place is the beginning, or Since.
	Next  string `json:"next,omitempty"`
	Since string `json:"since,omitempty"`
	// At is a time, not before which everything behind the place was changed, or at least first seen.
	At int64 `json:"at,omitempty"`
}

func parseHTTPCursor(c Cursor) (httpCursor, error) {
	cursor := httpCursor{Kind: httpKind}
	if c == "" {
		return cursor, nil
	}
	if err := json.Unmarshal([]byte(c), &cursor); err != nil || cursor.Kind != httpKind {
		return httpCursor{}, fmt.Errorf("the cursor %q is %w", clip(string(c)), ErrCursor)
	}
	return cursor, nil
}

func (c httpCursor) encode() (Cursor, error) {
	text, err := json.Marshal(c)
	return Cursor(text), err
}

// moved is the cursor at next, reached at a time.
func (c httpCursor) moved(next string, at int64) httpCursor {
	if next == c.Next && c.Since == "" {
		return c
	}
	trail := append(append([]step{}, c.Trail...), c.step)
	c.step = step{Next: next, At: max(at, c.At)} // a page whose changes are older does not make the way younger
	c.Trail = thin(trail, c.At)
	return c
}

// rewind goes back along the trail by overlap, from the place or from when the poll that came here began,
// whichever is earlier: where the changes' times are behind the ERP's clock, one that becomes visible
// late is behind it as well. Where no step is old enough it is the first.
func (c httpCursor) rewind(overlap time.Duration) httpCursor {
	begun := httpCursor{Kind: httpKind, step: c.step, Trail: c.Trail, Before: cmp.Or(c.Began, c.Before), Overlap: overlap.Microseconds(),
		Versioned: c.Versioned}
	if overlap == 0 || c.Began == 0 {
		return begun
	}
	return begun.backTo(min(c.Began, c.At) - begun.Overlap)
}

// backTo is the last step of a time or earlier; where none is, the first.
func (c httpCursor) backTo(at int64) httpCursor {
	for c.At > at && len(c.Trail) > 0 {
		last := len(c.Trail) - 1
		c.step, c.Trail = c.Trail[last], c.Trail[:last]
	}
	return c
}

// begin is where a poll begins by the ERP's clock, if it has not begun. Where the clock was set back, what
// has changed since may lie further back than the poll before tells.
func (c httpCursor) begin(now int64) httpCursor {
	if c.Began != 0 {
		return c
	}
	if now < c.Before {
		c = c.backTo(now - c.Overlap)
	}
	c.Began, c.Before, c.Overlap = now, 0, 0
	return c
}

// Of the trail as many steps are kept as an overlap of a day, the longest, can ask for, and the further
// back the fewer: a poll that goes back by an hour may as well go back by an hour and a half.
const (
	longestOverlap = 24 * time.Hour
	finest         = int64(time.Second / time.Microsecond)
	coarseness     = 3 // steps of an age are this part of the age apart
)

// thin drops steps that are close to others. now is the time of the place that the trail leads to.
func thin(trail []step, now int64) []step {
	kept := make([]step, 0, len(trail))
	for i := len(trail) - 1; i >= 0; i-- {
		s := trail[i]
		if n := len(kept); n > 1 {
			// The younger neighbour goes if the distance between those on both sides of it is small.
			if wide := kept[n-2].At - s.At; wide < max(finest, (now-s.At)/coarseness) {
				kept = kept[:n-1]
			}
		}
		kept = append(kept, s)
		if now-s.At > longestOverlap.Microseconds() {
			break // older ones are not asked for
		}
	}
	for i, j := 0, len(kept)-1; i < j; i, j = i+1, j-1 {
		kept[i], kept[j] = kept[j], kept[i]
	}
	return kept
}
