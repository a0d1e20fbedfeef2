package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ordersync/internal/devstack/devtest"
	"ordersync/internal/erpsim"
	"ordersync/internal/order"
	"ordersync/internal/schedule"
	"ordersync/internal/simulate"
)

// The way from the ERP on: orders grow in an ERP that commits late, tells changes twice and in the wrong
// order, and is away twice; the worker that polls it is killed, the second time while it waits for the
// ERP. After the last poll the target is what the ERP's events come to, and a comparison of both ends
// says so. A hundred rows are then tampered with, found, repaired, and found clean.
func TestFromTheERP(t *testing.T) {
	const overlap = 5 * time.Second // longer than anything is late
	n, limit := sized(1500), 3*time.Minute
	if os.Getenv("ORDERSYNC_E2E_LONG") != "" {
		n, limit = 20_000, 20*time.Minute
	}
	s := seed(t)
	events, err := erpsim.Orders(s, n, simulate.Options{})
	require.NoError(t, err)
	erp, err := erpsim.New(erpsim.Options{Events: events, Seed: s, Faults: erpsim.Usual, Token: "secret"})
	require.NoError(t, err)
	require.NoError(t, erp.Listen("127.0.0.1:0"))
	t.Cleanup(func() { require.NoError(t, erp.Close()) })

	b := setup(t, "ERP_SOURCE=http", "ERP_URL="+erp.URL(), "ERP_TOKEN=secret",
		"ERP_OVERLAP="+overlap.String(), "ERP_POLL_INTERVAL=1s", "ERP_PAGE_SIZE=200")
	worker := start(t, b.environ, "worker")
	start(t, b.environ, "starter").awaitReady()
	worker.awaitReady()
	_, err = b.command("schedule", "apply")
	require.NoError(t, err)

	restart := func() {
		worker.kill()
		worker = start(t, b.environ, "worker")
		worker.awaitReady()
	}
	changes := erp.Progress().ToCome
	tell := func(share float64) { // with the pipeline at work meanwhile
		devtest.Eventually(t, limit, func() error {
			if p := erp.Progress(); float64(p.Told) < share*float64(changes) {
				erp.Advance(5)
				return fmt.Errorf("%d of %d changes", p.Told, changes)
			}
			return nil
		}, fmt.Sprintf("%.0f %% is told", 100*share))
	}
	tell(0.25)
	restart()
	tell(0.4)
	require.NoError(t, erp.Down(erpsim.Busy))
	tell(0.55)
	b.awaitAttempt(3)
	restart()
	require.NoError(t, erp.Up())
	tell(0.7)
	require.NoError(t, erp.Down(erpsim.Refusing))
	tell(0.85)
	b.awaitAttempt(3)
	require.NoError(t, erp.Up())
	tell(1)

	b.awaitPolled(erp.Progress().At, limit)
	summary := b.settle(limit)
	t.Logf("%d changes of %d orders: %d events published, %d of them twice, %d stale; p99 %d ms", changes, n, summary.Events, summary.Duplicates, summary.Stale, summary.P99)
	require.NotZero(t, erp.Progress().Refused)
	require.Empty(t, b.deadLetters())
	want := erp.Model()
	require.Len(t, want.Orders, n)
	got, err := simulate.ReadTarget(t.Context(), b.target.DB())
	require.NoError(t, err)
	require.Empty(t, simulate.Compare(want, got))
	b.requireAppliedOnce()
	b.requireCommitted()

	// What was changed so long ago that the polls are through with it cannot be on its way.
	b.awaitPolled(erp.Progress().At.Add(overlap), limit)
	report := b.reconcile(true)
	require.EqualValues(t, n, report.Agreeing)
	require.EqualValues(t, n, report.ERPOrders)
	require.EqualValues(t, n, report.TargetOrders)

	tampered := b.tamper(want.Orders, min(100, n/10))
	require.Equal(t, tampered, found(b.reconcile(false)))
	report = b.reconcile(true, "--repair")
	require.Equal(t, tampered, found(report))
	require.EqualValues(t, len(tampered), report.Repaired)
	b.settle(limit)
	report = b.reconcile(true)
	require.EqualValues(t, n, report.Agreeing)
	require.Empty(t, report.Findings)
	got, err = simulate.ReadTarget(t.Context(), b.target.DB())
	require.NoError(t, err)
	require.Len(t, got.Ledger, len(want.Ledger)+len(tampered), "a repair is an event")
	got.Ledger = want.Ledger
	require.Empty(t, simulate.Compare(want, got))
}

// awaitAttempt waits until the poll under way is at its nth attempt, which anybody can see.
func (b *bundle) awaitAttempt(n int) {
	b.Helper()
	devtest.Eventually(b, 2*time.Minute, func() error {
		poll, err := schedule.Describe(b.Context(), b.temporal, schedule.Poll)
		switch {
		case err != nil:
			return err
		case poll.Running == nil || poll.Running.Attempt < n || poll.Running.Error == "":
			return fmt.Errorf("%+v", poll.Running)
		default:
			return nil
		}
	}, fmt.Sprintf("the poll is at attempt %d", n))
}

// awaitPolled waits for a poll that has read to the end after a time.
func (b *bundle) awaitPolled(at time.Time, limit time.Duration) {
	b.Helper()
	devtest.Eventually(b, limit, func() error {
		last, ok, err := schedule.LastPoll(b.Context(), b.temporal)
		switch {
		case err != nil:
			return err
		case !ok:
			return errors.New("no poll has come through")
		case !last.ReadUntil.After(at):
			return fmt.Errorf("%+v", last)
		default:
			return nil
		}
	}, "a poll reads to the end after "+at.Format(time.RFC3339Nano))
}

// reconcile runs the command, which fails where it finds what nobody has repaired.
func (b *bundle) reconcile(clean bool, flags ...string) order.Reconciliation {
	b.Helper()
	out, err := b.command(append([]string{"reconcile", "-o", "json"}, flags...)...)
	var report order.Reconciliation
	if clean {
		require.NoError(b, err, "%s", out)
	} else {
		require.ErrorContains(b, err, "orders drifted")
	}
	require.NoError(b, json.Unmarshal(out, &report), "%s", out)
	return report
}

func found(r order.Reconciliation) map[string]order.Drift {
	classes := map[string]order.Drift{}
	for _, f := range r.Findings {
		classes[f.SyncID] = f.Class
	}
	return classes
}

// tamper changes n rows of the target, all in ways that a repair mends, and tells what they are now.
func (b *bundle) tamper(orders map[string]simulate.Row, n int) map[string]order.Drift {
	b.Helper()
	tampered := map[string]order.Drift{}
	ids := slices.Sorted(maps.Keys(orders))
	for i := range n {
		id := ids[i*len(ids)/n] // of every age
		class, statement := order.DriftDifferent, "UPDATE orders SET data = JSON_SET(data, '$.country', 'Atlantis') WHERE sync_id = ?"
		switch {
		case i%4 == 0:
			class, statement = order.DriftMissing, "DELETE FROM orders WHERE sync_id = ?"
		case i%4 == 1 && orders[id].Version > 1:
			class, statement = order.DriftStale, "UPDATE orders SET version = 1, data = '{}' WHERE sync_id = ?"
		case i%4 == 2:
			statement = "UPDATE orders SET version = NULL, data = '\"gone\"' WHERE sync_id = ?"
		}
		result, err := b.target.DB().ExecContext(b.Context(), statement, id)
		require.NoError(b, err)
		rows, err := result.RowsAffected()
		require.NoError(b, err)
		require.EqualValues(b, 1, rows)
		tampered[id] = class
	}
	return tampered
}
