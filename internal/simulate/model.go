package simulate

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"math/big"
	"reflect"
	"slices"
	"strings"

	"github.com/google/uuid"

	"ordersync/internal/order"
)

// EventKey is an event's identity.
type EventKey struct {
	SyncID string
	ID     uuid.UUID
}

func (k EventKey) String() string { return "order " + k.SyncID + " event " + k.ID.String() }

// Row is an order as it stands in the target.
type Row struct {
	Channel order.Channel
	Data    json.RawMessage
	Version int64 // 0 where the target has NULL
	Status  order.Status
}

// Model is the content of a target: what it should be by Expect, or what it is by ReadTarget.
type Model struct {
	Orders   map[string]Row
	Invoices map[EventKey]json.RawMessage
	Ledger   map[EventKey]struct{}
}

func newModel() Model {
	return Model{
		Orders: map[string]Row{}, Invoices: map[EventKey]json.RawMessage{}, Ledger: map[EventKey]struct{}{},
	}
}

// Expect is what a target holds once all events have been delivered, each at least once and in
// any order that keeps unversioned events of an order in theirs, with no creation arriving after
// its order's hold window. It takes no part of the pipeline's own rules: an order's data is that
// of its highest creation or update (among equals the update, then the later one), or, where
// the order's events have no version, that of its last update, else of its first creation.
//
// It panics on an order with both kinds: what becomes of that depends on the delivery. Nor does
// it know orders that have invoices alone; those block.
func Expect(events iter.Seq[order.Event]) Model {
	m := newModel()
	winners := map[string]order.Event{}
	invoiced := map[string]bool{}
	for e := range events {
		key := EventKey{e.SyncID, e.ID}
		if _, again := m.Ledger[key]; again {
			continue
		}
		m.Ledger[key] = struct{}{}
		if e.Kind == order.Invoice {
			m.Invoices[key] = e.Data
			invoiced[e.SyncID] = true
			continue
		}
		if first, ok := winners[e.SyncID]; !ok || outdoes(e, first) {
			winners[e.SyncID] = e
		}
	}
	for id, e := range winners {
		row := Row{Channel: e.Channel, Data: e.Data, Version: e.Version, Status: order.Open}
		if invoiced[id] {
			row.Status = order.Invoiced
		}
		m.Orders[id] = row
	}
	return m
}

// outdoes tells whether e, which came later, is what the order's data comes from rather than best.
func outdoes(e, best order.Event) bool {
	if e.Versioned() != best.Versioned() {
		panic("simulate: order " + e.SyncID + " has events with and without a version; the model does not know what they come to")
	}
	if !e.Versioned() {
		return e.Kind == order.Update
	}
	if e.Version != best.Version {
		return e.Version > best.Version
	}
	return e.Kind == order.Update || best.Kind == order.Creation
}

// ReadTarget reads the whole content of a target.
func ReadTarget(ctx context.Context, db *sql.DB) (Model, error) {
	m := newModel()
	err := each(ctx, db, "SELECT sync_id, channel, data, COALESCE(version, 0), status FROM orders", func(scan func(...any) error) error {
		var id string
		var row Row
		err := scan(&id, &row.Channel, (*[]byte)(&row.Data), &row.Version, &row.Status)
		m.Orders[id] = row
		return err
	})
	if err != nil {
		return Model{}, err
	}
	err = each(ctx, db, "SELECT sync_id, event_id, data FROM invoices", func(scan func(...any) error) error {
		var key EventKey
		var data []byte
		err := scan(&key.SyncID, &key.ID, &data)
		m.Invoices[key] = data
		return err
	})
	if err != nil {
		return Model{}, err
	}
	err = each(ctx, db, "SELECT sync_id, event_id FROM order_events", func(scan func(...any) error) error {
		var key EventKey
		err := scan(&key.SyncID, &key.ID)
		m.Ledger[key] = struct{}{}
		return err
	})
	if err != nil {
		return Model{}, err
	}
	return m, nil
}

func each(ctx context.Context, db *sql.DB, query string, row func(scan func(...any) error) error) error {
	rows, err := db.QueryContext(ctx, query)
	if err != nil {
		return fmt.Errorf("%s: %w", query, err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows.Scan); err != nil {
			return fmt.Errorf("%s: %w", query, err)
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("%s: %w", query, err)
	}
	return nil
}

// maxDifferences is how many differences Compare spells out.
const maxDifferences = 20

// Compare says where a target differs from what it should be, a line each, at most twenty and then
// how many more. None means equal. JSON is compared by its meaning: MySQL reorders keys and
// rewrites numbers.
func Compare(want, got Model) []string {
	var diffs []string
	diffs = compare(diffs, want.Orders, got.Orders, func(id string) string { return "order " + id }, rowDiff)
	diffs = compare(diffs, want.Invoices, got.Invoices, func(k EventKey) string { return "invoice of " + k.String() }, jsonDiff)
	diffs = compare(diffs, want.Ledger, got.Ledger, func(k EventKey) string { return "ledger row of " + k.String() },
		func(struct{}, struct{}) string { return "" })
	slices.Sort(diffs)
	if more := len(diffs) - maxDifferences; more > 0 {
		diffs = append(diffs[:maxDifferences], fmt.Sprintf("… and %d more differences", more))
	}
	return diffs
}

func compare[K comparable, V any](diffs []string, want, got map[K]V, name func(K) string, diff func(want, got V) string) []string {
	for k, w := range want {
		g, ok := got[k]
		if !ok {
			diffs = append(diffs, name(k)+" is missing")
		} else if d := diff(w, g); d != "" {
			diffs = append(diffs, name(k)+": "+d)
		}
	}
	for k := range maps.Keys(got) {
		if _, ok := want[k]; !ok {
			diffs = append(diffs, name(k)+" should not be there")
		}
	}
	return diffs
}

func rowDiff(want, got Row) string {
	var d []string
	if want.Channel != got.Channel {
		d = append(d, fmt.Sprintf("channel is %s, want %s", got.Channel, want.Channel))
	}
	if want.Version != got.Version {
		d = append(d, fmt.Sprintf("version is %d, want %d", got.Version, want.Version))
	}
	if want.Status != got.Status {
		d = append(d, fmt.Sprintf("status is %s, want %s", got.Status, want.Status))
	}
	if j := jsonDiff(want.Data, got.Data); j != "" {
		d = append(d, j)
	}
	return strings.Join(d, "; ")
}

func jsonDiff(want, got json.RawMessage) string {
	if SameJSON(want, got) {
		return ""
	}
	return fmt.Sprintf("data is %s, want %s", clip(got), clip(want))
}

func clip(data []byte) string {
	const most = 120
	if len(data) <= most {
		return string(data)
	}
	return fmt.Sprintf("%s… (%d bytes)", strings.ToValidUTF8(string(data[:most]), ""), len(data))
}

// SameJSON tells whether two JSON texts mean the same: whatever their key order and spaces, and
// with numbers by their value (1.0 is 1, 2.50 is 2.5), without rounding.
func SameJSON(a, b []byte) bool {
	va, errA := decode(a)
	vb, errB := decode(b)
	return errA == nil && errB == nil && reflect.DeepEqual(va, vb)
}

func decode(text []byte) (any, error) {
	dec := json.NewDecoder(strings.NewReader(string(text)))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, err
	}
	return plain(v), nil
}

// plain replaces numbers by a form that is the same for equal values.
func plain(v any) any {
	switch v := v.(type) {
	case json.Number:
		// An exponent of three digits is all that a double has; a longer one would be written out.
		if _, exponent, _ := strings.Cut(strings.ToLower(v.String()), "e"); len(exponent) <= 4 {
			if r, ok := new(big.Rat).SetString(v.String()); ok {
				return "number " + r.RatString()
			}
		}
		return "number " + v.String()
	case map[string]any:
		for k := range v {
			v[k] = plain(v[k])
		}
	case []any:
		for i := range v {
			v[i] = plain(v[i])
		}
	case string:
		return "string " + v
	}
	return v
}
