package activities

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
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
	if activity.HasHeartbeatDetails(ctx) {
		var reached order.Walk
		if err := activity.GetHeartbeatDetails(ctx, &reached); err != nil {
			activity.GetLogger(ctx).Warn("the comparison begins anew, as where it was cannot be read", "error", err)
		} else {
			walk = reached
		}
	}
	beats := startPulse(ctx, walk)
	walking, cancel := untilWorkerStops(ctx)
	defer cancel()
	found, err := a.reconciler.Reconcile(walking, walk, beats.note)
	beats.stop()
	switch {
	case err == nil:
		return found, nil
	case ctx.Err() != nil:
		return found, ctx.Err()
	case walking.Err() != nil:
		err = context.Cause(walking)
	}
	var wait interface{ RetryAfter() time.Duration }
	options := temporal.ApplicationErrorOptions{}
	if errors.As(err, &wait) {
		options.NextRetryDelay = wait.RetryAfter()
	}
	return found, temporal.NewApplicationErrorWithOptions(clip(err.Error()), ReconcileFailed, options)
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

// pulse sends a heartbeat now and again, with where the walk has got to: also while a page takes
// long, as that of an ERP that does not answer does.
type pulse struct {
	ctx  context.Context
	done chan struct{}
	wait sync.WaitGroup

	mu   sync.Mutex
	last order.Walk
}

// pulseEvery is the time between two heartbeats. A walk of a thousand findings has some 200 KiB.
const pulseEvery = 2 * time.Second

func startPulse(ctx context.Context, at order.Walk) *pulse {
	p := &pulse{ctx: ctx, done: make(chan struct{})}
	p.note(at)
	p.wait.Go(func() {
		tick := time.NewTicker(pulseEvery)
		defer tick.Stop()
		for {
			select {
			case <-p.done:
				return
			case <-tick.C:
				p.beat()
			}
		}
	})
	return p
}

// note takes in where the walk is.
func (p *pulse) note(at order.Walk) {
	p.mu.Lock()
	defer p.mu.Unlock()
	// The walk goes on with its own.
	at.Found.Counts, at.Found.Findings = maps.Clone(at.Found.Counts), slices.Clone(at.Found.Findings)
	p.last = at
}

func (p *pulse) beat() {
	p.mu.Lock()
	defer p.mu.Unlock()
	activity.RecordHeartbeat(p.ctx, p.last)
}

// stop sends the last one: it is where the next attempt begins.
func (p *pulse) stop() {
	close(p.done)
	p.wait.Wait()
	p.beat()
}
