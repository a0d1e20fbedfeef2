package reconcile

import (
	"context"
	"errors"
	"fmt"

	"go.temporal.io/sdk/client"

	"ordersync/internal/operator"
)

// WorkflowWaiting asks Temporal what an order's workflow is at. It costs a call for each order, and a
// query where the workflow runs.
func WorkflowWaiting(c client.Client) Waiting {
	return func(ctx context.Context, syncID string) (string, error) {
		w, err := operator.Describe(ctx, c, syncID)
		switch {
		case errors.Is(err, operator.ErrNoWorkflow):
			return "", nil
		case err != nil:
			return "", err
		case !w.Running():
			return "", nil
		case w.SyncStatus != "":
			return fmt.Sprintf("its workflow is %s: %s", w.SyncStatus, w.SyncError), nil
		}
		// It runs, perhaps only because further events may come.
		state, err := operator.State(ctx, c, syncID)
		switch {
		case errors.Is(err, operator.ErrNoWorkflow):
			return "", nil
		case errors.Is(err, operator.ErrNoWorker) && ctx.Err() == nil:
			return "its workflow does not answer", nil
		case err != nil:
			return "", err
		case state.PendingCount > 0:
			return fmt.Sprintf("its workflow is %s, %d events pending", state.Status, state.PendingCount), nil
		default:
			return "", nil
		}
	}
}
