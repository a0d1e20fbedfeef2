package simulate

import (
	"bytes"
	"encoding/json"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"ordersync/internal/order"
)

func lines(t *testing.T, seed uint64, n int, o Options) string {
	t.Helper()
	var out bytes.Buffer
	for e := range Orders(seed, n, o) {
		text, err := Line(e)
		require.NoError(t, err)
		out.Write(text)
	}
	return out.String()
}

func TestOrdersAreTheSameForASeed(t *testing.T) {
	first := lines(t, 7, 200, Options{})
	assert.Equal(t, first, lines(t, 7, 200, Options{}))
	assert.NotEqual(t, first, lines(t, 8, 200, Options{}))
}

// An order must not change because more orders are asked for: a test that grows keeps its cases.
func TestAnOrderDoesNotDependOnTheNumberOfOrders(t *testing.T) {
	few := strings.SplitAfter(lines(t, 7, 20, Options{}), "\n")
	many := strings.SplitAfter(lines(t, 7, 400, Options{}), "\n")
	assert.Subset(t, many, few)
}

func TestSeedsHaveOrdersOfTheirOwn(t *testing.T) {
	seen := map[string]uint64{}
	for _, seed := range []uint64{0, 1, 2, 41, 999_999} {
		for e := range Orders(seed, 50, Options{}) {
			if other, ok := seen[e.SyncID]; ok {
				require.Equal(t, other, seed, "order %s belongs to two seeds", e.SyncID)
			}
			seen[e.SyncID] = seed
		}
	}
	assert.Len(t, seen, 5*50)
}

func TestOrdersLookLikeAShops(t *testing.T) {
	const n = 3000
	var (
		last     time.Time
		lastOf   = map[string]order.Event{}
		updates  = map[string]int{}
		channels = map[order.Channel]int{}
		ids      = map[uuid.UUID]bool{}
		gaps     int
		switches int
		previous string
		sizes    []int
	)
	for e := range Orders(1, n, Options{}) {
		require.False(t, ids[e.ID], "event_id %s twice", e.ID)
		ids[e.ID] = true
		require.Equal(t, uuid.Version(5), e.ID.Version())
		require.False(t, e.OccurredAt.Before(last), "occurred_at goes back")
		last = e.OccurredAt
		if e.SyncID != previous {
			switches++
			previous = e.SyncID
		}

		before, seen := lastOf[e.SyncID]
		lastOf[e.SyncID] = e
		if !seen {
			require.Equal(t, order.Creation, e.Kind)
			require.EqualValues(t, 1, e.Version)
			channels[e.Channel]++
			updates[e.SyncID] = 0
			continue
		}
		require.Contains(t, []order.Kind{order.Creation, order.Update}, before.Kind, "the invoice is the last event")
		require.NotEqual(t, order.Creation, e.Kind)
		require.Equal(t, before.Channel, e.Channel)
		require.Greater(t, e.Version, before.Version)
		require.True(t, e.OccurredAt.After(before.OccurredAt))
		if e.Version > before.Version+1 {
			gaps++
		}
		if e.Kind == order.Update {
			updates[e.SyncID]++
			sizes = append(sizes, len(e.Data))
		}
	}
	assert.Len(t, lastOf, n)
	byUpdates := map[int]int{}
	for id, e := range lastOf {
		assert.Equal(t, order.Invoice, e.Kind, "order %s ends with its invoice", id)
		byUpdates[updates[id]]++
	}
	assert.Len(t, byUpdates, 5, "0 to 4 updates: %v", byUpdates)
	assert.InDelta(t, 0.86*n, channels[order.Online], 0.03*n)
	assert.InDelta(t, 0.09*n, channels[order.Store], 0.02*n)
	assert.InDelta(t, 0.05*n, channels[order.International], 0.02*n)
	assert.Greater(t, gaps, 100)
	assert.Greater(t, switches, n*2, "orders overlap in time")
	slices.Sort(sizes)
	assert.Less(t, sizes[len(sizes)/2], 3000, "half of the updates are small")
	assert.Greater(t, sizes[len(sizes)-1], 20_000, "and the largest are not")
}

func TestUpdatesAreExact(t *testing.T) {
	for _, updates := range []int{0, 1, 6} {
		kinds := map[string][]order.Kind{}
		for e := range Orders(3, 40, Options{Updates: &updates}) {
			kinds[e.SyncID] = append(kinds[e.SyncID], e.Kind)
		}
		want := append([]order.Kind{order.Creation}, slices.Repeat([]order.Kind{order.Update}, updates)...)
		want = append(want, order.Invoice)
		assert.Len(t, kinds, 40)
		for id, got := range kinds {
			assert.Equal(t, want, got, "order %s", id)
		}
	}
}

// What is held while events stream out is the orders under way, not the number asked for.
func TestOrdersStream(t *testing.T) {
	next, stop := iter.Pull(Orders(1, MaxOrders, Options{}))
	defer stop()
	for range 1000 {
		_, ok := next()
		require.True(t, ok)
	}
}

// A line is read back as the event it was written from, by the decoder of the pipeline.
func TestLineIsAnEvent(t *testing.T) {
	for e := range Orders(5, 30, Options{}) {
		text, err := Line(e)
		require.NoError(t, err)
		require.Equal(t, byte('\n'), text[len(text)-1])
		got, err := Parse(text)
		require.NoError(t, err)
		got.Source = order.Source{}
		e.Source = order.Source{}
		require.Equal(t, e, got)
	}
}

func event(id, eventID string, kind order.Kind, version int64, data string) order.Event {
	return order.Event{
		SyncID: id, ID: order.ParseEventID(eventID), Kind: kind, Version: version,
		Channel: order.Online, Data: json.RawMessage(data),
	}
}

func TestExpect(t *testing.T) {
	for name, tc := range map[string]struct {
		events []order.Event
		want   Row
	}{
		"the highest version, not the last event": {
			[]order.Event{event("1", "c", order.Update, 5, `"five"`), event("1", "a", order.Creation, 1, `"one"`), event("1", "b", order.Update, 3, `"three"`)},
			Row{order.Online, json.RawMessage(`"five"`), 5, order.Open},
		},
		"an invoice moves the status alone": {
			[]order.Event{event("1", "a", order.Creation, 1, `"one"`), event("1", "i", order.Invoice, 9, `"bill"`)},
			Row{order.Online, json.RawMessage(`"one"`), 1, order.Invoiced},
		},
		"an update goes after a creation of its version": {
			[]order.Event{event("1", "u", order.Update, 1, `"update"`), event("1", "a", order.Creation, 1, `"creation"`)},
			Row{order.Online, json.RawMessage(`"update"`), 1, order.Open},
		},
		"without versions the last update": {
			[]order.Event{event("1", "a", order.Creation, 0, `1`), event("1", "b", order.Update, 0, `2`), event("1", "c", order.Update, 0, `3`), event("1", "d", order.Creation, 0, `4`)},
			Row{order.Online, json.RawMessage(`3`), 0, order.Open},
		},
		"without versions and updates the first creation": {
			[]order.Event{event("1", "a", order.Creation, 0, `1`), event("1", "d", order.Creation, 0, `4`)},
			Row{order.Online, json.RawMessage(`1`), 0, order.Open},
		},
		"a delivery again changes nothing": {
			[]order.Event{event("1", "a", order.Creation, 1, `1`), event("1", "a", order.Creation, 1, `2`)},
			Row{order.Online, json.RawMessage(`1`), 1, order.Open},
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := Expect(slices.Values(tc.events))
			assert.Equal(t, map[string]Row{"1": tc.want}, got.Orders)
		})
	}
	assert.Panics(t, func() {
		Expect(slices.Values([]order.Event{event("1", "a", order.Creation, 1, `1`), event("1", "b", order.Update, 0, `2`)}))
	}, "versions in one half only: the delivery decides")
}

func TestExpectDoesNotDependOnTheOrderOfDelivery(t *testing.T) {
	events := slices.Collect(Orders(11, 100, Options{}))
	want := Expect(slices.Values(events))
	shuffled := slices.Concat(events, events[:len(events)/2])
	rand.New(rand.NewPCG(1, 1)).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	assert.Empty(t, Compare(want, Expect(slices.Values(shuffled))))
	assert.Len(t, want.Orders, 100)
	assert.Len(t, want.Invoices, 100)
	assert.Len(t, want.Ledger, len(events))
}

func TestCompareNamesEveryDifference(t *testing.T) {
	want := Expect(slices.Values([]order.Event{
		event("1", "a", order.Creation, 1, `{"a":1.50}`), event("1", "i", order.Invoice, 2, `{"total":3}`),
		event("2", "b", order.Creation, 1, `1`), event("3", "c", order.Creation, 1, `1`),
	}))
	got := Expect(slices.Values([]order.Event{
		event("1", "a", order.Creation, 1, `{"a":1.5}`), event("1", "i", order.Invoice, 2, `{"total":4}`),
		event("2", "b", order.Creation, 2, `2`), event("4", "d", order.Creation, 1, `1`),
	}))
	diffs := strings.Join(Compare(want, got), "\n")
	for _, part := range []string{
		"order 2: version is 2, want 1; data is 2, want 1", "order 3 is missing", "order 4 should not be there",
		`data is {"total":4}, want {"total":3}`, "ledger row of order 3 event", "ledger row of order 4 event",
	} {
		assert.Contains(t, diffs, part)
	}
	assert.NotContains(t, diffs, "order 1:", "1.50 is 1.5")
}

func TestCompareHasALimit(t *testing.T) {
	want := Expect(Orders(1, 100, Options{}))
	diffs := Compare(want, Expect(slices.Values([]order.Event(nil))))
	assert.Len(t, diffs, maxDifferences+1)
	assert.Contains(t, diffs[maxDifferences], "more differences")
}

func TestSameJSON(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		same bool
	}{
		{`{"a":1,"b":[1,2]}`, `{ "b": [1, 2], "a": 1.0 }`, true},
		{`1e2`, `100`, true},
		{`9007199254740993`, `9007199254740992`, false},
		{`"1"`, `1`, false},
		{`"é"`, `"\u00e9"`, true},
		{`{"a":null}`, `{}`, false},
		{`[1,2]`, `[2,1]`, false},
		{`1e999999999`, `1e999999999`, true},
		{`"number 1"`, `1`, false},
		{`nonsense`, `nonsense`, false},
	} {
		assert.Equal(t, tc.same, SameJSON([]byte(tc.a), []byte(tc.b)), "%s and %s", tc.a, tc.b)
	}
}
