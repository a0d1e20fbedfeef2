package target

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"

	"github.com/go-sql-driver/mysql"

	"ordersync/internal/order"
)

// Failure types that stand for no error number of the server's.
const (
	unavailable = "TargetUnavailable"
	cancelled   = "Cancelled"
	unknown     = "Unknown"
	tooLarge    = "PacketTooLarge"
)

// Numbers that the code looks for, by the names of the servers' own lists.
const (
	unknownSchema  = 1049 // ER_BAD_DB_ERROR
	duplicateKey   = 1062 // ER_DUP_ENTRY
	unnamed        = 1105 // ER_UNKNOWN_ERROR
	unknownTable   = 1146 // ER_NO_SUCH_TABLE
	packetTooLarge = 1153 // ER_NET_PACKET_TOO_LARGE
)

// hasNumber tells whether the error is the server's, of this number.
func hasNumber(err error, number uint16) bool {
	var refused *mysql.MySQLError
	return errors.As(err, &refused) && refused.Number == number
}

// class is what a server's error number means for the event.
type class struct {
	name      string
	permanent bool // the data's fault: the same data fails again
	operator  bool // retried like any other, but only somebody can mend it
}

// classes are the numbers of MySQL and MariaDB that are told apart. A number that is not listed
// is retried: to block an order for a cause that passes by itself costs more than to retry one
// that does not.
var classes = map[uint16]class{
	1048:           {name: "ColumnNotNull", permanent: true},
	packetTooLarge: {name: tooLarge, permanent: true},
	1264:           {name: "OutOfRange", permanent: true},
	1265:           {name: "InvalidValue", permanent: true}, // this and the next three by a team's generated columns
	1365:           {name: "DivisionByZero", permanent: true},
	1411:           {name: "InvalidValue", permanent: true},
	1690:           {name: "OutOfRange", permanent: true},
	1292:           {name: "InvalidValue", permanent: true},
	1366:           {name: "InvalidValue", permanent: true},
	1406:           {name: "DataTooLong", permanent: true},
	1644:           {name: "SignalRaised", permanent: true}, // a trigger's SIGNAL
	3140:           {name: "InvalidJSON", permanent: true},
	3141:           {name: "InvalidJSON", permanent: true},
	3157:           {name: "JSONTooDeep", permanent: true},
	3819:           {name: "CheckViolated", permanent: true}, // MySQL
	4025:           {name: "CheckViolated", permanent: true}, // MariaDB, where JSON columns are a check too

	1040:         {name: "TooManyConnections"},
	1053:         {name: "ShuttingDown"},
	duplicateKey: {name: "DuplicateKey"}, // not the ledger's: somebody else inserted the row
	1203:         {name: "TooManyConnections"},
	1205:         {name: "LockWaitTimeout"},
	1213:         {name: "Deadlock"},
	1290:         {name: "ReadOnly"},
	1317:         {name: "Interrupted"},
	1792:         {name: "ReadOnly"},
	1836:         {name: "ReadOnly"},
	3024:         {name: "StatementTimeout"},

	1044:         {name: "AccessDenied", operator: true},
	1045:         {name: "AccessDenied", operator: true},
	1054:         {name: "UnknownColumn", operator: true},
	1064:         {name: "SyntaxError", operator: true},
	1142:         {name: "AccessDenied", operator: true},
	unknownTable: {name: "UnknownTable", operator: true},
	1227:         {name: "AccessDenied", operator: true},
	1452:         {name: "ForeignKeyViolated", operator: true},
}

// Classify sorts an error of the database, or of the way to it, into what happens to the event:
// permanent blocks its order, everything else is retried. It is the only place that decides this.
// A *order.Failure is handed back as it is; nil is none.
func Classify(err error) *order.Failure {
	if err == nil {
		return nil
	}
	var known *order.Failure
	if errors.As(err, &known) {
		return known
	}
	var refused *mysql.MySQLError
	if errors.As(err, &refused) {
		return classifyNumber(refused, err)
	}
	switch {
	case errors.Is(err, mysql.ErrPktTooLarge): // the driver refused to send it
		return &order.Failure{Type: tooLarge, Permanent: true, Err: err}
	case errors.Is(err, context.Canceled):
		return &order.Failure{Type: cancelled, Err: err}
	case isUnavailable(err):
		return &order.Failure{Type: unavailable, Err: err}
	default:
		return &order.Failure{Type: unknown, Err: err}
	}
}

// classifyNumber looks the number up.
//
// Data above the server's max_allowed_packet is not refused by the number meant for it. The driver,
// which knows the limit, does not send such a statement but prepares it and sends the data in
// pieces, and those MySQL and MariaDB refuse by ER_UNKNOWN_ERROR and an untranslated text.
func classifyNumber(refused *mysql.MySQLError, err error) *order.Failure {
	c, listed := classes[refused.Number]
	switch {
	case refused.Number == unnamed && strings.Contains(refused.Message, "mysql_send_long_data"):
		c = classes[packetTooLarge]
	case !listed:
		c.name = fmt.Sprintf("MySQL%d", refused.Number)
	}
	return &order.Failure{Type: c.name, Permanent: c.permanent, Operator: c.operator, Err: err}
}

// isUnavailable tells errors of the connection. driver.ErrBadConn comes before anything was sent,
// from a connection found dead, and (rejectReadOnly) from a server that takes no writes any more.
// sql.ErrTxDone comes where the context's end has rolled the transaction back.
func isUnavailable(err error) bool {
	for _, lost := range []error{
		mysql.ErrInvalidConn, mysql.ErrMalformPkt, mysql.ErrPktSync, mysql.ErrPktSyncMul, mysql.ErrBusyBuffer,
		driver.ErrBadConn, sql.ErrConnDone, sql.ErrTxDone,
		context.DeadlineExceeded, io.EOF, io.ErrUnexpectedEOF, io.ErrShortWrite, net.ErrClosed,
	} {
		if errors.Is(err, lost) {
			return true
		}
	}
	var network net.Error
	return errors.As(err, &network)
}
