package main

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"ordersync/internal/devstack"
	"ordersync/internal/erp"
	"ordersync/internal/simulate"
	"ordersync/internal/target"
)

// Rows of the ERP's table have a time of their own, but for ten that share each.
var firstChange = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func changedAt(i int) time.Time { return firstChange.Add(time.Duration(i/10) * time.Millisecond) }

// openMySQL also makes the ledger, on the same server.
func (b *bench) openMySQL(ctx context.Context) (string, erp.Source, error) {
	const name = "mysql"
	server, err := devstack.StartMySQL(ctx, devstack.MySQLOptions{Dir: b.Dir, Logger: b.Log})
	if err != nil {
		return name, nil, err
	}
	b.later(server.Stop)
	dsn, err := server.CreateSchema(ctx, "shop")
	if err != nil {
		return name, nil, err
	}
	if b.ledger, err = target.Open(dsn, target.Options{Logger: b.Log}); err != nil {
		return name, nil, err
	}
	b.later(func(context.Context) error { return b.ledger.Close() })
	if err := b.ledger.Migrate(ctx); err != nil {
		return name, nil, err
	}
	if dsn, err = server.CreateSchema(ctx, "erp"); err != nil {
		return name, nil, err
	}
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		return name, nil, err
	}
	defer db.Close()
	err = b.fill(ctx, db, `CREATE TABLE changes (id BIGINT PRIMARY KEY, changed_at DATETIME(6) NOT NULL, sync_id VARCHAR(64) NOT NULL, event VARCHAR(32) NOT NULL,
		version BIGINT NULL, event_id CHAR(36) NOT NULL, channel VARCHAR(16) NOT NULL, occurred_at DATETIME(6) NOT NULL, data JSON NOT NULL, KEY (changed_at, id))`,
		func(int) string { return "?" })
	if err != nil {
		return name, nil, err
	}
	dir, err := b.queries()
	if err != nil {
		return name, nil, err
	}
	source, err := erp.Open(erp.Options{Kind: erp.MySQL, URL: dsn, QueriesDir: dir, Logger: b.Log})
	return name, source, err
}

func (b *bench) openPostgres(ctx context.Context) (string, erp.Source, error) {
	const name = "postgres"
	server, err := devstack.StartPostgres(ctx, devstack.PostgresOptions{Dir: b.Dir, Logger: b.Log})
	if err != nil {
		return name, nil, err
	}
	b.later(server.Stop)
	url, err := server.CreateDatabase(ctx, "erp")
	if err != nil {
		return name, nil, err
	}
	db, err := sql.Open("pgx", url)
	if err != nil {
		return name, nil, err
	}
	defer db.Close()
	err = b.fill(ctx, db, `CREATE TABLE changes (id BIGINT PRIMARY KEY, changed_at TIMESTAMPTZ NOT NULL, sync_id TEXT NOT NULL, event TEXT NOT NULL,
		version BIGINT NULL, event_id UUID NOT NULL, channel TEXT NOT NULL, occurred_at TIMESTAMPTZ NOT NULL, data JSONB NOT NULL)`,
		func(n int) string { return "$" + strconv.Itoa(n) })
	if err == nil {
		_, err = db.ExecContext(ctx, `CREATE INDEX ON changes (changed_at, id)`)
	}
	if err == nil {
		_, err = db.ExecContext(ctx, `ANALYZE changes`)
	}
	if err != nil {
		return name, nil, err
	}
	dir, err := b.queries()
	if err != nil {
		return name, nil, err
	}
	source, err := erp.Open(erp.Options{Kind: erp.Postgres, URL: url, QueriesDir: dir, Logger: b.Log})
	return name, source, err
}

// fill makes the ERP's table; place names the n-th parameter of a statement.
func (b *bench) fill(ctx context.Context, db *sql.DB, create string, place func(n int) string) error {
	if _, err := db.ExecContext(ctx, create); err != nil {
		return err
	}
	const columns, chunk = 9, 1000
	i := 0
	for events := range slices.Chunk(b.events, chunk) {
		var values []string
		var args []any
		for _, e := range events {
			var places []string
			for range columns {
				places = append(places, place(len(args)+len(places)+1))
			}
			values = append(values, "("+strings.Join(places, ",")+")")
			var version any
			if e.Versioned() {
				version = e.Version
			}
			args = append(args, i, changedAt(i), e.SyncID, string(e.Kind), version, e.ID.String(), string(e.Channel), e.OccurredAt, string(e.Data))
			i++
		}
		if _, err := db.ExecContext(ctx, `INSERT INTO changes (id, changed_at, sync_id, event, version, event_id, channel, occurred_at, data) VALUES `+strings.Join(values, ","), args...); err != nil {
			return err
		}
	}
	return nil
}

// openHTTP serves the events from this process's memory.
func (b *bench) openHTTP(context.Context) (string, erp.Source, error) {
	const name = "http"
	lines := make([][]byte, len(b.events))
	for i, e := range b.events {
		line, err := simulate.Line(e)
		if err != nil {
			return name, nil, err
		}
		lines[i] = withTime(line, i)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return name, nil, err
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		after, _ := strconv.Atoi(r.URL.Query().Get("after"))
		limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
		end := min(after+limit, len(lines))
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"next":"%d","more":%v,"events":[`, end, end < len(lines))
		_, _ = w.Write(bytes.Join(lines[after:end], []byte(",")))
		fmt.Fprint(w, `]}`)
	})}
	go func() { _ = server.Serve(listener) }() // until its Shutdown
	b.later(server.Shutdown)
	source, err := erp.Open(erp.Options{Kind: erp.HTTP, URL: "http://" + listener.Addr().String(), Logger: b.Log})
	return name, source, err
}

// withTime adds the time of the change to an event's line.
func withTime(line []byte, i int) []byte {
	return append([]byte(`{"changed_at":"`+changedAt(i).Format(time.RFC3339Nano)+`",`), bytes.TrimSpace(line)[1:]...)
}
