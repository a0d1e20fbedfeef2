package main

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"ordersync/activities"
	"ordersync/internal/connect"
	"ordersync/internal/devstack/devtest"
	"ordersync/internal/order"
	"ordersync/internal/target"
	"ordersync/internal/telemetry"
	"ordersync/workflows"
)

// findings is a Reconciler that has found what it is told, once it may say so.
type findings struct {
	mu    sync.Mutex
	found order.Reconciliation
	wait  chan struct{}
}

func (f *findings) Reconcile(ctx context.Context, at order.Walk, progress func(order.Walk)) (order.Reconciliation, error) {
	at.Stage, at.Cursor, at.Expected = order.ListsERP, "5", 20
	at.Found.ERPOrders = 5
	progress(at)
	f.mu.Lock()
	found, wait := f.found, f.wait
	f.mu.Unlock()
	select {
	case <-wait:
	case <-ctx.Done():
		return at.Found, ctx.Err()
	case <-time.After(time.Second):
		return at.Found, errors.New("connection refused") // the next attempt may find another channel
	}
	found.RunID, found.By, found.Repair, found.StartedAt = at.Found.RunID, at.Found.By, at.Found.Repair, at.Found.StartedAt
	found.FinishedAt = found.StartedAt.Add(1234 * time.Millisecond)
	return found, nil
}

// ends tells every class.
func ends() order.Reconciliation {
	event := uuid.New()
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	f := order.Reconciliation{ERPOrders: 10, TargetOrders: 9, Agreeing: 4, Rejected: 1, FirstRejected: `order "x": missing-field: no data`, Counts: map[order.Drift]int64{}}
	for i, class := range order.Drifts {
		f.Counts[class] = 1
		f.Findings = append(f.Findings, order.Finding{SyncID: string(rune('1' + i)), Class: class, Channel: order.Online, ERPVersion: 2, TargetVersion: int64(i), ChangedAt: at})
	}
	f.Findings[0].Repair = &event
	f.Findings[1].Why = "not repaired: too large"
	f.Findings[6].Why = "its workflow is blocked: CheckViolated"
	f.Repaired = 1
	return f
}

func TestReconcileCommand(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a Temporal server")
	}
	environ := map[string]string{"TEMPORAL_ADDRESS": devtest.Temporal(t), "TEMPORAL_TASK_QUEUE": devtest.Name(t, "queue")}
	reconciled := func(args ...string) result {
		return call(t.Context(), environ, "", append([]string{"reconcile", "--by", "support@shop"}, args...)...)
	}
	require.ErrorContains(t, reconciled("--last").err, "no reconcile has come to its end yet")

	temporal, err := connect.Temporal(t.Context(), client.Options{
		HostPort: environ["TEMPORAL_ADDRESS"], DataConverter: workflows.DataConverter(), Logger: telemetry.SDKLogger(slog.New(slog.DiscardHandler)),
	})
	require.NoError(t, err)
	defer temporal.Close()
	both := &findings{wait: make(chan struct{})}
	queue := environ["TEMPORAL_TASK_QUEUE"]
	decides, acts := worker.New(temporal, queue, worker.Options{}), worker.New(temporal, workflows.ERPTaskQueue(queue), worker.Options{})
	decides.RegisterWorkflowWithOptions(workflows.Reconcile, workflow.RegisterOptions{Name: workflows.ReconcileName})
	acts.RegisterActivity(activities.NewReconciliation(both))
	for _, w := range []worker.Worker{decides, acts} {
		require.NoError(t, w.Start())
		defer w.Stop()
	}
	set := func(f order.Reconciliation, wait chan struct{}) {
		both.mu.Lock()
		defer both.mu.Unlock()
		both.found, both.wait = f, wait
	}
	open := make(chan struct{})
	close(open)

	// Started and left alone, joined, not turned into a repair, interrupted.
	set(order.Reconciliation{Agreeing: 10, Counts: map[order.Drift]int64{}, Findings: []order.Finding{}}, make(chan struct{}))
	r := reconciled("--follow=false")
	require.NoError(t, r.err)
	require.Contains(t, r.stdout, "it runs as workflow ordersync-reconcile; follow it: ordersync reconcile")
	devtest.Eventually(t, 20*time.Second, func() error {
		if err := reconciled("--repair").err; !strings.Contains(err.Error(), "one without --repair is under way since") {
			return err
		}
		return nil
	}, "visibility knows the run")
	require.ErrorContains(t, whenInterrupted(t, environ, "joined the one that is under way", "reconcile"), "it goes on: ordersync reconcile follows it again")
	set(order.Reconciliation{Agreeing: 10, ERPOrders: 10, TargetOrders: 10, Counts: map[order.Drift]int64{}, Findings: []order.Finding{}}, open)
	r = reconciled()
	require.NoError(t, r.err, r.stderr)
	require.Contains(t, r.stdout, "10      agreeing")

	// No drift, but who knows of what was not compared.
	set(order.Reconciliation{Agreeing: 10, ERPOrders: 10, TargetOrders: 10, Rejected: 2, FirstRejected: `order "x": no data`, Counts: map[order.Drift]int64{}, Findings: []order.Finding{}}, open)
	r = reconciled()
	require.EqualError(t, r.err, `2 rows of the ERP are no orders and were not compared, the first: order "x": no data; mend them there, or what lists its orders, then compare again: ordersync reconcile`)

	// Drift: a table, JSON, a failure that says what to do.
	set(ends(), open)
	r = reconciled("--repair")
	require.ErrorContains(t, r.err, "4 orders drifted that no repair mends")
	require.ErrorContains(t, r.err, `1 rows of the ERP are no orders and were not compared, the first: order "x": missing-field: no data; mend them there`)
	for _, line := range []string{
		"compared 10 orders of the ERP with 9 of the shop's",
		"ORDER  CLASS       CHANNEL  ERP  SHOP  ERP TIME              WHAT TO DO",
		"1      missing     online   v2   -     2026-01-02T03:04:05Z  repaired; see ordersync order 1",
		"2      stale       online   v2   v1    2026-01-02T03:04:05Z  not repaired: too large",
		"3      different   online   v2   v2    2026-01-02T03:04:05Z  ordersync reconcile --repair",
		"4      amended ", "5      ahead   ", "6      extra   ",
		"7      on_its_way  online   v2   v6    2026-01-02T03:04:05Z  its workflow is blocked: CheckViolated; see ordersync order 7",
		`1       unreadable  rows of the ERP that are no orders, the first: order "x": missing-field: no data`,
	} {
		assert.Contains(t, r.stdout, line)
	}
	assert.Contains(t, r.stderr, "1 repairs are published; follow them: ordersync wait, then compare again: ordersync reconcile")
	unrepaired := ends()
	unrepaired.Repaired, unrepaired.Findings[0].Repair = 0, nil
	set(unrepaired, open)
	r = reconciled("-o", "json", "--page-size", "7")
	require.ErrorContains(t, r.err, "5 orders drifted; to repair 3 of them: ordersync reconcile --repair")
	var report workflows.ReconcileReport
	require.NoError(t, json.Unmarshal([]byte(r.stdout), &report))
	require.Len(t, report.Findings, 7)
	require.Equal(t, "support@shop", report.By)
	devtest.Eventually(t, 20*time.Second, func() error {
		last := reconciled("--last", "-o", "json")
		if last.stdout != r.stdout {
			return errors.New(last.stdout)
		}
		require.Equal(t, r.err, last.err)
		return nil
	}, "the last report is the last one")
	r = reconciled("--last", "--limit", "2")
	require.Contains(t, r.stdout, "… and 5 more: raise --limit (7 are kept in detail)")
}

// The order's timeline names an event that a reconcile has published.
func TestOrderNamesItsRepair(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a Temporal server")
	}
	environ := map[string]string{
		"KAFKA_BROKERS": strings.Join(devtest.KafkaEmbedded(t).Brokers(), ","), "TEMPORAL_ADDRESS": devtest.Temporal(t), "MYSQL_DSN": devtest.MySQL(t),
	}
	require.NoError(t, call(t.Context(), environ, "", "setup").err)
	shop, err := target.Open(environ["MYSQL_DSN"], target.Options{Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	defer shop.Close()
	id := devtest.Name(t, "order")
	for version, kind := range []order.Kind{order.Creation, order.Update} {
		e := order.Event{SyncID: id, ID: uuid.New(), Kind: kind, Version: int64(version + 1), Data: json.RawMessage(`1`), Channel: order.Online}
		e.OccurredAt = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
		e.Source = order.Source{Topic: "online", ReceivedAt: e.OccurredAt}
		_, err := shop.Apply(t.Context(), order.Step{Event: e})
		require.NoError(t, err)
		if kind == order.Update {
			require.NoError(t, shop.RecordAction(t.Context(), order.Action{ID: uuid.New(), SyncID: id, Name: order.RepairAction, EventID: &e.ID, By: "support@shop", At: e.OccurredAt}))
		}
	}
	r := call(t.Context(), environ, "", "order", id)
	require.NoError(t, r.err)
	assert.Contains(t, r.stdout, "order_updation v2 (repair)")
	assert.Contains(t, r.stdout, "order_creation v1  ")
	var view orderView
	call(t.Context(), environ, "", "order", id, "-o", "json").decode(t, &view)
	require.Len(t, view.Timeline, 2)
	assert.True(t, view.Timeline[1].Repair)
	assert.False(t, view.Timeline[0].Repair)
}
