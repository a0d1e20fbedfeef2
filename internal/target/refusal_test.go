package target

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"ordersync/internal/devstack"
	"ordersync/internal/devstack/devtest"
	"ordersync/internal/order"
)

func withData(s order.Step, data string) order.Step {
	s.Event.Data = json.RawMessage(data)
	return s
}

func wantFailure(t testing.TB, err error, name string, permanent bool) {
	t.Helper()
	var failure *order.Failure
	if !errors.As(err, &failure) || failure.Type != name || failure.Permanent != permanent {
		t.Errorf("got %v, want %s (permanent: %t)", err, name, permanent)
	}
}

// What a team puts around the data refuses an event for good, and leaves nothing of it behind.
func TestRefusedData(t *testing.T) {
	for _, test := range []struct {
		name     string
		team     string // what the team did
		mended   string // how it is undone
		refused  string // the event's data
		failure  string
		accepted string
	}{
		{"check", `ALTER TABLE orders ADD CONSTRAINT no_debt CHECK (JSON_VALUE(data, '$.total') >= 0)`,
			`ALTER TABLE orders DROP CONSTRAINT no_debt`, `{"total":-1}`, "CheckViolated", `{"total":1}`},
		{"trigger", `CREATE TRIGGER no_debt BEFORE INSERT ON orders FOR EACH ROW
			IF JSON_VALUE(NEW.data, '$.total') < 0 THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'debt'; END IF`,
			`DROP TRIGGER no_debt`, `{"total":-1}`, "SignalRaised", `{"total":1}`},
		{"column too short", `ALTER TABLE orders ADD COLUMN country VARCHAR(2) AS (JSON_VALUE(data, '$.country')) STORED`,
			`ALTER TABLE orders DROP COLUMN country`, `{"country":"Norway"}`, "DataTooLong", `{"country":"NO"}`},
		{"no partition", `ALTER TABLE orders PARTITION BY LIST COLUMNS (sync_id) (PARTITION p VALUES IN ('good'))`,
			`ALTER TABLE orders REMOVE PARTITIONING`, `1`, "NoPartition", `1`},
		{"column that needs a date", `ALTER TABLE orders ADD COLUMN ordered DATE AS (JSON_VALUE(data, '$.on')) STORED`,
			`ALTER TABLE orders DROP COLUMN ordered`, `{"on":"2026-02-30"}`, "InvalidValue", `{"on":"2026-02-28"}`},
		{"column that divides", `ALTER TABLE orders ADD COLUMN each_ DECIMAL(9,2) AS (JSON_VALUE(data, '$.total') / JSON_VALUE(data, '$.n')) STORED`,
			`ALTER TABLE orders DROP COLUMN each_`, `{"total":3,"n":0}`, "DivisionByZero", `{"total":3,"n":2}`},
		{"column of another type", `ALTER TABLE orders ADD COLUMN items INT AS (JSON_VALUE(data, '$.items')) STORED`,
			`ALTER TABLE orders DROP COLUMN items`, `{"items":"many"}`, "InvalidValue", `{"items":3}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := setup(t)
			b.exec(t, test.team)
			b.apply(t, withData(step("good", creation, 1), test.accepted))
			s := withData(step("bad", creation, 1), test.refused)
			_, err := b.Apply(t.Context(), s)
			wantFailure(t, err, test.failure, true)
			b.wantCounts(t, 1, 0, 1)
			b.exec(t, test.mended)
			if got := b.apply(t, s); got.Outcome != order.Applied || got.Duplicate {
				t.Errorf("after it was mended: got %+v", got)
			}
			b.wantCounts(t, 2, 0, 2)
		})
	}
}

// Where the server does not take data as JSON at all, no check of the team's is what refuses it. Halves of surrogate
// pairs are JSON to encoding/json, and to neither server.
func TestDataThatIsNoJSONToTheServer(t *testing.T) {
	half, deep := `{"name":"\ud83d"}`, strings.Repeat("[", 40)+strings.Repeat("]", 40)
	for name, team := range map[string]string{
		"as it is":                    "SELECT 1",
		"beside a check":              `ALTER TABLE orders ADD CONSTRAINT no_debt CHECK (COALESCE(JSON_VALUE(data, '$.total'), 0) >= 0)`,
		"beside a column":             `ALTER TABLE orders ADD COLUMN name TEXT AS (JSON_EXTRACT(data, '$.name'))`,
		"beside a column of all JSON": `ALTER TABLE orders ADD COLUMN extra LONGTEXT AS (JSON_COMPACT(data)) STORED`,
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			b.exec(t, team)
			for _, data := range []string{half, `"\udc00"`, `{"\ud83d":1}`} {
				_, err := b.Apply(t.Context(), withData(step("1", creation, 1), data))
				wantFailure(t, err, "InvalidJSON", true)
			}
			_, err := b.Apply(t.Context(), withData(step("1", creation, 1), deep))
			var failure *order.Failure
			if err == nil { // MySQL takes 100 levels
				return
			}
			if !errors.As(err, &failure) || !failure.Permanent || failure.Type != "InvalidJSON" && failure.Type != "JSONTooDeep" {
				t.Errorf("40 levels: %v", err)
			}
		})
	}
	b := setup(t)
	b.apply(t, step("1", creation, 1))
	_, err := b.Apply(t.Context(), withData(step("1", invoice, 1), half))
	wantFailure(t, err, "InvalidJSON", true)
	b.apply(t, withData(step("1", invoice, 1), `"\ufffd\ud83d\ude00"`))
	b.wantCounts(t, 1, 1, 2)
}

// A refused update leaves the order as it was, in a transaction that is rolled back: the next
// event of the order does not wait for it.
func TestRefusedUpdate(t *testing.T) {
	b := setup(t)
	b.exec(t, `ALTER TABLE orders ADD CONSTRAINT no_debt CHECK (JSON_VALUE(data, '$.total') >= 0)`)
	b.apply(t, withData(step("1", creation, 1), `{"total":1}`))
	_, err := b.Apply(t.Context(), withData(step("1", update, 2), `{"total":-1}`))
	wantFailure(t, err, "CheckViolated", true)
	if got := b.apply(t, withData(step("1", update, 2), `{"total":3}`)); got.Outcome != order.Applied {
		t.Errorf("got %+v", got)
	}
	row, _, err := b.Order(t.Context(), "1")
	if err != nil || !sameJSON(t, row.Data, json.RawMessage(`{"total":3}`)) {
		t.Errorf("got %s (%v)", row.Data, err)
	}
}

// Every kind of JSON value is kept by meaning, with what could end a string in SQL.
func TestData(t *testing.T) {
	b := setup(t)
	for _, data := range []string{
		`"this data should sync to MySQL db"`, `0`, `-12.5`, `true`, `[]`, `{}`, `""`,
		`"it's \"quoted\" \\ and \\' ; -- /* ? */ %s"`, `{"naïve":"日本 🛒  "}`, `"<&>"`, `"a\u0000b\u001a"`,
		`[[[[[[[[[["deep"]]]]]]]]]]`, `"` + strings.Repeat("'", order.MaxValue-100) + `"`,
	} {
		s := withData(step("1", update, 0), data)
		s.InsertMissing = true
		b.apply(t, s)
		row, _, err := b.Order(t.Context(), "1")
		if err != nil || !sameJSON(t, row.Data, s.Event.Data) {
			t.Errorf("%.60s: got %.60s (%v)", data, row.Data, err)
		}
	}
}

// The limit is the server's, and it is the data that is above it: told by the error, and not by
// a connection that the server hangs up on.
func TestDataAboveThePacketLimit(t *testing.T) {
	server := devtest.MySQLPrivate(t, devstack.MySQLOptions{})
	b := bundle{Target: openTarget(t, server.DSN("shop")), dsn: server.DSN("shop")}
	if err := b.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	const limit = 256 << 10
	b.exec(t, "SET GLOBAL max_allowed_packet = ?", limit)
	b.Target = openTarget(t, b.dsn) // connections take it when they are made
	// Fits, though not as a single statement.
	b.apply(t, withData(step("fits", creation, 1), `"`+strings.Repeat("'", limit-100)+`"`))
	_, err := b.Apply(t.Context(), withData(step("1", creation, 1), `"`+strings.Repeat("x", limit)+`"`))
	wantFailure(t, err, "PacketTooLarge", true)
	_, err = b.Apply(t.Context(), withData(step("1", creation, 1), `"`+strings.Repeat("'", order.MaxValue-100)+`"`))
	wantFailure(t, err, "PacketTooLarge", true)
	b.wantCounts(t, 1, 0, 1)
}

// A lock wait that times out rolls back its statement only: the rest is rolled back by us, on a
// connection that goes on to be used.
func TestLockWaitTimeout(t *testing.T) {
	b := setup(t)
	b.apply(t, step("1", creation, 1))
	single, err := Open(b.dsn, Options{MaxConns: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = single.Close() }()
	if _, err := single.DB().Exec("SET SESSION innodb_lock_wait_timeout = 1"); err != nil {
		t.Fatal(err)
	}
	s := step("1", update, 2)
	other, err := b.DB().BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Rollback() }()
	if err := record(t.Context(), other, s.Event, order.Skipped); err != nil {
		t.Fatal(err)
	}
	_, err = single.Apply(t.Context(), s) // has the order, waits for the ledger's key
	wantFailure(t, err, "LockWaitTimeout", false)
	var version int64
	if err := other.QueryRow("SELECT version FROM orders WHERE sync_id = '1' FOR UPDATE NOWAIT").Scan(&version); err != nil {
		t.Errorf("the order is still locked: %v", err)
	}
	if err := other.Rollback(); err != nil {
		t.Fatal(err)
	}
	if got, err := single.Apply(t.Context(), s); err != nil || got.Outcome != order.Applied || got.Duplicate {
		t.Errorf("got %+v, %v", got, err)
	}
	b.wantCounts(t, 1, 0, 2)
}

// The context's end is felt while the step waits, and leaves nothing.
func TestContextEnds(t *testing.T) {
	b := setup(t)
	b.apply(t, step("1", creation, 1))
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := b.Apply(ended, step("1", update, 2))
	wantFailure(t, err, "Cancelled", false)

	other, err := b.DB().BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Rollback() }()
	if _, err := lock(t.Context(), other, "1"); err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = b.Apply(short, step("1", update, 3))
	wantFailure(t, err, "TargetUnavailable", false)
	if err := other.Rollback(); err != nil {
		t.Fatal(err)
	}
	b.apply(t, step("1", update, 4))
	b.wantCounts(t, 1, 0, 2)
}

// A failover leaves connections to a server that takes no writes any more: they are thrown away.
func TestReadOnlyConnectionIsThrownAway(t *testing.T) {
	b := setup(t)
	single, err := Open(b.dsn, Options{MaxConns: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = single.Close() }()
	if _, err := single.DB().Exec("SET SESSION TRANSACTION READ ONLY"); err != nil {
		t.Fatal(err)
	}
	s := step("1", creation, 1)
	_, err = single.Apply(t.Context(), s)
	wantFailure(t, err, "TargetUnavailable", false)
	if got, err := single.Apply(t.Context(), s); err != nil || got.Outcome != order.Applied {
		t.Errorf("got %+v, %v", got, err)
	}
}

// A duplicate key that is not the ledger's says nothing of the event.
func TestDuplicateKeyOfATeamsTrigger(t *testing.T) {
	b := setup(t)
	b.exec(t, "CREATE TABLE audit (id INT PRIMARY KEY)")
	b.exec(t, "INSERT INTO audit VALUES (1)")
	b.exec(t, "CREATE TRIGGER audited AFTER INSERT ON order_events FOR EACH ROW INSERT INTO audit VALUES (1)")
	_, err := b.Apply(t.Context(), step("1", creation, 1))
	wantFailure(t, err, "DuplicateKey", false)
	b.wantCounts(t, 0, 0, 0)
}

// Old rows of the ledger may be deleted. An invoice that comes again then is there already; one that a
// key of the team's refuses is not.
func TestInvoiceThatComesAgainAfterItsLedgerRowIsGone(t *testing.T) {
	b := setup(t)
	b.apply(t, step("1", creation, 1))
	first := step("1", invoice, 2)
	b.apply(t, first)
	b.exec(t, "DELETE FROM order_events")
	for range 2 {
		if got := b.apply(t, first); got.Outcome != order.Applied || got.Status != order.Invoiced {
			t.Errorf("got %+v", got)
		}
	}
	b.wantCounts(t, 1, 1, 1)

	b.exec(t, "CREATE UNIQUE INDEX one_of_an_order ON invoices (sync_id)")
	_, err := b.Apply(t.Context(), step("1", invoice, 3))
	wantFailure(t, err, "DuplicateKey", false)
	b.wantCounts(t, 1, 1, 1)
}

func TestMissingTableNeedsAnOperator(t *testing.T) {
	target := openTarget(t, devtest.MySQL(t))
	_, err := target.Apply(t.Context(), step("1", creation, 1))
	wantFailure(t, err, "UnknownTable", false)
	var failure *order.Failure
	if !errors.As(err, &failure) || !failure.Operator {
		t.Errorf("got %+v, want one for an operator", failure)
	}
	if _, _, err := target.Order(t.Context(), "1"); err == nil || errors.Is(err, sql.ErrNoRows) {
		t.Errorf("reading an order: %v", err)
	}
}

func TestServerDown(t *testing.T) {
	target := openTarget(t, "user:secret@tcp(127.0.0.1:1)/shop")
	_, err := target.Apply(t.Context(), step("1", creation, 1))
	wantFailure(t, err, "TargetUnavailable", false)
	_, err = target.Skip(t.Context(), event("1", creation, 1))
	wantFailure(t, err, "TargetUnavailable", false)
	if err := target.CheckSchema(t.Context()); err == nil {
		t.Error("the schema of a server that is down is right")
	}
}
