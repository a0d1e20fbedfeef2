package workflows_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"ordersync/activities"
	"ordersync/internal/order"
	"ordersync/workflows"
)

// pollEnv runs a polling workflow with an activity that answers as it is told.
func pollEnv(t *testing.T, answer func(n int, task order.PollTask) (order.PollState, error)) (env *testsuite.TestWorkflowEnvironment, tasks *[]order.PollTask) {
	t.Helper()
	var suite testsuite.WorkflowTestSuite
	env = suite.NewTestWorkflowEnvironment()
	env.SetDataConverter(workflows.DataConverter())
	tasks = &[]order.PollTask{}
	var a *activities.Polling
	env.RegisterActivity(a.PollPages)
	env.OnActivity(a.PollPages, mock.Anything, mock.Anything).Return(func(_ context.Context, task order.PollTask) (order.PollState, error) {
		*tasks = append(*tasks, task)
		return answer(len(*tasks), task)
	})
	return env, tasks
}

var pollInput = workflows.PollInput{Overlap: time.Minute, PageSize: 500}

func pollResult(t *testing.T, env *testsuite.TestWorkflowEnvironment) workflows.PollState {
	t.Helper()
	require.True(t, env.IsWorkflowCompleted())
	require.NoError(t, env.GetWorkflowError())
	var state workflows.PollState
	require.NoError(t, env.GetWorkflowResult(&state))
	return state
}

func TestAPollBeginsWhereTheLastOneEnded(t *testing.T) {
	march := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	last := workflows.PollState{Cursor: "last", From: march}
	for name, tc := range map[string]struct {
		last *workflows.PollState
		in   workflows.PollInput
		want workflows.PollState
	}{
		"the first":                       {want: workflows.PollState{}},
		"the first, from a time":          {in: workflows.PollInput{From: march}, want: workflows.PollState{From: march}},
		"the next":                        {last: &last, want: last},
		"the next, from the same time":    {last: &last, in: workflows.PollInput{From: march}, want: last},
		"anew, from another time":         {last: &last, in: workflows.PollInput{From: march.AddDate(0, 1, 0)}, want: workflows.PollState{From: march.AddDate(0, 1, 0)}},
		"a new schedule":                  {in: workflows.PollInput{Resume: &last}, want: last},
		"the second one of it":            {last: &workflows.PollState{Cursor: "later", From: march}, in: workflows.PollInput{Resume: &last}, want: workflows.PollState{Cursor: "later", From: march}},
		"a new schedule, from a new time": {in: workflows.PollInput{Resume: &last, From: march.AddDate(0, 1, 0)}, want: workflows.PollState{From: march.AddDate(0, 1, 0)}},
	} {
		t.Run(name, func(t *testing.T) {
			env, tasks := pollEnv(t, func(int, order.PollTask) (order.PollState, error) { return order.PollState{Cursor: "end"}, nil })
			if tc.last != nil {
				env.SetLastCompletionResult(*tc.last)
			}
			tc.in.Overlap, tc.in.PageSize = time.Minute, 500
			env.ExecuteWorkflow(workflows.PollERP, tc.in)
			require.Equal(t, "end", pollResult(t, env).Cursor)
			require.Equal(t, []order.PollTask{{State: tc.want, Begin: true, Overlap: time.Minute, PageSize: 500}}, *tasks)
		})
	}
}

// A result that nobody can read must not stop polling for good.
func TestAPollAfterAnUnreadableResult(t *testing.T) {
	env, tasks := pollEnv(t, func(int, order.PollTask) (order.PollState, error) { return order.PollState{Cursor: "end"}, nil })
	env.SetLastCompletionResult("something else")
	env.ExecuteWorkflow(workflows.PollERP, pollInput)
	pollResult(t, env)
	require.Empty(t, (*tasks)[0].State.Cursor)
}

func TestAPollGoesOnUntilTheEnd(t *testing.T) {
	env, tasks := pollEnv(t, func(n int, task order.PollTask) (order.PollState, error) {
		task.State.Read += 10
		task.State.More = n < 3
		return task.State, nil
	})
	env.ExecuteWorkflow(workflows.PollERP, pollInput)
	require.EqualValues(t, 30, pollResult(t, env).Read)
	require.Len(t, *tasks, 3)
	require.True(t, (*tasks)[0].Begin)
	require.False(t, (*tasks)[1].Begin)
}

func TestALongPollContinuesAsNew(t *testing.T) {
	env, tasks := pollEnv(t, func(_ int, task order.PollTask) (order.PollState, error) {
		task.State.Read++
		task.State.More = true
		return task.State, nil
	})
	env.ExecuteWorkflow(workflows.PollERP, pollInput)
	var next *workflow.ContinueAsNewError
	require.ErrorAs(t, env.GetWorkflowError(), &next)
	require.Equal(t, workflows.PollERPName, next.WorkflowType.Name)
	n := len(*tasks)
	require.LessOrEqual(t, n, 200)

	var in workflows.PollInput
	require.NoError(t, workflows.DataConverter().FromPayloads(next.Input, &in))
	require.EqualValues(t, n, in.Carried.Read)
	env, tasks = pollEnv(t, func(_ int, task order.PollTask) (order.PollState, error) {
		task.State.More = false
		return task.State, nil
	})
	env.SetLastCompletionResult(workflows.PollState{Cursor: "of the poll before"})
	env.ExecuteWorkflow(workflows.PollERP, in)
	require.EqualValues(t, n, pollResult(t, env).Read, "it goes on, and does not begin again")
	require.False(t, (*tasks)[0].Begin)
}

// An outage is one poll, which goes on when it is over. The test suite gives up after ten attempts, a
// server does not.
func TestAPollOutlastsAnOutage(t *testing.T) {
	env, _ := pollEnv(t, func(n int, _ order.PollTask) (order.PollState, error) {
		if n <= 9 {
			return order.PollState{}, temporal.NewApplicationError("the ERP is away", "ERPUnavailable")
		}
		return order.PollState{Cursor: "end"}, nil
	})
	began := env.Now()
	env.ExecuteWorkflow(workflows.PollERP, pollInput)
	require.Equal(t, "end", pollResult(t, env).Cursor)
	require.Equal(t, (1+2+4+8+16+32+3*60)*time.Second, env.Now().Sub(began).Round(time.Second), "a minute between attempts, at most")
}

func TestABackfillEndsWithItsPeriod(t *testing.T) {
	march := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	env, tasks := pollEnv(t, func(n int, task order.PollTask) (order.PollState, error) {
		task.State.More = n < 2
		return task.State, nil
	})
	env.SetStartTime(march.AddDate(0, 1, 0))
	env.ExecuteWorkflow(workflows.Backfill, workflows.BackfillInput{From: march, PageSize: 500})
	pollResult(t, env)
	require.Len(t, *tasks, 2)
	for i, task := range *tasks {
		require.True(t, task.Backfill)
		require.Equal(t, i == 0, task.Begin)
		require.Equal(t, march, task.State.From)
		require.WithinDuration(t, march.AddDate(0, 1, 0), task.Until, time.Second, "it ends where it started")
	}
}

// `temporal activity complete --result null` gives an empty state. It must not move the cursor back, or end a
// backfill as done: the stretch is read again.
func TestAResultGivenByHandMovesNoCursor(t *testing.T) {
	march := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	good := func(task order.PollTask, more bool) order.PollState {
		task.State.Cursor, task.State.More = "end", more
		task.State.Read += 10
		return task.State
	}
	last := workflows.PollState{Cursor: "last", From: march}
	for name, bad := range map[string]func(order.PollState) order.PollState{
		"null":               func(order.PollState) order.PollState { return order.PollState{} },
		"without its cursor": func(s order.PollState) order.PollState { s.Cursor = ""; return s },
	} {
		t.Run(name, func(t *testing.T) {
			for _, nth := range []int{1, 2} { // the first stretch, and one that goes on
				env, tasks := pollEnv(t, func(n int, task order.PollTask) (order.PollState, error) {
					if n == nth {
						return bad(good(task, false)), nil
					}
					return good(task, n < 2), nil
				})
				env.SetLastCompletionResult(last)
				env.ExecuteWorkflow(workflows.PollERP, pollInput)
				state := pollResult(t, env)
				require.Equal(t, "end", state.Cursor)
				require.Equal(t, march, state.From)
				require.Equal(t, (*tasks)[nth-1], (*tasks)[nth], "the stretch is read again")
			}
		})
	}
	env, tasks := pollEnv(t, func(n int, task order.PollTask) (order.PollState, error) {
		if n == 1 {
			return order.PollState{}, nil
		}
		return good(task, false), nil
	})
	env.ExecuteWorkflow(workflows.Backfill, workflows.BackfillInput{From: march, PageSize: 500})
	require.EqualValues(t, 10, pollResult(t, env).Read)
	require.Len(t, *tasks, 2)
}

func TestBackfillID(t *testing.T) {
	at := time.Date(2026, 3, 1, 1, 2, 3, 0, time.FixedZone("", 3600))
	require.Equal(t, "ordersync-backfill-20260301T000203Z-now", workflows.BackfillID(at, time.Time{}))
	require.Equal(t, "ordersync-backfill-20260301T000203Z-20260301T000203.5Z", workflows.BackfillID(at.UTC(), at.Add(500*time.Millisecond)))
}
