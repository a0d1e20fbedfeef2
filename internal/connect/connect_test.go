package connect_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/batch/v1"
	"go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"ordersync/internal/connect"
	"ordersync/internal/devstack/devtest"
)

func TestMain(m *testing.M) { devtest.Main(m) }

// odd waits for a signal, does an activity that fails once and beats, and does all but the waiting again in a new run.
func odd(ctx workflow.Context, continued bool) error {
	if err := workflow.SetQueryHandler(ctx, "state", func() (string, error) { return workflow.GetInfo(ctx).WorkflowExecution.ID, nil }); err != nil {
		return err
	}
	if !continued {
		workflow.GetSignalChannel(ctx, "go").Receive(ctx, nil)
	}
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: time.Minute, RetryPolicy: &temporal.RetryPolicy{InitialInterval: time.Millisecond}})
	if err := workflow.ExecuteActivity(ctx, failsOnce).Get(ctx, nil); err != nil {
		return err
	}
	ctx = workflow.WithLocalActivityOptions(ctx, workflow.LocalActivityOptions{StartToCloseTimeout: time.Minute})
	if err := workflow.ExecuteLocalActivity(ctx, local).Get(ctx, nil); err != nil {
		return err
	}
	if !continued {
		return workflow.NewContinueAsNewError(ctx, odd, true)
	}
	return nil
}

func failsOnce(ctx context.Context) error {
	activity.RecordHeartbeat(ctx, "beat")
	if activity.GetInfo(ctx).Attempt == 1 {
		return errors.New("once")
	}
	return nil
}

func local(context.Context) error { return nil }

// Whatever an ERP puts into a sync_id, every call that ordersync makes about its workflow reaches the server: those of
// starters, of people and of workers.
func TestCallsAboutOddWorkflowIDs(t *testing.T) {
	queue := devtest.Name(t, "queue")
	options := client.Options{HostPort: devtest.Temporal(t), Logger: slog.New(slog.DiscardHandler)}
	c, err := connect.Temporal(t.Context(), options)
	require.NoError(t, err)
	defer c.Close()
	w := worker.New(c, queue, worker.Options{})
	w.RegisterWorkflow(odd)
	w.RegisterActivity(failsOnce)
	require.NoError(t, w.Start())
	defer w.Stop()

	for _, name := range []string{"plain", "Müller-1", "注文-1", "طلب-1", "🛒", "A B", `it's "50%"`, "a\u2028b", "e\u0301", "\u00a0x", "../../etc", "*", "<b>"} {
		t.Run(name, func(t *testing.T) {
			id := "order-" + name + "-" + uuid.NewString()
			start := client.StartWorkflowOptions{ID: id, TaskQueue: queue, EnableEagerStart: true, WorkflowExecutionErrorWhenAlreadyStarted: true}
			run, err := c.ExecuteWorkflow(t.Context(), start, odd, false)
			require.NoError(t, err)
			_, err = c.ExecuteWorkflow(t.Context(), start, odd, false)
			var running *serviceerror.WorkflowExecutionAlreadyStarted
			require.ErrorAs(t, err, &running)

			described, err := c.DescribeWorkflowExecution(t.Context(), id, "")
			require.NoError(t, err)
			require.Equal(t, id, described.WorkflowExecutionInfo.Execution.WorkflowId)
			state, err := c.QueryWorkflow(t.Context(), id, "", "state")
			require.NoError(t, err)
			var answer string
			require.NoError(t, state.Get(&answer))
			require.Equal(t, id, answer)

			require.NoError(t, c.SignalWorkflow(t.Context(), id, "", "go", nil))
			_, err = c.SignalWithStartWorkflow(t.Context(), id, "go", nil, client.StartWorkflowOptions{TaskQueue: queue}, odd, false)
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			require.NoError(t, run.Get(ctx, nil), "it comes to its end, by the worker's calls")
			history := c.GetWorkflowHistory(t.Context(), id, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
			require.True(t, history.HasNext())
			event, err := history.Next()
			require.NoError(t, err)
			require.Equal(t, int64(1), event.EventId)
			for history.HasNext() {
				event, err = history.Next()
				require.NoError(t, err)
			}
			_, err = c.ResetWorkflowExecution(t.Context(), &workflowservice.ResetWorkflowExecutionRequest{
				Namespace: client.DefaultNamespace, WorkflowExecution: &common.WorkflowExecution{WorkflowId: id},
				WorkflowTaskFinishEventId: 4, RequestId: uuid.NewString(),
			})
			require.NoError(t, err, "event %d", event.EventId)
			require.NoError(t, c.CancelWorkflow(t.Context(), id, ""))
			_, err = c.SignalWithStartWorkflow(t.Context(), id, "other", nil, client.StartWorkflowOptions{TaskQueue: queue}, odd, false)
			require.NoError(t, err, "a start, or a signal to what is left of it")
			job := uuid.NewString()
			_, err = c.WorkflowService().StartBatchOperation(t.Context(), &workflowservice.StartBatchOperationRequest{
				Namespace: client.DefaultNamespace, JobId: job, Reason: "test",
				Executions: []*common.WorkflowExecution{{WorkflowId: id}}, //nolint:staticcheck // a query would have to wait until the order is listed
				Operation: &workflowservice.StartBatchOperationRequest_SignalOperation{
					SignalOperation: &batch.BatchOperationSignal{Signal: "other"},
				},
			})
			require.NoError(t, err)
			start.ID += "-2"
			_, err = c.ExecuteWorkflow(t.Context(), start, odd, false)
			require.NoError(t, err)
			require.NoError(t, c.TerminateWorkflow(t.Context(), start.ID, "", "test"))
		})
	}
}

// A client of a service that is not there is made all the same, and its options are left as they are.
func TestLazyTemporal(t *testing.T) {
	options := client.Options{HostPort: "127.0.0.1:1", Logger: slog.New(slog.DiscardHandler)}
	c, err := connect.LazyTemporal(options)
	require.NoError(t, err)
	c.Close()
	require.Empty(t, options.ConnectionOptions.DialOptions)
}
