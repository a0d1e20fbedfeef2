package operator

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"golang.org/x/sync/errgroup"

	"ordersync/workflows"
)

// StuckQuery finds every stuck order, also when pasted into the Web UI.
var StuckQuery = Selection{}.Query()

// StuckOrder is an order that is retrying or blocked.
type StuckOrder struct {
	SyncID  string `json:"sync_id"`
	Channel string `json:"channel"`
	Status  string `json:"status"` // retrying or blocked
	// Reason is the type of the error it is stuck on.
	Reason string `json:"reason"`
	// Since is when it got stuck.
	Since *time.Time `json:"since,omitempty"`
	// Step and what follows are the workflow's own answer; absent where no worker gave one.
	Step      *workflows.PendingEvent `json:"step,omitempty"`
	LastError string                  `json:"last_error,omitempty"`
	Pending   int                     `json:"pending_count,omitempty"`
	// Paused is set where somebody has paused its step, so that it does not heal by itself.
	Paused *Pause `json:"paused,omitempty"`
	// TasksFail tells that its workflow tasks fail, so that it cannot be asked.
	TasksFail bool `json:"tasks_fail,omitempty"`
}

// pageSize is how many workflows are listed in one call, the server's own default limit.
const pageSize = 1000

// Blocked are the sync_ids of all orders that are blocked.
func Blocked(ctx context.Context, c client.Client) (map[string]bool, error) {
	blocked := map[string]bool{}
	err := list(ctx, c, Selection{Status: workflows.StatusBlocked}.Query(), pageSize, func(o StuckOrder) bool {
		blocked[o.SyncID] = true
		return true
	})
	return blocked, err
}

func list(ctx context.Context, c client.Client, query string, page int, each func(StuckOrder) bool) error {
	request := &workflowservice.ListWorkflowExecutionsRequest{Query: query, PageSize: int32(page)}
	for {
		answer, err := listPage(ctx, c, request)
		if err != nil {
			return fmt.Errorf("ask Temporal for the stuck orders: %w; if it does not know a search attribute, run `ordersync setup`", err)
		}
		for _, info := range answer.GetExecutions() {
			if !each(StuckOrder{
				SyncID: syncIDOf(info.GetExecution().GetWorkflowId()), Channel: keyword(info, workflows.Channel.GetName()),
				Status: keyword(info, workflows.SyncStatus.GetName()), Reason: keyword(info, workflows.SyncError.GetName()),
				Since: moment(info, workflows.StuckSince.GetName()),
			}) {
				return nil
			}
		}
		if request.NextPageToken = answer.GetNextPageToken(); len(request.NextPageToken) == 0 {
			return nil
		}
	}
}

func listPage(ctx context.Context, c client.Client, r *workflowservice.ListWorkflowExecutionsRequest) (*workflowservice.ListWorkflowExecutionsResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return c.ListWorkflow(ctx, r)
}

// Conditions finds out which of the orders somebody has paused, and whose workflow tasks fail, several at once. It
// needs no worker.
func Conditions(ctx context.Context, c client.Client, orders []StuckOrder) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runsAtOnce)
	for i := range orders {
		group.Go(func() error {
			w, err := Describe(ctx, c, orders[i].SyncID)
			if err == nil {
				orders[i].Paused, orders[i].TasksFail = w.Paused(), w.Running() && w.TaskAttempt >= failingAttempt
			}
			if errors.Is(err, ErrNoWorkflow) {
				return nil
			}
			return err
		})
	}
	return group.Wait()
}

// Detail asks each order what it is stuck on, several at once. It gives up at the
// first that no worker answers for, with ErrNoWorker: the others would take as long.
func Detail(ctx context.Context, c client.Client, orders []StuckOrder) error {
	const atOnce = 8
	var noWorker atomic.Bool
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for i := range orders {
		group.Go(func() error {
			if ctx.Err() != nil || orders[i].TasksFail {
				return nil
			}
			state, err := State(ctx, c, orders[i].SyncID)
			switch {
			case errors.Is(err, ErrTasksFail):
				orders[i].TasksFail = true
				return nil // the others' may work
			case errors.Is(err, ErrNoWorker):
				noWorker.Store(true)
				return err
			case err != nil:
				return nil // it has got going, or ended, since it was listed
			}
			orders[i].Step = state.Step
			orders[i].LastError, orders[i].Pending = state.LastError, state.PendingCount
			return nil
		})
	}
	err := group.Wait()
	if noWorker.Load() {
		return ErrNoWorker
	}
	return err
}
