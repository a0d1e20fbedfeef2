package deadletter

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/segmentio/kafka-go"
	"go.temporal.io/sdk/client"

	"ordersync/internal/intake"
	"ordersync/internal/operator"
	"ordersync/internal/order"
	"ordersync/internal/target"
	"ordersync/internal/topics"
	"ordersync/workflows"
)

// Replay sends what letters hold on its way again.
type Replay struct {
	Topic Topic
	// Channels are those of the topics that records came from.
	Channels map[string]order.Channel
	Temporal client.Client
	Sender   *intake.Sender
	Who      Who
	// Force sends also what would overflow again, or be applied after an event that came later.
	Force bool
	// Value takes the place of the value of the one letter that is chosen; nil for none.
	Value []byte
	// Progress is told how many of how many letters are done. May be nil.
	Progress func(done, total int64)
}

// Run replays the letters that a filter chooses and that are open; those it names, whatever was done
// with them. It can be repeated, after an error or an interruption too. The Result is that of what was done
// until then.
func (r Replay) Run(ctx context.Context, f Filter) (Result, error) {
	run := &run{Replay: r, arrivals: map[string]target.Arrivals{}, stuck: map[string]string{}, sent: map[string]bool{}, failed: map[string]error{}}
	letters, err := run.choose(ctx, f)
	if err != nil {
		return run.result, err
	}
	err = run.reread(ctx, letters)
	run.result.Orders = len(run.sent)
	return run.result, err
}

// run is a Replay under way.
type run struct {
	Replay
	result Result
	// corrected is the letter that Value is for.
	corrected *Place

	// What is asked once for each order. The arrivals are those from before this run, whose own events
	// come in their order.
	arrivals map[string]target.Arrivals
	stuck    map[string]string
	sent     map[string]bool
	// failed are the orders that Temporal did not take.
	failed map[string]error
}

// choose lists the letters to replay. One that found the queue of its order full takes all open ones
// of the order along.
func (r *run) choose(ctx context.Context, f Filter) ([]Letter, error) {
	all, err := r.Topic.list(ctx, time.Time{}, func(l Letter) bool { return f.matches(l) || l.Reason.Overflowed() }, nil)
	if err != nil {
		return nil, err
	}
	chosen, err := toActOn(slices.DeleteFunc(slices.Clone(all), func(l Letter) bool { return !f.matches(l) }), f, r.Topic.Name)
	if err != nil {
		return nil, err
	}
	if r.Value != nil {
		if len(chosen) != 1 {
			return nil, fmt.Errorf("a corrected value is for exactly one letter, %d are selected: name one by its place", len(chosen))
		}
		r.corrected = &chosen[0].Place
	}
	picked, whole := map[Place]bool{}, map[string]bool{}
	for _, l := range chosen {
		picked[l.Place] = true
		if l.Reason.Overflowed() {
			whole[l.SyncID] = true
		}
	}
	added := map[string]bool{}
	letters := slices.DeleteFunc(all, func(l Letter) bool {
		if !picked[l.Place] && l.Reason.Overflowed() && l.State == Open && whole[l.SyncID] {
			picked[l.Place], added[l.SyncID] = true, true
		}
		return !picked[l.Place]
	})
	r.result = newResult(len(letters), r.Who)
	r.result.Added = len(letters) - len(chosen)
	r.result.Whole = append(r.result.Whole, slices.Sorted(maps.Keys(added))...)
	return letters, nil
}

// reread goes through the topic once more, for the values, and replays chunk by chunk.
func (r *run) reread(ctx context.Context, letters []Letter) error {
	listed := make(map[Place]Letter, len(letters))
	reach := map[int]topics.Span{}
	for _, l := range letters {
		listed[l.Place] = l
		s, ok := reach[l.Place.Partition]
		if !ok {
			s = topics.Span{Topic: r.Topic.Name, Partition: l.Place.Partition, First: l.Place.Offset}
		}
		s.First, s.End = min(s.First, l.Place.Offset), max(s.End, l.Place.Offset+1)
		reach[l.Place.Partition] = s
	}
	var chunk []Letter
	bytes, done := 0, int64(0)
	flush := func() error {
		if len(chunk) == 0 {
			return nil
		}
		if err := r.replay(ctx, chunk); err != nil {
			return err
		}
		if done += int64(len(chunk)); r.Progress != nil {
			r.Progress(done, int64(len(letters)))
		}
		chunk, bytes = nil, 0
		return nil
	}
	err := r.Topic.reader().Merge(ctx, slices.Collect(maps.Values(reach)), func(m kafka.Message) error {
		known, ok := listed[Place{m.Partition, m.Offset}]
		if !ok {
			return nil
		}
		l := read(m)
		l.State, l.Action = known.State, known.Action
		chunk, bytes = append(chunk, l), bytes+len(l.Value)
		if len(chunk) < chunkLetters && bytes < chunkBytes {
			return nil
		}
		return flush()
	})
	if err != nil {
		return err
	}
	return flush()
}

// sending is a letter and the event in it.
type sending struct {
	Letter
	event order.Event
}

// replay deals with some letters, in their order.
func (r *run) replay(ctx context.Context, letters []Letter) error {
	var decoded []sending
	var keys []target.EventKey
	for _, l := range letters {
		e, err := r.decode(l)
		if err != nil {
			r.result.refuse(l, err.Error())
			continue
		}
		decoded = append(decoded, sending{l, e})
		keys = append(keys, target.KeyOf(e))
	}
	ledger, err := r.Topic.Target.Outcomes(ctx, keys)
	if err != nil {
		return err
	}
	var actions []order.Action
	var ready []sending
	var events []order.Event
	for i, s := range decoded {
		entry, ok := ledger[keys[i]]
		if ok && !entry.Is(s.event) {
			r.result.refuse(s.Letter, s.event.ConflictDetail(entry.Name())+"; give it one, and send that: "+order.MendLetterCommand(s.Place.String()).String())
			continue
		}
		if ok {
			r.result.InLedger++
			actions = append(actions, r.actions(s, fmt.Sprintf("the target had %s already (%s)", s.event.Name(), entry.Outcome))...)
			continue
		}
		why, err := r.refusal(ctx, s)
		if err != nil {
			return err
		}
		if why != "" {
			r.result.refuse(s.Letter, why)
			continue
		}
		ready, events = append(ready, s), append(events, s.event)
	}
	if !r.Who.DryRun {
		// Of an order that failed nothing more is sent: it would overtake.
		events = slices.DeleteFunc(events, func(e order.Event) bool { return r.failed[e.SyncID] != nil })
		maps.Copy(r.failed, r.Sender.Send(ctx, events))
	}
	for _, s := range ready {
		if err := r.failed[s.event.SyncID]; err != nil {
			r.result.fail(s.Letter, err.Error())
			continue
		}
		r.result.Sent++
		r.sent[s.event.SyncID] = true
		actions = append(actions, r.actions(s, "sent "+s.event.Name())...)
	}
	if r.Who.DryRun {
		return nil
	}
	// What was sent is noted also when somebody interrupts; without it the letters would only be sent
	// again.
	noting, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTime)
	defer cancel()
	return errors.Join(r.Topic.record(noting, actions), context.Cause(ctx))
}

// recordTime bounds the recording of a chunk after an interruption.
const recordTime = 10 * time.Second

// decode is the event in a letter, as of the record it stands for.
func (r *run) decode(l Letter) (order.Event, error) {
	value, corrected := l.Value, r.corrected != nil && *r.corrected == l.Place
	if corrected {
		value = r.Value
	}
	channel, known := r.Channels[l.Source.Topic]
	switch {
	case l.Problem != nil:
		return order.Event{}, fmt.Errorf("it was not written by ordersync, or its headers were changed: %w", l.Problem)
	case l.Reason == order.Undecodable:
		return order.Event{}, fmt.Errorf("it holds the input of a signal and no record; the events that order %s lacks are still in their topic: %s", l.Key, order.ReplayCommand(string(l.Key)))
	case l.Source.Topic == order.ERPRow:
		return order.Event{}, fmt.Errorf("it holds a row of the ERP that never was a record; mend it in the ERP, and the next poll brings it: %s", l.Detail)
	case !known:
		return order.Event{}, fmt.Errorf("its record is from topic %s, which is not in KAFKA_TOPICS", l.Source.Topic)
	case !corrected && !l.Kept():
		return order.Event{}, fmt.Errorf("its value was too large to keep (%d bytes, SHA-256 %s): take it from where it stood, %s, and give what should be sent by --value-file", l.Size, l.SHA256, l.Origin())
	}
	e, err := order.Decode(order.Record{
		Topic: l.Source.Topic, Partition: l.Source.Partition, Offset: l.Source.Offset, Timestamp: l.Source.ReceivedAt, Value: value,
	}, channel)
	switch {
	case err != nil && corrected:
		return order.Event{}, fmt.Errorf("the corrected value is no event: %w", err)
	case err != nil:
		return order.Event{}, fmt.Errorf("it is no event: %w; correct it: %s", err, order.MendLetterCommand(l.Place.String()))
	case corrected && l.SyncID != "" && l.SyncID != e.SyncID && !r.Force:
		return order.Event{}, fmt.Errorf("the corrected value is of order %s, and the letter of order %s; --force sends it all the same", e.SyncID, l.SyncID)
	}
	return e, nil
}

// refusal is why an event must not be sent now, empty if it may.
func (r *run) refusal(ctx context.Context, s sending) (string, error) {
	if r.Force {
		return "", nil
	}
	if s.Reason == order.IdentityConflict && r.keepsID(s) {
		return fmt.Sprintf("it has the event_id of another event of order %s and would only come back: put an event_id of its own into the value, and send that: %s",
			s.event.SyncID, order.MendLetterCommand(s.Place.String())), nil
	}
	if s.Reason.Overflowed() {
		status, err := r.status(ctx, s.event.SyncID)
		if err != nil {
			return "", err
		}
		if status != "" {
			return fmt.Sprintf("order %s is still %s: the event would only find its queue full again; get the order going first (%s says how), or --force", s.event.SyncID, status, order.ShowCommand(s.event.SyncID)), nil
		}
	}
	if s.event.Versioned() {
		return "", nil
	}
	arrivals, ok := r.arrivals[s.event.SyncID]
	if !ok {
		var err error
		if arrivals, err = r.Topic.Target.Arrivals(ctx, s.event.SyncID); err != nil {
			return "", err
		}
		r.arrivals[s.event.SyncID] = arrivals
	}
	if later, ok := arrivals.After(s.event.Source); ok {
		return Overtaken(s.event, later) + "; --force sends it all the same", nil
	}
	return "", nil
}

// keepsID returns whether what is sent has the identity that the letter's own value has.
func (r *run) keepsID(s sending) bool {
	if r.corrected == nil || *r.corrected != s.Place {
		return true
	}
	was, err := order.Decode(order.Record{
		Topic: s.Source.Topic, Partition: s.Source.Partition, Offset: s.Source.Offset, Timestamp: s.Source.ReceivedAt, Value: s.Value,
	}, s.event.Channel)
	return err == nil && was.SyncID == s.event.SyncID && was.ID == s.event.ID
}

// Overtaken says why an event without a version must not be sent any more.
func Overtaken(e order.Event, by target.Entry) string {
	return fmt.Sprintf("%s of order %s has no version, so it goes by its arrival (%s/%d/%d), and the order has applied %s since, which arrived later (%s/%d/%d): older data would come back",
		e.Kind, e.SyncID, e.Source.Topic, e.Source.Partition, e.Source.Offset,
		by.Name(), by.SourceTopic, by.SourcePartition, by.SourceOffset)
}

// status is what an order is stuck as, empty if it is not.
func (r *run) status(ctx context.Context, syncID string) (string, error) {
	status, ok := r.stuck[syncID]
	if ok {
		return status, nil
	}
	w, err := operator.Describe(ctx, r.Temporal, syncID)
	if err != nil && !errors.Is(err, operator.ErrNoWorkflow) {
		return "", err
	}
	if w.Running() && (w.SyncStatus == workflows.StatusBlocked || w.SyncStatus == workflows.StatusRetrying) {
		status = fmt.Sprintf("%s (%s)", w.SyncStatus, w.SyncError)
	}
	r.stuck[syncID] = status
	return status, nil
}

// actions are the lines of the audit about a replayed letter.
func (r *run) actions(s sending, effect string) []order.Action {
	if r.corrected == nil || *r.corrected != s.Place {
		a := r.Topic.action(s.Letter, r.Who, actionReplay, effect)
		a.EventID = &s.event.ID
		return []order.Action{a}
	}
	correction := fmt.Sprintf("with a corrected value of SHA-256 %x", sha256.Sum256(r.Value))
	a := r.Topic.action(s.Letter, r.Who, actionReplay, effect+", "+correction)
	a.EventID, a.Original = &s.event.ID, original(s.Letter)
	all := []order.Action{a}
	if s.SyncID != s.event.SyncID { // the letter did not tell its order
		a.SyncID = s.event.SyncID
		all = append(all, a)
	}
	if s.State == Replayed && !strings.Contains(s.Action.Effect, correction) { // another one than before
		a.ID = s.actionID(r.Topic.Name, actionReplay, correction)
		all = append(all, a)
	}
	return all
}

// original is a letter's value as JSON: as it is, else in a string. Of a very large one only its size is
// told; the letter keeps it.
func original(l Letter) json.RawMessage {
	text := string(l.Value)
	switch {
	case l.Value == nil && l.Kept():
		return json.RawMessage("null")
	case l.Value == nil || len(l.Value) > order.MaxValue:
		text = fmt.Sprintf("%d bytes", l.Bytes)
	case json.Valid(l.Value) && utf8.Valid(l.Value):
		return l.Value
	}
	quoted, err := json.Marshal(text)
	if err != nil {
		return nil // of a string: cannot be
	}
	return quoted
}

// Corrected tells whether a letter was replayed with another value than its own.
func (l Letter) Corrected() bool { return l.State == Replayed && len(l.Action.Original) > 0 }

// SentAsItWas tells whether a letter was replayed with its own value: its event is on its way again, under the
// identity that it has in its topic.
func (l Letter) SentAsItWas() bool { return l.State == Replayed && !l.Corrected() }
