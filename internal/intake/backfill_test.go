package intake

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"ordersync/internal/devstack/devtest"
	"ordersync/internal/order"
	"ordersync/workflows"
)

// partition is one of a topic, with offsets of its own, whose intake keeps a backfill to so many
// records a second.
func (b *bench) partition(topic string, pace *Intake) *partition {
	p := &partition{topic: topic, intake: pace, lanes: b.lanes, backfill: b.lanes.shares[topic] == b.lanes.backfill}
	p.tracker.Store(newTracker(0, true))
	return p
}

// many are records of a partition, each of an order of its own.
func (b *bench) many(p *partition, prefix string, n int) []*record {
	var all []*record
	for i := range n {
		r := b.record(p.topic, fmt.Sprint(prefix, i), 10)
		r.tracker = p.tracker.Load()
		r.message.Offset, r.event.Source.Offset = int64(i), int64(i)
		all = append(all, r)
	}
	return all
}

func at(perSecond int) *Intake {
	return &Intake{pace: newPace(perSecond, newMetrics(nil).backfillRate)}
}

// However many partitions wait, together they keep the rate: at any time no more has been handed
// over than the rate gives, and at the end no less.
func TestBackfillKeepsItsRate(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBench(t, Limits{}, "online", "online.backfill", "store.backfill")
		both := at(50)
		done := make(chan error)
		for _, topic := range []string{"online.backfill", "store.backfill"} {
			p := b.partition(topic, both)
			records := b.many(p, topic, 250)
			go func() { done <- p.hand(t.Context(), records) }()
		}
		live := b.partition("online", both)
		require.NoError(t, live.hand(t.Context(), b.many(live, "live", 1000)))
		synctest.Wait()
		count := func(c call) bool { return c.order[:4] != "live" }
		require.Len(t, b.made(), 1001, "the rate is not for the others")

		const first = 1
		for second := 1; second <= 9; second++ {
			time.Sleep(time.Until(b.began.Add(time.Duration(second) * time.Second)))
			synctest.Wait()
			slow := len(slices.DeleteFunc(b.made(), func(c call) bool { return !count(c) }))
			require.InDelta(t, first+50*second, slow, first, "after %d s", second)
		}
		require.NoError(t, <-done)
		require.NoError(t, <-done)
		require.Equal(t, 9980*time.Millisecond, time.Since(b.began).Round(time.Millisecond))
	})
}

// A tenth of slow calls halves the rate, each second, and a tenth of it comes back when they are quick
// again. The calls of new orders count, too.
func TestBackfillGivesWay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		p := at(50).pace
		second := func(quick, slow int) float64 {
			for range slow {
				p.called(slowCall + 1)
			}
			for range quick - 1 {
				p.called(slowCall)
			}
			time.Sleep(paceWindow)
			p.called(slowCall)
			return float64(p.Limit())
		}
		require.InDelta(t, 50, second(100, 0), 1e-9)
		var all []float64
		for range 6 {
			all = append(all, second(10, 90))
		}
		require.Equal(t, []float64{25, 12.5, 6.25, 5, 5, 5}, all)
		for range 8 {
			second(95, 5)
		}
		require.InDelta(t, 45, float64(p.Limit()), 1e-9)
		for range 3 {
			second(1, 0)
		}
		require.InDelta(t, 50, float64(p.Limit()), 1e-9)
	})
}

// What waits for the rate is in no lane, in no account and above what may be committed.
func TestBackfillThatWaitsIsNotInFlight(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBench(t, Limits{}, "online", "online.backfill")
		p := b.partition("online.backfill", at(10))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		records := b.many(p, "o", 100)
		go func() { done <- p.hand(ctx, records) }()
		time.Sleep(2*time.Second + time.Millisecond)
		synctest.Wait()
		require.Len(t, b.made(), 21)
		require.Equal(t, standing{next: 21}, p.tracker.Load().standing())
		_, _, shares := b.lanes.usage()
		require.Zero(t, shares[backfillShare].bytes)

		began := time.Now()
		cancel()
		require.ErrorIs(t, <-done, context.Canceled, "the end of a generation ends the wait")
		require.Zero(t, time.Since(began))
		require.Equal(t, int64(21), p.tracker.Load().position())
	})
}

// A backfill whose orders the target does not take is held back before the new orders are.
func TestNewOrdersGoOnWhileBackfillsAreBraked(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBench(t, Limits{}, "online", "online.backfill")
		b.backfillBraked = true
		fresh, old := b.partition("online", at(5000)), b.partition("online.backfill", at(5000))
		require.True(t, b.lanes.take(b.many(old, "old-", 1)))
		fetches := make(chan bool)
		go func() { fetches <- b.lanes.awaitRoom(old) }()
		require.True(t, b.lanes.take(b.many(fresh, "new-", 2)))
		require.True(t, b.lanes.awaitRoom(fresh))
		time.Sleep(time.Minute)
		require.Len(t, b.made(), 2)
		select {
		case <-fetches:
			t.Fatal("a fetch of the backfill began")
		default:
		}
		b.lanes.mu.Lock()
		b.backfillBraked = false
		b.lanes.mu.Unlock()
		b.lanes.wake()
		require.True(t, <-fetches)
		synctest.Wait()
		require.Len(t, b.made(), 3)
	})
}

// While nothing may be fetched the rate is not used up either: what was held back does not come in
// one burst.
func TestBackfillTakesNothingWhileBraked(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBench(t, Limits{}, "online", "online.backfill")
		b.braked = true
		p := b.partition("online.backfill", at(50))
		done := make(chan error)
		for range 20 {
			p := b.partition("online.backfill", p.intake)
			records := b.many(p, fmt.Sprintf("%p-", p), 5)
			go func() { done <- p.hand(t.Context(), records) }()
		}
		time.Sleep(time.Hour)
		require.Empty(t, b.made())
		b.lanes.mu.Lock()
		b.braked = false
		b.lanes.mu.Unlock()
		b.lanes.wake()
		began := time.Now()
		synctest.Wait()
		require.Len(t, b.made(), 1)
		for range 20 {
			require.NoError(t, <-done)
		}
		require.Equal(t, 1980*time.Millisecond, time.Since(began).Round(time.Millisecond))
	})
}

// Whatever a backfill's calls do, it holds an eighth of the bounds and no more; the rest is for
// those that must be fast.
func TestLiveIsNotHeldUpByABackfillAtItsBound(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBench(t, Limits{MaxCalls: 16, MaxLanes: 80}, "online", "online.backfill", "store.backfill")
		b.answer = func(ctx context.Context, events []order.Event) error {
			if events[0].Source.Topic == "online" {
				return nil
			}
			<-ctx.Done() // as long as a call may take
			return ctx.Err()
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for _, topic := range []string{"online.backfill", "store.backfill"} {
			p := b.partition(topic, at(100_000))
			records := b.many(p, topic, 100)
			go func() { _ = p.hand(ctx, records) }()
		}
		time.Sleep(time.Second)
		calls, _, shares := b.lanes.usage()
		require.Equal(t, 2, calls)
		require.Equal(t, 10, shares[backfillShare].lanes)

		live := b.partition("online", nil)
		began := time.Now()
		require.NoError(t, live.hand(t.Context(), b.many(live, "live", 50)))
		synctest.Wait()
		require.Equal(t, int64(50), live.tracker.Load().position())
		require.Zero(t, time.Since(began))
		b.lanes.close()
	})
}

// The events of an order over both topics go in the order in which they came, and a live one does
// not wait for the turn of backfills.
func TestLiveEventTakesItsLaneAlong(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBench(t, Limits{MaxCalls: 8}, "online", "online.backfill")
		release := make(chan struct{})
		b.answer = func(_ context.Context, events []order.Event) error {
			if events[0].SyncID == "other" {
				<-release
			}
			return nil
		}
		slow, live := b.partition("online.backfill", at(1000)), b.partition("online", nil)
		of := func(p *partition, syncID string, offset int64) *record {
			r := b.record(p.topic, syncID, 10)
			r.tracker, r.message.Offset, r.event.Source.Offset = p.tracker.Load(), offset, offset
			return r
		}
		require.NoError(t, slow.hand(t.Context(), []*record{of(slow, "other", 0), of(slow, "a", 1)}))
		synctest.Wait()
		require.Empty(t, b.carried("a"), "backfills have one call, which hangs")
		require.NoError(t, live.hand(t.Context(), []*record{of(live, "a", 7)}))
		synctest.Wait()
		require.Equal(t, [][]int64{{1, 7}}, b.carried("a"))
		require.Equal(t, int64(8), live.tracker.Load().next)
		_, _, shares := b.lanes.usage()
		require.Equal(t, 1, shares[backfillShare].lanes)
		require.Equal(t, 1, shares["online"].lanes)

		require.NoError(t, slow.hand(t.Context(), []*record{of(slow, "a", 2)}))
		close(release)
		time.Sleep(time.Minute)
		require.Equal(t, [][]int64{{1, 7}, {2}}, b.carried("a"))
		require.Equal(t, int64(3), slow.tracker.Load().position())
		require.Empty(t, b.lanes.byOrder)
		for name, s := range b.lanes.shares {
			require.Zero(t, s.lanes, name)
			require.Zero(t, s.calls, name)
		}
	})
}

func TestCallIsNeverEagerWithAnEventOfABackfill(t *testing.T) {
	c := newCaller(t)
	c.eager = true
	c.backfill = func(topic string) bool { return topic == "store.backfill" }
	w := worker.New(c.client, c.taskQueue, worker.Options{})
	w.RegisterWorkflowWithOptions(func(workflow.Context, workflows.Input) error { return nil },
		workflow.RegisterOptions{Name: workflows.OrderSyncName})
	require.NoError(t, w.Start())
	defer w.Stop()
	b := &bundle{t: t, temporal: c.client}
	for _, slow := range []int{-1, 0, 2} {
		id := devtest.Name(t, "order")
		events := made(id, order.Creation, 1, 3)
		if slow >= 0 {
			events[slow].Source.Topic = "store.backfill"
		}
		require.NoError(t, c.call(t.Context(), events))
		require.NoError(t, c.client.GetWorkflow(t.Context(), workflows.WorkflowID(id), "").Get(t.Context(), nil))
		h, err := b.handed(id)
		require.NoError(t, err)
		require.Equal(t, 3, h.started)
		require.Equal(t, slow < 0, h.eager, "event %d is of a backfill", slow)
	}
}

var testBackfill = map[string]order.Channel{
	"online.backfill": order.Online, "store.backfill": order.Store, "international.backfill": order.International,
}

func (b *bundle) backfill(perSecond int) Options {
	o := b.options()
	o.Backfill, o.BackfillRate = testBackfill, perSecond
	return o
}

// A member that stops while most of a backfill waits for the rate stops as fast as ever, and commits
// what it has handed over and nothing else; new orders have long gone by. The next member does the
// rest.
func TestStopsPromptlyWhileABackfillWaits(t *testing.T) {
	b := setup(t, slices.Sorted(maps.Keys(testTopics))...)
	for topic := range testBackfill {
		b.createTopic(topic, testPartitions)
	}
	const orders = 60
	for n := range orders {
		topic := []string{"online.backfill", "store.backfill"}[n%2]
		b.publish(message(topic, b.syncID(n), order.Creation, 1), message(topic, b.syncID(n), order.Update, 2))
	}
	w := b.witness()
	m := b.run(b.backfill(10), w.watch)
	devtest.Eventually(t, 30*time.Second, func() error {
		if n := w.seen(); n < 3 {
			return fmt.Errorf("%d events were handed over", n)
		}
		return nil
	}, "the backfill begins")
	b.publish(message("online", b.syncID(orders), order.Creation, 1))
	b.awaitVersions(b.syncID(orders), 1)
	require.NoError(t, m.Ready())
	began := time.Now()
	m.stop()
	require.Less(t, time.Since(began), 5*time.Second)
	seen := w.seen()
	require.Less(t, seen, 2*orders, "most of it waited")
	require.GreaterOrEqual(t, int64(seen), b.committedIn("online.backfill")+b.committedIn("store.backfill")+b.committedIn("online"))

	b.run(b.backfill(10_000), w.watch)
	for n := range orders {
		b.awaitOnce(b.syncID(n), 1, 2)
	}
	w.check()
}

// committedIn sums up what is committed of a topic: the records in it, if it has no gaps.
func (b *bundle) committedIn(topic string) int64 {
	sum := int64(0)
	for p := range testPartitions {
		sum += max(0, b.committed(topic, p))
	}
	return sum
}

// Who reads no backfills needs no topics for them; who does waits for them, and says what to do.
func TestTopicsOfBackfillsAreNeededForTheirRateOnly(t *testing.T) {
	b := setup(t)
	first, second := b.syncID(1), b.syncID(2)
	b.publish(message("online", first, order.Creation, 1))
	m := b.run(b.backfill(0))
	b.awaitVersions(first, 1)
	require.NoError(t, m.Ready())
	m.stop()

	b.publish(message("online", second, order.Creation, 1))
	m = b.run(b.backfill(50))
	require.ErrorContains(t, m.awaitTrouble(t, "look-up of topics"), "topics are missing: international.backfill, online.backfill, store.backfill; "+
		"create them (ordersync setup does), nothing is read before all exist; with BACKFILL_RATE=0 those of backfills are not needed")
	for topic := range testBackfill {
		b.createTopic(topic, 1)
	}
	b.awaitVersions(second, 1)
	require.NoError(t, m.Ready())
}

func TestTopicIsNotOfBothKinds(t *testing.T) {
	o := (&bundle{prefix: "x"}).options()
	o.Backfill = map[string]order.Channel{"online": order.Online}
	_, err := New(o)
	require.ErrorContains(t, err, "topic online is in Topics and in Backfill")
}
