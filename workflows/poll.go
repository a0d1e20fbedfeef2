package workflows

import (
	"fmt"
	"reflect"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"ordersync/activities"
	"ordersync/internal/order"
)

const (
	// PollERPName is the type of the workflow that reads an ERP's changes and publishes them.
	PollERPName = "PollERP"
	// PollERPID is the id of its schedule, with which the ids of its runs begin.
	PollERPID = "ordersync-poll"
)

// ERPTaskQueue is the task queue of the activities that read the ERP, beside a deployment's own. Only
// workers that know the ERP take from it. And there is no queue in it: orders in retry, of which there may
// be thousands while the target is down, do not keep the ERP from being polled.
func ERPTaskQueue(queue string) string { return queue + "-erp" }

// PollState is how far polling has come: the result of PollERP, and by way of Temporal's last
// completion result what the next poll begins with.
type PollState = order.PollState

// PollInput is what a poll goes by. It travels in the schedule.
type PollInput struct {
	// From is where polling begins that has no cursor; zero is the beginning of what the ERP has. One
	// that is not that of the poll before makes polling begin anew.
	From time.Time `json:"from,omitzero"`
	// Overlap is how far before its last row a poll begins again.
	Overlap time.Duration `json:"overlap"`
	// PageSize is the number of rows of a page.
	PageSize int `json:"page_size"`
	// Resume stands in for the result of a poll before, where the schedule knows of none.
	Resume *PollState `json:"resume,omitempty"`
	// Carried is what a run before hands on by continue-as-new: the poll is under way.
	Carried *PollState `json:"carried,omitempty"`
}

// PollERP reads what has changed in the ERP since the poll before it, and publishes it to Kafka. It
// ends when it has seen the end of the ERP's changes. No outage makes it fail: it goes on when that is over.
func PollERP(ctx workflow.Context, in PollInput) (PollState, error) {
	task := order.PollTask{Overlap: in.Overlap, PageSize: in.PageSize}
	if in.Carried != nil {
		task.State = *in.Carried
	} else {
		task.State, task.Begin = lastPoll(ctx, in), true
	}
	if err := pollPages(ctx, &task, "poll"); err != nil || !task.State.More {
		return task.State, err
	}
	in.Carried = &task.State
	return task.State, workflow.NewContinueAsNewError(ctx, PollERPName, in)
}

// lastPoll is what the poll before has come to; one that is to begin elsewhere has come to nothing.
func lastPoll(ctx workflow.Context, in PollInput) PollState {
	last := in.Resume
	if workflow.HasLastCompletionResult(ctx) {
		last = &PollState{}
		if err := workflow.GetLastCompletionResult(ctx, last); err != nil {
			// Reading all of it again costs time, and is harmless. Failing here would stop polling for good.
			workflow.GetLogger(ctx).Error("the result of the last poll cannot be read: polling begins anew", "error", err)
			last = nil
		}
	}
	if last == nil || !in.From.IsZero() && !in.From.Equal(last.From) {
		return PollState{From: in.From}
	}
	return *last
}

// pollOptions: an attempt works for about a minute, and heartbeats say that it lives. It is retried
// without end, at most a minute apart unless the ERP asks for more, with its attempts and the last error in the Web UI.
var pollOptions = workflow.ActivityOptions{
	StartToCloseTimeout: 15 * time.Minute, // a page may be slow, and Kafka as well
	HeartbeatTimeout:    30 * time.Second,
	WaitForCancellation: true,
	RetryPolicy: &temporal.RetryPolicy{
		InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: time.Minute,
	},
}

// maxStretches bounds the activities of a run, and with them its history: each is some ten events, and
// carries the state twice.
const maxStretches = 100

// pollPages does stretch after stretch of a poll, until the end of the source or of the run.
func pollPages(ctx workflow.Context, task *order.PollTask, what string) error {
	var a *activities.Polling
	for n := 0; n < maxStretches && !workflow.GetInfo(ctx).GetContinueAsNewSuggested(); n++ {
		workflow.SetCurrentDetails(ctx, describePoll(*task, what))
		options := pollOptions
		options.TaskQueue = ERPTaskQueue(workflow.GetInfo(ctx).TaskQueueName)
		options.Summary = pollSummary(*task, what)
		var state PollState
		if err := workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, options), a.PollPages, *task).Get(ctx, &state); err != nil {
			return err
		}
		if !comesFrom(state, *task) {
			workflow.GetLogger(ctx).Error("the result of PollPages is none that a poll has, so the stretch is read again: was the activity completed by hand?")
			continue
		}
		task.State, task.Begin = state, false
		if !state.More {
			break
		}
	}
	workflow.SetCurrentDetails(ctx, describePoll(*task, what))
	return nil
}

// comesFrom returns whether a state can be what the activity made of the task. A person may complete the
// activity with any result (`temporal activity complete --result null`). Taken as it is, an empty one would end
// the poll and move the cursor back to the beginning.
//
// This needs no number of rules: a result that fails the check used to end its run within the same workflow
// task, so no open run has one in its history with commands after it.
func comesFrom(state PollState, task order.PollTask) bool {
	switch {
	case reflect.ValueOf(state).IsZero():
		return false
	case state.Cursor == "" && task.State.Cursor != "":
		return state.Anew // the cursor was none of this ERP's, and the ERP has no rows
	default:
		return task.Begin || state.Read >= task.State.Read
	}
}

func pollSummary(task order.PollTask, what string) string {
	switch {
	case task.Begin && task.State.Cursor == "" && !task.State.From.IsZero():
		return what + " from " + task.State.From.UTC().Format(time.RFC3339)
	case task.Begin && task.State.Cursor == "":
		return what + " from the beginning"
	case task.Begin:
		return what
	default:
		return fmt.Sprintf("%s, on from row %d", what, task.State.Read)
	}
}

// describePoll is the poll for the Web UI.
func describePoll(task order.PollTask, what string) string {
	s := task.State
	var text strings.Builder
	switch {
	case task.Begin:
		fmt.Fprintf(&text, "**The %s begins.** It ends by itself. If its activity is\n\n"+
			"- *retrying*: its last failure says whether it is the ERP or Kafka that does not answer;\n"+
			"- *not taken at all*: no worker has `ERP_SOURCE` set.\n", what)
		return text.String()
	case s.More:
		fmt.Fprintf(&text, "**The %s goes on.** It has read %d rows so far", what, s.Read)
	default:
		fmt.Fprintf(&text, "**The %s is through.** It has read %d rows", what, s.Read)
	}
	fmt.Fprintf(&text, ", of which %d were published, %d known already", s.Published, s.Known)
	if s.Unversioned > 0 {
		fmt.Fprintf(&text, ", %d left out without a version", s.Unversioned)
	}
	text.WriteString(".\n")
	if s.Rejected > 0 {
		fmt.Fprintf(&text, "\n%d rows are no events, the first: %s. See `ordersync deadletter list`.\n", s.Rejected, s.FirstBad)
	}
	if !s.ChangedUntil.IsZero() {
		fmt.Fprintf(&text, "\nThe youngest change read is of %s.\n", s.ChangedUntil.UTC().Format(time.RFC3339))
	}
	return text.String()
}
