package workflows_test

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
	"google.golang.org/protobuf/encoding/protojson"

	"ordersync/activities"
	"ordersync/internal/devstack/devtest"
	"ordersync/internal/order"
	"ordersync/workflows"
)

// troubled polls five pages in two stretches, and fails once in the midst of the first.
type troubled struct {
	mu    sync.Mutex
	tasks []order.PollTask
}

func (p *troubled) Poll(_ context.Context, task order.PollTask, progress func(order.PollState) bool) (order.PollState, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tasks = append(p.tasks, task)
	state := task.State
	for state.Pages < 5 {
		state.Pages++
		state.More = state.Pages < 5
		if len(p.tasks) == 1 && state.Pages == 3 {
			return order.PollState{}, &order.Failure{Type: "ERPUnavailable", Err: errors.New("the ERP is away")}
		}
		progress(state)
		if state.Pages == 4 {
			break
		}
	}
	return state, nil
}

// A poll on a server goes on from its heartbeat after a failure, and in a further activity after its first
// stretch. Its history is what TestReplay holds the workflows against.
func TestServerPolls(t *testing.T) {
	c := dial(t, devtest.Temporal(t))
	defer c.Close()
	for name, in := range map[string]any{
		workflows.PollERPName:  workflows.PollInput{Overlap: time.Minute, PageSize: 10},
		workflows.BackfillName: workflows.BackfillInput{From: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), PageSize: 10},
	} {
		t.Run(name, func(t *testing.T) {
			queue, p := devtest.Name(t, "queue"), &troubled{}
			decides := worker.New(c, queue, worker.Options{})
			decides.RegisterWorkflowWithOptions(workflows.PollERP, workflow.RegisterOptions{Name: workflows.PollERPName})
			decides.RegisterWorkflowWithOptions(workflows.Backfill, workflow.RegisterOptions{Name: workflows.BackfillName})
			acts := worker.New(c, workflows.ERPTaskQueue(queue), worker.Options{DisableWorkflowWorker: true})
			acts.RegisterActivity(activities.NewPolling(p, slog.New(slog.DiscardHandler)))
			for _, w := range []worker.Worker{decides, acts} {
				require.NoError(t, w.Start())
				defer w.Stop()
			}
			run, err := c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: queue, TaskQueue: queue}, name, in)
			require.NoError(t, err)
			var state workflows.PollState
			require.NoError(t, run.Get(t.Context(), &state))
			require.EqualValues(t, 5, state.Pages)

			require.Len(t, p.tasks, 3)
			require.True(t, p.tasks[0].Begin)
			require.False(t, p.tasks[1].Begin, "the second attempt goes on")
			require.EqualValues(t, 2, p.tasks[1].State.Pages, "from the last heartbeat")
			require.EqualValues(t, 4, p.tasks[2].State.Pages)
			require.Equal(t, name == workflows.BackfillName, p.tasks[0].Backfill)

			if *record {
				h := &historypb.History{}
				events := c.GetWorkflowHistory(t.Context(), run.GetID(), run.GetRunID(), false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
				for events.HasNext() {
					event, err := events.Next()
					require.NoError(t, err)
					h.Events = append(h.Events, event)
				}
				raw, err := protojson.MarshalOptions{Multiline: true}.Marshal(h)
				require.NoError(t, err)
				require.NoError(t, os.WriteFile(filepath.Join("testdata", "histories", name+".json"), append(raw, '\n'), 0o600))
			}
		})
	}
}
