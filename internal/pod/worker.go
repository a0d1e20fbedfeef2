package pod

import (
	"log/slog"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"ordersync/activities"
	"ordersync/internal/config"
	"ordersync/workflows"
)

const (
	// workflowTaskPollers poll the normal queue, and as many the sticky one. They are fixed by an
	// autoscaling behaviour without room to scale, which alone keeps the two apart: the pollers of
	// the SDK's simple behaviour choose their queue anew for each poll, and after a burst all of
	// them can sit on the empty sticky queue until their poll ends, a minute in which no new order
	// begins. Throughput is the same.
	workflowTaskPollers = 8
	// workflowTasks are the workflow tasks under way at the same time. A poller holds a place for
	// what it may get; eager starts use the rest. With 128 a third of the starts of a backlog found
	// no place free and took the long way through the server, which cost a tenth of the throughput.
	// More than 256 gain nothing, and the steps of all tasks share MySQL's connections: with many
	// more, a slow target would use up the steps' time-outs in the queue.
	workflowTasks = 256
	// activityTaskPollers fetch what did not work at once, and dead letters: the rare case.
	activityTaskPollers = 4
)

// newWorker registers the workflows, and the activities of OrderSync. fatal is called when the worker cannot go on.
func newWorker(c client.Client, cfg config.Config, target activities.Target, letters activities.DeadLetters, notices activities.Notices, log *slog.Logger, fatal func(error)) worker.Worker {
	w := worker.New(c, cfg.Temporal.TaskQueue, worker.Options{
		WorkflowTaskPollerBehavior: worker.NewPollerBehaviorAutoscaling(worker.PollerBehaviorAutoscalingOptions{
			InitialNumberOfPollers: workflowTaskPollers, MinimumNumberOfPollers: workflowTaskPollers, MaximumNumberOfPollers: workflowTaskPollers,
		}),
		MaxConcurrentWorkflowTaskExecutionSize: workflowTasks,
		MaxConcurrentActivityTaskPollers:       activityTaskPollers,
		// A step holds a connection to the target from beginning to end. Steps that wait for one
		// would use up their time-out while doing nothing.
		MaxConcurrentLocalActivityExecutionSize: cfg.MySQL.MaxConns,
		MaxConcurrentActivityExecutionSize:      cfg.MySQL.MaxConns,
		// Without it, the orders that a stopping worker is in wait for time-outs.
		WorkerStopTimeout: cfg.WorkerStopTimeout,
		OnFatalError:      fatal,
	})
	w.RegisterWorkflowWithOptions(workflows.OrderSync, workflow.RegisterOptions{Name: workflows.OrderSyncName})
	w.RegisterWorkflowWithOptions(workflows.PollERP, workflow.RegisterOptions{Name: workflows.PollERPName})
	w.RegisterWorkflowWithOptions(workflows.Backfill, workflow.RegisterOptions{Name: workflows.BackfillName})
	w.RegisterWorkflowWithOptions(workflows.Reconcile, workflow.RegisterOptions{Name: workflows.ReconcileName})
	w.RegisterActivity(activities.New(target, letters, notices, log))
	return w
}
