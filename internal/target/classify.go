package target

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
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

	constraintFailed = 4025 // ER_CONSTRAINT_FAILED, MariaDB
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
//
// The permanent ones are what the same data causes each time, by the columns themselves or by what a team puts around
// them: generated columns, functional indexes, checks, triggers, partitions. They were found by going through both
// servers' lists: https://dev.mysql.com/doc/mysql-errors/8.4/en/server-error-reference.html and
// https://mariadb.com/kb/en/mariadb-error-code-reference/ (share/messages_to_clients.txt and
// sql/share/errmsg-utf8.txt in their sources). From 4000 on the servers use the same numbers for different errors. So
// 4049 and 4076 are not here: MariaDB refuses GeoJSON by them, and MySQL is a read-only member of a group, or lacks a file.
// Nor are errors of which other rows, memory, time or the server's set-up may be the cause.
var classes = map[uint16]class{
	// Text and numbers.
	1048:           {name: "ColumnNotNull", permanent: true},
	1118:           {name: "DataTooLong", permanent: true}, // the row, for its page
	packetTooLarge: {name: tooLarge, permanent: true},
	1162:           {name: tooLarge, permanent: true}, // what a function makes of the data, as 1301
	1264:           {name: "OutOfRange", permanent: true},
	1265:           {name: "InvalidValue", permanent: true},
	1292:           {name: "InvalidValue", permanent: true},
	1300:           {name: "InvalidValue", permanent: true},
	1301:           {name: tooLarge, permanent: true},
	1365:           {name: "DivisionByZero", permanent: true},
	1366:           {name: "InvalidValue", permanent: true},
	1367:           {name: "InvalidValue", permanent: true},
	1406:           {name: "DataTooLong", permanent: true},
	1411:           {name: "InvalidValue", permanent: true},
	1441:           {name: "OutOfRange", permanent: true}, // a date
	1525:           {name: "InvalidValue", permanent: true},
	1690:           {name: "OutOfRange", permanent: true},
	1916:           {name: "OutOfRange", permanent: true},   // MariaDB's casts, as the next two
	1917:           {name: "InvalidValue", permanent: true}, //
	1918:           {name: "InvalidValue", permanent: true}, //
	1977:           {name: "InvalidValue", permanent: true}, // MariaDB: a character that the column's set lacks
	3020:           {name: "InvalidValue", permanent: true}, // a logarithm
	3513:           {name: "InvalidValue", permanent: true}, // binary operands of different length
	3673:           {name: "ColumnNotNull", permanent: true},
	3698:           {name: "InvalidValue", permanent: true}, // too long for a regular expression's stack
	3854:           {name: "InvalidValue", permanent: true}, // a character that the column's set lacks, as the next
	3988:           {name: "InvalidValue", permanent: true}, //
	3998:           {name: "InvalidValue", permanent: true}, // a cast

	// Checks, triggers, partitions.
	1369:             {name: "CheckViolated", permanent: true}, // a view's WITH CHECK OPTION
	1526:             {name: "NoPartition", permanent: true},
	1591:             {name: "NoPartition", permanent: true},
	1644:             {name: "SignalRaised", permanent: true},  // a trigger's SIGNAL
	3819:             {name: "CheckViolated", permanent: true}, // MySQL
	3934:             {name: "CheckViolated", permanent: true}, // MySQL: a check by JSON_SCHEMA_VALID
	constraintFailed: {name: "CheckViolated", permanent: true}, // MariaDB, where JSON columns are a check too

	// What a JSON column refuses, and what functions of JSON in a team's columns do.
	3069: {name: "InvalidJSON", permanent: true},
	3140: {name: "InvalidJSON", permanent: true},
	3141: {name: "InvalidJSON", permanent: true},
	3147: {name: "InvalidJSON", permanent: true},
	3150: {name: "InvalidJSON", permanent: true}, // too large for the column
	3151: {name: "InvalidJSON", permanent: true}, // a key above 64 KiB
	3155: {name: "OutOfRange", permanent: true},
	3156: {name: "InvalidValue", permanent: true},
	3157: {name: "JSONTooDeep", permanent: true},
	3158: {name: "InvalidValue", permanent: true}, // NULL as a key of JSON_OBJECT
	3665: {name: "InvalidValue", permanent: true}, // JSON_TABLE, as the next two
	3666: {name: "InvalidValue", permanent: true},
	3669: {name: "OutOfRange", permanent: true},
	3751: {name: "InvalidValue", permanent: true}, // functional indexes, as the next and those from 3903 to 3908
	3752: {name: "OutOfRange", permanent: true},
	3853: {name: "InvalidValue", permanent: true}, // an object where an array is needed, say
	3903: {name: "InvalidValue", permanent: true},
	3904: {name: "OutOfRange", permanent: true},
	3905: {name: "DataTooLong", permanent: true}, // more values than a multi-valued index takes, as the next
	3906: {name: "DataTooLong", permanent: true},
	3907: {name: "DataTooLong", permanent: true},
	3908: {name: "InvalidValue", permanent: true},
	3966: {name: "InvalidValue", permanent: true}, // JSON_VALUE ERROR ON EMPTY: nothing is there
	3967: {name: "InvalidValue", permanent: true}, // JSON_VALUE: more than one is there
	4035: {name: "InvalidJSON", permanent: true},  // MariaDB's functions of JSON, as those to 4040
	4036: {name: "InvalidJSON", permanent: true},
	4037: {name: "InvalidJSON", permanent: true},
	4038: {name: "InvalidJSON", permanent: true},
	4039: {name: "InvalidJSON", permanent: true},
	4040: {name: "JSONTooDeep", permanent: true},
	4178: {name: "InvalidValue", permanent: true}, // MariaDB's JSON_TABLE, as the next
	4179: {name: "InvalidValue", permanent: true},

	// Geometries made of the data.
	1416: {name: "InvalidGeometry", permanent: true},
	3033: {name: "InvalidGeometry", permanent: true},
	3037: {name: "InvalidGeometry", permanent: true},
	3038: {name: "InvalidGeometry", permanent: true},
	3039: {name: "InvalidGeometry", permanent: true},
	3040: {name: "InvalidGeometry", permanent: true},
	3041: {name: "InvalidGeometry", permanent: true},
	3042: {name: "InvalidGeometry", permanent: true},
	3055: {name: "InvalidGeometry", permanent: true},
	3070: {name: "InvalidGeometry", permanent: true},
	3071: {name: "InvalidGeometry", permanent: true},
	3072: {name: "InvalidGeometry", permanent: true},
	3073: {name: "InvalidGeometry", permanent: true},
	3516: {name: "InvalidGeometry", permanent: true},
	3616: {name: "OutOfRange", permanent: true}, // a longitude, and the next a latitude
	3617: {name: "OutOfRange", permanent: true},
	3643: {name: "InvalidGeometry", permanent: true},
	3672: {name: "InvalidGeometry", permanent: true},
	3727: {name: "InvalidGeometry", permanent: true},
	3731: {name: "OutOfRange", permanent: true},
	3732: {name: "OutOfRange", permanent: true},
	4032: {name: "InvalidGeometry", permanent: true},
	4033: {name: "InvalidGeometry", permanent: true},
	4048: {name: "InvalidGeometry", permanent: true}, // MariaDB's GeoJSON, as the next
	4050: {name: "InvalidGeometry", permanent: true},

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
	1927:         {name: "Interrupted"},      // MariaDB
	1969:         {name: "StatementTimeout"}, // MariaDB
	3024:         {name: "StatementTimeout"},

	1044:         {name: "AccessDenied", operator: true},
	1045:         {name: "AccessDenied", operator: true},
	1054:         {name: "UnknownColumn", operator: true},
	1064:         {name: "SyntaxError", operator: true},
	1142:         {name: "AccessDenied", operator: true},
	1143:         {name: "AccessDenied", operator: true},
	unknownTable: {name: "UnknownTable", operator: true},
	1216:         {name: "ForeignKeyViolated", operator: true},
	1227:         {name: "AccessDenied", operator: true},
	1305:         {name: "UnknownRoutine", operator: true},
	1356:         {name: "InvalidView", operator: true},
	1364:         {name: "ColumnWithoutDefault", operator: true}, // a team's own column
	1370:         {name: "AccessDenied", operator: true},
	1449:         {name: "UnknownDefiner", operator: true}, // of a trigger or a view
	1452:         {name: "ForeignKeyViolated", operator: true},
}

// ownChecks are the checks that MariaDB makes for our JSON columns, by its names for them: data LONGTEXT CHECK
// (json_valid(data)). It gives no other check such a name, unless a team replaces that of the column itself.
var ownChecks = map[string]bool{"orders.data": true, "invoices.data": true}

// quoted is an identifier as the server quotes it in a message, in whatever language.
var quoted = regexp.MustCompile("`((?:[^`]|``)+)`")

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
	case refused.Number == constraintFailed:
		if name := quoted.FindStringSubmatch(refused.Message); name != nil && ownChecks[name[1]] {
			c.name = "InvalidJSON"
		}
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
