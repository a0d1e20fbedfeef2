package erp_test

import (
	"database/sql"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
	_ "github.com/jackc/pgx/v5/stdlib"
	"github.com/stretchr/testify/require"

	"ordersync/internal/devstack/devtest"
	"ordersync/internal/erp"
	"ordersync/internal/order"
)

func TestMain(m *testing.M) { devtest.Main(m) }

// database is an ERP's database, and a connection of the ERP's own to it.
type database struct {
	kind string
	url  string
	db   *sql.DB
}

// databases are a fresh database of each kind.
var databases = map[string]func(testing.TB) database{
	// They live in another time zone.
	erp.MySQL: func(t testing.TB) database {
		url := devtest.MySQL(t)
		_, err := open(t, "mysql", url).ExecContext(t.Context(), "SET GLOBAL time_zone = '+05:30'")
		require.NoError(t, err)
		return database{erp.MySQL, url, open(t, "mysql", url+"?multiStatements=true")}
	},
	erp.Postgres: func(t testing.TB) database {
		url := devtest.Postgres(t)
		db := open(t, "pgx", url+"&default_query_exec_mode=simple_protocol")
		_, err := db.ExecContext(t.Context(), `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET timezone = ''Asia/Kolkata''', current_database()); END $$`)
		require.NoError(t, err)
		return database{erp.Postgres, url, open(t, "pgx", url+"&default_query_exec_mode=simple_protocol")}
	},
}

func open(t testing.TB, driver, url string) *sql.DB {
	db, err := sql.Open(driver, url)
	require.NoError(t, err)
	t.Cleanup(func() { db.Close() })
	return db
}

func (d database) exec(t testing.TB, statement string, args ...any) {
	t.Helper()
	_, err := d.db.ExecContext(t.Context(), statement, args...)
	require.NoError(t, err, statement)
}

// poll reads pages until there is no more, and returns the rows and the last place.
func poll(t *testing.T, source erp.Source, after erp.Cursor, limit int) ([]erp.Row, erp.Cursor) {
	t.Helper()
	var rows []erp.Row
	for range 100_000 {
		page, err := source.Page(t.Context(), erp.Request{After: after, Limit: limit})
		require.NoError(t, err)
		require.LessOrEqual(t, len(page.Rows), limit)
		rows, after = append(rows, page.Rows...), page.Next
		if !page.More {
			checkRows(t, rows)
			return rows, after
		}
	}
	require.Fail(t, "the poll does not end")
	return nil, ""
}

// again polls as a later poll does, with an overlap.
func again(t *testing.T, source erp.Source, at erp.Cursor, overlap time.Duration, limit int) ([]erp.Row, erp.Cursor) {
	t.Helper()
	from, err := source.Rewind(t.Context(), at, overlap)
	require.NoError(t, err)
	return poll(t, source, from, limit)
}

// checkRows holds every row against what Row promises.
func checkRows(t *testing.T, rows []erp.Row) {
	t.Helper()
	for _, row := range rows {
		e, err := order.Decode(order.Record{Topic: "t", Partition: 3, Offset: 9, Timestamp: time.Unix(1, 0), Value: row.Value}, row.Event.Channel)
		if row.Rejected != nil {
			require.NotEmpty(t, row.Rejected.Detail)
			if row.Event.Channel != "" {
				require.Error(t, err, "%s is rejected (%v), and would be an event once it is in its channel's topic", row.Value, row.Rejected)
			}
			continue
		}
		require.NoError(t, err, string(row.Value))
		require.NoError(t, row.Event.Check(row.Event.SyncID))
		require.Equal(t, row.Event.ID, e.ID)
		require.Equal(t, row.Event.SyncID, e.SyncID)
		require.Equal(t, row.Event.Kind, e.Kind)
		require.Equal(t, row.Event.Version, e.Version)
		require.Equal(t, string(row.Event.Data), string(e.Data))
		require.Contains(t, order.Channels, row.Event.Channel)
		if !row.ChangedAt.IsZero() {
			require.Equal(t, row.Event.OccurredAt, e.OccurredAt)
		}
	}
}

func openSource(t testing.TB, o erp.Options) erp.Source {
	t.Helper()
	source, err := erp.Open(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, source.Close()) })
	return source
}
