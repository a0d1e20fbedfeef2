// Package workflows decides. OrderSync is the one workflow of an order: a deterministic shell that
// feeds the order's inbox with signals, carries out the step the inbox names next, and shows what
// it is doing. It does no I/O and reads nothing of its process: settings come in its input.
//
//	events ──> receive ──> inbox ──> step: local activity ──> regular activity, without end
//	retry, skip, amend ──┘   │
//	                         ├─ nothing left and invoiced, or idle too long ──> complete
//	                         └─ history grows long, and all pending fits ─────> continue as new
//
// No failure ends the workflow. An event leaves it only when its ledger row is committed or it is
// in the dead-letter topic. Every signal is drained, without yielding, right before a run
// completes or continues: the SDK only warns of unread ones, and they would be lost.
package workflows

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/workflow"

	"ordersync/activities"
	"ordersync/internal/order"
	"ordersync/workflows/inbox"
)

// OrderSync applies one order's events to the target, strictly one after the other.
func OrderSync(ctx workflow.Context, in Input) error {
	s := newOrderSync(ctx, in)
	return s.run()
}

// Carried is what a run hands to the next by continue-as-new.
type Carried struct {
	Inbox       *inbox.Inbox `json:"inbox"`
	OrderStatus order.Status `json:"order_status,omitempty"`
	LastActive  time.Time    `json:"last_active"`
	// Undecoded are inputs of SignalEvents that hold no events, kept as they came.
	Undecoded []undecoded `json:"undecoded,omitempty"`
	// Shown is what the search attributes say, so that the new run does not set them again.
	Shown    shown            `json:"shown"`
	Operator []OperatorAction `json:"operator,omitempty"`
	// Audits are operators' actions on their way to the audit.
	Audits []activities.Audit `json:"audits,omitempty"`
}

// orderSync is a run of OrderSync.
type orderSync struct {
	ctx  workflow.Context
	in   Input
	subs []subscription

	Carried
	// outbox is on its way to the dead-letter topic, in this order; flush is the activity that
	// carries its first letters there, nil while none runs.
	outbox   []letter
	flush    workflow.Future
	flushing int
	// flushAgain starts the regular activity for what is on its way in a local one.
	flushAgain func(execute) workflow.Future
	// recording puts the first of Audits into the audit; nil while none is. It goes its own way: the
	// target may be down while the dead-letter topic is not, and the other way round.
	recording workflow.Future
	// received counts the signals of each name in this run, by which the audit finds their sender
	// in the history.
	received map[string]int
	// steps counts the local activities since the task began that has the history's length taskBegan.
	steps, taskBegan int
	// interrupted tells a step in retry that an operator wants something else now.
	interrupted bool
	alarm       alarm
	// canceled is noted once: a request to cancel is refused.
	canceled workflow.ReceiveChannel
}

func newOrderSync(ctx workflow.Context, in Input) *orderSync {
	if r := in.Settings.Rules; !KnowsRules(r) {
		// Failing the task, not the workflow: it goes on as soon as a worker comes that knows.
		panic(fmt.Sprintf("the run follows rules %d and this worker knows %d to %d: deploy workers that know them, before starters", r, OldestRules, Rules))
	}
	s := &orderSync{in: in, canceled: ctx.Done(), received: map[string]int{}}
	// A cancelled context would cancel every step before it begins, and pending events would die
	// with the run.
	s.ctx, _ = workflow.NewDisconnectedContext(ctx)
	if in.Carried != nil {
		s.Carried = *in.Carried
	} else {
		s.Carried = Carried{Inbox: inbox.New(in.Settings.HoldWindow), LastActive: workflow.Now(ctx)}
	}
	s.add(in.Events)
	s.subscribe()
	s.answerQueries()
	return s
}

// run goes from step to step. Between drain and a return nothing yields.
func (s *orderSync) run() error {
	for {
		s.endLongTask()
		s.drain()
		if s.shouldContinue() {
			return s.continueAsNew()
		}
		if s.rules() >= RulesCredit {
			s.startFlush()
		}
		next := s.next()
		switch next.Action {
		case inbox.Apply:
			s.apply(next.Step)
		case inbox.Skip:
			s.skip(next.Step)
		case inbox.Hold:
			s.show(shown{})
			s.await(next.Until)
		case inbox.Block:
			s.block(next)
			s.await(time.Time{})
		case inbox.Rest:
			s.show(shown{})
			switch {
			case !s.done():
				s.await(s.idleUntil())
			case len(s.outbox) > 0 || len(s.Audits) > 0:
				s.await(time.Time{})
			default:
				return nil
			}
		}
	}
}

// next is the inbox's word, unless a signal that nobody could read may hold an earlier event.
func (s *orderSync) next() inbox.Next {
	next := s.Inbox.Next(s.now())
	if len(s.Undecoded) > 0 && s.Inbox.Stuck == nil {
		first := s.Undecoded[0]
		return inbox.Next{Action: inbox.Block, Type: UndecodableSignal, Message: first.Problem, Since: first.At}
	}
	return next
}

// done tells whether a run with nothing pending has come to its end: the order is invoiced, or has
// been idle for long.
func (s *orderSync) done() bool {
	return s.OrderStatus == order.Invoiced || s.in.Settings.IdleTimeout == 0 || !s.now().Before(s.idleUntil())
}

func (s *orderSync) idleUntil() time.Time { return s.LastActive.Add(s.in.Settings.IdleTimeout) }

// shouldContinue tells whether the history has grown long and everything that is not done yet
// fits into a continue-as-new. An order that is not stuck works off what does not fit; a stuck one
// has already given it to the dead-letter topic.
//
// A step in retry continues too: signals keep arriving behind it, and a history of 50 MiB would be
// terminated by the server, with all that is pending.
func (s *orderSync) shouldContinue() bool {
	return workflow.GetInfo(s.ctx).GetContinueAsNewSuggested() && len(s.outbox) == 0 && s.auditsFit() && s.Inbox.Fits()
}

func (s *orderSync) continueAsNew() error {
	return workflow.NewContinueAsNewError(s.ctx, OrderSyncName, Input{SyncID: s.in.SyncID, Settings: s.in.Settings, Carried: &s.Carried})
}

func (s *orderSync) now() time.Time { return workflow.Now(s.ctx) }

// rules is the number of the behaviour that the run follows.
func (s *orderSync) rules() int { return s.in.Settings.Rules }

// yield lets the worker know that the task goes on: the SDK fails one that runs for a second without a
// pause. It costs no command.
func (s *orderSync) yield() {
	done := workflow.NewChannel(s.ctx)
	workflow.Go(s.ctx, func(ctx workflow.Context) { done.Send(ctx, nil) })
	done.Receive(s.ctx, nil)
}

// maxStepsPerTask bounds the steps of one workflow task. Each leaves a marker of some 300 bytes in the task's
// answer, and gRPC carries 4 MiB: a larger answer fails the task, and the next attempt does all steps again.
const maxStepsPerTask = 1_000

// endLongTask ends a workflow task of many steps, at the cost of a timer.
func (s *orderSync) endLongTask() {
	if s.rules() < RulesCredit {
		return
	}
	if began := workflow.GetInfo(s.ctx).GetCurrentHistoryLength(); began != s.taskBegan {
		s.taskBegan, s.steps = began, 0
	}
	if s.steps >= maxStepsPerTask {
		// A context that is not cancelled, so the timer ends with its time alone.
		_ = workflow.Sleep(s.ctx, time.Millisecond)
	}
}

// alarm is the run's one timer, and a lazy one: it is kept while it rings no later than needed,
// and set again when it has rung too early. Each timer costs an action.
type alarm struct {
	at     time.Time
	rings  workflow.Future
	cancel workflow.CancelFunc
}

// wake sets the alarm to ring by at.
func (s *orderSync) wake(at time.Time) {
	if s.alarm.rings != nil {
		if !s.alarm.at.After(at) {
			return
		}
		s.alarm.cancel()
	}
	ctx, cancel := workflow.WithCancel(s.ctx)
	s.alarm = alarm{at: at, rings: workflow.NewTimer(ctx, at.Sub(s.now())), cancel: cancel}
}

// await shows what the order waits for and yields until something has happened: a signal, the end of a flush, one of futures, or at,
// if it is not zero.
func (s *orderSync) await(at time.Time, futures ...workflow.Future) {
	s.startFlush()
	s.startRecording()
	s.describe()
	if !at.IsZero() {
		s.wake(at)
	}
	selector := workflow.NewSelector(s.ctx)
	// Futures first: a step that has come to its end is not interrupted any more.
	for _, f := range futures {
		selector.AddFuture(f, func(workflow.Future) {})
	}
	for _, sub := range s.subs {
		selector.AddReceive(sub.channel, func(workflow.ReceiveChannel, bool) { s.receive(sub) })
	}
	if s.canceled != nil {
		selector.AddReceive(s.canceled, func(workflow.ReceiveChannel, bool) { s.refuseCancel() })
	}
	if s.alarm.rings != nil {
		// A timer that has fired stays ready: forget it, or the loop spins.
		selector.AddFuture(s.alarm.rings, func(workflow.Future) { s.alarm = alarm{} })
	}
	if s.flush != nil {
		selector.AddFuture(s.flush, func(workflow.Future) { s.endFlush() })
	}
	if s.recording != nil {
		selector.AddFuture(s.recording, func(workflow.Future) { s.endRecording() })
	}
	selector.Select(s.ctx)
}
