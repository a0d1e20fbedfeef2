package workflows

import (
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"ordersync/activities"
	"ordersync/internal/order"
)

const (
	// ReconcileName is the type of the workflow that compares both ends.
	ReconcileName = "Reconcile"
	// ReconcileID is its id, of a run started by hand; those of its schedule, which is called the same,
	// begin with it.
	ReconcileID = "ordersync-reconcile"
)

// ReconcileInput is what a comparison is asked to do.
type ReconcileInput struct {
	// Repair publishes the orders anew that are missing, stale or different.
	Repair bool `json:"repair"`
	// PageSize is how many orders are compared at a time; 0 leaves it to the worker.
	PageSize int `json:"page_size,omitempty"`
	// By is who asks for it; the schedule where it is empty.
	By string `json:"by,omitempty"`
}

// ReconcileReport is a run's result.
type ReconcileReport = order.Reconciliation

// The walk is one activity, and has no end but its own: an ERP that is down is a run that waits, to be
// seen in the Web UI. Each attempt begins where the one before it got to. What ends it is a request to
// cancel.
var walkOptions = workflow.ActivityOptions{
	StartToCloseTimeout: 24 * time.Hour,
	HeartbeatTimeout:    30 * time.Second,
	WaitForCancellation: true,
	RetryPolicy: &temporal.RetryPolicy{
		InitialInterval: time.Second, BackoffCoefficient: 2, MaximumInterval: time.Minute,
	},
	Summary: "compare both ends",
}

// Reconcile compares the ERP with the target, and repairs what it is asked to.
func Reconcile(ctx workflow.Context, in ReconcileInput) (ReconcileReport, error) {
	if in.By == "" {
		in.By = "schedule " + ReconcileID
	}
	describeReconcile(ctx, in)
	walk := order.Walk{PageSize: in.PageSize, Found: ReconcileReport{
		RunID: workflow.GetInfo(ctx).WorkflowExecution.RunID, By: in.By, Repair: in.Repair, StartedAt: workflow.Now(ctx).UTC(),
	}}
	options := walkOptions
	options.TaskQueue = ERPTaskQueue(workflow.GetInfo(ctx).TaskQueueName)
	var a *activities.Reconciliation
	var report ReconcileReport
	// A report names its run. One that does not was given by hand (`temporal activity complete --result null`):
	// nothing was compared, so the walk is done again. That needs no number of rules: such a report used to
	// end the run within the same workflow task.
	for report.RunID != walk.Found.RunID {
		report = ReconcileReport{}
		if err := workflow.ExecuteActivity(workflow.WithActivityOptions(ctx, options), a.CompareOrders, walk).Get(ctx, &report); err != nil {
			return ReconcileReport{}, err
		}
	}
	describeReport(ctx, report)
	return report, nil
}

// describeReconcile shows in the Web UI what the run is about.
func describeReconcile(ctx workflow.Context, in ReconcileInput) {
	text := "compares every order of the ERP with the shop's database, and the other way round"
	if in.Repair {
		text += ", and **repairs** what is missing, stale or different"
	}
	workflow.SetCurrentDetails(ctx, fmt.Sprintf("%s; asked for by %s. If its activity is\n\n"+
		"- *retrying*: its last failure says what does not answer, and it goes on by itself;\n"+
		"- *not taken at all*: no worker has `ERP_SOURCE` set.\n\nHow far it is: %s\n\n\u00a0",
		text, escape(in.By), code("ordersync reconcile")))
}

// describeReport shows what came of it.
func describeReport(ctx workflow.Context, r ReconcileReport) {
	var text strings.Builder
	fmt.Fprintf(&text, "**%d** orders differ, %d of them are repaired; %d agree\n\n", r.Drifted(), r.Repaired, r.Agreeing)
	for _, class := range order.Drifts {
		if n := r.Counts[class]; n > 0 {
			fmt.Fprintf(&text, "- %s: %d\n", escape(string(class)), n)
		}
	}
	if r.Rejected > 0 {
		fmt.Fprintf(&text, "- not compared, as the ERP's row is no order: %d\n", r.Rejected)
	}
	fmt.Fprintf(&text, "\nwhich ones: %s\n\n\u00a0", code("ordersync reconcile --last"))
	workflow.SetCurrentDetails(ctx, text.String())
}
