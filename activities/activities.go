// Package activities acts for the OrderSync workflow: one method per step on the Target it
// declares, and the way to the dead-letter topic. It turns error classes into application errors,
// which is all the workflow sees of what went wrong.
package activities

import (
	"context"
	"errors"
	"log/slog"
	"strings"

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
}

// DeadLetters is the topic of what will not be applied.
type DeadLetters interface {
	// DeadLetter returns once the brokers have acknowledged the letter.
	DeadLetter(context.Context, order.DeadLetter) error
}

// Activities are the steps of OrderSync. Each may run more than once for the same input; the
// ledger makes that safe.
type Activities struct {
	target      Target
	deadLetters DeadLetters
	log         *slog.Logger
}

// New makes the activities that a worker registers.
func New(target Target, deadLetters DeadLetters, log *slog.Logger) *Activities {
	return &Activities{target: target, deadLetters: deadLetters, log: log}
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
	return result, a.fail(ctx, step.Event, err)
}

// SkipEvent writes an event off that an operator gave up.
func (a *Activities) SkipEvent(ctx context.Context, step order.Step) (order.Result, error) {
	result, err := a.target.Skip(ctx, step.Event)
	return result, a.fail(ctx, step.Event, err)
}

// Overflow is what arrived behind a stuck order whose queue was full.
type Overflow struct {
	Events []order.Event `json:"events"`
	// StuckOn names the event the order is stuck on.
	StuckOn string `json:"stuck_on"`
}

// DeadLetterEvents puts events into the dead-letter topic, in their order.
func (a *Activities) DeadLetterEvents(ctx context.Context, o Overflow) error {
	for _, e := range o.Events {
		value, err := e.Message()
		if err != nil {
			return temporal.NewApplicationErrorWithCause("encode "+e.Name(), "Encoding", err)
		}
		err = a.deadLetters.DeadLetter(ctx, order.DeadLetter{
			Source: e.Source, Key: []byte(e.SyncID), Value: value, Reason: order.OrderBlocked,
			Detail: "the order is stuck on " + o.StuckOn + " and its queue is full; free the order, then publish this again",
		})
		if err != nil {
			return temporal.NewApplicationErrorWithCause("dead letter "+e.Name(), DeadLetterUnavailable, err)
		}
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

// maxMessage bounds an error's text in bytes: it goes into the history.
const maxMessage = 1000

// fail makes of a target's failure what Temporal goes by: the type, and whether to retry.
func (a *Activities) fail(ctx context.Context, e order.Event, err error) error {
	if err == nil {
		return nil
	}
	failure := &order.Failure{Type: "Unknown", Err: err}
	errors.As(err, &failure)
	if failure.Operator {
		a.log.ErrorContext(ctx, "the target's set-up needs an operator", "order", e.SyncID, "event", e.ID, "reason", failure.Type, "error", err)
	}
	text := failure.Err.Error()
	if len(text) > maxMessage {
		text = strings.ToValidUTF8(text[:maxMessage], "") + "…"
	}
	return temporal.NewApplicationErrorWithOptions(text, failure.Type, temporal.ApplicationErrorOptions{NonRetryable: failure.Permanent})
}
