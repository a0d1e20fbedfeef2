package erp

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/google/uuid"

	"ordersync/internal/order"
)

// reader makes changes of the rows of a statement. The columns are those of its shape.
type reader struct {
	shape   *shape
	maker   maker
	query   string
	columns []sql.RawBytes
	targets []any
	fields  order.Fields
}

func newReader(shape *shape, m maker, query string) *reader {
	r := &reader{shape: shape, maker: m, query: query, columns: make([]sql.RawBytes, len(shape.columns)), fields: order.Fields{}}
	for i := range r.columns {
		r.targets = append(r.targets, &r.columns[i])
	}
	return r
}

// row is the row that was scanned, and its id, nil if that is NULL. An error means that there is no
// telling where the row lies, so there would be no going on behind it.
func (r *reader) row() (Row, json.RawMessage, error) {
	clear(r.fields)
	c := change{fields: r.fields, raw: r.raw}
	var id json.RawMessage
	for i, name := range r.shape.columns {
		column := []byte(r.columns[i])
		if column == nil {
			continue
		}
		switch name {
		case "changed_at":
			var err error
			if c.changedAt, err = parseTime(column); err != nil {
				return Row{}, nil, fmt.Errorf("changed_at %q is not understood: %w", clip(string(column)), err)
			}
		case "id":
			id = idOf(column, r.shape.number[i])
		case "channel":
			c.channel = string(column)
		case "data":
			if len(column) > 0 { // an empty text is none
				r.fields[name] = json.RawMessage(column)
			}
		default:
			if r.none(i, column) {
				continue
			}
			r.fields[name] = r.field(i, column)
			switch {
			case name == "event_id" && r.uuid(i, column):
			case r.shape.bytes[i] && name == "event_id":
				c.broken = invalid("event_id has %d bytes that are no text; 16 of them are taken for a UUID", len(column))
			case !utf8.Valid(column): // encoding/json would put something else in its place
				c.broken = &order.Rejection{Reason: order.InvalidUTF8, Detail: name + " is not valid UTF-8"}
			case name == "sync_id" && r.shape.number[i] && !json.Valid(column) && !digits(strings.TrimLeft(string(column), "0")):
				c.broken = invalid("sync_id is %s", clip(string(column)))
			}
		}
	}
	c.place = strconv.FormatInt(c.changedAt.UnixMicro(), 10) + "\x00" + string(id)
	c.formerPlace, c.formerChangedAt = r.query+"\x00"+c.place, c.changedAt
	row := r.maker.row(c)
	if id != nil {
		row.Place = r.query + "\x00" + string(id)
	}
	return row, id, nil
}

// none reports whether an optional time says that there is none: MySQL's zero dates, PostgreSQL's infinity, and
// all that no event can have.
func (r *reader) none(i int, column []byte) bool {
	if !r.shape.time[i] {
		return false
	}
	t, err := parseTime(column)
	return err != nil || !representable(t)
}

// uuid reports whether a column has the 16 bytes of a UUID instead of its text.
func (r *reader) uuid(i int, column []byte) bool {
	return len(column) == len(uuid.UUID{}) && (r.shape.bytes[i] || !utf8.Valid(column))
}

// field is a column as JSON.
func (r *reader) field(i int, column []byte) json.RawMessage {
	name := r.shape.columns[i]
	switch {
	case name == "event_id" && r.uuid(i, column):
		return appendString(nil, uuid.UUID(column).String())
	case r.shape.time[i]:
		if t, err := parseTime(column); err == nil {
			return quoteTime(t)
		}
	case r.shape.number[i] && name != "event_id" && json.Valid(column): // NaN is none; an event_id is a string, whatever an ERP numbers with
		return column
	}
	return appendString(nil, column)
}

// raw is the row that was scanned as a JSON object that is no event either. Data that is no JSON stands in it as it
// came, so that whoever reads it finds what is wrong; a mark keeps it from making JSON together with what stands
// around it.
func (r *reader) raw() []byte {
	to := []byte{'{'}
	marked := -1
	for i, name := range r.shape.columns {
		if i > 0 {
			to = append(to, ',')
		}
		column := []byte(r.columns[i])
		to = append(appendString(to, name), ':')
		switch {
		case len(column) == 0 && (column == nil || name == "data"):
			to = append(to, "null"...)
		case name == "data" && json.Valid(column):
			to = append(to, column...)
		case name == "data":
			marked = len(to)
			to = append(append(to, malformed...), column...)
		default:
			to = append(to, r.field(i, column)...)
		}
	}
	if to = append(to, '}'); marked >= 0 {
		if plain := slices.Delete(slices.Clone(to), marked, marked+len(malformed)); !json.Valid(plain) {
			return plain
		}
	}
	return to
}

// malformed is the mark of data that is no JSON where the row around it would hide that.
const malformed = "malformed "
