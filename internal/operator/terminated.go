package operator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/google/uuid"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"golang.org/x/sync/errgroup"

	"ordersync/internal/order"
	"ordersync/internal/target"
	"ordersync/workflows"
)

const (
	// terminatedEvery is how often terminated workflows are looked for. A list is no Temporal action.
	terminatedEvery = 10 * time.Second
	// terminatedSlack is how far before the last look the next one begins: visibility lags.
	terminatedSlack = time.Minute
	// closesAtOnce bounds the histories that are asked for at the same time.
	closesAtOnce = 8
	// resetter is by whom Temporal's server terminates a run that is reset. Who asked for it stands in
	// the reason.
	resetter = "history-resetter"
)

// Terminations puts into the audit who terminated an order's workflow, or reset it: the workflow itself
// has no say in its end, so somebody has to look. Several processes may, an action is recorded once.
type Terminations struct {
	Temporal client.Client
	Target   *target.Target
	Logger   *slog.Logger

	since time.Time // of the next look; zero for all that Temporal still keeps
}

// Run looks until ctx ends. A look that fails is repeated with the next.
func (t *Terminations) Run(ctx context.Context) {
	tick := time.NewTicker(terminatedEvery)
	defer tick.Stop()
	for {
		if err := t.look(ctx); err != nil && ctx.Err() == nil {
			t.Logger.Warn("terminated workflows were not put into the audit, which is tried again", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// look records what was terminated since the last look that found all.
func (t *Terminations) look(ctx context.Context) error {
	began := time.Now()
	request := &workflowservice.ListWorkflowExecutionsRequest{PageSize: pageSize, Query: fmt.Sprintf(`WorkflowType=%q AND ExecutionStatus="Terminated"`, workflows.OrderSyncName)}
	if !t.since.IsZero() {
		request.Query += fmt.Sprintf(` AND CloseTime >= %q`, t.since.UTC().Format(time.RFC3339Nano))
	}
	for {
		answer, err := listPage(ctx, t.Temporal, request)
		if err != nil {
			return fmt.Errorf("ask Temporal for terminated workflows: %w", err)
		}
		if err := t.record(ctx, answer.GetExecutions()); err != nil {
			return err
		}
		if request.NextPageToken = answer.GetNextPageToken(); len(request.NextPageToken) == 0 {
			t.since = began.Add(-terminatedSlack)
			return nil
		}
	}
}

// record puts those runs into the audit that are not there.
func (t *Terminations) record(ctx context.Context, runs []*workflowpb.WorkflowExecutionInfo) error {
	keys := make([]target.ActionKey, len(runs))
	for i, run := range runs {
		id, err := uuid.Parse(run.GetExecution().GetRunId())
		if err != nil {
			return fmt.Errorf("run %q of workflow %s has no UUID: %w", run.GetExecution().GetRunId(), run.GetExecution().GetWorkflowId(), err)
		}
		keys[i] = target.ActionKey{SyncID: syncIDOf(run.GetExecution().GetWorkflowId()), ID: uuid.NewSHA1(id, []byte("terminate"))}
	}
	recorded, err := t.Target.Recorded(ctx, keys)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(closesAtOnce)
	for i, run := range runs {
		if _, ok := recorded[keys[i]]; ok {
			continue
		}
		group.Go(func() error {
			action, err := t.termination(ctx, run)
			if err != nil {
				return err
			}
			action.SyncID, action.ID = keys[i].SyncID, keys[i].ID
			if action.Name == "terminate" {
				t.Logger.Error("an order's workflow was terminated: what it held has to be replayed from Kafka", "order", action.SyncID,
					"by", action.By, "reason", action.Reason, "command", replayCommand(action.SyncID))
			}
			return t.Target.RecordAction(ctx, action)
		})
	}
	return group.Wait()
}

func replayCommand(syncID string) string { return order.ReplayCommand(syncID).String() }

// termination asks the history of a run who ended it. A run that Temporal has forgotten in between was
// ended by nobody known.
func (t *Terminations) termination(ctx context.Context, run *workflowpb.WorkflowExecutionInfo) (order.Action, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	action := order.Action{
		Name: "terminate", By: "unknown", At: run.GetCloseTime().AsTime(), Before: "running",
		Effect: "the workflow ended with what it held, which Kafka still has: " + replayCommand(syncIDOf(run.GetExecution().GetWorkflowId())),
	}
	if status := keyword(run, workflows.SyncStatus.GetName()); status != "" {
		action.Before = status + ": " + keyword(run, workflows.SyncError.GetName())
	}
	history := t.Temporal.GetWorkflowHistory(ctx, run.GetExecution().GetWorkflowId(), run.GetExecution().GetRunId(), false, enumspb.HISTORY_EVENT_FILTER_TYPE_CLOSE_EVENT)
	for history.HasNext() {
		event, err := history.Next()
		if forgotten := new(serviceerror.NotFound); errors.As(err, &forgotten) {
			break
		}
		if err != nil {
			return order.Action{}, fmt.Errorf("ask Temporal who terminated workflow %s: %w", run.GetExecution().GetWorkflowId(), err)
		}
		ended := event.GetWorkflowExecutionTerminatedEventAttributes()
		if ended == nil {
			continue
		}
		action.By, action.Reason = cmp.Or(ended.GetIdentity(), action.By), ended.GetReason()
		if action.By == resetter {
			action.Name, action.Effect = "reset", "a new run goes on from an earlier place of this one's history"
		}
	}
	return action, nil
}
