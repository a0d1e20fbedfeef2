package intake

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"ordersync/internal/devstack/devtest"
	"ordersync/internal/order"
	"ordersync/workflows"
)

// updates are events of an order with this much data each.
func updates(syncID string, version, n, size int) []order.Event {
	all := made(syncID, order.Update, version, n)
	for i := range all {
		all[i].Data = json.RawMessage(`"` + strings.Repeat("x", size) + `"`)
	}
	return all
}

// TestCreditStopsBeforeARunIsTooLarge sends events to an order whose worker is away until the credit
// refuses them, and then as starters that crash again and again do: each knows nothing of the others.
func TestCreditStopsBeforeARunIsTooLarge(t *testing.T) {
	for name, size := range map[string]int{"4 KB": 4 << 10, "500 KB": 500 << 10, "small": 10} {
		t.Run(name, func(t *testing.T) {
			c := newCaller(t)
			syncID := devtest.Name(t, "hot")
			perCall := max(1, min(maxCallEvents, maxCallBytes/(size+1000)))
			version := 2
			send := func() error {
				err := c.call(t.Context(), updates(syncID, version, perCall, size))
				version += perCall
				return err
			}
			var full *RunFullError
			for err := send(); !errors.As(err, &full); err = send() {
				require.NoError(t, err)
			}
			require.True(t, RunIsFull(full.Events, full.Bytes))
			for range 3 {
				c.credit = newCredit(c.client)
				require.NoError(t, send(), "the first call of a process goes in any case")
				var err error
				for sent := 0; err == nil && sent <= firstEvents; sent += perCall {
					err = send()
				}
				require.ErrorAs(t, err, &full)
			}
			d, err := c.client.DescribeWorkflowExecution(t.Context(), workflows.WorkflowID(syncID), "")
			require.NoError(t, err)
			run := d.GetWorkflowExecutionInfo()
			t.Logf("%d events, %d KiB of history", run.GetHistoryLength(), run.GetHistorySizeBytes()>>10)
			require.Equal(t, enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING, run.GetStatus())
			require.Less(t, run.GetHistorySizeBytes(), int64(fullBytes+creditBytes+4*maxCallBytes))
			require.Less(t, run.GetHistoryLength(), int64(fullEvents+creditEvents))
			require.NoError(t, c.client.TerminateWorkflow(t.Context(), workflows.WorkflowID(syncID), "", "the test is over"))
			require.NoError(t, send(), "a run that has ended is not full")
		})
	}
}

func TestCreditOfANormalOrderAsksNothing(t *testing.T) {
	c := newCredit(nil) // asking would panic
	for n := range 3 {
		require.NoError(t, c.take(t.Context(), updates("1", n, 60, 10)))
	}
	require.NoError(t, c.take(t.Context(), updates("2", 1, 1, 1<<20)), "one large event")
	require.Panics(t, func() { _ = c.take(t.Context(), updates("1", 4, 60, 10)) }, "the 240th event")
	require.Panics(t, func() { _ = c.take(t.Context(), updates("2", 2, 1, 1)) }, "more than half a MiB")
}

func TestCreditForgetsTheOldestAccounts(t *testing.T) {
	c := newCredit(nil)
	event := updates("", 1, 1, 1)
	for n := range 2 * maxAccounts {
		event[0].SyncID = fmt.Sprint(n)
		require.NoError(t, c.take(t.Context(), event))
	}
	require.LessOrEqual(t, len(c.recent)+len(c.older), maxAccounts)
	_, known := c.account("0")
	require.False(t, known)
	_, known = c.account(event[0].SyncID)
	require.True(t, known)
}

// TestCreditRemembersAFullOrder has many other orders pass while one is full. It must not count as new.
func TestCreditRemembersAFullOrder(t *testing.T) {
	c := newCaller(t)
	hot := devtest.Name(t, "hot")
	version := 2
	send := func() error {
		err := c.call(t.Context(), updates(hot, version, 1, 500<<10))
		version++
		return err
	}
	var full *RunFullError
	for err := send(); !errors.As(err, &full); err = send() {
		require.NoError(t, err)
	}
	other := updates("", 1, 1, 1)
	for round := range 6 {
		for n := range maxAccounts / 3 {
			other[0].SyncID = fmt.Sprint(round, " ", n)
			require.NoError(t, c.credit.take(t.Context(), other))
		}
		require.ErrorAs(t, send(), &full)
	}
}

// TestCreditOfARunThatRests fills a run that then has nothing to do: no task would make it smaller, so it
// gets a further call.
func TestCreditOfARunThatRests(t *testing.T) {
	c := newCaller(t)
	resting := devtest.Name(t, "resting")
	w := worker.New(c.client, c.taskQueue, worker.Options{})
	w.RegisterWorkflowWithOptions(func(ctx workflow.Context, _ workflows.Input) error {
		return workflow.Sleep(ctx, time.Hour)
	}, workflow.RegisterOptions{Name: workflows.OrderSyncName})
	require.NoError(t, w.Start())
	t.Cleanup(w.Stop)
	version := 2
	send := func() error {
		err := c.call(t.Context(), updates(resting, version, 1, 500<<10))
		version++
		return err
	}
	require.NoError(t, send())
	devtest.Eventually(t, time.Minute, func() error {
		d, err := c.client.DescribeWorkflowExecution(t.Context(), workflows.WorkflowID(resting), "")
		if err != nil {
			return err
		}
		if run := d.GetWorkflowExecutionInfo(); !RunIsFull(run.GetHistoryLength(), run.GetHistorySizeBytes()) {
			return errors.Join(errors.New("not full"), send())
		}
		if d.GetPendingWorkflowTask() != nil {
			return errors.New("not at rest")
		}
		return nil
	}, "the run is large, and rests")
	c.credit.keep(resting, account{asked: true, bytes: creditBytes})
	require.NoError(t, send())
}

func TestAFullOrderThatFailedBeforeIsNoFailure(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBench(t, Limits{})
		failed := false
		b.answer = func(context.Context, []order.Event) error {
			if !failed {
				failed = true
				return errAway
			}
			return &RunFullError{SyncID: "a"}
		}
		require.True(t, b.lanes.take(b.records("a")))
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		require.NoError(t, b.lanes.troubles.lasting())
	})
}

func TestAFullOrderWaitsAndIsNoFailure(t *testing.T) {
	bubble(t, func(t *testing.T) {
		b := newBench(t, Limits{MaxBytes: 1 << 20}, "online", "store")
		var full atomic.Bool
		full.Store(true)
		b.answer = func(_ context.Context, events []order.Event) error {
			if events[0].SyncID == "hot" && full.Load() {
				return &RunFullError{SyncID: "hot", Events: fullEvents}
			}
			return nil
		}
		var hot []*record
		for range 50 {
			hot = append(hot, b.record("online", "hot", 10_000))
		}
		taken := make(chan bool)
		go func() { taken <- b.lanes.take(hot) }()
		time.Sleep(time.Minute)
		calls, waiting, shares := b.lanes.usage()
		require.Zero(t, calls)
		require.Equal(t, 1, waiting)
		require.LessOrEqual(t, shares["online"].bytes, 1<<20/2/laneShare, "a part of the topic's bytes is left to the other partitions")
		require.NoError(t, b.lanes.troubles.lasting(), "nothing fails")
		require.Less(t, len(b.carried("hot")), 40, "the run is asked about every few seconds")

		other := b.record("online", "other", 10_000)
		other.tracker = newTracker(other.message.Offset, true)
		require.True(t, b.lanes.take([]*record{other}), "another partition of the topic")
		synctest.Wait()
		require.Len(t, b.carried("other"), 1)

		full.Store(false)
		require.True(t, <-taken)
		time.Sleep(10 * time.Second)
		require.Equal(t, int64(50), b.tracker.position())
		_, waiting, _ = b.lanes.usage()
		require.Zero(t, waiting)
	})
}
