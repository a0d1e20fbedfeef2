package target

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"

	"github.com/go-sql-driver/mysql"

	"ordersync/internal/order"
)

func TestClassify(t *testing.T) {
	const (
		retried   = "retried"
		permanent = "permanent"
		operator  = "operator"
	)
	number := func(n uint16) error { return &mysql.MySQLError{Number: n, Message: "as the server says"} }
	for _, test := range []struct {
		err   error
		name  string
		class string
	}{
		{number(1048), "ColumnNotNull", permanent},
		{number(1153), "PacketTooLarge", permanent},
		{number(1264), "OutOfRange", permanent},
		{number(1265), "InvalidValue", permanent},
		{number(1292), "InvalidValue", permanent},
		{number(1365), "DivisionByZero", permanent},
		{number(1411), "InvalidValue", permanent},
		{number(1690), "OutOfRange", permanent},
		{number(1366), "InvalidValue", permanent},
		{number(1406), "DataTooLong", permanent},
		{number(1644), "SignalRaised", permanent},
		{number(3140), "InvalidJSON", permanent},
		{number(3141), "InvalidJSON", permanent},
		{number(3157), "JSONTooDeep", permanent},
		{number(3819), "CheckViolated", permanent},
		{number(4025), "CheckViolated", permanent},
		{&mysql.MySQLError{Number: 4025, Message: "CONSTRAINT `orders.data` failed for `shop`.`orders`"}, "InvalidJSON", permanent},
		{&mysql.MySQLError{Number: 4025, Message: "CONSTRAINT `invoices.data` failed for `shop`.`invoices`"}, "InvalidJSON", permanent},
		{&mysql.MySQLError{Number: 4025, Message: "CONSTRAINT `no_debt` failed for `orders.data`.`orders`"}, "CheckViolated", permanent},
		{&mysql.MySQLError{Number: 4025, Message: "CONSTRAINT `orders.extra` failed for `shop`.`orders`"}, "CheckViolated", permanent},
		{&mysql.MySQLError{Number: 4025, Message: "CONSTRAINT `a``orders.data` failed for `shop`.`orders`"}, "CheckViolated", permanent},
		{number(3069), "InvalidJSON", permanent},
		{number(3147), "InvalidJSON", permanent},
		{number(3150), "InvalidJSON", permanent},
		{number(3151), "InvalidJSON", permanent},
		{number(3155), "OutOfRange", permanent},
		{number(3156), "InvalidValue", permanent},
		{number(3158), "InvalidValue", permanent},
		{number(3853), "InvalidValue", permanent},
		{number(3903), "InvalidValue", permanent},
		{number(3904), "OutOfRange", permanent},
		{number(3905), "DataTooLong", permanent},
		{number(3906), "DataTooLong", permanent},
		{number(3907), "DataTooLong", permanent},
		{number(3908), "InvalidValue", permanent},
		{number(3934), "CheckViolated", permanent},
		{number(3966), "InvalidValue", permanent},
		{number(3967), "InvalidValue", permanent},
		{number(4035), "InvalidJSON", permanent},
		{number(4036), "InvalidJSON", permanent},
		{number(4037), "InvalidJSON", permanent},
		{number(4038), "InvalidJSON", permanent},
		{number(4039), "InvalidJSON", permanent},
		{number(4040), "JSONTooDeep", permanent},
		{number(1118), "DataTooLong", permanent},
		{number(1162), "PacketTooLarge", permanent},
		{number(1300), "InvalidValue", permanent},
		{number(1301), "PacketTooLarge", permanent},
		{number(1367), "InvalidValue", permanent},
		{number(1369), "CheckViolated", permanent},
		{number(1416), "InvalidGeometry", permanent},
		{number(1441), "OutOfRange", permanent},
		{number(1525), "InvalidValue", permanent},
		{number(1526), "NoPartition", permanent},
		{number(1591), "NoPartition", permanent},
		{number(1916), "OutOfRange", permanent},
		{number(1917), "InvalidValue", permanent},
		{number(1918), "InvalidValue", permanent},
		{number(1977), "InvalidValue", permanent},
		{number(3020), "InvalidValue", permanent},
		{number(3033), "InvalidGeometry", permanent},
		{number(3037), "InvalidGeometry", permanent},
		{number(3070), "InvalidGeometry", permanent},
		{number(3513), "InvalidValue", permanent},
		{number(3616), "OutOfRange", permanent},
		{number(3643), "InvalidGeometry", permanent},
		{number(3665), "InvalidValue", permanent},
		{number(3669), "OutOfRange", permanent},
		{number(3673), "ColumnNotNull", permanent},
		{number(3698), "InvalidValue", permanent},
		{number(3751), "InvalidValue", permanent},
		{number(3752), "OutOfRange", permanent},
		{number(3854), "InvalidValue", permanent},
		{number(3988), "InvalidValue", permanent},
		{number(3998), "InvalidValue", permanent},
		{number(4032), "InvalidGeometry", permanent},
		{number(4048), "InvalidGeometry", permanent},
		{number(4178), "InvalidValue", permanent},
		{&mysql.MySQLError{Number: 1105, Message: "Parameter of prepared statement which is set through mysql_send_long_data() is longer than 'max_allowed_packet' bytes"}, "PacketTooLarge", permanent},
		{mysql.ErrPktTooLarge, "PacketTooLarge", permanent},

		{number(1205), "LockWaitTimeout", retried},
		{number(1213), "Deadlock", retried},
		{number(1040), "TooManyConnections", retried},
		{number(1203), "TooManyConnections", retried},
		{number(1053), "ShuttingDown", retried},
		{number(1290), "ReadOnly", retried},
		{number(1792), "ReadOnly", retried},
		{number(1836), "ReadOnly", retried},
		{number(1317), "Interrupted", retried},
		{number(3024), "StatementTimeout", retried},
		{number(1062), "DuplicateKey", retried},
		{number(4711), "MySQL4711", retried},
		{number(1105), "MySQL1105", retried},

		{number(1969), "StatementTimeout", retried},
		{number(1927), "Interrupted", retried},
		{number(3699), "MySQL3699", retried}, // time
		{number(4031), "MySQL4031", retried}, // MySQL: the connection
		{number(4049), "MySQL4049", retried}, // MySQL: a member of a group that is read-only
		{number(4076), "MySQL4076", retried}, // MySQL: a file is missing

		{number(1143), "AccessDenied", operator},
		{number(1216), "ForeignKeyViolated", operator},
		{number(1305), "UnknownRoutine", operator},
		{number(1356), "InvalidView", operator},
		{number(1364), "ColumnWithoutDefault", operator},
		{number(1370), "AccessDenied", operator},
		{number(1449), "UnknownDefiner", operator},
		{number(1044), "AccessDenied", operator},
		{number(1045), "AccessDenied", operator},
		{number(1142), "AccessDenied", operator},
		{number(1227), "AccessDenied", operator},
		{number(1054), "UnknownColumn", operator},
		{number(1064), "SyntaxError", operator},
		{number(1146), "UnknownTable", operator},
		{number(1452), "ForeignKeyViolated", operator},

		{mysql.ErrInvalidConn, "TargetUnavailable", retried},
		{driver.ErrBadConn, "TargetUnavailable", retried},
		{context.DeadlineExceeded, "TargetUnavailable", retried},
		{sql.ErrConnDone, "TargetUnavailable", retried},
		{sql.ErrTxDone, "TargetUnavailable", retried},
		{io.ErrUnexpectedEOF, "TargetUnavailable", retried},
		{&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, "TargetUnavailable", retried},
		{&net.DNSError{Err: "no such host", Name: "db"}, "TargetUnavailable", retried},
		{context.Canceled, "Cancelled", retried},
		{errors.New("something else"), "Unknown", retried},
	} {
		want := order.Failure{Type: test.name, Permanent: test.class == permanent, Operator: test.class == operator}
		for _, err := range []error{test.err, fmt.Errorf("insert into orders: %w", test.err)} {
			got := Classify(err)
			if got.Type != want.Type || got.Permanent != want.Permanent || got.Operator != want.Operator {
				t.Errorf("%v: got %s (permanent %t, operator %t), want %s, %s", err, got.Type, got.Permanent, got.Operator, test.name, test.class)
			}
			if !errors.Is(got, test.err) {
				t.Errorf("%v: the cause is lost", err)
			}
			if again := Classify(fmt.Errorf("again: %w", got)); again != got {
				t.Errorf("%v: a failure is classified anew", err)
			}
		}
	}
	if Classify(nil) != nil {
		t.Error("no error is a failure")
	}
}

// Whatever the server answers to a COMMIT, nobody knows whether it happened.
func TestFailedCommitIsNeverPermanent(t *testing.T) {
	for _, err := range []error{&mysql.MySQLError{Number: 4025}, errors.New("bad connection"), mysql.ErrInvalidConn} {
		failure := Classify(commitFailed(err))
		if failure.Permanent || failure.Type == "Unknown" {
			t.Errorf("%v: got %+v", err, failure)
		}
	}
}
