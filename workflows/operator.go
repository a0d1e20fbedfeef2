package workflows

import (
	"encoding/json"
	"fmt"

	"github.com/google/uuid"
	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/workflow"

	"ordersync/activities"
	"ordersync/internal/order"
)

// takeOperator acts on what the order is stuck on now. A signal that comes when the order is not
// stuck, or that names another event, is noted and never remembered: nobody should find next week
// that an old skip has hit a new event.
func (s *orderSync) takeOperator(signal string, payload *commonpb.Payload) {
	var in Amend // which has every field of Retry and Skip
	if len(s.Audits) >= maxAudits {
		s.remember(signal, in, "refused: the audit of earlier signals waits for the target; send it again once that is mended")
		return
	}
	if err := decodeOptional(payload, &in, &in.Reason); err != nil {
		s.note(signal, in, "refused: its input could not be read: "+err.Error(), nil)
		return
	}
	if s.Inbox.Stuck == nil && len(s.Undecoded) > 0 {
		effect := "ignored: the order is stuck on an events signal that cannot be read, and not as the signal says"
		if in.EventID == "" && (in.StuckBefore.IsZero() || !s.Undecoded[0].At.After(in.StuckBefore)) {
			effect = s.operateUndecoded(signal)
		}
		s.note(signal, in, effect, nil)
		return
	}
	now := s.now()
	e := s.Inbox.StuckOn(now)
	switch {
	case e == nil:
		s.note(signal, in, "ignored: the order is not stuck", nil)
		return
	case in.EventID != "" && order.ParseEventID(in.EventID) != e.ID:
		s.note(signal, in, "ignored: the order is stuck on "+e.Name()+" "+e.ID.String(), nil)
		return
	case !in.StuckBefore.IsZero() && s.Inbox.Next(now).Since.After(in.StuckBefore):
		s.note(signal, in, "ignored: the order got stuck on "+e.Name()+" later than "+stamp(in.StuckBefore), nil)
		return
	case s.Inbox.Stuck != nil && s.Inbox.Stuck.Skip && signal != SignalRetry:
		s.note(signal, in, "ignored: "+e.Name()+" is being skipped already", nil)
		return
	}
	in.EventID = e.ID.String()
	switch signal {
	case SignalRetry:
		s.note(signal, in, "tried "+e.Name()+" at once", nil)
		s.Inbox.Retry(now)
	case SignalSkip:
		s.note(signal, in, "skipped "+e.Name(), nil)
		s.Inbox.Skip(now)
	case SignalAmend:
		data, err := order.ParseData(in.Data)
		if err != nil {
			s.note(signal, in, "refused: "+err.Error(), nil)
			return
		}
		s.note(signal, in, "replaced the data of "+e.Name()+" and tried it", e.Data)
		s.Inbox.Amend(data, now)
	}
	s.interrupted = true
}

// operateUndecoded acts on inputs of SignalEvents that hold no events: a worker that knows more may
// read them now, or they go to the dead-letter topic.
func (s *orderSync) operateUndecoded(signal string) string {
	kept := s.Undecoded
	switch signal {
	case SignalRetry:
		s.Undecoded = nil
		for _, u := range kept {
			s.takeEvents(u.payload())
		}
		if len(s.Undecoded) > 0 {
			return "tried to read the events signal again: " + s.Undecoded[0].Problem
		}
		return "read the events signal"
	case SignalSkip:
		s.Undecoded = nil
		for _, u := range kept {
			s.outbox = append(s.outbox, letter{signal: &u})
		}
		return "sent the unreadable events signal to the dead-letter topic"
	default:
		return "ignored: the order is stuck on an unreadable events signal; retry or skip it"
	}
}

// noteTooLate tells an operator whose skip or amend came when the target had the event already.
func (s *orderSync) noteTooLate(e order.Event, r order.Result) {
	stuck := s.Inbox.Stuck
	by := Amend{EventID: e.ID.String(), By: "ordersync"}
	switch {
	case stuck == nil:
	case stuck.Skip && r.Outcome != order.Skipped:
		s.note(SignalSkip, by, "too late: the target had "+e.Name()+" already ("+string(r.Outcome)+")", nil)
	case stuck.Amended && r.Duplicate:
		s.note(SignalAmend, by, "perhaps too late: the target had "+e.Name()+" already; compare its data", nil)
	}
}

// refuseCancel notes, once, that the workflow does not end for a request to cancel it.
func (s *orderSync) refuseCancel() {
	s.canceled = nil
	s.remember("cancel", Amend{}, "refused: pending events would be lost; skip what is stuck, or terminate the run and replay from Kafka")
}

// Bounds of the actions that wait to be recorded, and so of what an outage of the target leaves in
// the run. Of amended data so much may be carried by continue-as-new; with more the run waits.
const (
	maxAudits        = 100
	maxCarriedAmends = 256 << 10
)

// auditsFit tells whether the actions that wait fit into a continue-as-new.
func (s *orderSync) auditsFit() bool {
	amends := 0
	for _, a := range s.Audits {
		amends += len(a.Action.Original)
	}
	return amends <= maxCarriedAmends
}

// note remembers an operator's signal and what came of it, and sends it to the audit, with the data
// that an amendment replaces. It is called before the inbox acts, to tell what was before.
func (s *orderSync) note(signal string, in Amend, effect string, original json.RawMessage) {
	noted := s.remember(signal, in, effect)
	nth := s.received[signal]
	info := workflow.GetInfo(s.ctx)
	action := order.Action{
		// The same whenever the run is replayed, and whenever the activity is.
		ID:     uuid.NewSHA1(uuid.Nil, fmt.Appendf(nil, "%s/%s/%d/%s", info.WorkflowExecution.RunID, signal, nth, in.By)),
		SyncID: s.in.SyncID, Name: signal, By: noted.By, At: noted.At, Reason: noted.Reason,
		Before: noted.Before, Effect: noted.Effect, Original: original,
	}
	if in.EventID != "" {
		id := order.ParseEventID(in.EventID)
		action.EventID = &id
	}
	s.Audits = append(s.Audits, activities.Audit{Action: action, RunID: info.WorkflowExecution.RunID, Nth: nth})
}

// remember puts a signal into the state.
func (s *orderSync) remember(signal string, in Amend, effect string) OperatorAction {
	state := s.summary(s.next())
	before := state.Status
	if state.Reason != "" {
		before += ": " + state.Reason
	}
	noted := OperatorAction{
		At: s.now(), Signal: signal, EventID: clip(in.EventID), By: clip(in.By), Reason: clip(in.Reason),
		Before: clip(before), Effect: clip(effect),
	}
	s.Operator = append(s.Operator, noted)
	s.Operator = s.Operator[max(0, len(s.Operator)-maxOperator):]
	return noted
}
