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

	"ordersync/internal/deadletter"
	"ordersync/internal/freshness"
	"ordersync/internal/operator"
	"ordersync/internal/order"
	"ordersync/internal/pod"
	"ordersync/internal/target"
	"ordersync/internal/topics"
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
events that wait, why the order is stuck and what to type; runs of it that failed, were ended or cannot go on,
with what they held; its records that wait in Kafka, and its open dead letters. What cannot be read is named,
the rest is shown, and the command fails.`,
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
	// tells it; "done" without a running workflow; a trouble of the last run if that ended without completing and
	// events of it are missing, or may be, or if its workflow tasks fail; "unknown" if Temporal does not answer.
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

	// Unwell are the order's runs that hold events which do not get on by themselves.
	Unwell []order.UnwellRun `json:"unwell"`
	// InKafka are the order's records that no starter has finished; null for none.
	InKafka *freshness.Waiting `json:"in_kafka"`
	// DeadLetters are the open ones.
	DeadLetters []openLetter `json:"dead_letters"`
	// Problems say what could not be read.
	Problems []string `json:"problems"`

	story                 *operator.Story // of the last run, where that is not well
	rowKnown, ledgerKnown bool

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

// openLetter is a dead letter that nothing was done with.
type openLetter struct {
	Place     string    `json:"place"`
	Reason    string    `json:"reason"`
	WrittenAt time.Time `json:"written_at"`
}

// The values of orderView.Sync beside those of workflows.State and the troubles of a run.
const (
	syncDone    = "done"
	syncRunning = "running"
	syncUnknown = "unknown"
)

func (a *app) order(ctx context.Context, id string) error {
	l, err := a.look(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	view := a.lookUp(ctx, l, id)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if len(view.Problems) == 0 && view.empty() {
		return fmt.Errorf("order %s is unknown: neither the shop's database nor Temporal has it\n"+
			"was it published, with this sync_id? what is published and not applied yet: %s", id, a.hint("wait"))
	}
	err = a.print(view, func(out io.Writer) error { return a.printOrder(out, view) })
	if len(view.Problems) > 0 {
		err = errors.Join(err, errIncomplete)
	}
	return err
}

func (v *orderView) empty() bool {
	return v.Row == nil && len(v.Timeline) == 0 && v.Workflow == nil && len(v.DeadLetters) == 0 && v.InKafka == nil && len(v.Unwell) == 0
}

// lookUp asks Kafka before the workflow and that before the database: an event that leaves the one stands in the
// other. What cannot be read is a problem, and the rest is shown.
func (a *app) lookUp(ctx context.Context, l *looking, id string) orderView {
	v := orderView{
		SyncID: id, Sync: syncUnknown, Timeline: []entryView{}, Pending: []workflows.PendingEvent{},
		Operator: []order.Action{}, Unhandled: []string{}, DeadLetters: []openLetter{}, Unwell: []order.UnwellRun{},
	}
	transport := pod.KafkaTransport(l.cfg)
	defer transport.CloseIdleConnections()
	reading, cancel := context.WithTimeout(ctx, kafkaTime)
	probe := pod.NewProbe(l.cfg, transport, l.temporal, l.shop)
	inKafka, err := probe.Waiting(reading, id)
	l.missing("Kafka, in which events of the order may wait", err)
	v.InKafka = inKafka
	letters, err := deadletter.Topic{
		Name: l.cfg.Kafka.DeadLetterTopic, Reader: topics.Reader{Brokers: l.cfg.Kafka.Brokers, Transport: transport}, Target: l.shop,
	}.List(reading, deadletter.Filter{Orders: []string{id}}, nil)
	cancel()
	l.missing("Kafka, which has the dead letters", err)
	for _, letter := range letters {
		if letter.State == deadletter.Open {
			v.DeadLetters = append(v.DeadLetters, openLetter{Place: letter.Place.String(), Reason: string(letter.Reason), WrittenAt: letter.WrittenAt.UTC()})
		}
	}
	if l.temporal != nil {
		l.missing("Temporal", v.askTemporal(ctx, l.temporal))
	}
	v.askShop(ctx, l)
	v.Problems = append([]string{}, l.problems...)
	return v
}

// kafkaTime bounds the reading of Kafka. A dead-letter topic may be long.
const kafkaTime = 20 * time.Second

// askTemporal asks for the order's last run, and a worker for what it waits for.
func (v *orderView) askTemporal(ctx context.Context, temporal client.Client) error {
	w, err := operator.Describe(ctx, temporal, v.SyncID)
	if errors.Is(err, operator.ErrNoWorkflow) {
		v.Sync = syncDone
		return nil
	}
	if err != nil {
		return err
	}
	v.Workflow = &w
	if !w.Running() {
		v.Sync = syncDone
		if trouble := w.Ended(); trouble != "" {
			v.Sync = string(trouble)
		}
		story, err := operator.ReadStory(ctx, temporal, v.SyncID, w.RunID)
		v.story = &story
		if err != nil {
			v.story = nil
		}
		return err
	}
	v.Sync = syncRunning
	if w.SyncStatus != "" {
		v.Sync = w.SyncStatus
	}
	v.Reason = w.SyncError
	state, err := operator.State(ctx, temporal, v.SyncID)
	switch {
	case err == nil:
		v.take(state)
		if p := w.Paused(); p != nil { // which the workflow cannot see
			v.happens = "nothing, until somebody lets its paused step go on"
			v.NextStep = v.happens + ": " + p.UnpauseCommand(v.SyncID)
		}
		return nil
	case errors.Is(err, operator.ErrTasksFail):
		v.Sync = string(order.TasksFail)
		story, err := operator.ReadStory(ctx, temporal, v.SyncID, w.RunID)
		if err == nil {
			v.story = &story
		}
		return err
	case errors.Is(err, operator.ErrNoWorker), errors.Is(err, operator.ErrNoWorkflow): // it has just ended
		return nil
	default:
		return err
	}
}

// askShop asks the shop's database, table by table: one may be missing, or not be ours to read.
func (v *orderView) askShop(ctx context.Context, l *looking) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	if err := l.shop.CheckSchema(ctx); err != nil {
		l.missing("MySQL", err)
	}
	row, found, err := l.shop.Order(ctx, v.SyncID)
	l.missing("MySQL, table orders", err)
	v.rowKnown = err == nil
	if found {
		v.Row = &row
	}
	entries, err := l.shop.Timeline(ctx, v.SyncID)
	l.missing("MySQL, table order_events", err)
	v.ledgerKnown = err == nil
	actions, err := l.shop.Actions(ctx, v.SyncID)
	l.missing("MySQL, table operator_actions", err)
	v.Operator = append(v.Operator, actions...)
	for _, e := range entries {
		repair := slices.ContainsFunc(v.Operator, func(a order.Action) bool {
			return a.Name == order.RepairAction && a.EventID != nil && *a.EventID == e.EventID
		})
		v.Timeline = append(v.Timeline, entryView{e, e.Latency().Milliseconds(), repair})
	}
	unwell, err := l.shop.UnwellOf(ctx, v.SyncID)
	l.missing("MySQL, table unwell_runs", err)
	v.Unwell = append(v.Unwell, unwell...)
	if v.story == nil || !v.ledgerKnown || v.Workflow == nil {
		return
	}
	// What the last run lacks is known from its history, also where no worker has noted it yet.
	u := order.UnwellRun{SyncID: v.SyncID, RunID: v.Workflow.RunID, Channel: v.Workflow.Channel}
	switch {
	case v.story.Ended != nil:
		u.Trouble, u.Since, u.Reason = v.story.Ended.Trouble, v.story.Ended.At, v.story.Ended.Reason
	case v.story.TaskFailure != nil:
		u.Trouble, u.Since, u.Reason = order.TasksFail, v.story.TaskFailure.At, v.story.TaskFailure.Message
	default:
		return
	}
	u.Lacking, u.LackingCount, err = v.story.Lacking(ctx, l.shop, v.SyncID)
	if err != nil {
		return
	}
	known := slices.IndexFunc(v.Unwell, func(other order.UnwellRun) bool { return other.RunID == u.RunID && other.Trouble == u.Trouble })
	if known >= 0 {
		// A run whose tasks fail takes in events all the same, also after a worker has noted it.
		v.Unwell[known].Lacking, v.Unwell[known].LackingCount = u.Lacking, u.LackingCount
		return
	}
	if u.LackingCount < 0 && v.settled() {
		return
	}
	if u.LackingCount != 0 {
		v.Unwell = append(v.Unwell, u)
		return
	}
	if u.Trouble != order.TasksFail {
		v.Sync = syncDone // nothing that the run held is missing
	}
}

// settled returns whether a worker has noted the end of the order's last run. Where it is not among the unwell ones
// by then, somebody has replayed the order.
func (v *orderView) settled() bool {
	return v.Workflow.ClosedAt != nil && slices.ContainsFunc(v.Operator, func(a order.Action) bool { return a.At.Equal(*v.Workflow.ClosedAt) })
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
	case !v.rowKnown:
		fmt.Fprintf(out, "order %s: whether the shop's database has it is not known\n", v.SyncID)
	case v.Row == nil:
		fmt.Fprintf(out, "order %s: not in the shop's database\n", v.SyncID)
	case v.Row.Version > 0:
		fmt.Fprintf(out, "order %s: %s, %s, version %d, last written %s\n", v.SyncID, v.Row.Status, v.Row.Channel, v.Row.Version, stamp(v.Row.UpdatedAt))
	default:
		fmt.Fprintf(out, "order %s: %s, %s, no version, last written %s\n", v.SyncID, v.Row.Status, v.Row.Channel, stamp(v.Row.UpdatedAt))
	}
	fmt.Fprintf(out, "sync: %s\n\n", v.syncLine())

	if v.ledgerKnown {
		if err := printTimeline(out, v.Timeline); err != nil {
			return err
		}
	}
	if err := printPending(out, v); err != nil {
		return err
	}
	a.printElsewhere(out, v)
	if w := v.Workflow; w != nil && w.Running() && !v.WorkerAnswers && v.Sync != string(order.TasksFail) {
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
			if t.Paused != nil {
				fmt.Fprintf(out, "  it does not go on by itself; to let it go on: %s\n", t.Paused.UnpauseCommand(v.SyncID))
			}
			if t.LastFailure != "" && t.LastFailure != v.LastError {
				fmt.Fprintf(out, "  last failure: %s\n", shortened(t.LastFailure, 500))
			}
		}
	}
	a.printRemedies(out, v)
	for _, name := range v.Unhandled {
		fmt.Fprintf(out, "\na signal %q is not known here: the operator signals are retry, skip, amend\n", name)
	}
	err := printOperator(out, v.Operator)
	printMissing(out, v.Problems)
	return err
}

// printElsewhere says where else events of the order are that the database lacks, and what to type.
func (a *app) printElsewhere(out io.Writer, v orderView) {
	for _, u := range v.Unwell {
		fmt.Fprintf(out, "\n%s since %s", troubles[u.Trouble], stamp(u.Since))
		if u.Reason != "" {
			fmt.Fprintf(out, ": %s", shortened(u.Reason, 500))
		}
		held := "it held " + lacks(u) + ", which the shop's database lacks"
		if u.LackingCount < 0 {
			held = "what it held is not known, so some of it may be missing"
		}
		if u.Trouble == order.TasksFail {
			held = "it holds " + lacks(u) + ", which the shop's database lacks"
		}
		fmt.Fprintf(out, "\n  %s\n", held)
		if u.Trouble == order.TasksFail {
			fmt.Fprintf(out, "  to let it go on: roll the workers back, or deploy those that know the run; it then goes on by itself\n")
			continue
		}
		fmt.Fprintf(out, "  to send it again from Kafka: %s\n", a.propose(order.ReplayCommand(v.SyncID)))
	}
	if k := v.InKafka; k != nil {
		more := ""
		if k.More {
			more = " at least"
		}
		fmt.Fprintf(out, "\n%d of its records%s wait in Kafka, from %s on, since %s\n", k.Records, more, k.First, stamp(k.Since))
		switch {
		case k.Stalled != nil && k.Stalled.Trouble == order.RunFull:
			fmt.Fprintf(out, "  %s\n", stalledWhat(*k.Stalled))
		case k.Stalled != nil:
			fmt.Fprintf(out, "  Temporal does not take the first of them: why not stands in a starter's /readyz and log; what is missing is made by %s\n", a.hint("setup"))
		default:
			fmt.Fprintf(out, "  what the starters are at: %s\n", a.hint("status"))
		}
	}
	if n := len(v.DeadLetters); n > 0 {
		fmt.Fprintf(out, "\n%d of its events lie in the dead-letter topic (%s): %s\n", n, v.DeadLetters[0].Reason, a.propose(order.ListLettersCommand(v.SyncID)))
	}
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
	case v.Sync == syncUnknown:
		return line + ", as Temporal could not be asked"
	case v.Step != nil && v.StuckSince != nil:
		line = fmt.Sprintf("%s on %s since %s", v.Sync, order.NameOf(v.Step.Kind, v.Step.Version), stamp(*v.StuckSince))
	case v.Workflow == nil:
		line += ", Temporal has no workflow of it (any more)"
	case v.Workflow.ClosedAt != nil:
		line += fmt.Sprintf(", workflow %s at %s", v.Workflow.Status, stamp(*v.Workflow.ClosedAt))
	}
	return line
}

func nextAttempt(t operator.Attempt) string {
	if t.Paused != nil {
		return ", paused" + pausedBy(*t.Paused)
	}
	if t.NextAttempt == nil {
		return ", under way"
	}
	return ", the next at " + stamp(*t.NextAttempt)
}

func printTimeline(out io.Writer, entries []entryView) error {
	if len(entries) == 0 {
		_, err := fmt.Fprintln(out, "the ledger has no event of it")
		return err
	}
	t := newTable(out)
	t.row("ERP TIME", "EVENT", "KAFKA", "OUTCOME", "APPLIED AT", "LATENCY")
	for _, e := range entries {
		name := order.NameOf(e.Kind, e.Version)
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
		t.row(stamp(e.OccurredAt), order.NameOf(e.Kind, e.Version), e.EventID)
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
