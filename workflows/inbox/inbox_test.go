package inbox_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"ordersync/internal/order"
	"ordersync/workflows/inbox"
)

var start = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

const hold = time.Minute

// ev makes an event from words like "creation", "update2" or "invoice3": the kind, and the version
// if there is one. Its name is its identity.
func ev(name string) order.Event {
	kinds := map[string]order.Kind{"creation": order.Creation, "update": order.Update, "invoice": order.Invoice}
	word := strings.TrimRight(strings.SplitN(name, "'", 2)[0], "0123456789")
	var version int64
	_, _ = fmt.Sscanf(strings.TrimPrefix(name, word), "%d", &version)
	return order.Event{SyncID: "1", ID: order.ParseEventID(name), Kind: kinds[word], Version: version, Data: json.RawMessage(`{"n":"` + name + `"}`)}
}

func name(e order.Event) string {
	var data struct{ N string }
	_ = json.Unmarshal(e.Data, &data)
	return data.N
}

func names(events []order.Event) string {
	out := make([]string, len(events))
	for i, e := range events {
		out[i] = name(e)
	}
	return strings.Join(out, " ")
}

func with(events string) *inbox.Inbox {
	b := inbox.New(hold)
	for _, n := range strings.Fields(events) {
		b.Add(ev(n))
	}
	return b
}

func absent(events string) *inbox.Inbox {
	b := with(events)
	b.Lacks(start)
	return b
}

var open = order.Result{Outcome: order.Applied, Status: order.Open}

func TestPendingOrder(t *testing.T) {
	for _, c := range []struct{ arrive, apply string }{
		{"creation update invoice", "creation update invoice"},
		{"creation1 update2 invoice3", "creation1 update2 invoice3"},
		{"update2 creation1", "creation1 update2"},
		{"invoice3 update2 creation1", "creation1 update2 invoice3"},
		{"update2 update4 update3", "update2 update3 update4"},
		// Ties: creation, update, invoice, then arrival.
		{"invoice2 update2 creation2", "creation2 update2 invoice2"},
		{"update2 update2'b", "update2 update2'b"},
		// An event without a version keeps its place by arrival, and is passed by older versions.
		{"update update3 update2", "update update2 update3"},
		{"update3 update update2", "update2 update3 update"},
		{"update3 update update4", "update3 update update4"},
		{"update5 update update6 update1", "update1 update5 update update6"},
	} {
		t.Run(c.arrive, func(t *testing.T) {
			b := with(c.arrive)
			require.Equal(t, c.apply, names(b.Upcoming(100)))
			require.Equal(t, c.apply, strings.Join(applyAll(t, b), " "))
		})
	}
}

// applyAll resolves steps until the order rests.
func applyAll(t *testing.T, b *inbox.Inbox) (applied []string) {
	t.Helper()
	for range 1000 {
		next := b.Next(start)
		if next.Action == inbox.Rest {
			return applied
		}
		require.Equal(t, inbox.Apply, next.Action)
		applied = append(applied, name(next.Step.Event))
		b.Resolve(next.Step.Event.ID, open, start)
	}
	t.Fatal("the order never rests")
	return nil
}

func TestWhatIsSentAgainLateGoesByItsPlaceInKafka(t *testing.T) {
	at := func(n string, partition int, offset int64) order.Event {
		e := ev(n)
		e.Source = order.Source{Topic: "online", Partition: partition, Offset: offset, ReceivedAt: start.Add(time.Duration(offset) * time.Second)}
		return e
	}
	b := inbox.New(hold)
	for _, e := range []order.Event{at("update'9", 1, 9), at("update'5", 1, 5), at("update'7", 2, 7), at("update'6", 1, 6)} {
		b.Add(e)
	}
	require.Equal(t, "update'5 update'6 update'9 update'7", names(b.Upcoming(10)))
	anew := at("update'1", 1, 1)
	anew.Source.ReceivedAt = start.Add(time.Hour)
	b.Add(anew)
	require.Equal(t, "update'1", name(b.Upcoming(10)[4]), "a topic made anew begins again at 0")
}

func TestWhileTheTargetLacksTheOrder(t *testing.T) {
	t.Run("a pending creation goes first", func(t *testing.T) {
		b := absent("invoice update creation")
		require.Equal(t, "creation update invoice", names(b.Upcoming(10)))
		next := b.Next(start)
		require.Equal(t, inbox.Apply, next.Action)
		require.Equal(t, "creation", name(next.Step.Event))
	})
	t.Run("an update is held, then inserted", func(t *testing.T) {
		b := absent("update2 invoice3")
		next := b.Next(start.Add(hold - 1))
		require.Equal(t, inbox.Hold, next.Action)
		require.Equal(t, start.Add(hold), next.Until)
		next = b.Next(start.Add(hold))
		require.Equal(t, inbox.Apply, next.Action)
		require.True(t, next.Step.InsertMissing)
	})
	t.Run("a creation ends the hold", func(t *testing.T) {
		b := absent("update2")
		b.Add(ev("creation1"))
		next := b.Next(start)
		require.Equal(t, inbox.Apply, next.Action)
		require.Equal(t, "creation1", name(next.Step.Event))
		b.Resolve(next.Step.Event.ID, open, start)
		next = b.Next(start)
		require.Equal(t, inbox.Apply, next.Action)
		require.False(t, next.Step.InsertMissing, "the order is there now")
	})
	t.Run("the window is one absolute time", func(t *testing.T) {
		b := absent("update2")
		b.Add(ev("update3"))
		b.Lacks(start.Add(30 * time.Second))
		require.Equal(t, start.Add(hold), b.Next(start.Add(30*time.Second)).Until)
	})
	t.Run("an invoice blocks after the window until an update comes", func(t *testing.T) {
		b := absent("invoice3")
		require.Equal(t, inbox.Hold, b.Next(start).Action)
		later := start.Add(hold)
		next := b.Next(later)
		require.Equal(t, inbox.Block, next.Action)
		require.Equal(t, inbox.UnknownOrder, next.Type)
		b.Add(ev("update2"))
		next = b.Next(later)
		require.Equal(t, inbox.Apply, next.Action)
		require.True(t, next.Step.InsertMissing)
	})
	t.Run("a rested order forgets the window", func(t *testing.T) {
		b := absent("update2")
		b.Skip(start)
		b.Resolve(ev("update2").ID, order.Result{Outcome: order.Skipped}, start)
		b.Add(ev("update3"))
		require.Equal(t, inbox.Apply, b.Next(start.Add(time.Hour)).Action)
		require.False(t, b.Next(start.Add(time.Hour)).Step.InsertMissing, "the target is asked anew")
	})
	t.Run("without a window an update is inserted at once", func(t *testing.T) {
		b := inbox.New(0)
		b.Add(ev("update2"))
		b.Lacks(start)
		require.True(t, b.Next(start).Step.InsertMissing)
	})
}

func TestDuplicatesAreDropped(t *testing.T) {
	b := with("creation1 update2")
	require.Equal(t, inbox.Duplicate, b.Add(ev("creation1")), "pending")
	b.Resolve(ev("creation1").ID, open, start)
	require.Equal(t, inbox.Duplicate, b.Add(ev("creation1")), "resolved")
	require.Equal(t, "update2", names(b.Upcoming(10)))
}

func TestTheWindowOfResolvedEventsIsBounded(t *testing.T) {
	b := with("")
	for i := range 300 {
		e := ev(fmt.Sprintf("update%d", i+1))
		b.Add(e)
		b.Resolve(e.ID, open, start)
	}
	require.Equal(t, inbox.Queued, b.Add(ev("update44")), "the ledger decides on what is forgotten")
	require.Equal(t, inbox.Duplicate, b.Add(ev("update45")), "256 are remembered")
	require.Equal(t, inbox.Duplicate, b.Add(ev("update300")))
}

func TestStuckEventStaysNext(t *testing.T) {
	b := with("update3")
	b.Refuse(ev("update3").ID, "CheckViolated", "no", start)
	b.Add(ev("update2"))
	next := b.Next(start)
	require.Equal(t, inbox.Block, next.Action)
	require.Equal(t, "update3", name(next.Step.Event))
	b.Retry(start)
	require.Equal(t, "update3", name(b.Next(start).Step.Event), "an operator's retry is of the event that was stuck")
	b.Refuse(ev("update3").ID, "CheckViolated", "again", start.Add(time.Hour))
	require.Equal(t, start, b.Next(start).Since, "stuck since the first time")
	b.Skip(start)
	require.Equal(t, inbox.Skip, b.Next(start).Action)
	b.Resolve(ev("update3").ID, order.Result{Outcome: order.Skipped, Status: order.Open}, start)
	require.Equal(t, "update2", name(b.Next(start).Step.Event))
}

func TestAmendReplacesTheStuckEventsData(t *testing.T) {
	b := with("creation1")
	b.Refuse(ev("creation1").ID, "CheckViolated", "no", start)
	b.Amend(json.RawMessage(`{"n":"better"}`), start)
	next := b.Next(start)
	require.Equal(t, inbox.Apply, next.Action)
	require.Equal(t, "better", name(next.Step.Event))
	require.Equal(t, ev("creation1").ID, next.Step.Event.ID, "the event stays the same one")
}

func TestOperatorsActOnHeldSteps(t *testing.T) {
	t.Run("retry inserts a held update", func(t *testing.T) {
		b := absent("update2")
		b.Retry(start)
		next := b.Next(start)
		require.Equal(t, inbox.Apply, next.Action)
		require.True(t, next.Step.InsertMissing)
	})
	t.Run("retry asks again for a held invoice and goes on waiting", func(t *testing.T) {
		b := absent("invoice3")
		b.Retry(start)
		require.Equal(t, inbox.Apply, b.Next(start).Action)
		b.Lacks(start)
		require.Equal(t, inbox.Hold, b.Next(start).Action)
	})
	t.Run("nothing happens to an order that is not stuck", func(t *testing.T) {
		b := with("creation1")
		b.Retry(start)
		b.Skip(start)
		b.Amend(json.RawMessage(`1`), start)
		require.Nil(t, b.Stuck)
		require.Equal(t, "creation1", name(b.Next(start).Step.Event))
	})
}

func TestOverflow(t *testing.T) {
	many := func(n, size int) *inbox.Inbox {
		b := inbox.New(hold)
		for i := range n {
			e := ev(fmt.Sprintf("update%d", i+1))
			e.Data = json.RawMessage(`"` + strings.Repeat("x", size) + `"`)
			b.Add(e)
		}
		return b
	}
	t.Run("an order that is not stuck keeps everything", func(t *testing.T) {
		b := many(3000, 10)
		require.Empty(t, b.Overflow(start, false))
		require.False(t, b.Fits())
	})
	t.Run("a stuck one keeps its first thousand, the stuck one among them", func(t *testing.T) {
		b := many(1500, 10)
		b.Refuse(b.Upcoming(1500)[1499].ID, "T", "", start)
		over := b.Overflow(start, false)
		require.Len(t, over, 500)
		require.Equal(t, int64(1000), over[0].Version)
		require.Equal(t, int64(1499), over[499].Version)
		require.True(t, b.Fits())
		require.Equal(t, int64(1500), b.Next(start).Step.Event.Version)
	})
	t.Run("bytes are bounded too", func(t *testing.T) {
		b := many(20, 100<<10)
		b.Refuse(b.Upcoming(1)[0].ID, "T", "", start)
		require.Len(t, b.Overflow(start, false), 10)
		carried, err := json.Marshal(b)
		require.NoError(t, err)
		require.Less(t, len(carried), 1<<20+100<<10, "it must fit into a continue-as-new of 2 MiB")
	})
	t.Run("one event always fits", func(t *testing.T) {
		b := many(1, 1<<20)
		b.Refuse(b.Upcoming(1)[0].ID, "T", "", start)
		require.Empty(t, b.Overflow(start, false))
		require.True(t, b.Fits())
	})
	t.Run("a creation that ends the hold is not thrown out", func(t *testing.T) {
		b := many(1000, 10)
		b.Lacks(start)
		b.Add(ev("creation"))
		require.Empty(t, b.Overflow(start, false))
		require.Equal(t, "creation", name(b.Next(start).Step.Event))
	})
	t.Run("an order that waits for something else keeps its first thousand", func(t *testing.T) {
		b := many(1500, 10)
		require.Len(t, b.Overflow(start, true), 500)
		require.Equal(t, int64(1), b.Next(start).Step.Event.Version)
	})
	t.Run("what overflowed may come again", func(t *testing.T) {
		b := many(1001, 10)
		b.Refuse(b.Upcoming(1)[0].ID, "T", "", start)
		over := b.Overflow(start, false)
		require.Len(t, over, 1)
		require.Equal(t, inbox.Queued, b.Add(over[0]))
	})
}

func TestCarriedInboxIsTheSame(t *testing.T) {
	b := absent("update2 invoice3 update4")
	b.Refuse(ev("update2").ID, "CheckViolated", "no", start)
	raw, err := json.Marshal(b)
	require.NoError(t, err)
	var c inbox.Inbox
	require.NoError(t, json.Unmarshal(raw, &c))
	require.Equal(t, b.Next(start), c.Next(start))
	require.Equal(t, b, &c)
	require.Equal(t, inbox.Duplicate, c.Add(ev("update4")), "duplicates are known")
}

// FuzzInbox holds the inbox against a naive model of the order rules and of a target.
//
// Each byte is a thing that happens: an event arrives, the next step is tried (and the target
// takes it, lacks the order, refuses it or is down), time passes, an operator acts, or the state is
// carried into a new run.
func FuzzInbox(f *testing.F) {
	f.Add([]byte{0, 1, 2, 100, 100, 100})
	f.Add([]byte{9, 9, 3, 100, 130, 180, 100, 200, 0, 100, 100})
	f.Add([]byte{5, 33, 17, 100, 110, 150, 120, 190, 100, 220, 230, 100, 100})
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 400 {
			return
		}
		run(t, script)
	})
}

// TestInboxAgainstTheModel runs the fuzz target on random scripts, so that every test run covers
// what a short fuzzing would.
func TestInboxAgainstTheModel(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range 5000 {
		script := make([]byte, random.IntN(120))
		for i := range script {
			script[i] = byte(random.IntN(256))
		}
		run(t, script)
	}
}

// model is the order rules once more, as plainly as possible: a list that is searched anew.
type model struct {
	pending []order.Event
	exists  bool // the target's truth
	ledger  map[uuid.UUID][]order.Event
}

// expected is the event the rules name next: by version (stable, unversioned ones are walls that
// only lower versions pass), or by kind while the order is known to be lacking.
func (m *model) insert(e order.Event) {
	at := len(m.pending)
	if e.Version > 0 {
		for i, p := range m.pending {
			higher := p.Version > e.Version || p.Version == e.Version && p.Kind.Rank() > e.Kind.Rank()
			if p.Version > 0 && higher {
				at = i
				break
			}
		}
	}
	m.pending = append(m.pending[:at:at], append([]order.Event{e}, m.pending[at:]...)...)
}

func (m *model) expected(lacking bool) order.Event {
	if lacking {
		for _, k := range order.Kinds {
			for _, e := range m.pending {
				if e.Kind == k {
					return e
				}
			}
		}
	}
	return m.pending[0]
}

func (m *model) remove(id uuid.UUID) {
	for i, e := range m.pending {
		if e.ID == id {
			m.pending = append(m.pending[:i:i], m.pending[i+1:]...)
			return
		}
	}
}

func run(t *testing.T, script []byte) {
	b, m, now := inbox.New(hold), &model{ledger: map[uuid.UUID][]order.Event{}}, start
	lacking, lackingSince := false, time.Time{}
	var stuck *uuid.UUID
	for at, op := range script {
		switch {
		case op < 100: // an event arrives: 3 kinds, versions 0 to 7, each id is that of some two
			e := order.Event{SyncID: "1", Kind: order.Kinds[op%3], Version: int64(op / 3 % 8), Data: json.RawMessage(`1`)}
			e.ID = uuid.NewSHA1(uuid.Nil, []byte{op % 70})
			want := inbox.Queued
			for _, p := range append(m.pending[:len(m.pending):len(m.pending)], m.ledger[e.ID]...) {
				if p.ID == e.ID {
					want = inbox.Conflict
					if p.Kind == e.Kind && p.Version == e.Version {
						want = inbox.Duplicate
					}
				}
			}
			got := b.Add(e)
			if got != want {
				t.Fatalf("step %d: Add(%s) = %d, the rules say %d", at, e.Name(), got, want)
			}
			if got == inbox.Queued {
				m.insert(e)
			}
		case op < 180: // the next step
			next := b.Next(now)
			if len(m.pending) == 0 {
				if next.Action != inbox.Rest {
					t.Fatalf("step %d: nothing pends, but %+v", at, next)
				}
				continue
			}
			want := m.expected(lacking)
			if stuck != nil {
				want.ID = *stuck
			}
			if next.Action == inbox.Rest || next.Step.Event.ID != want.ID {
				t.Fatalf("step %d: next is %v %s, the rules say %s", at, next.Action, next.Step.Event.Name(), want.Name())
			}
			e := next.Step.Event
			over := lacking && !now.Before(lackingSince.Add(hold))
			if stuck == nil && lacking && e.Kind != order.Creation {
				switch {
				case !over && next.Action != inbox.Hold:
					t.Fatalf("step %d: %s must be held, not %v", at, e.Name(), next.Action)
				case over && e.Kind == order.Invoice && next.Action != inbox.Block:
					t.Fatalf("step %d: an invoice of an unknown order must block, not %v", at, next.Action)
				case over && e.Kind == order.Update && (next.Action != inbox.Apply || !next.Step.InsertMissing):
					t.Fatalf("step %d: after the window an update is inserted, not %v", at, next)
				}
			}
			switch next.Action {
			case inbox.Skip:
				m.resolve(e)
				r := order.Result{Outcome: order.Skipped}
				if m.exists {
					r.Status = order.Open
				}
				stuck = nil
				switch {
				case m.exists || len(m.pending) == 0:
					lacking = false
				case !lacking:
					lacking, lackingSince = true, now
				}
				b.Resolve(e.ID, r, now)
			case inbox.Apply:
				switch {
				case op < 150 && (m.exists || e.Kind == order.Creation || e.Kind == order.Update && next.Step.InsertMissing):
					m.exists = true
					m.resolve(e)
					lacking, stuck = false, nil
					b.Resolve(e.ID, open, now)
				case op < 150:
					if !lacking {
						lacking, lackingSince = true, now
					}
					stuck = nil
					b.Lacks(now)
				case op < 165:
					stuck = &e.ID
					b.Refuse(e.ID, "T", "refused", now)
				default:
					stuck = &e.ID
					b.Delay(e.ID, "T", "down", now)
				}
			case inbox.Block:
				if stuck == nil && (!over || e.Kind != order.Invoice) {
					t.Fatalf("step %d: %s blocks for no reason", at, e.Name())
				}
			}
		case op < 200:
			now = now.Add(time.Duration(op-179) * 5 * time.Second)
		case op < 230: // an operator
			e := b.StuckOn(now)
			held := lacking && len(m.pending) > 0 && m.expected(true).Kind != order.Creation &&
				(m.expected(true).Kind == order.Invoice || now.Before(lackingSince.Add(hold)))
			if (e != nil) != (stuck != nil || held) {
				t.Fatalf("step %d: stuck on %v; stuck %v, held %t", at, e, stuck, held)
			}
			if e == nil {
				continue
			}
			if op < 215 {
				if stuck == nil && e.Kind == order.Update {
					lackingSince = now.Add(-hold)
				}
				b.Retry(now)
			} else {
				b.Skip(now)
			}
			stuck = &e.ID
		default: // a new run
			raw, err := json.Marshal(b)
			if err != nil {
				t.Fatal(err)
			}
			b = new(inbox.Inbox)
			if err := json.Unmarshal(raw, b); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func (m *model) resolve(e order.Event) {
	m.ledger[e.ID] = []order.Event{e}
	m.remove(e.ID)
}
