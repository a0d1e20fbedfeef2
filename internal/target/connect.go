package target

import (
	"cmp"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
)

// Timeouts where the DSN sets none: the driver has none for reads and writes, and a server that
// is gone without a word would hold the connection for ever.
const (
	dialTimeout = 5 * time.Second
	ioTimeout   = 15 * time.Second
)

// session is run on every new connection, after the DSN's own parameters and so above them.
//
// A lax sql_mode cuts values without a word. Another time zone shifts every time. Waits for locks
// end well before ioTimeout (the servers' defaults are 50 s for a row, a day or more for a table
// under ALTER), so that the error names them and the transaction does not outlive its client.
// The isolation level has a statement of its own because its variable has two names: tx_isolation
// in MariaDB before 11.1, transaction_isolation in MySQL 8.
var session = []string{
	"SET NAMES utf8mb4 COLLATE utf8mb4_bin" +
		", sql_mode = 'STRICT_TRANS_TABLES,NO_ZERO_IN_DATE,NO_ZERO_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION'" +
		", time_zone = '+00:00'" +
		", autocommit = 1" +
		", innodb_lock_wait_timeout = 5" +
		", lock_wait_timeout = 5",
	"SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED",
}

const dsnForm = "write user:password@tcp(host:3306)/schema"

func parseDSN(dsn string) (*mysql.Config, error) {
	cfg, err := mysql.ParseDSN(dsn)
	switch {
	case err != nil && strings.HasPrefix(err.Error(), "default addr for network"):
		// The driver quotes what it took for the network, which may hold a part of the password.
		return nil, errors.New("MYSQL_DSN has no tcp(host:port) or unix(path) before its schema: " + dsnForm)
	case err != nil:
		return nil, fmt.Errorf("MYSQL_DSN: %w: %s", err, dsnForm)
	case cfg.DBName == "":
		return nil, errors.New("MYSQL_DSN names no schema, and ordersync needs one of its own: " + dsnForm)
	}
	cfg.Timeout = cmp.Or(cfg.Timeout, dialTimeout)
	cfg.ReadTimeout = cmp.Or(cfg.ReadTimeout, ioTimeout)
	cfg.WriteTimeout = cmp.Or(cfg.WriteTimeout, ioTimeout)
	cfg.Collation = "" // session sets it
	cfg.Loc = time.UTC
	cfg.ParseTime = true
	cfg.InterpolateParams = true // saves a round trip per statement
	cfg.RejectReadOnly = true    // after a failover the old primary's connections are thrown away
	// 0 asks the server. With any other number a statement above the server's limit is sent all
	// the same, the server hangs up in the middle, and an error of the data looks like one of the
	// network.
	cfg.MaxAllowedPacket = 0
	return cfg, nil
}

// connector makes the driver's connections ready for use.
type connector struct{ driver.Connector }

// Connect implements driver.Connector.
func (c connector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	for _, statement := range session {
		if err := execute(ctx, conn, statement); err != nil {
			return nil, errors.Join(fmt.Errorf("prepare the connection: %w", err), conn.Close())
		}
	}
	return conn, nil
}

func execute(ctx context.Context, conn driver.Conn, statement string) error {
	execer, ok := conn.(driver.ExecerContext)
	if !ok {
		return fmt.Errorf("the MySQL driver's %T executes no statements", conn)
	}
	_, err := execer.ExecContext(ctx, statement, nil)
	return err
}

// driverLog takes what the driver says besides its errors, which are returned anyway.
type driverLog struct{ log *slog.Logger }

// Print implements mysql.Logger.
func (l driverLog) Print(v ...any) { l.log.Debug("mysql driver", "error", fmt.Sprint(v...)) }
