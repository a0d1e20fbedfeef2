package operator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	failurepb "go.temporal.io/api/failure/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"ordersync/activities"
	"ordersync/internal/order"
	"ordersync/workflows"
)

const (
	// storyTimeout bounds the reading of one history, which may have 50 MiB.
	storyTimeout = time.Minute
	// resetter is by whom Temporal's server terminates a run that is reset. Who asked for it stands in
	// the reason.
	resetter = "history-resetter"
	// itself is by whom a run ended that nobody ended from outside.
	itself = "the workflow itself"
	// overflowName is the type of the activity that takes events to the dead-letter topic.
	overflowName = "DeadLetterEvents"
)

// Story is what the history of an order's run says of its events and of its end.
type Story struct {
	// Held are the events that came to the run and have not left it for the dead-letter topic, in order of
	// arrival. Those that it applied are among them: the ledger says which.
	Held []order.Held
	// Known is false where some of the events could not be read, or Temporal has forgotten the run.
	Known bool
	// Ended is nil for a run that goes on, completed or continued as new.
	Ended *Ended
	// TaskFailure is why the last workflow task failed of those that the history shows; nil if it did not. The
	// attempts after the first that fails are not in the history.
	TaskFailure *TaskFailure
	// Reset is set in a run that goes on from a place in the history of another run.
	Reset *Reset
}

// Ended is the end of a run that did not complete.
type Ended struct {
	Trouble order.Trouble
	At      time.Time
	// By is the identity of the client that ended it.
	By, Reason string
	// ForReset tells that the server ended it, as a new run goes on in its place.
	ForReset bool
}

// TaskFailure is why a workflow task failed.
type TaskFailure struct {
	At      time.Time
	Cause   enumspb.WorkflowTaskFailedCause
	Message string
}

// Reset is where a run began that goes on from another.
type Reset struct {
	At        time.Time
	BaseRunID string
	Reason    string
	newRun    string
}

// ReadStory reads the history of a run, whatever became of it.
func ReadStory(ctx context.Context, c client.Client, syncID, runID string) (Story, error) {
	ctx, cancel := context.WithTimeout(ctx, storyTimeout)
	defer cancel()
	t := teller{story: Story{Known: true}, at: map[uuid.UUID]int{}, letters: map[int64][]order.Held{}}
	history := c.GetWorkflowHistory(ctx, workflows.WorkflowID(syncID), runID, false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for history.HasNext() {
		event, err := history.Next()
		if forgotten := new(serviceerror.NotFound); errors.As(err, &forgotten) {
			t.story.Known = false
			break
		}
		if err != nil {
			return Story{}, fmt.Errorf("read the history of workflow %s: %w", workflows.WorkflowID(syncID), err)
		}
		t.take(event)
	}
	return t.end(), nil
}

// teller follows a history.
type teller struct {
	story   Story
	held    []order.Held
	at      map[uuid.UUID]int // where in held an event is
	letters map[int64][]order.Held
}

func (t *teller) take(event *historypb.HistoryEvent) {
	at := event.GetEventTime().AsTime()
	switch event.GetEventType() {
	case enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED:
		var in workflows.Input
		if t.decode(event.GetWorkflowExecutionStartedEventAttributes().GetInput(), &in) {
			t.hold(in.Events...)
			if in.Carried != nil && in.Carried.Inbox != nil {
				t.hold(in.Carried.Inbox.Upcoming(in.Carried.Inbox.Len())...)
			}
		}
	case enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED:
		if signaled := event.GetWorkflowExecutionSignaledEventAttributes(); signaled.GetSignalName() == workflows.SignalEvents {
			var batch workflows.Batch
			if t.decode(signaled.GetInput(), &batch) {
				t.hold(batch.Events...)
			}
		}
	case enumspb.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED:
		if scheduled := event.GetActivityTaskScheduledEventAttributes(); scheduled.GetActivityType().GetName() == overflowName {
			var over activities.Overflow
			if t.decode(scheduled.GetInput(), &over) {
				for _, e := range over.Events {
					t.letters[event.GetEventId()] = append(t.letters[event.GetEventId()], order.HeldEvent(e))
				}
			}
		}
	case enumspb.EVENT_TYPE_ACTIVITY_TASK_COMPLETED:
		for _, h := range t.letters[event.GetActivityTaskCompletedEventAttributes().GetScheduledEventId()] {
			if i, ok := t.at[h.EventID]; ok {
				t.held[i].EventID = uuid.Nil // it lies in the dead-letter topic
				delete(t.at, h.EventID)
			}
		}
	case enumspb.EVENT_TYPE_WORKFLOW_TASK_COMPLETED, enumspb.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT:
		t.story.TaskFailure = nil
	case enumspb.EVENT_TYPE_WORKFLOW_TASK_FAILED:
		failed := event.GetWorkflowTaskFailedEventAttributes()
		if failed.GetCause() == enumspb.WORKFLOW_TASK_FAILED_CAUSE_RESET_WORKFLOW {
			t.story.Reset = resetOf(event)
			return
		}
		t.story.TaskFailure = &TaskFailure{At: at, Cause: failed.GetCause(), Message: said(failed.GetFailure())}
	case enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_FAILED:
		t.story.Ended = &Ended{Trouble: order.RunFailed, At: at, By: itself, Reason: said(event.GetWorkflowExecutionFailedEventAttributes().GetFailure())}
	case enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_TIMED_OUT:
		t.story.Ended = &Ended{Trouble: order.RunTimedOut, At: at, By: itself, Reason: "its time was up"}
	case enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_CANCELED:
		t.story.Ended = &Ended{Trouble: order.RunCanceled, At: at, By: itself, Reason: "it was cancelled"}
	case enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_TERMINATED:
		ended := event.GetWorkflowExecutionTerminatedEventAttributes()
		t.story.Ended = &Ended{
			Trouble: order.RunTerminated, At: at, By: cmp.Or(ended.GetIdentity(), "unknown"), Reason: ended.GetReason(), ForReset: ended.GetIdentity() == resetter,
		}
	}
}

func resetOf(event *historypb.HistoryEvent) *Reset {
	failed := event.GetWorkflowTaskFailedEventAttributes()
	return &Reset{
		At: event.GetEventTime().AsTime(), BaseRunID: failed.GetBaseRunId(), newRun: failed.GetNewRunId(), Reason: said(failed.GetFailure()),
	}
}

// said is a failure's message with those of its causes.
func said(f *failurepb.Failure) string {
	var all []string
	for ; f != nil; f = f.GetCause() {
		if m := f.GetMessage(); m != "" {
			all = append(all, m)
		}
	}
	return strings.Join(all, ": ")
}

func (t *teller) decode(input *commonpb.Payloads, into any) bool {
	if err := workflows.DataConverter().FromPayloads(input, into); err != nil {
		t.story.Known = false
		return false
	}
	return true
}

func (t *teller) hold(events ...order.Event) {
	for _, e := range events {
		if _, again := t.at[e.ID]; !again {
			t.at[e.ID] = len(t.held)
			t.held = append(t.held, order.HeldEvent(e))
		}
	}
}

func (t *teller) end() Story {
	t.story.Held = []order.Held{}
	for _, h := range t.held {
		if h.EventID != uuid.Nil {
			t.story.Held = append(t.story.Held, h)
		}
	}
	return t.story
}
