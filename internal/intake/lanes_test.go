package intake

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/serviceerror"

	"ordersync/internal/order"
)

// call is one call the lanes made.
type call struct {
	at     time.Duration // since the begin
	order  string
	events []int64 // offsets
}

// bench runs lanes with a call function of the test's, in a bubble of fake time. None of it stands
// for Temporal: what is tested is when calls are made, with what, and what becomes of the records.
type bench struct {
	t       *testing.T
	lanes   *lanes
	tracker *tracker
	began   time.Time
	next    int64
	calls   []call
	buried  []*record
	running map[string]int
	// braked is all, backfillBraked what is of backfills.
	braked, backfillBraked bool
	answer                 func(ctx context.Context, events []order.Event) error
}

// newBench has lanes for these topics, online if none is named. Those named so are of backfills.
func newBench(t *testing.T, limits Limits, names ...string) *bench {
	if len(names) == 0 {
		names = []string{"online"}
	}
	var topics, backfills []string
	for _, name := range names {
		if strings.HasSuffix(name, ".backfill") {
			backfills = append(backfills, name)
		} else {
			topics = append(topics, name)
		}
	}
	b := &bench{t: t, tracker: newTracker(0, true), began: time.Now(), running: make(map[string]int)}
	b.answer = func(context.Context, []order.Event) error { return nil }
	ctx, cancel := context.WithCancel(t.Context())
	b.lanes = newLanes(ctx, &lanes{
		call:     b.call,
		called:   func(time.Duration) {},
		bury:     func(r *record, _ order.Reason, _ string) { b.buried = append(b.buried, r) },
		braked:   func(backfill bool) bool { return b.braked || backfill && b.backfillBraked },
		limits:   limits.withDefaults(),
		log:      quiet(),
		metrics:  newMetrics(nil),
		troubles: newTroubles(),
	}, topics, backfills)
	t.Cleanup(func() {
		cancel()
		b.lanes.close()
		b.lanes.running.Wait()
	})
	return b
}

func (b *bench) call(ctx context.Context, events []order.Event) error {
	b.lanes.mu.Lock()
	c := call{at: time.Since(b.began), order: events[0].SyncID}
	for _, e := range events {
		c.events = append(c.events, e.Source.Offset)
		if e.SyncID != c.order {
			b.t.Errorf("a call carries events of %s and %s", c.order, e.SyncID)
		}
	}
	b.calls = append(b.calls, c)
	if b.running[c.order]++; b.running[c.order] > 1 {
		b.t.Errorf("two calls for order %s at once", c.order)
	}
	b.lanes.mu.Unlock()
	err := b.answer(ctx, events)
	b.lanes.mu.Lock()
	b.running[c.order]--
	b.lanes.mu.Unlock()
	return err
}

// record is the next record of the only partition: an event of size bytes of data.
func (b *bench) record(topic, syncID string, size int) *record {
	offset := b.next
	b.next++
	return &record{
		message: kafka.Message{Topic: topic, Offset: offset},
		event:   order.Event{SyncID: syncID, Data: make([]byte, size), Source: order.Source{Topic: topic, Offset: offset}},
		tracker: b.tracker,
	}
}

func (b *bench) records(syncIDs ...string) []*record {
	var all []*record
	for _, id := range syncIDs {
		all = append(all, b.record("online", id, 10))
	}
	return all
}

// made are the calls so far.
func (b *bench) made() []call {
	b.lanes.mu.Lock()
	defer b.lanes.mu.Unlock()
	return slices.Clone(b.calls)
}

// letters are the records buried so far.
func (b *bench) letters() []*record {
	b.lanes.mu.Lock()
	defer b.lanes.mu.Unlock()
	return slices.Clone(b.buried)
}

// carried are the offsets that an order's calls carried, call by call.
func (b *bench) carried(syncID string) [][]int64 {
	var all [][]int64
	for _, c := range b.made() {
		if c.order == syncID {
			all = append(all, c.events)
		}
	}
	return all
}

var errAway = serviceerror.NewUnavailable("Temporal is away")

func bubble(t *testing.T, test func(*testing.T)) { t.Helper(); synctest.Test(t, test) }

func TestLaneCoalescesAndKeepsOrder(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBench(t, Limits{})
		b.answer = func(context.Context, []order.Event) error { time.Sleep(time.Second); return nil }
		require.True(t, b.lanes.take(b.records("a", "b", "a", "a"))) // 0 to 3
		synctest.Wait()
		require.Equal(t, [][]int64{{0, 2, 3}}, b.carried("a"), "what came together goes together, at once")
		require.Equal(t, [][]int64{{1}}, b.carried("b"))

		require.True(t, b.lanes.take(b.records("a"))) // 4 and 5, during the call
		require.True(t, b.lanes.take(b.records("a")))
		time.Sleep(3 * time.Second)
		require.Equal(t, [][]int64{{0, 2, 3}, {4, 5}}, b.carried("a"))
		require.Equal(t, int64(6), b.tracker.position())
		require.Empty(t, b.lanes.byOrder, "idle lanes disappear")
		require.Zero(t, b.lanes.shares["online"].bytes)
		require.Zero(t, b.lanes.shares["online"].lanes)
	})
}

func TestLaneCallsAtMostTenTimesASecond(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBench(t, Limits{})
		for range 995 { // one event a millisecond
			require.True(t, b.lanes.take(b.records("a")))
			time.Sleep(time.Millisecond)
		}
		synctest.Wait()
		require.Equal(t, 10, len(b.made()))
		require.Zero(t, b.made()[0].at, "the first call does not wait")
		for n, c := range b.made()[1:] {
			require.GreaterOrEqual(t, c.at-b.made()[n].at, callInterval)
		}
	})
}

func TestLaneRemembersItsLastCallAfterItRanEmpty(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBench(t, Limits{})
		require.True(t, b.lanes.take(b.records("a")))
		synctest.Wait()
		require.Equal(t, int64(1), b.tracker.position(), "it is empty")
		require.True(t, b.lanes.take(b.records("a")))
		synctest.Wait()
		require.Len(t, b.made(), 1, "and rests still")
		time.Sleep(callInterval)
		synctest.Wait()
		require.Len(t, b.made(), 2)
	})
}

func TestCallBounds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBench(t, Limits{})
		many := b.records(slices.Repeat([]string{"many"}, 250)...)
		const quarter = 200 << 10
		large := []*record{
			b.record("online", "large", quarter), b.record("online", "large", quarter), b.record("online", "large", quarter),
			b.record("online", "large", 1<<20), b.record("online", "large", 1),
		}
		require.True(t, b.lanes.take(append(many, large...)))
		time.Sleep(time.Second)
		var sizes []int
		for _, c := range b.carried("many") {
			sizes = append(sizes, len(c))
		}
		require.Equal(t, []int{100, 100, 50}, sizes)
		require.Equal(t, [][]int64{{250, 251}, {252}, {253}, {254}}, b.carried("large"), "512 KiB, or one event")
	})
}

// tooLarge refuses batches that hold one of these offsets or more events than most.
func tooLarge(most int, offsets ...int64) func(context.Context, []order.Event) error {
	return func(_ context.Context, events []order.Event) error {
		refuse := len(events) > most
		for _, e := range events {
			refuse = refuse || slices.Contains(offsets, e.Source.Offset)
		}
		if refuse {
			return serviceerror.NewInvalidArgument("Blob data size exceeds limit.")
		}
		return nil
	}
}

func TestBatchThatIsTooLargeIsSplit(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBench(t, Limits{})
		b.answer = tooLarge(3)
		require.True(t, b.lanes.take(b.records(slices.Repeat([]string{"a"}, 8)...)))
		time.Sleep(time.Minute)
		require.Equal(t, [][]int64{
			{0, 1, 2, 3, 4, 5, 6, 7}, {0, 1, 2, 3}, {0, 1},
			{2, 3, 4, 5, 6, 7}, {2, 3, 4},
			{5, 6, 7},
		}, b.carried("a"))
		require.Empty(t, b.letters())
		require.Equal(t, int64(8), b.tracker.position())
	})
}

func TestEventThatIsTooLargeIsBuriedAndTheOrderGoesOn(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBench(t, Limits{})
		b.answer = tooLarge(100, 2)
		require.True(t, b.lanes.take(b.records("a", "a", "a", "a", "b")))
		time.Sleep(time.Minute)
		require.Len(t, b.letters(), 1)
		require.Equal(t, int64(2), b.letters()[0].message.Offset)
		calls := b.carried("a")
		require.Equal(t, []int64{3}, calls[len(calls)-1])
		require.Equal(t, int64(2), b.tracker.position(), "it is not finished before the dead-letter topic has it")
		b.lanes.finish(b.letters()[0])
		require.Equal(t, int64(5), b.tracker.position())
		require.Empty(t, b.lanes.byOrder)
	})
}

// Codes that look like the caller's fault pass too: a run's limit of signals, a search attribute that
// is not registered yet, a namespace that is being created.
func TestEveryOtherErrorIsTriedAgainWithoutEnd(t *testing.T) {
	for _, refusal := range []error{
		errAway,
		serviceerror.NewInvalidArgument("exceeded workflow execution limit for signal events"),
		serviceerror.NewNotFound("namespace not found"),
		serviceerror.NewPermissionDenied("no", ""),
		serviceerror.NewResourceExhausted(1, "namespace rate limit exceeded"),
		context.DeadlineExceeded,
		errors.New("what is this"),
	} {
		t.Run(errorCode(refusal).String(), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				b := newBench(t, Limits{})
				var refusing atomic.Bool
				refusing.Store(true)
				b.answer = func(_ context.Context, events []order.Event) error {
					if refusing.Load() && events[0].SyncID == "a" {
						return refusal
					}
					return nil
				}
				require.True(t, b.lanes.take(b.records("a", "b")))
				time.Sleep(time.Hour)
				synctest.Wait()
				attempts := len(b.carried("a"))
				require.Greater(t, attempts, int(time.Hour/(2*retryMost)), "it is tried all the time")
				require.Less(t, attempts, int(4*time.Hour/retryMost), "but with pauses")
				require.Empty(t, b.letters())
				require.Equal(t, int64(0), b.tracker.position())
				require.ErrorContains(t, b.lanes.troubles.lasting(), "order a has failed for")

				require.True(t, b.lanes.take(b.records("a", "b"))) // what comes joins the next attempt, others go on
				synctest.Wait()
				require.Equal(t, [][]int64{{1}, {3}}, b.carried("b"))
				refusing.Store(false)
				time.Sleep(2 * retryMost)
				calls := b.carried("a")
				require.Equal(t, []int64{0, 2}, calls[len(calls)-1])
				require.Equal(t, int64(4), b.tracker.position())
				require.NoError(t, b.lanes.troubles.lasting())
			})
		})
	}
}

func TestCallThatHangsIsGivenUp(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBench(t, Limits{})
		hangs := true
		b.answer = func(ctx context.Context, _ []order.Event) error {
			if hangs {
				hangs = false
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}
		require.True(t, b.lanes.take(b.records("a")))
		time.Sleep(callTimeout + retryMost)
		require.Equal(t, [][]int64{{0}, {0}}, b.carried("a"), "the server may have it: it is sent again all the same")
		require.Equal(t, callTimeout, b.made()[1].at.Truncate(time.Second))
	})
}

func TestTopicsTakeTurns(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBench(t, Limits{MaxCalls: 2}, "online", "store")
		b.answer = func(context.Context, []order.Event) error { time.Sleep(time.Second); return nil }
		var all []*record
		for n := range 100 {
			all = append(all, b.record("online", "online"+strconv.Itoa(n), 1))
		}
		for n := range 10 {
			all = append(all, b.record("store", "store"+strconv.Itoa(n), 1))
		}
		require.True(t, b.lanes.take(all))
		time.Sleep(10*time.Second + time.Millisecond)
		synctest.Wait()
		require.Len(t, b.made(), 22, "two at a time")
		stores := 0
		for _, c := range b.made() {
			if c.order[:5] == "store" {
				stores++
			}
		}
		require.Equal(t, 10, stores, "a short queue does not wait for a long one")
	})
}

func TestTopicKeepsToItsShareOfLanesAndBytes(t *testing.T) {
	for _, bound := range []struct {
		name   string
		limits Limits
		size   int
	}{
		{"lanes", Limits{MaxLanes: 8}, 10},
		{"bytes", Limits{MaxBytes: 2 * 4 * (1000 + order.Event{}.Size())}, 1000},
	} {
		t.Run(bound.name, func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				b := newBench(t, bound.limits, "online", "store")
				var stuck atomic.Bool
				stuck.Store(true)
				b.answer = func(_ context.Context, events []order.Event) error {
					if stuck.Load() && events[0].Source.Topic == "online" {
						return errAway
					}
					return nil
				}
				var online []*record
				for n := range 10 {
					online = append(online, b.record("online", fmt.Sprint("online", n), bound.size))
				}
				taken := make(chan bool)
				go func() { taken <- b.lanes.take(online) }()
				synctest.Wait()
				_, _, shares := b.lanes.usage()
				require.Equal(t, 4, shares["online"].lanes)
				other := b.record("store", "s", bound.size)
				other.tracker = newTracker(other.message.Offset, true)
				require.True(t, b.lanes.take([]*record{other}), "the other's share is free")
				synctest.Wait()
				require.Len(t, b.carried("s"), 1)

				stuck.Store(false)
				require.True(t, <-taken)
				time.Sleep(time.Minute)
				require.Equal(t, int64(10), b.tracker.position())
			})
		})
	}
}

func TestTheSmallestBoundsLetOneRecordThrough(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBench(t, Limits{MaxBytes: 1, MaxLanes: 1, MaxCalls: 1}, "online", "store")
		require.True(t, b.lanes.take([]*record{b.record("online", "a", 5000), b.record("online", "b", 5000)}))
		time.Sleep(time.Second)
		require.Equal(t, int64(2), b.tracker.position())
	})
}

// The window counts offsets above the committed one, finished or not: a restart sends no more again.
func TestWindowClosesUntilItIsCommitted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBench(t, Limits{MaxInFlight: 10})
		taken := make(chan bool)
		go func() { taken <- b.lanes.take(b.records(slices.Repeat([]string{"a"}, 15)...)) }()
		time.Sleep(time.Minute)
		require.Equal(t, int64(10), b.tracker.position(), "ten are finished, and more are not fetched")
		b.tracker.commit(10)
		b.lanes.wake()
		require.True(t, <-taken)
		time.Sleep(time.Minute)
		require.Equal(t, int64(15), b.tracker.position())
	})
}

func TestGapWiderThanTheWindow(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBench(t, Limits{MaxInFlight: 10})
		require.True(t, b.lanes.take(b.records("a")))
		b.next = 1000
		taken := make(chan bool)
		go func() { taken <- b.lanes.take(b.records("a")) }()
		time.Sleep(time.Second)
		offset, _ := b.tracker.uncommitted()
		require.Equal(t, int64(1000), offset, "the gap itself can be committed")
		b.tracker.commit(offset)
		b.lanes.wake()
		require.True(t, <-taken)
	})
}

func TestBrakeHoldsCallsAndFetches(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBench(t, Limits{})
		b.braked = true
		p := &partition{topic: "online"}
		p.tracker.Store(b.tracker)
		require.True(t, b.lanes.take(b.records("a")))
		fetches := make(chan bool)
		go func() { fetches <- b.lanes.awaitRoom(p) }()
		time.Sleep(time.Minute)
		require.Empty(t, b.made())
		select {
		case <-fetches:
			t.Fatal("a fetch began")
		default:
		}
		b.lanes.mu.Lock()
		b.braked = false
		b.lanes.mu.Unlock()
		b.lanes.wake()
		require.True(t, <-fetches)
		synctest.Wait()
		require.Len(t, b.made(), 1)
	})
}

func TestEndOfTheGenerationEndsEverything(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBench(t, Limits{MaxInFlight: 2})
		ctx, cancel := context.WithCancel(t.Context())
		b.lanes.ctx = ctx
		b.answer = func(ctx context.Context, events []order.Event) error {
			if events[0].SyncID == "failing" {
				return errAway
			}
			<-ctx.Done()
			return ctx.Err()
		}
		require.True(t, b.lanes.take(b.records("hanging", "failing")))
		taken := make(chan bool)
		go func() { taken <- b.lanes.take(b.records("late")) }()
		synctest.Wait()
		began := time.Now()
		cancel()
		b.lanes.close()
		require.False(t, <-taken)
		b.lanes.running.Wait()
		require.Zero(t, time.Since(began))
		calls := len(b.made())
		time.Sleep(time.Hour)
		require.Len(t, b.made(), calls, "nothing of it is tried again")
		require.Equal(t, int64(0), b.tracker.position())
		require.NoError(t, b.lanes.troubles.lasting())
	})
}

func TestNoCallBeginsAfterTheEndOfTheGeneration(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBench(t, Limits{MaxCalls: 1})
		finish := make(chan struct{})
		b.answer = func(context.Context, []order.Event) error { <-finish; return nil }
		require.True(t, b.lanes.take(b.records("calling", "ready")))
		synctest.Wait()
		b.lanes.close()
		close(finish)
		b.lanes.running.Wait()
		b.lanes.wake() // as a commit or the brake would
		synctest.Wait()
		require.Len(t, b.made(), 1)
		require.Equal(t, int64(1), b.tracker.position(), "what was under way and succeeded is finished")
	})
}
