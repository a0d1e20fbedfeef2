package workflows

import (
	"fmt"
	"regexp"
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
	options := fastPath
	options.Summary = "blocked: " + next.Type
	ctx := workflow.WithLocalActivityOptions(s.ctx, options)
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
		PendingCount: s.Inbox.Len(), Leaving: len(s.outbox), Rules: s.in.Settings.Rules,
	}
	if next.Step.Event.SyncID != "" {
		step := pendingEvent(next.Step.Event)
		state.Step = &step
	}
	state.Reason, state.LastError = next.Type, next.Message
	if !next.Since.IsZero() {
		state.StuckSince = &next.Since
	}
	if e := s.Inbox.StuckOn(s.now()); e != nil {
		state.StuckOn = e.ID.String()
	}
	if s.unreadable() {
		state.StuckOn = ""
		if s.strict() {
			state.StuckOn = s.Undecoded[0].id()
		}
	}
	state.DataExcerpt = order.Clip(next.Step.Event.Data, maxExcerpt)
	var advice advice
	state.Status, advice = s.advise(next)
	state.NextStep, state.Happens, state.Remedies = advice.text(), advice.happens, advice.remedies
	return state
}

// maxExcerpt bounds what the state shows of an event's data, in bytes.
const maxExcerpt = 300

// advice is what will happen without anybody's help, and what somebody can do.
type advice struct {
	happens  string
	remedies []Remedy
}

// text is the advice in a line.
func (a advice) text() string {
	var ways []string
	for _, r := range a.remedies {
		ways = append(ways, r.To+": "+r.Command.String())
	}
	if len(ways) == 0 {
		return a.happens
	}
	return a.happens + ". To " + strings.Join(ways, "; to ")
}

// advise says where the order stands and what that asks for.
func (s *orderSync) advise(next inbox.Next) (status string, _ advice) {
	event := s.named(next)
	var (
		retry = order.RetryCommand(s.in.SyncID, event)
		amend = order.AmendCommand(s.in.SyncID, event)
		skip  = order.SkipCommand(s.in.SyncID, event)
	)
	switch {
	case next.Action == inbox.Rest && s.in.Settings.IdleTimeout > 0:
		return StateIdle, advice{happens: "waits for further events until " + stamp(s.idleUntil()) + ", then completes"}
	case next.Action == inbox.Rest:
		return StateIdle, advice{happens: "completes"}
	case next.Action == inbox.Hold:
		return StateHeld, advice{
			fmt.Sprintf("the shop has no order %s yet: waits for its creation until %s; %s", s.in.SyncID, stamp(next.Until), afterHold(next.Step.Event.Kind)),
			[]Remedy{{"wait no longer", retry}},
		}
	case next.Action == inbox.Block && next.Type == UndecodableSignal:
		return StateBlocked, advice{
			"an events signal could not be read",
			[]Remedy{{"read it again, after a deploy", retry}, {"move it to the dead-letter topic", skip}},
		}
	case next.Action == inbox.Block && next.Type == inbox.UnknownOrder:
		return StateBlocked, advice{
			fmt.Sprintf("the shop has no order %s, so its invoice waits: publish its creation or an update, which frees it", s.in.SyncID),
			[]Remedy{{"give the invoice up", skip}},
		}
	case next.Action == inbox.Block:
		return StateBlocked, advice{
			"the shop's database refuses the event as it is",
			[]Remedy{{"try it again, once the database takes it", retry}, {"send other data", amend}, {"give the event up", skip}},
		}
	case s.Inbox.Stuck != nil && s.Inbox.Stuck.Type != "":
		return StateRetrying, advice{"is tried again at least once a minute and heals by itself", []Remedy{{"try it now", retry}}}
	default:
		return StateApplying, advice{happens: "applies " + next.Step.Event.Name()}
	}
}

// named is what the proposed commands carry as --event-id, so that one which is pasted again later acts
// on nothing else. Empty where the run knows no name for what it is stuck on.
func (s *orderSync) named(next inbox.Next) string {
	switch {
	case s.unreadable() && s.strict():
		return s.Undecoded[0].id()[:order.ShortID]
	case s.unreadable():
		return ""
	case s.strict():
		return next.Step.Event.ID.String()[:order.ShortID]
	default:
		return next.Step.Event.ID.String()
	}
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
// what to do. Commands and errors are code, which the Web UI leaves as it is: in its text "--" is a
// dash, and nothing wraps within a block of code.
func (s *orderSync) describe() {
	next := s.next()
	state := s.summary(next)
	_, advice := s.advise(next)
	var text strings.Builder
	fmt.Fprintf(&text, "**%s**", state.Status)
	if state.Step != nil {
		fmt.Fprintf(&text, " on **%s**", next.Step.Event.Name())
	}
	if state.StuckSince != nil {
		fmt.Fprintf(&text, " since %s", stamp(*state.StuckSince))
	}
	if state.Reason != "" {
		fmt.Fprintf(&text, "\n\n**%s**: %s", state.Reason, code(strings.Join(strings.Fields(state.LastError), " ")))
	}
	fmt.Fprintf(&text, "\n\n%s\n", escape(advice.happens))
	for _, r := range advice.remedies {
		fmt.Fprintf(&text, "\n- to %s: %s", r.To, code(r.Command.String()))
	}
	fmt.Fprintf(&text, "\n\n%d pending, %d resolved", state.PendingCount, state.Applied)
	if state.Leaving > 0 {
		fmt.Fprintf(&text, ", %d on the way to the dead-letter topic", state.Leaving)
	}
	if state.Step != nil {
		fmt.Fprintf(&text, ", event %s", code(state.Step.EventID.String()))
	}
	// The Web UI's frame for it is too low by a line.
	text.WriteString("\n\n\u00a0")
	workflow.SetCurrentDetails(s.ctx, text.String())
}

// code is a line as a span of code: between more backticks than it has in a row. It keeps the line as it is, or
// a command would name another order.
func code(line string) string {
	fence := "`"
	for strings.Contains(line, fence) {
		fence += "`"
	}
	return fence + " " + line + " " + fence
}

// escape keeps what an order's id may hold from being Markdown.
func escape(text string) string {
	return markdown.ReplaceAllString(text, `\$0`)
}

var markdown = regexp.MustCompile("[\\\\`*_\\[\\]<>&#|~]")
