package schedule

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"

	"ordersync/workflows"
)

// Schedule is one as it stands.
type Schedule struct {
	ID       string `json:"id"`
	Workflow string `json:"workflow"`
	// EverySeconds is the time between two runs; 0 where somebody gave it a calendar instead.
	EverySeconds float64 `json:"every_seconds"`
	// Overlap is how far before its last row a poll begins again; 0 for a schedule of anything else.
	Overlap time.Duration `json:"-"`
	Paused  bool          `json:"paused"`
	// Note says who paused or resumed it, and why.
	Note string `json:"note,omitempty"`
	// NextAt is when the next run is due; zero while it is paused.
	NextAt time.Time `json:"next_at,omitzero"`
	// Skipped counts the runs that were not begun, as one was under way.
	Skipped int `json:"skipped"`
	// Running is the run under way.
	Running *Run `json:"running,omitempty"`
	// Last is the last one that has ended.
	Last *Run `json:"last,omitempty"`

	// begunAt is when a run was begun last, or the schedule was made.
	begunAt time.Time
}

// Run is one of a schedule's.
type Run struct {
	WorkflowID string    `json:"workflow_id"`
	RunID      string    `json:"run_id"`
	StartedAt  time.Time `json:"started_at"`
	EndedAt    time.Time `json:"ended_at,omitzero"`
	// Status is Running, Completed, Failed, Canceled, Terminated or TimedOut.
	Status string `json:"status"`
	// Attempt, from 1, and Error are those of the activity of a run under way; Error is also why one failed.
	Attempt int    `json:"attempt,omitempty"`
	Error   string `json:"error,omitempty"`
	// Result is a workflows.PollState or a report of a comparison, as JSON.
	Result json.RawMessage `json:"result,omitempty"`
}

// Poll is the state that a run of a poll has come to, and whether there is one. The run may be nil.
func (r *Run) Poll() (state workflows.PollState, ok bool) {
	if r == nil || len(r.Result) == 0 {
		return state, false
	}
	return state, json.Unmarshal(r.Result, &state) == nil
}

// List tells how the schedules stand; those that do not exist are left out.
func List(ctx context.Context, c client.Client) ([]Schedule, error) {
	all := []Schedule{}
	for _, id := range Names {
		s, err := Describe(ctx, c, id)
		switch {
		case errors.Is(err, ErrMissing):
		case err != nil:
			return nil, err
		default:
			all = append(all, s)
		}
	}
	return all, nil
}

// Describe tells how a schedule stands.
func Describe(ctx context.Context, c client.Client, id string) (Schedule, error) {
	d, err := c.ScheduleClient().GetHandle(ctx, id).Describe(ctx)
	if err != nil {
		return Schedule{}, wrap(id, "read", err)
	}
	polls, _ := inputOf[workflows.PollInput](d.Schedule.Action)
	s := Schedule{ID: id, Skipped: d.Info.NumActionsSkippedOverlap, Overlap: polls.Overlap, begunAt: d.Info.CreatedAt}
	if n := len(d.Info.RecentActions); n > 0 {
		s.begunAt = d.Info.RecentActions[n-1].ActualTime
	}
	if a, ok := d.Schedule.Action.(*client.ScheduleWorkflowAction); ok {
		s.Workflow, _ = a.Workflow.(string)
	}
	s.EverySeconds = everySeconds(d.Schedule.Spec)
	if d.Schedule.State != nil {
		s.Paused, s.Note = d.Schedule.State.Paused, d.Schedule.State.Note
	}
	if len(d.Info.NextActionTimes) > 0 && !s.Paused {
		s.NextAt = d.Info.NextActionTimes[0].UTC()
	}
	if len(d.Info.RunningWorkflows) > 0 {
		if s.Running, err = UnderWay(ctx, c, d.Info.RunningWorkflows[0].WorkflowID); err != nil {
			return s, err
		}
	}
	last, err := newest(ctx, c, id, `ExecutionStatus != "Running" AND ExecutionStatus != "ContinuedAsNew"`)
	if err != nil || last == nil {
		return s, err
	}
	run := runOf(last)
	s.Last = &run
	var result converter.RawValue // as it came: whose it is, is for the reader to know
	err = c.GetWorkflow(ctx, run.WorkflowID, run.RunID).Get(ctx, &result)
	switch {
	case ctx.Err() != nil:
		return s, ctx.Err()
	case err != nil:
		s.Last.Error = err.Error()
	default:
		s.Last.Result = firstJSON(&commonpb.Payloads{Payloads: []*commonpb.Payload{result.Payload()}})
	}
	return s, nil
}

// UnderWay is the run of a workflow, with how far its activity has come and why that failed last. It may have
// ended meanwhile: then there is none.
func UnderWay(ctx context.Context, c client.Client, workflowID string) (*Run, error) {
	d, err := c.DescribeWorkflowExecution(ctx, workflowID, "")
	if missing(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the workflow %s: %w", workflowID, err)
	}
	if d.GetWorkflowExecutionInfo().GetStatus() != enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING {
		return nil, nil
	}
	run := runOf(d.GetWorkflowExecutionInfo())
	for _, activity := range d.GetPendingActivities() {
		run.Attempt = int(activity.GetAttempt())
		run.Error = activity.GetLastFailure().GetMessage()
		run.Result = firstJSON(activity.GetHeartbeatDetails())
	}
	return &run, nil
}

// firstJSON is the first of payloads, if it is JSON.
func firstJSON(payloads *commonpb.Payloads) json.RawMessage {
	for _, p := range payloads.GetPayloads() {
		if json.Valid(p.GetData()) {
			return p.GetData()
		}
	}
	return nil
}

func runOf(info *workflowpb.WorkflowExecutionInfo) Run {
	run := Run{
		WorkflowID: info.GetExecution().GetWorkflowId(), RunID: info.GetExecution().GetRunId(),
		StartedAt: info.GetStartTime().AsTime(), Status: info.GetStatus().String(),
	}
	if info.GetCloseTime() != nil {
		run.EndedAt = info.GetCloseTime().AsTime()
	}
	return run
}

// newest is the run of a schedule that ended last, of those that fit the condition; nil if none does.
func newest(ctx context.Context, c client.Client, id, condition string) (*workflowpb.WorkflowExecutionInfo, error) {
	// Temporal lists closed workflows by the time of their end, the last first.
	answer, err := c.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
		PageSize: 1, Query: fmt.Sprintf(`TemporalScheduledById = %q AND %s`, id, condition),
	})
	if err != nil {
		return nil, fmt.Errorf("list the runs of the schedule %s: %w", id, err)
	}
	if len(answer.GetExecutions()) == 0 {
		return nil, nil
	}
	return answer.GetExecutions()[0], nil
}

// LastPoll is the result of the poll that was completed last, and whether there is one.
func LastPoll(ctx context.Context, c client.Client) (workflows.PollState, bool, error) {
	info, err := newest(ctx, c, Poll, `ExecutionStatus = "Completed"`)
	if err != nil || info == nil {
		return workflows.PollState{}, false, err
	}
	var state workflows.PollState
	run := info.GetExecution()
	if err := c.GetWorkflow(ctx, run.GetWorkflowId(), run.GetRunId()).Get(ctx, &state); err != nil {
		return workflows.PollState{}, false, fmt.Errorf("read the result of %s: %w", run.GetWorkflowId(), err)
	}
	return state, true, nil
}

// Reached is how far the polls of a schedule have come.
type Reached struct {
	// ReadUntil is that of the last poll that was completed; zero if there is none, or nobody knows it.
	ReadUntil time.Time
	// BegunAt is there if ReadUntil is not: when the poll under way began, else the last one, else when the
	// schedule was made.
	BegunAt time.Time
}

// Reached tells how far the polls have come. A namespace forgets the last completed one with the end of its
// retention, which a pause or an outage of the ERP may outlast: then it is asked of the poll under way.
func (s Schedule) Reached(ctx context.Context, c client.Client) (Reached, error) {
	last, found, err := LastPoll(ctx, c)
	if err == nil && !found && s.Running != nil {
		last, err = begunWith(ctx, c, *s.Running)
	}
	switch {
	case err != nil:
		return Reached{}, err
	case !last.ReadUntil.IsZero():
		return Reached{ReadUntil: last.ReadUntil}, nil
	case !last.StartedAt.IsZero(): // the poll under way has been continued as new
		return Reached{BegunAt: last.StartedAt}, nil
	case s.Running != nil:
		return Reached{BegunAt: s.Running.StartedAt}, nil
	default:
		return Reached{BegunAt: s.begunAt.UTC()}, nil
	}
}

// begunWith is what a run of a poll began with: what those before it have come to.
func begunWith(ctx context.Context, c client.Client, run Run) (state workflows.PollState, err error) {
	first, err := c.GetWorkflowHistory(ctx, run.WorkflowID, run.RunID, false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT).Next()
	if missing(err) {
		return state, nil // it has ended and was deleted meanwhile
	}
	if err != nil {
		return state, fmt.Errorf("read the beginning of %s: %w", run.WorkflowID, err)
	}
	// What cannot be read here cannot be read by the poll either, which begins anew then.
	started := first.GetWorkflowExecutionStartedEventAttributes()
	var in workflows.PollInput
	_ = dataConverter.FromPayloads(started.GetInput(), &in)
	switch {
	case in.Carried != nil:
		return *in.Carried, nil
	case len(started.GetLastCompletionResult().GetPayloads()) > 0:
		_ = dataConverter.FromPayloads(started.GetLastCompletionResult(), &state)
	case in.Resume != nil:
		return *in.Resume, nil
	}
	return state, nil
}

// Workers is the number of workers that lately asked for something to read from the ERP, as far as
// Temporal tells; the queue is that of the deployment.
func Workers(ctx context.Context, c client.Client, queue string) (int, error) {
	answer, err := c.DescribeTaskQueue(ctx, workflows.ERPTaskQueue(queue), enumspb.TASK_QUEUE_TYPE_ACTIVITY)
	if err != nil {
		return 0, fmt.Errorf("ask for the workers that read the ERP: %w", err)
	}
	return len(answer.GetPollers()), nil
}
