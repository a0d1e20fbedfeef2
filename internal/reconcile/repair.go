package reconcile

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"
	"github.com/segmentio/kafka-go"
	"golang.org/x/sync/errgroup"

	"ordersync/internal/erp"
	"ordersync/internal/order"
	"ordersync/internal/publish"
)

// repair publishes the ERP's state of the orders that a repair mends, and notes in the findings which
// event it was, or why there is none. The events go the way of all others and meet the rules of the
// target there: as ties apply, the ERP's version needs no higher one.
//
// The audit is written first. A crash in between leaves a line about an event that is published by the
// next attempt, under the same id.
func (w *walk) repair(ctx context.Context, orders map[string]erp.Order, findings []order.Finding) (repaired int, err error) {
	if !w.Found.Repair {
		return 0, nil
	}
	var messages []kafka.Message
	var at []int       // the finding of each message
	var names []string // and its event for people
	for i := range findings {
		f := &findings[i]
		if !f.Class.Repairable() {
			continue
		}
		e := w.event(*f, orders[f.SyncID])
		message, refusal := w.message(e)
		if refusal != "" {
			f.Why = "not repaired: " + refusal
			continue
		}
		f.Repair = &e.ID
		messages, at, names = append(messages, message), append(at, i), append(names, e.Name())
	}
	if len(messages) == 0 {
		return 0, nil
	}
	if err := w.recordAll(ctx, findings, at, names, messages); err != nil {
		return 0, err
	}
	err = w.producer.Publish(ctx, messages...)
	var each publish.Errors
	switch {
	case err == nil:
		return len(messages), nil
	case !errors.As(err, &each):
		return 0, fmt.Errorf("publish %d repairs: %w", len(messages), err)
	}
	for i, err := range each {
		f := &findings[at[i]]
		switch {
		case err == nil:
			repaired++
		case publish.TooLarge(err):
			f.Why = "not repaired: topic " + messages[i].Topic + " refuses an event of this size"
			if err := w.record(ctx, *f, "refusal", f.Why); err != nil {
				return 0, err
			}
			f.Repair = nil
		default: // the others are published again, as what they are
			return 0, fmt.Errorf("publish the repair of order %s: %w", f.SyncID, err)
		}
	}
	return repaired, nil
}

// event is the ERP's state of an order as an event. Its id is that of the run and what is published,
// so that it is the same in each attempt. A version that comes from a time is left out where the target has none like
// it, as it would make later versions of the ERP's own stale; and it is raised to the target's, where the order's
// newest line was deleted, as the event would be stale itself.
func (w *walk) event(f order.Finding, o erp.Order) order.Event {
	if o.Derived && f.ERPVersion > 0 {
		f.ERPVersion = max(f.ERPVersion, f.TargetVersion)
	}
	e := order.Event{
		SyncID: o.SyncID, Kind: order.Update, Version: f.ERPVersion, Data: o.Data, Channel: o.Channel, OccurredAt: o.ChangedAt,
		ID: w.id(fmt.Appendf(nil, "%s/%d/%x", o.SyncID, f.ERPVersion, order.MeaningOf(o.Data))),
	}
	if f.Class == order.DriftMissing {
		e.Kind = order.Creation
	}
	if e.OccurredAt.IsZero() {
		e.OccurredAt = w.Found.StartedAt
	}
	return e
}

// id is a name within the run.
func (w *walk) id(name []byte) uuid.UUID {
	run, err := uuid.Parse(w.Found.RunID)
	if err != nil { // Temporal's run ids are UUIDs
		run = uuid.NewSHA1(uuid.Nil, []byte(w.Found.RunID))
	}
	return uuid.NewSHA1(run, name)
}

// message is the event's record, or why it would become none.
func (w *walk) message(e order.Event) (m kafka.Message, refusal string) {
	topic, ok := w.topics[e.Channel]
	if !ok {
		return m, fmt.Sprintf("no topic is read for channel %q", e.Channel)
	}
	value, err := e.Message()
	switch {
	case err != nil:
		return m, err.Error()
	case len(value) > order.MaxValue:
		return m, fmt.Sprintf("the event would have %d bytes, the limit is %d", len(value), order.MaxValue)
	}
	return kafka.Message{Topic: topic, Key: []byte(e.SyncID), Value: value}, ""
}

// recordAll puts what is about to be published into the audit.
func (w *walk) recordAll(ctx context.Context, findings []order.Finding, at []int, names []string, messages []kafka.Message) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for i, message := range messages {
		f := findings[at[i]]
		group.Go(func() error {
			return w.record(ctx, f, "repair", "publishes "+names[i]+" as the ERP has it, to "+message.Topic)
		})
	}
	return group.Wait()
}

func (w *walk) record(ctx context.Context, f order.Finding, what, effect string) error {
	before := string(f.Class)
	if f.TargetVersion > 0 {
		before += fmt.Sprintf(": version %d", f.TargetVersion)
	}
	err := w.target.RecordAction(ctx, order.Action{
		ID: w.id([]byte(what + "/" + f.Repair.String())), SyncID: f.SyncID, Name: order.RepairAction, EventID: f.Repair,
		By: w.Found.By, At: time.Now().UTC(), Reason: "reconcile " + w.Found.RunID, Before: before, Effect: effect,
	})
	if err != nil {
		return fmt.Errorf("record the repair of order %s: %w", f.SyncID, err)
	}
	return nil
}
