package target

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"ordersync/internal/order"
)

// Some more than a chunk, unknown ones among them, in one statement's order or another's.
func TestRowsAreHandedOutOneByOne(t *testing.T) {
	b := setup(t)
	var ids []string
	data := map[string]json.RawMessage{}
	for i := range lookUpChunk + 1 {
		s := step(fmt.Sprint(i), creation, int64(i))
		b.apply(t, s)
		ids = append(ids, s.Event.SyncID)
		data[s.Event.SyncID] = s.Event.Data
	}
	seen := 0
	err := b.Rows(t.Context(), append(ids, "unknown"), func(r Row) {
		seen++
		require.Equal(t, fmt.Sprint(r.Version), r.SyncID)
		require.True(t, sameJSON(t, r.Data, data[r.SyncID]), r.SyncID)
		require.Equal(t, order.Open, r.Status)
		require.Equal(t, order.Online, r.Channel)
	})
	require.NoError(t, err)
	require.Equal(t, len(ids), seen)
	require.NoError(t, b.Rows(t.Context(), nil, func(r Row) { t.Error(r) }))
}

// Every key comes once, whatever the size of the pages, and also those below a blank.
func TestKeysInPages(t *testing.T) {
	b := setup(t)
	want := map[string]bool{}
	for _, id := range []string{"\x01", "a", "a\x01", "A", "B", "ä", "日本", "10", "9"} {
		b.apply(t, step(id, creation, 1))
		want[id] = true
	}
	for _, limit := range []int{1, 2, 100} {
		got := map[string]bool{}
		after := ""
		for {
			keys, err := b.Keys(t.Context(), after, limit)
			require.NoError(t, err)
			for _, key := range keys {
				require.False(t, got[key], "%q came twice", key)
				got[key] = true
			}
			if len(keys) < limit {
				break
			}
			after = keys[len(keys)-1]
		}
		require.Equal(t, want, got, "in pages of %d", limit)
	}
}

func TestAmendmentsAreThoseThatReplacedData(t *testing.T) {
	b := setup(t)
	for i, a := range []order.Action{
		{SyncID: "1", Name: "amend", Original: json.RawMessage(`{"total":-1}`)},
		{SyncID: "1", Name: "amend", Effect: "refused"},
		{SyncID: "1", Name: "retry"},
		{SyncID: "2", Name: "amend", Original: json.RawMessage(`{"total":-2}`)},
	} {
		a.ID, a.At = uuid.New(), time.Date(2026, 1, 2, 3, 4, i, 0, time.UTC)
		require.NoError(t, b.RecordAction(t.Context(), a))
	}
	got := map[string]string{}
	require.NoError(t, b.Amendments(t.Context(), []string{"1", "3"}, func(id string, original []byte) { got[id] += string(original) }))
	require.Equal(t, map[string]string{"1": `{"total":-1}`}, got)
}

func TestAboutOrders(t *testing.T) {
	b := setup(t)
	for i := range 50 {
		b.apply(t, step(fmt.Sprint(i), creation, 1))
	}
	b.exec(t, "ANALYZE TABLE orders")
	n, err := b.AboutOrders(t.Context())
	require.NoError(t, err)
	require.InDelta(t, 50, n, 25)
}

// Somebody deletes an order and its creation comes again, by a repair or a replay under a new id.
func TestADeletedOrderComesBackAsItsInvoicesSay(t *testing.T) {
	for _, kind := range []order.Kind{creation, update} {
		b := setup(t)
		b.apply(t, step("1", creation, 1))
		b.apply(t, step("1", invoice, 1))
		b.exec(t, "DELETE FROM orders WHERE sync_id = '1'")
		b.apply(t, order.Step{Event: event("1", kind, 1), InsertMissing: true})
		row, found, err := b.Order(t.Context(), "1")
		require.NoError(t, err)
		require.True(t, found)
		require.Equal(t, order.Invoiced, row.Status, kind)
		b.apply(t, step("2", creation, 1))
		row, _, err = b.Order(t.Context(), "2")
		require.NoError(t, err)
		require.Equal(t, order.Open, row.Status, "another order's invoices do not count")
	}
}
