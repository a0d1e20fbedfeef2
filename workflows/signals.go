package workflows

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"
	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"

	"ordersync/internal/order"
	"ordersync/workflows/inbox"
)

// UndecodableSignal is the type of the block of an order that got an `events` signal with no
// events of it inside.
const UndecodableSignal = "UndecodableSignal"

// Bounds of what a run keeps of signals, beside its events.
const (
	// maxUndecoded bounds the undecodable inputs that are kept, in bytes of all together. Carried
	// in base64, with a full inbox, they must fit into a continue-as-new; more go to the
	// dead-letter topic at once.
	maxUndecoded = 256 << 10
	// maxOperator is how many operator signals are remembered.
	maxOperator = 20
	// maxDecode bounds what is decoded of signals without a pause, in bytes. Some 20 ms a MiB are usual.
	maxDecode = 1 << 20
	// maxText bounds a reason or an error in the state, in bytes.
	maxText = 500
)

// undecoded is the input of an `events` signal that holds no events, kept as it came.
type undecoded struct {
	Metadata map[string][]byte `json:"metadata,omitempty"`
	Data     []byte            `json:"data,omitempty"`
	Problem  string            `json:"problem"`
	At       time.Time         `json:"at"`
}

// size is an upper bound of what it takes in the state, in bytes before base64.
func (u undecoded) size() int {
	n := len(u.Data) + len(u.Problem) + 256
	for _, key := range workflow.DeterministicKeys(u.Metadata) {
		n += len(key) + len(u.Metadata[key])
	}
	return n
}

// id is what an operator signal names an unreadable input by. It goes by what the input holds, so that a
// retry which fails leaves it as it is.
func (u undecoded) id() string {
	holds := slices.Concat(u.Metadata[converter.MetadataEncoding], []byte{0}, u.Data)
	return uuid.NewSHA1(uuid.NameSpaceOID, holds).String()
}

func (u undecoded) payload() *commonpb.Payload {
	return &commonpb.Payload{Metadata: u.Metadata, Data: u.Data}
}

// subscription is a signal and what is done with it.
type subscription struct {
	name    string
	channel workflow.ReceiveChannel
	take    func(*commonpb.Payload)
}

// subscribe receives every signal raw: one that does not decode into its receiver's type would be
// dropped by the SDK without a word.
func (s *orderSync) subscribe() {
	for _, sub := range []subscription{
		{name: SignalEvents, take: s.takeEvents},
		{name: SignalRetry, take: func(p *commonpb.Payload) { s.takeOperator(SignalRetry, p) }},
		{name: SignalSkip, take: func(p *commonpb.Payload) { s.takeOperator(SignalSkip, p) }},
		{name: SignalAmend, take: func(p *commonpb.Payload) { s.takeOperator(SignalAmend, p) }},
	} {
		sub.channel = workflow.GetSignalChannel(s.ctx, sub.name)
		s.subs = append(s.subs, sub)
	}
}

// receive takes one signal, and returns its size in bytes, or -1 if there is none.
func (s *orderSync) receive(sub subscription) int {
	var raw converter.RawValue
	if !sub.channel.ReceiveAsync(&raw) {
		return -1
	}
	s.received[sub.name]++
	sub.take(raw.Payload())
	return len(raw.Payload().GetData())
}

// drain takes every signal that has arrived. It yields where they are many; after the last of them it
// does not.
func (s *orderSync) drain() {
	for s.drainPart() {
		s.yield()
	}
	if s.rules() >= RulesCredit && s.flush != nil && s.flush.IsReady() {
		s.endFlush()
	}
	for _, e := range s.Inbox.Overflow(s.now(), len(s.Undecoded) > 0) {
		s.outbox = append(s.outbox, letter{event: &e, reason: order.OrderBlocked})
	}
	if s.rules() >= RulesCredit && s.nearsLimit() && (len(s.outbox) > 0 || !s.Inbox.Fits()) {
		for _, e := range s.Inbox.Cut() {
			s.outbox = append(s.outbox, letter{event: &e, reason: order.OrderBacklog})
		}
	}
}

// drainPart takes signals until none is left or maxDecode is reached, and reports whether it was reached.
func (s *orderSync) drainPart() bool {
	bytes := 0
	for _, sub := range s.subs {
		for n := s.receive(sub); n >= 0; n = s.receive(sub) {
			if bytes += n; bytes >= maxDecode {
				return true
			}
		}
	}
	return false
}

// A run whose history is larger than this continues as new as soon as it can, and sends what does not
// fit to the dead-letter topic, stuck or not: the server terminates a run at 50 MiB or 51,200 events. The
// starter's credit ends long before.
const (
	maxHistoryBytes  = 20 << 20
	maxHistoryEvents = 25_000
)

func (s *orderSync) nearsLimit() bool {
	info := workflow.GetInfo(s.ctx)
	return info.GetCurrentHistorySize() >= maxHistoryBytes || info.GetCurrentHistoryLength() >= maxHistoryEvents
}

func (s *orderSync) takeEvents(payload *commonpb.Payload) {
	events, err := s.decodeEvents(payload)
	if err != nil {
		s.keepUndecoded(payload, err)
		return
	}
	s.add(events)
}

func (s *orderSync) add(events []order.Event) {
	for _, e := range events {
		switch s.Inbox.Add(e) {
		case inbox.Queued:
			s.LastActive = s.now()
		case inbox.Conflict:
			s.conflict(e)
		case inbox.Duplicate:
		}
	}
}

// conflict sends an event to the dead-letter topic that has the identity of another one. Runs of the first
// rules dropped it. They do so only while they replay what they did then.
func (s *orderSync) conflict(e order.Event) {
	if s.rules() < RulesCredit && workflow.GetVersion(s.ctx, "identity-conflict", workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		return
	}
	s.outbox = append(s.outbox, letter{event: &e, reason: order.IdentityConflict, other: s.Inbox.Other(e)})
}

// decodeEvents also refuses what is no event of this order: it would be applied to another one.
func (s *orderSync) decodeEvents(payload *commonpb.Payload) ([]order.Event, error) {
	var batch Batch
	if err := decode(payload, &batch); err != nil {
		return nil, err
	}
	if len(batch.Events) == 0 {
		return nil, errors.New(`it has no events: {"events":[…]} is expected, which the starter sends`)
	}
	for _, e := range batch.Events {
		if err := e.Check(s.in.SyncID); err != nil {
			return nil, err
		}
	}
	return batch.Events, nil
}

func (s *orderSync) keepUndecoded(payload *commonpb.Payload, problem error) {
	u := undecoded{Metadata: payload.GetMetadata(), Data: payload.GetData(), Problem: clip(problem.Error()), At: s.now()}
	size := u.size()
	for _, kept := range s.Undecoded {
		size += kept.size()
	}
	if size > maxUndecoded {
		s.outbox = append(s.outbox, letter{signal: &u})
		return
	}
	s.Undecoded = append(s.Undecoded, u)
}

// decode reads JSON, whatever the payload says of its encoding as long as it is plain.
func decode(payload *commonpb.Payload, into any) error {
	if isNothing(payload) {
		return errors.New("it has no input")
	}
	if err := plainJSONInput(payload); err != nil {
		return err
	}
	return json.Unmarshal(payload.GetData(), into)
}

func plainJSONInput(payload *commonpb.Payload) error {
	if encoding := string(payload.GetMetadata()[converter.MetadataEncoding]); encoding != converter.MetadataEncodingJSON {
		return fmt.Errorf("its encoding is %q, %q is expected", encoding, converter.MetadataEncodingJSON)
	}
	return nil
}

// isNothing tells whether a signal came without input: none at all, a nil, or a JSON null.
func isNothing(payload *commonpb.Payload) bool {
	encoding := string(payload.GetMetadata()[converter.MetadataEncoding])
	return payload == nil || encoding == converter.MetadataEncodingNil ||
		encoding == converter.MetadataEncodingJSON && string(bytes.TrimSpace(payload.GetData())) == "null" ||
		encoding == "" && len(payload.GetData()) == 0
}

// decodeOptional reads the input of an operator signal as rules 1 do: unknown fields are ignored.
func decodeOptional(payload *commonpb.Payload, into any, reason *string) error {
	if isNothing(payload) {
		return nil
	}
	if bytes.HasPrefix(bytes.TrimSpace(payload.GetData()), []byte(`"`)) {
		into = reason
	}
	return decode(payload, into)
}

func clip(text string) string { return order.Clip(text, maxText) }
