package erp_test

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ordersync/internal/erp"
)

// subject is a source with an ERP behind it that a test can change.
type subject interface {
	// put adds a change of an order, or takes the place of the one with its id. It comes into sight
	// at once.
	put(t *testing.T, at time.Time, id int64, note string)
	// putAll adds n changes with the note x.
	putAll(t *testing.T, n int, at func(id int64) time.Time)
	// late puts a change that comes into sight when it is told to.
	late(t *testing.T, at time.Time, id int64, note string) (commit func())
	// bad puts a change that is no event.
	bad(t *testing.T, at time.Time, id int64)
	// skew sets the ERP's clock, if that can be done.
	skew(d time.Duration) bool
	now(t *testing.T) time.Time
	open(t *testing.T) erp.Source
}

// subjects are the sources that the same rules hold for.
var subjects = map[string]func(*testing.T) func(*testing.T) subject{
	"mysql datetime":       sqlSubject(erp.MySQL, "DATETIME(6)", "BIGINT"),
	"mysql timestamp":      sqlSubject(erp.MySQL, "TIMESTAMP(6) NULL DEFAULT NULL", "BIGINT UNSIGNED"),
	"mysql string ids":     sqlSubject(erp.MySQL, "DATETIME(6)", "VARCHAR(40)"),
	"postgres timestamptz": sqlSubject(erp.Postgres, "timestamptz", "bigint"),
	"postgres timestamp":   sqlSubject(erp.Postgres, "timestamp", "numeric(30)"),
	"postgres string ids":  sqlSubject(erp.Postgres, "timestamptz", "text"),
	"postgres uuids":       sqlSubject(erp.Postgres, "timestamptz", "uuid"),
	"http":                 httpSubjects(false),
	"http without times":   httpSubjects(true),
}

func httpSubjects(plain bool) func(*testing.T) func(*testing.T) subject {
	return func(*testing.T) func(*testing.T) subject {
		return func(t *testing.T) subject {
			s := newService(t)
			s.plain = plain
			return &httpSubject{service: s}
		}
	}
}

type sqlTable struct {
	database
	id string // its type
}

// sqlSubject has one database, whose table is made anew each time.
func sqlSubject(kind, timeType, idType string) func(*testing.T) func(*testing.T) subject {
	return func(t *testing.T) func(*testing.T) subject {
		d := databases[kind](t)
		return func(t *testing.T) subject {
			d.exec(t, "DROP TABLE IF EXISTS changes")
			d.exec(t, fmt.Sprintf("CREATE TABLE changes (sync_id BIGINT, channel VARCHAR(20), changed_at %s, id %s PRIMARY KEY, data TEXT)", timeType, idType))
			d.exec(t, "CREATE INDEX changes_by_time ON changes (changed_at, id)")
			return &sqlTable{d, idType}
		}
	}
}

// idLiteral spreads the ids over the type, in the same order: integers beyond 2^53.
func (s *sqlTable) idLiteral(id int64) string {
	switch {
	case s.id == "uuid":
		return fmt.Sprintf("'00000000-0000-4000-8000-%012d'", id)
	case strings.HasPrefix(strings.ToLower(s.id), "varchar"), s.id == "text":
		return fmt.Sprintf("'row %012d'", id)
	case strings.HasPrefix(s.id, "numeric"):
		return fmt.Sprintf("10000000000000000%012d", id) // beyond 64 bits
	default:
		return fmt.Sprint(int64(1)<<60 + id)
	}
}

func (s *sqlTable) timeLiteral(at time.Time) string {
	text := at.UTC().Format("2006-01-02 15:04:05.000000")
	if s.kind == erp.Postgres {
		return "timestamptz '" + text + "+00' AT TIME ZONE 'UTC'"
	}
	return "'" + text + "'"
}

func (s *sqlTable) upsert(at time.Time, id int64, note string) string {
	insert := fmt.Sprintf("INSERT INTO changes VALUES (%d, 'online', %s, %s, '%s')",
		9007199254740993+id, s.timeLiteral(at), s.idLiteral(id), note)
	if s.kind == erp.Postgres {
		return insert + " ON CONFLICT (id) DO UPDATE SET changed_at = excluded.changed_at, data = excluded.data"
	}
	return insert + " ON DUPLICATE KEY UPDATE changed_at = VALUES(changed_at), data = VALUES(data)"
}

func (s *sqlTable) put(t *testing.T, at time.Time, id int64, note string) {
	t.Helper()
	conn := s.session(t)
	defer conn.Close()
	_, err := conn.ExecContext(t.Context(), s.upsert(at, id, noteData(id, note)))
	require.NoError(t, err)
}

func (s *sqlTable) putAll(t *testing.T, n int, at func(int64) time.Time) {
	t.Helper()
	conn := s.session(t)
	defer conn.Close()
	tx, err := conn.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	for id := range int64(n) {
		_, err := tx.ExecContext(t.Context(), s.upsert(at(id), id, noteData(id, "x")))
		require.NoError(t, err)
	}
	require.NoError(t, tx.Commit())
}

// session is in UTC, as timeLiteral writes.
func (s *sqlTable) session(t *testing.T) *sql.Conn {
	t.Helper()
	conn, err := s.db.Conn(t.Context())
	require.NoError(t, err)
	statement := "SET time_zone = '+00:00'"
	if s.kind == erp.Postgres {
		statement = "SET timezone = 'UTC'"
	}
	_, err = conn.ExecContext(t.Context(), statement)
	require.NoError(t, err)
	return conn
}

func (s *sqlTable) late(t *testing.T, at time.Time, id int64, note string) func() {
	t.Helper()
	conn := s.session(t)
	tx, err := conn.BeginTx(t.Context(), nil)
	require.NoError(t, err)
	_, err = tx.ExecContext(t.Context(), s.upsert(at, id, noteData(id, note)))
	require.NoError(t, err)
	return func() {
		require.NoError(t, tx.Commit())
		require.NoError(t, conn.Close())
	}
}

func (s *sqlTable) bad(t *testing.T, at time.Time, id int64) {
	conn := s.session(t)
	defer conn.Close()
	_, err := conn.ExecContext(t.Context(), s.upsert(at, id, `{"id":`))
	require.NoError(t, err)
}

func (s *sqlTable) skew(time.Duration) bool { return false }

func (s *sqlTable) now(t *testing.T) time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

func (s *sqlTable) open(t *testing.T) erp.Source {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "changes.sql"),
		[]byte("SELECT sync_id, 'order_updation' AS event, channel, changed_at, id, data FROM changes WHERE sync_id <> 7 -- '?' and all\n;"), 0o600))
	return openSource(t, erp.Options{Kind: s.kind, URL: s.url, QueriesDir: dir})
}

type httpSubject struct{ service *service }

func (s *httpSubject) fields(id int64, note string) map[string]any {
	return map[string]any{
		"sync_id": 9007199254740993 + id, "channel": "online", "event": "order_updation", "data": rawJSON(noteData(id, note)),
	}
}

func (s *httpSubject) put(t *testing.T, at time.Time, id int64, note string) {
	s.service.put(at, id, s.fields(id, note))
}

func (s *httpSubject) putAll(t *testing.T, n int, at func(int64) time.Time) {
	for id := range int64(n) {
		s.put(t, at(id), id, "x")
	}
}

func (s *httpSubject) late(t *testing.T, at time.Time, id int64, note string) func() {
	return func() { s.put(t, at, id, note) }
}

func (s *httpSubject) bad(t *testing.T, at time.Time, id int64) {
	fields := s.fields(id, "bad")
	delete(fields, "data")
	s.service.put(at, id, fields)
}

func (s *httpSubject) skew(d time.Duration) bool {
	s.service.skew = d
	return true
}

func (s *httpSubject) now(*testing.T) time.Time { return s.service.now() }

func (s *httpSubject) open(t *testing.T) erp.Source {
	return openSource(t, erp.Options{Kind: erp.HTTP, URL: s.service.URL + "/api"})
}

// rawJSON is written into JSON as it is.
type rawJSON string

func (r rawJSON) MarshalJSON() ([]byte, error) { return []byte(r), nil }

// noteData has numbers that no float64 holds.
func noteData(id int64, note string) string {
	return fmt.Sprintf(`{"id":%d,"note":%q,"n":12345678901234567890.123456789,"e":1e400}`, id, note)
}

// notes are what the rows say, sorted; rejected ones are "bad".
func notes(rows []erp.Row) []string {
	var all []string
	for _, row := range rows {
		if row.Rejected != nil {
			all = append(all, "bad "+row.Event.SyncID)
			continue
		}
		all = append(all, string(row.Event.Data))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

func wanted(ids []int64, note string) []string {
	var all []string
	for _, id := range ids {
		all = append(all, noteData(id, note))
	}
	slices.Sort(all)
	return all
}

func span(n int64) []int64 {
	var ids []int64
	for id := range n {
		ids = append(ids, id)
	}
	return ids
}

// Every source keeps to the same rules.
func TestSources(t *testing.T) {
	for name, of := range subjects {
		t.Run(name, func(t *testing.T) {
			fresh := of(t)
			t.Run("equal times over page borders", func(t *testing.T) { equalTimes(t, fresh(t)) })
			t.Run("late commits", func(t *testing.T) { lateCommits(t, fresh(t)) })
			t.Run("late by a slow clock", func(t *testing.T) { lateBySlowClock(t, fresh(t)) })
			t.Run("late during a long poll", func(t *testing.T) { lateDuringPoll(t, fresh(t)) })
			t.Run("updated while paging", func(t *testing.T) { updatedWhilePaging(t, fresh(t)) })
			t.Run("the future", func(t *testing.T) { theFuture(t, fresh(t)) })
			t.Run("a clock set back", func(t *testing.T) { clockSetBack(t, fresh(t)) })
			t.Run("bad rows", func(t *testing.T) { badRows(t, fresh(t)) })
			t.Run("versions from times", func(t *testing.T) { versionsFromTimes(t, fresh(t)) })
			t.Run("an interrupted page", func(t *testing.T) { interrupted(t, fresh(t)) })
			t.Run("from and until", func(t *testing.T) { fromAndUntil(t, fresh(t)) })
			t.Run("foreign cursor", func(t *testing.T) { foreignCursor(t, fresh(t)) })
			t.Run("random", func(t *testing.T) { random(t, fresh(t)) })
		})
	}
}

func hours(s subject, t *testing.T, n int) time.Time {
	return s.now(t).Add(time.Duration(n) * time.Hour).Truncate(time.Second)
}

func equalTimes(t *testing.T, s subject) {
	const rows = 2500
	base := hours(s, t, -3).Truncate(time.Hour)
	s.putAll(t, rows, func(id int64) time.Time { return base.Add(time.Duration(id*3/rows) * time.Microsecond) })
	source := s.open(t)
	for _, limit := range []int{7, 100, 1000} {
		got, place := poll(t, source, "", limit)
		require.Len(t, got, rows, "each once")
		require.Equal(t, wanted(span(rows), "x"), notes(got))
		ids := map[string]bool{}
		for i, row := range got {
			ids[row.Event.ID.String()] = true
			if i > 0 && !row.ChangedAt.IsZero() {
				require.False(t, row.ChangedAt.Before(got[i-1].ChangedAt), "in the order of changes")
			}
		}
		require.Len(t, ids, rows, "different changes have different ids")
		more, _ := poll(t, source, place, limit)
		require.Empty(t, more)
	}
}

func lateCommits(t *testing.T, s subject) {
	source := s.open(t)
	s.put(t, s.now(t), 1, "first")
	_, place := poll(t, source, "", 10)
	commit := s.late(t, s.now(t), 2, "late")
	s.put(t, s.now(t).Add(time.Millisecond), 3, "younger")
	got, place := poll(t, source, place, 10)
	require.Equal(t, wanted([]int64{3}, "younger"), notes(got))
	commit()
	got, place = again(t, source, place, time.Minute, 1)
	require.Contains(t, notes(got), noteData(2, "late"))
	// Several polls that find nothing do not wander back.
	for range 3 {
		got, place = again(t, source, place, time.Minute, 2)
		require.Len(t, notes(got), 3)
	}
}

// Changes get their times from a clock that is behind the ERP's by more than the overlap.
func lateBySlowClock(t *testing.T, s subject) {
	source := s.open(t)
	behind := s.now(t).Add(-5 * time.Minute)
	s.put(t, behind, 1, "first")
	_, place := poll(t, source, "", 10)
	commit := s.late(t, behind.Add(time.Millisecond), 2, "late")
	s.put(t, behind.Add(2*time.Millisecond), 3, "younger")
	_, place = again(t, source, place, time.Minute, 10)
	commit()
	got, _ := again(t, source, place, time.Minute, 10)
	require.Contains(t, notes(got), noteData(2, "late"))
}

// A transaction that is open when a long poll passes its place, and committed before the next poll.
func lateDuringPoll(t *testing.T, s subject) {
	source := s.open(t)
	base := s.now(t)
	for id := range int64(20) {
		s.put(t, base.Add(time.Duration(id)*time.Millisecond), id, "x")
	}
	commit := s.late(t, base.Add(5*time.Millisecond+time.Microsecond), 100, "late")
	page, err := source.Page(t.Context(), erp.Request{Limit: 10})
	require.NoError(t, err)
	commit()
	_, place := poll(t, source, page.Next, 5)
	got, _ := again(t, source, place, time.Second, 5)
	require.Contains(t, notes(got), noteData(100, "late"))
}

func updatedWhilePaging(t *testing.T, s subject) {
	const rows = 60
	base := hours(s, t, -1)
	for id := range int64(rows) {
		s.put(t, base.Add(time.Duration(id)*time.Second), id, "old")
	}
	source := s.open(t)
	page, err := source.Page(t.Context(), erp.Request{Limit: 10})
	require.NoError(t, err)
	got := page.Rows
	// Some that were read, some that are next, some far ahead: all move to the end.
	moved := []int64{3, 9, 10, 11, 20, 59}
	for _, id := range moved {
		s.put(t, s.now(t), id, "new")
	}
	rest, _ := poll(t, source, page.Next, 10)
	got = append(got, rest...)
	seen := notes(got)
	for _, note := range wanted(moved, "new") {
		require.Contains(t, seen, note)
	}
	for id := range int64(rows) {
		require.True(t, slices.ContainsFunc(seen, func(s string) bool { return s == noteData(id, "old") || s == noteData(id, "new") }), "row %d", id)
	}
}

// A row dated in the future does not take the place with it, and a clock that was set back leaves
// nothing out.
func theFuture(t *testing.T, s subject) {
	source := s.open(t)
	s.put(t, s.now(t), 1, "now")
	s.put(t, s.now(t).Add(24*time.Hour), 2, "future")
	_, place := poll(t, source, "", 10)
	s.put(t, s.now(t), 3, "after")
	got, place := again(t, source, place, time.Second, 1)
	require.Contains(t, notes(got), noteData(3, "after"))
	if s.skew(-time.Hour) {
		s.put(t, s.now(t), 4, "back")
		got, _ = again(t, source, place, 2*time.Hour, 10)
		require.Contains(t, notes(got), noteData(4, "back"))
	}
}

// By a clock that was set back by far more than the overlap, changes lie before those that were read.
func clockSetBack(t *testing.T, s subject) {
	source := s.open(t)
	for id, ago := range []time.Duration{3 * time.Hour, 90 * time.Minute, 10 * time.Second} {
		s.put(t, s.now(t).Add(-ago), int64(id), "before")
	}
	got, place := poll(t, source, "", 1)
	require.Len(t, got, 3)
	if !s.skew(-time.Hour) {
		t.Skip("the clock of this ERP is that of the machine")
	}
	s.put(t, s.now(t), 3, "back")
	got, place = again(t, source, place, time.Second, 1)
	require.Contains(t, notes(got), noteData(3, "back"))
	s.put(t, s.now(t).Add(time.Second), 4, "and on")
	got, _ = again(t, source, place, time.Second, 1)
	require.Contains(t, notes(got), noteData(4, "and on"))
}

func badRows(t *testing.T, s subject) {
	base := hours(s, t, -1)
	for id := range int64(9) {
		if id%3 == 1 {
			s.bad(t, base.Add(time.Duration(id)*time.Second), id)
		} else {
			s.put(t, base.Add(time.Duration(id)*time.Second), id, "x")
		}
	}
	source := s.open(t)
	first, _ := poll(t, source, "", 1)
	require.Len(t, first, 9, "a bad row stops nothing")
	second, _ := poll(t, source, "", 4)
	for i, row := range first {
		require.Equal(t, i%3 == 1, row.Rejected != nil)
		require.Equal(t, string(row.Value), string(second[i].Value), "the same bytes whenever it is read")
		if row.Rejected != nil {
			require.Equal(t, fmt.Sprint(9007199254740993+i), row.Event.SyncID)
			require.EqualValues(t, "online", row.Event.Channel)
			require.Contains(t, string(row.Value), fmt.Sprint(9007199254740993+i))
		}
	}
}

// A change without a version has its time as such, where it tells one. A second change of the same time is another
// event of the same version, and each is the same event whenever it is read.
func versionsFromTimes(t *testing.T, s subject) {
	source := s.open(t)
	at := hours(s, t, -1).Add(123456 * time.Microsecond)
	s.put(t, at.Add(-time.Hour), 1, "old")
	s.put(t, at, 2, "first")
	first, place := poll(t, source, "", 10)
	require.Len(t, first, 2)
	s.put(t, at, 2, "second")
	second, _ := again(t, source, place, 2*time.Hour, 10)
	byNote := map[string]erp.Row{}
	for _, row := range append(first, second...) {
		note := string(row.Event.Data)
		if known, ok := byNote[note]; ok {
			require.Equal(t, known.Event.ID, row.Event.ID)
			require.Equal(t, string(known.Value), string(row.Value))
		}
		byNote[note] = row
		if row.ChangedAt.IsZero() {
			require.Zero(t, row.Event.Version)
			continue
		}
		require.Equal(t, row.ChangedAt.UnixMicro(), row.Event.Version)
	}
	require.Len(t, byNote, 3)
	a, b := byNote[noteData(2, "first")].Event, byNote[noteData(2, "second")].Event
	require.NotEqual(t, a.ID, b.ID)
	require.Equal(t, a.Version, b.Version)
	require.GreaterOrEqual(t, a.Version, byNote[noteData(1, "old")].Event.Version)
}

// A page whose end is never seen is asked for again.
func interrupted(t *testing.T, s subject) {
	const rows = 40
	for id := range int64(rows) {
		s.put(t, hours(s, t, -1).Truncate(time.Hour), id, "x")
	}
	source := s.open(t)
	page, err := source.Page(t.Context(), erp.Request{Limit: 10})
	require.NoError(t, err)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = source.Page(ended, erp.Request{After: page.Next, Limit: 10})
	require.ErrorIs(t, err, context.Canceled)
	a, err := source.Page(t.Context(), erp.Request{After: page.Next, Limit: 10})
	require.NoError(t, err)
	b, err := source.Page(t.Context(), erp.Request{After: page.Next, Limit: 10})
	require.NoError(t, err)
	require.Equal(t, notes(a.Rows), notes(b.Rows))
	for i := range a.Rows {
		require.Equal(t, a.Rows[i].Event.ID, b.Rows[i].Event.ID)
	}
	rest, _ := poll(t, s.open(t), a.Next, 10) // by another process
	require.Equal(t, wanted(span(rows), "x"), notes(slices.Concat(page.Rows, a.Rows, rest)))
}

func fromAndUntil(t *testing.T, s subject) {
	base := hours(s, t, -10)
	for id := range int64(10) {
		s.put(t, base.Add(time.Duration(id)*time.Hour), id, "x")
	}
	source := s.open(t)
	from, err := source.From(base.Add(2 * time.Hour))
	require.NoError(t, err)
	var got []erp.Row
	for {
		page, err := source.Page(t.Context(), erp.Request{After: from, Until: base.Add(6 * time.Hour), Limit: 3})
		require.NoError(t, err)
		got, from = append(got, page.Rows...), page.Next
		if !page.More {
			break
		}
	}
	require.Equal(t, wanted([]int64{2, 3, 4, 5}, "x"), notes(got))
	back, err := source.Rewind(t.Context(), from, 24*time.Hour)
	require.NoError(t, err)
	got, _ = poll(t, source, back, 100)
	require.Equal(t, wanted([]int64{2, 3, 4, 5, 6, 7, 8, 9}, "x"), notes(got), "never before From")
}

func foreignCursor(t *testing.T, s subject) {
	source := s.open(t)
	for _, cursor := range []erp.Cursor{"x", "{}x", `{"kind":"other"}`, "[]"} {
		_, err := source.Page(t.Context(), erp.Request{After: cursor, Limit: 1})
		require.ErrorIs(t, err, erp.ErrCursor)
		_, err = source.Rewind(t.Context(), cursor, time.Minute)
		require.ErrorIs(t, err, erp.ErrCursor)
	}
	back, err := source.Rewind(t.Context(), "", time.Minute)
	require.NoError(t, err)
	require.Empty(t, back)
}

// random lets changes, late commits and polls fall as they may: nothing is left out.
func random(t *testing.T, s subject) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	source := s.open(t)
	want, got := map[string]bool{}, map[string]bool{}
	var open []func()
	var place erp.Cursor
	read := func(overlap time.Duration) {
		rows, next := again(t, source, place, overlap, 1+r.IntN(9))
		place = next
		for _, note := range notes(rows) {
			got[note] = true
		}
	}
	for id := range int64(80) {
		// Few times, so that many are equal.
		at := s.now(t).Truncate(20 * time.Millisecond)
		note := fmt.Sprint("n", id)
		want[noteData(id, note)] = true
		switch r.IntN(4) {
		case 0:
			if len(open) < 5 {
				open = append(open, s.late(t, at, id, note))
				break
			}
			fallthrough
		default:
			s.put(t, at, id, note)
		}
		if len(open) > 0 && r.IntN(3) == 0 {
			i := r.IntN(len(open))
			open[i]()
			open = slices.Delete(open, i, i+1)
		}
		if r.IntN(8) == 0 {
			read(time.Minute)
		}
	}
	for _, commit := range open {
		commit()
	}
	read(time.Minute)
	for note := range want {
		require.True(t, got[note], "seed %d: %s was never read", seed, note)
	}
}
