package activities_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"ordersync/activities"
	"ordersync/internal/order"
)

// servers fails as it is told, and keeps what it is given.
type servers struct {
	err     error
	letters []order.DeadLetter
	actions []order.Action
}

func (s *servers) Apply(context.Context, order.Step) (order.Result, error) {
	return order.Result{Outcome: order.Applied, Status: order.Open}, s.err
}
func (s *servers) Skip(context.Context, order.Event) (order.Result, error) {
	return order.Result{Outcome: order.Skipped}, s.err
}
func (s *servers) RecordAction(_ context.Context, a order.Action) error {
	s.actions = append(s.actions, a)
	return s.err
}
func (s *servers) DeadLetter(_ context.Context, letters ...order.DeadLetter) error {
	s.letters = append(s.letters, letters...)
	return s.err
}
func (s *servers) Blocked(order.Blocked) {}

func setup(t *testing.T, s *servers) (*testsuite.TestActivityEnvironment, *activities.Activities, *strings.Builder) {
	t.Helper()
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	log := &strings.Builder{}
	a := activities.New(s, s, s, slog.New(slog.NewTextHandler(log, nil)))
	env.RegisterActivity(a)
	return env, a, log
}

func step() order.Step {
	return order.Step{Event: order.Event{
		SyncID: "1", ID: uuid.New(), Kind: order.Update, Version: 2, Data: json.RawMessage(`1`),
		Source: order.Source{Topic: "online", Partition: 3, Offset: 42},
	}}
}

func TestErrorsKeepTheirTypeAndWhetherToRetry(t *testing.T) {
	for name, c := range map[string]struct {
		err       error
		is        string
		permanent bool
		logged    bool
	}{
		"the data's fault":     {&order.Failure{Type: "CheckViolated", Permanent: true, Err: errors.New("no")}, "CheckViolated", true, false},
		"passes by itself":     {&order.Failure{Type: "Deadlock", Err: errors.New("no")}, "Deadlock", false, false},
		"needs an operator":    {&order.Failure{Type: "AccessDenied", Operator: true, Err: errors.New("no")}, "AccessDenied", false, true},
		"of no class":          {errors.New("no"), "Unknown", false, false},
		"longer than a screen": {&order.Failure{Type: "SignalRaised", Permanent: true, Err: errors.New(strings.Repeat("é", 5000))}, "SignalRaised", true, false},
	} {
		t.Run(name, func(t *testing.T) {
			env, a, log := setup(t, &servers{err: c.err})
			for _, activity := range []any{a.CreateOrder, a.UpdateOrder, a.CreateInvoice, a.SkipEvent} {
				_, err := env.ExecuteActivity(activity, step())
				var app *temporal.ApplicationError
				require.ErrorAs(t, err, &app)
				require.Equal(t, c.is, app.Type())
				require.Equal(t, c.permanent, app.NonRetryable())
				require.Less(t, len(app.Message()), 1100)
			}
			require.Equal(t, c.logged, strings.Contains(log.String(), "level=ERROR"), log)
		})
	}
}

func TestResultsComeBack(t *testing.T) {
	env, a, _ := setup(t, &servers{})
	value, err := env.ExecuteActivity(a.UpdateOrder, step())
	require.NoError(t, err)
	var result order.Result
	require.NoError(t, value.Get(&result))
	require.Equal(t, order.Result{Outcome: order.Applied, Status: order.Open}, result)
}

func TestOverflowKeepsWhereItCameFrom(t *testing.T) {
	s := &servers{}
	env, a, _ := setup(t, s)
	first, second := step().Event, step().Event
	_, err := env.ExecuteActivity(a.DeadLetterEvents, activities.Overflow{Events: []order.Event{first, second}, StuckOn: "order_creation v1"})
	require.NoError(t, err)
	require.Len(t, s.letters, 2)
	require.Equal(t, first.Source, s.letters[0].Source)
	require.Equal(t, "1", string(s.letters[0].Key))
	require.Equal(t, order.OrderBlocked, s.letters[0].Reason)
	require.Contains(t, s.letters[0].Detail, "order_creation v1")
	require.Contains(t, string(s.letters[1].Value), second.ID.String())
}

func TestADeadLetterThatIsNotAcknowledgedIsTriedAgain(t *testing.T) {
	env, a, _ := setup(t, &servers{err: errors.New("the topic is gone")})
	raw := converter.NewRawValue(&commonpb.Payload{Data: []byte("?")})
	for _, err := range []error{
		last(env.ExecuteActivity(a.DeadLetterEvents, activities.Overflow{Events: []order.Event{step().Event}})),
		last(env.ExecuteActivity(a.DeadLetterSignal, "1", raw)),
	} {
		var app *temporal.ApplicationError
		require.ErrorAs(t, err, &app)
		require.Equal(t, activities.DeadLetterUnavailable, app.Type())
		require.False(t, app.NonRetryable())
	}
}

func last(_ converter.EncodedValue, err error) error { return err }

func TestAnActionThatNamesItsAuthorNeedsNoHistory(t *testing.T) {
	s := &servers{}
	env, a, _ := setup(t, s)
	_, err := env.ExecuteActivity(a.RecordAction, activities.Audit{Action: order.Action{SyncID: "1", Name: "retry", By: "support@shop"}, Nth: 1})
	require.NoError(t, err)
	require.Equal(t, "support@shop", s.actions[0].By)
}

func TestTheAuditIsNeverGivenUp(t *testing.T) {
	env, a, log := setup(t, &servers{err: &order.Failure{Type: "DataTooLong", Permanent: true, Err: errors.New("no")}})
	_, err := env.ExecuteActivity(a.RecordAction, activities.Audit{Action: order.Action{SyncID: "1", By: "support@shop"}})
	var app *temporal.ApplicationError
	require.ErrorAs(t, err, &app)
	require.Equal(t, "DataTooLong", app.Type())
	require.False(t, app.NonRetryable())
	require.Contains(t, log.String(), "level=ERROR")
}
