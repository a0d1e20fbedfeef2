// Package erp reads the system that orders come from. A source is polled: it hands out its changes a
// page at a time, each as an event in the form in which it will be published, and says where to go on.
// For a comparison of both ends it also lists the orders as they stand now.
//
// What docs/ERP.md asks of an ERP is not repeated here. What holds for every source:
//
//   - A change that is read twice is the same event: its id comes from the ERP, or from the change's time, id and
//     content, and never from Kafka or from the name of a query's file.
//   - A change without a version has its time, in microseconds since 1970, as its version.
//   - A place is behind a row, not at a time: however many rows share a time, a page may end among them.
//   - A poll goes back from where its predecessor was when it began, by the ERP's own clock, or from the last
//     row where that is earlier. So neither a row dated in the future, nor a clock that was set back, nor a
//     transaction that a long poll has overtaken leaves a row out, if it commits within the overlap.
//   - A bad row takes its place among the others, and nothing stops at it.
package erp

import (
	"context"
	"encoding/json"
	"time"

	"github.com/google/uuid"

	"ordersync/internal/order"
)

// Cursor is a place in a source's changes. Only its source can read it; the empty one is the beginning.
type Cursor string

// Source is a system that can be polled. It may be used by several goroutines at once.
type Source interface {
	// Page reads the changes after a place. Its error is an *Unavailable where the source says when to
	// ask again, and has ErrCursor in its chain where the place is none of the source's, ErrTooMuch where
	// a lower limit may do.
	Page(context.Context, Request) (Page, error)
	// Rewind is where a poll begins whose predecessor came as far as at: some way before it, because a
	// change may become visible later than one with a younger timestamp.
	Rewind(ctx context.Context, at Cursor, overlap time.Duration) (Cursor, error)
	// From is the place before the first change of t or later.
	From(t time.Time) (Cursor, error)

	// Orders lists the orders as they stand now, each once, in an order of the source's own.
	Orders(ctx context.Context, after Cursor, limit int) (OrderPage, error)
	// Known tells which of the orders the source has.
	Known(ctx context.Context, syncIDs []string) (map[string]bool, error)

	Close() error
}

// Request asks for a page.
type Request struct {
	After Cursor
	// Until leaves out what changed at that time or later; zero for no bound.
	Until time.Time
	// Limit bounds the rows of the page; only rows without an id in an SQL source, which are read as a
	// whole, may exceed it.
	Limit int
}

// Page is a part of a source's changes, in the source's order.
type Page struct {
	Rows []Row
	// Next is the place after the last row; that of the request where there is none.
	Next Cursor
	// More tells that there was more to read when the page was made.
	More bool
}

// Row is a change.
type Row struct {
	// Event is the change as an event that has no place in Kafka yet. Its id does not depend on one.
	Event order.Event
	// Value is the event as it is published: order.Decode makes of it the Event.
	Value []byte
	// ChangedAt is the source's time of the change; zero where it tells none.
	ChangedAt time.Time
	// Place names what changed within the source: a later change of it, of the same kind, has the same; empty where
	// the source tells none.
	Place string
	// Rejected says why the row is no event; nil for one that is. Event then holds at most SyncID and
	// Channel, as far as they could be read, and Value the row as it came.
	Rejected *order.Rejection
	// Eventlike reports that Value, of a rejected row, would be an event in a topic, as only its changed_at is wrong.
	// Its Event has no Channel then, so that it is published to none.
	Eventlike bool
	// Earlier is the id under which releases before derived versions published the event, without a version. It is
	// the nil UUID for an event with a version or an event_id of its own. The id of every other event comes from its
	// content.
	Earlier uuid.UUID
}

// OrderPage is a part of a source's orders.
type OrderPage struct {
	Orders []Order
	Next   Cursor
	More   bool
}

// Order is an order as it stands in the source.
type Order struct {
	SyncID  string
	Channel order.Channel
	Version int64 // 0 if it has none
	// Derived reports that Version comes from ChangedAt, as that of a change without a version does.
	Derived bool
	Data    json.RawMessage
	// ChangedAt is when it was last changed; zero where the source tells none.
	ChangedAt time.Time
	// Rejected says why the row is no order; nil for one that is.
	Rejected *order.Rejection
}

// Unavailable is the error of a source that asks not to be asked again for a while.
type Unavailable struct {
	After time.Duration
	Err   error
}

func (u *Unavailable) Error() string { return u.Err.Error() }

// Unwrap is the reason.
func (u *Unavailable) Unwrap() error { return u.Err }

// RetryAfter is how long to leave the source alone.
func (u *Unavailable) RetryAfter() time.Duration { return u.After }
