package operator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"ordersync/internal/order"
	"ordersync/workflows"
)

// Effect is what came of an operator's signal.
type Effect struct {
	// Action is the workflow's own note of the signal.
	Action workflows.OperatorAction `json:"action"`
	// State is how the order stands after it.
	State workflows.State `json:"state"`
}

// How long Act looks for the effect of its signal, and for the step it causes to end.
const (
	effectTime  = 10 * time.Second
	effectEvery = 200 * time.Millisecond
)

// Stuck is what an order is stuck on, as far as it is known.
type Stuck struct {
	SyncID string
	// State is the workflow's own answer; nil where no worker gives one.
	State *workflows.State
	// Status and Since are the search attributes, for an order without State: empty and nil where it is
	// not stuck, as far as Temporal knows.
	Status string
	Since  *time.Time
}

// FindStuck asks what an order is stuck on. ErrNoWorkflow means that it has no running workflow.
func FindStuck(ctx context.Context, c client.Client, syncID string) (Stuck, error) {
	w, err := Describe(ctx, c, syncID)
	if err != nil {
		return Stuck{}, err
	}
	if !w.Running() {
		return Stuck{}, ErrNoWorkflow
	}
	at := Stuck{SyncID: syncID, Status: w.SyncStatus, Since: w.StuckSince}
	state, err := State(ctx, c, syncID)
	switch {
	case err == nil:
		at.State = &state
	case !errors.Is(err, ErrNoWorker):
		return Stuck{}, err
	}
	return at, nil
}

// Is returns whether the order is stuck: blocked, retrying or held.
func (s Stuck) Is() bool {
	if s.State == nil {
		return s.Status != "" && s.Since != nil
	}
	switch s.State.Status {
	case workflows.StateBlocked, workflows.StateRetrying, workflows.StateHeld:
		return true
	}
	return false
}

// Pin restricts a signal to what it is about, so that it never acts on an order's next event.
type Pin struct {
	// EventID names the event.
	EventID string
	// StuckBefore is the time at or before which the order got stuck on it, where no event can be named.
	StuckBefore time.Time
}

// Pin is the restriction to what the order is stuck on now.
func (s Stuck) Pin() Pin {
	switch {
	case s.State != nil && s.State.StuckOn != "":
		return Pin{EventID: s.State.StuckOn}
	case s.State != nil && s.State.Step != nil:
		return Pin{EventID: s.State.Step.EventID.String()}
	case s.State != nil && s.State.StuckSince != nil:
		return Pin{StuckBefore: *s.State.StuckSince}
	case s.Since != nil:
		return Pin{StuckBefore: bound(*s.Since)}
	default:
		return Pin{}
	}
}

// Proposed is the event_id that a proposed command carries: the first digits of the id where the run
// takes those, otherwise the whole. Empty where no event can be named.
func (s Stuck) Proposed() string {
	id := s.Pin().EventID
	if id != "" && s.State.Rules >= workflows.RulesCredit {
		return id[:order.ShortID]
	}
	return id
}

// bound is the StuckBefore for what got stuck at a time as a search attribute has it, which may be less
// exact than the workflow's.
func bound(since time.Time) time.Time { return since.Truncate(time.Millisecond).Add(time.Millisecond) }

// Named is the restriction to the event that a person names, with its whole id where a worker gives it.
// What is another event than the order is stuck on is left to the workflow, which ignores the signal
// visibly. It is an error if given has too few digits, or is the beginning of several pending ids.
func (s Stuck) Named(given string) (Pin, error) {
	on := s.Pin().EventID
	switch {
	case on == "" || given == "":
		return Pin{EventID: given}, nil
	case order.ParseEventID(given).String() == on:
		return Pin{EventID: on}, nil
	case order.TooShort(given, on):
		return Pin{}, fmt.Errorf("--event-id %s: give at least the first %d digits of the id, such as %s", given, order.ShortID, on[:order.ShortID])
	case !order.NamesID(given, on):
		return Pin{EventID: given}, nil
	}
	for _, e := range s.State.Pending {
		if id := e.EventID.String(); id != on && order.NamesID(given, id) {
			return Pin{}, fmt.Errorf("--event-id %s is the beginning of several ids, %s and %s: give more of the one that is meant", given, on, id)
		}
	}
	return Pin{EventID: on}, nil
}

// Act sends a signal to an order's workflow and waits for what came of it: its effect, and then
// for a while for the order to come to rest again. ErrNoWorkflow means that nothing was sent.
// ErrNoWorker means that the signal is durably with Temporal, and waits for a worker.
func Act(ctx context.Context, c client.Client, before Stuck, signal string, input any) (Effect, error) {
	if err := send(ctx, c, before.SyncID, signal, input); err != nil {
		return Effect{}, err
	}
	if before.State == nil {
		return Effect{}, ErrNoWorker
	}

	ctx, cancel := context.WithTimeout(ctx, effectTime)
	defer cancel()
	var effect Effect
	found := false
	for {
		state, err := State(ctx, c, before.SyncID)
		if err == nil {
			if action, ok := newAction(before.State.Operator, state.Operator, signal); ok {
				effect, found = Effect{Action: action, State: state}, true
			}
		}
		if found && effect.State.Status != workflows.StateApplying {
			return effect, nil
		}
		select {
		case <-ctx.Done():
			if found {
				return effect, nil
			}
			return Effect{}, ErrNoWorker
		case <-time.After(effectEvery):
		}
	}
}

func send(ctx context.Context, c client.Client, syncID, signal string, input any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	err := c.SignalWorkflow(ctx, workflows.WorkflowID(syncID), "", signal, input)
	if notFound := new(serviceerror.NotFound); errors.As(err, &notFound) {
		return ErrNoWorkflow
	}
	if err != nil {
		return fmt.Errorf("send %s to order %s: %w", signal, syncID, err)
	}
	return nil
}

// newAction is the last note of a signal that was not there before: a skip that came too late has two.
func newAction(before, after []workflows.OperatorAction, signal string) (workflows.OperatorAction, bool) {
	for _, a := range slices.Backward(after) {
		if a.Signal == signal && !slices.Contains(before, a) {
			return a, true
		}
	}
	return workflows.OperatorAction{}, false
}

// Done returns whether the signal was acted on.
func (e Effect) Done() bool {
	return e.Action.Verdict == workflows.Acted
}
