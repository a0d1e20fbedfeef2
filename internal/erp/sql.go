package erp

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
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
	back := cursor.rewind(now, overlap)
	back.Since = cursor.since(s.names(), now, overlap)
	return back.encode()
}

func (s *sqlSource) names() []string {
	names := make([]string, 0, len(s.queries))
	for _, d := range s.queries {
		names = append(names, d.name)
	}
	return names
}

// versioned reports whether a query for changes has a version column.
func (s *sqlSource) versioned() bool {
	return slices.ContainsFunc(s.queries, func(d *described) bool {
		shape := d.known()
		return shape != nil && shape.has("version")
	})
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
				p = place{At: cmp.Or(cursor.Since, cursor.From)}
			}
			streams = append(streams, &stream{described: d, place: p, started: ok || p.At != 0})
		}
	}
	m := maker{channel: s.channel, now: time.Now(), plain: s.versioned()}
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
		if len(page.Rows) >= r.Limit || bytes >= maxPage {
			page.More = true
			break
		}
		for joined := true; joined; joined = !next.empty() && next.buffer[0].joined {
			head := next.take()
			page.Rows = append(page.Rows, head.row)
			places[next.name] = head.after
			bytes += len(head.row.Value)
		}
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
				if overdue(ctx, err) {
					err = fmt.Errorf("%w: %w", ErrTooMuch, slow(ctx, err))
				}
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

// head is a row and the place behind it.
type head struct {
	row   Row
	after place
	// joined tells that no page ends before the row.
	joined bool
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
func (s *sqlSource) read(ctx context.Context, st *stream, r Request, m maker) error {
	shape := st.known()
	if shape == nil { // another page met an error
		if err := s.describe(ctx, []*described{st.described}, changeColumns, "id"); err != nil {
			return err
		}
		if shape = st.known(); shape == nil {
			return errors.New("its columns changed while it was read")
		}
	}
	from := st.place
	// One more than a page takes tells whether there are more.
	where, args := s.behind(st, shape)
	read, full, err := s.rows(ctx, st, shape, m, where, args, r.Until, r.Limit+1)
	if err != nil {
		return err
	}
	st.ended = !full
	for i, h := range read {
		if h.after.ID != nil {
			st.buffer = append(st.buffer, h)
			continue
		}
		if i > 0 && read[i-1].after.ID == nil && read[i-1].after.At == h.after.At {
			continue // read with the one before
		}
		if err := s.readNulls(ctx, st, shape, m, r, h.after); err != nil {
			return err
		}
	}
	if n := len(read); n > 0 {
		st.place, st.started = read[n-1].after, true
	}
	if s.dialect.nullsLast && from.ID != nil {
		return s.readLeftNulls(ctx, st, shape, m, r, from)
	}
	return nil
}

// maxNulls is the most rows of one time without an id.
const maxNulls = 10_000

// readNulls reads the rows of a time that have no id. There is no place between them: they are read as a whole,
// and a page has all of them or none.
func (s *sqlSource) readNulls(ctx context.Context, st *stream, shape *shape, m maker, r Request, behind place) error {
	at := s.dialect.instant(time.UnixMicro(behind.At))
	read, full, err := s.rows(ctx, st, shape, m, s.dialect.nulls, []any{at}, r.Until, maxNulls)
	if err != nil {
		return err
	}
	if full {
		return fmt.Errorf("%d rows or more that changed at %s have no id: give them one, as there is no place among them to go on from",
			len(read), time.UnixMicro(behind.At).UTC().Format(time.RFC3339Nano))
	}
	for i, h := range read {
		st.buffer = append(st.buffer, head{row: h.row, after: behind, joined: i > 0})
	}
	return nil
}

// readLeftNulls reads the rows without an id of the time that a page ended in, where they come last and
// are not behind any place with an id. They go with the first row that is read now, so that each page
// gets on; they may be read twice.
func (s *sqlSource) readLeftNulls(ctx context.Context, st *stream, shape *shape, m maker, r Request, from place) error {
	following := st.buffer
	st.buffer = nil
	behind := place{At: from.At, Nulls: true}
	if err := s.readNulls(ctx, st, shape, m, r, behind); err != nil {
		return err
	}
	left := st.buffer
	if len(left) == 0 || len(following) == 0 {
		if len(left) > 0 {
			st.place = behind
		}
		st.buffer = slices.Concat(left, following)
		return nil
	}
	first := 1
	for first < len(following) && following[first].joined {
		first++
	}
	for i := range left {
		left[i].joined, left[i].after = true, following[0].after
	}
	st.buffer = slices.Concat(following[:first], left, following[first:])
	return nil
}

// rows reads rows, limit at most, and tells whether there may be more.
func (s *sqlSource) rows(ctx context.Context, st *stream, shape *shape, m maker, where string, args []any, until time.Time, limit int,
) (read []head, full bool, err error) {
	if !until.IsZero() {
		args = append(args, s.dialect.instant(until))
		where += " AND " + s.dialect.until(len(args))
	}
	rows, err := s.db.QueryContext(ctx, fmt.Sprintf("SELECT %s FROM (\n%s\n) AS q WHERE %s ORDER BY changed_at, id LIMIT %d",
		strings.Join(shape.columns, ", "), st.text, where+s.dialect.bounded, limit), args...)
	if err != nil {
		return nil, false, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	reader := newReader(shape, m, st.name)
	size := 0
	for rows.Next() {
		if err := rows.Scan(reader.targets...); err != nil {
			return nil, false, err
		}
		row, id, err := reader.row()
		if err != nil {
			return nil, false, err
		}
		read = append(read, head{row: row, after: place{At: row.ChangedAt.UnixMicro(), ID: id, Nulls: id == nil}})
		if size += len(row.Value); size >= maxPage {
			return read, true, nil // the driver drops what the server still sends
		}
	}
	return read, len(read) == limit, rows.Err()
}

// behind is the condition for the rows behind the stream's place.
func (s *sqlSource) behind(st *stream, shape *shape) (where string, args []any) {
	if !st.started {
		return s.dialect.readable, nil
	}
	at := s.dialect.instant(time.UnixMicro(st.place.At))
	if st.place.Nulls {
		if s.dialect.positional {
			return s.dialect.behindNulls, []any{at, at}
		}
		return s.dialect.behindNulls, []any{at}
	}
	if st.place.ID != nil {
		if id, ok := argument(st.place.ID, shape.id, s.dialect.integerIDs); ok {
			if s.dialect.positional {
				return s.dialect.behind, []any{at, at, id}
			}
			return s.dialect.behind, []any{at, id}
		}
	}
	return s.dialect.begin, []any{at}
}
