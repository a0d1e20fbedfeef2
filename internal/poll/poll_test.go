package poll_test

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"

	"ordersync/internal/devstack/devtest"
	"ordersync/internal/erp"
	"ordersync/internal/order"
	"ordersync/internal/poll"
	"ordersync/internal/publish"
	"ordersync/internal/target"
)

func TestPagesAreReadToTheEndOfTheSource(t *testing.T) {
	b := setup(t)
	rows := changes(t, 250)
	b.add(rows...)
	began := time.Now().UTC()
	var pages []int64
	state, err := b.Poll(t.Context(), task(order.PollState{}), func(s order.PollState) bool {
		pages = append(pages, s.Published)
		return true
	})
	require.NoError(t, err)
	require.Equal(t, []int64{0, 100, 200, 250}, pages)
	require.Equal(t, order.PollCounts{Pages: 3, Read: 250, Published: 250}, state.PollCounts)
	require.Equal(t, rows[249].ChangedAt, state.ChangedUntil)
	require.True(t, state.Anew)
	require.WithinRange(t, state.ReadUntil, began, time.Now().UTC())

	values := map[string]string{}
	for _, r := range b.records(t, "online") {
		values[string(r.Key)] = string(r.Value)
	}
	require.Len(t, values, 250)
	for _, row := range rows {
		require.Equal(t, string(row.Value), values[row.Event.SyncID])
	}
}

func TestAStretchEndsAndGoesOn(t *testing.T) {
	b := setup(t)
	b.add(changes(t, 250)...)
	state, err := b.Poll(t.Context(), task(order.PollState{}), func(s order.PollState) bool { return s.Pages == 0 })
	require.NoError(t, err)
	require.True(t, state.More)
	require.Zero(t, state.ReadUntil)
	require.EqualValues(t, 100, state.Published)

	next := task(state)
	next.Begin = false
	state, err = b.Poll(t.Context(), next, on)
	require.NoError(t, err)
	require.False(t, state.More)
	require.Equal(t, order.PollCounts{Pages: 3, Read: 250, Published: 250}, state.PollCounts)
	require.Len(t, b.records(t, "online"), 250)
}

func TestReadAgainInTheOverlap(t *testing.T) {
	b := setup(t)
	rows := changes(t, 100)
	b.add(rows...)
	first := b.poll(t, order.PollState{})

	// Kafka has them for sure, whatever the ledger says.
	second := b.poll(t, first)
	require.Equal(t, order.PollCounts{Pages: 1, Read: 61, Known: 61}, second.PollCounts)

	// Another process knows what the ledger does.
	b.apply(t, b.records(t, "online")[:80])
	b.restart(t)
	third := b.poll(t, second)
	require.EqualValues(t, 61, third.Read)
	require.Positive(t, third.Known)
	require.Equal(t, third.Read, third.Known+third.Published)

	// What becomes visible late has an old time and is new. So is what is changed meanwhile.
	late, changed := change(t, "late", 1, start.Add(70*time.Second)), change(t, "order 99", 2, start.Add(101*time.Second))
	b.add(late, changed)
	b.restart(t)
	b.apply(t, b.records(t, "online"))
	fourth := b.poll(t, third)
	require.EqualValues(t, 2, fourth.Published)
	require.False(t, fourth.Anew)
	require.Equal(t, changed.ChangedAt, fourth.ChangedUntil)
	b.apply(t, b.records(t, "online"))
	counts, err := b.target.Counts(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 102, counts.Events)
}

func TestALostCursor(t *testing.T) {
	b := setup(t)
	b.add(changes(t, 250)...)
	b.poll(t, order.PollState{})
	records := b.records(t, "online")
	b.apply(t, records[:240])
	state := b.poll(t, order.PollState{})
	require.Equal(t, order.PollCounts{Pages: 3, Read: 250, Known: 240, Published: 10}, state.PollCounts)

	// It may begin where somebody says.
	state = b.poll(t, order.PollState{From: start.Add(200 * time.Second)})
	require.EqualValues(t, 50, state.Read)
	require.Equal(t, start.Add(200*time.Second), state.From)
}

// The source was changed. Everything is read, and what has arrived is left out.
func TestACursorOfAnotherSource(t *testing.T) {
	b := setup(t)
	b.add(changes(t, 50)...)
	b.poll(t, order.PollState{})
	b.apply(t, b.records(t, "online"))
	state := b.poll(t, order.PollState{Cursor: "another/one", ChangedUntil: start})
	require.Equal(t, order.PollCounts{Pages: 1, Read: 50, Known: 50}, state.PollCounts)
	require.Contains(t, b.log.String(), "polling begins anew")

	// Also in the midst of a poll that another version of a worker began.
	midst := task(order.PollState{Cursor: "another/one"})
	midst.Begin = false
	state, err := b.Poll(t.Context(), midst, on)
	require.NoError(t, err)
	require.EqualValues(t, 50, state.Known)
}

// Rows dated in the future must not make everything count as read before them, nor as new for ever.
func TestARowFromTheFuture(t *testing.T) {
	b := setup(t)
	future := change(t, "future", 1, time.Now().Add(1000*time.Hour))
	b.add(append(changes(t, 3), future)...)
	first := b.poll(t, order.PollState{})
	require.Equal(t, start.Add(2*time.Second), first.ChangedUntil)
	b.apply(t, b.records(t, "online"))
	b.restart(t)
	first.Cursor = string(place(start.Add(2*time.Second), 3)) // as a source does that goes by its own clock
	second := b.poll(t, first)
	require.Equal(t, order.PollCounts{Pages: 1, Read: 4, Known: 4}, second.PollCounts)
}

// Half of a page fails. The rest is published, by another process all of it again, and no older event comes
// after a newer one.
func TestAPageThatFailsHalfWay(t *testing.T) {
	t.Run("the same process", func(t *testing.T) { failHalfWay(t, false) })
	t.Run("another process", func(t *testing.T) { failHalfWay(t, true) })
}

func failHalfWay(t *testing.T, restarted bool) {
	b := setup(t)
	const orders, each = 30, 60
	for i := range orders * each {
		b.add(change(t, fmt.Sprint(i%orders), 0, start.Add(time.Duration(i)*time.Millisecond)))
	}
	requests := 0
	b.refuse(func(partition int32) bool {
		if partition == 1 {
			requests++
		}
		return partition == 1 && requests == 2
	})
	step := task(order.PollState{})
	step.PageSize = 1500
	var begun order.PollState
	_, err := b.Poll(t.Context(), step, func(s order.PollState) bool { begun = s; return true })
	var failure *order.Failure
	require.ErrorAs(t, err, &failure)
	require.Equal(t, poll.KafkaUnavailable, failure.Type)
	require.Zero(t, begun.Pages, "the cursor has not moved")
	before := len(b.records(t, "online"))
	require.Positive(t, before, "some of the page was acknowledged")

	wanted := orders * each
	step.State, step.Begin = begun, false
	if restarted {
		b.restart(t)
		wanted += before
	}
	state, err := b.Poll(t.Context(), step, on)
	require.NoError(t, err)
	require.EqualValues(t, orders*each, state.Published+state.Known)
	records := b.records(t, "online")
	require.Len(t, records, wanted)
	newest := map[string]string{}
	seen := map[string]bool{}
	for _, r := range records {
		e, err := order.Decode(order.Record{Value: r.Value}, order.Online)
		require.NoError(t, err)
		if seen[e.ID.String()] {
			continue // the ledger knows it
		}
		seen[e.ID.String()] = true
		require.Less(t, newest[e.SyncID], string(e.Data), "an older event of order %s comes first after a newer one", e.SyncID)
		newest[e.SyncID] = string(e.Data)
	}
	require.Len(t, seen, orders*each)
}

// The dead-letter topic is gone. What else a page has gets to Kafka once, and each letter when it is back.
func TestWithoutTheDeadLetterTopic(t *testing.T) {
	for _, backfill := range []bool{false, true} {
		t.Run(fmt.Sprintf("backfill=%t", backfill), func(t *testing.T) {
			b := setup(t)
			nowhere := change(t, "nowhere", 1, start)
			nowhere.Event.Channel = order.International
			b.add(changes(t, 50)...)
			b.add(nowhere, erp.Row{
				Event: order.Event{Channel: order.Online}, Value: []byte(`{"sync_id":1}`), ChangedAt: start,
				Rejected: &order.Rejection{Reason: order.UnknownEvent, Detail: "no such event"},
			})
			topic := "online"
			if backfill {
				topic = "online.backfill"
			}
			client := &kafka.Client{Addr: kafka.TCP(b.kafka.Brokers()...)}
			_, err := client.DeleteTopics(t.Context(), &kafka.DeleteTopicsRequest{Topics: []string{letters}})
			require.NoError(t, err)
			attempt := task(order.PollState{})
			attempt.Backfill = backfill
			try := func() error { // takes up what the one before it told, as an activity does
				_, err := b.Poll(t.Context(), attempt, func(s order.PollState) bool {
					attempt.State, attempt.Begin = s, false
					return true
				})
				return err
			}
			for range 3 {
				require.Error(t, try())
				require.Len(t, b.records(t, topic), 51)
			}
			_, err = client.CreateTopics(t.Context(), &kafka.CreateTopicsRequest{
				Topics: []kafka.TopicConfig{{Topic: letters, NumPartitions: 3, ReplicationFactor: 1}},
			})
			require.NoError(t, err)
			devtest.Eventually(t, 20*time.Second, try, "the letter is written")
			require.Len(t, b.records(t, topic), 51)
			require.Len(t, b.records(t, letters), 1)
			require.Equal(t, order.PollCounts{Pages: 1, Read: 52, Known: 50, Rejected: 2, DeadLettered: 1}, attempt.State.PollCounts)
			require.Len(t, attempt.State.Bad, 2, "neither gets another letter")

			// What somebody has read again from the beginning goes to Kafka again, where the ledger does not know it.
			attempt.State, attempt.Begin = order.PollState{}, true
			require.NoError(t, try())
			require.Len(t, b.records(t, topic), 102)
		})
	}
}

// The worker dies with a page in Kafka that no heartbeat tells of.
func TestKilledBetweenPublishingAndTheHeartbeat(t *testing.T) {
	b := setup(t)
	b.add(changes(t, 300)...)
	ctx, kill := context.WithCancel(t.Context())
	var heartbeat order.PollState
	_, err := b.Poll(ctx, task(order.PollState{}), func(s order.PollState) bool {
		if s.Pages == 2 {
			kill()
			return true
		}
		heartbeat = s
		return true
	})
	require.ErrorIs(t, err, context.Canceled)
	b.restart(t)
	next := task(heartbeat)
	next.Begin = false
	state, err := b.Poll(t.Context(), next, on)
	require.NoError(t, err)
	require.EqualValues(t, 300, state.Published)
	records := b.records(t, "online")
	require.GreaterOrEqual(t, len(records), 400)
	b.apply(t, records)
	counts, err := b.target.Counts(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 300, counts.Events, "each once")
}

func TestAnOutageOfTheERP(t *testing.T) {
	b := setup(t)
	b.add(changes(t, 250)...)
	b.before = func(page int) error {
		if page == 2 {
			return fmt.Errorf("page: %w", &erp.Unavailable{After: 7 * time.Second, Err: errors.New("429 too many requests")})
		}
		return nil
	}
	var reached order.PollState
	_, err := b.Poll(t.Context(), task(order.PollState{}), func(s order.PollState) bool { reached = s; return true })
	var failure *order.Failure
	require.ErrorAs(t, err, &failure)
	require.Equal(t, poll.ERPUnavailable, failure.Type)
	var wait interface{ RetryAfter() time.Duration }
	require.ErrorAs(t, err, &wait)
	require.Equal(t, 7*time.Second, wait.RetryAfter())
	require.EqualValues(t, 100, reached.Published, "the page before it is dealt with")

	next := task(reached)
	next.Begin = false
	state, err := b.Poll(t.Context(), next, on)
	require.NoError(t, err)
	require.EqualValues(t, 250, state.Published)
	require.Len(t, b.records(t, "online"), 250)
}

// A page is too large, or takes too long. Smaller ones are asked for, and more again after some of them.
func TestAPageThatIsTooMuch(t *testing.T) {
	b := setup(t)
	b.add(changes(t, 800)...)
	b.most = 30
	var sizes []int
	state, err := b.Poll(t.Context(), task(order.PollState{}), func(s order.PollState) bool {
		if n := len(sizes); n == 0 || sizes[n-1] != s.PageSize {
			sizes = append(sizes, s.PageSize)
		}
		return true
	})
	require.NoError(t, err)
	require.Equal(t, []int{0, 50, 25}, sizes)
	require.EqualValues(t, 800, state.Published)
	require.EqualValues(t, 32, state.Pages)
	require.Equal(t, 2+3, strings.Count(b.log.String(), "a smaller page"), "after each ten of them a larger one is tried")

	// What is known to do is begun with by another attempt, and tried for more by another poll.
	attempt := task(state)
	attempt.Begin, attempt.State.Cursor = false, ""
	b.most = 0
	again, err := b.Poll(t.Context(), attempt, func(order.PollState) bool { return false })
	require.NoError(t, err)
	require.EqualValues(t, state.Read+25, again.Read)
	require.Equal(t, 25, again.PageSize)
	next := b.poll(t, order.PollState{PageSize: 25})
	require.Zero(t, next.PageSize, "nothing was too much any more")
	require.EqualValues(t, 10+3, next.Pages, "ten of 50 rows, and of 100 each")
}

func TestASourceForWhichOneRowIsTooMuch(t *testing.T) {
	b := setup(t)
	b.add(changes(t, 10)...)
	b.before = func(int) error { return fmt.Errorf("page: %w", erp.ErrTooMuch) }
	var reached order.PollState
	_, err := b.Poll(t.Context(), task(order.PollState{}), func(s order.PollState) bool { reached = s; return true })
	require.ErrorIs(t, err, erp.ErrTooMuch)
	var failure *order.Failure
	require.ErrorAs(t, err, &failure)
	require.Equal(t, poll.ERPUnavailable, failure.Type)
	require.Equal(t, 1, reached.PageSize)
	b.before = nil
	require.EqualValues(t, 10, b.poll(t, reached).Published)
}

// The next page is read while one is published, and no further.
func TestReadingIsOnePageAhead(t *testing.T) {
	b := setup(t)
	b.add(changes(t, 1000)...)
	var asked atomic.Int64
	b.before = func(int) error { asked.Add(1); return nil }
	state, err := b.Poll(t.Context(), task(order.PollState{}), func(s order.PollState) bool {
		if s.Pages == 0 {
			return true // it has only begun
		}
		next := min(s.Pages+1, 10)
		devtest.Eventually(t, 5*time.Second, func() error {
			if asked.Load() < next {
				return errors.New("not yet")
			}
			return nil
		}, "the next page is read before this one is done")
		require.Equal(t, next, asked.Load())
		return true
	})
	require.NoError(t, err)
	require.EqualValues(t, 10, state.Pages)
}

func TestBadRowsGetOneLetterEach(t *testing.T) {
	b := setup(t)
	at := start
	bad := func(channel order.Channel, value string) erp.Row {
		at = at.Add(time.Second)
		return erp.Row{
			Event: order.Event{Channel: channel}, Value: []byte(value), ChangedAt: at,
			Rejected: &order.Rejection{Reason: order.UnknownEvent, Detail: "no such event"},
		}
	}
	international := change(t, "7", 1, start)
	international.Event.Channel = order.International
	large := change(t, "8", 1, start)
	noise := make([]byte, 1<<20)
	_, _ = rand.Read(noise) // which no compression makes smaller
	large.Value = append(large.Value[:len(large.Value)-1], []byte(`,"x":"`+hex.EncodeToString(noise)+`"}`)...)
	b.add(bad(order.Online, `{"sync_id":1}`), bad("", `{"sync_id":2}`), bad("", `{"sync_id":2}`), international, large, change(t, "9", 1, at))

	first := b.poll(t, order.PollState{})
	require.Equal(t, order.PollCounts{Pages: 1, Read: 6, Published: 1, Rejected: 4, Repeated: 1, DeadLettered: 3}, first.PollCounts)
	require.Contains(t, first.FirstBad, "KAFKA_TOPICS", "the international order is the first by its time")

	records := b.records(t, "online")
	require.Len(t, records, 2)
	dead := b.records(t, letters)
	require.Len(t, dead, 3)
	details := ""
	for _, r := range dead {
		require.Equal(t, order.ERPRow, headerOf(r, publish.HeaderTopic))
		details += headerOf(r, publish.HeaderReason) + ": " + headerOf(r, publish.HeaderDetail) + "\n"
	}
	require.Contains(t, details, "unknown-event: no such event; the ERP's row tells no channel")
	require.Contains(t, details, `invalid-field: the ERP's row is of channel "international"`)
	require.Contains(t, details, "too-large: ")

	// However often they are read again, also by another process.
	b.restart(t)
	second := b.poll(t, first)
	require.EqualValues(t, 5, second.Repeated)
	require.Zero(t, second.Rejected)
	third := b.poll(t, second)
	require.EqualValues(t, 5, third.Repeated)
	require.Len(t, b.records(t, letters), 3)

	// What is out of reach is forgotten.
	b.add(change(t, "10", 1, at.Add(10*time.Minute)))
	fifth := b.poll(t, b.poll(t, third))
	require.Empty(t, fifth.Bad)
	require.Empty(t, fifth.BadBefore)
}

func TestBadRowsAreBounded(t *testing.T) {
	b := setup(t)
	for i := range 1200 {
		b.add(erp.Row{
			Event: order.Event{Channel: order.Online}, Value: fmt.Appendf(nil, `{"sync_id":%d}`, i), ChangedAt: start.Add(time.Duration(i) * time.Millisecond),
			Rejected: &order.Rejection{Reason: order.UnknownEvent, Detail: "no"},
		})
	}
	state := b.poll(t, order.PollState{})
	require.EqualValues(t, 1200, state.Rejected)
	require.Len(t, state.Bad, 1000)
	for range 3 { // however often
		state = b.poll(t, state)
		require.EqualValues(t, 1200, state.Repeated)
		require.Zero(t, state.Rejected)
		require.Len(t, state.Bad, 1000)
	}
	require.Len(t, b.records(t, "online"), 1200)

	// What is new has its letter, also what becomes visible late or is not of the oldest; and what was mended
	// is published.
	late := b.rows[0].Row
	late.Value, late.ChangedAt = []byte(`{"sync_id":"late"}`), start.Add(500*time.Millisecond)
	changed := late
	changed.Value, changed.ChangedAt = []byte(`{"sync_id":"changed"}`), start.Add(2*time.Second)
	b.add(late, changed, change(t, "mended", 1, start.Add(time.Millisecond)))
	state = b.poll(t, state)
	require.EqualValues(t, 1200, state.Repeated)
	require.EqualValues(t, 2, state.Rejected)
	require.EqualValues(t, 1, state.Published)
}

// Rows that are too large for their topic are known by being refused.
func TestLargeRowsAreBounded(t *testing.T) {
	b := setup(t)
	large := func(n int) erp.Row {
		row := change(t, fmt.Sprint(n), 1, start.Add(time.Duration(n)*time.Millisecond))
		noise := make([]byte, 1<<20)
		_, _ = rand.Read(noise)
		row.Value = append(row.Value[:len(row.Value)-1], []byte(`,"x":"`+hex.EncodeToString(noise)+`"}`)...)
		return row
	}
	b.add(large(1), large(2))
	state := b.poll(t, order.PollState{})
	require.EqualValues(t, 2, state.Rejected)
	// As if they were followed by so many others that they had to be forgotten.
	state.Bad, state.BadUntil = nil, start.Add(2*time.Millisecond)
	b.add(large(3))
	state = b.poll(t, state)
	require.EqualValues(t, 2, state.Repeated)
	require.EqualValues(t, 1, state.Rejected)
	require.Len(t, b.records(t, letters), 3)
}

// A ledger that is away does not keep the ERP's changes from Kafka.
func TestWithoutTheLedger(t *testing.T) {
	b := setup(t)
	b.add(changes(t, 100)...)
	first := b.poll(t, order.PollState{})
	b.restart(t)
	away, err := target.Open("u:p@tcp(127.0.0.1:1)/none", target.Options{})
	require.NoError(t, err)
	defer away.Close()
	b.Ledger = away
	b.add(change(t, "new", 1, start.Add(200*time.Second)))
	second := b.poll(t, first)
	require.EqualValues(t, second.Read, second.Published, "what was read again is published again")
	require.Contains(t, b.log.String(), "the ledger does not answer")

	// Where all would be published again, the ledger is worth a wait, but not for ever.
	anew := task(order.PollState{})
	attempt := func() error { // takes up what the one before it told, as an activity does
		_, err := b.Poll(t.Context(), anew, func(s order.PollState) bool {
			anew.State, anew.Begin = s, false
			return true
		})
		return err
	}
	var failure *order.Failure
	require.ErrorAs(t, attempt(), &failure)
	require.Equal(t, poll.LedgerUnavailable, failure.Type)
	began := anew.State.StartedAt
	require.ErrorAs(t, attempt(), &failure)
	require.Equal(t, poll.LedgerUnavailable, failure.Type)
	require.Equal(t, began, anew.State.StartedAt, "the wait is not begun anew")
	require.False(t, began.IsZero())
	b.restart(t)
	b.Ledger = away
	anew.State.StartedAt = began.Add(-time.Hour)
	require.NoError(t, attempt())
	state := anew.State
	require.EqualValues(t, 101, state.Published)
}

func TestABackfillPublishesWhatHasAVersion(t *testing.T) {
	b := setup(t)
	b.add(changes(t, 100)...)
	b.add(change(t, "unversioned", 0, start.Add(10*time.Second)))
	b.add(invoice(t, "unversioned", 0, start.Add(11*time.Second))) // which takes no order back
	b.poll(t, order.PollState{})
	b.apply(t, b.records(t, "online")[:20])
	past := task(order.PollState{From: start})
	past.Backfill, past.Until = true, start.Add(50*time.Second)
	state, err := b.Poll(t.Context(), past, on)
	require.NoError(t, err)
	require.EqualValues(t, 52, state.Read)
	require.EqualValues(t, 1, state.Unversioned)
	require.Equal(t, state.Read, state.Known+state.Published+state.Unversioned)
	require.Len(t, b.records(t, "online.backfill"), int(state.Published))
}

// What a backfill has published waits for its turn behind all of it. It must not keep a poll from
// publishing the same event where new ones go.
func TestAPollPublishesWhatABackfillHas(t *testing.T) {
	b := setup(t)
	b.add(change(t, "old", 1, start))
	last := b.poll(t, order.PollState{})
	b.add(change(t, "new", 1, start.Add(time.Second)))
	past := task(order.PollState{From: start})
	past.Backfill = true
	state, err := b.Poll(t.Context(), past, on)
	require.NoError(t, err)
	require.EqualValues(t, 2, state.Published)
	require.EqualValues(t, 1, b.poll(t, last).Published)
	require.Len(t, b.records(t, "online"), 2)
}

// An ERP that says that there is more, and hands out the same again and again.
func TestASourceThatDoesNotMove(t *testing.T) {
	b := setup(t)
	b.Source = stuck{b.source}
	_, err := b.Poll(t.Context(), task(order.PollState{}), on)
	require.ErrorContains(t, err, "says that there is more")
}

type stuck struct{ *source }

func (stuck) Page(_ context.Context, r erp.Request) (erp.Page, error) {
	return erp.Page{Next: r.After, More: true}, nil
}
