package workflows_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/workflowservice/v1"

	"ordersync/internal/devstack/devtest"
	"ordersync/internal/order"
	"ordersync/workflows"
)

// TestServerManyEventsWaitForAWorker has one order get more events than a task could insert by scanning, and
// more than the answer of one task has room for. The versions fall, which is the costliest order to insert.
// The target answers from memory: a task goes through as many steps as it can.
func TestServerManyEventsWaitForAWorker(t *testing.T) {
	l := onServer(t)
	l.worker.Stop()
	const sent = 15_000
	l.start(l.input(creation))
	for v := int64(sent); v > 1; {
		var batch []order.Event
		for len(batch) < 100 && v > 1 {
			batch = append(batch, ev(order.Update, v))
			v--
		}
		l.send(batch...)
	}
	l.startWorker()
	devtest.Eventually(t, 5*time.Minute, func() error {
		applied := 0
		l.shop.look(func(s *shop) { applied = len(s.ledger) })
		if applied < sent {
			return fmt.Errorf("%d applied", applied)
		}
		return nil
	}, "all are applied")
	l.shop.look(func(s *shop) {
		require.JSONEq(t, fmt.Sprintf(`{"total":%d}`, sent), string(s.data))
		require.Empty(t, s.dead)
	})
	l.send(ev(order.Invoice, sent+1))
	l.finish()
	r, err := replayer(workflows.OrderSync)
	require.NoError(t, err)
	for _, h := range l.histories() {
		requireNoFailedTask(t, h)
		require.NoError(t, r.ReplayWorkflowHistory(quiet{}, h))
	}
}

// requireNoFailedTask fails for a task that took too long, or that failed for any reason but signals that
// came in between.
func requireNoFailedTask(t *testing.T, h *historypb.History) {
	t.Helper()
	for _, e := range h.Events {
		if e.EventType == enumspb.EVENT_TYPE_WORKFLOW_TASK_TIMED_OUT {
			t.Fatalf("a workflow task timed out: %v", e)
		}
		if cause := e.GetWorkflowTaskFailedEventAttributes().GetCause(); cause != enumspb.WORKFLOW_TASK_FAILED_CAUSE_UNSPECIFIED &&
			cause != enumspb.WORKFLOW_TASK_FAILED_CAUSE_UNHANDLED_COMMAND && cause != enumspb.WORKFLOW_TASK_FAILED_CAUSE_FORCE_CLOSE_COMMAND {
			t.Fatalf("a workflow task failed: %v", e)
		}
	}
}

// TestServerBacklogGoesToTheDeadLetters signals past every credit, to an order that is not stuck but slow:
// the server must not terminate its run. Each event ends in the ledger or in the dead-letter topic.
func TestServerBacklogGoesToTheDeadLetters(t *testing.T) {
	l := onServer(t)
	release := make(chan struct{})
	l.shop.look(func(s *shop) {
		s.fail = func(order.Step) error {
			select {
			case <-release:
				return nil
			default:
				return down
			}
		}
	})
	l.worker.Stop()
	l.start(l.input(creation))
	const sent = 100 // 25 MiB
	big := json.RawMessage(`"` + strings.Repeat("x", 256<<10) + `"`)
	for v := int64(2); v < 2+sent; v++ {
		e := ev(order.Update, v)
		e.Data = big
		l.send(e)
	}
	close(release)
	l.startWorker()
	l.send(ev(order.Invoice, 1000))
	devtest.Eventually(t, 3*time.Minute, func() error {
		ended := 0
		l.shop.look(func(s *shop) {
			letters := map[string]bool{}
			for _, d := range s.dead {
				letters[string(d.Value)] = true
			}
			ended = len(s.ledger) + len(letters)
		})
		if ended < sent+2 {
			return fmt.Errorf("%d events are in the ledger or in the dead-letter topic", ended)
		}
		return nil
	}, "every event ended somewhere")
	l.shop.look(func(s *shop) {
		require.NotEmpty(t, s.dead)
		// A task that is repeated writes its letters again, after the others.
		seen, last := map[int64]bool{}, int64(0)
		for _, d := range s.dead {
			require.Equal(t, order.OrderBacklog, d.Reason)
			e, err := order.Decode(order.Record{Value: d.Value, Timestamp: epoch}, order.Online)
			require.NoError(t, err)
			if !seen[e.Version] {
				require.Greater(t, e.Version, last, "in order")
				last, seen[e.Version] = e.Version, true
			}
			require.NotContains(t, s.ledger, e.ID.String())
		}
		require.Len(t, s.ledger, sent+2-len(seen), "each event is in the ledger or in the dead-letter topic")
	})
	answer, err := l.client.ListWorkflow(t.Context(), &workflowservice.ListWorkflowExecutionsRequest{Query: fmt.Sprintf("WorkflowId=%q", l.id)})
	require.NoError(t, err)
	for _, run := range answer.GetExecutions() {
		require.NotEqual(t, enumspb.WORKFLOW_EXECUTION_STATUS_TERMINATED, run.GetStatus())
		require.NotEqual(t, enumspb.WORKFLOW_EXECUTION_STATUS_FAILED, run.GetStatus())
	}
}

// TestServerResultByHand completes a step by hand in ways that say nothing of the event: it is tried again.
func TestServerResultByHand(t *testing.T) {
	for name, result := range map[string]any{
		"null": nil, "empty": map[string]any{}, "another word": map[string]any{"outcome": "done", "status": "open"}, "a string": "applied",
	} {
		t.Run(name, func(t *testing.T) {
			l := onServer(t)
			l.shop.look(func(s *shop) { s.fail = func(order.Step) error { return down } })
			l.start(l.input(creation))
			var activity string
			waiting := func() error {
				d, err := l.client.DescribeWorkflowExecution(t.Context(), l.id, "")
				if err != nil {
					return err
				}
				if len(d.PendingActivities) != 1 || d.PendingActivities[0].ActivityId == activity {
					return fmt.Errorf("pending activities: %v", d.PendingActivities)
				}
				activity = d.PendingActivities[0].ActivityId
				return nil
			}
			devtest.Eventually(t, 30*time.Second, waiting, "the step waits")
			require.NoError(t, l.client.CompleteActivityByID(t.Context(), "default", l.id, "", activity, result, nil))
			devtest.Eventually(t, 30*time.Second, waiting, "the step is tried again")
			l.wait("still stuck", func(s workflows.State) bool { return s.Status == workflows.StateRetrying && s.Applied == 0 })
			l.shop.look(func(s *shop) { s.fail = nil })
			l.signal(workflows.SignalRetry, nil)
			l.applied(1)
			l.shop.look(func(s *shop) { require.Len(t, s.ledger, 1) })
		})
	}
}

// A conflict starts the run of an order that is invoiced. The run has nothing to wait for.
func TestAConflictLeavesNoRunOpen(t *testing.T) {
	b := setup(t)
	b.shop.status = order.Invoiced
	b.shop.write(update, order.Applied)
	other := update
	other.Version = 7
	b.start(other)
	require.Len(t, b.shop.dead, 1)
	require.Contains(t, b.shop.dead[0].Detail, update.Name(), "it names the other event")
	require.Less(t, b.Now().Sub(epoch), time.Hour)
}

// A run of the first rules dropped the second event; from now on it does not either.
func TestIdentityConflictUnderTheFirstRules(t *testing.T) {
	b := setup(t)
	other := update
	other.Version = 7
	b.after(time.Minute, func() { b.send(update, other) })
	b.after(time.Hour, func() { b.send(invoice) })
	first := rules
	first.Rules = workflows.RulesFirst
	b.run(workflows.Input{SyncID: "1", Settings: first, Events: []order.Event{creation}})
	require.NoError(t, b.GetWorkflowError())
	require.Len(t, b.shop.dead, 1)
	require.Equal(t, order.IdentityConflict, b.shop.dead[0].Reason)
}

// One input skips the orders that got stuck before a time. Repeated, it must not hit an order's next event.
func TestARepeatedBulkSkipOfAnUnknownOrdersInvoicesHitsOne(t *testing.T) {
	b := setup(t)
	second := ev(order.Invoice, 4)
	bulk := workflows.Skip{StuckBefore: epoch.Add(30 * time.Minute), Reason: "test orders"}
	b.after(time.Hour, func() { b.SignalWorkflow(workflows.SignalSkip, bulk) })
	b.after(2*time.Hour, func() {
		require.Equal(t, epoch.Add(time.Hour), b.state().StuckSince.UTC())
		b.SignalWorkflow(workflows.SignalSkip, bulk)
	})
	b.after(3*time.Hour, func() {
		require.NotContains(t, b.shop.steps, "skip invoice_creation v4")
		b.send(creation)
	})
	b.start(invoice, second)
	require.Equal(t, order.Invoiced, b.shop.status)
}

// An event that has the identity of another one goes to the dead-letter topic, wherever the other one is.
func TestIdentityConflicts(t *testing.T) {
	other := update
	other.Version = 7
	unversioned := ev(order.Update, 0)
	unversioned.Digest = strings.Repeat("0", 32)
	changed := unversioned
	changed.Digest, changed.Data = strings.Repeat("1", 32), json.RawMessage(`{"total":"changed"}`)
	again := update
	again.Data = json.RawMessage(`{"total":"as it is now"}`)
	for name, c := range map[string]struct {
		first, second order.Event
		conflict      bool
	}{
		"another version":            {update, other, true},
		"other data, no version":     {unversioned, changed, true},
		"the same, no version":       {unversioned, unversioned, false},
		"other data, same version":   {update, again, false},
		"from before the digests":    {ev(order.Update, 0), changed, false},
		"the creation's for another": {creation, func() order.Event { e := update; e.ID = creation.ID; return e }(), true},
	} {
		for _, when := range []string{"pending", "resolved", "in the ledger"} {
			t.Run(name+", "+when, func(t *testing.T) {
				b := setup(t)
				if c.first.Kind != order.Creation {
					b.shop.status = order.Open
				}
				switch when {
				case "pending":
					b.after(0, func() { b.send(c.first, c.second) })
				case "resolved":
					b.after(0, func() { b.send(c.first) })
					b.after(time.Minute, func() { b.send(c.second) })
				case "in the ledger": // and no more in the window
					b.after(0, func() { b.send(c.first) })
					b.after(time.Minute, func() {
						for i := range int64(300) {
							b.send(ev(order.Update, 100+i))
						}
					})
					b.after(2*time.Minute, func() { b.send(c.second) })
				}
				b.after(time.Hour, func() { b.send(ev(order.Invoice, 1000)) })
				b.start()
				require.Equal(t, order.Invoiced, b.shop.status, "later events go on")
				if !c.conflict {
					require.Empty(t, b.shop.dead)
					return
				}
				require.Len(t, b.shop.dead, 1)
				require.Equal(t, order.IdentityConflict, b.shop.dead[0].Reason)
				value, err := c.second.Message()
				require.NoError(t, err)
				require.JSONEq(t, string(value), string(b.shop.dead[0].Value))
			})
		}
	}
}
