package freshness_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"ordersync/internal/config"
	"ordersync/internal/connect"
	"ordersync/internal/devstack/devtest"
	"ordersync/internal/freshness"
	"ordersync/internal/pod"
	"ordersync/internal/schedule"
	"ordersync/workflows"
)

// How far the ERP is polled is what the schedule and the last completed poll tell.
func TestPolled(t *testing.T) {
	temporal, err := connect.Temporal(t.Context(), client.Options{
		HostPort: devtest.Temporal(t), DataConverter: workflows.DataConverter(), Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	t.Cleanup(temporal.Close)
	probe := pod.NewProbe(config.Config{}, nil, temporal, nil)
	_, polled, err := probe.Polled(t.Context())
	require.NoError(t, err)
	assert.False(t, polled, "there is no schedule")

	queue, made := devtest.Name(t, "queue"), time.Now()
	_, err = schedule.Apply(t.Context(), temporal, schedule.Settings{
		TaskQueue: queue, Every: time.Hour, Poll: workflows.PollInput{Overlap: 17 * time.Minute},
	})
	require.NoError(t, err)
	handle := temporal.ScheduleClient().GetHandle(t.Context(), schedule.Poll)
	p, polled, err := probe.Polled(t.Context())
	require.NoError(t, err)
	assert.True(t, polled)
	assert.Zero(t, p.ReadUntil, "no poll is through")
	assert.WithinDuration(t, made, p.BegunAt, time.Minute)
	assert.Equal(t, time.Hour, p.Every)
	assert.Equal(t, 17*time.Minute, p.Overlap, "that of the schedule, whatever the worker's own ERP_OVERLAP is")

	read := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	w := worker.New(temporal, queue, worker.Options{})
	w.RegisterWorkflowWithOptions(func(ctx workflow.Context, _ workflows.PollInput) (state workflows.PollState, err error) {
		if workflow.HasLastCompletionResult(ctx) { // the ERP is away from the second on
			err = workflow.Await(ctx, func() bool { return false })
		}
		return workflows.PollState{ReadUntil: read}, err
	}, workflow.RegisterOptions{Name: workflows.PollERPName})
	require.NoError(t, w.Start())
	t.Cleanup(w.Stop)
	until := func(what string, is func(s schedule.Schedule, p freshness.Poll) bool) {
		t.Helper()
		devtest.Eventually(t, 30*time.Second, func() error {
			s, err := schedule.Describe(t.Context(), temporal, schedule.Poll)
			if err != nil {
				return err
			}
			if p, _, err = probe.Polled(t.Context()); err == nil && !is(s, p) {
				err = fmt.Errorf("%+v, under way: %v", p, s.Running)
			}
			return err
		}, what)
	}
	until("a poll is through", func(s schedule.Schedule, p freshness.Poll) bool { return p.ReadUntil.Equal(read) && s.Running == nil })
	assert.False(t, p.Paused)
	assert.Zero(t, p.BegunAt)

	// The namespace's retention ends while the next one waits for the ERP.
	require.NoError(t, schedule.Trigger(t.Context(), temporal, schedule.Poll))
	until("the next is under way", func(s schedule.Schedule, _ freshness.Poll) bool { return s.Running != nil })
	probe.Polled = pod.NewProbe(config.Config{}, nil, forgetful{temporal}, nil).Polled
	until("the poll under way knows how far the ERP was read", func(_ schedule.Schedule, p freshness.Poll) bool { return p.ReadUntil.Equal(read) })

	// Nobody knows it where none is under way; but that none has come through since the last began.
	require.NoError(t, schedule.Pause(t.Context(), temporal, schedule.Poll, "test", ""))
	require.NoError(t, temporal.TerminateWorkflow(t.Context(), running(t, temporal), "", "test"))
	until("none is under way", func(s schedule.Schedule, _ freshness.Poll) bool { return s.Running == nil })
	p, _, err = probe.Polled(t.Context())
	require.NoError(t, err)
	assert.True(t, p.Paused)
	assert.Zero(t, p.ReadUntil)
	assert.WithinDuration(t, made, p.BegunAt, 10*time.Minute)
	require.NoError(t, handle.Delete(t.Context()))
}

// forgetful is a namespace that has deleted every run that has ended, as it does at the end of its retention.
// A real one takes its time for that.
type forgetful struct{ client.Client }

func (forgetful) ListWorkflow(context.Context, *workflowservice.ListWorkflowExecutionsRequest) (*workflowservice.ListWorkflowExecutionsResponse, error) {
	return &workflowservice.ListWorkflowExecutionsResponse{}, nil
}

// running is the id of the poll that is under way.
func running(t *testing.T, temporal client.Client) string {
	t.Helper()
	s, err := schedule.Describe(t.Context(), temporal, schedule.Poll)
	require.NoError(t, err)
	require.NotNil(t, s.Running)
	return s.Running.WorkflowID
}
