package operator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

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

// Act sends a signal to an order's workflow and waits for what came of it: its effect, and then
// for a while for the order to come to rest again. ErrNoWorkflow means that nothing was sent.
// ErrNoWorker means that the signal is durably with Temporal, and waits for a worker.
func Act(ctx context.Context, c client.Client, syncID, signal string, input any) (Effect, error) {
	before, err := State(ctx, c, syncID)
	known := err == nil
	if err != nil && !errors.Is(err, ErrNoWorker) {
		return Effect{}, err
	}
	if err := send(ctx, c, syncID, signal, input); err != nil {
		return Effect{}, err
	}
	if !known {
		return Effect{}, ErrNoWorker
	}

	ctx, cancel := context.WithTimeout(ctx, effectTime)
	defer cancel()
	var effect Effect
	found := false
	for {
		state, err := State(ctx, c, syncID)
		if err == nil {
			if action, ok := newAction(before.Operator, state.Operator, signal); ok {
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

// Done tells whether the signal was acted on. The workflow's note begins so where it was not.
func (e Effect) Done() bool {
	for _, no := range []string{"ignored", "refused", "too late", "perhaps too late"} {
		if strings.HasPrefix(e.Action.Effect, no) {
			return false
		}
	}
	return true
}
