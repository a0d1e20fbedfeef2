package erp

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
)

func openPostgres(o Options) (*sql.DB, error) {
	const form = "write postgres://user:password@host:5432/database"
	u, err := url.Parse(o.URL)
	switch {
	case err != nil, u.Scheme != "postgres" && u.Scheme != "postgresql", u.Host == "":
		return nil, errors.New("ERP_URL is no URL of a PostgreSQL database: " + form)
	case len(u.Path) < 2:
		return nil, errors.New("ERP_URL names no database: " + form)
	}
	cfg, err := pgx.ParseConfig(o.URL)
	if err != nil { // which quotes the URL
		return nil, errors.New("ERP_URL is no URL of a PostgreSQL database, or has a parameter that is none: " + form)
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = dialTimeout
	}
	// Asks for the types with each statement: a column that the ERP changes must not meet those of
	// yesterday, and a connection pool on the way may hand each statement to another connection.
	cfg.DefaultQueryExecMode = pgx.QueryExecModeDescribeExec
	// By statements: poolers refuse parameters of the connection that they do not know. What the JIT
	// compiler makes of a page's JSON took four times as long to compile as to run.
	session := fmt.Sprintf("SET TIME ZONE 'UTC'; SET client_encoding = 'UTF8'; SET jit = off; SET statement_timeout = %d;"+
		" SET default_transaction_isolation = 'read committed'; SET default_transaction_read_only = on", o.Timeout.Milliseconds())
	return bounded(stdlib.OpenDB(*cfg, stdlib.OptionAfterConnect(func(ctx context.Context, conn *pgx.Conn) error {
		if _, err := conn.PgConn().Exec(ctx, session).ReadAll(); err != nil {
			return fmt.Errorf("prepare the connection: %w", err)
		}
		return nil
	}))), nil
}
