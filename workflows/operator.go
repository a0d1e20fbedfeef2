package workflows

import (
	commonpb "go.temporal.io/api/common/v1"

	"ordersync/internal/order"
)

// takeOperator acts on what the order is stuck on now. A signal that comes when the order is not
// stuck, or that names another event, is noted and never remembered: nobody should find next week
// that an old skip has hit a new event.
func (s *orderSync) takeOperator(signal string, payload *commonpb.Payload) {
	var in Amend // which has every field of Retry and Skip
	if err := decodeOptional(payload, &in, &in.Reason); err != nil {
		s.note(signal, in, "refused: its input could not be read: "+err.Error())
		return
	}
	if s.Inbox.Stuck == nil && len(s.Undecoded) > 0 {
		s.note(signal, in, s.operateUndecoded(signal))
		return
	}
	now := s.now()
	e := s.Inbox.StuckOn(now)
	switch {
	case e == nil:
		s.note(signal, in, "ignored: the order is not stuck")
		return
	case in.EventID != "" && order.ParseEventID(in.EventID) != e.ID:
		s.note(signal, in, "ignored: the order is stuck on "+e.Name()+" "+e.ID.String())
		return
	case s.Inbox.Stuck != nil && s.Inbox.Stuck.Skip && signal != SignalRetry:
		s.note(signal, in, "ignored: "+e.Name()+" is being skipped already")
		return
	}
	effect := ""
	switch signal {
	case SignalRetry:
		s.Inbox.Retry(now)
		effect = "tried " + e.Name() + " at once"
	case SignalSkip:
		s.Inbox.Skip(clip(in.Reason), now)
		effect = "skipped " + e.Name()
	case SignalAmend:
		data, err := order.ParseData(in.Data)
		if err != nil {
			s.note(signal, in, "refused: "+err.Error())
			return
		}
		s.Inbox.Amend(data, now)
		effect = "replaced the data of " + e.Name() + " and tried it"
	}
	in.EventID = e.ID.String()
	s.interrupted = true
	s.note(signal, in, effect)
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
	switch {
	case stuck == nil:
	case stuck.Skip && r.Outcome != order.Skipped:
		s.note(SignalSkip, Amend{EventID: e.ID.String()}, "too late: the target had "+e.Name()+" already ("+string(r.Outcome)+")")
	case stuck.Amended && r.Duplicate:
		s.note(SignalAmend, Amend{EventID: e.ID.String()}, "perhaps too late: the target had "+e.Name()+" already; compare its data")
	}
}

// refuseCancel notes, once, that the workflow does not end for a request to cancel it.
func (s *orderSync) refuseCancel() {
	s.canceled = nil
	s.note("cancel", Amend{}, "refused: pending events would be lost; skip what is stuck, or terminate the run and replay from Kafka")
}

// note remembers an operator's signal and what came of it.
func (s *orderSync) note(signal string, in Amend, effect string) {
	s.Operator = append(s.Operator, OperatorAction{
		At: s.now(), Signal: signal, EventID: clip(in.EventID), Reason: clip(in.Reason), Effect: clip(effect),
	})
	s.Operator = s.Operator[max(0, len(s.Operator)-maxOperator):]
}
