package activities

import (
	"context"
	"errors"
	"maps"
	"slices"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"

	"ordersync/internal/order"
)

// Reconciler compares the ERP with the target.
type Reconciler interface {
	// Reconcile goes on with a walk and calls progress after each page: there it can be taken up after
	// an error. An error with a RetryAfter() time.Duration says when to go on.
	Reconcile(ctx context.Context, at order.Walk, progress func(order.Walk)) (order.Reconciliation, error)
}

// Reconciliation is the step of the Reconcile workflow.
type Reconciliation struct{ reconciler Reconciler }

// NewReconciliation makes the activity that a worker registers which knows the ERP.
func NewReconciliation(r Reconciler) *Reconciliation { return &Reconciliation{r} }

// ReconcileFailed is the type of the error of a comparison that is to go on.
const ReconcileFailed = "ReconcileFailed"

// CompareOrders walks both ends. It goes on where the attempt before it got to: its heartbeats tell.
func (a *Reconciliation) CompareOrders(ctx context.Context, walk order.Walk) (order.Reconciliation, error) {
	reached, err := reachedBefore[order.Walk](ctx)
	switch {
	case err != nil:
		activity.GetLogger(ctx).Warn("the comparison begins anew, as where it was cannot be read", "error", err)
	case reached != nil:
		walk = *reached
	}
	at := detached(walk)
	beats := startHeartbeats(ctx, walkBeatEvery, &at)
	walking, cancel := untilWorkerStops(ctx)
	defer cancel()
	found, err := a.reconciler.Reconcile(walking, walk, func(at order.Walk) { beats.note(detached(at)) })
	beats.stop()
	beats.beat() // it is where the next attempt begins
	switch {
	case err == nil:
		return found, nil
	case ctx.Err() != nil:
		return found, ctx.Err()
	case walking.Err() != nil:
		err = context.Cause(walking)
	}
	return found, temporal.NewApplicationErrorWithOptions(order.Clip(err.Error(), maxMessage), ReconcileFailed, retryWhen(err))
}

// errStopping ends an attempt early, so that another worker goes on at once.
var errStopping = errors.New("the worker stops")

// untilWorkerStops is a context that ends when the worker is about to. That of the activity does so only
// when the worker has waited for it in vain.
func untilWorkerStops(ctx context.Context) (context.Context, context.CancelFunc) {
	stopping := activity.GetWorkerStopChannel(ctx)
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-stopping:
			cancel(errStopping)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// walkBeatEvery is the time between two heartbeats. A walk of a thousand findings has some 200 KiB.
const walkBeatEvery = 2 * time.Second

// detached is a walk that shares nothing with the one that goes on.
func detached(at order.Walk) order.Walk {
	at.Found.Counts, at.Found.Findings = maps.Clone(at.Found.Counts), slices.Clone(at.Found.Findings)
	return at
}
