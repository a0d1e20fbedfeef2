package poll_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"ordersync/internal/erp"
	"ordersync/internal/order"
	"ordersync/internal/poll"
	"ordersync/internal/target"
)

// derived is a row whose version comes from its time, under the identity of today and that of a release before.
func derived(t testing.TB, syncID string, kind order.Kind, at time.Time) erp.Row {
	t.Helper()
	row := change(t, syncID, at.UnixMicro(), at)
	row.Event.Kind = kind
	row.Earlier = order.ParseEventID(fmt.Sprint("earlier ", syncID, kind, at.UnixNano()))
	var err error
	row.Value, err = row.Event.Message()
	require.NoError(t, err)
	row.Event, err = order.Decode(order.Record{Value: row.Value}, order.Online)
	require.NoError(t, err)
	return row
}

// What a release without derived versions has read stays the event that it was, also where the ledger lacks it yet.
func TestFromAReleaseWithoutDerivedVersions(t *testing.T) {
	b := setup(t)
	old := []erp.Row{
		derived(t, "1", order.Creation, start), derived(t, "1", order.Invoice, start.Add(time.Second)),
		derived(t, "2", order.Creation, start.Add(2*time.Second)), derived(t, "2", order.Update, start.Add(3*time.Second)),
	}
	b.add(old...)
	for i := range b.rows { // as that release published them
		b.rows[i].Row = b.rows[i].Former()
		b.rows[i].Earlier = uuid.Nil
	}
	last := b.poll(t, order.PollState{})
	last.Derives = false
	published := b.records(t, "online")
	require.Len(t, published, 4)
	b.apply(t, published[:2]) // the others wait behind a stuck order
	b.restart(t)
	b.rows = nil
	b.add(old...)
	b.add(derived(t, "2", order.Update, start.Add(4*time.Second)))

	state := b.poll(t, last)
	require.True(t, state.Derives)
	require.Equal(t, start.Add(3*time.Second), state.FormerUntil)
	require.EqualValues(t, 2, state.Known)
	records := b.records(t, "online")
	ids, versioned := map[uuid.UUID]bool{}, 0
	for _, r := range records {
		e, err := order.Decode(order.Record{Value: r.Value}, order.Online)
		require.NoError(t, err)
		ids[e.ID] = true
		if e.Versioned() {
			versioned++
		}
	}
	require.Len(t, ids, 5, "no event got a second identity")
	require.Equal(t, 1, versioned, "what changed since has a version")
	b.apply(t, records)
	b.restart(t)
	state = b.poll(t, state)
	require.Equal(t, start.Add(3*time.Second), state.FormerUntil)
	require.EqualValues(t, state.Read, state.Known)

	// Polling begins again at the beginning, or a backfill reads all: the ledger knows either identity.
	state = b.poll(t, order.PollState{})
	require.EqualValues(t, 5, state.Known)
	past := task(order.PollState{From: start})
	past.Backfill = true
	state, err := b.Poll(t.Context(), past, on)
	require.NoError(t, err)
	require.EqualValues(t, 5, state.Known)
}

// identities are those of the events in a topic.
func (b *bundle) identities(t *testing.T, topic string) map[uuid.UUID]bool {
	t.Helper()
	ids := map[uuid.UUID]bool{}
	for _, r := range b.records(t, topic) {
		e, err := order.Decode(order.Record{Value: r.Value}, order.Online)
		require.NoError(t, err)
		ids[e.ID] = true
	}
	return ids
}

// In a rolling update or after a rollback a worker of the release before polls between two polls of this one. It drops
// the fields that it does not know.
func TestBetweenPollsOfAReleaseWithoutDerivedVersions(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		t.Run(fmt.Sprint("restarted ", restarted), func(t *testing.T) {
			b := setup(t)
			b.add(derived(t, "1", order.Creation, start), derived(t, "1", order.Invoice, start.Add(time.Second)))
			last := b.poll(t, order.PollState{})
			if restarted {
				b.apply(t, b.records(t, "online"))
				b.restart(t)
			}
			last.Derives, last.FormerUntil = false, time.Time{}
			state := b.poll(t, last)
			require.EqualValues(t, 2, state.Known)
			require.Len(t, b.identities(t, "online"), 2, "no event got a second identity")
		})
	}
}

// The release before read no time without a zone, so it does not know how far it has read. The ledger is asked for all,
// and waited for.
func TestFromAReleaseThatReadNoTimes(t *testing.T) {
	b := setup(t)
	b.add(derived(t, "1", order.Creation, start), derived(t, "1", order.Invoice, start.Add(time.Second)))
	times := b.rows
	b.rows = nil
	for _, row := range times {
		b.add(row.Former())
	}
	for i := range b.rows {
		b.rows[i].ChangedAt, b.rows[i].Earlier = time.Time{}, uuid.Nil
	}
	last := b.poll(t, order.PollState{})
	require.Zero(t, last.ChangedUntil)
	b.apply(t, b.records(t, "online"))
	last.Derives, last.ReadUntil = false, time.Time{}

	b.restart(t)
	b.rows = times
	broken, err := target.Open("root@tcp(127.0.0.1:1)/none", target.Options{})
	require.NoError(t, err)
	defer broken.Close()
	b.Ledger = broken
	_, err = b.Poll(t.Context(), task(last), on)
	var failure *order.Failure
	require.ErrorAs(t, err, &failure)
	require.Equal(t, poll.LedgerUnavailable, failure.Type)

	b.restart(t)
	state := b.poll(t, last)
	require.EqualValues(t, 2, state.Known)
	require.False(t, state.AskAll)
	require.Len(t, b.identities(t, "online"), 2, "no event got a second identity")
}

// Polling begins again after a release without derived versions. What the ledger has lost since must not come without a
// version, over what is newer.
func TestALostCursorAfterAReleaseWithoutDerivedVersions(t *testing.T) {
	b := setup(t)
	b.add(derived(t, "1", order.Update, start), derived(t, "1", order.Update, start.Add(time.Hour)))
	last := b.poll(t, order.PollState{Derives: true, FormerUntil: start})
	b.restart(t)
	last.Cursor = "none of this ERP's"
	published := len(b.records(t, "online"))
	state := b.poll(t, last)
	require.Zero(t, state.FormerUntil)
	records := b.records(t, "online")
	require.Len(t, records, published+2)
	for _, r := range records[published:] {
		e, err := order.Decode(order.Record{Value: r.Value}, order.Online)
		require.NoError(t, err)
		require.True(t, e.Versioned())
	}
}

// The ledger has no digest of an invoice that is older than digests. It is the same one, whatever its order's version
// has become; another one has another digest.
func TestAnInvoiceUnderAnotherVersion(t *testing.T) {
	b := setup(t)
	b.add(change(t, "1", 1, start), invoice(t, "1", 1, start.Add(time.Second)))
	last := b.poll(t, order.PollState{})
	b.apply(t, b.records(t, "online"))
	for _, change := range []string{"digest = digest", "digest = NULL"} {
		_, err := b.target.DB().Exec("UPDATE order_events SET " + change)
		require.NoError(t, err)
		b.restart(t)
		b.rows = b.rows[:1]
		b.add(invoice(t, "1", 2, start.Add(time.Second)))
		state := b.poll(t, last)
		require.EqualValues(t, 2, state.Known, change)
	}
}

// An order's versions fall: by a version column that begins with small numbers, and by a newest line that is deleted.
func TestAVersionThatFalls(t *testing.T) {
	b := setup(t)
	registry := prometheus.NewRegistry()
	b.registry = registry
	b.restart(t)
	at := func(n int) time.Time { return start.Add(time.Duration(n) * time.Second) }
	falls := func() float64 {
		metrics, err := registry.Gather()
		require.NoError(t, err)
		for _, m := range metrics {
			if m.GetName() == "ordersync_poll_version_falls_total" {
				return m.GetMetric()[0].GetCounter().GetValue()
			}
		}
		require.Fail(t, "no such metric")
		return 0
	}
	b.add(derived(t, "1", order.Creation, at(0)), derived(t, "1", order.Update, at(10)), change(t, "2", 5, at(11)))
	state := b.poll(t, order.PollState{})
	b.apply(t, b.records(t, "online"))
	require.Nil(t, state.Fall)
	require.Zero(t, falls(), "it is there before the first")

	// The query gets a version column. A new order begins with it, and the other goes on.
	registry = prometheus.NewRegistry()
	b.registry = registry
	b.restart(t)
	b.add(change(t, "3", 1, at(20)), change(t, "2", 6, at(21)))
	state = b.poll(t, state)
	require.Nil(t, state.Fall)
	b.add(change(t, "1", 2, at(30)))
	state = b.poll(t, state)
	require.NotNil(t, state.Fall)
	require.Equal(t, "1", state.Fall.SyncID)
	require.EqualValues(t, 2, state.Fall.Version)
	require.Equal(t, at(10).UnixMicro(), state.Fall.Before)
	require.EqualValues(t, 1, state.Fall.Count)
	require.Contains(t, b.log.String(), "level=ERROR msg=\"an order's version fell")
	require.EqualValues(t, 1, state.Published, "it is published all the same")

	// What was said is remembered, and not said again.
	state = b.poll(t, state)
	require.EqualValues(t, 1, state.Fall.Count)

	// The newest line is deleted: the same row comes again within the overlap, under an earlier time.
	row := derived(t, "4", order.Update, at(40))
	row.Place = "lines\x004"
	b.add(row)
	state = b.poll(t, state)
	require.EqualValues(t, 1, state.Fall.Count)
	fallen := derived(t, "4", order.Update, at(35))
	fallen.Place = row.Place
	b.rows[len(b.rows)-1].Row = fallen
	state = b.poll(t, state)
	require.EqualValues(t, 2, state.Fall.Count)
	require.Equal(t, "4", state.Fall.SyncID)
	require.Equal(t, at(40).UnixMicro(), state.Fall.Before)

	// A late commit of another row is no fall.
	late := change(t, "2", 4, at(12))
	late.Place = "log\x0077"
	b.add(late)
	state = b.poll(t, state)
	require.EqualValues(t, 2, state.Fall.Count)
	require.EqualValues(t, 2, falls())
}
