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
}

// change is what a source says of one.
type change struct {
	fields    order.Fields // as of an event; "occurred_at" may be filled in from changedAt
	channel   string
	changedAt time.Time
	// place identifies the change beside its content; empty where the source tells none.
	place string
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
	row.Event = order.Event{SyncID: c.fields.SyncID(), Channel: channel}
	row.Rejected = rejection(err)
	if row.Value == nil {
		row.Value = c.raw()
	}
	return row
}

// event fills in Event and Value. What it leaves in Value beside an error is rejected by order.Decode
// for the same reason.
func (m maker) event(row *Row, c change, channel order.Channel) error {
	if c.broken != nil {
		return c.broken
	}
	named := !c.fields.Absent("occurred_at")
	if !named && !c.changedAt.IsZero() && representable(c.changedAt) {
		c.fields["occurred_at"] = quoteTime(c.changedAt)
		named = true
	}
	e, err := c.fields.Event(order.Record{Timestamp: m.now.Truncate(time.Millisecond)}, channel)
	if err != nil {
		return err
	}
	if !e.Versioned() && c.fields.Absent("event_id") {
		value, _ := appendEvent(nil, e, uuid.Nil, named)
		e.ID = order.RowID(c.place, value)
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

// representable tells whether order.Decode takes the time.
func representable(t time.Time) bool {
	year := t.UTC().Year()
	return 1000 <= year && year <= 9999
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
