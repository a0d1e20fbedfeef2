package erp

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"ordersync/internal/order"
)

// Kinds of a source.
const (
	HTTP     = "http"
	MySQL    = "mysql"
	Postgres = "postgres"
)

// Options are what Open takes. Which of them a kind uses stands in docs/ERP.md.
type Options struct {
	Kind string // HTTP, MySQL or Postgres
	URL  string

	// Token or User and Password authorize requests to an HTTP source.
	Token, User, Password string

	// QueriesDir has the .sql files of an SQL source, OrdersQuery is the path of the file with the
	// query for its orders; without one it lists none.
	QueriesDir, OrdersQuery string

	// Timeout bounds each call of the source; 0 means 30 seconds.
	Timeout time.Duration
	// Channel is that of rows that name none; without it they are rejected.
	Channel order.Channel
	Logger  *slog.Logger // nil means slog.Default()
}

// Limits of what is held in memory.
const (
	// maxPage is the most bytes of a page's values: a page ends early above it.
	maxPage = 32 << 20
	// maxAnswer is the most bytes of an HTTP answer, after decompression.
	maxAnswer = 64 << 20
)

const defaultTimeout = 30 * time.Second

// ErrCursor is in the chain of the error that a cursor is none of this source's: it comes from a
// source of another kind, or from a later version.
var ErrCursor = errors.New("not a place in this source")

// ErrTooMuch is in the chain of the error of a page that is too large, or took longer than the timeout: one of
// fewer rows may do.
var ErrTooMuch = errors.New("too much for one page")

// Open prepares a source without contacting it, so that it succeeds while the ERP is down. Its error
// tells every problem, one a line, and quotes no secret.
func Open(o Options) (Source, error) {
	o.Timeout = cmp.Or(o.Timeout, defaultTimeout)
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	switch o.Kind {
	case HTTP:
		return openHTTP(o)
	case MySQL:
		return openSQL(o, mysqlDialect)
	case Postgres:
		return openSQL(o, postgresDialect)
	default:
		return nil, fmt.Errorf("ERP_SOURCE: %q is none of %s, %s, %s", o.Kind, HTTP, MySQL, Postgres)
	}
}
