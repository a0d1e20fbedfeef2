package intake

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.temporal.io/sdk/client"
	"golang.org/x/sync/errgroup"

	"ordersync/internal/order"
	"ordersync/workflows"
)

// Bounds of a Sender.
const (
	// sendOrders bounds the orders that are sent at the same time. It leaves the starter, which has
	// 64 calls under way at most, the larger part of the server.
	sendOrders = 16
	// sendAttempts bounds the calls for one batch. Unlike the starter, which has nowhere to put an
	// event it gives up, whoever uses a Sender can come again.
	sendAttempts = 8
	// sendPatience bounds the wait for a full run to become smaller.
	sendPatience = 10 * time.Minute
)

// Sender hands events to Temporal as the starter does, for those who have them from elsewhere than
// a group: the same calls, the same bounds of a call and of an order's calls a second. It never
// asks for an eager start, as no worker is near. It may be used by several goroutines at once, if
// not for the same order.
type Sender struct {
	call func(ctx context.Context, events []order.Event) error

	mu sync.Mutex
	// called has when an order's last call began, until that is callInterval ago.
	called map[string]time.Time
}

// NewSender makes a Sender. The client is made with workflows.DataConverter; settings travel in the
// input of every order that is started.
func NewSender(c client.Client, taskQueue string, settings workflows.Settings) *Sender {
	calls := &caller{client: c, taskQueue: taskQueue, settings: settings, metrics: newMetrics(nil), credit: newCredit(c)}
	return &Sender{call: calls.call, called: map[string]time.Time{}}
}

// Send hands over events of any orders, an order's in the order in which they are given, and returns
// when the server has them. failed has the orders of which it does not have all: what comes before the
// failure was handed over, nothing of what comes after. Sending them again changes nothing.
func (s *Sender) Send(ctx context.Context, events []order.Event) (failed map[string]error) {
	byOrder := map[string]*lane{}
	var lanes []*lane
	for _, e := range events {
		n, ok := byOrder[e.SyncID]
		if !ok {
			n = &lane{syncID: e.SyncID}
			byOrder[e.SyncID] = n
			lanes = append(lanes, n)
		}
		n.pending = append(n.pending, &record{event: e})
	}
	failures := make([]error, len(lanes))
	var sending errgroup.Group
	sending.SetLimit(sendOrders)
	for i, n := range lanes {
		sending.Go(func() error {
			failures[i] = s.send(ctx, n)
			return nil
		})
	}
	_ = sending.Wait() // each order has an error of its own
	failed = map[string]error{}
	for i, err := range failures {
		if err != nil {
			failed[lanes[i].syncID] = err
		}
	}
	return failed
}

// send empties a lane, call by call.
func (s *Sender) send(ctx context.Context, n *lane) error {
	patience := time.Now().Add(sendPatience)
	for len(n.pending) > 0 {
		if err := pause(ctx, s.due(n.syncID)); err != nil {
			return err
		}
		batch := n.batch()
		calling, cancel := context.WithTimeout(ctx, callTimeout)
		err := s.call(calling, events(batch))
		cancel()
		switch {
		case err == nil:
			n.drop(len(batch))
			n.succeeded()
			patience = time.Now().Add(sendPatience)
		case errors.As(err, new(*RunFullError)) && time.Now().Before(patience):
			n.attempts, n.backoff = 0, nil // an earlier call failed, and this one did not
			if err := pause(ctx, n.waits()); err != nil {
				return err
			}
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case refusedForSize(err) && len(batch) > 1:
			n.atMost = len(batch) / 2
		case refusedForSize(err):
			return fmt.Errorf("%w: %s of order %s (%s/%d/%d): %w", ErrTooLarge, batch[0].event.Name(), n.syncID,
				batch[0].event.Source.Topic, batch[0].event.Source.Partition, batch[0].event.Source.Offset, err)
		default:
			wait := n.failed()
			if n.attempts == sendAttempts {
				return fmt.Errorf("Temporal did not take the events of order %s in %d attempts: %w", n.syncID, n.attempts, err)
			}
			if err := pause(ctx, wait); err != nil {
				return err
			}
		}
	}
	return nil
}

// ErrTooLarge is the error of an event that Temporal will never take.
var ErrTooLarge = errors.New("the event is too large for Temporal")

// due says how long an order's next call has to wait, and notes that it then begins.
func (s *Sender) due(syncID string) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	next := now
	if at, ok := s.called[syncID]; ok && at.Add(callInterval).After(now) {
		next = at.Add(callInterval)
	}
	const many = 1000
	if len(s.called) > many {
		for id, at := range s.called {
			if now.Sub(at) > callInterval {
				delete(s.called, id)
			}
		}
	}
	s.called[syncID] = next
	return next.Sub(now)
}
