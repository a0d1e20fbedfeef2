package reconcile_test

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"ordersync/internal/connect"
	"ordersync/internal/devstack/devtest"
	"ordersync/internal/reconcile"
	"ordersync/workflows"
)

// A run that began first may end last, as when its ERP was away meanwhile.
func TestLast(t *testing.T) {
	temporal, err := connect.Temporal(t.Context(), client.Options{
		HostPort: devtest.Temporal(t), DataConverter: workflows.DataConverter(), Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	t.Cleanup(temporal.Close)
	queue := devtest.Name(t, "queue")
	w := worker.New(temporal, queue, worker.Options{})
	w.RegisterWorkflowWithOptions(func(ctx workflow.Context, in workflows.ReconcileInput) (workflows.ReconcileReport, error) {
		workflow.GetSignalChannel(ctx, "end").Receive(ctx, nil)
		return workflows.ReconcileReport{By: in.By}, nil
	}, workflow.RegisterOptions{Name: workflows.ReconcileName})
	require.NoError(t, w.Start())
	t.Cleanup(w.Stop)

	_, err = reconcile.Last(t.Context(), temporal, queue)
	require.ErrorIs(t, err, reconcile.ErrNone)
	start := func(by string) client.WorkflowRun {
		run, err := temporal.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: devtest.Name(t, by), TaskQueue: queue},
			workflows.ReconcileName, workflows.ReconcileInput{By: by})
		require.NoError(t, err)
		return run
	}
	end := func(run client.WorkflowRun, by string) {
		require.NoError(t, temporal.SignalWorkflow(t.Context(), run.GetID(), run.GetRunID(), "end", nil))
		devtest.Eventually(t, 20*time.Second, func() error {
			last, err := reconcile.Last(t.Context(), temporal, queue)
			if err == nil && last.By != by {
				err = errors.New("the last is that by " + last.By)
			}
			return err
		}, "it is the last one")
	}
	first := start("first")
	second := start("second")
	end(second, "second")
	end(first, "first")
}
