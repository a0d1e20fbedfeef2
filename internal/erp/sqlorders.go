package erp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"ordersync/internal/order"
)

// errNoOrders is the error of a source that has changes and no orders.
var errNoOrders = errors.New("ERP_ORDERS_QUERY is not set: a .sql file, the query for the orders as they stand")

// ordersCursor is the order that the last page ended with, as a JSON number or string.
type ordersCursor struct {
	Kind   string          `json:"kind"`
	SyncID json.RawMessage `json:"sync_id"`
}

// Orders lists the orders by sync_id, as the database sorts it.
func (s *sqlSource) Orders(ctx context.Context, after Cursor, limit int) (OrderPage, error) {
	limit = max(limit, 1)
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	shape, err := s.ordersShape(ctx)
	if err != nil {
		return OrderPage{}, err
	}
	where, args := "sync_id IS NOT NULL", []any(nil)
	if after != "" {
		var cursor ordersCursor
		if err := json.Unmarshal([]byte(after), &cursor); err != nil || cursor.Kind != sqlKind || len(cursor.SyncID) == 0 {
			return OrderPage{}, fmt.Errorf("the cursor %q is %w", clip(string(after)), ErrCursor)
		}
		id, ok := argument(cursor.SyncID, shape.id, s.dialect.integerIDs)
		if !ok {
			return OrderPage{}, fmt.Errorf("the cursor %q is %w: sync_id is an integer", clip(string(after)), ErrCursor)
		}
		where, args = "sync_id > "+s.dialect.parameter(1), []any{id}
	}
	page := OrderPage{Next: after}
	err = s.eachOrder(ctx, shape, where+fmt.Sprintf(" ORDER BY sync_id LIMIT %d", limit+1), args, func(o Order, id json.RawMessage, size int) (bool, error) {
		if len(page.Orders) == limit || size >= maxPage {
			page.More = true
			return false, nil
		}
		page.Orders = append(page.Orders, o)
		next, err := json.Marshal(ordersCursor{Kind: sqlKind, SyncID: id})
		page.Next = Cursor(next)
		return true, err
	})
	if err != nil {
		return OrderPage{}, err
	}
	return page, nil
}

// ordersShape is the shape of the query for orders.
func (s *sqlSource) ordersShape(ctx context.Context) (*shape, error) {
	if s.orders == nil {
		return nil, errNoOrders
	}
	for {
		if shape := s.orders.known(); shape != nil {
			return shape, nil
		}
		if err := s.describe(ctx, []*described{s.orders}, orderColumns, "sync_id"); err != nil {
			return nil, err
		}
	}
}

func (s *sqlSource) eachOrder(ctx context.Context, shape *shape, condition string, args []any,
	yield func(o Order, id json.RawMessage, size int) (more bool, err error)) (err error) {
	defer func() {
		if err != nil {
			s.orders.forget()
			err = fmt.Errorf("query %s: %w", s.orders.name, slow(ctx, err))
		}
	}()
	rows, err := s.db.QueryContext(ctx, fmt.Sprintf("SELECT %s FROM (\n%s\n) AS q WHERE %s",
		strings.Join(shape.columns, ", "), s.orders.text, condition), args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	reader := newReader(shape, maker{channel: s.channel}, s.orders.name)
	size := 0
	for rows.Next() {
		if err := rows.Scan(reader.targets...); err != nil {
			return err
		}
		o, id := reader.order()
		if more, err := yield(o, id, size); err != nil || !more {
			return err
		}
		size += len(o.Data)
	}
	return rows.Err()
}

// knownChunk is the number of orders that one statement asks for.
const knownChunk = 1000

// Known tells which of the orders the query for orders has.
func (s *sqlSource) Known(ctx context.Context, syncIDs []string) (map[string]bool, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	shape, err := s.ordersShape(ctx)
	if err != nil {
		return nil, err
	}
	known := make(map[string]bool, len(syncIDs))
	for chunk := range slices.Chunk(syncIDs, knownChunk) {
		if err := s.known(ctx, shape, chunk, known); err != nil {
			return nil, fmt.Errorf("query %s: %w", s.orders.name, err)
		}
	}
	return known, nil
}

func (s *sqlSource) known(ctx context.Context, shape *shape, syncIDs []string, known map[string]bool) (err error) {
	var args []any
	var parameters []string
	// PostgreSQL would take the parameter for one of the column's type, and refuse a larger number.
	cast := ""
	if shape.id && !s.dialect.integerIDs && shape.key != "NUMERIC" {
		cast = "::bigint"
	}
	for _, syncID := range syncIDs {
		id, ok := s.dialect.lookup(syncID, shape)
		if !ok {
			continue // what cannot stand in the column is not in it
		}
		args = append(args, id)
		parameters = append(parameters, s.dialect.parameter(len(args))+cast)
	}
	if len(args) == 0 {
		return nil
	}
	rows, err := s.db.QueryContext(ctx, fmt.Sprintf("SELECT sync_id FROM (\n%s\n) AS q WHERE sync_id IN (%s)",
		s.orders.text, strings.Join(parameters, ", ")), args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return err
		}
		// By the text, since a collation may take ABC for abc, and they are two orders.
		known[strings.TrimSpace(id)] = true
	}
	return rows.Err()
}

// order is the order that was scanned, and its id for a cursor.
func (r *reader) order() (Order, json.RawMessage) {
	clear(r.fields)
	var o Order
	var id json.RawMessage
	channel := ""
	for i, name := range r.shape.columns {
		column := []byte(r.columns[i])
		if column == nil {
			continue
		}
		switch name {
		case "changed_at":
			o.ChangedAt, _ = parseTime(column) // one that cannot be read tells none
		case "channel":
			channel = string(column)
		case "data":
			r.fields[name] = json.RawMessage(column)
		case "sync_id":
			id = idOf(column, r.shape.number[i])
			fallthrough
		default:
			r.fields[name] = r.field(i, column)
		}
	}
	r.maker.order(&o, r.fields, channel)
	return o, id
}

// order makes an order of fields.
func (m maker) order(o *Order, fields order.Fields, channel string) {
	o.SyncID = fields.SyncID()
	var err error
	if o.Channel, err = m.channelOf(channel); err == nil {
		fields["event"] = orderAsCreation
		var e order.Event
		if e, err = fields.Event(order.Record{}, o.Channel); err == nil {
			o.SyncID, o.Version, o.Data = e.SyncID, e.Version, e.Data
			if !e.Versioned() {
				o.Version = derivedVersion(o.ChangedAt)
				o.Derived = o.Version > 0
			}
			return
		}
	}
	o.Rejected = rejection(err)
}

// orderAsCreation lets the rules of an event be those of an order.
var orderAsCreation = json.RawMessage(`"` + order.Creation + `"`)
