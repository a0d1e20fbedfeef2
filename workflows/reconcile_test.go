package workflows_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"ordersync/activities"
	"ordersync/internal/connect"
	"ordersync/internal/devstack/devtest"
	"ordersync/internal/order"
	"ordersync/internal/telemetry"
	"ordersync/workflows"
)

// walker is the Reconciler of a test: a say for the test in each attempt.
type walker struct {
	attempts []order.Walk
	attempt  func(ctx context.Context, nth int, at order.Walk, progress func(order.Walk)) (order.Reconciliation, error)
}

func (w *walker) Reconcile(ctx context.Context, at order.Walk, progress func(order.Walk)) (order.Reconciliation, error) {
	w.attempts = append(w.attempts, at)
	return w.attempt(ctx, len(w.attempts), at, progress)
}

func reconcileEnv(t *testing.T, r activities.Reconciler) *testsuite.TestWorkflowEnvironment {
	t.Helper()
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestWorkflowEnvironment()
	env.SetWorkerOptions(worker.Options{})
	env.RegisterWorkflowWithOptions(workflows.Reconcile, workflow.RegisterOptions{Name: workflows.ReconcileName})
	env.RegisterActivity(activities.NewReconciliation(r))
	return env
}

// `temporal activity complete --result null` is no comparison: a report without findings would say that both
// ends agree.
func TestAReportGivenByHandIsNone(t *testing.T) {
	w := &walker{attempt: func(_ context.Context, nth int, at order.Walk, _ func(order.Walk)) (order.Reconciliation, error) {
		if nth == 1 {
			return order.Reconciliation{}, nil
		}
		at.Found.Counts = map[order.Drift]int64{order.DriftStale: 2}
		return at.Found, nil
	}}
	env := reconcileEnv(t, w)
	env.ExecuteWorkflow(workflows.ReconcileName, workflows.ReconcileInput{})
	require.NoError(t, env.GetWorkflowError())
	var report workflows.ReconcileReport
	require.NoError(t, env.GetWorkflowResult(&report))
	require.EqualValues(t, 2, report.Drifted())
	require.Len(t, w.attempts, 2)
}

func TestReconcile(t *testing.T) {
	w := &walker{attempt: func(_ context.Context, _ int, at order.Walk, _ func(order.Walk)) (order.Reconciliation, error) {
		at.Found.Counts = map[order.Drift]int64{order.DriftStale: 2}
		at.Found.Repaired = 1
		return at.Found, nil
	}}
	env := reconcileEnv(t, w)
	env.ExecuteWorkflow(workflows.ReconcileName, workflows.ReconcileInput{Repair: true, PageSize: 7, By: "support@shop"})
	require.NoError(t, env.GetWorkflowError())
	var report workflows.ReconcileReport
	require.NoError(t, env.GetWorkflowResult(&report))
	require.EqualValues(t, 2, report.Drifted())
	require.EqualValues(t, 1, report.Unrepaired())
	require.Len(t, w.attempts, 1)
	at := w.attempts[0]
	require.Equal(t, 7, at.PageSize)
	require.True(t, at.Found.Repair)
	require.Equal(t, "support@shop", at.Found.By)
	require.NotEmpty(t, at.Found.RunID)
	require.False(t, at.Found.StartedAt.IsZero())
	require.Empty(t, at.Stage)
}

func TestReconcileIsTriedWithoutEndAndNotSoonerThanTheERPSays(t *testing.T) {
	const outage = 9 // the suite ends what has no end at the tenth attempt
	var env *testsuite.TestWorkflowEnvironment
	var began time.Time
	w := &walker{attempt: func(_ context.Context, nth int, at order.Walk, _ func(order.Walk)) (order.Reconciliation, error) {
		switch {
		case nth == 1:
			began = env.Now()
			return order.Reconciliation{}, askAgain{2 * time.Hour}
		case nth == 2 && env.Now().Sub(began) < 2*time.Hour:
			return order.Reconciliation{}, errors.New("too soon")
		case nth <= outage:
			return order.Reconciliation{}, errors.New("connection refused")
		}
		return at.Found, nil
	}}
	env = reconcileEnv(t, w)
	env.SetTestTimeout(time.Minute)
	env.ExecuteWorkflow(workflows.ReconcileName, workflows.ReconcileInput{})
	require.NoError(t, env.GetWorkflowError())
	require.Len(t, w.attempts, outage+1)
	require.Equal(t, "schedule ordersync-reconcile", w.attempts[0].Found.By)
	took := env.Now().Sub(began)
	require.GreaterOrEqual(t, took, 2*time.Hour)
	require.LessOrEqual(t, took, 2*time.Hour+(outage+1)*time.Minute, "a minute apart at most")
}

type askAgain struct{ after time.Duration }

func (askAgain) Error() string               { return "429 Too Many Requests" }
func (a askAgain) RetryAfter() time.Duration { return a.after }

// An attempt goes on where the heartbeats of the one before it tell, and tells so itself.
func TestCompareOrdersGoesOn(t *testing.T) {
	reached := order.Walk{Stage: order.ListsTarget, Cursor: "42", PageSize: 5, Found: order.Reconciliation{
		RunID: uuid.NewString(), ERPOrders: 10, Counts: map[order.Drift]int64{order.DriftExtra: 1}, Findings: []order.Finding{{SyncID: "7", Class: order.DriftExtra}},
	}}
	further := reached
	further.Cursor = "50"
	w := &walker{attempt: func(_ context.Context, _ int, _ order.Walk, progress func(order.Walk)) (order.Reconciliation, error) {
		progress(further)
		return order.Reconciliation{}, errors.New("connection refused")
	}}
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	a := activities.NewReconciliation(w)
	env.RegisterActivity(a)
	env.SetHeartbeatDetails(reached)
	var beats []order.Walk
	env.SetOnActivityHeartbeatListener(func(_ *activity.Info, details converter.EncodedValues) {
		var at order.Walk
		if details.Get(&at) == nil {
			beats = append(beats, at)
		}
	})
	_, err := env.ExecuteActivity(a.CompareOrders, order.Walk{PageSize: 5})
	require.ErrorContains(t, err, "connection refused")
	require.Equal(t, []order.Walk{reached}, w.attempts)
	require.NotEmpty(t, beats)
	require.Equal(t, further, beats[len(beats)-1])
}

// A worker that is about to stop hands the walk to another, which goes on where it got to, on a server.
func TestServerReconcileMovesToAnotherWorker(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a Temporal server")
	}
	temporal, err := connect.Temporal(t.Context(), client.Options{
		HostPort: devtest.Temporal(t), DataConverter: workflows.DataConverter(), Logger: telemetry.SDKLogger(slog.New(slog.DiscardHandler)),
	})
	require.NoError(t, err)
	defer temporal.Close()
	queue := devtest.Name(t, "queue")
	decides := worker.New(temporal, queue, worker.Options{})
	decides.RegisterWorkflowWithOptions(workflows.Reconcile, workflow.RegisterOptions{Name: workflows.ReconcileName})
	require.NoError(t, decides.Start())
	defer decides.Stop()
	startActing := func(w *walker) worker.Worker {
		acts := worker.New(temporal, workflows.ERPTaskQueue(queue), worker.Options{WorkerStopTimeout: 5 * time.Second})
		acts.RegisterActivity(activities.NewReconciliation(w))
		require.NoError(t, acts.Start())
		return acts
	}
	walking := make(chan struct{})
	first := &walker{attempt: func(ctx context.Context, _ int, at order.Walk, progress func(order.Walk)) (order.Reconciliation, error) {
		at.Stage, at.Cursor = order.ListsTarget, "42"
		progress(at)
		close(walking)
		<-ctx.Done()
		return order.Reconciliation{}, ctx.Err()
	}}
	acts := startActing(first)
	run, err := temporal.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: queue, TaskQueue: queue}, workflows.ReconcileName, workflows.ReconcileInput{})
	require.NoError(t, err)
	<-walking
	began := time.Now()
	acts.Stop()
	second := &walker{attempt: func(_ context.Context, _ int, at order.Walk, _ func(order.Walk)) (order.Reconciliation, error) {
		at.Found.Agreeing = 7
		return at.Found, nil
	}}
	defer startActing(second).Stop()
	var report workflows.ReconcileReport
	require.NoError(t, run.Get(t.Context(), &report))
	require.EqualValues(t, 7, report.Agreeing)
	require.Len(t, second.attempts, 1)
	require.Equal(t, "42", second.attempts[0].Cursor)
	require.Less(t, time.Since(began), 20*time.Second, "before the heartbeats' time-out")
}

// Somebody cancels the run: the walk ends, and so does the run.
func TestReconcileCancelled(t *testing.T) {
	w := &walker{attempt: func(ctx context.Context, _ int, _ order.Walk, _ func(order.Walk)) (order.Reconciliation, error) {
		<-ctx.Done()
		return order.Reconciliation{}, ctx.Err()
	}}
	env := reconcileEnv(t, w)
	env.SetTestTimeout(30 * time.Second)
	env.RegisterDelayedCallback(env.CancelWorkflow, time.Second)
	env.ExecuteWorkflow(workflows.ReconcileName, workflows.ReconcileInput{})
	require.True(t, env.IsWorkflowCompleted())
	require.ErrorContains(t, env.GetWorkflowError(), "canceled")
}
