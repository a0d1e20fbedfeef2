// Package activities acts for the OrderSync workflow: one method per step on the Target it
// declares, and the way to the dead-letter topic. It turns error classes into application errors,
// which is all the workflow sees of what went wrong.
package activities

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"

	"ordersync/internal/order"
)

// Target is the shop's database. Its errors are *order.Failure.
type Target interface {
	// Apply does one step, at most once however often it is called with the same event.
	Apply(context.Context, order.Step) (order.Result, error)
	// Skip writes the event off in the ledger, unless it stands there already.
	Skip(context.Context, order.Event) (order.Result, error)
	// RecordAction puts a line into the audit, at most once however often it is called.
	RecordAction(context.Context, order.Action) error
}

// DeadLetters is the topic of what will not be applied.
type DeadLetters interface {
	// DeadLetter returns once the brokers have acknowledged all letters. Those of a key keep their order.
	DeadLetter(context.Context, ...order.DeadLetter) error
}

// Notices tells people that an order waits for them.
type Notices interface {
	// Blocked returns at once; what it sets going is never in the way of an order.
	Blocked(order.Blocked)
}

// Activities are the steps of OrderSync. Each may run more than once for the same input; the
// ledger makes that safe.
type Activities struct {
	target      Target
	deadLetters DeadLetters
	notices     Notices
	log         *slog.Logger
}

// New makes the activities that a worker registers.
func New(target Target, deadLetters DeadLetters, notices Notices, log *slog.Logger) *Activities {
	return &Activities{target: target, deadLetters: deadLetters, notices: notices, log: log}
}

// CreateOrder applies an order_creation.
func (a *Activities) CreateOrder(ctx context.Context, step order.Step) (order.Result, error) {
	return a.apply(ctx, step)
}

// UpdateOrder applies an order_updation.
func (a *Activities) UpdateOrder(ctx context.Context, step order.Step) (order.Result, error) {
	return a.apply(ctx, step)
}

// CreateInvoice applies an invoice_creation.
func (a *Activities) CreateInvoice(ctx context.Context, step order.Step) (order.Result, error) {
	return a.apply(ctx, step)
}

func (a *Activities) apply(ctx context.Context, step order.Step) (order.Result, error) {
	result, err := a.target.Apply(ctx, step)
	return result, a.fail(ctx, step.Event.SyncID, err)
}

// SkipEvent writes an event off that an operator gave up.
func (a *Activities) SkipEvent(ctx context.Context, step order.Step) (order.Result, error) {
	result, err := a.target.Skip(ctx, step.Event)
	return result, a.fail(ctx, step.Event.SyncID, err)
}

// Overflow are events that leave an order's workflow for the dead-letter topic.
type Overflow struct {
	Events []order.Event `json:"events"`
	// Reason is why they leave; empty, as an earlier release sent it, is order.OrderBlocked.
	Reason order.Reason `json:"reason,omitempty"`
	// StuckOn names the event that the order does next, or is stuck on.
	StuckOn string `json:"stuck_on"`
	// Other names the event whose identity they have, where that is the reason and it is known.
	Other string `json:"other,omitempty"`
}

// detail says to people why the events left, and what to do.
func (o Overflow) detail(e order.Event) string {
	replay := order.ReplayLettersCommand(e.SyncID).String()
	switch o.Reason {
	case order.IdentityConflict:
		return e.ConflictDetail(cmp.Or(o.Other, "event in the ledger"))
	case order.OrderBacklog:
		return "more events of the order were signalled than its workflow can hold; when it has applied the others: " + replay
	default:
		return "the order is stuck on " + o.StuckOn + " and its queue is full; free the order, then: " + replay
	}
}

// DeadLetterEvents puts events into the dead-letter topic, in their order.
func (a *Activities) DeadLetterEvents(ctx context.Context, o Overflow) error {
	letters := make([]order.DeadLetter, len(o.Events))
	for i, e := range o.Events {
		value, err := e.Message()
		if err != nil {
			return temporal.NewApplicationErrorWithCause("encode "+e.Name(), "Encoding", err)
		}
		letters[i] = order.DeadLetter{
			Source: e.Source, Key: []byte(e.SyncID), Value: value, Reason: cmp.Or(o.Reason, order.OrderBlocked), Detail: o.detail(e),
		}
	}
	if err := a.deadLetters.DeadLetter(ctx, letters...); err != nil {
		return temporal.NewApplicationErrorWithCause(fmt.Sprintf("write %d dead letters", len(letters)), DeadLetterUnavailable, err)
	}
	return nil
}

// DeadLetterUnavailable is the type of the error of a dead letter that was not acknowledged.
const DeadLetterUnavailable = "DeadLetterUnavailable"

// DeadLetterSignal puts the input of a signal into the dead-letter topic that holds no events and
// that an operator gave up. It comes as it was sent, whatever its encoding.
func (a *Activities) DeadLetterSignal(ctx context.Context, syncID string, input converter.RawValue) error {
	payload := input.Payload()
	err := a.deadLetters.DeadLetter(ctx, order.DeadLetter{
		Source: order.Source{Topic: "temporal-signal", ReceivedAt: activity.GetInfo(ctx).ScheduledTime.UTC()},
		Key:    []byte(syncID), Value: payload.GetData(), Reason: order.Undecodable,
		Detail: "signal with encoding " + string(payload.GetMetadata()[converter.MetadataEncoding]) + " held no events of the order",
	})
	if err != nil {
		return temporal.NewApplicationErrorWithCause("dead letter of a signal", DeadLetterUnavailable, err)
	}
	return nil
}

// NoticeBlocked hands on that an order waits for somebody.
func (a *Activities) NoticeBlocked(_ context.Context, b order.Blocked) error {
	a.notices.Blocked(b)
	return nil
}

// Audit is an operator's action to record.
type Audit struct {
	Action order.Action `json:"action"`
	// RunID and Nth tell which signal of its name in which run it came by, from 1: an action that
	// names nobody is by the identity of the client that sent that signal.
	RunID string `json:"run_id"`
	Nth   int    `json:"nth"`
}

// RecordAction puts an operator's action into the audit. It is retried until it succeeds, whatever the
// error: nobody could be asked to amend an audit.
func (a *Activities) RecordAction(ctx context.Context, audit Audit) error {
	action := audit.Action
	if action.By == "" {
		by, err := sender(ctx, audit)
		if err != nil {
			return temporal.NewApplicationErrorWithCause("find who sent the signal "+action.Name, "HistoryUnavailable", err)
		}
		action.By = cmp.Or(by, "unknown")
	}
	err := a.target.RecordAction(ctx, action)
	var failure *order.Failure
	if errors.As(err, &failure) {
		err = &order.Failure{Type: failure.Type, Operator: true, Err: failure.Err}
	}
	return a.fail(ctx, action.SyncID, err)
}

// CancelRequest names the audit's action for a request to cancel an order's workflow. Such a request is not a signal.
const CancelRequest = "cancel"

// sender is the identity that the history of a run gives for the nth signal of a name; the workflow
// itself does not see it. A run that Temporal has forgotten was sent its signals by nobody known.
func sender(ctx context.Context, audit Audit) (string, error) {
	nth := audit.Nth
	id := activity.GetInfo(ctx).WorkflowExecution.ID
	history := activity.GetClient(ctx).GetWorkflowHistory(ctx, id, audit.RunID, false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for history.HasNext() {
		event, err := history.Next()
		if forgotten := new(serviceerror.NotFound); errors.As(err, &forgotten) {
			return "", nil
		}
		if err != nil {
			return "", err
		}
		if requested := event.GetWorkflowExecutionCancelRequestedEventAttributes(); requested != nil && audit.Action.Name == CancelRequest {
			return requested.GetIdentity(), nil
		}
		if signaled := event.GetWorkflowExecutionSignaledEventAttributes(); signaled.GetSignalName() == audit.Action.Name {
			if nth--; nth == 0 {
				return signaled.GetIdentity(), nil
			}
		}
	}
	return "", errors.New("the history of the run has fewer such signals")
}

// maxMessage bounds an error's text in bytes: it goes into the history.
const maxMessage = 1000

// fail makes of a target's failure what Temporal goes by: the type, and whether to retry.
func (a *Activities) fail(ctx context.Context, syncID string, err error) error {
	if err == nil {
		return nil
	}
	failure := &order.Failure{Type: "Unknown", Err: err}
	errors.As(err, &failure)
	if failure.Operator {
		a.log.ErrorContext(ctx, "the target's set-up needs an operator", "order", syncID, "reason", failure.Type, "error", err)
	}
	return temporal.NewApplicationErrorWithOptions(order.Clip(failure.Err.Error(), maxMessage), failure.Type, temporal.ApplicationErrorOptions{NonRetryable: failure.Permanent})
}
