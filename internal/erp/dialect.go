package erp

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"
)

// dialect is what the two databases say differently.
type dialect struct {
	open func(Options) (*sql.DB, error)
	// clock asks for the database's time.
	clock string
	// begin is the condition for the rows from a time on; behind is for those behind a row, and
	// behindNulls for those behind the rows of a time that have no id.
	begin, behind, behindNulls string
	// instant is a time as an argument.
	instant func(time.Time) any
	// nulls is the condition for the rows of a time that have no id. nullsLast tells that behind leaves
	// them out.
	nulls     string
	nullsLast bool
	// positional tells that an argument is given as often as its parameter is mentioned.
	positional bool
	// until leaves out what is later, by the nth parameter.
	until func(n int) string
	// parameter is the nth one, from 1.
	parameter func(n int) string
	// readable leaves out, from the beginning on, times that no event can have and no driver reads:
	// MySQL's zero date, PostgreSQL's infinity and years before 1000. NULL is none of them either.
	readable string
	// bounded does it at the other end.
	bounded string
	// integerIDs tells whether ids of integer columns must be given as integers.
	integerIDs bool

	times, integers, refused map[string]bool // names of types, as the drivers spell them
	// binary are the types of bytes that are never text. VARBINARY and BLOB hold it in some schemas.
	binary map[string]bool
}

func set(names ...string) map[string]bool {
	m := make(map[string]bool, len(names))
	for _, name := range names {
		m[name] = true
	}
	return m
}

const timeFormat = "2006-01-02 15:04:05.999999"

// mysqlDialect is for MySQL 8 and MariaDB. Their optimizers make a range of an index of the written-out
// comparison of two columns, and not of (a, b) > (?, ?). NULL is the least id.
var mysqlDialect = dialect{
	open:        openMySQL,
	clock:       "SELECT UTC_TIMESTAMP(6)",
	begin:       "changed_at >= CAST(? AS DATETIME(6))",
	behind:      "(changed_at > CAST(? AS DATETIME(6)) OR changed_at = CAST(? AS DATETIME(6)) AND id > ?)",
	behindNulls: "(changed_at > CAST(? AS DATETIME(6)) OR changed_at = CAST(? AS DATETIME(6)) AND id IS NOT NULL)",
	nulls:       "changed_at = CAST(? AS DATETIME(6)) AND id IS NULL",
	instant:     func(t time.Time) any { return t.UTC().Format(timeFormat) },
	positional:  true,
	until:       func(int) string { return "changed_at < CAST(? AS DATETIME(6))" },
	parameter:   func(int) string { return "?" },
	readable:    "changed_at >= CAST('1000-01-01' AS DATETIME(6))",
	integerIDs:  true,
	times:       set("DATETIME", "TIMESTAMP"),
	integers: set("TINYINT", "SMALLINT", "MEDIUMINT", "INT", "BIGINT",
		"UNSIGNED TINYINT", "UNSIGNED SMALLINT", "UNSIGNED MEDIUMINT", "UNSIGNED INT", "UNSIGNED BIGINT"),
	refused: set("DECIMAL", "FLOAT", "DOUBLE", "BIT", "DATE", "TIME", "DATETIME", "TIMESTAMP", "YEAR",
		"BINARY", "VARBINARY", "BLOB", "TINYBLOB", "MEDIUMBLOB", "LONGBLOB", "JSON", "GEOMETRY"),
	binary: set("BINARY"),
}

// postgresDialect uses an index for (a, b) > ($1, $2), which is false where b is NULL; NULL is the
// greatest id. A parameter takes its type from the column it is compared with, so ids go as text.
var postgresDialect = dialect{
	open:        openPostgres,
	clock:       "SELECT clock_timestamp()",
	begin:       "changed_at >= $1",
	behind:      "(changed_at, id) > ($1, $2)",
	behindNulls: "changed_at > $1",
	nulls:       "changed_at = $1 AND id IS NULL",
	nullsLast:   true,
	instant:     func(t time.Time) any { return t.UTC() },
	until:       func(n int) string { return "changed_at < $" + strconv.Itoa(n) },
	parameter:   func(n int) string { return "$" + strconv.Itoa(n) },
	readable:    "changed_at >= '1000-01-01'",
	bounded:     " AND changed_at < '10000-01-01'",
	times:       set("TIMESTAMPTZ", "TIMESTAMP"),
	integers:    set("INT2", "INT4", "INT8", "NUMERIC"),
	refused: set("FLOAT4", "FLOAT8", "BOOL", "BYTEA", "DATE", "TIME", "TIMETZ", "TIMESTAMP", "TIMESTAMPTZ", "INTERVAL",
		"JSON", "JSONB", "XML"),
	binary: set("BYTEA"),
}

// lookup is a sync_id as its column is compared with, if it can stand in one of that type. "007" is no
// order of a column of integers, where it would be 7.
func (d dialect) lookup(syncID string, shape *shape) (any, bool) {
	switch {
	case shape.id && shape.key == "NUMERIC":
		return syncID, digits(syncID)
	case shape.id && digits(syncID):
		n, ok := argument(json.RawMessage(syncID), true, true)
		if _, unsigned := n.(uint64); unsigned && !d.integerIDs {
			return nil, false
		}
		return n, ok
	case shape.id:
		return nil, false
	case shape.key == "UUID":
		id, err := uuid.Parse(syncID)
		return syncID, err == nil && id.String() == syncID
	default:
		return syncID, true
	}
}

// parseTime reads a time as either driver hands it out.
func parseTime(column []byte) (time.Time, error) {
	text := string(column)
	if strings.Contains(text, "T") {
		t, err := time.Parse(time.RFC3339Nano, text)
		return t.UTC(), err
	}
	return time.Parse(timeFormat, text)
}

// overdue tells whether a statement's error is that it took too long.
func overdue(ctx context.Context, err error) bool {
	var my *mysql.MySQLError
	var pg *pgconn.PgError
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded): // and not a connection's own limit, of a server that is away
		return true
	case errors.As(err, &my):
		return my.Number == 1969 || my.Number == 3024 // MariaDB's and MySQL's time limit
	default:
		return errors.As(err, &pg) && pg.Code == "57014" // query_canceled
	}
}

// slow adds to the error of a statement that took too long what can be done.
func slow(ctx context.Context, err error) error {
	if !overdue(ctx, err) {
		return err
	}
	return fmt.Errorf("%w (it took longer than ERP_TIMEOUT: does EXPLAIN show that it uses an index? Then raise ERP_TIMEOUT)", err)
}

// now is the database's clock.
func (s *sqlSource) now(ctx context.Context) (int64, error) {
	var column sql.RawBytes
	rows, err := s.db.QueryContext(ctx, s.dialect.clock)
	if err != nil {
		return 0, err
	}
	defer rows.Close()
	if !rows.Next() {
		return 0, rows.Err()
	}
	if err := rows.Scan(&column); err != nil {
		return 0, err
	}
	t, err := parseTime(column)
	return t.UnixMicro(), err
}
