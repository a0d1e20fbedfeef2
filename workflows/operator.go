package workflows

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

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
		s.remember(signal, in, Refused, "refused: the audit of earlier signals waits for the target; send it again once that is mended")
		return
	}
	if err := s.readOperator(signal, payload, &in); err != nil {
		s.note(signal, in, Refused, "refused: its input could not be read: "+err.Error(), nil)
		return
	}
	if s.unreadable() {
		s.takeUndecoded(signal, in)
		return
	}
	now := s.now()
	e := s.Inbox.StuckOn(now)
	switch {
	case e == nil:
		s.note(signal, in, Ignored, "ignored: the order is not stuck", nil)
		return
	case in.EventID != "" && !s.names(in.EventID, e.ID):
		s.note(signal, in, Ignored, "ignored: the order is stuck on "+e.Name()+" "+e.ID.String(), nil)
		return
	case in.EventID != "" && s.ambiguous(in.EventID, e.ID):
		s.note(signal, in, Refused, "refused: event_id "+in.EventID+" is the beginning of several ids; give more of that of "+e.Name()+", "+e.ID.String(), nil)
		return
	case !in.StuckBefore.IsZero() && s.Inbox.Next(now).Since.After(in.StuckBefore):
		s.note(signal, in, Ignored, "ignored: the order got stuck on "+e.Name()+" later than "+stamp(in.StuckBefore), nil)
		return
	case s.Inbox.Stuck != nil && s.Inbox.Stuck.Skip && signal != SignalRetry:
		s.note(signal, in, Ignored, "ignored: "+e.Name()+" is being skipped already", nil)
		return
	}
	in.EventID = e.ID.String()
	switch signal {
	case SignalRetry:
		s.note(signal, in, Acted, "tried "+e.Name()+" at once", nil)
		s.Inbox.Retry(now)
	case SignalSkip:
		s.note(signal, in, Acted, "skipped "+e.Name(), nil)
		s.Inbox.Skip(now)
	case SignalAmend:
		parse := order.CompactData
		if s.strict() {
			parse = order.ParseData
		}
		data, err := parse(in.Data)
		if err != nil {
			s.note(signal, in, Refused, "refused: "+err.Error(), nil)
			return
		}
		s.note(signal, in, Acted, "replaced the data of "+e.Name()+" and tried it", e.Data)
		s.Inbox.Amend(data, now)
	}
	s.interrupted = true
}

// strict returns whether the run reads operator signals strictly, and takes the first digits of an
// event's id for it. Runs under rules 1 ignore unknown fields, want the whole id and take any data.
func (s *orderSync) strict() bool { return s.rules() >= RulesCredit }

// names returns whether a signal's event_id names the event that the order is stuck on.
func (s *orderSync) names(given string, id uuid.UUID) bool {
	return order.ParseEventID(given) == id || s.strict() && order.NamesEvent(given, id)
}

// ambiguous returns whether a beginning of the stuck event's id is that of another pending event as well.
func (s *orderSync) ambiguous(given string, id uuid.UUID) bool {
	if order.ParseEventID(given) == id {
		return false
	}
	for _, e := range s.Inbox.Upcoming(maxShown) {
		if e.ID != id && order.NamesEvent(given, e.ID) {
			return true
		}
	}
	return false
}

// unreadable returns whether the order is stuck on inputs of SignalEvents that hold no events.
func (s *orderSync) unreadable() bool { return s.Inbox.Stuck == nil && len(s.Undecoded) > 0 }

// takeUndecoded acts on the inputs of SignalEvents that hold no events, or on the one that the signal
// names.
func (s *orderSync) takeUndecoded(signal string, in Amend) {
	meant := func(u undecoded) bool { return in.EventID == "" }
	if s.strict() && in.EventID != "" {
		meant = func(u undecoded) bool { return order.NamesID(in.EventID, u.id()) }
	}
	late := !in.StuckBefore.IsZero() && s.Undecoded[0].At.After(in.StuckBefore)
	if late || !slices.ContainsFunc(s.Undecoded, meant) {
		s.note(signal, in, Ignored, "ignored: the order is stuck on an events signal that cannot be read, and not as the signal says", nil)
		return
	}
	verdict, effect := s.operateUndecoded(signal, meant)
	s.note(signal, in, verdict, effect, nil)
}

// operateUndecoded acts on inputs of SignalEvents that hold no events: a worker that knows more may
// read them now, or they go to the dead-letter topic.
func (s *orderSync) operateUndecoded(signal string, meant func(undecoded) bool) (Verdict, string) {
	kept := s.Undecoded
	switch signal {
	case SignalRetry:
		s.Undecoded = nil
		for _, u := range kept {
			s.takeEvents(u.payload())
		}
		if len(s.Undecoded) > 0 {
			return Acted, "tried to read the events signal again: " + s.Undecoded[0].Problem
		}
		return Acted, "read the events signal"
	case SignalSkip:
		s.Undecoded = nil
		for _, u := range kept {
			if !meant(u) {
				s.Undecoded = append(s.Undecoded, u)
				continue
			}
			s.outbox = append(s.outbox, letter{signal: &u})
		}
		return Acted, "sent the unreadable events signal to the dead-letter topic"
	default:
		return Ignored, "ignored: the order is stuck on an unreadable events signal; retry or skip it"
	}
}

// readOperator reads the input of an operator signal: none, a reason, or an object with the signal's
// fields.
func (s *orderSync) readOperator(signal string, payload *commonpb.Payload, in *Amend) error {
	if !s.strict() {
		return decodeOptional(payload, in, &in.Reason)
	}
	if isNothing(payload) {
		return nil
	}
	if err := plainJSONInput(payload); err != nil {
		return err
	}
	if bytes.HasPrefix(bytes.TrimSpace(payload.GetData()), []byte(`"`)) {
		return json.Unmarshal(payload.GetData(), &in.Reason)
	}
	fields, err := objectFields(payload.GetData())
	if err != nil {
		return err
	}
	read := Amend{}
	known := map[string]any{"event_id": &read.EventID, "reason": &read.Reason, "by": &read.By, "stuck_before": &read.StuckBefore}
	if signal == SignalAmend {
		known["data"] = &read.Data
	}
	for _, f := range fields {
		into, ok := known[f.name]
		switch {
		case !ok:
			return fmt.Errorf("it has an unknown field %q: %s takes %s", clip(f.name), signal, strings.Join(workflow.DeterministicKeys(known), ", "))
		case f.name == "data":
		case string(f.value) == "null" || f.name == "event_id" && string(f.value) == `""`:
			// A script whose variable is empty would act on whatever the order is stuck on.
			return fmt.Errorf("its field %s is empty: leave it out, or give it a value", f.name)
		}
		if err := json.Unmarshal(f.value, into); err != nil {
			return fmt.Errorf("its field %s: %w", f.name, err)
		}
	}
	*in = read
	return nil
}

// field is a member of a JSON object.
type field struct {
	name  string
	value json.RawMessage
}

// objectFields takes a JSON object apart, in the order of its fields. One that is there twice is an
// error: which of both is meant is not known.
func objectFields(raw []byte) ([]field, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if start, err := dec.Token(); err != nil || start != json.Delim('{') {
		return nil, errors.New("it is neither a reason, a JSON string, nor an object of fields")
	}
	var fields []field
	for dec.More() {
		var f field
		key, err := dec.Token()
		if err == nil {
			f.name, _ = key.(string) // within an object it is one
			err = dec.Decode(&f.value)
		}
		if err != nil {
			return nil, fmt.Errorf("it is no JSON object: %w", err)
		}
		if slices.ContainsFunc(fields, func(other field) bool { return other.name == f.name }) {
			return nil, fmt.Errorf("its field %q is there twice", clip(f.name))
		}
		fields = append(fields, f)
	}
	if _, err := dec.Token(); err != nil {
		return nil, fmt.Errorf("it is no JSON object: %w", err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows its JSON object")
	}
	return fields, nil
}

// noteTooLate tells an operator whose skip or amend came when the target had the event already.
func (s *orderSync) noteTooLate(e order.Event, r order.Result) {
	stuck := s.Inbox.Stuck
	by := Amend{EventID: e.ID.String(), By: "ordersync"}
	switch {
	case stuck == nil:
	case stuck.Skip && r.Outcome != order.Skipped:
		s.note(SignalSkip, by, TooLate, "too late: the target had "+e.Name()+" already ("+string(r.Outcome)+")", nil)
	case stuck.Amended && r.Duplicate:
		s.note(SignalAmend, by, TooLate, "perhaps too late: the target had "+e.Name()+" already; compare its data", nil)
	}
}

// refuseCancel notes, once, that the workflow does not end for a request to cancel it.
func (s *orderSync) refuseCancel() {
	s.canceled = nil
	const effect = "refused: pending events would be lost; skip what is stuck, or terminate the run and replay from Kafka"
	if s.rules() < RulesCredit || len(s.Audits) >= maxAudits {
		s.remember(activities.CancelRequest, Amend{}, Refused, effect)
		return
	}
	s.received[activities.CancelRequest] = 1 // a run gets one, and the audit finds its sender by the number
	s.note(activities.CancelRequest, Amend{}, Refused, effect, nil)
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
func (s *orderSync) note(signal string, in Amend, verdict Verdict, effect string, original json.RawMessage) {
	noted := s.remember(signal, in, verdict, effect)
	nth := s.received[signal]
	info := workflow.GetInfo(s.ctx)
	action := order.Action{
		// The same whenever the run is replayed, and whenever the activity is.
		ID:     uuid.NewSHA1(uuid.Nil, fmt.Appendf(nil, "%s/%s/%d/%s", info.WorkflowExecution.RunID, signal, nth, in.By)),
		SyncID: s.in.SyncID, Name: signal, By: noted.By, At: noted.At, Reason: noted.Reason,
		Before: noted.Before, Effect: noted.Effect, Original: original,
	}
	// The beginning of an id that is not that of the stuck event is no event's id.
	if in.EventID != "" && (!s.strict() || !order.Shortened(in.EventID)) {
		id := order.ParseEventID(in.EventID)
		action.EventID = &id
	}
	s.Audits = append(s.Audits, activities.Audit{Action: action, RunID: info.WorkflowExecution.RunID, Nth: nth})
}

// remember puts a signal into the state.
func (s *orderSync) remember(signal string, in Amend, verdict Verdict, effect string) OperatorAction {
	state := s.summary(s.next())
	before := state.Status
	if state.Reason != "" {
		before += ": " + state.Reason
	}
	noted := OperatorAction{
		At: s.now(), Signal: signal, EventID: clip(in.EventID), By: clip(in.By), Reason: clip(in.Reason),
		Before: clip(before), Effect: clip(effect), Verdict: verdict,
	}
	s.Operator = append(s.Operator, noted)
	s.Operator = s.Operator[max(0, len(s.Operator)-maxOperator):]
	return noted
}
