// Package operator is what a person can see of an order's workflow and do to it: find the stuck
// orders, ask one what it waits for, and send retry, skip or amend and see what came of it.
package operator

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"google.golang.org/protobuf/types/known/timestamppb"

	"ordersync/internal/order"
	"ordersync/workflows"
)

// Limits of one question to Temporal.
const (
	callTimeout = 10 * time.Second
	// queryTimeout is how long a worker has to answer. Without one the server waits for it.
	queryTimeout = 5 * time.Second
)

// ErrNoWorkflow is the error for an order without a workflow, or without a running one where that is
// needed.
var ErrNoWorkflow = errors.New("the order has no workflow")

// ErrNoWorker is the error of a question that only a worker can answer, when none does in time.
var ErrNoWorker = errors.New("no worker answers: is one running (ordersync dev, or the worker pods)?")

// ErrTasksFail is the error of a question to a run that no worker can answer, as its workflow tasks fail. It is
// an ErrNoWorker as well, for those to whom the difference does not matter.
var ErrTasksFail error = tasksFailError{}

type tasksFailError struct{}

func (tasksFailError) Error() string {
	return "no worker can answer for the order: its workflow tasks fail, by what the workers' log says"
}

func (tasksFailError) Is(err error) bool { return err == ErrNoWorker }

// tasksFail returns whether the workflow tasks of an order's run fail.
func tasksFail(c client.Client, syncID string) bool {
	u, err := FailingTasks(context.Background(), c, nil, syncID)
	return err == nil && u != nil
}

// Workflow is an order's workflow as the Temporal server knows it.
type Workflow struct {
	ID        string     `json:"id"`
	RunID     string     `json:"run_id"`
	Status    string     `json:"status"` // Running, Completed, …
	StartedAt time.Time  `json:"started_at"`
	ClosedAt  *time.Time `json:"closed_at,omitempty"`
	// SyncStatus and SyncError are the search attributes; empty for an order that is not stuck. A
	// closed run keeps its last ones.
	SyncStatus string `json:"sync_status,omitempty"`
	SyncError  string `json:"sync_error,omitempty"`
	// StuckSince is the search attribute, by the server's clock.
	StuckSince *time.Time `json:"stuck_since,omitempty"`
	// Attempts are the activities that are being retried.
	Attempts []Attempt `json:"attempts"`
	Channel  string    `json:"channel,omitempty"`
	// HistoryEvents and HistoryBytes are the size of the run's history.
	HistoryEvents int64 `json:"history_events"`
	HistoryBytes  int64 `json:"history_bytes"`
	// TaskAttempt is which attempt of a workflow task is under way or due, since TaskSince; 0 for none.
	TaskAttempt int32      `json:"task_attempt,omitempty"`
	TaskSince   *time.Time `json:"task_since,omitempty"`

	ended order.Trouble
}

// Attempt is an activity under way or waiting for its next attempt.
type Attempt struct {
	Activity    string     `json:"activity"`
	Attempt     int32      `json:"attempt"`
	LastFailure string     `json:"last_failure,omitempty"`
	LastStarted *time.Time `json:"last_started,omitempty"`
	NextAttempt *time.Time `json:"next_attempt,omitempty"`
	// Paused is set where somebody has paused the activity: it waits until somebody unpauses it.
	Paused *Pause `json:"paused,omitempty"`
}

// Pause is since when an activity is paused, and what Temporal says of who did it and why.
type Pause struct {
	At         time.Time `json:"at"`
	By         string    `json:"by,omitempty"`
	Reason     string    `json:"reason,omitempty"`
	ActivityID string    `json:"activity_id"`
}

// UnpauseCommand lets a paused activity of an order go on.
func (p Pause) UnpauseCommand(syncID string) string {
	return "temporal activity unpause --workflow-id " + order.Typed(workflows.WorkflowID(syncID)) + " --activity-id " + p.ActivityID
}

// Ended is how the run ended without completing; empty for one that completed, continued as new or runs.
func (w Workflow) Ended() order.Trouble { return w.ended }

// Paused is the first paused activity; nil if none is.
func (w Workflow) Paused() *Pause {
	for _, a := range w.Attempts {
		if a.Paused != nil {
			return a.Paused
		}
	}
	return nil
}

// Running tells whether the workflow has not ended.
func (w Workflow) Running() bool {
	return w.Status == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING.String()
}

// Describe asks the server for an order's last run. It needs no worker. Its error is ErrNoWorkflow
// where there is none, or none any more.
func Describe(ctx context.Context, c client.Client, syncID string) (Workflow, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	id := workflows.WorkflowID(syncID)
	d, err := c.DescribeWorkflowExecution(ctx, id, "")
	if notFound := new(serviceerror.NotFound); errors.As(err, &notFound) {
		return Workflow{}, ErrNoWorkflow
	}
	if err != nil {
		return Workflow{}, fmt.Errorf("ask Temporal for workflow %s: %w", id, err)
	}
	info := d.GetWorkflowExecutionInfo()
	w := Workflow{
		ID: id, RunID: info.GetExecution().GetRunId(), Status: info.GetStatus().String(),
		StartedAt: info.GetStartTime().AsTime(), ClosedAt: instant(info.GetCloseTime()), Attempts: []Attempt{},
		SyncStatus: keyword(info, workflows.SyncStatus.GetName()), SyncError: keyword(info, workflows.SyncError.GetName()),
		Channel: keyword(info, workflows.Channel.GetName()), HistoryEvents: info.GetHistoryLength(), HistoryBytes: info.GetHistorySizeBytes(),
		StuckSince: moment(info, workflows.StuckSince.GetName()),
	}
	w.ended = troubleOf(info.GetStatus())
	if task := d.GetPendingWorkflowTask(); task != nil {
		w.TaskAttempt, w.TaskSince = task.GetAttempt(), instant(task.GetOriginalScheduledTime())
	}
	for _, a := range d.GetPendingActivities() {
		attempt := Attempt{
			Activity: a.GetActivityType().GetName(), Attempt: a.GetAttempt(), LastFailure: a.GetLastFailure().GetMessage(),
			LastStarted: instant(a.GetLastStartedTime()), NextAttempt: instant(a.GetNextAttemptScheduleTime()),
		}
		if a.GetPaused() {
			by := a.GetPauseInfo().GetManual()
			attempt.Paused = &Pause{At: a.GetPauseInfo().GetPauseTime().AsTime(), By: by.GetIdentity(), Reason: by.GetReason(), ActivityID: a.GetActivityId()}
		}
		w.Attempts = append(w.Attempts, attempt)
	}
	return w, nil
}

// State asks a worker what the order waits for. The error is ErrNoWorkflow or ErrNoWorker where one
// is missing, and ErrTasksFail where none can answer.
func State(ctx context.Context, c client.Client, syncID string) (workflows.State, error) {
	ctx, cancel := context.WithTimeout(ctx, queryTimeout)
	defer cancel()
	var state workflows.State
	answer, err := c.QueryWorkflow(ctx, workflows.WorkflowID(syncID), "", workflows.QueryState)
	if err == nil {
		err = answer.Get(&state)
	}
	var (
		notFound *serviceerror.NotFound
		deadline *serviceerror.DeadlineExceeded
		noPoller *serviceerror.FailedPrecondition
		notReady *serviceerror.WorkflowNotReady
	)
	switch {
	case err == nil:
		return state, nil
	case errors.As(err, &notFound):
		return workflows.State{}, ErrNoWorkflow
	case errors.As(err, &deadline), errors.As(err, &noPoller), errors.As(err, &notReady), ctx.Err() != nil:
		if tasksFail(c, syncID) {
			return workflows.State{}, fmt.Errorf("%w (%w)", ErrTasksFail, err)
		}
		return workflows.State{}, fmt.Errorf("%w (%w)", ErrNoWorker, err)
	default:
		return workflows.State{}, fmt.Errorf("ask order %s for its state: %w", syncID, err)
	}
}

// keyword reads a search attribute of type Keyword; empty if it is unset.
func keyword(info *workflowpb.WorkflowExecutionInfo, name string) string {
	return keywordIn(info.GetSearchAttributes(), name)
}

func keywordIn(attributes *commonpb.SearchAttributes, name string) string {
	var value string
	if p, ok := attributes.GetIndexedFields()[name]; ok {
		// One that is no string is none that ordersync has set.
		_ = converter.GetDefaultDataConverter().FromPayload(p, &value)
	}
	return value
}

// moment reads a search attribute of type Datetime; nil if it is unset.
func moment(info *workflowpb.WorkflowExecutionInfo, name string) *time.Time {
	var at time.Time
	p, ok := info.GetSearchAttributes().GetIndexedFields()[name]
	if !ok || converter.GetDefaultDataConverter().FromPayload(p, &at) != nil {
		return nil
	}
	return &at
}

func instant(t *timestamppb.Timestamp) *time.Time {
	if t == nil {
		return nil
	}
	at := t.AsTime()
	return &at
}

// syncIDOf is the order of a workflow.
func syncIDOf(workflowID string) string {
	return strings.TrimPrefix(workflowID, workflows.WorkflowID(""))
}
