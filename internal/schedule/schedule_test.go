package schedule_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"ordersync/activities"
	"ordersync/internal/connect"
	"ordersync/internal/devstack/devtest"
	"ordersync/internal/order"
	"ordersync/internal/schedule"
	"ordersync/internal/telemetry"
	"ordersync/workflows"
)

func TestMain(m *testing.M) { devtest.Main(m) }

// poller counts: the cursor of a poll is one more than that of the poll before.
type poller struct {
	mu    sync.Mutex
	err   error
	more  int // stretches of the next poll that do not reach the end
	tasks []order.PollTask
	polls []order.PollTask // those that began a poll
}

func (p *poller) Poll(_ context.Context, task order.PollTask, progress func(order.PollState) bool) (order.PollState, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tasks = append(p.tasks, task)
	if p.err != nil {
		return order.PollState{}, p.err
	}
	state := task.State
	if task.Begin {
		p.polls = append(p.polls, task)
		n, _ := strconv.Atoi(state.Cursor)
		state.Cursor, state.PollCounts = strconv.Itoa(n+1), order.PollCounts{}
	}
	state.Read++
	state.More = p.more > 0
	p.more = max(0, p.more-1)
	progress(state)
	return state, nil
}

func (p *poller) set(f func(p *poller)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f(p)
}

// begun are the tasks that began a poll.
func (p *poller) begun() []order.PollTask {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]order.PollTask{}, p.polls...)
}

// setup gives a server with workers, and what its activities do. There is one schedule of a name on a server,
// so the tests take turns.
func setup(t *testing.T) (client.Client, *poller, schedule.Settings) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	c, err := connect.Temporal(t.Context(), client.Options{HostPort: devtest.Temporal(t), DataConverter: workflows.DataConverter(), Logger: telemetry.SDKLogger(log)})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	queue := devtest.Name(t, "queue")
	p := &poller{}
	decides := worker.New(c, queue, worker.Options{})
	decides.RegisterWorkflowWithOptions(workflows.PollERP, workflow.RegisterOptions{Name: workflows.PollERPName})
	acts := worker.New(c, workflows.ERPTaskQueue(queue), worker.Options{DisableWorkflowWorker: true})
	acts.RegisterActivity(activities.NewPolling(p, log))
	for _, w := range []worker.Worker{decides, acts} {
		require.NoError(t, w.Start())
		t.Cleanup(w.Stop)
	}
	t.Cleanup(func() {
		for _, id := range schedule.Names {
			_ = c.ScheduleClient().GetHandle(context.Background(), id).Delete(context.Background())
		}
	})
	return c, p, schedule.Settings{TaskQueue: queue, Every: time.Second, Poll: workflows.PollInput{Overlap: time.Minute, PageSize: 10}}
}

// eventually waits for a state of the schedule of polls.
func eventually(t *testing.T, c client.Client, what string, is func(s schedule.Schedule) bool) schedule.Schedule {
	t.Helper()
	var s schedule.Schedule
	devtest.Eventually(t, 30*time.Second, func() (err error) {
		if s, err = schedule.Describe(t.Context(), c, schedule.Poll); err != nil {
			return err
		}
		if !is(s) {
			text, _ := json.Marshal(s)
			return errors.New(string(text))
		}
		return nil
	}, what)
	return s
}

func apply(t *testing.T, c client.Client, s schedule.Settings) schedule.Applied {
	t.Helper()
	all, err := schedule.Apply(t.Context(), c, s)
	require.NoError(t, err)
	require.Equal(t, schedule.Poll, all[0].ID)
	return all[0]
}

func TestSchedule(t *testing.T) {
	c, p, settings := setup(t)
	ctx := t.Context()

	all, err := schedule.List(ctx, c)
	require.NoError(t, err)
	require.Empty(t, all)
	require.ErrorIs(t, schedule.Pause(ctx, c, schedule.Poll, "x", ""), schedule.ErrMissing)
	require.ErrorIs(t, schedule.Trigger(ctx, c, schedule.Poll), schedule.ErrMissing)
	_, found, err := schedule.LastPoll(ctx, c)
	require.NoError(t, err)
	require.False(t, found)

	// The first poll is so long that it continues as new. Its result is where the second begins all the
	// same, and so on.
	p.set(func(p *poller) { p.more = 120 })
	require.True(t, apply(t, c, settings).Created)
	devtest.Eventually(t, 60*time.Second, func() error {
		if n := len(p.begun()); n < 4 {
			return fmt.Errorf("%d polls", n)
		}
		return nil
	}, "polls follow on each other")
	for n, task := range p.begun() {
		want := ""
		if n > 0 {
			want = strconv.Itoa(n)
		}
		require.Equal(t, want, task.State.Cursor)
		require.Equal(t, time.Minute, task.Overlap)
		require.Equal(t, 10, task.PageSize)
	}

	// Paused, it does nothing but what it is told to.
	require.NoError(t, schedule.Pause(ctx, c, schedule.Poll, "support@shop", "the ERP is migrated"))
	s := eventually(t, c, "the run under way ends", func(s schedule.Schedule) bool { return s.Paused && s.Running == nil })
	require.Equal(t, "paused by support@shop: the ERP is migrated", s.Note)
	require.Zero(t, s.NextAt)
	require.Equal(t, 1.0, s.EverySeconds)
	require.Equal(t, workflows.PollERPName, s.Workflow)
	paused := len(p.begun())
	devtest.Eventually(t, 30*time.Second, func() error {
		if last, _, err := schedule.LastPoll(ctx, c); err != nil || last.Cursor != strconv.Itoa(paused) {
			return fmt.Errorf("%+v, %w", last, err)
		}
		return nil
	}, "Temporal lists the last poll")

	require.NoError(t, schedule.Trigger(ctx, c, schedule.Poll))
	s = eventually(t, c, "the poll that was triggered", func(s schedule.Schedule) bool {
		var state workflows.PollState
		return s.Last != nil && json.Unmarshal(s.Last.Result, &state) == nil && state.Cursor == strconv.Itoa(paused+1)
	})
	require.Equal(t, "Completed", s.Last.Status)
	require.Len(t, p.begun(), paused+1)

	// Applied again, it stays as it is, but for what is asked.
	settings.Every = 1000 * time.Hour // whose borders nobody meets
	applied := apply(t, c, settings)
	require.False(t, applied.Created)
	require.True(t, applied.Paused)
	require.NoError(t, schedule.Resume(ctx, c, schedule.Poll, "support@shop", ""))
	s = eventually(t, c, "resumed", func(s schedule.Schedule) bool { return !s.Paused })
	require.Equal(t, "resumed by support@shop", s.Note)
	require.Equal(t, 3_600_000.0, s.EverySeconds)
	require.NotZero(t, s.NextAt)

	// Another time to begin at counts once.
	march := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	settings.Poll.From = march
	apply(t, c, settings)
	begun := func() order.PollTask {
		t.Helper()
		n := len(p.begun())
		require.NoError(t, schedule.Trigger(ctx, c, schedule.Poll))
		devtest.Eventually(t, 30*time.Second, func() error {
			if len(p.begun()) == n {
				return errors.New("no poll yet")
			}
			return nil
		}, "a poll begins")
		eventually(t, c, "it ends", func(s schedule.Schedule) bool { return s.Running == nil })
		return p.begun()[n]
	}
	task := begun()
	require.Empty(t, task.State.Cursor)
	require.Equal(t, march, task.State.From)
	settings.Poll.From = time.Time{}
	apply(t, c, settings)
	require.Equal(t, "1", begun().State.Cursor)

	// While the ERP is away, the poll waits, visibly, and there is no other.
	p.set(func(p *poller) {
		p.err = &order.Failure{Type: "ERPUnavailable", Err: errors.New("the ERP is away")}
	})
	require.NoError(t, schedule.Trigger(ctx, c, schedule.Poll))
	s = eventually(t, c, "the poll is retrying", func(s schedule.Schedule) bool { return s.Running != nil && s.Running.Attempt > 1 })
	require.Equal(t, "the ERP is away", s.Running.Error)
	require.ErrorIs(t, schedule.Trigger(ctx, c, schedule.Poll), schedule.ErrRunning)
	// One that is cancelled has no result: the next begins where the last with a result ended.
	require.NoError(t, c.CancelWorkflow(ctx, s.Running.WorkflowID, ""))
	s = eventually(t, c, "the poll is cancelled", func(s schedule.Schedule) bool { return s.Last.Status == "Canceled" && s.Running == nil })
	require.NotEmpty(t, s.Last.Error)
	p.set(func(p *poller) { p.err = nil })
	require.Equal(t, "2", begun().State.Cursor)

	// A schedule that somebody deleted goes on where the last poll ended.
	require.NoError(t, c.ScheduleClient().GetHandle(ctx, schedule.Poll).Delete(ctx))
	devtest.Eventually(t, 30*time.Second, func() error {
		if state, _, err := schedule.LastPoll(ctx, c); err != nil || state.Cursor != "3" {
			return fmt.Errorf("%v, %w", state, err)
		}
		return nil
	}, "Temporal lists the last poll")
	n := len(p.begun())
	require.True(t, apply(t, c, settings).Created)
	devtest.Eventually(t, 30*time.Second, func() error {
		if len(p.begun()) == n {
			return errors.New("no poll yet")
		}
		return nil
	}, "a new schedule polls at once")
	require.Equal(t, "3", p.begun()[n].State.Cursor)
}

func TestScheduleOfComparisons(t *testing.T) {
	c, _, settings := setup(t)
	settings.Every, settings.ReconcileEvery, settings.Reconcile = time.Hour, 24*time.Hour, workflows.ReconcileInput{Repair: true}
	for _, created := range []bool{true, false} {
		all, err := schedule.Apply(t.Context(), c, settings)
		require.NoError(t, err)
		require.Len(t, all, 2)
		require.Equal(t, schedule.Applied{
			ID: schedule.Reconcile, Created: created, EverySeconds: 86400, Reconcile: &schedule.AppliedReconcile{Repair: true},
		}, all[1])
	}
	all, err := schedule.List(t.Context(), c)
	require.NoError(t, err)
	require.Len(t, all, 2)
	require.Equal(t, workflows.ReconcileName, all[1].Workflow)
	n, err := schedule.Workers(t.Context(), c, settings.TaskQueue)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	n, err = schedule.Workers(t.Context(), c, "another")
	require.NoError(t, err)
	require.Zero(t, n)
}

// What somebody else has made of a schedule: a calendar is kept, an input that cannot be read is not.
func TestApplyOverAScheduleOfSomebodyElse(t *testing.T) {
	c, _, settings := setup(t)
	settings.Kept = schedule.Kept{Every: true, Overlap: true, PageSize: true}
	_, err := c.ScheduleClient().Create(t.Context(), client.ScheduleOptions{
		ID: schedule.Poll, Spec: client.ScheduleSpec{Calendars: []client.ScheduleCalendarSpec{{Month: []client.ScheduleRange{{Start: 1}}}}},
		Action: &client.ScheduleWorkflowAction{ID: schedule.Poll, Workflow: workflows.PollERPName, Args: []any{"nonsense"}, TaskQueue: settings.TaskQueue},
	})
	require.NoError(t, err)
	want := schedule.Applied{ID: schedule.Poll, Poll: &schedule.AppliedPoll{OverlapSeconds: 60, PageSize: 10}}
	require.Equal(t, want, apply(t, c, settings))
	s, err := schedule.Describe(t.Context(), c, schedule.Poll)
	require.NoError(t, err)
	require.Equal(t, time.January, s.NextAt.Month())
}
