package deadletter

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"ordersync/internal/order"
)

// Who does something, and why. With DryRun it is only looked what would come of it.
type Who struct {
	By, Why string
	DryRun  bool
}

// Result is what became of the letters that were chosen, each of which is counted once in Sent,
// InLedger, Discarded, Settled, Refused or Failed. After a dry run it is what would become of them.
type Result struct {
	DryRun  bool `json:"dry_run"`
	Letters int  `json:"letters"`
	// Sent are with Temporal now.
	Sent int `json:"sent"`
	// InLedger are the ones whose event the target had already.
	InLedger int `json:"in_ledger"`
	// Discarded are dealt with now, Settled were before.
	Discarded int `json:"discarded"`
	Settled   int `json:"settled"`
	// Refused are left as they are; Temporal did not take the Failed.
	Refused int `json:"refused"`
	Failed  int `json:"failed"`
	// Orders is how many orders were sent something.
	Orders int `json:"orders"`
	// Whole are the orders that were taken as a whole, which added Added letters to those chosen.
	Whole []string `json:"whole_orders"`
	Added int      `json:"added"`
	// Refusals are the first of the refused and failed.
	Refusals []Refusal `json:"refusals"`
}

// Refusal is why a letter was left as it is.
type Refusal struct {
	Place  Place        `json:"place"`
	SyncID string       `json:"sync_id,omitempty"`
	Reason order.Reason `json:"reason"`
	// Why says what to do, too.
	Why string `json:"why"`
}

// maxRefusals is how many refusals are told one by one.
const maxRefusals = 100

func newResult(letters int, who Who) Result {
	return Result{DryRun: who.DryRun, Letters: letters, Whole: []string{}, Refusals: []Refusal{}}
}

func (r *Result) refuse(l Letter, why string) {
	r.Refused++
	r.tell(l, why)
}

func (r *Result) fail(l Letter, why string) {
	r.Failed++
	r.tell(l, why)
}

func (r *Result) tell(l Letter, why string) {
	if len(r.Refusals) < maxRefusals {
		r.Refusals = append(r.Refusals, Refusal{l.Place, l.SyncID, l.Reason, why})
	}
}

// chunkLetters and chunkBytes bound the letters that are held with their values at a time. One
// letter always fits.
const (
	chunkLetters = 1000
	chunkBytes   = 8 << 20
)

// open lists the letters to act on: the ones that the filter names, and of the others it chooses those
// that are open.
func (t Topic) open(ctx context.Context, f Filter) ([]Letter, error) {
	chosen, err := t.List(ctx, f, nil)
	if err != nil {
		return nil, err
	}
	return toActOn(chosen, f, t.Name)
}

func toActOn(chosen []Letter, f Filter, topic string) ([]Letter, error) {
	for _, p := range f.Places {
		if !slices.ContainsFunc(chosen, func(l Letter) bool { return l.Place == p }) {
			return nil, fmt.Errorf("topic %s has no letter at %s that is selected; see ordersync deadletter list --all", topic, p)
		}
	}
	return slices.DeleteFunc(chosen, func(l Letter) bool { return l.State != Open && len(f.Places) == 0 }), nil
}

// Discard marks letters as dealt with: what they hold will not be applied. Progress is told how many of
// how many letters are done; it may be nil. After an error, or an interruption, it can be repeated.
func (t Topic) Discard(ctx context.Context, f Filter, who Who, progress func(done, total int64)) (Result, error) {
	letters, err := t.open(ctx, f)
	result := newResult(len(letters), who)
	if err != nil {
		return result, err
	}
	done := int64(0)
	for chunk := range slices.Chunk(letters, chunkLetters) {
		var actions []order.Action
		for _, l := range chunk {
			switch l.State {
			case Replayed:
				result.refuse(l, fmt.Sprintf("%s replayed it at %s: there is nothing to discard", l.Action.By, l.Action.At.Format(time.RFC3339)))
			case Discarded:
				result.Settled++
			default:
				actions = append(actions, t.action(l, who, actionDiscard, "discarded"))
			}
		}
		if !who.DryRun {
			if err := t.record(ctx, actions); err != nil {
				return result, err
			}
		}
		result.Discarded += len(actions)
		if done += int64(len(chunk)); progress != nil {
			progress(done, int64(len(letters)))
		}
	}
	return result, nil
}

// action is a line of the audit about a letter.
func (t Topic) action(l Letter, who Who, name, effect string) order.Action {
	return order.Action{
		ID: l.actionID(t.Name, name), SyncID: l.SyncID, Name: name, By: who.By, At: time.Now().UTC(), Reason: who.Why,
		Before: fmt.Sprintf("%s: %s", l.State, l.Reason),
		Effect: fmt.Sprintf("%s (dead letter %s of %s)", effect, l.Place, l.Origin()),
	}
}

// recorders bounds the lines of the audit that are written at the same time.
const recorders = 8

func (t Topic) record(ctx context.Context, actions []order.Action) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(recorders)
	for _, a := range actions {
		group.Go(func() error { return t.Target.RecordAction(ctx, a) })
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("what was done could not be recorded; repeat it when the target is well, nothing happens twice: %w", err)
	}
	return nil
}
