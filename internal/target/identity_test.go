package target

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"

	"ordersync/internal/order"
)

// decoded is an event as the starter makes it of a record's value.
func decoded(t testing.TB, value string) order.Event {
	t.Helper()
	e, err := order.Decode(order.Record{
		Topic: "online", Partition: 3, Offset: offsets.Add(1), Timestamp: time.Date(2026, 3, 29, 1, 30, 0, 0, time.UTC), Value: []byte(value),
	}, order.Online)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// One event_id for all events of an order, its GUID say: none of them takes another's place without a trace.
func TestIdentityOfAnotherEvent(t *testing.T) {
	const same = `"sync_id":"1","event_id":"the order's"`
	for name, c := range map[string]struct {
		first, second string
		conflict      string // the recorded event's name; empty for a duplicate
	}{
		"another kind":           {`{"event":"order_creation","version":1,"data":1}`, `{"event":"order_updation","version":1,"data":1}`, "order_creation v1"},
		"another version":        {`{"event":"order_updation","version":1,"data":1}`, `{"event":"order_updation","version":2,"data":1}`, "order_updation v1"},
		"a lower version":        {`{"event":"order_updation","version":2,"data":1}`, `{"event":"order_updation","version":1,"data":1}`, "order_updation v2"},
		"a version and none":     {`{"event":"order_updation","version":2,"data":1}`, `{"event":"order_updation","data":1}`, "order_updation v2"},
		"none and a version":     {`{"event":"order_updation","data":1}`, `{"event":"order_updation","version":2,"data":1}`, "order_updation"},
		"other data":             {`{"event":"order_updation","data":{"a":1}}`, `{"event":"order_updation","data":{"a":2}}`, "order_updation"},
		"the same data":          {`{"event":"order_updation","data":{"a":1,"b":2}}`, `{"event":"order_updation","data":{"b":2.0, "a":1}}`, ""},
		"other data, a version":  {`{"event":"order_creation","version":1,"data":1}`, `{"event":"order_creation","version":1,"data":2}`, ""},
		"another invoice":        {`{"event":"invoice_creation","data":1}`, `{"event":"invoice_creation","data":2}`, "invoice_creation"},
		"an invoice, an update":  {`{"event":"invoice_creation","data":1}`, `{"event":"order_updation","data":1}`, "invoice_creation"},
		"half of a pair of code": {`{"event":"invoice_creation","data":"\ud83d"}`, `{"event":"invoice_creation","data":"\ud83e"}`, "invoice_creation"},
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			b.apply(t, step("1", creation, 0))
			first, second := decoded(t, "{"+same+","+c.first[1:]), decoded(t, "{"+same+","+c.second[1:])
			if name == "half of a pair of code" { // which MariaDB takes as data nowhere
				first.Data, second.Data = json.RawMessage(`1`), json.RawMessage(`2`)
			}
			was := b.apply(t, order.Step{Event: first})
			before := b.counts(t)
			row, _, err := b.Order(t.Context(), "1")
			if err != nil {
				t.Fatal(err)
			}
			want := order.Result{Outcome: was.Outcome, Status: was.Status, Duplicate: true}
			if c.conflict != "" {
				want = order.Result{Outcome: order.Conflict, Status: was.Status, Recorded: c.conflict}
			}
			for range 2 {
				if got := b.apply(t, order.Step{Event: second}); got != want {
					t.Errorf("got %+v, want %+v", got, want)
				}
				if got, err := b.Skip(t.Context(), second); err != nil || got != want {
					t.Errorf("skipped: got %+v (%v), want %+v", got, err, want)
				}
			}
			if after := b.counts(t); after != before {
				t.Errorf("orders, invoices, events: %d became %d", before, after)
			}
			if after, _, err := b.Order(t.Context(), "1"); err != nil || after.UpdatedAt != row.UpdatedAt || !sameJSON(t, after.Data, row.Data) {
				t.Errorf("the row changed: %+v, %v", after, err)
			}
			// The first is still itself, also to those who look it up.
			if got := b.apply(t, order.Step{Event: first}); !got.Duplicate || got.Outcome != was.Outcome {
				t.Errorf("the first again: %+v", got)
			}
			found, err := b.Outcomes(t.Context(), []EventKey{KeyOf(first)})
			entry, ok := found[KeyOf(first)]
			if err != nil || !ok || !entry.Is(first) || entry.Is(second) != (c.conflict == "") {
				t.Errorf("got %+v, %v", found, err)
			}
		})
	}
}

// A conflict is told of an order that the target lacks as well, and is no reason to wait for its creation.
func TestIdentityOfASkippedEvent(t *testing.T) {
	b := setup(t)
	first := decoded(t, `{"sync_id":"1","event_id":"x","event":"order_updation","version":1,"data":1}`)
	if _, err := b.Skip(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	second := decoded(t, `{"sync_id":"1","event_id":"x","event":"order_updation","version":2,"data":1}`)
	if got, want := b.apply(t, order.Step{Event: second}), (order.Result{Outcome: order.Conflict, Recorded: "order_updation v1"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	other := decoded(t, `{"sync_id":"2","event_id":"x","event":"order_updation","version":2,"data":1}`)
	if got := b.apply(t, order.Step{Event: other}); got.Outcome != order.Missing {
		t.Errorf("of another order: got %+v", got)
	}
}

// What an amendment made of an event is still the event as it came.
func TestIdentityOfAnAmendedEvent(t *testing.T) {
	b := setup(t)
	b.apply(t, step("1", creation, 0))
	came := decoded(t, `{"sync_id":"1","event_id":"x","event":"order_updation","data":{"a":"wrong"}}`)
	amended := came
	amended.Data = json.RawMessage(`{"a":"right"}`)
	b.apply(t, order.Step{Event: amended})
	if got := b.apply(t, order.Step{Event: came}); !got.Duplicate {
		t.Errorf("got %+v", got)
	}
	other := decoded(t, `{"sync_id":"1","event_id":"x","event":"order_updation","data":{"a":"right"}}`)
	if got := b.apply(t, order.Step{Event: other}); got.Outcome != order.Conflict {
		t.Errorf("got %+v", got)
	}
}

// Rows from before digests, and of workers from before them: what is not known counts as a duplicate, and a
// kind or a version is known.
func TestLedgerFromBeforeDigests(t *testing.T) {
	b := setup(t)
	b.apply(t, step("1", creation, 0))
	e := decoded(t, `{"sync_id":"1","event_id":"x","event":"order_updation","data":1}`)
	// As a worker of the release before writes it.
	b.exec(t, `INSERT INTO order_events
		(sync_id, event_id, kind, version, outcome, source_topic, source_partition, source_offset, occurred_at, received_at, applied_at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, CURRENT_TIMESTAMP(6))`, "1", e.ID, e.Kind, nil, order.Applied, "online", 0, 0, e.OccurredAt, e.OccurredAt)
	for value, want := range map[string]order.Outcome{
		`{"sync_id":"1","event_id":"x","event":"order_updation","data":2}`:               order.Applied,
		`{"sync_id":"1","event_id":"x","event":"order_updation","version":1,"data":1}`:   order.Conflict,
		`{"sync_id":"1","event_id":"x","event":"invoice_creation","data":1}`:             order.Conflict,
		`{"sync_id":"1","event_id":"x","event":"order_creation","version":1,"data":{}}`:  order.Conflict,
		`{"sync_id":"1","event_id":"x","event":"order_updation","data":{"other":"one"}}`: order.Applied,
	} {
		if got := b.apply(t, order.Step{Event: decoded(t, value)}); got.Outcome != want || got.Duplicate != (want != order.Conflict) {
			t.Errorf("%s: got %+v, want %s", value, got, want)
		}
	}
}

// Two invoices of one version are two rows, and each stays one, whatever is read again: also where the first was
// applied when an invoice was identified by its version alone.
func TestInvoicesOfOneVersion(t *testing.T) {
	invoiceOf := func(number int) order.Event {
		return decoded(t, fmt.Sprintf(`{"sync_id":"1","event":"invoice_creation","version":2,"data":{"number":%d}}`, number))
	}
	former := func(e order.Event) order.Event {
		e.ID, e.Digest = e.Alias().ID, ""
		return e
	}
	apply := func(t *testing.T, b bundle, e order.Event, duplicate bool, invoices int64) {
		t.Helper()
		for range 2 {
			got := b.apply(t, order.Step{Event: e})
			if got.Outcome != order.Applied || got.Status != order.Invoiced || got.Duplicate != duplicate {
				t.Errorf("got %+v, want a duplicate: %t", got, duplicate)
			}
			duplicate = true
		}
		if c, err := b.Counts(t.Context()); err != nil || c.Invoices != invoices {
			t.Errorf("got %d invoices (%v), want %d", c.Invoices, err, invoices)
		}
	}
	t.Run("both new", func(t *testing.T) {
		b := setup(t)
		b.apply(t, step("1", creation, 1))
		apply(t, b, invoiceOf(1), false, 1)
		apply(t, b, invoiceOf(2), false, 2)
	})
	t.Run("the first from before", func(t *testing.T) {
		b := setup(t)
		b.apply(t, step("1", creation, 1))
		apply(t, b, former(invoiceOf(1)), false, 1)
		apply(t, b, invoiceOf(1), true, 1)
		apply(t, b, invoiceOf(2), false, 2)

		first, second, third := KeyOf(invoiceOf(1)), KeyOf(invoiceOf(2)), KeyOf(invoiceOf(3))
		found, err := b.Outcomes(t.Context(), []EventKey{first, second, third})
		if err != nil || len(found) != 2 || found[first].EventID != first.Alias.ID || found[second].EventID != second.ID {
			t.Errorf("got %+v, %v", found, err)
		}
	})
	t.Run("the first from before, amended", func(t *testing.T) {
		b := setup(t)
		b.apply(t, step("1", creation, 1))
		was := former(invoiceOf(1))
		original := was.Data
		was.Data = json.RawMessage(`{"number":99}`)
		apply(t, b, was, false, 1)
		if err := b.RecordAction(t.Context(), order.Action{SyncID: "1", ID: uuid.New(), Name: "amend", EventID: &was.ID, At: time.Now(), Original: original}); err != nil {
			t.Fatal(err)
		}
		apply(t, b, invoiceOf(1), true, 1)
		apply(t, b, invoiceOf(99), false, 2)
	})
	t.Run("a letter from before after the record", func(t *testing.T) {
		b := setup(t)
		b.apply(t, step("1", creation, 1))
		apply(t, b, invoiceOf(1), false, 1)
		apply(t, b, former(invoiceOf(1)), true, 1)
		if found, err := b.Outcomes(t.Context(), []EventKey{KeyOf(former(invoiceOf(1)))}); err != nil || len(found) != 1 {
			t.Errorf("got %+v, %v", found, err)
		}
	})
	t.Run("skipped before", func(t *testing.T) {
		b := setup(t)
		b.apply(t, step("1", creation, 1))
		if _, err := b.Skip(t.Context(), former(invoiceOf(1))); err != nil {
			t.Fatal(err)
		}
		if got, want := b.apply(t, order.Step{Event: invoiceOf(1)}), (order.Result{Outcome: order.Skipped, Status: order.Open, Duplicate: true}); got != want {
			t.Errorf("got %+v, want %+v", got, want)
		}
	})
	t.Run("from before, its ledger row deleted", func(t *testing.T) {
		b := setup(t)
		b.apply(t, step("1", creation, 1))
		apply(t, b, former(invoiceOf(1)), false, 1)
		b.exec(t, "DELETE FROM order_events")
		apply(t, b, invoiceOf(1), false, 1) // it has a ledger row again, which those who wait look for
		b.wantCounts(t, 1, 1, 1)
		apply(t, b, invoiceOf(2), false, 2)
	})
}

// An invoice whose ledger row was deleted is still told apart from another of its event_id.
func TestIdentityOfAnInvoiceWhoseLedgerRowIsGone(t *testing.T) {
	b := setup(t)
	b.apply(t, step("1", creation, 1))
	first := decoded(t, `{"sync_id":"1","event_id":"x","event":"invoice_creation","data":{"number":1}}`)
	second := decoded(t, `{"sync_id":"1","event_id":"x","event":"invoice_creation","data":{"number":2}}`)
	b.apply(t, order.Step{Event: first})
	b.exec(t, "DELETE FROM order_events")
	if got, want := b.apply(t, order.Step{Event: second}), (order.Result{Outcome: order.Conflict, Status: order.Invoiced, Recorded: "invoice_creation"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	b.wantCounts(t, 1, 1, 0)
	if got := b.apply(t, order.Step{Event: first}); got.Outcome != order.Applied || got.Duplicate {
		t.Errorf("got %+v", got)
	}
	b.wantCounts(t, 1, 1, 1)
}
