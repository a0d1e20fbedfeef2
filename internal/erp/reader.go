package erp

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"strconv"
	"unicode/utf8"

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
			r.fields[name] = json.RawMessage(column)
		default:
			r.fields[name] = r.field(i, column)
			if !utf8.Valid(column) { // encoding/json would put something else in its place
				c.broken = &order.Rejection{Reason: order.InvalidUTF8, Detail: name + " is not valid UTF-8"}
			}
		}
	}
	c.place = r.query + "\x00" + strconv.FormatInt(c.changedAt.UnixMicro(), 10) + "\x00" + string(id)
	return r.maker.row(c), id, nil
}

// field is a column as JSON.
func (r *reader) field(i int, column []byte) json.RawMessage {
	name := r.shape.columns[i]
	switch {
	case r.shape.time[i]:
		if t, err := parseTime(column); err == nil {
			return quoteTime(t)
		}
	case r.shape.number[i] && name != "event_id": // which is a string, whatever an ERP numbers with
		return column
	}
	return appendString(nil, column)
}

// raw is the row that was scanned as a JSON object that is no event either. Data that is no JSON
// stands in it as a string of another name: under its own it might make an event.
func (r *reader) raw() []byte {
	to := []byte{'{'}
	for i, name := range r.shape.columns {
		if i > 0 {
			to = append(to, ',')
		}
		column := []byte(r.columns[i])
		if name == "data" && column != nil && utf8.Valid(column) && !json.Valid(column) {
			to = appendString(append(to, `"data":null,"data_text":`...), column)
			continue
		}
		to = append(appendString(to, name), ':')
		switch {
		case column == nil:
			to = append(to, "null"...)
		case name == "data" && json.Valid(column):
			to = append(to, column...)
		default:
			to = append(to, r.field(i, column)...)
		}
	}
	return append(to, '}')
}
