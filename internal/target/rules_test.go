package target

import (
	"errors"
	"testing"
	"time"

	"ordersync/internal/order"
)

// Kinds in short, for the tables.
const (
	creation = order.Creation
	update   = order.Update
	invoice  = order.Invoice
)

// rules are the order rules as they show in the target. before is applied to an empty one, then
// comes the step.
var rules = []struct {
	name    string
	before  []order.Step
	step    order.Step
	outcome order.Outcome
	status  order.Status
	version int64 // the row's, afterwards
	data    bool  // the row holds the step's data afterwards
}{
	{"creation of a new order", nil, step("1", creation, 0), order.Applied, order.Open, 0, true},
	{"versioned creation of a new order", nil, step("1", creation, 7), order.Applied, order.Open, 7, true},
	{"unversioned creation again", steps(creation, 0), step("1", creation, 0), order.Stale, order.Open, 0, false},
	{"unversioned creation over a version", steps(creation, 3), step("1", creation, 0), order.Stale, order.Open, 3, false},
	{"creation over a row without a version", steps(creation, 0), step("1", creation, 1), order.Applied, order.Open, 1, true},
	{"creation of a higher version", steps(creation, 1), step("1", creation, 2), order.Applied, order.Open, 2, true},
	{"creation of the same version", steps(creation, 2), step("1", creation, 2), order.Applied, order.Open, 2, true},
	{"creation of a lower version", steps(creation, 3), step("1", creation, 2), order.Stale, order.Open, 3, false},
	{"creation after the invoice", steps(creation, 1, invoice, 2), step("1", creation, 2), order.Applied, order.Invoiced, 2, true},
	{"stale creation after the invoice", steps(creation, 1, invoice, 2), step("1", creation, 0), order.Stale, order.Invoiced, 1, false},

	{"update of a missing order", nil, step("1", update, 2), order.Missing, "", 0, false},
	{"unversioned update of a missing order", nil, step("1", update, 0), order.Missing, "", 0, false},
	{"update as an insert", nil, inserting(step("1", update, 2)), order.Applied, order.Open, 2, true},
	{"unversioned update as an insert", nil, inserting(step("1", update, 0)), order.Applied, order.Open, 0, true},
	{"update that may insert, of an order that exists", steps(creation, 2), inserting(step("1", update, 1)), order.Stale, order.Open, 2, false},
	{"update of a higher version", steps(creation, 1), step("1", update, 5), order.Applied, order.Open, 5, true},
	{"update of the same version", steps(creation, 2), step("1", update, 2), order.Applied, order.Open, 2, true},
	{"update of a lower version", steps(creation, 1, update, 5), step("1", update, 4), order.Stale, order.Open, 5, false},
	{"update of a row without a version", steps(creation, 0), step("1", update, 4), order.Applied, order.Open, 4, true},
	{"unversioned update leaves the version alone", steps(creation, 4), step("1", update, 0), order.Applied, order.Open, 4, true},
	{"unversioned update of a row without a version", steps(creation, 0), step("1", update, 0), order.Applied, order.Open, 0, true},
	{"update by the version that an unversioned one left", steps(creation, 4, update, 0), step("1", update, 3), order.Stale, order.Open, 4, false},
	{"update after the invoice", steps(creation, 1, invoice, 2), step("1", update, 3), order.Applied, order.Invoiced, 3, true},

	{"invoice of a missing order", nil, step("1", invoice, 2), order.Missing, "", 0, false},
	{"invoice of a missing order that may insert", nil, inserting(step("1", invoice, 2)), order.Missing, "", 0, false},
	{"invoice", steps(creation, 1), step("1", invoice, 0), order.Applied, order.Invoiced, 1, false},
	{"invoice of a higher version", steps(creation, 1), step("1", invoice, 9), order.Applied, order.Invoiced, 1, false},
	{"invoice of a lower version", steps(creation, 5), step("1", invoice, 2), order.Applied, order.Invoiced, 5, false},
	{"second invoice", steps(creation, 1, invoice, 2), step("1", invoice, 2), order.Applied, order.Invoiced, 1, false},
}

// steps takes kinds and versions in turn.
func steps(kindsAndVersions ...any) []order.Step {
	var all []order.Step
	for i := 0; i < len(kindsAndVersions); i += 2 {
		all = append(all, step("1", kindsAndVersions[i].(order.Kind), int64(kindsAndVersions[i+1].(int))))
	}
	return all
}

func inserting(s order.Step) order.Step {
	s.InsertMissing = true
	return s
}

func TestRules(t *testing.T) {
	b := setup(t)
	for _, rule := range rules {
		t.Run(rule.name, func(t *testing.T) {
			for _, table := range []string{"orders", "invoices", "order_events"} {
				b.exec(t, "DELETE FROM "+table)
			}
			for _, before := range rule.before {
				if got := b.apply(t, before); got.Outcome != order.Applied {
					t.Fatalf("%s before it: %v", before.Event.Name(), got)
				}
			}
			rowBefore, existed, err := b.Order(t.Context(), "1")
			if err != nil {
				t.Fatal(err)
			}
			countsBefore := b.counts(t)
			e := rule.step.Event
			rule.step.Event.Channel = order.Store // each of the steps before it is online

			got := b.apply(t, rule.step)
			if want := (order.Result{Outcome: rule.outcome, Status: rule.status}); got != want {
				t.Errorf("result: got %+v, want %+v", got, want)
			}

			row, exists, err := b.Order(t.Context(), "1")
			switch {
			case err != nil:
				t.Fatal(err)
			case exists != (existed || rule.outcome == order.Applied):
				t.Fatalf("the order's row exists: %t", exists)
			case exists:
				want, channel := rowBefore.Data, order.Online
				if rule.data {
					want, channel = e.Data, order.Store
				}
				if !sameJSON(t, row.Data, want) || row.Channel != channel || row.Version != rule.version || row.Status != rule.status {
					t.Errorf("row: got %s %s v%d %s, want %s %s v%d %s", row.Data, row.Channel, row.Version, row.Status, want, channel, rule.version, rule.status)
				}
				if existed && !row.CreatedAt.Equal(rowBefore.CreatedAt) {
					t.Errorf("created_at moved from %s to %s", rowBefore.CreatedAt, row.CreatedAt)
				}
			}

			wantCounts := countsBefore
			if rule.outcome == order.Applied && !existed {
				wantCounts[0]++
			}
			if rule.outcome == order.Applied && e.Kind == order.Invoice {
				wantCounts[1]++
			}
			if rule.outcome != order.Missing {
				wantCounts[2]++
			}
			if counts := b.counts(t); counts != wantCounts {
				t.Errorf("orders, invoices, events: got %d, want %d", counts, wantCounts)
			}

			// Delivered again it changes nothing, unless it was not resolved.
			again := b.apply(t, rule.step)
			if want := (order.Result{Outcome: rule.outcome, Status: rule.status, Duplicate: rule.outcome != order.Missing}); again != want {
				t.Errorf("second delivery: got %+v, want %+v", again, want)
			}
			if counts := b.counts(t); counts != wantCounts {
				t.Errorf("after the second delivery: orders, invoices, events: got %d, want %d", counts, wantCounts)
			}
		})
	}
}

// The same table, by the decision alone.
func TestDecide(t *testing.T) {
	for _, rule := range rules {
		var row *current
		for _, before := range rule.before {
			status := statusAfter(row, before.Event.Kind, decide(row, before))
			if row == nil {
				row = &current{}
			}
			row.status = status
			if before.Event.Kind != order.Invoice && before.Event.Versioned() {
				row.version = before.Event.Version
			}
		}
		outcome := decide(row, rule.step)
		if status := statusAfter(row, rule.step.Event.Kind, outcome); outcome != rule.outcome || status != rule.status {
			t.Errorf("%s: got %s and status %q, want %s and %q", rule.name, outcome, status, rule.outcome, rule.status)
		}
	}
}

func TestSkip(t *testing.T) {
	b := setup(t)
	skip := func(e order.Event, want order.Result) {
		t.Helper()
		got, err := b.Skip(t.Context(), e)
		if err != nil || got != want {
			t.Errorf("skip %s: got %+v (%v), want %+v", e.Name(), got, err, want)
		}
	}
	first := step("1", creation, 1)
	skip(first.Event, order.Result{Outcome: order.Skipped})
	b.wantCounts(t, 0, 0, 1)
	skip(first.Event, order.Result{Outcome: order.Skipped, Duplicate: true})

	// The ledger's word stands above what the missing row would mean: applied is not undone by
	// it, and a skipped update or invoice is not held for a creation again.
	for _, kind := range order.Kinds {
		s := step("2", kind, 1)
		skip(s.Event, order.Result{Outcome: order.Skipped})
		if got, want := b.apply(t, s), (order.Result{Outcome: order.Skipped, Duplicate: true}); got != want {
			t.Errorf("apply a skipped %s: got %+v, want %+v", kind, got, want)
		}
	}
	b.wantCounts(t, 0, 0, 4)

	second := step("1", creation, 1)
	b.apply(t, second)
	skip(second.Event, order.Result{Outcome: order.Applied, Status: order.Open, Duplicate: true})
	skip(event("1", invoice, 2), order.Result{Outcome: order.Skipped, Status: order.Open})
	b.wantCounts(t, 1, 0, 6)
}

// A duplicate's status is the order's of now, its outcome that of then.
func TestDuplicateTellsStatusOfNow(t *testing.T) {
	b := setup(t)
	first := step("1", creation, 1)
	b.apply(t, first)
	b.apply(t, step("1", invoice, 2))
	if got, want := b.apply(t, first), (order.Result{Outcome: order.Applied, Status: order.Invoiced, Duplicate: true}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestUnknownKindIsNotTheEventsFault(t *testing.T) {
	b := setup(t)
	_, err := b.Apply(t.Context(), step("1", "order_cancellation", 1))
	var failure *order.Failure
	if !errors.As(err, &failure) || failure.Permanent || !failure.Operator || failure.Type != "UnknownEvent" {
		t.Errorf("got %v, want a retryable UnknownEvent", err)
	}
	b.wantCounts(t, 0, 0, 0)
}

// ABC and abc are two orders, and so is what differs in an accent.
func TestSyncIDsAreComparedByBytes(t *testing.T) {
	b := setup(t)
	ids := []string{"ABC", "abc", "ÄBC", "äbc", "1", "01", "日本", "🛒", "é", "e\u0301", "a b", "a  b", "x", "x\u200b", "it's \"50%\"", `a\b`}
	for _, id := range ids {
		b.apply(t, step(id, creation, 1))
		b.apply(t, step(id, invoice, 1))
	}
	b.wantCounts(t, int64(len(ids)), int64(len(ids)), 2*int64(len(ids)))
	for _, id := range ids {
		if entries, err := b.Timeline(t.Context(), id); err != nil || len(entries) != 2 || entries[0].SyncID != id {
			t.Errorf("timeline of %s: %v, %v", id, entries, err)
		}
	}
}

func TestTimeline(t *testing.T) {
	b := setup(t)
	before := time.Now().Add(-time.Minute)
	sent := []order.Step{step("1", creation, 1), step("1", update, 3), step("1", update, 2), step("1", invoice, 0)}
	wantOutcomes := []order.Outcome{order.Applied, order.Applied, order.Stale, order.Applied}
	for _, s := range sent {
		b.apply(t, s)
	}
	b.apply(t, step("2", creation, 1))
	entries, err := b.Timeline(t.Context(), "1")
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != len(sent) {
		t.Fatalf("got %d entries, want %d", len(entries), len(sent))
	}
	for i, got := range entries {
		e := sent[i].Event
		want := Entry{SyncID: "1", EventID: e.ID, Kind: e.Kind, Version: e.Version, Outcome: wantOutcomes[i],
			SourceTopic: "online", SourcePartition: 3, SourceOffset: e.Source.Offset,
			OccurredAt: e.OccurredAt, ReceivedAt: e.Source.ReceivedAt, AppliedAt: got.AppliedAt}
		if got != want {
			t.Errorf("entry %d: got %+v, want %+v", i, got, want)
		}
		if got.AppliedAt.Before(before) || got.AppliedAt.After(time.Now().Add(time.Minute)) {
			t.Errorf("entry %d was applied at %s", i, got.AppliedAt)
		}
		if got.Latency() != got.AppliedAt.Sub(e.Source.ReceivedAt) {
			t.Errorf("entry %d: latency %s", i, got.Latency())
		}
	}
	none, err := b.Timeline(t.Context(), "3")
	if err != nil || none == nil || len(none) != 0 {
		t.Errorf("timeline of no order: %v, %v; want an empty list", none, err)
	}
}
