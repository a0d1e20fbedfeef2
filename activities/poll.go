package activities

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"ordersync/internal/order"
)

// Poller brings an ERP's changes to Kafka.
type Poller interface {
	// Poll does a stretch of a poll, and calls progress with the state after each page: there it can be
	// taken up, and there it ends if the answer is false. Its errors are *order.Failure; one with a
	// RetryAfter() time.Duration says when to go on.
	Poll(ctx context.Context, task order.PollTask, progress func(order.PollState) bool) (order.PollState, error)
}

// Polling is the step of the workflows PollERP and Backfill.
type Polling struct {
	poller Poller
	log    *slog.Logger
}

// NewPolling makes the activity that a worker with an ERP registers.
func NewPolling(p Poller, log *slog.Logger) *Polling { return &Polling{p, log} }

// PollPages reads and publishes page after page, for about a minute. It goes on where the attempt
// before it got to: its heartbeats tell.
func (a *Polling) PollPages(ctx context.Context, task order.PollTask) (order.PollState, error) {
	if activity.HasHeartbeatDetails(ctx) {
		var reached order.PollState
		if err := activity.GetHeartbeatDetails(ctx, &reached); err != nil {
			a.log.WarnContext(ctx, "the poll goes on from its stretch's beginning, as its heartbeat cannot be read", "error", err)
		} else {
			task.State, task.Begin = reached, false
		}
	}
	beats := startBeats(ctx)
	state, err := a.poller.Poll(ctx, task, beats.note)
	beats.stop()
	if err != nil && ctx.Err() != nil {
		return order.PollState{}, ctx.Err()
	}
	return state, a.fail(ctx, err)
}

// fail makes of a failure what Temporal goes by. All are retried: nothing that an ERP or Kafka says is
// for good.
func (a *Polling) fail(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	failure := &order.Failure{Type: "Unknown", Err: err}
	errors.As(err, &failure)
	if failure.Operator {
		a.log.ErrorContext(ctx, "polling needs an operator", "reason", failure.Type, "error", failure.Err)
	}
	var options temporal.ApplicationErrorOptions
	var wait interface{ RetryAfter() time.Duration }
	if errors.As(err, &wait) {
		options.NextRetryDelay = wait.RetryAfter()
	}
	return temporal.NewApplicationErrorWithOptions(clip(failure.Err.Error()), failure.Type, options)
}

// beatEvery is the time between two heartbeats. The server is told at once of a page, and in between
// that the worker lives: an ERP may take long for a page.
const beatEvery = 3 * time.Second

// beats tell the server how far a poll has come.
type beats struct {
	ctx     context.Context
	stopped chan struct{}
	all     sync.WaitGroup

	mu    sync.Mutex
	state *order.PollState // nil before the first page
}

func startBeats(ctx context.Context) *beats {
	b := &beats{ctx: ctx, stopped: make(chan struct{})}
	// What an attempt before this one has reached must not be lost by a heartbeat that says nothing.
	if activity.HasHeartbeatDetails(ctx) {
		var reached order.PollState
		if activity.GetHeartbeatDetails(ctx, &reached) == nil {
			b.state = &reached
		}
	}
	b.all.Go(func() {
		tick := time.NewTicker(beatEvery)
		defer tick.Stop()
		for {
			select {
			case <-b.stopped:
				return
			case <-tick.C:
				b.mu.Lock()
				b.beat()
				b.mu.Unlock()
			}
		}
	})
	return b
}

// note takes in how far the poll is, and tells whether it may go on: on a worker that is about to stop
// it ends with its page, so that another worker goes on at once.
func (b *beats) note(state order.PollState) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state = &state
	b.beat()
	select {
	case <-activity.GetWorkerStopChannel(b.ctx):
		return false
	default:
		return true
	}
}

func (b *beats) beat() {
	if b.state == nil {
		activity.RecordHeartbeat(b.ctx)
		return
	}
	activity.RecordHeartbeat(b.ctx, *b.state)
}

func (b *beats) stop() {
	close(b.stopped)
	b.all.Wait()
}
