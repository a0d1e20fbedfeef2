package settle

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"ordersync/internal/order"
	"ordersync/internal/target"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// published is the record of an event at an offset of one partition, a second after the one before.
func published(id, eventID string, kind order.Kind, offset int64) order.Event {
	return order.Event{SyncID: id, ID: order.ParseEventID(eventID), Kind: kind, Source: source(offset)}
}

func source(offset int64) order.Source {
	return order.Source{Topic: "online", Offset: offset, ReceivedAt: noon.Add(time.Duration(offset) * time.Second)}
}

// ledger has the events, each applied so long after its record.
type ledger map[target.EventKey]target.Entry

func (l ledger) put(e order.Event, outcome order.Outcome, took time.Duration) {
	l[target.KeyOf(e)] = target.Entry{
		Kind: e.Kind, Version: e.Version, Digest: e.Digest, Outcome: outcome, SourceTopic: e.Source.Topic, ReceivedAt: e.Source.ReceivedAt, AppliedAt: e.Source.ReceivedAt.Add(took),
	}
}

func (l ledger) tick(t *Tally) int {
	ticked := 0
	for asked, all := 0, t.Open(); asked < all; {
		keys := t.Next(2)
		asked += len(keys)
		found := map[target.EventKey]target.Entry{}
		for _, key := range keys {
			if entry, ok := l[key]; ok {
				found[key] = entry
			}
		}
		ticked += t.Tick(found)
	}
	return ticked
}

func TestTallyTicksEventsNotCounts(t *testing.T) {
	tally, rows := NewTally(), ledger{}
	a := published("1", "a", order.Creation, 0)
	b := published("1", "b", order.Update, 1)
	c := published("1", "c", order.Invoice, 2)
	again := a
	again.Source = source(3)
	for _, e := range []order.Event{a, b, c, again} {
		tally.Published(e)
	}
	// Three rows for three events, but one of another order: as many as wanted, and not the ones.
	rows.put(a, order.Applied, time.Second)
	rows.put(c, order.Applied, 3*time.Second)
	rows.put(published("2", "b", order.Update, 1), order.Applied, time.Second)
	assert.Equal(t, 2, rows.tick(tally))
	assert.Equal(t, 1, tally.Outstanding())

	s := tally.Summary(nil, nil)
	assert.Equal(t, 4, s.Events)
	assert.Equal(t, 1, s.Duplicates)
	assert.Equal(t, 2, s.Applied)
	assert.Equal(t, 1, s.Invoices)
	assert.Equal(t, 1, s.Orders)
	assert.Equal(t, 1, s.Outstanding)
	require.Len(t, s.Waiting, 1)
	assert.Equal(t, b.ID, *s.Waiting[0].EventID)
	assert.EqualValues(t, 1, s.Waiting[0].Offset)

	rows.put(b, order.Stale, 2*time.Second)
	assert.Equal(t, 1, rows.tick(tally))
	assert.Equal(t, 0, rows.tick(tally), "once is enough")
	s = tally.Summary(nil, nil)
	assert.Equal(t, 0, s.Outstanding)
	assert.Equal(t, 1, s.Stale)
	assert.EqualValues(t, 2000, s.P50)
	assert.EqualValues(t, 3000, s.P99)
	assert.Equal(t, noon, *s.FirstPublished)
	assert.Equal(t, noon.Add(5*time.Second), *s.LastApplied)
	assert.InDelta(t, 0.6, s.EventsPerSecond, 0.01)
	assert.NotNil(t, s.Waiting, "a list is never null in JSON")
}

func TestTallyDeadLetters(t *testing.T) {
	e := published("1", "a", order.Update, 5)
	republished := e
	republished.Source = source(9)
	elsewhere := source(5)
	elsewhere.Partition = 3
	anew := source(5)
	anew.ReceivedAt = noon.Add(-24 * time.Hour)

	for name, tc := range map[string]struct {
		events   []order.Event
		rejected []order.Source
		written  time.Time
		source   order.Source
		value    *order.Event
		left     int
	}{
		"a record that is no event":                 {rejected: []order.Source{source(5)}, source: source(5)},
		"another place":                             {rejected: []order.Source{source(5)}, source: elsewhere, left: 1},
		"the same place of a topic since made anew": {rejected: []order.Source{source(5)}, source: anew, left: 1},
		"an event, by its identity":                 {events: []order.Event{e}, source: e.Source, value: &e},
		"an event refused for its size, by its place": {
			events: []order.Event{e}, source: e.Source,
		},
		"a duplicate that came before the letter goes with it": {
			events: []order.Event{e, republished}, written: republished.Source.ReceivedAt.Add(time.Minute), source: e.Source, value: &e,
		},
		"an event published anew after its letter": {
			events: []order.Event{e, republished}, written: e.Source.ReceivedAt, source: e.Source, value: &e, left: 1,
		},
		"the letter of the newer record": {
			events: []order.Event{e, republished}, written: e.Source.ReceivedAt, source: republished.Source, value: &republished,
		},
		"another event": {
			events: []order.Event{published("1", "b", order.Update, 6)}, source: e.Source, value: &e, left: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			tally := NewTally()
			for _, e := range tc.events {
				tally.Published(e)
			}
			for _, s := range tc.rejected {
				tally.Rejected(s)
			}
			tally.DeadLetter(tc.written, tc.source, tc.value)
			tally.TickDeadLetters()
			tally.TickDeadLetters()
			assert.Equal(t, tc.left, tally.Outstanding())
			s := tally.Summary(nil, nil)
			assert.Equal(t, 1-tc.left, s.DeadLetters)
			assert.Len(t, s.Waiting, tc.left)
		})
	}
}

// Two events that the ERP gave one event_id are two. The ledger has one of them at most, whichever came first there.
func TestTallyTellsEventsOfOneIdentityApart(t *testing.T) {
	of := func(kind order.Kind, version, offset int64, digest string) order.Event {
		e := published("1", "guid", kind, offset)
		e.Version, e.Digest = version, digest
		return e
	}
	const one, other = "0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"
	for name, tc := range map[string]struct{ first, second order.Event }{
		"another kind":    {of(order.Creation, 1, 0, ""), of(order.Update, 1, 1, "")},
		"another version": {of(order.Update, 1, 0, ""), of(order.Update, 2, 1, "")},
		"other data":      {of(order.Update, 0, 0, one), of(order.Update, 0, 1, other)},
	} {
		for _, applied := range []order.Event{tc.first, tc.second} {
			refused := tc.second
			if applied.Source == tc.second.Source {
				refused = tc.first
			}
			t.Run(fmt.Sprintf("%s, %s applied", name, applied.Name()), func(t *testing.T) {
				tally, rows := NewTally(), ledger{}
				again := refused
				again.Source = source(7)
				for _, e := range []order.Event{tc.first, tc.second, again} {
					tally.Published(e)
				}
				assert.Equal(t, 2, tally.Outstanding())
				rows.put(applied, order.Applied, time.Second)
				assert.Equal(t, 1, rows.tick(tally), "one row is that of one event")
				s := tally.Summary(nil, nil)
				assert.Equal(t, 1, s.Duplicates)
				require.Len(t, s.Waiting, 1)
				assert.Equal(t, refused.Kind, s.Waiting[0].Kind)
				assert.Contains(t, s.Waiting[0].Reason, "another event")

				// A letter of the one that was applied, and was replayed, does not settle the other.
				tally.DeadLetter(noon, applied.Source, &applied)
				tally.TickDeadLetters()
				assert.Equal(t, 1, tally.Outstanding())
				tally.DeadLetter(noon.Add(time.Hour), source(7), &again)
				tally.TickDeadLetters()
				assert.Equal(t, 0, tally.Outstanding())
				s = tally.Summary(nil, nil)
				assert.Equal(t, 1, s.Applied)
				assert.Equal(t, 1, s.DeadLetters)
			})
		}
	}
	t.Run("an entry from before digests is the event of either data", func(t *testing.T) {
		tally, rows := NewTally(), ledger{}
		first, second := of(order.Update, 0, 0, one), of(order.Update, 0, 1, other)
		tally.Published(first)
		tally.Published(second)
		entry := first
		entry.Digest = ""
		rows.put(entry, order.Applied, time.Second)
		assert.Equal(t, 2, rows.tick(tally), "as the target takes both for it")
	})
}

func TestTallyBehindBlockedOrders(t *testing.T) {
	tally, rows := NewTally(), ledger{}
	applied := published("1", "a", order.Creation, 0)
	rows.put(applied, order.Applied, time.Second)
	for _, e := range []order.Event{
		applied, published("1", "b", order.Update, 1), published("1", "c", order.Invoice, 2), published("2", "d", order.Creation, 3),
	} {
		tally.Published(e)
	}
	rows.tick(tally)

	blocked := map[string]bool{"1": true, "7": true}
	events, orders := tally.Behind(blocked)
	assert.Equal(t, 2, events)
	assert.Equal(t, 1, orders)
	s := tally.Summary(blocked, nil)
	assert.Equal(t, 2, s.Blocked)
	assert.Equal(t, 1, s.BlockedOrders)
	assert.Equal(t, 1, s.Outstanding, "order 2 is not blocked")
	require.Len(t, s.Waiting, 1)
	assert.Equal(t, "2", s.Waiting[0].SyncID)
}

func TestTallyGoesRoundWhatIsOutstanding(t *testing.T) {
	tally, rows := NewTally(), ledger{}
	var events []order.Event
	for i := range 25 {
		e := published(fmt.Sprint(i), "a", order.Creation, int64(i))
		events = append(events, e)
		tally.Published(e)
	}
	for i, e := range events {
		if i%3 != 0 {
			rows.put(e, order.Applied, time.Second)
		}
	}
	assert.Equal(t, 16, rows.tick(tally), "one round asks for every one of them")
	for i, e := range events {
		if i%3 == 0 {
			rows.put(e, order.Applied, time.Second)
		}
	}
	assert.Equal(t, 9, rows.tick(tally))
	assert.Equal(t, 0, tally.Outstanding())
	assert.Empty(t, tally.Next(10))
}

func TestTallyHasNoLatencyOfPatientTopics(t *testing.T) {
	rows := ledger{}
	quick, late := published("1", "a", order.Creation, 0), published("2", "b", order.Creation, 1)
	late.Source.Topic = "late"
	rows.put(quick, order.Applied, time.Second)
	rows.put(late, order.Applied, 5*time.Second)
	tally := NewTally("late")
	tally.Published(quick)
	tally.Published(late)
	assert.Equal(t, 2, rows.tick(tally))
	s := tally.Summary(nil, nil)
	assert.Equal(t, 2, s.Applied)
	assert.EqualValues(t, 1000, s.P99)
	assert.InDelta(t, 0.3, s.EventsPerSecond, 0.01, "of all")
}

// A record without a plausible timestamp (-1, 0, seconds, far ahead) is settled as any other, and measured by nothing.
func TestTallyMeasuresNothingByTimestampsThatAreNone(t *testing.T) {
	tally, rows := NewTally(), ledger{}
	events := []order.Event{published("1", "a", order.Creation, 0), published("2", "b", order.Creation, 1), published("3", "c", order.Creation, 2), published("4", "d", order.Creation, 3)}
	for i, at := range []time.Time{time.UnixMilli(-1).UTC(), time.UnixMilli(1_700_000_000).UTC(), order.ClampTime(time.UnixMilli(1 << 62))} {
		events[i].Source.ReceivedAt = at
	}
	for _, e := range events {
		tally.Published(e)
		rows.put(e, order.Applied, 2*time.Second)
		row := rows[target.KeyOf(e)]
		row.AppliedAt = noon.Add(5 * time.Second) // the last was received 2 s before
		rows[target.KeyOf(e)] = row
	}
	require.Equal(t, len(events), rows.tick(tally))
	s := tally.Summary(nil, nil)
	require.Zero(t, s.Outstanding)
	require.Equal(t, noon.Add(3*time.Second), *s.FirstPublished)
	require.Equal(t, []int64{2000, 2000}, []int64{s.P50, s.P99})
}

func TestTallyNamesTheFirstInKafka(t *testing.T) {
	tally := NewTally()
	for i := range 40 {
		tally.Published(published(fmt.Sprint(i), "a", order.Creation, int64(39-i)))
	}
	tally.Rejected(source(100))
	s := tally.Summary(nil, nil)
	require.Len(t, s.Waiting, maxWaiting)
	for i, w := range s.Waiting {
		assert.EqualValues(t, i, w.Offset)
	}
	assert.Equal(t, 41, s.Outstanding)
}

func TestPercentile(t *testing.T) {
	hundred := make([]uint32, 100)
	for i := range hundred {
		hundred[i] = uint32(i + 1)
	}
	assert.EqualValues(t, 50, percentile(hundred, 50))
	assert.EqualValues(t, 99, percentile(hundred, 99))
	assert.EqualValues(t, 7, percentile([]uint32{7}, 99))
	assert.EqualValues(t, 0, percentile(nil, 50))
}
