package main

import (
	"context"
	"fmt"
	"sync/atomic"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
	"golang.org/x/sync/errgroup"
)

// floor is what a workflow per order costs at the least: a start, which brings the first task with
// it, and a completion. What ordersync needs beyond it is Kafka, the events in the input, a marker
// for each step, and MySQL.
type floor struct {
	*bench
	trial
	client  client.Client
	started atomic.Int64
}

func newFloor(b *bench, t trial) system { return &floor{bench: b, trial: t} }

const (
	// floorStarts is how many goroutines start workflows; 16 were as fast.
	floorStarts = 64
	// floorTasks leaves room for the eager tasks of all of them.
	floorTasks = 256
)

func noop(workflow.Context) error { return nil }

func (f *floor) prepare(ctx context.Context) (err error) {
	f.client, err = f.dial(ctx)
	return err
}

func (f *floor) run(ctx context.Context) error {
	w := worker.New(f.client, f.name, worker.Options{MaxConcurrentWorkflowTaskExecutionSize: floorTasks})
	w.RegisterWorkflow(noop)
	if err := w.Start(); err != nil {
		return err
	}
	defer w.Stop()
	var starts errgroup.Group
	starts.SetLimit(floorStarts)
	for i := range f.orders {
		starts.Go(func() error {
			_, err := f.client.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
				ID: fmt.Sprintf("%s-%d", f.name, i), TaskQueue: f.name, EnableEagerStart: true,
			}, noop)
			if err == nil {
				f.started.Add(1)
			}
			return err
		})
	}
	if err := starts.Wait(); err != nil {
		return err
	}
	<-ctx.Done()
	return nil
}

func (f *floor) finished(context.Context) (bool, error) {
	return f.started.Load() == int64(f.orders), nil
}

func (f *floor) check(context.Context) error { return nil }

func (f *floor) close() error {
	if f.client != nil {
		f.client.Close()
	}
	return nil
}
