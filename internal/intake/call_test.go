package intake

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
	"google.golang.org/grpc/codes"

	"ordersync/internal/devstack/devtest"
	"ordersync/internal/order"
	"ordersync/workflows"
)

func newCaller(t *testing.T) *caller {
	t.Helper()
	c := dial(t, "default")
	return &caller{
		client: c, taskQueue: devtest.Name(t, "queue"), metrics: newMetrics(nil), credit: newCredit(c),
		settings: workflows.Settings{Rules: workflows.Rules, HoldWindow: time.Minute, IdleTimeout: time.Hour},
	}
}

// made are events of an order in the order of their versions, the first of the given kind.
func made(syncID string, first order.Kind, version, n int) []order.Event {
	var all []order.Event
	for i := range n {
		kind := order.Update
		if i == 0 {
			kind = first
		}
		at := time.Now().UTC().Truncate(time.Millisecond)
		all = append(all, order.Event{
			SyncID: syncID, ID: order.ParseEventID(syncID + kindAndVersion(kind, version+i)), Kind: kind, Version: int64(version + i),
			Data: []byte(`{"a":"<&>"}`), OccurredAt: at, Channel: order.Store,
			Source: order.Source{Topic: "store", Partition: 1, Offset: int64(i), ReceivedAt: at},
		})
	}
	return all
}

func kindAndVersion(kind order.Kind, version int) string {
	return order.Event{Kind: kind, Version: int64(version)}.Name()
}

func TestCallStartsWithTheEventsAsInput(t *testing.T) {
	c := newCaller(t)
	id := devtest.Name(t, "start")
	events := made(id, order.Creation, 1, 3)
	require.NoError(t, c.call(t.Context(), events))
	h, err := (&bundle{t: t, temporal: c.client}).handed(id)
	require.NoError(t, err)
	require.Equal(t, handed{started: 3, events: events, summary: "store order " + id}, h)

	d, err := c.client.DescribeWorkflow(t.Context(), workflows.WorkflowID(id), "")
	require.NoError(t, err)
	orderID, _ := d.TypedSearchAttributes.GetKeyword(workflows.OrderID)
	channel, _ := d.TypedSearchAttributes.GetKeyword(workflows.Channel)
	require.Equal(t, []string{id, "store"}, []string{orderID, channel})
	require.Equal(t, workflows.OrderSyncName, d.WorkflowType.Name)
	require.Equal(t, c.taskQueue, d.TaskQueueName)
}

func TestCallSignalsWithStartWhatBeginsWithNoCreation(t *testing.T) {
	c := newCaller(t)
	b := &bundle{t: t, temporal: c.client}
	id := devtest.Name(t, "signal")
	first, second := made(id, order.Update, 2, 2), made(id, order.Invoice, 9, 1)
	require.NoError(t, c.call(t.Context(), first))
	require.NoError(t, c.call(t.Context(), second))
	h, err := b.handed(id)
	require.NoError(t, err)
	require.Equal(t, handed{signals: 2, events: append(first, second...), summary: "store order " + id}, h)
}

// The trap: a start of a workflow that runs already may be answered without an error, and its input
// is then gone.
func TestCallFallsBackToASignalWhereTheWorkflowRuns(t *testing.T) {
	c := newCaller(t)
	b := &bundle{t: t, temporal: c.client}
	id := devtest.Name(t, "running")
	first, again := made(id, order.Creation, 1, 1), made(id, order.Creation, 1, 3)
	require.NoError(t, c.call(t.Context(), first))
	require.NoError(t, c.call(t.Context(), again))
	h, err := b.handed(id)
	require.NoError(t, err)
	require.Equal(t, handed{started: 1, signals: 1, events: append(first, again...), summary: "store order " + id}, h)
	require.Equal(t, 1.0, counted(t, c.metrics.alreadyStarted))
}

func TestCallStartsAnewAfterTheWorkflowHasCompleted(t *testing.T) {
	c := newCaller(t)
	c.eager = true
	w := worker.New(c.client, c.taskQueue, worker.Options{})
	w.RegisterWorkflowWithOptions(func(workflow.Context, workflows.Input) error { return nil },
		workflow.RegisterOptions{Name: workflows.OrderSyncName})
	require.NoError(t, w.Start())
	defer w.Stop()

	id := devtest.Name(t, "again")
	b := &bundle{t: t, temporal: c.client}
	for version := 1; version <= 2; version++ {
		events := made(id, order.Creation, version, 1)
		require.NoError(t, c.call(t.Context(), events))
		require.NoError(t, c.client.GetWorkflow(t.Context(), workflows.WorkflowID(id), "").Get(t.Context(), nil))
		h, err := b.handed(id)
		require.NoError(t, err)
		require.Equal(t, handed{started: 1, events: events, summary: "store order " + id, eager: true}, h, "the worker of the same client takes it along")
	}
	require.Zero(t, counted(t, c.metrics.alreadyStarted))
}

func TestRefusedForSize(t *testing.T) {
	c := newCaller(t)
	for _, kind := range []order.Kind{order.Creation, order.Update} {
		for name, size := range map[string]int{"blob limit": 3 << 20, "gRPC limit": 5 << 20} {
			t.Run(string(kind)+" "+name, func(t *testing.T) {
				events := made(devtest.Name(t, "size"), kind, 1, 1)
				events[0].Data = []byte(`"` + strings.Repeat("x", size) + `"`)
				err := c.call(t.Context(), events)
				require.Error(t, err)
				require.True(t, refusedForSize(err), "%v", err)
				events[0].Data = []byte(`"` + strings.Repeat("<", order.MaxValue) + `"`)
				require.NoError(t, c.call(t.Context(), events), "the largest event Kafka may hold fits")
			})
		}
	}
}

// Codes of a refusal for size also stand for what passes.
func TestOtherRefusalsAreNoneForSize(t *testing.T) {
	c := newCaller(t)
	unknown := *c
	unknown.client = dial(t, "no-such-namespace")
	err := unknown.call(t.Context(), made(devtest.Name(t, "o"), order.Creation, 1, 1))
	require.Equal(t, codes.NotFound, errorCode(err), "%v", err)
	require.False(t, refusedForSize(err))

	bad := *c
	bad.taskQueue = strings.Repeat("q", 2000)
	err = bad.call(t.Context(), made(devtest.Name(t, "o"), order.Creation, 1, 1))
	require.Equal(t, codes.InvalidArgument, errorCode(err), "%v", err)
	require.False(t, refusedForSize(err))

	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	err = c.call(ctx, made(devtest.Name(t, "o"), order.Creation, 1, 1))
	require.Equal(t, codes.DeadlineExceeded, errorCode(err), "%v", err)
	require.False(t, refusedForSize(err))
}
