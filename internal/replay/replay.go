// Package replay reads the channels' topics, and those of their backfills, again and sends what never reached the ledger: after an
// operator has terminated a workflow, which drops what it held, or whatever else has lost events
// on the way.
//
//	topics ──by timestamp──> decode ──> ledger? ──missing──> intake.Sender ──> Temporal
//	                           │          │
//	                           no event   in it already
//
// What the starters have not committed was not lost: they will come to it, and what is sent ahead of
// them would overtake it. So each partition is read up to the group's offset and no further.
//
// Nothing has to be known about what was lost, and nothing happens twice: an event is asked for by its
// identity, keeps its original coordinates and is applied by the ledger's word. An event that is
// missing because it still waits in its workflow is sent too, and dropped there.
//
// What is left out:
//   - Records that are no events: they lie in the dead-letter topic.
//   - Events whose record lies in the dead-letter topic and was not sent from there as it was: those
//     behind a stuck order, above all, would only overflow again. Replaying those is another decision,
//     with rules of its own (package deadletter).
//   - Events without a version that others have overtaken: older data would come back.
package replay

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"time"

	"github.com/google/uuid"
	"github.com/segmentio/kafka-go"
	"go.temporal.io/sdk/client"
	"golang.org/x/sync/errgroup"

	"ordersync/internal/deadletter"
	"ordersync/internal/intake"
	"ordersync/internal/operator"
	"ordersync/internal/order"
	"ordersync/internal/target"
	"ordersync/internal/topics"
)

// Options of a replay.
type Options struct {
	Reader topics.Reader
	// Topics are those read, with their channels.
	Topics map[string]order.Channel
	// Backfill are the topics of backfills; they need not exist.
	Backfill map[string]order.Channel
	// Group is the starters'.
	Group       string
	DeadLetters deadletter.Topic
	Target      *target.Target
	Temporal    client.Client
	Sender      *intake.Sender

	// Order restricts the replay to one order; empty for all.
	Order string
	// Since and Until bound the timestamps of the records; Until is excluded. Zero for no bound. A record without a
	// plausible timestamp (order.Plausible) is within all bounds.
	Since, Until time.Time
	// Force also sends events without a version that others have overtaken.
	Force bool
	// DryRun looks what is missing and sends nothing.
	DryRun bool
	// By and Why are for the audit.
	By, Why string
	// Progress is told how far it is: what was found, and how many of how many offsets are read. May be
	// nil.
	Progress func(so Summary, done, total int64)
}

// Summary is what a replay found and did.
type Summary struct {
	DryRun bool `json:"dry_run"`
	// Read counts the records within the bounds; Rejected the ones that are no events. Events is what is
	// left, of the order if one is named, duplicates included: the sum of InLedger, DeadLettered and Missing.
	Read     int64 `json:"read"`
	Rejected int64 `json:"rejected"`
	Events   int64 `json:"events"`
	InLedger int64 `json:"in_ledger"`
	// DeadLettered are left to `ordersync deadletter`.
	DeadLettered int64 `json:"dead_lettered"`
	// Missing is the sum of Sent, Overtaken and Failed.
	Missing   int64 `json:"missing"`
	Sent      int64 `json:"sent"`
	Overtaken int64 `json:"overtaken"`
	// Failed were not taken by Temporal.
	Failed int64 `json:"failed"`
	// Waiting counts the offsets from Since on that the starters have not committed: they were not read.
	Waiting int64 `json:"waiting"`
	// Settled counts the runs of the order that had ended without completing: nothing of them is missing any more,
	// as far as the topics have it. Workers settle those of a replay of many orders when their events have arrived.
	Settled int64 `json:"settled,omitempty"`
	// Orders is how many orders were sent something.
	Orders int `json:"orders"`
	// Problems say why events were not sent; the first of them.
	Problems []Problem `json:"problems"`
}

// Problem is why an event, or an order's events, were not sent.
type Problem struct {
	SyncID string `json:"sync_id"`
	Why    string `json:"why"`
}

// maxProblems is how many problems are told one by one.
const maxProblems = 100

func (s *Summary) problem(syncID, why string) {
	if len(s.Problems) < maxProblems {
		s.Problems = append(s.Problems, Problem{syncID, why})
	}
}

// chunkEvents and chunkBytes bound the events that are held at a time, beside one fetch of each
// partition. One event always fits.
const (
	chunkEvents = 1000
	chunkBytes  = 8 << 20
	// recorders bounds the orders whose audit is written at the same time.
	recorders = 8
	// recordTime bounds the audit of a chunk after an interruption.
	recordTime = 10 * time.Second
)

// Run replays what was published until it is called. After an error or an interruption it can be
// repeated from the start; the Summary is that of what was done until then.
func Run(ctx context.Context, o Options) (Summary, error) {
	channels := maps.Clone(o.Topics)
	maps.Copy(channels, o.Backfill)
	r := &run{
		Options: o, channels: channels, result: Summary{DryRun: o.DryRun, Problems: []Problem{}},
		now: time.Now(), id: uuid.New(), seed: maphash.MakeSeed(), orders: map[uint64]struct{}{}, failed: map[string]error{},
	}
	err := r.run(ctx)
	r.result.Orders = len(r.orders)
	return r.result, err
}

// run is a replay under way.
type run struct {
	Options
	channels map[string]order.Channel // of all topics
	result   Summary
	now      time.Time // when it was called
	id       uuid.UUID
	// began is the youngest end of a run of the order that was noted when the replay began, by Temporal's clock.
	began time.Time
	// buried are the records that are left to the dead-letter topic.
	buried map[record]bool
	// orders has a hash of each order that was sent something.
	orders map[uint64]struct{}
	seed   maphash.Seed

	events []order.Event
	bytes  int
	// failed are the orders that Temporal did not take.
	failed map[string]error
}

// record is a record's place. The timestamp, in milliseconds, tells a topic made anew from the old one.
type record struct {
	topic     string
	partition int
	offset    int64
	at        int64
}

func recordOf(s order.Source) record {
	return record{s.Topic, s.Partition, s.Offset, s.ReceivedAt.UnixMilli()}
}

func (r *run) run(ctx context.Context) error {
	if r.Order != "" {
		runs, err := r.Target.UnwellOf(ctx, r.Order)
		if err != nil {
			return err
		}
		for _, u := range runs {
			if u.Trouble != order.TasksFail && u.Since.After(r.began) {
				r.began = u.Since
			}
		}
	}
	if err := r.readDeadLetters(ctx); err != nil {
		return err
	}
	// Kafka finds the first record of a time by the timestamps, and would leave out those before it that have none. So all
	// is read; only what waits is counted from Since on.
	spans, err := r.Reader.SpansOf(ctx, r.channels, r.Backfill, time.Time{})
	if err != nil {
		return err
	}
	var recent []topics.Span
	if !r.Since.IsZero() {
		if recent, err = r.Reader.SpansOf(ctx, r.channels, r.Backfill, r.Since); err != nil {
			return err
		}
	}
	waiting := slices.Clone(spans)
	if err := r.Reader.PassCommitted(ctx, r.Group, waiting); err != nil {
		return err
	}
	var total, at int64
	for i := range spans {
		spans[i].End = waiting[i].First
		total += spans[i].Len()
		for _, s := range recent {
			if s.Topic == waiting[i].Topic && s.Partition == waiting[i].Partition {
				waiting[i].First = max(waiting[i].First, s.First)
			}
		}
		r.result.Waiting += waiting[i].Len()
	}
	// Read to the end also with an Until: timestamps need not rise.
	err = r.Reader.Merge(ctx, spans, func(m kafka.Message) error {
		const tell = 1000
		if at++; at%tell == 0 && r.Progress != nil {
			r.Progress(r.result, at, total)
		}
		return r.take(ctx, m)
	})
	if err != nil {
		return err
	}
	err = r.flush(ctx)
	if r.Progress != nil {
		r.Progress(r.result, total, total)
	}
	if err != nil {
		return err
	}
	return r.settle(ctx)
}

// settle notes that the runs of the order which ended before the replay hold nothing more that a replay could
// bring back. Only a replay of all that the topics have of the order, and that left nothing out, says so.
func (r *run) settle(ctx context.Context) (err error) {
	if r.began.IsZero() || r.DryRun || !r.Since.IsZero() || !r.Until.IsZero() || r.result.Failed > 0 || r.result.Overtaken > 0 {
		return nil
	}
	if r.result.Settled, err = r.Target.SettleEnded(ctx, r.Order, r.began); err != nil || r.result.Settled == 0 {
		return err
	}
	return r.Target.RecordAction(ctx, order.Action{
		ID: uuid.NewSHA1(r.id, []byte(r.Order+"\x00settled")), SyncID: r.Order, Name: "replay", By: r.By, At: time.Now().UTC(), Reason: r.Why,
		Effect: fmt.Sprintf("settled %d runs that had ended without completing: the topics have nothing more of theirs that the ledger lacks", r.result.Settled),
	})
}

// readDeadLetters notes the records that are no business of a replay: those of letters that are open or
// discarded, and those that were replayed with another value.
func (r *run) readDeadLetters(ctx context.Context) error {
	filter := deadletter.Filter{}
	if r.Order != "" {
		filter.Orders = []string{r.Order}
	}
	letters, err := r.DeadLetters.List(ctx, filter, nil)
	if err != nil {
		return err
	}
	r.buried = map[record]bool{}
	for _, l := range letters {
		if l.Problem == nil && !l.SentAsItWas() {
			r.buried[recordOf(l.Source)] = true
		}
	}
	return nil
}

// take puts a record's event into the chunk.
func (r *run) take(ctx context.Context, m kafka.Message) error {
	outside := m.Time.Before(r.Since) || !r.Until.IsZero() && !m.Time.Before(r.Until)
	if outside && order.Plausible(m.Time, r.now) {
		return nil
	}
	r.result.Read++
	e, err := order.Decode(order.Record{
		Topic: m.Topic, Partition: m.Partition, Offset: m.Offset, Timestamp: m.Time, Value: m.Value,
	}, r.channels[m.Topic])
	switch {
	case err != nil:
		r.result.Rejected++
		return nil
	case r.Order != "" && e.SyncID != r.Order:
		return nil
	}
	r.result.Events++
	r.events, r.bytes = append(r.events, e), r.bytes+e.Size()
	if len(r.events) < chunkEvents && r.bytes < chunkBytes {
		return nil
	}
	return r.flush(ctx)
}

// flush deals with the chunk.
func (r *run) flush(ctx context.Context) error {
	events := r.events
	r.events, r.bytes = nil, 0
	missing, err := r.missing(ctx, events)
	if err != nil {
		return err
	}
	var before map[string]string
	if !r.DryRun {
		before = r.before(ctx, missing)
		// Of an order that failed nothing more is sent: it would overtake.
		ready := slices.DeleteFunc(slices.Clone(missing), func(e order.Event) bool { return r.failed[e.SyncID] != nil })
		for syncID, err := range r.Sender.Send(ctx, ready) {
			r.failed[syncID] = err
			r.result.problem(syncID, err.Error())
		}
	}
	sent := map[string][]order.Event{}
	for _, e := range missing {
		if err := r.failed[e.SyncID]; err != nil {
			r.result.Failed++
			continue
		}
		r.result.Sent++
		r.orders[maphash.String(r.seed, e.SyncID)] = struct{}{}
		sent[e.SyncID] = append(sent[e.SyncID], e)
	}
	if r.DryRun {
		return nil
	}
	return errors.Join(r.record(ctx, sent, before), context.Cause(ctx))
}

// missing are the events that the ledger lacks and that may be sent. One whose event_id is another event's in the
// ledger is among them: the target refuses it, and it becomes a dead letter.
func (r *run) missing(ctx context.Context, events []order.Event) ([]order.Event, error) {
	keys := make([]target.EventKey, len(events))
	for i, e := range events {
		keys[i] = target.KeyOf(e)
	}
	ledger, err := r.Target.Outcomes(ctx, keys)
	if err != nil {
		return nil, err
	}
	var missing []order.Event
	arrivals := map[string]target.Arrivals{}
	for i, e := range events {
		if entry, ok := ledger[keys[i]]; ok && entry.Is(e) {
			r.result.InLedger++
			continue
		}
		if r.buried[recordOf(e.Source)] {
			r.result.DeadLettered++
			continue
		}
		r.result.Missing++
		if !e.Versioned() && !r.Force {
			applied, ok := arrivals[e.SyncID]
			if !ok {
				if applied, err = r.Target.Arrivals(ctx, e.SyncID); err != nil {
					return nil, err
				}
				arrivals[e.SyncID] = applied
			}
			if later, ok := applied.After(e.Source); ok {
				r.result.Overtaken++
				r.result.problem(e.SyncID, deadletter.Overtaken(e, later))
				continue
			}
		}
		missing = append(missing, e)
	}
	return missing, nil
}

// before is where the workflow of each order stands, for the audit.
func (r *run) before(ctx context.Context, events []order.Event) map[string]string {
	states := map[string]string{}
	for _, e := range events {
		states[e.SyncID] = ""
	}
	ids := slices.Collect(maps.Keys(states))
	found := make([]string, len(ids))
	var group errgroup.Group
	group.SetLimit(recorders)
	for i, id := range ids {
		group.Go(func() error {
			w, err := operator.Describe(ctx, r.Temporal, id)
			switch {
			case errors.Is(err, operator.ErrNoWorkflow):
				found[i] = "no workflow"
			case err != nil:
				found[i] = "unknown: " + err.Error()
			case w.Running() && w.SyncStatus != "":
				found[i] = fmt.Sprintf("workflow %s, %s: %s", w.Status, w.SyncStatus, w.SyncError)
			default:
				found[i] = "workflow " + w.Status
			}
			return nil
		})
	}
	_ = group.Wait() // what is not known is said so
	for i, id := range ids {
		states[id] = found[i]
	}
	return states
}

// record writes what each order was sent into the audit, once for each chunk. It does so after an
// interruption as well.
func (r *run) record(ctx context.Context, sent map[string][]order.Event, before map[string]string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), recordTime)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(recorders)
	for syncID, events := range sent {
		first, last := events[0], events[len(events)-1]
		effect := fmt.Sprintf("sent %s, which the ledger lacked, from %s/%d/%d", first.Name(), first.Source.Topic, first.Source.Partition, first.Source.Offset)
		if len(events) > 1 {
			effect = fmt.Sprintf("sent %d events that the ledger lacked, %s to %s, from %s/%d/%d on", len(events), first.Name(), last.Name(),
				first.Source.Topic, first.Source.Partition, first.Source.Offset)
		}
		action := order.Action{
			ID: uuid.NewSHA1(r.id, []byte(syncID+"\x00"+first.ID.String())), SyncID: syncID, Name: "replay",
			By: r.By, At: time.Now().UTC(), Reason: r.Why, Before: before[syncID], Effect: effect,
		}
		if len(events) == 1 {
			action.EventID = &first.ID
		}
		group.Go(func() error { return r.Target.RecordAction(ctx, action) })
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("events were sent, which could not be recorded in the audit: %w", err)
	}
	return nil
}
