package erp

import (
	"cmp"
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
)

// dialTimeout is for the connection alone, where the URL sets none.
const dialTimeout = 5 * time.Second

// Connections to the ERP's database, at most: polls, a backfill and a comparison read one after the other.
const maxConns = 4

// mysqlSession is run on every new connection.
//
// The time limit of a statement has another name and another unit in MySQL than in MariaDB, and each
// takes the comments of the other for comments. JSON_ARRAYAGG in MariaDB is cut off, without an error,
// at group_concat_max_len: it is set above the largest event.
func mysqlSession(limit time.Duration) []string {
	return []string{
		fmt.Sprintf("SET NAMES utf8mb4 COLLATE utf8mb4_bin, time_zone = '+00:00', autocommit = 1, group_concat_max_len = 8388608"+
			" /*!80000 , max_execution_time = %d */ /*M! , max_statement_time = %.3f */", limit.Milliseconds(), limit.Seconds()),
		"SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY",
	}
}

func openMySQL(o Options) (*sql.DB, error) {
	const form = "write user:password@tcp(host:3306)/schema"
	cfg, err := mysql.ParseDSN(o.URL)
	switch {
	case err != nil: // which may quote a part of the password
		return nil, errors.New("ERP_URL is no data source name: " + form)
	case cfg.DBName == "":
		return nil, errors.New("ERP_URL names no schema: " + form)
	}
	cfg.Timeout = cmp.Or(cfg.Timeout, dialTimeout)
	// Beyond the limit of a statement, so that it is the server that says what happened.
	cfg.ReadTimeout = cmp.Or(cfg.ReadTimeout, o.Timeout+dialTimeout)
	cfg.WriteTimeout = cmp.Or(cfg.WriteTimeout, o.Timeout)
	cfg.Collation = "" // mysqlSession sets it
	cfg.Loc = time.UTC
	cfg.ParseTime = false // columns are read as text, which knows no zero date
	cfg.InterpolateParams = true
	cfg.MultiStatements = false
	cfg.MaxAllowedPacket = 0 // ask the server
	cfg.Logger = driverLog{o.Logger}
	connector, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, errors.New("ERP_URL is no data source name: " + form)
	}
	return bounded(sql.OpenDB(mysqlConnector{connector, mysqlSession(o.Timeout)})), nil
}

func bounded(db *sql.DB) *sql.DB {
	db.SetMaxOpenConns(maxConns)
	db.SetMaxIdleConns(maxConns)
	// Below whatever closes idle or old connections on the way.
	db.SetConnMaxLifetime(3 * time.Minute)
	db.SetConnMaxIdleTime(time.Minute)
	return db
}

// mysqlConnector makes the driver's connections ready for use.
type mysqlConnector struct {
	driver.Connector
	session []string
}

// Connect implements driver.Connector.
func (c mysqlConnector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	for _, statement := range c.session {
		execer, ok := conn.(driver.ExecerContext)
		if !ok {
			return nil, errors.Join(fmt.Errorf("the MySQL driver's %T executes no statements", conn), conn.Close())
		}
		if _, err := execer.ExecContext(ctx, statement, nil); err != nil {
			return nil, errors.Join(fmt.Errorf("prepare the connection: %w", err), conn.Close())
		}
	}
	return conn, nil
}

// driverLog takes what the driver says besides its errors, which are returned anyway.
type driverLog struct{ log *slog.Logger }

// Print implements mysql.Logger.
func (l driverLog) Print(v ...any) {
	l.log.Debug("mysql driver", "error", strings.TrimSpace(fmt.Sprint(v...)))
}
