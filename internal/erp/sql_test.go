package erp_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ordersync/internal/devstack/devtest"
	"ordersync/internal/erp"
	"ordersync/internal/order"
)

// queriesDir writes queries to files: name, text, and so on.
func queriesDir(t *testing.T, files ...string) string {
	t.Helper()
	dir := t.TempDir()
	for i := 0; i < len(files); i += 2 {
		require.NoError(t, os.WriteFile(filepath.Join(dir, files[i]), []byte(files[i+1]), 0o600))
	}
	return dir
}

func each(t *testing.T, f func(t *testing.T, d database)) {
	for kind, fresh := range databases {
		t.Run(kind, func(t *testing.T) { f(t, fresh(t)) })
	}
}

// row is one row as a query without a table; columns that are not named have usual values.
func row(d database, columns map[string]string) string {
	at := map[string]string{erp.MySQL: "CAST('2026-01-01 12:00:00.123456' AS DATETIME(6))", erp.Postgres: "timestamptz '2026-01-01 12:00:00.123456+00'"}
	all := map[string]string{"sync_id": "7", "event": "'order_creation'", "data": "'{\"a\": 1}'", "changed_at": at[d.kind], "id": "1", "channel": "'online'"}
	for name, value := range columns {
		if all[name] = value; value == "" {
			delete(all, name)
		}
	}
	var list []string
	for name, value := range all {
		list = append(list, value+" AS "+name)
	}
	return "SELECT " + strings.Join(list, ", ")
}

func readOne(t *testing.T, d database, columns map[string]string) erp.Row {
	t.Helper()
	source := openSource(t, erp.Options{Kind: d.kind, URL: d.url, QueriesDir: queriesDir(t, "q.sql", row(d, columns))})
	rows, _ := poll(t, source, "", 10)
	require.Len(t, rows, 1)
	again, _ := poll(t, source, "", 10)
	require.Equal(t, string(rows[0].Value), string(again[0].Value))
	require.Equal(t, rows[0].Event.ID, again[0].Event.ID)
	return rows[0]
}

// What a column may hold, and how it comes out.
func TestColumns(t *testing.T) {
	each(t, func(t *testing.T, d database) {
		pg := d.kind == erp.Postgres
		is := func(mysql, postgres string) string {
			if pg {
				return postgres
			}
			return mysql
		}
		e := readOne(t, d, nil).Event
		require.Equal(t, "7", e.SyncID)
		require.Equal(t, `{"a":1}`, string(e.Data))
		require.Equal(t, time.Date(2026, 1, 1, 12, 0, 0, 123_456_000, time.UTC), e.OccurredAt)

		e = readOne(t, d, map[string]string{"sync_id": "'  SO-é\"7\\\\  '"}).Event
		require.Equal(t, is("SO-é\"7\\", "SO-é\"7\\\\"), e.SyncID)
		e = readOne(t, d, map[string]string{"sync_id": "9007199254740993", "version": "9007199254740995"}).Event
		require.Equal(t, "9007199254740993", e.SyncID)
		require.EqualValues(t, 9007199254740995, e.Version)
		e = readOne(t, d, map[string]string{"sync_id": is("CAST(18446744073709551615 AS UNSIGNED)", "18446744073709551615::numeric"), "event_id": "42"}).Event
		require.Equal(t, "18446744073709551615", e.SyncID)
		require.Equal(t, order.ParseEventID("42"), e.ID, "a number as event_id is a string of its digits")
		e = readOne(t, d, map[string]string{"event_id": is("", "uuid ") + "'2d7a3288-75c9-5ad5-ab72-0a95a812163c'"}).Event
		require.Equal(t, "2d7a3288-75c9-5ad5-ab72-0a95a812163c", e.ID.String())
		// The 16 bytes of a UUID are that UUID.
		e = readOne(t, d, map[string]string{"event_id": is("X'2d7a328875c95ad5ab720a95a812163c'", `'\x2d7a328875c95ad5ab720a95a812163c'::bytea`)}).Event
		require.Equal(t, "2d7a3288-75c9-5ad5-ab72-0a95a812163c", e.ID.String())
		d.exec(t, "CREATE TABLE keyed (n INT, uid "+is("BINARY(16)", "bytea")+")")
		d.exec(t, "INSERT INTO keyed VALUES (1, "+is("X'2d7a328875c95ad5ab720a95a812163c'", `'\x2d7a328875c95ad5ab720a95a812163c'`)+"), (2, "+is("'an id in 16 char'", "'an id in 16 char'")+"), (3, NULL)")
		dir := queriesDir(t, "q.sql", row(d, map[string]string{"sync_id": "n", "id": "n", "event_id": "uid"})+" FROM keyed")
		rows, _ := poll(t, openSource(t, erp.Options{Kind: d.kind, URL: d.url, QueriesDir: dir}), "", 10)
		require.Equal(t, "2d7a3288-75c9-5ad5-ab72-0a95a812163c", rows[0].Event.ID.String())
		require.Nil(t, rows[1].Rejected)
		require.Nil(t, rows[2].Rejected)

		e = readOne(t, d, map[string]string{"occurred_at": is("CAST('2025-06-01 02:00:00' AS DATETIME)", "timestamptz '2025-06-01 02:00:00+00'")}).Event
		require.Equal(t, time.Date(2025, 6, 1, 2, 0, 0, 0, time.UTC), e.OccurredAt)
		e = readOne(t, d, map[string]string{"occurred_at": "'2025-06-01T02:00:00+02:00'"}).Event
		require.Equal(t, time.Date(2025, 6, 1, 0, 0, 0, 0, time.UTC), e.OccurredAt)
		e = readOne(t, d, map[string]string{"occurred_at": "'2025-06-01 00:00:00.25'"}).Event
		require.Equal(t, time.Date(2025, 6, 1, 0, 0, 0, 250_000_000, time.UTC), e.OccurredAt, "without a zone it is UTC")
		if pg { // the time zone of the session makes a time of this one
			at := readOne(t, d, map[string]string{"changed_at": "(timestamptz '2026-01-01 12:00:00+00')::timestamp"}).ChangedAt
			require.Equal(t, time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC), at)
		}
		for _, null := range []string{"version", "event_id", "occurred_at"} {
			require.Nil(t, readOne(t, d, map[string]string{null: "NULL"}).Rejected)
		}
		e = readOne(t, d, map[string]string{"version": is("CAST(3 AS DECIMAL(20))", "3::numeric")}).Event
		require.EqualValues(t, 3, e.Version)

		// What says that there is no time counts as absent.
		none := []string{"'yesterday'", "''", "'0000-00-00 00:00:00'", "1291192000", is("CAST('0000-00-00 00:00:00' AS DATETIME)", "timestamptz 'infinity'")}
		if pg {
			none = append(none, "'infinity'", "timestamptz '-infinity'", "timestamp 'infinity'", "timestamp '-infinity'", "timestamptz '0044-03-15 BC'", "timestamptz '20000-01-01'")
		}
		for _, value := range none {
			got := readOne(t, d, map[string]string{"occurred_at": value})
			require.Nil(t, got.Rejected, value)
			require.Equal(t, got.ChangedAt, got.Event.OccurredAt, value)
		}
		if !pg {
			d.exec(t, "CREATE TABLE zero (n INT, shipped DATETIME(6) NULL, paid TIMESTAMP NULL)")
			d.exec(t, "SET SESSION sql_mode = ''; INSERT INTO zero VALUES (1, '0000-00-00', '0000-00-00'), (2, '2026-00-00', NULL)")
			for _, column := range []string{"shipped", "paid"} {
				dir := queriesDir(t, "q.sql", row(d, map[string]string{"sync_id": "n", "id": "n", "occurred_at": column})+" FROM zero")
				rows, _ := poll(t, openSource(t, erp.Options{Kind: d.kind, URL: d.url, QueriesDir: dir}), "", 10)
				require.Len(t, rows, 2)
				for _, row := range rows {
					require.Nil(t, row.Rejected, column)
					require.Equal(t, row.ChangedAt, row.Event.OccurredAt)
				}
			}
		}

		number := `{"n": 12345678901234567890.10, "big": 1e400}`
		e = readOne(t, d, map[string]string{"data": "'" + number + "'" + is("", "::json")}).Event
		require.Equal(t, strings.ReplaceAll(number, " ", ""), string(e.Data))
		if pg {
			e = readOne(t, d, map[string]string{"data": `'{"n": 12345678901234567890.10}'::jsonb`}).Event
			require.Equal(t, `{"n":12345678901234567890.10}`, string(e.Data))
		}
		e = readOne(t, d, map[string]string{"data": `'"text"'`}).Event
		require.Equal(t, `"text"`, string(e.Data))

		long := strings.Repeat("x", order.MaxValue)
		for name, c := range map[string]struct {
			column, value string
			reason        order.Reason
			syncID        string
		}{
			"no JSON":               {"data", `'{"a":'`, order.MalformedJSON, "7"},
			"no JSON at its start":  {"data", `'malformed'`, order.MalformedJSON, "7"},
			"two values":            {"data", `'1,"sync_id":"evil"'`, order.MalformedJSON, "7"},
			"a whole event":         {"data", `'1},{"sync_id":8,"event":"order_creation","data":1'`, order.MalformedJSON, "7"},
			"no data":               {"data", "NULL", order.MissingField, "7"},
			"JSON's null":           {"data", "'null'", order.MissingField, "7"},
			"empty data":            {"data", "''", order.MissingField, "7"},
			"too much data":         {"data", `'"` + long + `"'`, order.ValueTooLarge, "7"},
			"no sync_id":            {"sync_id", is("IF(RAND() < 0, 'x', NULL)", "NULL"), order.MissingField, ""},
			"fraction as sync_id":   {"sync_id", "1.5", order.InvalidField, ""},
			"long sync_id":          {"sync_id", "'" + strings.Repeat("x", 65) + "'", order.InvalidField, ""},
			"unknown event":         {"event", "'order_deletion'", order.UnknownEvent, "7"},
			"version 0":             {"version", "0", order.InvalidField, "7"},
			"version over 64 bits":  {"version", is("CAST(18446744073709551615 AS UNSIGNED)", "18446744073709551615::numeric"), order.InvalidField, "7"},
			"decimals in version":   {"version", is("CAST(3 AS DECIMAL(10,2))", "3::numeric(10,2)"), order.InvalidField, "7"},
			"version NaN":           {"version", is("", "'NaN'::numeric"), order.InvalidField, "7"},
			"sync_id NaN":           {"sync_id", is("", "'NaN'::numeric"), order.InvalidField, ""},
			"boolean as version":    {"version", is("", "true"), order.InvalidField, "7"},
			"bit as version":        {"version", is("b'1'", ""), order.InvalidField, "7"},
			"double as version":     {"version", is("3.5e0", "3.5::float8"), order.InvalidField, "7"},
			"fraction as version":   {"version", "3.0", order.InvalidField, "7"},
			"text as version":       {"version", "'v3'", order.InvalidField, "7"},
			"long event_id":         {"event_id", "'" + strings.Repeat("x", 129) + "'", order.InvalidField, "7"},
			"unknown channel":       {"channel", "'fax'", order.InvalidField, "7"},
			"no channel":            {"channel", "NULL", order.MissingField, "7"},
			"deep":                  {"data", "'" + strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000) + "'", order.TooDeep, ""},
			"bytes that are no UTF": {"data", is("X'22FF22'", ""), order.InvalidUTF8, "7"},
			"bytes as event_id":     {"event_id", is("X'22FF22'", ""), order.InvalidUTF8, "7"},
			"8 bytes as event_id":   {"event_id", is("", `'\x2d7a328875c95ad5'::bytea`), order.InvalidUTF8, "7"},
			"no UUID in 16 bytes":   {"event_id", is("", `decode(repeat('00', 16), 'hex')`), order.InvalidField, "7"},
		} {
			if c.value == "" {
				continue
			}
			t.Run(name, func(t *testing.T) {
				got := readOne(t, d, map[string]string{c.column: c.value})
				require.NotNil(t, got.Rejected)
				switch {
				case got.Eventlike, name == "unknown channel", name == "no channel":
					require.Equal(t, c.reason, got.Rejected.Reason)
					require.Empty(t, got.Event.Channel)
				default:
					require.EqualValues(t, order.Online, got.Event.Channel)
					_, err := order.Decode(order.Record{Value: got.Value}, order.Online)
					var r *order.Rejection
					require.ErrorAs(t, err, &r)
					require.Equal(t, c.reason, r.Reason, r.Detail)
				}
				if c.syncID != "" {
					require.Equal(t, c.syncID, got.Event.SyncID)
				}
				if strings.Contains(c.value, "evil") {
					require.Contains(t, string(got.Value), "evil", "the row as it came")
					require.Equal(t, order.MalformedJSON, got.Rejected.Reason)
				}
			})
		}
	})
}

// A row without channel in a deployment that has one.
func TestChannelOfRowsThatNameNone(t *testing.T) {
	each(t, func(t *testing.T, d database) {
		dir := queriesDir(t, "q.sql", row(d, map[string]string{"channel": ""}))
		rows, _ := poll(t, openSource(t, erp.Options{Kind: d.kind, URL: d.url, QueriesDir: dir, Channel: order.Store}), "", 1)
		require.Equal(t, order.Store, rows[0].Event.Channel)
		source := openSource(t, erp.Options{Kind: d.kind, URL: d.url, QueriesDir: dir})
		_, err := source.Page(t.Context(), erp.Request{Limit: 1})
		require.ErrorContains(t, err, "query q has no column channel")
	})
}

// Without event_id and version an event is where it is and what it says.
func TestIdentityOfRows(t *testing.T) {
	each(t, func(t *testing.T, d database) {
		id := func(columns map[string]string) string { return readOne(t, d, columns).Event.ID.String() }
		plain := id(nil)
		require.Equal(t, plain, id(nil))
		require.NotEqual(t, plain, id(map[string]string{"id": "2"}))
		require.NotEqual(t, plain, id(map[string]string{"data": "'2'"}))
		require.NotEqual(t, plain, id(map[string]string{"sync_id": "8"}))
		require.NotEqual(t, plain, id(map[string]string{"event": "'order_updation'"}))
		versioned := id(map[string]string{"version": "3"})
		require.Equal(t, versioned, id(map[string]string{"version": "3", "id": "2", "data": "'2'"}))
		touched := map[string]string{erp.MySQL: "CAST('2026-02-01' AS DATETIME(6))", erp.Postgres: "timestamptz '2026-02-01 00:00:00+00'"}[d.kind]
		require.NotEqual(t, plain, id(map[string]string{"changed_at": touched}))
		named := readOne(t, d, map[string]string{"event_id": "'e1'"}).Event
		again := readOne(t, d, map[string]string{"event_id": "'e1'", "changed_at": touched}).Event
		require.Equal(t, named.ID, again.ID)
		require.True(t, again.SameAs(named.Kind, named.Version, named.Digest), "a touched row is the same event")
		// The derivation is part of what stands in ledgers: it never changes.
		require.Equal(t, "52914732-d4ed-5192-a5bf-4cb0a24dc5cf", plain)
		// That of releases before is looked for in the ledger, too.
		former := readOne(t, d, nil)
		require.Equal(t, "e335262c-95e4-5c1d-9048-36d957be70d6", former.Earlier.String())
		require.Equal(t, former.Earlier, former.Former().Event.ID)
		e, err := order.Decode(order.Record{Value: former.Former().Value}, order.Online)
		require.NoError(t, err)
		require.Equal(t, former.Earlier, e.ID)
		require.Zero(t, e.Version)
		require.Equal(t, former.Event.Data, e.Data)
	})
}

func TestNullsAndOddTimes(t *testing.T) {
	each(t, func(t *testing.T, d database) {
		timeType := map[string]string{erp.MySQL: "DATETIME(6) NULL", erp.Postgres: "timestamptz"}[d.kind]
		d.exec(t, "CREATE TABLE odd (n INT, changed_at "+timeType+", id INT)")
		good := "'2026-01-01 10:00:00'"
		odd := []string{"NULL"}
		if d.kind == erp.Postgres {
			odd = append(odd, "'infinity'", "'-infinity'", "'20000-01-01'", "'0044-03-15 BC'")
		} else {
			odd = append(odd, "'0000-00-00 00:00:00'")
		}
		for i, at := range odd {
			statement := fmt.Sprintf("INSERT INTO odd VALUES (%d, %s, %d)", 100+i, at, 100+i)
			if d.kind == erp.MySQL {
				statement = "SET SESSION sql_mode = ''; " + statement
			}
			d.exec(t, statement)
		}
		// Rows without an id, in front of, among and behind others.
		n := 0
		for _, second := range []int{0, 1, 1, 1, 2} {
			for _, id := range []string{"NULL", "NULL", "NULL", "1", "2"} {
				value := id
				if id != "NULL" {
					value = fmt.Sprint(n)
				}
				d.exec(t, fmt.Sprintf("INSERT INTO odd VALUES (%d, %s, %s)", n, strings.Replace(good, "00'", fmt.Sprintf("%02d'", second), 1), value))
				n++
			}
		}
		dir := queriesDir(t, "q.sql",
			"SELECT n AS sync_id, 'order_creation' AS event, 'online' AS channel, n AS version, changed_at, id, '1' AS data FROM odd WHERE n > 0")
		open := func() erp.Source { return openSource(t, erp.Options{Kind: d.kind, URL: d.url, QueriesDir: dir}) }
		source := open()
		for _, limit := range []int{1, 2, 3, 7, 100} {
			seen, rows := map[string]bool{}, 0
			var place erp.Cursor
			for {
				page, err := source.Page(t.Context(), erp.Request{After: place, Limit: limit})
				require.NoError(t, err)
				rows += len(page.Rows)
				for _, row := range page.Rows {
					require.Nil(t, row.Rejected)
					seen[row.Event.SyncID] = true
				}
				if limit == 2 { // by another process
					source = open()
				}
				if place = page.Next; !page.More {
					break
				}
			}
			require.Len(t, seen, n-1, "one without an id is an event, one without a time is never seen")
			if limit == 100 {
				require.Equal(t, n-1, rows, "each once, but where a page ends among them")
			}
			again, err := source.Page(t.Context(), erp.Request{After: place, Limit: 100})
			require.NoError(t, err)
			require.False(t, again.More)
		}
	})
}

// Rows of several queries come in the order of their changes, each once, whatever the page.
func TestQueriesAreMerged(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	each(t, func(t *testing.T, d database) {
		r := rand.New(rand.NewPCG(seed, 0))
		timeType := map[string]string{erp.MySQL: "DATETIME(6)", erp.Postgres: "timestamptz"}[d.kind]
		d.exec(t, "CREATE TABLE changes (source INT, changed_at "+timeType+", id INT)")
		base := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		var values []string
		const rows = 1500
		for id := range rows {
			zone := ""
			if d.kind == erp.Postgres {
				zone = "+00"
			}
			at := base.Add(time.Duration(r.IntN(200)) * time.Second).Format("2006-01-02 15:04:05")
			values = append(values, fmt.Sprintf("(%d, '%s%s', %d)", max(r.IntN(6)-3, 0), at, zone, id))
		}
		d.exec(t, "INSERT INTO changes VALUES "+strings.Join(values, ", "))
		var files []string
		for source, event := range []string{"order_updation", "invoice_creation", "order_creation"} {
			files = append(files, fmt.Sprintf("%d.sql", source), fmt.Sprintf(
				"SELECT id AS sync_id, '%s' AS event, changed_at, id, 'online' AS channel, '1' AS data FROM changes WHERE source = %d", event, source))
		}
		source := openSource(t, erp.Options{Kind: d.kind, URL: d.url, QueriesDir: queriesDir(t, files...)})
		for _, limit := range []int{1, 7, 100, 10_000} {
			got, _ := poll(t, source, "", limit)
			require.Len(t, got, rows)
			ids := map[string]bool{}
			for i, row := range got {
				ids[row.Event.SyncID] = true
				if i == 0 {
					continue
				}
				before := got[i-1]
				require.False(t, row.ChangedAt.Before(before.ChangedAt))
				if row.ChangedAt.Equal(before.ChangedAt) {
					require.LessOrEqual(t, before.Event.Kind.Rank(), row.Event.Kind.Rank())
				}
			}
			require.Len(t, ids, rows)
		}

		// Several at once do not get one another's rows.
		var readers sync.WaitGroup
		found := make([][]erp.Row, 4)
		for i := range found {
			readers.Go(func() {
				var place erp.Cursor
				for {
					page, err := source.Page(t.Context(), erp.Request{After: place, Limit: 50})
					if err != nil {
						t.Error(err)
						return
					}
					found[i] = append(found[i], page.Rows...)
					if place = page.Next; !page.More {
						return
					}
				}
			})
		}
		readers.Wait()
		for _, got := range found {
			require.Len(t, got, rows)
			require.True(t, slices.IsSortedFunc(got, func(a, b erp.Row) int { return a.ChangedAt.Compare(b.ChangedAt) }))
		}

		// What is added to a query that seemed to be at its end is in the same poll.
		early, err := source.Page(t.Context(), erp.Request{Limit: rows - 1})
		require.NoError(t, err)
		for i := range 3 {
			d.exec(t, fmt.Sprintf("INSERT INTO changes VALUES (%d, '2026-06-01 00:00:00', %d)", i, rows+i))
		}
		last, _ := poll(t, source, early.Next, 100)
		require.Len(t, last, 1+3)
		d.exec(t, fmt.Sprintf("DELETE FROM changes WHERE id >= %d", rows))

		// A query that is renamed goes on from the last poll, and what it reads again is what was read. One that is
		// gone is forgotten.
		before, place := poll(t, source, "", 100)
		known := map[string]bool{}
		for _, row := range before {
			known[row.Event.ID.String()] = true
		}
		renamed := openSource(t, erp.Options{Kind: d.kind, URL: d.url, QueriesDir: queriesDir(t, files[0], files[1], "new.sql", files[3])})
		got, place := again(t, renamed, place, 10*time.Second, 100)
		require.Less(t, len(got), rows/2, "not the whole history")
		last = nil
		for _, row := range got {
			require.True(t, known[row.Event.ID.String()], "another identity")
			if row.Event.Kind == order.Invoice {
				last = append(last, row)
			}
		}
		require.NotEmpty(t, last, "it goes back by the overlap")
		require.NotContains(t, string(place), `"2"`)
		d.exec(t, fmt.Sprintf("INSERT INTO changes VALUES (1, '2026-06-02 00:00:00', %d)", rows))
		got, _ = again(t, renamed, place, 0, 100)
		found2 := false
		for _, row := range got {
			found2 = found2 || row.Event.SyncID == fmt.Sprint(rows)
		}
		require.True(t, found2, "what is new is read")
	})
}

func TestProblemsOfQueriesAtOnce(t *testing.T) {
	_, err := erp.Open(erp.Options{Kind: erp.MySQL, URL: "hunter2", QueriesDir: t.TempDir(), OrdersQuery: "/absent.sql"})
	require.ErrorContains(t, err, "has no .sql file")
	require.ErrorContains(t, err, "ERP_ORDERS_QUERY: open /absent.sql")
	require.ErrorContains(t, err, "ERP_URL is no data source name")
	require.NotContains(t, err.Error(), "hunter2")
	_, err = erp.Open(erp.Options{Kind: erp.MySQL, URL: "u:p@tcp(h:1)/s"})
	require.ErrorContains(t, err, "ERP_QUERIES is not set")
	_, err = erp.Open(erp.Options{Kind: erp.MySQL, URL: "u:p@tcp(h:1)/s", QueriesDir: queriesDir(t, "a.sql", " ;\n", ".hidden.sql", "", "b.txt", "")})
	require.ErrorContains(t, err, "a.sql has no query")
	for _, url := range []string{"postgres://sync:hunter2@host:x/db", "mysql://sync:hunter2@host/db", "postgres://sync:hunter2@host/", "hunter2", "postgres://sync:hunter2@host/db?sslmode=hunter2"} {
		_, err = erp.Open(erp.Options{Kind: erp.Postgres, URL: url, QueriesDir: queriesDir(t, "a.sql", "SELECT 1")})
		require.ErrorContains(t, err, "ERP_URL")
		require.NotContains(t, err.Error(), "hunter2")
	}
	_, err = erp.Open(erp.Options{Kind: "oracle"})
	require.ErrorContains(t, err, `ERP_SOURCE: "oracle" is none of http, mysql, postgres`)

	each(t, func(t *testing.T, d database) {
		date := map[string]string{erp.MySQL: "CAST('2026-01-01' AS DATE)", erp.Postgres: "date '2026-01-01'"}[d.kind]
		double := map[string]string{erp.MySQL: "1e0", erp.Postgres: "1::float8"}[d.kind]
		source := openSource(t, erp.Options{Kind: d.kind, URL: d.url, QueriesDir: queriesDir(t,
			"a.sql", "SELECT 1 AS sync_id, 2 AS other",
			"b.sql", row(d, map[string]string{"changed_at": date}),
			"c.sql", "SELEC 1",
			"d.sql", row(d, map[string]string{"id": double}),
			"e.sql", row(d, map[string]string{"sync_id": double}),
			"f.sql", row(d, nil),
			"g.sql", row(d, map[string]string{"event_id": map[string]string{
				erp.MySQL: "CAST(0x2d7a328875c95ad5ab720a95a812163c AS BINARY(16))", erp.Postgres: `'\x2d7a328875c95ad5ab720a95a812163c'::bytea`,
			}[d.kind]}),
			"h.sql", row(d, map[string]string{"version": date})),
		})
		_, err := source.Page(t.Context(), erp.Request{Limit: 1})
		require.ErrorContains(t, err, "query a has no column event, data, changed_at, id, channel (expected are sync_id,")
		require.ErrorContains(t, err, "it has sync_id, other")
		require.ErrorContains(t, err, "query b has changed_at as DATE; expected is a time")
		require.ErrorContains(t, err, "query c: ")
		require.ErrorContains(t, err, "query d has id as ")
		require.ErrorContains(t, err, "query e has sync_id as ")
		require.NotContains(t, err.Error(), "query f")
		require.ErrorContains(t, err, "query h has version as DATE; expected is an integer")
	})
}

// A column that appears, goes or changes its type while we run.
func TestColumnsChangeWhileRunning(t *testing.T) {
	each(t, func(t *testing.T, d database) {
		timeType := map[string]string{erp.MySQL: "DATETIME(6)", erp.Postgres: "timestamptz"}[d.kind]
		d.exec(t, "CREATE TABLE feed (sync_id INT, event VARCHAR(20), data TEXT, channel TEXT, changed_at "+timeType+", id INT, version INT)")
		d.exec(t, "INSERT INTO feed VALUES (1, 'order_creation', '1', 'online', '2026-01-01 00:00:00', 1, 5)")
		source := openSource(t, erp.Options{Kind: d.kind, URL: d.url, QueriesDir: queriesDir(t, "feed.sql", "SELECT * FROM feed")})
		rows, _ := poll(t, source, "", 10)
		require.EqualValues(t, 5, rows[0].Event.Version)
		d.exec(t, "ALTER TABLE feed DROP COLUMN version")
		_, err := source.Page(t.Context(), erp.Request{Limit: 10})
		require.ErrorContains(t, err, "query feed: ")
		rows, _ = poll(t, source, "", 10)
		require.Equal(t, rows[0].ChangedAt.UnixMicro(), rows[0].Event.Version)
		d.exec(t, "ALTER TABLE feed DROP COLUMN event")
		_, err = source.Page(t.Context(), erp.Request{Limit: 10})
		require.Error(t, err)
		_, err = source.Page(t.Context(), erp.Request{Limit: 10})
		require.ErrorContains(t, err, "query feed has no column event")
	})
}

// One query has a version column and another has none: a version of microseconds would make the changes of the first stale.
func TestQueriesWithAndWithoutVersions(t *testing.T) {
	each(t, func(t *testing.T, d database) {
		source := openSource(t, erp.Options{Kind: d.kind, URL: d.url, QueriesDir: queriesDir(t,
			"created.sql", row(d, nil), "changed.sql", row(d, map[string]string{"event": "'order_updation'", "version": "2"}),
			"lines.sql", row(d, map[string]string{"event": "'order_updation'", "id": "2"}))})
		rows, _ := poll(t, source, "", 10)
		require.Len(t, rows, 3)
		versions := map[int64]int{}
		for _, row := range rows {
			versions[row.Event.Version]++
		}
		require.Equal(t, map[int64]int{0: 2, 2: 1}, versions)
	})
}

// Ids that the database takes for equal need another collation, as docs/ERP.md says.
func TestIDsThatDifferInCase(t *testing.T) {
	d := databases[erp.MySQL](t)
	d.exec(t, "CREATE TABLE cased (code VARCHAR(8) CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci)")
	d.exec(t, "INSERT INTO cased VALUES ('A'), ('a'), ('B'), ('b')")
	query := row(d, map[string]string{"sync_id": "code", "id": "code COLLATE utf8mb4_bin"}) + " FROM cased"
	for limit := 1; limit <= 3; limit++ {
		rows, _ := poll(t, openSource(t, erp.Options{Kind: d.kind, URL: d.url, QueriesDir: queriesDir(t, "q.sql", query)}), "", limit)
		var ids []string
		for _, row := range rows {
			ids = append(ids, row.Event.SyncID)
		}
		require.ElementsMatch(t, []string{"A", "B", "a", "b"}, ids)
	}
}

func TestSessions(t *testing.T) {
	each(t, func(t *testing.T, d database) {
		d.exec(t, "CREATE TABLE touched (n INT)")
		var sleep, write string
		if d.kind == erp.Postgres {
			d.exec(t, "CREATE FUNCTION touch() RETURNS int LANGUAGE sql AS 'INSERT INTO touched VALUES (1) RETURNING n'")
			sleep = row(d, map[string]string{"event": "(SELECT 'order_creation' FROM pg_sleep(60))"})
			write = row(d, map[string]string{"sync_id": "touch()"})
		} else {
			d.exec(t, "CREATE FUNCTION touch() RETURNS INT BEGIN INSERT INTO touched VALUES (1); RETURN 1; END")
			d.exec(t, "CREATE TABLE numbers (n INT)") // of a constant it would take as long to tell the columns
			d.exec(t, "INSERT INTO numbers VALUES (1)")
			sleep = row(d, map[string]string{"version": "1 + BENCHMARK(1000000000000, MD5(n))"}) + " FROM numbers"
			write = row(d, map[string]string{"sync_id": "touch()"})
		}
		source := openSource(t, erp.Options{Kind: d.kind, URL: d.url, QueriesDir: queriesDir(t, "q.sql", write)})
		_, err := source.Page(t.Context(), erp.Request{Limit: 1})
		require.Error(t, err)
		require.Regexp(t, "(?i)read.only", err.Error())

		source = openSource(t, erp.Options{Kind: d.kind, URL: d.url, QueriesDir: queriesDir(t, "q.sql", sleep), Timeout: 2 * time.Second})
		began := time.Now()
		_, err = source.Page(t.Context(), erp.Request{Limit: 1})
		require.ErrorContains(t, err, "raise ERP_TIMEOUT")
		require.ErrorIs(t, err, erp.ErrTooMuch)
		require.Less(t, time.Since(began), 10*time.Second)
		// And the server does not go on with it.
		running := map[string]string{
			erp.MySQL:    "SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE '%BENCHMARK(%' AND id <> CONNECTION_ID()",
			erp.Postgres: "SELECT COUNT(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND state = 'active' AND pid <> pg_backend_pid()",
		}[d.kind]
		devtest.Eventually(t, 10*time.Second, func() error {
			var n int
			if err := d.db.QueryRowContext(t.Context(), running).Scan(&n); err != nil || n == 0 {
				return err
			}
			return fmt.Errorf("%d statements are running", n)
		}, "the statement has ended")
	})
}

func TestOrdersAndKnown(t *testing.T) {
	each(t, func(t *testing.T, d database) {
		timeType := map[string]string{erp.MySQL: "DATETIME(6)", erp.Postgres: "timestamptz"}[d.kind]
		for name, c := range map[string]struct {
			idType string
			ids    []string // as the source sorts them
			absent []string
		}{
			"integers": {"BIGINT", []string{"-5", "2", "10", "9007199254740992", "9007199254740993"}, []string{"3", "02", "x", "9007199254740994", "18446744073709551615", "1e3", ""}},
			"small":    {"SMALLINT", []string{"1", "2"}, []string{"3", "70000", "9223372036854775807"}},
			"strings":  {map[string]string{erp.MySQL: "VARCHAR(40) COLLATE utf8mb4_bin", erp.Postgres: `text COLLATE "C"`}[d.kind], []string{"10", "2", "ABC", "abc", "it''s", "é"}, []string{"Abc", "3", "e"}},
			"any case": {map[string]string{erp.MySQL: "VARCHAR(40) COLLATE utf8mb4_general_ci", erp.Postgres: "varchar(40)"}[d.kind], []string{"ABC", "DEF"}, []string{"abc", "Def"}},
			"uuids":    {map[string]string{erp.MySQL: "CHAR(36)", erp.Postgres: "uuid"}[d.kind], []string{"2d7a3288-75c9-5ad5-ab72-0a95a812163c"}, []string{"x", "2D7A3288-75C9-5AD5-AB72-0A95A812163C", "2d7a3288-75c9-5ad5-ab72-0a95a812163d"}},
			"numerics": {map[string]string{erp.MySQL: "BIGINT UNSIGNED", erp.Postgres: "numeric(30)"}[d.kind], []string{"7", "18446744073709551615"}, []string{"8", "7.0"}},
		} {
			t.Run(name, func(t *testing.T) {
				d.exec(t, "DROP TABLE IF EXISTS stock")
				d.exec(t, "CREATE TABLE stock (no "+c.idType+" PRIMARY KEY, changed_at "+timeType+")")
				var want []string
				for _, id := range c.ids {
					d.exec(t, "INSERT INTO stock VALUES ('"+id+"', '2026-01-01 00:00:00')")
					want = append(want, strings.ReplaceAll(id, "''", "'"))
				}
				dir := queriesDir(t, "q.sql", row(d, nil))
				file := queriesDir(t, "orders.sql", "SELECT no AS sync_id, 'store' AS channel, '{\"a\":1}' AS data, 3 AS version, changed_at FROM stock;")
				source := openSource(t, erp.Options{Kind: d.kind, URL: d.url, QueriesDir: dir, OrdersQuery: filepath.Join(file, "orders.sql")})
				for _, limit := range []int{1, 2, 100} {
					var got []string
					var after erp.Cursor
					for {
						page, err := source.Orders(t.Context(), after, limit)
						require.NoError(t, err)
						for _, o := range page.Orders {
							require.Nil(t, o.Rejected)
							require.EqualValues(t, 3, o.Version)
							require.Equal(t, order.Store, o.Channel)
							require.Equal(t, `{"a":1}`, string(o.Data))
							require.False(t, o.ChangedAt.IsZero())
							got = append(got, o.SyncID)
						}
						if after = page.Next; !page.More {
							break
						}
					}
					require.Equal(t, want, got)
				}
				known, err := source.Known(t.Context(), slices.Concat(want, c.absent))
				require.NoError(t, err)
				for _, id := range want {
					require.True(t, known[id], id)
				}
				for _, id := range c.absent {
					require.False(t, known[id], id)
				}
			})
		}

		source := openSource(t, erp.Options{Kind: d.kind, URL: d.url, QueriesDir: queriesDir(t, "q.sql", row(d, nil))})
		_, err := source.Orders(t.Context(), "", 1)
		require.ErrorContains(t, err, "ERP_ORDERS_QUERY is not set")
		_, err = source.Known(t.Context(), []string{"1"})
		require.ErrorContains(t, err, "ERP_ORDERS_QUERY is not set")

		file := queriesDir(t, "orders.sql", "SELECT 1 AS sync_id, 'store' AS channel, '{' AS data UNION ALL SELECT 2, 'fax', '1'")
		source = openSource(t, erp.Options{Kind: d.kind, URL: d.url, QueriesDir: queriesDir(t, "q.sql", row(d, nil)), OrdersQuery: filepath.Join(file, "orders.sql")})
		page, err := source.Orders(t.Context(), "", 10)
		require.NoError(t, err)
		require.Len(t, page.Orders, 2)
		require.Equal(t, order.MalformedJSON, page.Orders[0].Rejected.Reason)
		require.Equal(t, "1", page.Orders[0].SyncID)
		require.Equal(t, order.InvalidField, page.Orders[1].Rejected.Reason)
		_, err = source.Orders(t.Context(), "x", 10)
		require.ErrorIs(t, err, erp.ErrCursor)
	})
}
