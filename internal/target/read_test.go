package target

import (
	"fmt"
	"testing"

	"github.com/google/uuid"

	"ordersync/internal/order"
)

// Some more than a chunk, unknown ones among them, and an id that belongs to another order.
func TestOutcomes(t *testing.T) {
	b := setup(t)
	var keys []EventKey
	for i := range lookUpChunk + 1 {
		s := step(fmt.Sprint(i), creation, 1)
		b.apply(t, s)
		keys = append(keys, KeyOf(s.Event))
	}
	stale := step("0", creation, 0)
	b.apply(t, stale)
	keys = append(keys, KeyOf(stale.Event), EventKey{SyncID: "0", ID: uuid.New()}, EventKey{SyncID: "1", ID: stale.Event.ID})
	found, err := b.Outcomes(t.Context(), keys)
	if err != nil || len(found) != lookUpChunk+2 {
		t.Fatalf("found %d (%v), want %d", len(found), err, lookUpChunk+2)
	}
	for i, key := range keys[:lookUpChunk+2] {
		want := order.Applied
		if i > lookUpChunk {
			want = order.Stale
		}
		if e := found[key]; e.Outcome != want || e.SyncID != key.SyncID || e.EventID != key.ID {
			t.Errorf("%v: got %+v, want %s", key, e, want)
		}
	}
	if none, err := b.Outcomes(t.Context(), nil); err != nil || len(none) != 0 {
		t.Errorf("of nothing: %v, %v", none, err)
	}
}

func TestCounts(t *testing.T) {
	b := setup(t)
	if c, err := b.Counts(t.Context()); err != nil || c != (Counts{}) {
		t.Errorf("of an empty target: %+v, %v", c, err)
	}
	b.apply(t, step("1", creation, 1))
	b.apply(t, step("2", creation, 1))
	b.apply(t, step("2", creation, 0))
	b.apply(t, step("2", invoice, 1))
	if _, err := b.Skip(t.Context(), event("1", invoice, 1)); err != nil {
		t.Fatal(err)
	}
	want := Counts{Orders: 2, Invoiced: 1, Invoices: 1, Events: 5, Applied: 3, Stale: 1, Skipped: 1}
	if c, err := b.Counts(t.Context()); err != nil || c != want {
		t.Errorf("got %+v (%v), want %+v", c, err, want)
	}
}

func TestOrderThatIsNot(t *testing.T) {
	b := setup(t)
	if row, found, err := b.Order(t.Context(), "1"); found || err != nil {
		t.Errorf("got %+v, %t, %v", row, found, err)
	}
}
