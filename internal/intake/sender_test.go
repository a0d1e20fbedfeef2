package intake

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/serviceerror"

	"ordersync/internal/devstack/devtest"
	"ordersync/internal/order"
	"ordersync/workflows"
)

// sending records the calls of a Sender in fake time.
type sending struct {
	mu     sync.Mutex
	began  time.Time
	calls  []call
	busy   int
	most   int // calls at the same time
	answer func(events []order.Event) error
}

func (s *sending) sender() *Sender {
	s.began = time.Now()
	return &Sender{call: s.call, called: map[string]time.Time{}}
}

func (s *sending) call(_ context.Context, events []order.Event) error {
	s.mu.Lock()
	c := call{at: time.Since(s.began), order: events[0].SyncID}
	for _, e := range events {
		c.events = append(c.events, e.Version)
	}
	s.calls = append(s.calls, c)
	s.busy++
	s.most = max(s.most, s.busy)
	s.mu.Unlock()
	<-time.After(10 * time.Millisecond)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy--
	if s.answer == nil {
		return nil
	}
	return s.answer(events)
}

// of are the calls for an order, and the versions they carried.
func (s *sending) of(syncID string) (at []time.Duration, versions []int64) {
	for _, c := range s.calls {
		if c.order == syncID {
			at, versions = append(at, c.at), append(versions, c.events...)
		}
	}
	return at, versions
}

func versions(first, n int64) (all []int64) {
	for i := range n {
		all = append(all, first+i)
	}
	return all
}

func TestSenderKeepsAnOrdersEventsInOrderAndItsPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sending{}
		sender := s.sender()
		var all []order.Event
		a, b := made("a", order.Creation, 1, 250), made("b", order.Creation, 1, 250)
		for i := range a {
			all = append(all, a[i], b[i])
		}
		require.Empty(t, sender.Send(t.Context(), all))
		require.Empty(t, sender.Send(t.Context(), made("a", order.Update, 251, 1)), "a later Send keeps the pace too")
		at, got := s.of("a")
		require.Equal(t, []time.Duration{0, 100 * time.Millisecond, 200 * time.Millisecond, 300 * time.Millisecond}, at)
		require.Equal(t, versions(1, 251), got)
		_, got = s.of("b")
		require.Equal(t, versions(1, 250), got)
		require.Equal(t, 2, s.most, "orders go side by side")
	})
}

func TestSenderBoundsCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sending{}
		var all []order.Event
		for n := range 3 * sendOrders {
			all = append(all, made(string(rune('a'+n)), order.Creation, 1, 1)...)
		}
		large := made("large", order.Creation, 1, 3)
		for i := range large {
			large[i].Data = make([]byte, maxCallBytes/2)
		}
		require.Empty(t, s.sender().Send(t.Context(), append(all, large...)))
		require.Equal(t, sendOrders, s.most)
		at, _ := s.of("large")
		require.Len(t, at, 3, "two of them do not fit into a call")
	})
}

func TestSenderComesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		down := 3
		s := &sending{answer: func([]order.Event) error {
			if down--; down >= 0 {
				return serviceerror.NewUnavailable("away")
			}
			return nil
		}}
		require.Empty(t, s.sender().Send(t.Context(), made("a", order.Creation, 1, 2)))
		require.Len(t, s.calls, 4)

		down = 1000
		failed := s.sender().Send(t.Context(), made("a", order.Creation, 1, 101))
		require.ErrorContains(t, failed["a"], "in 8 attempts")
		require.Len(t, s.calls, 4+sendAttempts)

		ctx, cancel := context.WithCancelCause(t.Context())
		stop := errors.New("stopped")
		s.answer = func([]order.Event) error { cancel(stop); return serviceerror.NewUnavailable("away") }
		failed = s.sender().Send(ctx, made("a", order.Creation, 1, 1))
		require.ErrorIs(t, failed["a"], stop)
	})
}

// A batch refused for its size is split; a single event is named, and nothing behind it is sent.
func TestSenderSplitsWhatIsTooLarge(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &sending{}
		s.answer = func(events []order.Event) error {
			if slices.ContainsFunc(events, func(e order.Event) bool { return e.Version == 3 && e.SyncID == "a" }) {
				return serviceerror.NewInvalidArgument("Blob data size exceeds limit.")
			}
			return nil
		}
		failed := s.sender().Send(t.Context(), append(made("a", order.Creation, 1, 5), made("b", order.Creation, 1, 5)...))
		require.Len(t, failed, 1)
		require.ErrorIs(t, failed["a"], ErrTooLarge)
		require.ErrorContains(t, failed["a"], "order_updation v3 of order a (store/1/2)")
		last := s.calls[len(s.calls)-1]
		require.Equal(t, []int64{3}, last.events)
		for _, c := range s.calls {
			require.False(t, c.order == "a" && c.events[0] > 3, "an event went past one that was refused")
		}
	})
}

func TestSenderStartsOrSignals(t *testing.T) {
	c := dial(t, "default")
	sender := NewSender(c, devtest.Name(t, "queue"), workflows.Settings{Rules: workflows.Rules, HoldWindow: time.Minute, IdleTimeout: time.Hour})
	id := devtest.Name(t, "sender")
	events := made(id, order.Creation, 1, 130)
	require.Empty(t, sender.Send(t.Context(), events))
	h, err := (&bundle{t: t, temporal: c}).handed(id)
	require.NoError(t, err)
	require.Equal(t, handed{started: 100, signals: 1, events: events, summary: "store order " + id}, h)
}
