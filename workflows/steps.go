package workflows

import (
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"ordersync/activities"
	"ordersync/internal/order"
)

// The fast path: a few attempts inside the workflow task, which cost no action of their own and
// leave one marker. It must end well before the task does (WorkflowTaskTimeout is 5 s): beyond 80 %
// of that the task heartbeats.
var fastPath = workflow.LocalActivityOptions{
	ScheduleToCloseTimeout: 3 * time.Second,
	StartToCloseTimeout:    2 * time.Second,
	RetryPolicy: &temporal.RetryPolicy{
		InitialInterval: 50 * time.Millisecond, BackoffCoefficient: 2, MaximumInterval: 200 * time.Millisecond, MaximumAttempts: 3,
	},
}

// The slow path: without end, one attempt a minute at most, with attempts and the last error in
// the Web UI.
var slowPath = workflow.ActivityOptions{
	StartToCloseTimeout: 20 * time.Second,
	RetryPolicy: &temporal.RetryPolicy{
		InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: time.Minute,
	},
}

// apply does one step, or finds out why it cannot be done.
func (s *orderSync) apply(step order.Step) {
	var a *activities.Activities
	do := a.UpdateOrder
	switch step.Event.Kind {
	case order.Creation:
		do = a.CreateOrder
	case order.Invoice:
		do = a.CreateInvoice
	}
	s.do(step, do, step.Event.Name())
}

// skip writes an event off.
func (s *orderSync) skip(step order.Step) {
	var a *activities.Activities
	s.do(step, a.SkipEvent, "skip "+step.Event.Name())
}

// do tries a step fast, then without end, and tells the inbox what came of it. An operator who
// wants something else, or a history grown long, ends the trying: the event then stays pending,
// and an attempt that may still be running is harmless, as the ledger knows each event once.
func (s *orderSync) do(step order.Step, activity any, summary string) {
	s.interrupted = false
	id := step.Event.ID

	var result order.Result
	fast := fastPath
	fast.Summary = summary
	ctx := workflow.WithLocalActivityOptions(s.ctx, fast)
	s.steps++
	err := workflow.ExecuteLocalActivity(ctx, activity, step).Get(ctx, &result)
	if err == nil {
		err = s.check(result)
	}
	if err != nil && !permanent(err) {
		s.Inbox.Delay(id, errorType(err), clip(errorText(err)), s.now())
		s.show(shown{Status: StatusRetrying, Error: errorType(err), Since: s.Inbox.Stuck.Since})
		slow := slowPath
		slow.Summary = summary
		ctx, cancel := workflow.WithCancel(workflow.WithActivityOptions(s.ctx, slow))
		future := workflow.ExecuteActivity(ctx, activity, step)
		for ready := false; !ready; ready = future.IsReady() {
			s.await(time.Time{}, future)
			// An operator's word is heard even if it comes with the result: the result is then asked
			// for once more, and is the ledger's.
			if s.drain(); s.interrupted || !future.IsReady() && s.shouldContinue() {
				cancel()
				return
			}
		}
		result = order.Result{}
		if err = future.Get(ctx, &result); err == nil {
			err = s.check(result)
		}
	}

	switch {
	case err != nil && !permanent(err):
		// The slow path ends this way only by hand (`temporal activity fail` or `complete`): the step
		// stays the next one and is tried again.
		s.Inbox.Delay(id, errorType(err), clip(errorText(err)), s.now())
	case err != nil:
		s.Inbox.Refuse(id, errorType(err), clip(errorText(err)), s.now())
	case result.Outcome == order.Missing:
		s.OrderStatus = ""
		s.Inbox.Lacks(s.now())
	case result.Outcome == order.Conflict:
		s.outbox = append(s.outbox, letter{event: &step.Event, reason: order.IdentityConflict, other: result.Recorded})
		s.OrderStatus, s.LastActive = result.Status, s.now()
		s.Inbox.Drop(id)
		s.Inbox.Waits(s.now())
	default:
		s.noteTooLate(step.Event, result)
		s.OrderStatus, s.LastActive = result.Status, s.now()
		s.Inbox.Resolve(id, result, s.now())
		if s.rules() >= RulesCredit {
			s.Inbox.Waits(s.now())
		}
	}
}

// UnknownOutcome is the type of the error of a step whose result is none of the known ones: somebody
// completed it by hand (`temporal activity complete`).
const UnknownOutcome = "UnknownOutcome"

// check refuses a result that says nothing of the event: the target is asked again.
func (s *orderSync) check(r order.Result) error {
	switch r.Outcome {
	case order.Applied, order.Stale, order.Skipped, order.Missing, order.Conflict:
		return nil
	}
	if s.rules() < RulesCredit {
		return nil
	}
	return temporal.NewApplicationError(fmt.Sprintf("the result has outcome %q, which is none of the known ones; the step is tried again", r.Outcome), UnknownOutcome)
}

func permanent(err error) bool {
	var app *temporal.ApplicationError
	return errors.As(err, &app) && app.NonRetryable()
}

// errorType is the word by which stuck orders are filtered. A local activity's error comes
// unwrapped, in the SDK's test suite wrapped, so it is looked for along the chain.
func errorType(err error) string {
	var app *temporal.ApplicationError
	var timeout *temporal.TimeoutError
	var crash *temporal.PanicError
	switch {
	case errors.As(err, &app) && app.Type() != "":
		return app.Type()
	case errors.As(err, &timeout):
		return "Timeout"
	case errors.As(err, &crash):
		return "Panic"
	default:
		return "Unknown"
	}
}

func errorText(err error) string {
	var app *temporal.ApplicationError
	if errors.As(err, &app) {
		return app.Message()
	}
	return err.Error()
}

// letter is one thing on its way to the dead-letter topic: an event and why it goes there, or a
// signal's input.
type letter struct {
	event  *order.Event
	reason order.Reason
	// other names the event whose identity it has, where that is the reason.
	other  string
	signal *undecoded
}

// Bounds of one flush, which is one activity and its input.
const (
	maxFlush      = 100
	maxFlushBytes = 512 << 10
)

// startFlush sends the first letters of the outbox on their way: events that go for the same reason, or
// one signal. It goes on beside the step the order is stuck on.
//
// The history of a run has the input of a regular activity, but not that of a local one. So where it nears
// the server's limit a local activity tries first, which may write letters twice when its task is repeated.
// Where that fails the regular one goes on with it without end.
func (s *orderSync) startFlush() {
	if s.flush != nil || len(s.outbox) == 0 {
		return
	}
	send := s.firstLetters()
	if s.rules() >= RulesCredit && s.nearsLimit() {
		s.flush, s.flushAgain = send(s.local), send
		return
	}
	s.flush = send(s.regular)
}

type execute func(activity any, args ...any) workflow.Future

func (s *orderSync) regular(activity any, args ...any) workflow.Future {
	return workflow.ExecuteActivity(workflow.WithActivityOptions(s.ctx, slowPath), activity, args...)
}

func (s *orderSync) local(activity any, args ...any) workflow.Future {
	options := fastPath
	options.Summary = "dead letters"
	return workflow.ExecuteLocalActivity(workflow.WithLocalActivityOptions(s.ctx, options), activity, args...)
}

// firstLetters is how to send those that go together, in either kind of activity. It counts them.
func (s *orderSync) firstLetters() func(execute) workflow.Future {
	var a *activities.Activities
	first := s.outbox[0]
	if first.signal != nil {
		s.flushing = 1
		return func(do execute) workflow.Future {
			return do(a.DeadLetterSignal, s.in.SyncID, converter.NewRawValue(first.signal.payload()))
		}
	}
	over := activities.Overflow{StuckOn: s.Inbox.Next(s.now()).Step.Event.Name(), Reason: first.reason, Other: first.other}
	bytes := 0
	for _, l := range s.outbox {
		if l.event == nil || l.reason != first.reason || l.other != first.other ||
			len(over.Events) == maxFlush || len(over.Events) > 0 && bytes+l.event.Size() > maxFlushBytes {
			break
		}
		bytes += l.event.Size()
		over.Events = append(over.Events, *l.event)
	}
	s.flushing = len(over.Events)
	return func(do execute) workflow.Future { return do(a.DeadLetterEvents, over) }
}

// endFlush drops what is in the dead-letter topic now. The regular activity has no end but success; where
// it was failed by hand, the letters begin again.
func (s *orderSync) endFlush() {
	switch err := s.flush.Get(s.ctx, nil); {
	case err == nil:
		s.outbox = s.outbox[s.flushing:]
	case s.flushAgain != nil:
		s.flush, s.flushAgain = s.flushAgain(s.regular), nil
		return
	}
	s.flush, s.flushAgain, s.flushing = nil, nil, 0
}

// startRecording puts the first of the actions that wait into the audit.
func (s *orderSync) startRecording() {
	if s.recording != nil || len(s.Audits) == 0 {
		return
	}
	var a *activities.Activities
	s.recording = workflow.ExecuteActivity(workflow.WithActivityOptions(s.ctx, slowPath), a.RecordAction, s.Audits[0])
}

// endRecording drops the action that is in the audit now; a recording that was failed by hand begins
// again.
func (s *orderSync) endRecording() {
	if err := s.recording.Get(s.ctx, nil); err == nil {
		s.Audits = s.Audits[1:]
	}
	s.recording = nil
}
