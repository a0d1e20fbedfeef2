package erp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// shape is which of the columns that matter a query has.
type shape struct {
	columns []string // in the order in which they are selected
	number  []bool   // of columns: their values are JSON numbers
	time    []bool
	bytes   []bool // and are bytes that are never text
	id      bool   // the column that pages go by holds integers
	key     string // and its type
}

func (s *shape) has(column string) bool { return slices.Contains(s.columns, column) }

// What queries may have. Columns of other names are left alone.
var (
	changeColumns = []string{"sync_id", "event", "data", "changed_at", "id", "channel", "version", "event_id", "occurred_at"}
	orderColumns  = []string{"sync_id", "data", "channel", "version", "changed_at"}
)

// described is a query and its shape, which the database tells when it is first asked.
type described struct {
	query
	mu    sync.Mutex
	shape *shape
}

func (d *described) known() *shape {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.shape
}

// forget is for a statement that failed: perhaps a column is gone.
func (d *described) forget() { d.set(nil) }

func (d *described) set(s *shape) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.shape = s
}

// describe asks for the shapes that are not known, and tells the problems of all queries at once.
func (s *sqlSource) describe(ctx context.Context, queries []*described, allowed []string, key string) error {
	var problems []error
	for _, d := range queries {
		if d.known() != nil {
			continue
		}
		found, err := s.shapeOf(ctx, d, allowed, key)
		if err != nil {
			problems = append(problems, err)
			continue
		}
		d.set(found)
	}
	return errors.Join(problems...)
}

func (s *sqlSource) shapeOf(ctx context.Context, d *described, allowed []string, key string) (*shape, error) {
	rows, err := s.db.QueryContext(ctx, "SELECT * FROM (\n"+d.text+"\n) AS q LIMIT 0")
	if err != nil {
		return nil, fmt.Errorf("query %s: %w", d.name, slow(ctx, err))
	}
	defer rows.Close()
	types, err := rows.ColumnTypes()
	if err != nil {
		return nil, fmt.Errorf("query %s: %w", d.name, err)
	}
	kinds := map[string]string{}
	for _, column := range types {
		kinds[strings.ToLower(column.Name())] = strings.ToUpper(column.DatabaseTypeName())
	}

	found := &shape{}
	var problems []string
	for _, column := range allowed {
		kind, ok := kinds[column]
		if !ok {
			continue
		}
		found.columns = append(found.columns, column)
		found.number = append(found.number, s.dialect.integers[kind] || kind == "DECIMAL" || kind == "NUMERIC")
		found.time = append(found.time, s.dialect.times[kind])
		found.bytes = append(found.bytes, s.dialect.binary[kind])
	}
	need := []string{"sync_id", "data"}
	if key == "id" {
		need = []string{"sync_id", "event", "data", "changed_at", "id"}
	}
	if s.channel == "" {
		need = append(need, "channel")
	}
	missing := slices.DeleteFunc(need, func(column string) bool { return slices.Contains(found.columns, column) })
	if len(missing) > 0 {
		problems = append(problems, fmt.Sprintf("has no column %s (expected are %s; it has %s)", strings.Join(missing, ", "),
			strings.Join(allowed, ", "), names(rows.Columns())))
	}
	if kind, ok := kinds["changed_at"]; ok && !s.dialect.times[kind] {
		problems = append(problems, fmt.Sprintf("has changed_at as %s; expected is a time: %s", kind, join(s.dialect.times)))
	}
	found.id, found.key = s.dialect.integers[kinds[key]], kinds[key]
	if kind := kinds[key]; s.dialect.refused[kind] {
		problems = append(problems, fmt.Sprintf("has %s as %s, which pages cannot go by; expected is an integer or a string (CAST it)", key, kind))
	}
	if kind := kinds["sync_id"]; key != "sync_id" && s.dialect.refused[kind] && kind != "DECIMAL" {
		problems = append(problems, fmt.Sprintf("has sync_id as %s; expected is an integer or a string (CAST it)", kind))
	}
	if kind := kinds["version"]; s.dialect.times[kind] || kind == "DATE" {
		problems = append(problems, fmt.Sprintf("has version as %s; expected is an integer: without a version column changed_at gives one", kind))
	}
	if len(problems) > 0 {
		return nil, fmt.Errorf("query %s %s", d.name, strings.Join(problems, "; and "))
	}
	return found, rows.Err()
}

func names(columns []string, err error) string {
	if err != nil {
		return err.Error()
	}
	return strings.Join(columns, ", ")
}

func join(names map[string]bool) string {
	var all []string
	for name := range names {
		all = append(all, name)
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}
