package reconcile

import (
	"context"
	"errors"
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"ordersync/internal/order"
	"ordersync/workflows"
)

// Run is a run of the Reconcile workflow.
type Run struct {
	WorkflowID string
	RunID      string
	StartedAt  time.Time
	// Input is what it was asked to do.
	Input workflows.ReconcileInput
	// Ours tells that Start began it.
	Ours bool
}

// ErrNone is the error of Last where no run has come to its end, as far as Temporal remembers.
var ErrNone = errors.New("no reconcile has come to its end yet")

// callTimeout bounds one question to Temporal.
const callTimeout = 10 * time.Second

// Start begins a run, or gives the one that is under way, by whoever and whatever it was asked to do.
func Start(ctx context.Context, c client.Client, taskQueue string, in workflows.ReconcileInput) (Run, error) {
	// That of a schedule has an id of its own. And the list is a little behind.
	underway, err := newest(ctx, c, taskQueue, enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING)
	if err == nil {
		var running bool
		if running, err = observe(ctx, c, underway, func(Progress) {}); running {
			return underway, nil
		}
	}
	if err != nil && !errors.Is(err, ErrNone) {
		return Run{}, err
	}
	started, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: workflows.ReconcileID, TaskQueue: taskQueue, StaticSummary: summary(in),
		WorkflowIDConflictPolicy:                 enumspb.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
		WorkflowExecutionErrorWhenAlreadyStarted: true,
	}, workflows.ReconcileName, in)
	if already := new(serviceerror.WorkflowExecutionAlreadyStarted); errors.As(err, &already) {
		return describe(ctx, c, Run{WorkflowID: workflows.ReconcileID, RunID: already.RunId})
	}
	if err != nil {
		return Run{}, fmt.Errorf("start the workflow %s: %w", workflows.ReconcileID, err)
	}
	return Run{WorkflowID: started.GetID(), RunID: started.GetRunID(), StartedAt: time.Now(), Input: in, Ours: true}, nil
}

func summary(in workflows.ReconcileInput) string {
	if in.Repair {
		return "compares both ends and repairs what drifted"
	}
	return "compares both ends"
}

// newest finds the run of a status that began last, or ended last where it is one of ended runs: in that order
// Temporal lists them.
func newest(ctx context.Context, c client.Client, taskQueue string, status enumspb.WorkflowExecutionStatus) (Run, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	answer, err := c.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
		PageSize: 1, Query: fmt.Sprintf(`WorkflowType=%q AND ExecutionStatus=%q AND TaskQueue=%q`, workflows.ReconcileName, status, taskQueue),
	})
	if err != nil {
		return Run{}, fmt.Errorf("ask Temporal for the runs of %s: %w", workflows.ReconcileName, err)
	}
	if len(answer.GetExecutions()) == 0 {
		return Run{}, ErrNone
	}
	found := answer.GetExecutions()[0].GetExecution()
	return describe(ctx, c, Run{WorkflowID: found.GetWorkflowId(), RunID: found.GetRunId()})
}

// describe reads what a run was asked to do from its history: that needs no worker.
func describe(ctx context.Context, c client.Client, r Run) (Run, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	history := c.GetWorkflowHistory(ctx, r.WorkflowID, r.RunID, false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	var first *historypb.HistoryEvent
	if history.HasNext() {
		var err error
		if first, err = history.Next(); err != nil {
			return r, fmt.Errorf("read the history of %s: %w", r.WorkflowID, err)
		}
	}
	r.StartedAt = first.GetEventTime().AsTime()
	started := first.GetWorkflowExecutionStartedEventAttributes()
	if err := workflows.DataConverter().FromPayloads(started.GetInput(), &r.Input); err != nil {
		return r, fmt.Errorf("read the input of %s: %w", r.WorkflowID, err)
	}
	return r, nil
}

// Progress is how far a run is.
type Progress struct {
	// Walk is what its last heartbeat told; the zero value before the first.
	Walk order.Walk
	// Attempt counts from 1; 0 where no worker has begun with it.
	Attempt int32
	// LastFailure is why the attempt before did not come to its end.
	LastFailure string
}

// followEvery is how often a run is looked at.
const followEvery = time.Second

// Follow waits for a run's end, and tells progress now and then. An end of ctx leaves the run alone.
func Follow(ctx context.Context, c client.Client, r Run, progress func(Progress)) (workflows.ReconcileReport, error) {
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	var found workflows.ReconcileReport
	ended := make(chan error, 1)
	go func() {
		var err error
		found, err = report(waiting, c, r)
		ended <- err
	}()
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		select {
		case err := <-ended:
			if ctx.Err() != nil {
				return workflows.ReconcileReport{}, ctx.Err()
			}
			return found, err
		case <-tick.C:
			// A look that fails says nothing about the comparison; its end is waited for anyway.
			_, _ = observe(ctx, c, r, progress)
		}
	}
}

// observe tells whether a run is under way, and its progress.
func observe(ctx context.Context, c client.Client, r Run, progress func(Progress)) (running bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	d, err := c.DescribeWorkflowExecution(ctx, r.WorkflowID, r.RunID)
	if err != nil {
		return false, fmt.Errorf("ask Temporal for workflow %s: %w", r.WorkflowID, err)
	}
	if d.GetWorkflowExecutionInfo().GetStatus() != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
		return false, nil
	}
	var p Progress
	for _, a := range d.GetPendingActivities() {
		if a.GetLastStartedTime() != nil {
			p.Attempt = a.GetAttempt()
		}
		p.LastFailure = a.GetLastFailure().GetMessage()
		if details := a.GetHeartbeatDetails(); details != nil {
			// What an older worker wrote may be read by none: then there is no progress to tell.
			_ = workflows.DataConverter().FromPayloads(details, &p.Walk)
		}
	}
	progress(p)
	return true, nil
}

func report(ctx context.Context, c client.Client, r Run) (workflows.ReconcileReport, error) {
	var found workflows.ReconcileReport
	if err := c.GetWorkflow(ctx, r.WorkflowID, r.RunID).Get(ctx, &found); err != nil {
		return found, fmt.Errorf("the reconcile did not come to its end: %w", err)
	}
	return found, nil
}

// Last is the report of the run that has come to its end last.
func Last(ctx context.Context, c client.Client, taskQueue string) (workflows.ReconcileReport, error) {
	r, err := newest(ctx, c, taskQueue, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED)
	if err != nil {
		return workflows.ReconcileReport{}, err
	}
	return report(ctx, c, r)
}
