// Package target is the shop's own database, MySQL 8 or MariaDB 10.6 and later: it puts one event
// of one order into it, at most once, whatever is delivered again.
//
// One event is one transaction:
//
//	lock the order's row ─> decide the outcome ─> insert the ledger row ─> write ─> commit
//	  SELECT … FOR UPDATE     decide (guard.go)     ledger.go               apply.go
//
// What holds:
//
//   - The primary key of the ledger, order_events, decides whether an event was applied. Its
//     duplicate-key error, and no other statement's, means that an earlier delivery was: this one
//     is rolled back and answered with the recorded outcome.
//   - An event without a ledger row has changed nothing.
//   - Every error but the data's own (Classify) can be answered by running the step again. That
//     includes a failed COMMIT, of which nobody knows whether it happened: the ledger does.
//   - Two creations of one order may both see no row, as READ COMMITTED locks no gap. The later
//     insert into orders then fails with a duplicate key, is retried and finds the row.
package target

import (
	"database/sql"
	"log/slog"
	"time"

	"github.com/go-sql-driver/mysql"
)

// Options are what Open takes besides the DSN. The zero value works.
type Options struct {
	// MaxConns bounds the connections to the server; 0 means 16. A step that finds none free
	// waits for one until its context ends.
	MaxConns int
	// Logger takes what the driver says about lost connections (debug) and what migrations were
	// applied (info); nil means slog.Default().
	Logger *slog.Logger
}

// Target is a schema of ordersync's in a MySQL server. It is safe for concurrent use.
type Target struct {
	cfg *mysql.Config
	db  *sql.DB
	log *slog.Logger
}

// Open prepares a Target without contacting the server, so that it succeeds while the server is
// down. The DSN is go-sql-driver's (user:password@tcp(host:3306)/schema) and must name a schema.
// What the package relies on is set on every connection, whatever the DSN says: see session.
func Open(dsn string, o Options) (*Target, error) {
	if o.MaxConns == 0 {
		o.MaxConns = 16
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	cfg, err := parseDSN(dsn)
	if err != nil {
		return nil, err
	}
	cfg.Logger = driverLog{o.Logger}
	db, err := openDB(cfg, o.MaxConns)
	if err != nil {
		return nil, err
	}
	return &Target{cfg: cfg, db: db, log: o.Logger}, nil
}

// Close closes all connections.
func (t *Target) Close() error { return t.db.Close() }

// DB is the connection pool, for statements of one's own.
func (t *Target) DB() *sql.DB { return t.db }

func openDB(cfg *mysql.Config, conns int) (*sql.DB, error) {
	c, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, err
	}
	db := sql.OpenDB(connector{c})
	db.SetMaxOpenConns(conns)
	db.SetMaxIdleConns(conns)
	// The driver asks for a lifetime below whatever closes idle or old connections on the way.
	db.SetConnMaxLifetime(3 * time.Minute)
	db.SetConnMaxIdleTime(time.Minute)
	return db, nil
}
