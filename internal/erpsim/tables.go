package erpsim

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// The tables of the ERP's database: its changes, and its orders as they stand. data and columns are
// those of any event, so that any can be carried; docs/ERP.md has queries for tables of the usual kind.
var tables = []string{
	`CREATE TABLE IF NOT EXISTS erp_events (
		id          BIGINT       NOT NULL PRIMARY KEY,
		changed_at  DATETIME(6)  NOT NULL,
		sync_id     VARCHAR(64)  NOT NULL,
		channel     VARCHAR(16)  NOT NULL,
		event       VARCHAR(32)  NOT NULL,
		version     BIGINT       NULL,
		event_id    CHAR(36)     NOT NULL,
		occurred_at DATETIME(6)  NULL,
		data        LONGTEXT     NOT NULL,
		KEY changed (changed_at, id)
	) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin`,
	`CREATE TABLE IF NOT EXISTS erp_orders (
		sync_id    VARCHAR(64) NOT NULL PRIMARY KEY,
		channel    VARCHAR(16) NOT NULL,
		version    BIGINT      NULL,
		changed_at DATETIME(6) NOT NULL,
		data       LONGTEXT    NOT NULL
	) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin`,
}

const (
	changesQuery = "SELECT id, changed_at, sync_id, channel, event, version, event_id, occurred_at, data FROM erp_events\n"
	ordersQuery  = "SELECT sync_id, channel, version, changed_at, data FROM erp_orders\n"
)

// WriteQueries writes the queries for a mirror into a directory, and gives what ERP_QUERIES and
// ERP_ORDERS_QUERY are to be.
func WriteQueries(dir string) (queries, orders string, err error) {
	queries, orders = filepath.Join(dir, "queries"), filepath.Join(dir, "orders.sql")
	if err := os.MkdirAll(queries, 0o750); err != nil {
		return "", "", err
	}
	if err := os.WriteFile(filepath.Join(queries, "events.sql"), []byte(changesQuery), 0o600); err != nil {
		return "", "", err
	}
	return queries, orders, os.WriteFile(orders, []byte(ordersQuery), 0o600)
}

// Mirror is the database of an ERP.
type Mirror struct {
	erp *ERP
	db  *sql.DB
	has int64 // the last id that is in it
}

// NewMirror makes the tables in a schema of MySQL or MariaDB. The ERP goes on to live in memory: what it
// has told is in the tables with each Update.
func (s *ERP) NewMirror(ctx context.Context, db *sql.DB) (*Mirror, error) {
	for _, statement := range tables {
		if _, err := db.ExecContext(ctx, statement); err != nil {
			return nil, fmt.Errorf("make the ERP's tables: %w", err)
		}
	}
	return &Mirror{erp: s, db: db}, nil
}

// rowsAtOnce bounds an INSERT.
const rowsAtOnce = 200

// Update writes what was told since the last one, in one transaction. A late change gets the changed_at
// that it has, so its row appears below others.
func (m *Mirror) Update(ctx context.Context) error {
	events, orders, last := m.news()
	tx, err := m.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback() //nolint:errcheck // after a commit it does nothing
	if err := insert(ctx, tx, "INSERT INTO erp_events (id, changed_at, sync_id, channel, event, version, event_id, occurred_at, data)", events); err != nil {
		return err
	}
	if err := insert(ctx, tx, "REPLACE INTO erp_orders (sync_id, channel, version, changed_at, data)", orders); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	m.has = last
	return nil
}

// news are the rows to write.
func (m *Mirror) news() (events, orders [][]any, last int64) {
	s := m.erp
	s.mu.Lock()
	defer s.mu.Unlock()
	all, last := s.stand(), m.has
	changed := map[string]bool{}
	for _, t := range s.told {
		if t.id <= m.has {
			continue
		}
		last = max(last, t.id)
		changed[t.SyncID] = true
		events = append(events, []any{
			t.id, stamp(t.at), t.SyncID, t.Channel, t.Kind, versionOrNull(t.Version), t.ID.String(), stampOrNull(t.OccurredAt), string(t.Data),
		})
	}
	for id := range changed {
		if row, ok := all.model.Orders[id]; ok {
			orders = append(orders, []any{id, row.Channel, versionOrNull(row.Version), stamp(s.latest[id]), string(row.Data)})
		}
	}
	return events, orders, last
}

// stamp is a time that no setting of the connection moves.
func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000000") }

func stampOrNull(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return stamp(t)
}

func versionOrNull(version int64) any {
	if version == 0 {
		return nil
	}
	return version
}

func insert(ctx context.Context, tx *sql.Tx, into string, rows [][]any) error {
	for len(rows) > 0 {
		n := min(len(rows), rowsAtOnce)
		var values []string
		var args []any
		for _, row := range rows[:n] {
			values = append(values, "(?"+strings.Repeat(", ?", len(row)-1)+")")
			args = append(args, row...)
		}
		if _, err := tx.ExecContext(ctx, into+" VALUES "+strings.Join(values, ", "), args...); err != nil {
			return fmt.Errorf("%s: %w", into, err)
		}
		rows = rows[n:]
	}
	return nil
}
