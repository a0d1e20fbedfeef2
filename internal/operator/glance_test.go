package operator

import (
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"ordersync/internal/connect"
	"ordersync/internal/devstack/devtest"
	"ordersync/workflows"
)

func TestMain(m *testing.M) { devtest.Main(m) }

func dial(t *testing.T) client.Client {
	t.Helper()
	c, err := connect.Temporal(t.Context(), client.Options{HostPort: devtest.Temporal(t), Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// A selection that is pinned by a survey finds what the survey found, whatever the digits of the time.
func TestPinnedKeepsWhatTheSurveySaw(t *testing.T) {
	c := dial(t)
	for _, fraction := range []time.Duration{0, time.Microsecond, 929_634, 929_634_000, 930_000_000, 938_999_999, 999_999_999} {
		queue := devtest.Name(t, "queue") // no worker polls it
		_, err := c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{
			ID: workflows.WorkflowID(queue), TaskQueue: queue, TypedSearchAttributes: temporal.NewSearchAttributes(
				workflows.SyncStatus.ValueSet(workflows.StatusBlocked),
				workflows.StuckSince.ValueSet(time.Now().UTC().Truncate(time.Second).Add(fraction)),
			),
		}, workflows.OrderSyncName)
		require.NoError(t, err)
		selection := Selection{TaskQueue: queue}
		var survey Survey
		devtest.Eventually(t, 10*time.Second, func() (err error) {
			if survey, err = Look(t.Context(), c, selection, 1, time.Now()); err == nil && survey.Total != 1 {
				err = fmt.Errorf("%d stuck", survey.Total)
			}
			return err
		}, "the visibility store knows it")
		n, err := selection.Pinned(survey).Count(t.Context(), c)
		require.NoError(t, err)
		assert.EqualValues(t, 1, n, "stuck at %v of a second: %s", fraction, selection.Pinned(survey).Query())
	}
}

// A glance is the same whether a page holds all stuck orders or a few of them.
func TestTakeGlance(t *testing.T) {
	c := dial(t)
	queue := devtest.Name(t, "queue") // no worker polls it
	now := time.Now().UTC().Truncate(time.Millisecond)
	start := func(name, channel, status string, stuck time.Duration) {
		t.Helper()
		attributes := []temporal.SearchAttributeUpdate{workflows.Channel.ValueSet(channel)}
		if status != "" {
			attributes = append(attributes, workflows.SyncStatus.ValueSet(status), workflows.SyncError.ValueSet("Test"), workflows.StuckSince.ValueSet(now.Add(-stuck)))
		}
		_, err := c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{
			ID: workflows.WorkflowID(queue + name), TaskQueue: queue, TypedSearchAttributes: temporal.NewSearchAttributes(attributes...),
		}, workflows.OrderSyncName)
		require.NoError(t, err)
	}
	start("fine", "online", "", 0)
	start("oldest", "online", workflows.StatusBlocked, 5*time.Hour)
	start("old", "online", workflows.StatusRetrying, 4*time.Hour)
	for i := range 7 {
		start(fmt.Sprint(i), "online", workflows.StatusRetrying, time.Duration(60+20*i)*time.Minute)
	}
	start("young", "store", workflows.StatusBlocked, 3*time.Second)
	channels := []string{"online", "store", "international"}
	devtest.Eventually(t, 10*time.Second, func() error {
		n, err := Selection{TaskQueue: queue}.Count(t.Context(), c)
		if err == nil && n != 10 {
			err = fmt.Errorf("%d stuck", n)
		}
		return err
	}, "the visibility store knows them")

	for _, page := range []int{pageSize, 10, 9, 3, 2} {
		t.Run(fmt.Sprintf("pages of %d", page), func(t *testing.T) {
			g, err := takeGlance(t.Context(), c, queue, channels, now, page)
			require.NoError(t, err)
			for channel, want := range map[string][2]int64{"online": {8, 1}, "store": {0, 1}, "international": {0, 0}} {
				assert.Equal(t, want, [2]int64{g.Retrying[channel], g.Blocked[channel]}, channel)
			}
			require.NotEmpty(t, g.Oldest["online"])
			assert.Equal(t, queue+"oldest", g.Oldest["online"][0].SyncID)
			assert.LessOrEqual(t, len(g.Oldest["online"]), oldestKept)
			require.Len(t, g.Oldest["store"], 1)
			assert.Equal(t, now.Add(-3*time.Second), g.Oldest["store"][0].Since.UTC())
			assert.Empty(t, g.Oldest["international"])
		})
	}
}
