package target

import (
	"encoding/json"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"

	"ordersync/internal/devstack/devtest"
	"ordersync/internal/order"
)

func TestMain(m *testing.M) { devtest.Main(m) }

// bundle is a target on a migrated schema of its own.
type bundle struct {
	*Target
	dsn string
}

func setup(t testing.TB) bundle {
	t.Helper()
	dsn := devtest.MySQL(t)
	target := openTarget(t, dsn)
	if err := target.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return bundle{Target: target, dsn: dsn}
}

func openTarget(t testing.TB, dsn string) *Target {
	t.Helper()
	target, err := Open(dsn, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := target.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return target
}

// exec runs a statement of the team's, or of the test's own.
func (b bundle) exec(t testing.TB, query string, args ...any) {
	t.Helper()
	if _, err := b.DB().ExecContext(t.Context(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func (b bundle) apply(t testing.TB, step order.Step) order.Result {
	t.Helper()
	result, err := b.Apply(t.Context(), step)
	if err != nil {
		t.Fatalf("apply %s: %v", step.Event.Name(), err)
	}
	return result
}

// counts are the rows in orders, invoices and order_events.
func (b bundle) counts(t testing.TB) [3]int64 {
	t.Helper()
	c, err := b.Counts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return [3]int64{c.Orders, c.Invoices, c.Events}
}

func (b bundle) wantCounts(t testing.TB, orders, invoices, events int64) {
	t.Helper()
	if got, want := b.counts(t), [...]int64{orders, invoices, events}; got != want {
		t.Errorf("orders, invoices, events: got %d, want %d", got, want)
	}
}

var offsets atomic.Int64

// event is a new event, its data telling it from every other. Version 0 is none.
func event(syncID string, kind order.Kind, version int64) order.Event {
	offset := offsets.Add(1)
	received := time.Date(2026, 3, 29, 1, 30, 0, 123_000_000, time.UTC)
	return order.Event{
		SyncID: syncID, ID: uuid.New(), Kind: kind, Version: version,
		Data:       json.RawMessage(`{"n":` + strconv.FormatInt(offset, 10) + `}`),
		OccurredAt: received.Add(-time.Hour - 877*time.Microsecond),
		Channel:    order.Online,
		Source:     order.Source{Topic: "online", Partition: 3, Offset: offset, ReceivedAt: received},
	}
}

func step(syncID string, kind order.Kind, version int64) order.Step {
	return order.Step{Event: event(syncID, kind, version)}
}

// sameJSON compares by meaning: MySQL normalises what it stores.
func sameJSON(t testing.TB, got, want json.RawMessage) bool {
	t.Helper()
	return normal(t, got) == normal(t, want)
}

func normal(t testing.TB, raw json.RawMessage) string {
	t.Helper()
	var value any
	if err := json.Unmarshal(raw, &value); err != nil {
		t.Fatalf("%s: %v", raw, err)
	}
	out, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}
