package erp

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// sqlCursor is a place in each of the queries. Times are microseconds since 1970, UTC: that is
// what both databases keep.
type sqlCursor struct {
	Kind string `json:"kind"`
	// Queries are the places by the queries' names. A query without one begins at Since.
	Queries map[string]place `json:"queries,omitempty"`
	// Since is where the poll that came here began, for a query that has no place: a new one, one whose file was
	// renamed, or one that never had a row. Without it that is From, or the beginning.
	Since int64 `json:"since,omitempty"`
	// Began is the database's clock when the poll that came here began; 0 before its first page.
	Began int64 `json:"began,omitempty"`
	// From is where polling began; no place is ever before it.
	From int64 `json:"from,omitempty"`
}

const sqlKind = "sql"

// place is a place in a query's rows: behind the row (At, ID), or before all rows of At if it has neither ID nor
// Nulls.
type place struct {
	At int64 `json:"at"`
	// ID is a JSON number or string.
	ID json.RawMessage `json:"id,omitempty"`
	// Nulls tells that the place is behind the rows of At that have no id.
	Nulls bool `json:"nulls,omitempty"`
	// Reached is the time up to which the query had been read before the place was moved back.
	Reached int64 `json:"reached,omitempty"`
}

func parseSQLCursor(c Cursor) (sqlCursor, error) {
	cursor := sqlCursor{Kind: sqlKind}
	if c == "" {
		return cursor, nil
	}
	if err := json.Unmarshal([]byte(c), &cursor); err != nil || cursor.Kind != sqlKind {
		return sqlCursor{}, fmt.Errorf("the cursor %q is %w", clip(string(c)), ErrCursor)
	}
	return cursor, nil
}

func (c sqlCursor) encode() (Cursor, error) {
	text, err := json.Marshal(c)
	return Cursor(text), err
}

// rewind moves the places back by overlap, from where they are or from now, whichever is earlier.
//
// Began is what makes that safe. A row dated in the future takes the place into the future; rows
// that are changed before that time comes would lie before it, also if nobody polls for a while and
// the database's clock has passed it when the next poll begins. And a poll of many pages goes past
// rows whose transactions are still open when it begins and not when it ends.
func (c sqlCursor) rewind(now int64, overlap time.Duration) sqlCursor {
	back := sqlCursor{Kind: sqlKind, From: c.From, Queries: make(map[string]place, len(c.Queries))}
	for name, p := range c.Queries {
		at := max(p.At, p.Reached)
		to := min(at, now)
		if c.Began != 0 {
			to = min(to, c.Began)
		}
		to = max(to-overlap.Microseconds(), c.From)
		if to >= p.At {
			back.Queries[name] = p
			continue
		}
		back.Queries[name] = place{At: to, Reached: at}
	}
	return back
}

// since is where a query without a place begins after a poll: what was visible at the end of that one was read.
// Where places belong to names that are gone, a file may have been renamed, and then its query was read as far as
// that place and no further.
func (c sqlCursor) since(names []string, now int64, overlap time.Duration) int64 {
	var gone, known []int64
	for name, p := range c.Queries {
		if slices.Contains(names, name) {
			known = append(known, max(p.At, p.Reached))
		} else {
			gone = append(gone, max(p.At, p.Reached))
		}
	}
	to := now
	if c.Began != 0 {
		to = min(to, c.Began)
	}
	switch {
	case len(gone) > 0:
		to = min(to, slices.Min(gone))
	case len(known) > 0:
		to = min(to, slices.Max(known))
	}
	return max(to-overlap.Microseconds(), c.From)
}

func idText(id json.RawMessage) string {
	var s string
	if json.Unmarshal(id, &s) == nil {
		return s
	}
	return string(id)
}

// idOf is an id as a cursor keeps it; nil for NULL.
func idOf(column []byte, number bool) json.RawMessage {
	switch {
	case column == nil:
		return nil
	case number && digits(string(column)):
		return append(json.RawMessage{}, column...)
	default:
		return appendString(nil, column)
	}
}

// argument is an id as its column is compared with. A string for a column of integers MySQL would
// compare as a floating point number, and PostgreSQL not at all: that is false, and happens only
// where a query was changed.
func argument(id json.RawMessage, integers, asInteger bool) (any, bool) {
	text := idText(id)
	switch {
	case !integers:
		return text, true
	case !asInteger:
		return text, digits(text)
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n, true
	}
	n, err := strconv.ParseUint(text, 10, 64)
	return n, err == nil
}

// digits tells whether the text is an integer in its usual form, which no other text equals.
func digits(text string) bool {
	unsigned := strings.TrimPrefix(text, "-")
	for i := range len(unsigned) {
		if unsigned[i] < '0' || unsigned[i] > '9' {
			return false
		}
	}
	return unsigned != "" && (unsigned[0] != '0' || text == "0")
}
