package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"go.temporal.io/sdk/client"

	"ordersync/internal/operator"
	"ordersync/internal/order"
	"ordersync/internal/target"
	"ordersync/workflows"
)

func (a *app) orderCommand() *cobra.Command {
	return a.withOutput(&cobra.Command{
		Use:     "order ID",
		GroupID: "operate",
		Short:   "Show what became of an order, what it waits for and what to do",
		Long: `Shows an order as it stands in the shop's database and the timeline of its events from the ledger:
the ERP's time, where the event stood in Kafka (topic/partition/offset), the outcome, when it was
applied and how long that took from the broker's timestamp on. Then, from the order's workflow, the
events that wait, why the order is stuck and what to type.`,
		Example: `  ordersync order 536365
  ordersync order 536365 -o json`,
		Args: oneArgument("a sync_id"),
		RunE: func(c *cobra.Command, args []string) error {
			id, err := syncID(args[0])
			if err != nil {
				return err
			}
			return a.order(c.Context(), id)
		},
	})
}

// orderView is everything there is to know of an order.
type orderView struct {
	SyncID string `json:"sync_id"`
	// Sync is where the order's sync stands: a status of workflows.State; "running" if no worker
	// tells it; "done" without a running workflow.
	Sync string `json:"sync"`
	// Row is the order in the shop's database, null if that lacks it.
	Row      *target.Row `json:"row"`
	Timeline []entryView `json:"timeline"`

	Pending      []workflows.PendingEvent `json:"pending"`
	PendingCount int                      `json:"pending_count"`
	Step         *workflows.PendingEvent  `json:"step,omitempty"`
	StuckSince   *time.Time               `json:"stuck_since,omitempty"`
	Reason       string                   `json:"reason,omitempty"`
	LastError    string                   `json:"last_error,omitempty"`
	NextStep     string                   `json:"next_step,omitempty"`
	// Operator is what people did to the order, from the audit.
	Operator  []order.Action `json:"operator_actions"`
	Unhandled []string       `json:"unhandled_signals"`

	// Workflow is the order's last run, null if Temporal has none (any more).
	Workflow *operator.Workflow `json:"workflow"`
	// WorkerAnswers is false where what comes from a worker is missing here.
	WorkerAnswers bool `json:"worker_answers"`

	// happens and remedies are NextStep, taken apart.
	happens  string
	remedies []workflows.Remedy
}

type entryView struct {
	target.Entry
	LatencyMS int64 `json:"latency_ms"`
	// Repair tells that a reconcile published it.
	Repair bool `json:"repair,omitempty"`
}

// The values of orderView.Sync beside those of workflows.State.
const (
	syncDone    = "done"
	syncRunning = "running"
)

func (a *app) order(ctx context.Context, id string) error {
	cfg, temporal, err := a.dial(ctx, mysqlDSN)
	if err != nil {
		return err
	}
	defer temporal.Close()
	shop, err := a.openShop(ctx, cfg)
	if err != nil {
		return err
	}
	defer shop.Close() //nolint:errcheck // it was read only

	view, err := lookUp(ctx, shop, temporal, id)
	if err != nil {
		return err
	}
	if view.Row == nil && len(view.Timeline) == 0 && view.Workflow == nil {
		return fmt.Errorf("order %s is unknown: neither the shop's database nor Temporal has it\n"+
			"was it published, with this sync_id? what is published and not applied yet: %s", id, a.hint("wait"))
	}
	return a.print(view, func(out io.Writer) error { return a.printOrder(out, view) })
}

// lookUp asks the workflow before the database: an event that leaves the one stands in the other.
func lookUp(ctx context.Context, shop *target.Target, temporal client.Client, id string) (orderView, error) {
	v := orderView{
		SyncID: id, Sync: syncDone, Timeline: []entryView{}, Pending: []workflows.PendingEvent{},
		Operator: []order.Action{}, Unhandled: []string{},
	}
	w, err := operator.Describe(ctx, temporal, id)
	if err != nil && !errors.Is(err, operator.ErrNoWorkflow) {
		return v, err
	}
	if err == nil {
		v.Workflow = &w
	}
	if w.Running() {
		v.Sync = syncRunning
		state, err := operator.State(ctx, temporal, id)
		switch {
		case err == nil:
			v.take(state)
		case errors.Is(err, operator.ErrNoWorker):
			v.Reason = w.SyncError
			if w.SyncStatus != "" {
				v.Sync = w.SyncStatus
			}
		case errors.Is(err, operator.ErrNoWorkflow): // it has just ended
		default:
			return v, err
		}
	}
	row, found, err := shop.Order(ctx, id)
	if err != nil {
		return v, err
	}
	if found {
		v.Row = &row
	}
	entries, err := shop.Timeline(ctx, id)
	if err != nil {
		return v, err
	}
	if v.Operator, err = shop.Actions(ctx, id); err != nil {
		return v, err
	}
	for _, e := range entries {
		repair := slices.ContainsFunc(v.Operator, func(a order.Action) bool {
			return a.Name == order.RepairAction && a.EventID != nil && *a.EventID == e.EventID
		})
		v.Timeline = append(v.Timeline, entryView{e, e.Latency().Milliseconds(), repair})
	}
	return v, nil
}

func (v *orderView) take(s workflows.State) {
	v.WorkerAnswers = true
	v.Sync, v.Step, v.StuckSince = s.Status, s.Step, s.StuckSince
	v.Reason, v.LastError, v.NextStep = s.Reason, s.LastError, s.NextStep
	v.happens, v.remedies = s.Happens, s.Remedies
	v.Pending, v.PendingCount = append(v.Pending, s.Pending...), s.PendingCount
	v.Unhandled = append(v.Unhandled, s.UnhandledSignals...)
}

func (a *app) printOrder(out io.Writer, v orderView) error {
	switch {
	case v.Row == nil:
		fmt.Fprintf(out, "order %s: not in the shop's database\n", v.SyncID)
	case v.Row.Version > 0:
		fmt.Fprintf(out, "order %s: %s, %s, version %d, last written %s\n", v.SyncID, v.Row.Status, v.Row.Channel, v.Row.Version, stamp(v.Row.UpdatedAt))
	default:
		fmt.Fprintf(out, "order %s: %s, %s, no version, last written %s\n", v.SyncID, v.Row.Status, v.Row.Channel, stamp(v.Row.UpdatedAt))
	}
	fmt.Fprintf(out, "sync: %s\n\n", v.syncLine())

	if err := printTimeline(out, v.Timeline); err != nil {
		return err
	}
	if err := printPending(out, v); err != nil {
		return err
	}
	if w := v.Workflow; w != nil && w.Running() && !v.WorkerAnswers {
		fmt.Fprintf(out, "\nwhat waits is not known: %v\n", operator.ErrNoWorker)
	}
	if v.Reason != "" {
		fmt.Fprintf(out, "\nstuck: %s\n", v.Reason)
		if v.LastError != "" {
			fmt.Fprintf(out, "  %s\n", shortened(v.LastError, 500))
		}
	}
	if v.Workflow != nil {
		for _, t := range v.Workflow.Attempts {
			fmt.Fprintf(out, "\n%s is at attempt %d%s\n", t.Activity, t.Attempt, nextAttempt(t))
			if t.LastFailure != "" && t.LastFailure != v.LastError {
				fmt.Fprintf(out, "  last failure: %s\n", shortened(t.LastFailure, 500))
			}
		}
	}
	a.printRemedies(out, v)
	for _, name := range v.Unhandled {
		fmt.Fprintf(out, "\na signal %q is not known here: the operator signals are retry, skip, amend\n", name)
	}
	return printOperator(out, v.Operator)
}

// printRemedies says what will happen, and what to type.
func (a *app) printRemedies(out io.Writer, v orderView) {
	if len(v.remedies) == 0 && v.NextStep != "" {
		fmt.Fprintf(out, "\nnext: %s\n", v.NextStep)
		return
	}
	if v.happens != "" {
		fmt.Fprintf(out, "\nnext: %s\n", v.happens)
	}
	for _, r := range v.remedies {
		fmt.Fprintf(out, "  to %s: %s\n", r.To, a.propose(r.Command))
	}
}

func (v *orderView) syncLine() string {
	line := v.Sync
	switch {
	case v.Step != nil && v.StuckSince != nil:
		line = fmt.Sprintf("%s on %s since %s", v.Sync, eventName(v.Step.Kind, v.Step.Version), stamp(*v.StuckSince))
	case v.Workflow == nil:
		line += ", Temporal has no workflow of it (any more)"
	case v.Workflow.ClosedAt != nil:
		line += fmt.Sprintf(", workflow %s at %s", v.Workflow.Status, stamp(*v.Workflow.ClosedAt))
	}
	return line
}

func nextAttempt(t operator.Attempt) string {
	if t.NextAttempt == nil {
		return ", under way"
	}
	return ", the next at " + stamp(*t.NextAttempt)
}

func eventName(kind order.Kind, version int64) string {
	return order.Event{Kind: kind, Version: version}.Name()
}

func printTimeline(out io.Writer, entries []entryView) error {
	if len(entries) == 0 {
		_, err := fmt.Fprintln(out, "the ledger has no event of it")
		return err
	}
	t := newTable(out)
	t.row("ERP TIME", "EVENT", "KAFKA", "OUTCOME", "APPLIED AT", "LATENCY")
	for _, e := range entries {
		name := eventName(e.Kind, e.Version)
		if e.Repair {
			name += " (repair)"
		}
		took := "-" // the record's timestamp is none
		if order.Plausible(e.ReceivedAt, e.AppliedAt) {
			took = latency(e.Latency())
		}
		t.row(stamp(e.OccurredAt), name,
			fmt.Sprintf("%s/%d/%d", e.SourceTopic, e.SourcePartition, e.SourceOffset),
			e.Outcome, exact(e.AppliedAt), took)
	}
	return t.flush()
}

func printPending(out io.Writer, v orderView) error {
	if v.PendingCount == 0 {
		return nil
	}
	fmt.Fprintf(out, "\npending, in the order in which they will be applied:\n")
	t := newTable(out)
	t.row("ERP TIME", "EVENT", "EVENT ID")
	for _, e := range v.Pending {
		t.row(stamp(e.OccurredAt), eventName(e.Kind, e.Version), e.EventID)
	}
	if err := t.flush(); err != nil {
		return err
	}
	if more := v.PendingCount - len(v.Pending); more > 0 {
		fmt.Fprintf(out, "… and %d more\n", more)
	}
	return nil
}

// maxActions is how many lines of the audit are printed, the last ones.
const maxActions = 50

func printOperator(out io.Writer, actions []order.Action) error {
	if len(actions) == 0 {
		return nil
	}
	fmt.Fprintf(out, "\nwhat people did:\n")
	// A replay of what overflowed has a line for each letter.
	if earlier := len(actions) - maxActions; earlier > 0 {
		fmt.Fprintf(out, "%d earlier actions, which -o json has, and then\n", earlier)
		actions = actions[earlier:]
	}
	t := newTable(out)
	t.row("AT", "ACTION", "BY", "BEFORE", "EFFECT", "WHY")
	for _, a := range actions {
		t.row(stamp(a.At), a.Name, shortened(a.By, 24), shortened(a.Before, 30), shortened(a.Effect, 60), shortened(a.Reason, 40))
	}
	return t.flush()
}
