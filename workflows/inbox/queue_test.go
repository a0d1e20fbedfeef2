package inbox

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"ordersync/internal/order"
)

// TestQueueAgainstASearchedList holds the queue against a list that is searched from its begin for each
// event, as the rules say it. Versions, offsets and timestamps are few, so ties and topics that were
// created again are many.
func TestQueueAgainstASearchedList(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	epoch := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for round := range 400 {
		q := newQueue()
		var list []order.Event
		for range 120 {
			switch roll := random.IntN(10); {
			case roll < 7:
				e := order.Event{ID: uuid.New(), Kind: order.Kinds[random.IntN(3)], Source: order.Source{
					Topic: "online", Partition: random.IntN(2), Offset: int64(random.IntN(40)), ReceivedAt: epoch.Add(time.Duration(random.IntN(5)) * time.Second),
				}}
				if random.IntN(2) == 0 {
					e.Version = 1 + int64(random.IntN(6))
				}
				q.add(e)
				at := slices.IndexFunc(list, func(p order.Event) bool { return precedes(e, p) })
				if at < 0 {
					at = len(list)
				}
				list = slices.Insert(list, at, e)
			case roll < 9 && len(list) > 0:
				at := random.IntN(min(len(list), 1+random.IntN(3)))
				if random.IntN(4) == 0 {
					at = random.IntN(len(list))
				}
				q.remove(q.byID[list[at].ID])
				list = slices.Delete(list, at, at+1)
			default:
				q.restore(q.events())
			}
			if !slices.Equal(ids(list), ids(q.events())) || len(list) != q.len() {
				t.Fatalf("round %d: the list is %v, the queue %v", round, ids(list), ids(q.events()))
			}
		}
		bytes := 0
		for _, e := range list {
			bytes += e.Size()
		}
		require.Equal(t, bytes, q.bytes)
	}
}

func ids(events []order.Event) []uuid.UUID {
	all := make([]uuid.UUID, len(events))
	for i, e := range events {
		all[i] = e.ID
	}
	return all
}

// BenchmarkAdd adds to a queue of a hundred and to one of twenty thousand, in the order of versions, against
// it, at random, and without versions. Both must cost about the same.
func BenchmarkAdd(b *testing.B) {
	for name, version := range map[string]func(i int) int64{
		"rising":      func(i int) int64 { return int64(i) + 1 },
		"falling":     func(i int) int64 { return 1<<40 - int64(i) },
		"random":      func(int) int64 { return 1 + rand.Int64N(1<<40) },
		"unversioned": func(int) int64 { return 0 },
	} {
		for _, waiting := range []int{100, 20_000} {
			b.Run(name+"/"+map[bool]string{true: "behind100", false: "behind20000"}[waiting == 100], func(b *testing.B) {
				q := newQueue()
				i := 0
				add := func() order.Event {
					e := order.Event{ID: uuid.New(), Kind: order.Update, Version: version(i), Source: order.Source{Topic: "online", Offset: int64(i)}}
					q.add(e)
					i++
					return e
				}
				for range waiting {
					add()
				}
				for b.Loop() {
					e := add()
					b.StopTimer()
					q.remove(q.byID[e.ID])
					b.StartTimer()
				}
			})
		}
	}
}
