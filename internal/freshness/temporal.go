package freshness

import (
	"context"
	"fmt"
	"sync"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	taskqueuepb "go.temporal.io/api/taskqueue/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"ordersync/internal/operator"
	"ordersync/internal/order"
)

// taskQueue asks for what waits for workers. Tasks of workflows that a worker has in its cache wait in
// a queue of its own, for five seconds at most, and are not in the figures.
func (p *Probe) taskQueue(ctx context.Context) (*TaskQueue, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	q := &TaskQueue{Name: p.TaskQueue}
	workers := map[string]bool{}
	for _, kind := range []enumspb.TaskQueueType{enumspb.TASK_QUEUE_TYPE_WORKFLOW, enumspb.TASK_QUEUE_TYPE_ACTIVITY} {
		d, err := p.Temporal.WorkflowService().DescribeTaskQueue(ctx, &workflowservice.DescribeTaskQueueRequest{
			Namespace: p.Namespace, TaskQueue: &taskqueuepb.TaskQueue{Name: p.TaskQueue}, TaskQueueType: kind, ReportStats: true,
		})
		if err != nil {
			return nil, fmt.Errorf("ask Temporal for task queue %s: %w", p.TaskQueue, err)
		}
		for _, poller := range d.GetPollers() {
			workers[poller.GetIdentity()] = true
		}
		q.Tasks += d.GetStats().GetApproximateBacklogCount()
		q.OldestSeconds = max(q.OldestSeconds, d.GetStats().GetApproximateBacklogAge().AsDuration().Seconds())
	}
	q.Pollers = len(workers)
	return q, nil
}

// stuckOrders takes a glance at the stuck orders.
func (p *Probe) stuckOrders(ctx context.Context, now time.Time) (operator.Glance, error) {
	var channels []string
	for _, c := range order.Channels {
		channels = append(channels, string(c))
	}
	return operator.TakeGlance(ctx, p.Temporal, p.TaskQueue, channels, now)
}

// steps are the times at which the events occurred that orders are stuck on. A query costs an action,
// so an order is asked once for each event: until the time changes since when it is stuck.
type steps struct {
	mu    sync.Mutex
	known map[stuckOn]time.Time
}

type stuckOn struct {
	syncID string
	since  time.Time
}

// waiting are the events that the longest stuck orders are stuck on: from when they occurred, or where
// no worker tells that, from when the orders got stuck.
func (p *Probe) waiting(ctx context.Context, g operator.Glance, workers bool) map[order.Channel][]Oldest {
	var orders []operator.StuckOrder
	for _, of := range g.Oldest {
		orders = append(orders, of...)
	}
	_ = operator.Conditions(ctx, p.Temporal, orders) // what is not known is shown as it is without
	times := p.steps.occurred(ctx, p.Temporal, orders, workers)
	waiting := map[order.Channel][]Oldest{}
	for i, o := range orders {
		channel := order.Channel(o.Channel)
		if o.Since != nil {
			waiting[channel] = append(waiting[channel], Oldest{At: times[i], Where: InOrder, Since: o.Since.UTC(), SyncID: o.SyncID, Stuck: o.Status, Paused: o.Paused != nil})
		}
	}
	return waiting
}

func (s *steps) occurred(ctx context.Context, c client.Client, orders []operator.StuckOrder, workers bool) []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := map[stuckOn]time.Time{}
	times := make([]time.Time, len(orders))
	var unknown []int
	for i, o := range orders {
		if o.Since != nil {
			times[i] = o.Since.UTC()
		}
		key := stuckOn{o.SyncID, times[i]}
		if at, ok := s.known[key]; ok {
			known[key], times[i] = at, at
		} else if workers {
			unknown = append(unknown, i)
		}
	}
	details := make([]operator.StuckOrder, len(unknown))
	for i, of := range unknown {
		details[i] = orders[of]
	}
	_ = operator.Detail(ctx, c, details) // those that no worker answers for are asked again the next time
	for i, of := range unknown {
		step := details[i].Step
		if step == nil {
			continue
		}
		key := stuckOn{orders[of].SyncID, times[of]}
		if order.Plausible(step.OccurredAt, time.Now()) { // else it is the timestamp of a record that has none
			times[of] = earlier(times[of], step.OccurredAt.UTC())
		}
		known[key] = times[of]
	}
	s.known = known
	return times
}
