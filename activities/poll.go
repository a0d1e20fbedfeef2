package activities

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"ordersync/internal/order"
)

// Poller brings an ERP's changes to Kafka.
type Poller interface {
	// Poll does a stretch of a poll, and calls progress with the state after each page and where else it
	// changes: there it can be taken up, and there it ends if the answer is false. Its errors are *order.Failure; one with a
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
	reached, err := reachedBefore[order.PollState](ctx)
	switch {
	case err != nil:
		a.log.WarnContext(ctx, "the poll goes on from its stretch's beginning, as its heartbeat cannot be read", "error", err)
	case reached != nil:
		task.State, task.Begin = *reached, false
	}
	beats := startHeartbeats(ctx, beatEvery, reached)
	if reached == nil && !task.Begin {
		// People look at how far a long poll is also before this stretch has its first page.
		beats.note(task.State)
		beats.beat()
	}
	state, err := a.poller.Poll(ctx, task, func(state order.PollState) bool {
		beats.note(state)
		beats.beat()
		return !stopping(ctx)
	})
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
	return temporal.NewApplicationErrorWithOptions(order.Clip(failure.Err.Error(), maxMessage), failure.Type, retryWhen(err))
}

// beatEvery is the time between two heartbeats. The server is told at once of a page, and in between
// that the worker lives: an ERP may take long for a page.
const beatEvery = 3 * time.Second

// stopping tells whether the worker is about to stop: a poll then ends with its page, so that another
// worker goes on at once.
func stopping(ctx context.Context) bool {
	select {
	case <-activity.GetWorkerStopChannel(ctx):
		return true
	default:
		return false
	}
}
