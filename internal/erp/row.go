package erp

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"

	"ordersync/internal/order"
)

// maker makes rows of what a source says of its changes.
type maker struct {
	channel order.Channel // of rows that name none
	now     time.Time     // when they are read
	// plain leaves rows without a version as they are. Other rows of the source have versions of their own, and a
	// version of microseconds would make each of those stale.
	plain bool
}

// change is what a source says of one.
type change struct {
	fields    order.Fields // as of an event; "occurred_at" may be filled in from changedAt
	channel   string
	changedAt time.Time
	// place identifies the change beside its content. It has the time of the change, or is empty: two changes of one
	// identity must not get two versions.
	place string
	// formerPlace and formerChangedAt are what releases before derived versions made the identity of.
	formerPlace     string
	formerChangedAt time.Time
	// broken says why it is no event whatever its fields make; nil if it may be one.
	broken *order.Rejection
	// raw is the change as it came, for one that is rejected. It is only called then.
	raw func() []byte
}

// row makes the row of a change.
func (m maker) row(c change) Row {
	row := Row{ChangedAt: c.changedAt}
	channel, err := m.channelOf(c.channel)
	if err == nil {
		err = m.event(&row, c, channel)
	}
	if err == nil {
		return row
	}
	row = Row{ChangedAt: c.changedAt, Value: row.Value, Rejected: rejection(err)}
	row.Event = order.Event{SyncID: c.fields.SyncID(), Channel: channel}
	if row.Value == nil {
		row.Value = c.raw()
	}
	if c.broken != nil {
		if _, err := order.Decode(order.Record{Value: row.Value, Timestamp: m.now}, channel); err == nil {
			row.Event.Channel, row.Eventlike = "", true
		}
	}
	return row
}

// event fills in Event and Value. What it leaves in Value beside an error is rejected by order.Decode
// for the same reason.
func (m maker) event(row *Row, c change, channel order.Channel) error {
	if c.broken != nil {
		return c.broken
	}
	own := !c.fields.Absent("occurred_at")
	if own {
		raw := c.fields["occurred_at"]
		if at, ok := occurredAt(raw); ok {
			c.fields["occurred_at"] = quoteTime(at)
		} else {
			// It counts as absent. What stands there still says which event it is.
			c.place += "\x00" + string(raw)
			delete(c.fields, "occurred_at")
			own = false
		}
	}
	named := own || representable(c.changedAt)
	if !own && named {
		c.fields["occurred_at"] = quoteTime(c.changedAt)
	}
	e, err := c.fields.Event(order.Record{Timestamp: m.now.Truncate(time.Millisecond)}, channel)
	if err != nil {
		return err
	}
	if !e.Versioned() && c.fields.Absent("event_id") {
		value, _ := appendEvent(nil, e, uuid.Nil, named)
		e.ID = order.RowID(c.place, value)
		if !own && !c.formerChangedAt.Equal(c.changedAt) {
			value, _ = appendEvent(nil, e, uuid.Nil, representable(c.formerChangedAt))
		}
		row.Earlier = order.RowID(c.formerPlace, value)
		if !m.plain && c.place != "" {
			e.Version = derivedVersion(c.changedAt)
		}
		if e.Versioned() && e.Kind != order.Invoice {
			e.Digest = "" // as order.Decode leaves it
		}
	}
	value, data := appendEvent(make([]byte, 0, len(e.Data)+eventOverhead), e, e.ID, named)
	if err := m.check(value, e); err != nil {
		row.Value = value
		return err
	}
	// One array for both: a page holds thousands of rows.
	e.Data = value[data : data+len(e.Data) : data+len(e.Data)]
	row.Event, row.Value = e, value
	return nil
}

// check makes sure that order.Decode takes what was made of fields that are fine each by itself.
func (m maker) check(value []byte, e order.Event) error {
	const deep = 9_000 // encoding/json stops at a depth of 10,000, and the value is one deeper than its data
	if len(value) <= order.MaxValue && bytes.Count(e.Data, []byte{'['})+bytes.Count(e.Data, []byte{'{'}) < deep {
		return nil
	}
	_, err := order.Decode(order.Record{Value: value, Timestamp: m.now}, e.Channel)
	return err
}

func (m maker) channelOf(name string) (order.Channel, error) {
	channel := order.Channel(name)
	switch {
	case name == "" && m.channel != "":
		return m.channel, nil
	case name == "":
		return "", &order.Rejection{Reason: order.MissingField, Detail: "channel is missing"}
	case !slices.Contains(order.Channels, channel):
		return "", invalid("channel %q is none of %s, %s, %s", clip(name), order.Online, order.Store, order.International)
	default:
		return channel, nil
	}
}

func invalid(format string, args ...any) *order.Rejection {
	return &order.Rejection{Reason: order.InvalidField, Detail: fmt.Sprintf(format, args...)}
}

// rejection is the reason in an error of internal/order, whose every error has one.
func rejection(err error) *order.Rejection {
	var r *order.Rejection
	if errors.As(err, &r) {
		return r
	}
	return invalid("%v", err)
}

// eventOverhead is about the length of an event's value without its data.
const eventOverhead = 256

// appendEvent appends the event in the form of its Message, without event_id where id is the nil
// UUID, and tells where its data begins.
func appendEvent(to []byte, e order.Event, id uuid.UUID, occurred bool) (value []byte, data int) {
	to = appendString(append(to, `{"sync_id":`...), e.SyncID)
	to = appendString(append(to, `,"event":`...), string(e.Kind))
	if id != uuid.Nil {
		to = appendString(append(to, `,"event_id":`...), id.String())
	}
	if e.Versioned() {
		to = strconv.AppendInt(append(to, `,"version":`...), e.Version, 10)
	}
	if occurred {
		to = append(append(to, `,"occurred_at":`...), quoteTime(e.OccurredAt)...)
	}
	to = append(to, `,"data":`...)
	data = len(to)
	return append(append(to, e.Data...), '}'), data
}

// quoteTime is a time as order.Decode reads it.
func quoteTime(t time.Time) []byte {
	to := append(make([]byte, 0, len(time.RFC3339Nano)+2), '"')
	return append(t.UTC().AppendFormat(to, time.RFC3339Nano), '"')
}

// representable reports whether order.Decode takes the time. The zero time, which stands for none, is not.
func representable(t time.Time) bool {
	year := t.UTC().Year()
	return 1000 <= year && year <= 9999
}

// derivedVersion is the version of a change that has none of its own: its time in microseconds since 1970; 0 where
// that is not 1 or more. A later change of an order has a higher one, so that polled data never goes back.
func derivedVersion(changedAt time.Time) int64 {
	if !representable(changedAt) {
		return 0
	}
	return max(changedAt.UnixMicro(), 0)
}

// derived returns whether the event has a version that comes from its time, ownVersion whether it has one of its own.
func (r Row) derived() bool { return r.Event.Versioned() && r.Earlier != uuid.Nil }

func (r Row) ownVersion() bool { return r.Event.Versioned() && r.Earlier == uuid.Nil }

// Former is the row as releases before derived versions published it: under its Earlier id, without a version.
func (r Row) Former() Row {
	if r.Rejected != nil || r.Earlier == uuid.Nil {
		return r
	}
	r.Event.ID, r.Event.Version = r.Earlier, 0
	if r.Event.Digest == "" {
		r.Event.Digest = order.MeaningOf(r.Event.Data).Digest()
	}
	r.Value, _ = appendEvent(make([]byte, 0, len(r.Value)), r.Event, r.Event.ID, true)
	return r
}

// appendString appends a JSON string. Bytes that are no UTF-8 stay as they are: order.Decode refuses
// them by name, where encoding/json would put something else in their place.
func appendString[T string | []byte](to []byte, s T) []byte {
	const hex = "0123456789abcdef"
	to = append(to, '"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			to = append(to, '\\', c)
		case c < ' ':
			to = append(to, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
		default:
			to = append(to, c)
		}
	}
	return append(to, '"')
}

// clip shortens what is quoted in an error.
func clip(s string) string {
	const most = 80
	if len(s) <= most {
		return s
	}
	end := most
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + "…"
}
