package freshness_test

import (
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"ordersync/internal/config"
	"ordersync/internal/devstack/devtest"
	"ordersync/internal/pod"
	"ordersync/internal/schedule"
	"ordersync/workflows"
)

// How far the ERP is polled is what the schedule and the last completed poll tell.
func TestPolled(t *testing.T) {
	temporal, err := client.Dial(client.Options{
		HostPort: devtest.Temporal(t), DataConverter: workflows.DataConverter(), Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	t.Cleanup(temporal.Close)
	probe := pod.NewProbe(config.Config{}, nil, temporal, nil)
	_, polled, err := probe.Polled(t.Context())
	require.NoError(t, err)
	assert.False(t, polled, "there is no schedule")

	queue := devtest.Name(t, "queue")
	_, err = schedule.Apply(t.Context(), temporal, schedule.Settings{
		TaskQueue: queue, Every: time.Hour, Poll: workflows.PollInput{Overlap: 17 * time.Minute},
	})
	require.NoError(t, err)
	handle := temporal.ScheduleClient().GetHandle(t.Context(), schedule.Poll)
	p, polled, err := probe.Polled(t.Context())
	require.NoError(t, err)
	assert.True(t, polled)
	assert.Zero(t, p.ReadUntil, "no poll is through")
	assert.Equal(t, time.Hour, p.Every)
	assert.Equal(t, 17*time.Minute, p.Overlap, "that of the schedule, whatever the worker's own ERP_OVERLAP is")

	read := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	w := worker.New(temporal, queue, worker.Options{})
	w.RegisterWorkflowWithOptions(func(workflow.Context, workflows.PollInput) (workflows.PollState, error) {
		return workflows.PollState{ReadUntil: read}, nil
	}, workflow.RegisterOptions{Name: workflows.PollERPName})
	require.NoError(t, w.Start())
	t.Cleanup(w.Stop)
	devtest.Eventually(t, 30*time.Second, func() error {
		if p, _, err = probe.Polled(t.Context()); err == nil && !p.ReadUntil.Equal(read) {
			err = errors.New("not yet")
		}
		return err
	}, "a poll is through")
	assert.False(t, p.Paused)

	require.NoError(t, schedule.Pause(t.Context(), temporal, schedule.Poll, "test", ""))
	p, _, err = probe.Polled(t.Context())
	require.NoError(t, err)
	assert.True(t, p.Paused)
	require.NoError(t, handle.Delete(t.Context()))
}
