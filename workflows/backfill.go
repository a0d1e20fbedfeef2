package workflows

import (
	"time"

	"go.temporal.io/sdk/workflow"

	"ordersync/internal/order"
)

// BackfillName is the type of the workflow that publishes an ERP's past.
const BackfillName = "Backfill"

// BackfillID is the id of the backfill of a period. A repeat of it has the same, so that the period is
// not published twice at once. A zero to is the time at which it starts.
func BackfillID(from, to time.Time) string {
	const form = "20060102T150405.999999999Z"
	end := "now"
	if !to.IsZero() {
		end = to.UTC().Format(form)
	}
	return "ordersync-backfill-" + from.UTC().Format(form) + "-" + end
}

// BackfillInput is what a backfill goes by.
type BackfillInput struct {
	From time.Time `json:"from"`
	// To is excluded; zero is the time at which the backfill starts.
	To       time.Time `json:"to,omitzero"`
	PageSize int       `json:"page_size"`
	// By is who asked for it.
	By string `json:"by,omitempty"`
	// Carried is what a run before hands on by continue-as-new.
	Carried *PollState `json:"carried,omitempty"`
}

// Backfill publishes what changed in the ERP in a period to the topics of backfills, as far as it has
// versions, or times that stand for them, and the ledger lacks it. Events with a version never overwrite what a later version has written,
// whenever they come; of others nobody could tell, so they are left out and counted. But over a live event
// without a version they do write, as nothing tells that it is newer. It can be cancelled at any time, and
// done again.
func Backfill(ctx workflow.Context, in BackfillInput) (PollState, error) {
	if in.To.IsZero() {
		in.To = workflow.Now(ctx).UTC()
	}
	task := order.PollTask{PageSize: in.PageSize, Until: in.To, Backfill: true}
	if in.Carried != nil {
		task.State = *in.Carried
	} else {
		task.State, task.Begin = PollState{From: in.From}, true
	}
	if err := pollPages(ctx, &task, "backfill"); err != nil || !task.State.More {
		return task.State, err
	}
	in.Carried = &task.State
	return task.State, workflow.NewContinueAsNewError(ctx, BackfillName, in)
}
