package erp

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"ordersync/internal/order"
)

// sqlSource is a database of MySQL's or PostgreSQL's kind, read by queries of the team's own.
type sqlSource struct {
	db      *sql.DB
	dialect dialect
	queries []*described
	orders  *described // nil without ERP_ORDERS_QUERY
	channel order.Channel
	timeout time.Duration

	mu   sync.Mutex
	rest rest
}

func openSQL(o Options, d dialect) (Source, error) {
	s := &sqlSource{dialect: d, channel: o.Channel, timeout: o.Timeout}
	queries, problem := readQueries(o.QueriesDir)
	for _, q := range queries {
		s.queries = append(s.queries, &described{query: q})
	}
	if o.OrdersQuery != "" {
		q, err := readQuery(o.OrdersQuery)
		if err != nil {
			problem = errors.Join(problem, fmt.Errorf("ERP_ORDERS_QUERY: %w", err))
		}
		s.orders = &described{query: q}
	}
	db, err := d.open(o)
	if problem = errors.Join(problem, err); problem != nil {
		if db != nil {
			db.Close()
		}
		return nil, problem
	}
	s.db = db
	return s, nil
}

// Close closes the connections.
func (s *sqlSource) Close() error { return s.db.Close() }

// From is the place before the first change of t or later.
func (s *sqlSource) From(t time.Time) (Cursor, error) {
	return sqlCursor{Kind: sqlKind, From: t.UnixMicro()}.encode()
}

// Rewind goes back from the last row, or from the database's clock if that is earlier: then a row is
// dated in the future, or the clock was set back.
func (s *sqlSource) Rewind(ctx context.Context, at Cursor, overlap time.Duration) (Cursor, error) {
	cursor, err := parseSQLCursor(at)
	if err != nil || len(cursor.Queries) == 0 {
		return at, err
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	now, err := s.now(ctx)
	if err != nil {
		return at, fmt.Errorf("ask the ERP's database for its time: %w", err)
	}
	return cursor.rewind(now, overlap).encode()
}

// Page merges the queries' rows by the time of their change.
func (s *sqlSource) Page(ctx context.Context, r Request) (Page, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	r.Limit = max(r.Limit, 1)
	cursor, err := parseSQLCursor(r.After)
	if err != nil {
		return Page{}, err
	}
	if cursor.Began == 0 {
		// Before the first row is read: what is committed at this time is seen by this poll.
		if cursor.Began, err = s.now(ctx); err != nil {
			return Page{}, fmt.Errorf("ask the ERP's database for its time: %w", err)
		}
	}
	if err := s.describe(ctx, s.queries, changeColumns, "id"); err != nil {
		return Page{}, err
	}

	streams := s.take(r)
	if streams == nil {
		for _, d := range s.queries {
			p, ok := cursor.Queries[d.name]
			if !ok {
				p = place{At: cursor.From}
			}
			streams = append(streams, &stream{described: d, place: p, started: ok || cursor.From != 0})
		}
	}
	m := maker{channel: s.channel, now: time.Now()}
	page := Page{Next: r.After}
	places := map[string]place{}
	for bytes := 0; ; {
		next, err := s.earliest(ctx, streams, r, m)
		if err != nil {
			return Page{}, err
		}
		if next == nil {
			break
		}
		if len(page.Rows) == r.Limit || bytes >= maxPage {
			page.More = true
			break
		}
		head := next.take()
		page.Rows = append(page.Rows, head.row)
		places[next.name] = head.after
		bytes += len(head.row.Value)
	}
	if len(page.Rows) == 0 {
		return page, nil
	}
	queries := make(map[string]place, len(s.queries))
	for _, d := range s.queries { // places of queries that are gone are forgotten
		if p, ok := places[d.name]; ok {
			queries[d.name] = p
		} else if p, ok := cursor.Queries[d.name]; ok {
			queries[d.name] = p
		}
	}
	cursor.Queries = queries
	if page.Next, err = cursor.encode(); err != nil {
		return Page{}, err
	}
	if page.More {
		s.keep(page.Next, r, streams)
	}
	return page, nil
}

// earliest is the stream whose next row is to be handed out: that of the earliest change, of several
// the one whose kind goes first in an order's life, then that of the first name. It is nil at the end.
func (s *sqlSource) earliest(ctx context.Context, streams []*stream, r Request, m maker) (*stream, error) {
	var first *stream
	for _, candidate := range streams {
		for candidate.empty() && !candidate.ended {
			if err := s.read(ctx, candidate, r, m); err != nil {
				candidate.forget()
				return nil, fmt.Errorf("query %s: %w", candidate.name, err)
			}
		}
		if !candidate.empty() && (first == nil || candidate.before(first)) {
			first = candidate
		}
	}
	return first, nil
}

// stream is a query on the way of a page: what was read and not handed out, and where to read on.
type stream struct {
	*described
	place   place
	started bool // there is a place
	ended   bool // there was no row behind place
	buffer  []head
}

// head is a row and the place after it.
type head struct {
	row   Row
	after place
}

func (s *stream) empty() bool { return len(s.buffer) == 0 }

func (s *stream) take() head {
	h := s.buffer[0]
	s.buffer[0] = head{} // its row belongs to the page now
	s.buffer = s.buffer[1:]
	return h
}

func (s *stream) before(other *stream) bool {
	a, b := s.buffer[0].row, other.buffer[0].row
	return cmp.Or(a.ChangedAt.Compare(b.ChangedAt), cmp.Compare(a.Event.Kind.Rank(), b.Event.Kind.Rank())) < 0
}

// read fills a stream's buffer.
func (s *sqlSource) read(ctx context.Context, st *stream, r Request, m maker) (err error) {
	shape := st.known()
	if shape == nil { // another page met an error
		if err := s.describe(ctx, []*described{st.described}, changeColumns, "id"); err != nil {
			return err
		}
		shape = st.known()
	}
	// One more than a page takes tells whether there are more.
	statement, args := s.statement(st, shape, r.Until, r.Limit+1)
	rows, err := s.db.QueryContext(ctx, statement, args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	reader := newReader(shape, m, st.name)
	size, read := 0, 0
	for rows.Next() {
		if err := rows.Scan(reader.targets...); err != nil {
			return err
		}
		row, id, err := reader.row()
		if err != nil {
			return err
		}
		after := place{At: row.ChangedAt.UnixMicro(), ID: id}
		if id == nil {
			after.Nulls = 1
			if st.place.ID == nil && st.place.At == after.At {
				after.Nulls += st.place.Nulls
			}
		}
		st.place, st.started = after, true
		st.buffer = append(st.buffer, head{row, after})
		read++
		if size += len(row.Value); size >= maxPage {
			return nil // the driver reads what the server has sent, and drops it
		}
	}
	st.ended = read <= r.Limit
	return rows.Err()
}

// statement is the page of a query behind the stream's place.
func (s *sqlSource) statement(st *stream, shape *shape, until time.Time, limit int) (string, []any) {
	var args []any
	where := s.dialect.readable + s.dialect.bounded
	offset := ""
	if st.started {
		at := s.dialect.instant(time.UnixMicro(st.place.At))
		condition := s.dialect.begin
		args = append(args, at)
		if st.place.Nulls > 0 {
			condition, offset = s.dialect.behindNulls, fmt.Sprintf(" OFFSET %d", st.place.Nulls)
		} else if id, ok := argument(st.place.ID, shape.id, s.dialect.integerIDs); ok && st.place.ID != nil {
			condition = s.dialect.behind
			if s.dialect.twice {
				args = append(args, at)
			}
			args = append(args, id)
		}
		where = condition + s.dialect.bounded
	}
	if !until.IsZero() {
		args = append(args, s.dialect.instant(until))
		where += " AND " + s.dialect.until(len(args))
	}
	return fmt.Sprintf("SELECT %s FROM (\n%s\n) AS q WHERE %s ORDER BY changed_at, id LIMIT %d%s",
		strings.Join(shape.columns, ", "), st.text, where, limit, offset), args
}
