package operator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
	"google.golang.org/grpc"

	"ordersync/internal/devstack/devtest"
	"ordersync/internal/order"
	"ordersync/internal/target"
	"ordersync/workflows"
)

// watched is a Watch over servers, and a worker whose OrderSync does as a test says.
type watched struct {
	*Watch
	t        *testing.T
	registry *prometheus.Registry
	log      *lockedText
	// mended lets the tasks of runs go on that panicked before.
	mended atomic.Bool
}

type lockedText struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lockedText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func watch(t *testing.T) *watched {
	t.Helper()
	w := &watched{t: t, registry: prometheus.NewRegistry(), log: &lockedText{}}
	tasks := NewTasks()
	c, err := client.Dial(client.Options{
		HostPort: devtest.Temporal(t), DataConverter: workflows.DataConverter(), Logger: slog.New(slog.DiscardHandler),
		ConnectionOptions: client.ConnectionOptions{DialOptions: []grpc.DialOption{grpc.WithChainUnaryInterceptor(tasks.Intercept)}},
	})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	shop, err := target.Open(devtest.MySQL(t), target.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { _ = shop.Close() })
	require.NoError(t, shop.Migrate(t.Context()))
	queue := devtest.Name(t, "queue")
	w.Watch = NewWatch(WatchOptions{Temporal: c, TaskQueue: queue, Target: shop, Tasks: tasks, Registerer: w.registry, Logger: slog.New(slog.NewTextHandler(w.log, nil))})

	runs := worker.New(c, queue, worker.Options{})
	runs.RegisterWorkflowWithOptions(func(ctx workflow.Context, in workflows.Input) error {
		switch kind, _, _ := strings.Cut(in.SyncID, "-"); {
		case kind == "fails":
			return temporal.NewApplicationError("the data is nested too deep", "Test")
		case kind == "panics" && !w.mended.Load():
			panic("nobody thought of this")
		case kind == "ends":
			return nil
		}
		workflow.GetSignalChannel(ctx, "end").Receive(ctx, nil)
		return nil
	}, workflow.RegisterOptions{Name: workflows.OrderSyncName})
	require.NoError(t, runs.Start())
	t.Cleanup(runs.Stop)
	return w
}

func (w *watched) start(kind string, options client.StartWorkflowOptions, rules int, events ...order.Event) client.WorkflowRun {
	w.t.Helper()
	id := w.id(kind)
	options.ID, options.TaskQueue, options.WorkflowTaskTimeout = workflows.WorkflowID(id), w.TaskQueue, 2*time.Second
	options.TypedSearchAttributes = temporal.NewSearchAttributes(workflows.Channel.ValueSet("store"))
	run, err := w.Temporal.ExecuteWorkflow(w.t.Context(), options, workflows.OrderSyncName,
		workflows.Input{SyncID: id, Settings: workflows.Settings{Rules: rules}, Events: events})
	require.NoError(w.t, err)
	return run
}

// id is an order of this test alone.
func (w *watched) id(kind string) string { return kind + "-" + w.TaskQueue[len(w.TaskQueue)-20:] }

func (w *watched) signal(kind string, events ...order.Event) {
	w.t.Helper()
	require.NoError(w.t, w.Temporal.SignalWorkflow(w.t.Context(), workflows.WorkflowID(w.id(kind)), "", workflows.SignalEvents, workflows.Batch{Events: events}))
}

func (w *watched) event(kind string, k order.Kind, version int64) order.Event {
	id := w.id(kind)
	return order.Event{
		SyncID: id, ID: uuid.NewSHA1(uuid.Nil, fmt.Append(nil, id, version)), Kind: k, Version: version, Channel: "store", Data: json.RawMessage(`1`),
		OccurredAt: time.Date(2026, 3, 1, 0, 0, int(version), 0, time.UTC), Source: order.Source{Topic: "store", ReceivedAt: time.Now().UTC()},
	}
}

func (w *watched) apply(e order.Event) {
	w.t.Helper()
	_, err := w.Target.Apply(w.t.Context(), order.Step{Event: e, InsertMissing: true})
	require.NoError(w.t, err)
}

// await looks until the unwell runs of an order are as wanted.
func (w *watched) await(kind, what string, want func([]order.UnwellRun) bool) []order.UnwellRun {
	w.t.Helper()
	var runs []order.UnwellRun
	devtest.Eventually(w.t, time.Minute, func() error {
		if err := w.look(w.t.Context()); err != nil {
			return err
		}
		var err error
		if runs, err = w.Target.UnwellOf(w.t.Context(), w.id(kind)); err == nil && !want(runs) {
			err = fmt.Errorf("%+v\n%s", runs, w.log)
		}
		return err
	}, what)
	return runs
}

func (w *watched) action(kind, name string) order.Action {
	w.t.Helper()
	var found order.Action
	devtest.Eventually(w.t, time.Minute, func() error {
		if err := w.look(w.t.Context()); err != nil {
			return err
		}
		actions, err := w.Target.Actions(w.t.Context(), w.id(kind))
		for _, a := range actions {
			if a.Name == name {
				found = a
				return nil
			}
		}
		return errors.Join(errors.New("it is not"), err)
	}, kind+": "+name+" is in the audit")
	return found
}

func one(trouble order.Trouble, lacking int) func([]order.UnwellRun) bool {
	return func(runs []order.UnwellRun) bool {
		return len(runs) == 1 && runs[0].Trouble == trouble && runs[0].LackingCount == lacking
	}
}

func none(runs []order.UnwellRun) bool { return len(runs) == 0 }

// Runs that ended without completing are shown as long as the ledger lacks what they held, and the audit has
// who ended them.
func TestEndedRuns(t *testing.T) {
	w := watch(t)
	// A run that failed by itself.
	first, second := w.event("fails", order.Creation, 1), w.event("fails", order.Update, 2)
	w.start("fails", client.StartWorkflowOptions{}, workflows.Rules, first, second)
	run := w.await("fails", "a failed run is noted", one(order.RunFailed, 2))[0]
	assert.Equal(t, "the data is nested too deep", run.Reason)
	assert.Equal(t, "store", run.Channel)
	assert.Equal(t, first.OccurredAt, run.Oldest())
	assert.Equal(t, order.Update, run.Lacking[1].Kind)
	failed := w.action("fails", "fail")
	assert.Equal(t, itself, failed.By)
	assert.Contains(t, failed.Effect, "2 events that the shop's database lacks, order_creation v1 first: ordersync replay --order "+w.id("fails"))
	assert.Contains(t, w.log.String(), "an order's workflow failed")
	assert.EqualValues(t, 1, testutil.ToFloat64(w.unwell.WithLabelValues(string(order.RunFailed))))
	assert.Positive(t, testutil.ToFloat64(w.since.WithLabelValues(string(order.RunFailed))))
	assert.Zero(t, testutil.ToFloat64(w.unwell.WithLabelValues(string(order.TasksFail))), "there from the beginning")

	// It is settled when all of its events have arrived, and not when some have.
	w.apply(first)
	require.NoError(t, w.look(t.Context()))
	w.await("fails", "one is missing still", one(order.RunFailed, 2))
	w.apply(second)
	w.await("fails", "all have arrived", none)
	assert.Zero(t, testutil.ToFloat64(w.unwell.WithLabelValues(string(order.RunFailed))))

	// One that timed out, with an event that came by a signal, and of which one is in the ledger.
	w.start("timesout", client.StartWorkflowOptions{WorkflowRunTimeout: 3 * time.Second}, workflows.Rules, w.event("timesout", order.Creation, 1))
	w.signal("timesout", w.event("timesout", order.Update, 2))
	w.apply(w.event("timesout", order.Creation, 1))
	run = w.await("timesout", "a run that timed out is noted", one(order.RunTimedOut, 1))[0]
	assert.Equal(t, order.Update, run.Lacking[0].Kind)
	w.action("timesout", "time-out")

	// One that somebody terminated, and one with nothing left: that is in the audit only.
	for _, kind := range []string{"holds", "idle"} {
		w.start(kind, client.StartWorkflowOptions{}, workflows.Rules, w.event(kind, order.Creation, 1))
	}
	w.apply(w.event("idle", order.Creation, 1))
	for _, kind := range []string{"holds", "idle"} {
		require.NoError(t, w.Temporal.TerminateWorkflow(t.Context(), workflows.WorkflowID(w.id(kind)), "", "by mistake"))
	}
	w.await("holds", "a terminated run is noted", one(order.RunTerminated, 1))
	assert.Equal(t, "by mistake", w.action("holds", "terminate").Reason)
	assert.Contains(t, w.action("idle", "terminate").Effect, "nothing that it held is missing")
	w.await("idle", "nothing is missing", none)

	// A replay of the order settles what ended before it, and nothing that ends later.
	n, err := w.Target.SettleEnded(t.Context(), w.id("holds"), run.Since)
	require.NoError(t, err)
	assert.Zero(t, n, "it ended later")
	n, err = w.Target.SettleEnded(t.Context(), w.id("holds"), time.Now().Add(time.Hour))
	require.NoError(t, err)
	assert.EqualValues(t, 1, n)
	require.NoError(t, w.look(t.Context()))
	w.await("holds", "it is not noted again", none)
}

// A run whose input cannot be read may have held anything: only a replay settles it.
func TestEndedRunOfWhichNothingIsKnown(t *testing.T) {
	w := watch(t)
	_, err := w.Temporal.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: workflows.WorkflowID(w.id("odd")), TaskQueue: w.TaskQueue},
		workflows.OrderSyncName, "no input")
	require.NoError(t, err)
	require.NoError(t, w.Temporal.TerminateWorkflow(t.Context(), workflows.WorkflowID(w.id("odd")), "", "odd"))
	w.await("odd", "it is noted", one(order.RunTerminated, -1))
	require.NoError(t, w.look(t.Context()))
	w.await("odd", "it stays", one(order.RunTerminated, -1))
	assert.Contains(t, w.action("odd", "terminate").Effect, "could not be read")
}

// Runs whose workflow tasks fail are shown while they do, whatever the server can list.
func TestRunsWhoseTasksFail(t *testing.T) {
	w := watch(t)
	w.start("panics", client.StartWorkflowOptions{}, workflows.Rules, w.event("panics", order.Creation, 1))
	w.start("well", client.StartWorkflowOptions{}, workflows.Rules, w.event("well", order.Creation, 1))
	run := w.await("panics", "its tasks fail", one(order.TasksFail, 1))[0]
	assert.Contains(t, run.Reason, "nobody thought of this")
	assert.EqualValues(t, 1, testutil.ToFloat64(w.unwell.WithLabelValues(string(order.TasksFail))))
	assert.Contains(t, w.log.String(), "the workflow tasks of an order fail")
	w.await("well", "the other is well", none)
	_, err := State(t.Context(), w.Temporal, w.id("panics"))
	require.ErrorIs(t, err, ErrTasksFail)
	require.ErrorIs(t, err, ErrNoWorker)

	w.mended.Store(true)
	w.await("panics", "its tasks work again", none)
}

// A worker says so where it knows the rules of none of the runs it gets, and not for one broken order.
func TestRulesOfRuns(t *testing.T) {
	w := watch(t)
	require.NoError(t, w.Tasks.Ready(), "it has got none yet")
	w.start("later", client.StartWorkflowOptions{}, workflows.Rules+1)
	devtest.Eventually(t, time.Minute, func() error {
		if err := w.Tasks.Ready(); err == nil {
			return errors.New("it is ready")
		}
		return nil
	}, "it knows the rules of none")
	require.ErrorContains(t, w.Tasks.Ready(), fmt.Sprintf("rules %d, and this worker knows %d to %d", workflows.Rules+1, workflows.OldestRules, workflows.Rules))
	w.start("ends", client.StartWorkflowOptions{}, workflows.Rules)
	devtest.Eventually(t, time.Minute, func() error { return w.Tasks.Ready() }, "it knows those of another")
	for range 2 * lastOrders { // one broken order comes again and again
		w.Tasks.note(known{"broken", workflows.Rules + 1, false})
	}
	require.NoError(t, w.Tasks.Ready())
	for i := range lastOrders {
		w.Tasks.note(known{fmt.Sprint(i), workflows.Rules + 1, false})
	}
	require.Error(t, w.Tasks.Ready(), "none of the last orders")
}

// A reset is in the audit once, also that of a run which had completed: it ends no run by which it is found.
func TestResets(t *testing.T) {
	w := watch(t)
	completed := w.start("ends", client.StartWorkflowOptions{}, workflows.Rules)
	require.NoError(t, completed.Get(t.Context(), nil))
	running := w.start("runs", client.StartWorkflowOptions{}, workflows.Rules, w.event("runs", order.Creation, 1))
	devtest.Eventually(t, time.Minute, func() error {
		d, err := w.Temporal.DescribeWorkflowExecution(t.Context(), running.GetID(), "")
		if err == nil && d.GetWorkflowExecutionInfo().GetHistoryLength() < 4 {
			err = errors.New("its first task is not done")
		}
		return err
	}, "it runs")
	for _, run := range []client.WorkflowRun{completed, running} {
		_, err := w.Temporal.WorkflowService().ResetWorkflowExecution(t.Context(), &workflowservice.ResetWorkflowExecutionRequest{
			Namespace: client.DefaultNamespace, WorkflowExecution: &commonpb.WorkflowExecution{WorkflowId: run.GetID(), RunId: run.GetRunID()},
			Reason: "an example", WorkflowTaskFinishEventId: 3, RequestId: run.GetRunID(),
		})
		require.NoError(t, err)
	}
	for _, kind := range []string{"ends", "runs"} {
		reset := w.action(kind, "reset")
		assert.Contains(t, reset.Reason, "an example")
		require.NoError(t, w.look(t.Context()))
		actions, err := w.Target.Actions(t.Context(), w.id(kind))
		require.NoError(t, err)
		assert.Len(t, actions, 1, kind)
		w.await(kind, "a run goes on in its place", none)
	}
}

// The parts of a look do not depend on one another.
func TestWatchWithoutATable(t *testing.T) {
	w := watch(t)
	_, err := w.Target.DB().ExecContext(t.Context(), "DROP TABLE unwell_runs")
	require.NoError(t, err)
	w.start("idle", client.StartWorkflowOptions{}, workflows.Rules)
	require.NoError(t, w.Temporal.TerminateWorkflow(t.Context(), workflows.WorkflowID(w.id("idle")), "", "over"))
	devtest.Eventually(t, time.Minute, func() error {
		require.ErrorContains(t, w.look(context.WithoutCancel(t.Context())), "unwell_runs")
		actions, err := w.Target.Actions(t.Context(), w.id("idle"))
		if err == nil && len(actions) != 1 {
			err = errors.New("it is not")
		}
		return err
	}, "who ended it is in the audit")
}
