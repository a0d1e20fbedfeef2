package workflows

import (
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"ordersync/activities"
	"ordersync/internal/order"
	"ordersync/workflows/inbox"
)

// shown is what the search attributes say.
type shown struct {
	Status string    `json:"status,omitempty"`
	Error  string    `json:"error,omitempty"`
	Since  time.Time `json:"since,omitzero"`
}

// show brings the search attributes up to date. Each change costs an action, so an order that
// never gets stuck has none.
func (s *orderSync) show(now shown) {
	if now.Status == s.Shown.Status && now.Error == s.Shown.Error && now.Since.Equal(s.Shown.Since) {
		return
	}
	s.Shown = now
	updates := []temporal.SearchAttributeUpdate{SyncStatus.ValueUnset(), SyncError.ValueUnset(), StuckSince.ValueUnset()}
	if now.Status != "" {
		updates = []temporal.SearchAttributeUpdate{
			SyncStatus.ValueSet(now.Status), SyncError.ValueSet(now.Error), StuckSince.ValueSet(now.Since),
		}
	}
	if err := workflow.UpsertTypedSearchAttributes(s.ctx, updates...); err != nil {
		workflow.GetLogger(s.ctx).Error("search attributes could not be set", "order", s.in.SyncID, "error", err)
	}
}

// block shows that the order waits for somebody, and has it said once.
func (s *orderSync) block(next inbox.Next) {
	before := s.Shown
	s.show(shown{Status: StatusBlocked, Error: next.Type, Since: next.Since})
	if s.Shown == before {
		return
	}
	var a *activities.Activities
	ctx := workflow.WithLocalActivityOptions(s.ctx, fastPath)
	notice := order.Blocked{
		SyncID: s.in.SyncID, Channel: next.Step.Event.Channel, Event: next.Step.Event.Name(),
		Reason: next.Type, Error: next.Message, Since: next.Since,
	}
	// It only hands the notice over, inside the worker. Should even that fail, the order is blocked
	// all the same and found by its search attributes.
	if err := workflow.ExecuteLocalActivity(ctx, a.NoticeBlocked, notice).Get(ctx, nil); err != nil {
		workflow.GetLogger(s.ctx).Error("the notice of a blocked order failed", "order", s.in.SyncID, "error", err)
	}
}

// maxShown is how many pending events the state lists.
const maxShown = 100

func (s *orderSync) answerQueries() {
	err := workflow.SetQueryHandlerWithOptions(s.ctx, QueryState, func() (State, error) { return s.state(), nil },
		workflow.QueryHandlerOptions{Description: "what the order waits for, and what to do"})
	if err != nil {
		panic(err) // the handler's form is wrong, which the first test shows
	}
}

func (s *orderSync) state() State {
	state := s.summary(s.next())
	state.UnhandledSignals = workflow.GetUnhandledSignalNames(s.ctx)
	state.Operator = append([]OperatorAction{}, s.Operator...)
	state.Pending = []PendingEvent{}
	for _, e := range s.Inbox.Upcoming(maxShown) {
		state.Pending = append(state.Pending, pendingEvent(e))
	}
	return state
}

// summary is the state without its lists.
func (s *orderSync) summary(next inbox.Next) State {
	state := State{
		SyncID: s.in.SyncID, Status: StateApplying, OrderStatus: s.OrderStatus, Applied: s.Inbox.Resolved,
		PendingCount: len(s.Inbox.Pending), Rules: s.in.Settings.Rules,
	}
	if next.Step.Event.SyncID != "" {
		step := pendingEvent(next.Step.Event)
		state.Step = &step
	}
	state.Reason, state.LastError = next.Type, next.Message
	if !next.Since.IsZero() {
		state.StuckSince = &next.Since
	}
	id := s.in.SyncID
	switch {
	case next.Action == inbox.Rest && s.in.Settings.IdleTimeout > 0:
		state.Status = StateIdle
		state.NextStep = "waits for further events until " + stamp(s.idleUntil()) + ", then completes"
	case next.Action == inbox.Rest:
		state.Status, state.NextStep = StateIdle, "completes"
	case next.Action == inbox.Hold:
		state.Status = StateHeld
		state.NextStep = fmt.Sprintf("the shop has no order %s yet: waits for its creation until %s; %s. Do not wait: ordersync retry %s",
			id, stamp(next.Until), afterHold(next.Step.Event.Kind), id)
	case next.Action == inbox.Block && next.Type == UndecodableSignal:
		state.Status = StateBlocked
		state.NextStep = fmt.Sprintf("an events signal could not be read. Read it again: ordersync retry %s; move it to the dead-letter topic: ordersync skip %s", id, id)
	case next.Action == inbox.Block && next.Type == inbox.UnknownOrder:
		state.Status = StateBlocked
		state.NextStep = fmt.Sprintf("the shop has no order %s: publish its creation or an update, which frees it; or give the invoice up: ordersync skip %s --reason WHY", id, id)
	case next.Action == inbox.Block:
		state.Status = StateBlocked
		state.NextStep = fmt.Sprintf("the shop's database refuses the event as it is. Mend the database, then: ordersync retry %s; or mend the data: ordersync amend %s --data-file FILE; or give the event up: ordersync skip %s --reason WHY", id, id, id)
	case s.Inbox.Stuck != nil && s.Inbox.Stuck.Type != "":
		state.Status = StateRetrying
		state.NextStep = fmt.Sprintf("is tried again at least once a minute and heals by itself. Try now: ordersync retry %s", id)
	default:
		state.NextStep = "applies " + next.Step.Event.Name()
	}
	return state
}

func afterHold(k order.Kind) string {
	if k == order.Update {
		return "the update is then applied as an insert"
	}
	return "the invoice then blocks the order"
}

func pendingEvent(e order.Event) PendingEvent {
	return PendingEvent{EventID: e.ID, Kind: e.Kind, Version: e.Version, OccurredAt: e.OccurredAt}
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// describe writes the current details of the Web UI, in Markdown: what the order waits for, and
// what to do.
func (s *orderSync) describe() {
	next := s.next()
	state := s.summary(next)
	var text strings.Builder
	fmt.Fprintf(&text, "**%s**", state.Status)
	if state.Step != nil {
		fmt.Fprintf(&text, " on %s (`%s`)", next.Step.Event.Name(), state.Step.EventID)
	}
	if state.StuckSince != nil {
		fmt.Fprintf(&text, " since %s", stamp(*state.StuckSince))
	}
	fmt.Fprintf(&text, "\n\n%s\n", state.NextStep)
	if state.Reason != "" {
		fmt.Fprintf(&text, "\nReason: `%s`\n\n    %s\n", state.Reason, strings.ReplaceAll(state.LastError, "\n", "\n    "))
	}
	fmt.Fprintf(&text, "\n%d pending, %d resolved", state.PendingCount, state.Applied)
	workflow.SetCurrentDetails(s.ctx, text.String())
}
