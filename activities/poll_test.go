package activities_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"

	"ordersync/activities"
	"ordersync/internal/order"
)

// polled fails as it is told, and keeps its task.
type polled struct {
	err  error
	task order.PollTask
}

func (p *polled) Poll(_ context.Context, task order.PollTask, progress func(order.PollState) bool) (order.PollState, error) {
	p.task = task
	if !progress(order.PollState{Cursor: "reached"}) {
		return order.PollState{}, errors.New("told to stop")
	}
	return order.PollState{Cursor: "end"}, p.err
}

// later is an error that says when to go on.
type later struct{ error }

func (later) RetryAfter() time.Duration { return 90 * time.Second }

func polling(p *polled) (*testsuite.TestActivityEnvironment, *activities.Polling, *strings.Builder) {
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	log := &strings.Builder{}
	a := activities.NewPolling(p, slog.New(slog.NewTextHandler(log, nil)))
	env.RegisterActivity(a)
	return env, a, log
}

func TestAPollGoesOnFromItsHeartbeat(t *testing.T) {
	p := &polled{}
	env, a, _ := polling(p)
	value, err := env.ExecuteActivity(a.PollPages, order.PollTask{Begin: true, PageSize: 5})
	require.NoError(t, err)
	var state order.PollState
	require.NoError(t, value.Get(&state))
	require.Equal(t, "end", state.Cursor)
	require.True(t, p.task.Begin)

	env.SetHeartbeatDetails(order.PollState{Cursor: "half way"})
	_, err = env.ExecuteActivity(a.PollPages, order.PollTask{Begin: true, PageSize: 5})
	require.NoError(t, err)
	require.Equal(t, order.PollTask{State: order.PollState{Cursor: "half way"}, PageSize: 5}, p.task)

	// Empty details, by hand, are no place to go on from.
	for _, empty := range []any{nil, order.PollState{}} {
		env.SetHeartbeatDetails(empty)
		_, err = env.ExecuteActivity(a.PollPages, order.PollTask{Begin: true, State: order.PollState{Cursor: "last"}, PageSize: 5})
		require.NoError(t, err)
		require.Equal(t, order.PollTask{Begin: true, State: order.PollState{Cursor: "last"}, PageSize: 5}, p.task)
	}

	env.SetHeartbeatDetails("something else")
	_, err = env.ExecuteActivity(a.PollPages, order.PollTask{Begin: true, PageSize: 5})
	require.NoError(t, err)
	require.Equal(t, order.PollTask{Begin: true, PageSize: 5}, p.task)
}

// How far a long poll is shows also before a further stretch of it has its first page.
func TestAStretchTellsWhereItBegins(t *testing.T) {
	env, a, _ := polling(&polled{})
	var beats []order.PollState
	env.SetOnActivityHeartbeatListener(func(_ *activity.Info, details converter.EncodedValues) {
		var state order.PollState
		require.NoError(t, details.Get(&state))
		beats = append(beats, state)
	})
	so := order.PollState{Cursor: "half way", PollCounts: order.PollCounts{Read: 7}}
	_, err := env.ExecuteActivity(a.PollPages, order.PollTask{State: so, PageSize: 5})
	require.NoError(t, err)
	require.NotEmpty(t, beats)
	require.Equal(t, so, beats[0])
}

func TestAPollEndsWithItsPageWhereTheWorkerStops(t *testing.T) {
	p := &polled{}
	env, a, _ := polling(p)
	stop := make(chan struct{})
	close(stop)
	env.SetWorkerStopChannel(stop)
	_, err := env.ExecuteActivity(a.PollPages, order.PollTask{})
	require.ErrorContains(t, err, "told to stop")
}

func TestEveryFailureOfAPollIsRetried(t *testing.T) {
	for name, tc := range map[string]struct {
		err    error
		is     string
		delay  time.Duration
		logged bool
	}{
		"an outage":        {&order.Failure{Type: "ERPUnavailable", Err: errors.New("no")}, "ERPUnavailable", 0, false},
		"asks to wait":     {&order.Failure{Type: "ERPUnavailable", Err: later{errors.New("no")}}, "ERPUnavailable", 90 * time.Second, false},
		"a permanent one":  {&order.Failure{Type: "Misconfigured", Permanent: true, Operator: true, Err: errors.New("no such table")}, "Misconfigured", 0, true},
		"of no class":      {errors.New("no"), "Unknown", 0, false},
		"longer than most": {errors.New(strings.Repeat("é", 5000)), "Unknown", 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			env, a, log := polling(&polled{err: tc.err})
			_, err := env.ExecuteActivity(a.PollPages, order.PollTask{})
			var app *temporal.ApplicationError
			require.ErrorAs(t, err, &app)
			require.Equal(t, tc.is, app.Type())
			require.False(t, app.NonRetryable())
			require.Equal(t, tc.delay, app.NextRetryDelay())
			require.Less(t, len(app.Message()), 1100)
			require.Equal(t, tc.logged, strings.Contains(log.String(), "level=ERROR"), log)
		})
	}
}
