// Package backfill starts, follows and ends the publication of an ERP's past. There is never more than
// one at a time, as two would only share the rate at which starters read them.
package backfill

import (
	"context"
	"errors"
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"ordersync/internal/schedule"
	"ordersync/workflows"
)

// Run is a backfill that is under way, or was when it was found.
type Run struct {
	WorkflowID string    `json:"workflow_id"`
	StartedAt  time.Time `json:"started_at"`
	// Joined tells that it was under way already.
	Joined bool `json:"joined"`
}

// OtherError is the error of a backfill that cannot start while one of another period is under way.
type OtherError struct{ Run Run }

func (e *OtherError) Error() string {
	return fmt.Sprintf("a backfill is under way since %s: %s", e.Run.StartedAt.Format(time.RFC3339), e.Run.WorkflowID)
}

// Start begins a backfill, or joins the one of the same period that is under way.
func Start(ctx context.Context, c client.Client, taskQueue string, in workflows.BackfillInput) (Run, error) {
	id := workflows.BackfillID(in.From, in.To)
	other, found, err := UnderWay(ctx, c)
	switch {
	case err != nil:
		return Run{}, err
	case found && other.WorkflowID == id:
		other.Joined = true
		return other, nil
	case found:
		return Run{}, &OtherError{other}
	}
	_, err = c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: id, TaskQueue: taskQueue,
		WorkflowIDReusePolicy:    enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
		WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
		StaticSummary:            "publishes the ERP's past",
	}, workflows.BackfillName, in)
	if err != nil {
		return Run{}, fmt.Errorf("start the backfill %s: %w", id, err)
	}
	return Run{WorkflowID: id, StartedAt: time.Now().UTC()}, nil
}

// UnderWay is the backfill that is, if any, as far as Temporal's list of workflows knows.
func UnderWay(ctx context.Context, c client.Client) (Run, bool, error) {
	answer, err := c.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
		PageSize: 1, Query: fmt.Sprintf(`WorkflowType = %q AND ExecutionStatus = "Running"`, workflows.BackfillName),
	})
	if err != nil {
		return Run{}, false, fmt.Errorf("look for a backfill under way: %w", err)
	}
	if len(answer.GetExecutions()) == 0 {
		return Run{}, false, nil
	}
	info := answer.GetExecutions()[0]
	return Run{WorkflowID: info.GetExecution().GetWorkflowId(), StartedAt: info.GetStartTime().AsTime()}, true, nil
}

// ErrNone is the error of a cancellation with nothing to cancel.
var ErrNone = errors.New("no backfill is under way")

// Cancel ends the backfill that is under way, with its next page.
func Cancel(ctx context.Context, c client.Client) (Run, error) {
	run, found, err := UnderWay(ctx, c)
	if err != nil {
		return run, err
	}
	if !found {
		return run, ErrNone
	}
	if err := c.CancelWorkflow(ctx, run.WorkflowID, ""); err != nil {
		return run, fmt.Errorf("cancel %s: %w", run.WorkflowID, err)
	}
	return run, nil
}

// followEvery is the time between two looks at a backfill.
const followEvery = time.Second

// Follow waits for the end of a backfill. progress is told how its activity is doing now and then. An
// end of ctx leaves the backfill alone.
func Follow(ctx context.Context, c client.Client, run Run, progress func(schedule.Run)) (workflows.PollState, error) {
	type end struct {
		state workflows.PollState
		err   error
	}
	ended := make(chan end, 1)
	go func() {
		var e end
		e.err = c.GetWorkflow(ctx, run.WorkflowID, "").Get(ctx, &e.state)
		ended <- e
	}()
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		select {
		case e := <-ended:
			if e.err != nil && ctx.Err() == nil {
				e.err = fmt.Errorf("the backfill ended: %w", e.err)
			}
			return e.state, e.err
		case <-tick.C:
			// A look that fails says nothing about the backfill; its end is waited for anyway.
			if now, err := schedule.UnderWay(ctx, c, run.WorkflowID); err == nil && now != nil {
				progress(*now)
			}
		}
	}
}
