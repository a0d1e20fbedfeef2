package intake

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"go.temporal.io/api/workflowservice/v1"

	"ordersync/workflows"
)

const (
	// countInterval is the time between two counts of the orders that are retrying.
	countInterval = 5 * time.Second
	// countTimeout bounds one count.
	countTimeout = 5 * time.Second
	// countQuery finds the orders whose step fails in a way that passes: the target is away. Closed
	// runs keep their search attributes.
	countQuery = `SyncStatus="` + workflows.StatusRetrying + `" AND ExecutionStatus="Running"`
)

// brake stops the fetching, and calls that have not begun, while more orders are retrying than
// allowed. A target that is away for an hour then stays in Kafka as lag, where it costs nothing,
// instead of filling Temporal with orders that all retry. Of backfills it does so at half as many: one
// that brings orders that the target does not take must not stop the new ones.
//
// While the count fails the last answer holds: a brake that lets go would fill Temporal while the
// target is away, and one that closes would turn every hiccup of the visibility store into an
// outage. Before the first answer nothing is fetched, for at most one count, since a starter that
// begins during an outage must not add to it each time it is restarted.
type brake struct {
	count       func(context.Context) (int64, error)
	maxRetrying int64
	changed     func()
	log         *slog.Logger
	metrics     *metrics
	troubles    *troubles

	closed, backfillClosed atomic.Bool
}

// on tells whether nothing may be fetched, or nothing of a backfill.
func (b *brake) on(backfill bool) bool {
	return b.closed.Load() || backfill && b.backfillClosed.Load()
}

// watch counts until ctx ends. The first count has been made when it calls first.
func (b *brake) watch(ctx context.Context, first func()) {
	ticker := time.NewTicker(countInterval)
	defer ticker.Stop()
	for {
		b.look(ctx)
		if first != nil {
			first()
			first = nil
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (b *brake) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, countTimeout)
	defer cancel()
	const what = "count of retrying orders"
	n, err := b.count(ctx)
	if err != nil {
		if b.troubles.begin(what, what, err) {
			b.log.Error("the orders that are retrying could not be counted; the last answer holds", "braked", b.on(false), "error", err)
		}
		return
	}
	b.troubles.over(what)
	b.metrics.retrying.Set(float64(n))
	half, above := n > b.maxRetrying/2, n > b.maxRetrying
	if b.backfillClosed.Swap(half) != half {
		b.metrics.backfillBraked.Set(number(half))
		if half {
			b.log.Warn("many orders are retrying: nothing of a backfill is fetched until they are fewer", "retrying", n, "limit", b.maxRetrying/2)
		} else {
			b.log.Info("fetching of backfills goes on", "retrying", n, "limit", b.maxRetrying/2)
		}
		defer b.changed()
	}
	if b.closed.Swap(above) != above {
		b.metrics.braked.Set(number(above))
		if above {
			b.log.Warn("too many orders are retrying: nothing is fetched until they are fewer; is the target database well?",
				"retrying", n, "limit", b.maxRetrying)
		} else {
			b.log.Info("fetching goes on", "retrying", n, "limit", b.maxRetrying)
		}
		defer b.changed()
	}
}

func number(on bool) float64 {
	if on {
		return 1
	}
	return 0
}

// countRetrying asks Temporal's visibility store, which knows of a change within about 25 ms.
func (i *Intake) countRetrying(ctx context.Context) (int64, error) {
	response, err := i.options.Temporal.CountWorkflow(ctx, &workflowservice.CountWorkflowExecutionsRequest{Query: countQuery})
	if err != nil {
		return 0, err
	}
	return response.GetCount(), nil
}
