package workflows_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"ordersync/activities"
	"ordersync/internal/order"
	"ordersync/workflows"
)

var rules = workflows.Settings{Rules: workflows.Rules, HoldWindow: time.Minute, IdleTimeout: 720 * time.Hour}

var epoch = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// ev makes an event of order 1; its version is 0 for none.
func ev(kind order.Kind, version int64) order.Event {
	e := order.Event{
		SyncID: "1", Kind: kind, Version: version, Data: json.RawMessage(fmt.Sprintf(`{"total":%d}`, version)),
		OccurredAt: epoch, Channel: order.Online, Source: order.Source{Topic: "online", ReceivedAt: epoch},
	}
	e.ID = order.ParseEventID(e.Name())
	return e
}

var (
	creation = ev(order.Creation, 1)
	update   = ev(order.Update, 2)
	invoice  = ev(order.Invoice, 3)
)

// shop is the Target of a test: the order rules' outcomes in a few lines, and a say for the test.
type shop struct {
	// mu is held by every attempt, and by what the test does while the workflow runs.
	mu     sync.Mutex
	status order.Status
	ledger map[string]order.Outcome
	// events are those of the ledger.
	events map[string]order.Event
	// steps are all attempts, in the order made.
	steps []string
	data  json.RawMessage
	// fail, if set, may fail an attempt.
	fail func(order.Step) error
	// dead are the dead letters, actions the audit, blocked the notices.
	dead    []order.DeadLetter
	actions []order.Action
	// auditDown refuses the audit alone.
	auditDown bool
	blocked   []order.Blocked
}

func (s *shop) Apply(_ context.Context, step order.Step) (order.Result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := step.Event
	s.steps = append(s.steps, e.Name())
	if s.fail != nil {
		if err := s.fail(step); err != nil {
			return order.Result{}, err
		}
	}
	if outcome, ok := s.ledger[e.ID.String()]; ok {
		if was := s.events[e.ID.String()]; !e.SameAs(was.Kind, was.Version, was.Digest) {
			return order.Result{Outcome: order.Conflict, Status: s.status, Recorded: was.Name()}, nil
		}
		return order.Result{Outcome: outcome, Status: s.status, Duplicate: true}, nil
	}
	if s.status == "" && (e.Kind == order.Invoice || e.Kind == order.Update && !step.InsertMissing) {
		return order.Result{Outcome: order.Missing}, nil
	}
	if s.status == "" {
		s.status = order.Open
	}
	if e.Kind == order.Invoice {
		s.status = order.Invoiced
	} else {
		s.data = e.Data
	}
	return s.write(e, order.Applied), nil
}

func (s *shop) Skip(_ context.Context, e order.Event) (order.Result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.steps = append(s.steps, "skip "+e.Name())
	return s.write(e, order.Skipped), nil
}

func (s *shop) write(e order.Event, o order.Outcome) order.Result {
	s.ledger[e.ID.String()] = o
	if s.events == nil {
		s.events = map[string]order.Event{}
	}
	s.events[e.ID.String()] = e
	return order.Result{Outcome: o, Status: s.status}
}

func (s *shop) DeadLetter(_ context.Context, letters ...order.DeadLetter) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dead = append(s.dead, letters...)
	return nil
}

func (s *shop) RecordAction(_ context.Context, a order.Action) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.auditDown {
		return down
	}
	s.actions = append(s.actions, a)
	return nil
}

func (s *shop) Blocked(b order.Blocked) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blocked = append(s.blocked, b)
}

var (
	refused = &order.Failure{Type: "CheckViolated", Permanent: true, Err: errors.New("CONSTRAINT total fails")}
	down    = &order.Failure{Type: "TargetUnavailable", Err: errors.New("connection refused")}
)

type bundle struct {
	*testsuite.TestWorkflowEnvironment
	t    *testing.T
	shop *shop
}

func setup(t *testing.T) *bundle {
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(quiet{})
	b := &bundle{TestWorkflowEnvironment: suite.NewTestWorkflowEnvironment(), t: t, shop: &shop{ledger: map[string]order.Outcome{}}}
	b.SetDataConverter(workflows.DataConverter())
	b.SetWorkerOptions(worker.Options{})
	b.SetStartTime(epoch)
	b.SetTestTimeout(20 * time.Second)
	b.RegisterWorkflowWithOptions(workflows.OrderSync, workflow.RegisterOptions{Name: workflows.OrderSyncName})
	b.RegisterActivity(activities.New(b.shop, b.shop, b.shop, slog.New(slog.DiscardHandler)))
	// The suite has no history in which to look for a signal's sender.
	var a *activities.Activities
	b.OnActivity(a.RecordAction, mock.Anything, mock.Anything).Return(func(ctx context.Context, audit activities.Audit) error {
		return b.shop.RecordAction(ctx, audit.Action)
	}).Maybe()
	require.NoError(t, b.SetTypedSearchAttributesOnStart(temporal.NewSearchAttributes(workflows.OrderID.ValueSet("1"))))
	return b
}

type quiet struct{}

func (quiet) Debug(string, ...any) {}
func (quiet) Info(string, ...any)  {}
func (quiet) Warn(string, ...any)  {}
func (quiet) Error(string, ...any) {}

func (b *bundle) run(in workflows.Input) {
	b.t.Helper()
	b.ExecuteWorkflow(workflows.OrderSyncName, in)
	require.True(b.t, b.IsWorkflowCompleted())
}

func (b *bundle) start(events ...order.Event) {
	b.t.Helper()
	b.run(workflows.Input{SyncID: "1", Settings: rules, Events: events})
	require.NoError(b.t, b.GetWorkflowError())
}

// after does something once the workflow has been running for d.
func (b *bundle) after(d time.Duration, do func()) {
	b.RegisterDelayedCallback(func() {
		b.shop.mu.Lock()
		defer b.shop.mu.Unlock()
		do()
	}, d)
}

func (b *bundle) send(events ...order.Event) {
	b.SignalWorkflow(workflows.SignalEvents, workflows.Batch{Events: events})
}

func (b *bundle) state() workflows.State {
	b.t.Helper()
	var s workflows.State
	value, err := b.QueryWorkflow(workflows.QueryState)
	require.NoError(b.t, err)
	require.NoError(b.t, value.Get(&s))
	return s
}

func (b *bundle) lastEffect() string {
	b.t.Helper()
	actions := b.state().Operator
	require.NotEmpty(b.t, actions)
	return actions[len(actions)-1].Effect
}

func TestAnOrderFromItsStart(t *testing.T) {
	b := setup(t)
	b.start(creation, update, invoice)
	require.Equal(t, []string{"order_creation v1", "order_updation v2", "invoice_creation v3"}, b.shop.steps)
}

func TestSignalsAreAppliedInTheOrderOfTheRules(t *testing.T) {
	b := setup(t)
	b.after(0, func() { b.send(update, creation) })
	b.after(time.Hour, func() { b.send(update, invoice) }) // the update again: dropped
	b.start()
	require.Equal(t, []string{"order_creation v1", "order_updation v2", "invoice_creation v3"}, b.shop.steps)
}

func TestHold(t *testing.T) {
	t.Run("a creation ends it", func(t *testing.T) {
		b := setup(t)
		b.after(30*time.Second, func() {
			s := b.state()
			require.Equal(t, workflows.StateHeld, s.Status)
			require.Contains(t, s.NextStep, epoch.Add(time.Minute).Format(time.RFC3339))
			b.send(creation, invoice)
		})
		b.start(update)
		require.Equal(t, []string{"order_updation v2", "order_creation v1", "order_updation v2", "invoice_creation v3"}, b.shop.steps)
		require.Less(t, b.Now().Sub(epoch), time.Minute)
	})
	t.Run("its end inserts the update", func(t *testing.T) {
		b := setup(t)
		b.start(update, invoice)
		require.Equal(t, order.Invoiced, b.shop.status)
		require.Equal(t, time.Minute, b.Now().Sub(epoch).Round(time.Second))
	})
	t.Run("its end blocks an invoice until an update comes", func(t *testing.T) {
		b := setup(t)
		b.after(time.Hour, func() {
			s := b.state()
			require.Equal(t, workflows.StateBlocked, s.Status)
			require.Equal(t, "UnknownOrder", s.Reason)
			b.send(update)
		})
		b.start(invoice)
		require.Equal(t, order.Invoiced, b.shop.status)
	})
	t.Run("retry ends it", func(t *testing.T) {
		b := setup(t)
		b.after(time.Second, func() { b.SignalWorkflow(workflows.SignalRetry, nil) })
		b.start(update, invoice)
		require.Less(t, b.Now().Sub(epoch), time.Minute)
	})
}

func TestBlocked(t *testing.T) {
	refuseUpdate := func(step order.Step) error {
		if step.Event.Kind == order.Update && strings.Contains(string(step.Event.Data), "2") {
			return refused
		}
		return nil
	}
	t.Run("waits with everything behind it, then retry", func(t *testing.T) {
		b := setup(t)
		b.shop.fail = refuseUpdate
		b.after(24*time.Hour, func() {
			s := b.state()
			require.Equal(t, workflows.StateBlocked, s.Status)
			require.Equal(t, "CheckViolated", s.Reason)
			require.Equal(t, "CONSTRAINT total fails", s.LastError)
			require.Equal(t, update.ID, s.Step.EventID)
			require.Equal(t, 2, s.PendingCount)
			require.Equal(t, epoch, s.StuckSince.UTC())
			require.Equal(t, []string{"order_creation v1", "order_updation v2"}, b.shop.steps, "no second attempt by itself")
			b.shop.fail = nil
			b.SignalWorkflow(workflows.SignalRetry, nil)
		})
		b.start(creation, update, invoice)
		require.Equal(t, order.Invoiced, b.shop.status)
		require.JSONEq(t, `{"total":2}`, string(b.shop.data))
	})
	t.Run("search attributes come and go", func(t *testing.T) {
		b := setup(t)
		b.shop.fail = refuseUpdate
		var upserts []string
		b.OnUpsertTypedSearchAttributes(temporal.NewSearchAttributes(workflows.SyncStatus.ValueSet("blocked"), workflows.SyncError.ValueSet("CheckViolated"), workflows.StuckSince.ValueSet(epoch))).
			Return(nil).Once().Run(func(mock.Arguments) { upserts = append(upserts, "set") })
		b.OnUpsertTypedSearchAttributes(temporal.NewSearchAttributes(workflows.SyncStatus.ValueUnset(), workflows.SyncError.ValueUnset(), workflows.StuckSince.ValueUnset())).
			Return(nil).Once().Run(func(mock.Arguments) { upserts = append(upserts, "unset") })
		b.after(time.Hour, func() { b.SignalWorkflow(workflows.SignalRetry, nil) }) // refused again: nothing to set
		b.after(2*time.Hour, func() { b.shop.fail = nil; b.SignalWorkflow(workflows.SignalRetry, nil) })
		b.start(creation, update, invoice)
		require.Equal(t, []string{"set", "unset"}, upserts)
		require.Equal(t, []order.Blocked{{
			SyncID: "1", Channel: order.Online, Event: "order_updation v2", Reason: "CheckViolated", Error: "CONSTRAINT total fails", Since: epoch,
		}}, b.shop.blocked, "one notice, whatever is tried")
		b.AssertExpectations(t)
	})
	t.Run("skip", func(t *testing.T) {
		b := setup(t)
		b.shop.fail = refuseUpdate
		b.after(time.Hour, func() { b.SignalWorkflow(workflows.SignalSkip, workflows.Skip{Reason: "a test order"}) })
		b.start(creation, update, invoice)
		require.Equal(t, order.Skipped, b.shop.ledger[update.ID.String()])
		require.Equal(t, order.Invoiced, b.shop.status)
		require.JSONEq(t, `{"total":1}`, string(b.shop.data))
	})
	t.Run("a doubled skip skips one", func(t *testing.T) {
		b := setup(t)
		b.shop.fail = func(step order.Step) error {
			if step.Event.Kind == order.Creation {
				return nil
			}
			return refused
		}
		b.after(time.Hour, func() {
			b.SignalWorkflow(workflows.SignalSkip, nil)
			b.SignalWorkflow(workflows.SignalSkip, nil)
		})
		b.after(2*time.Hour, func() {
			s := b.state()
			require.Equal(t, workflows.StateBlocked, s.Status)
			require.Equal(t, invoice.ID, s.Step.EventID)
			require.NotContains(t, b.shop.steps, "skip invoice_creation v3")
			b.SignalWorkflow(workflows.SignalSkip, workflows.Skip{EventID: update.ID.String()})
		})
		b.after(3*time.Hour, func() {
			require.Contains(t, b.lastEffect(), "ignored: the order is stuck on invoice_creation v3")
			b.shop.fail = nil
			b.SignalWorkflow(workflows.SignalRetry, nil)
		})
		b.start(creation, update, invoice)
	})
	t.Run("a repeated bulk skip leaves the next event alone", func(t *testing.T) {
		b := setup(t)
		b.shop.fail = func(order.Step) error { return refused }
		bulk := workflows.Skip{StuckBefore: epoch.Add(30 * time.Minute)}
		b.after(time.Hour, func() { b.SignalWorkflow(workflows.SignalSkip, bulk) })
		b.after(2*time.Hour, func() { b.SignalWorkflow(workflows.SignalSkip, bulk) })
		b.after(3*time.Hour, func() {
			require.Contains(t, b.lastEffect(), "ignored: the order got stuck on order_updation v2 later")
			require.Equal(t, 2, b.state().PendingCount)
			b.shop.fail = nil
			b.SignalWorkflow(workflows.SignalRetry, nil)
		})
		b.start(creation, update, invoice)
	})
	t.Run("amend", func(t *testing.T) {
		b := setup(t)
		b.shop.fail = refuseUpdate
		b.after(time.Hour, func() { b.SignalWorkflow(workflows.SignalAmend, workflows.Amend{Data: json.RawMessage(`null`)}) })
		b.after(2*time.Hour, func() {
			require.Contains(t, b.lastEffect(), "refused: missing-field")
			b.SignalWorkflow(workflows.SignalAmend, workflows.Amend{Data: json.RawMessage(`{"total": 7}`)})
		})
		b.start(creation, update, invoice)
		require.Len(t, b.shop.actions, 2)
		amended := b.shop.actions[1]
		require.Equal(t, "blocked: CheckViolated", amended.Before)
		require.Equal(t, update.ID, *amended.EventID)
		require.JSONEq(t, string(update.Data), string(amended.Original), "the audit keeps what was")
		require.JSONEq(t, `{"total":7}`, string(b.shop.data))
		require.Equal(t, order.Applied, b.shop.ledger[update.ID.String()])
	})
	t.Run("signals for an order that is not stuck are not remembered", func(t *testing.T) {
		b := setup(t)
		b.shop.fail = refuseUpdate
		b.after(time.Hour, func() { b.SignalWorkflow(workflows.SignalSkip, nil) })
		b.after(2*time.Hour, func() {
			require.Equal(t, "ignored: the order is not stuck", b.lastEffect())
			b.send(update)
		})
		b.after(3*time.Hour, func() {
			require.Equal(t, workflows.StateBlocked, b.state().Status)
			b.shop.fail = nil
			b.SignalWorkflow(workflows.SignalRetry, nil)
			b.send(invoice)
		})
		b.start(creation)
	})
}

func TestRetrying(t *testing.T) {
	t.Run("heals by itself", func(t *testing.T) {
		b := setup(t)
		b.shop.fail = func(order.Step) error { return down }
		b.after(30*time.Minute, func() {
			s := b.state()
			require.Equal(t, workflows.StateRetrying, s.Status)
			b.shop.fail = nil
		})
		b.start(creation, update, invoice)
		require.Equal(t, order.Invoiced, b.shop.status)
		require.Less(t, b.Now().Sub(epoch), 32*time.Minute, "an attempt a minute at least")
	})
	t.Run("retry tries at once", func(t *testing.T) {
		b := setup(t)
		b.shop.fail = func(order.Step) error { return down }
		healed := epoch.Add(30*time.Minute + 5*time.Second)
		b.after(healed.Sub(epoch), func() {
			b.shop.fail = nil
			b.SignalWorkflow(workflows.SignalRetry, nil)
		})
		b.start(creation, invoice)
		require.Less(t, b.Now().Sub(healed), time.Second)
	})
	t.Run("a permanent error ends it", func(t *testing.T) {
		b := setup(t)
		b.shop.fail = func(order.Step) error { return down }
		b.after(time.Minute, func() { b.shop.fail = func(order.Step) error { return refused } })
		b.after(time.Hour, func() {
			require.Equal(t, workflows.StateBlocked, b.state().Status)
			b.SignalWorkflow(workflows.SignalSkip, nil)
		})
		b.after(2*time.Hour, func() { b.shop.fail = nil; b.send(update, invoice) })
		b.start(creation)
		require.Equal(t, order.Skipped, b.shop.ledger[creation.ID.String()])
	})
	t.Run("skip while retrying", func(t *testing.T) {
		b := setup(t)
		b.shop.fail = func(step order.Step) error {
			if step.Event.Kind == order.Update {
				return down
			}
			return nil
		}
		b.after(time.Hour, func() { b.SignalWorkflow(workflows.SignalSkip, nil) })
		b.start(creation, update, invoice)
		require.Equal(t, order.Skipped, b.shop.ledger[update.ID.String()])
	})
	t.Run("events that come meanwhile wait behind it", func(t *testing.T) {
		b := setup(t)
		b.shop.fail = func(order.Step) error { return down }
		b.after(time.Hour, func() { b.send(invoice) })
		b.after(time.Hour+time.Second, func() { b.send(update) })
		b.after(2*time.Hour, func() { b.shop.fail = nil })
		b.start(creation)
		require.Equal(t, []string{"order_creation v1", "order_updation v2", "invoice_creation v3"}, b.shop.steps[len(b.shop.steps)-3:])
	})
}

func TestIdle(t *testing.T) {
	t.Run("an order that is never invoiced completes after the idle timeout", func(t *testing.T) {
		b := setup(t)
		b.after(100*time.Hour, func() {
			require.Equal(t, workflows.StateIdle, b.state().Status)
			b.send(update)
		})
		b.start(creation)
		require.Equal(t, 820*time.Hour, b.Now().Sub(epoch).Round(time.Minute), "the timeout counts from the last event")
	})
	t.Run("0 completes as soon as nothing is pending", func(t *testing.T) {
		b := setup(t)
		in := workflows.Input{SyncID: "1", Settings: rules, Events: []order.Event{creation}}
		in.Settings.IdleTimeout = 0
		b.run(in)
		require.NoError(t, b.GetWorkflowError())
		require.Less(t, b.Now().Sub(epoch), time.Minute)
	})
}

func TestLateEventAfterCompletionEndsFromTheLedger(t *testing.T) {
	b := setup(t)
	b.shop.status = order.Invoiced
	b.shop.ledger[update.ID.String()] = order.Applied
	b.start(update)
	require.Equal(t, []string{"order_updation v2"}, b.shop.steps)
	require.Nil(t, b.shop.data, "it was applied before")
}

func TestUnknownRulesFailTheTaskNotTheWorkflow(t *testing.T) {
	b := setup(t)
	in := workflows.Input{SyncID: "1", Settings: rules}
	in.Settings.Rules = 99
	require.PanicsWithValue(t, "x", func() {
		defer func() {
			if p := recover(); p != nil {
				require.Contains(t, fmt.Sprint(p), "rules 99")
				panic("x")
			}
		}()
		b.ExecuteWorkflow(workflows.OrderSyncName, in)
		if err := b.GetWorkflowError(); err != nil {
			panic(err)
		}
	})
}

func TestContinueAsNewCarriesWhatIsNotDone(t *testing.T) {
	first := setup(t)
	first.shop.fail = func(order.Step) error { return refused }
	first.after(time.Hour, func() {
		first.SetContinueAsNewSuggested(true)
		first.send(update, invoice)
	})
	first.run(workflows.Input{SyncID: "1", Settings: rules, Events: []order.Event{creation}})
	in := continued(t, first)
	require.Nil(t, in.Events)
	require.Equal(t, rules, in.Settings)

	second := setup(t)
	second.after(time.Hour, func() {
		s := second.state()
		require.Equal(t, workflows.StateBlocked, s.Status)
		require.Equal(t, creation.ID, s.Step.EventID)
		require.Equal(t, epoch, s.StuckSince.UTC(), "stuck since before")
		require.Equal(t, 3, s.PendingCount)
		require.Empty(t, second.shop.steps, "nothing is tried before somebody says so")
		second.SignalWorkflow(workflows.SignalRetry, nil)
	})
	second.run(in)
	require.NoError(t, second.GetWorkflowError())
	require.Equal(t, order.Invoiced, second.shop.status)
}

func TestContinueAsNewCarriesTheHoldDeadline(t *testing.T) {
	first := setup(t)
	first.after(40*time.Second, func() {
		first.SetContinueAsNewSuggested(true)
		first.send(invoice)
	})
	first.run(workflows.Input{SyncID: "1", Settings: rules, Events: []order.Event{update}})
	second := setup(t)
	second.SetStartTime(epoch.Add(40 * time.Second))
	second.run(continued(t, first))
	require.NoError(t, second.GetWorkflowError())
	require.Equal(t, time.Minute, second.Now().Sub(epoch).Round(time.Second))
}

func TestContinueAsNewWhileRetrying(t *testing.T) {
	first := setup(t)
	first.shop.fail = func(order.Step) error { return down }
	first.after(time.Hour, func() {
		first.SetContinueAsNewSuggested(true)
		first.send(update)
	})
	first.run(workflows.Input{SyncID: "1", Settings: rules, Events: []order.Event{creation}})
	in := continued(t, first)
	second := setup(t)
	second.OnUpsertTypedSearchAttributes(temporal.NewSearchAttributes(workflows.SyncStatus.ValueUnset(), workflows.SyncError.ValueUnset(), workflows.StuckSince.ValueUnset())).Return(nil).Once()
	second.shop.fail = func(order.Step) error { return down }
	second.after(time.Hour, func() { second.shop.fail = nil; second.send(invoice) })
	second.run(in)
	require.NoError(t, second.GetWorkflowError())
	second.AssertExpectations(t) // "retrying" was not set a second time
}

func continued(t *testing.T, b *bundle) (in workflows.Input) {
	t.Helper()
	var again *workflow.ContinueAsNewError
	require.ErrorAs(t, b.GetWorkflowError(), &again)
	require.NoError(t, workflows.DataConverter().FromPayloads(again.Input, &in))
	return in
}

func TestOverflowGoesToTheDeadLetterTopicInOrder(t *testing.T) {
	b := setup(t)
	b.shop.fail = func(order.Step) error { return refused }
	const sent = 1500
	b.after(time.Minute, func() {
		for v := int64(2); v < 2+sent; v += 100 {
			var batch []order.Event
			for i := range int64(100) {
				batch = append(batch, ev(order.Update, v+i))
			}
			b.send(batch...)
		}
	})
	b.after(time.Hour, func() {
		require.Equal(t, 1000, b.state().PendingCount)
		require.Len(t, b.shop.dead, sent+1-1000)
		for i, d := range b.shop.dead {
			require.Equal(t, order.OrderBlocked, d.Reason)
			e, err := order.Decode(order.Record{Topic: "online", Value: d.Value}, order.Online)
			require.NoError(t, err)
			require.Equal(t, ev(order.Update, int64(1001+i)).ID, e.ID, "in order, with its identity")
		}
		b.shop.fail = nil
		b.SignalWorkflow(workflows.SignalRetry, nil)
		b.send(ev(order.Invoice, 5000))
	})
	b.start(creation)
	require.Len(t, b.shop.ledger, 1001)
}

// raw sends a payload as it is.
func (b *bundle) raw(signal string, p *commonpb.Payload) {
	b.SignalWorkflow(signal, converter.NewRawValue(p))
}

func payload(encoding, data string) *commonpb.Payload {
	return &commonpb.Payload{Metadata: map[string][]byte{converter.MetadataEncoding: []byte(encoding)}, Data: []byte(data)}
}

func TestUndecodableEventsBlockVisibly(t *testing.T) {
	for name, p := range map[string]*commonpb.Payload{
		"another encoding":        payload("binary/encrypted", "\x00\x01"),
		"no JSON":                 payload("json/plain", "{"),
		"another type":            payload("json/plain", `"events"`),
		"no events":               payload("json/plain", `{}`),
		"an event of other order": payload("json/plain", `{"events":[{"sync_id":"2"}]}`),
		"an event without id":     payload("json/plain", `{"events":[{"sync_id":"1","event":"order_creation","data":1}]}`),
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			b.after(time.Minute, func() { b.raw(workflows.SignalEvents, p); b.send(update, invoice) })
			b.after(time.Hour, func() {
				s := b.state()
				require.Equal(t, workflows.StateBlocked, s.Status)
				require.Equal(t, workflows.UndecodableSignal, s.Reason)
				require.Len(t, b.shop.steps, 1, "the order waits: an earlier event may be in the signal")
				b.SignalWorkflow(workflows.SignalRetry, nil)
			})
			b.after(2*time.Hour, func() {
				require.Contains(t, b.lastEffect(), "tried to read the events signal again")
				b.SignalWorkflow(workflows.SignalAmend, workflows.Amend{Data: json.RawMessage(`1`)})
			})
			b.after(3*time.Hour, func() {
				require.Contains(t, b.lastEffect(), "ignored")
				b.SignalWorkflow(workflows.SignalSkip, nil)
			})
			b.start(creation)
			require.Equal(t, order.Invoiced, b.shop.status)
			require.Len(t, b.shop.dead, 1)
			require.Equal(t, p.GetData(), b.shop.dead[0].Value, "the original bytes")
			require.Equal(t, order.Undecodable, b.shop.dead[0].Reason)
		})
	}
}

func TestAFullQueueBehindAnUndecodableSignalOverflowsAndContinues(t *testing.T) {
	b := setup(t)
	b.after(time.Minute, func() {
		b.raw(workflows.SignalEvents, payload("json/plain", "{"))
		for v := int64(2); v < 1502; v += 100 {
			var batch []order.Event
			for i := range int64(100) {
				batch = append(batch, ev(order.Update, v+i))
			}
			b.send(batch...)
		}
	})
	b.after(time.Hour, func() {
		require.Equal(t, 1000, b.state().PendingCount)
		require.Len(t, b.shop.dead, 500)
		b.SignalWorkflow(workflows.SignalSkip, workflows.Skip{EventID: update.ID.String()})
	})
	b.after(2*time.Hour, func() {
		require.Contains(t, b.lastEffect(), "ignored", "the signal named an event")
		b.SetContinueAsNewSuggested(true)
		b.SignalWorkflow(workflows.SignalRetry, nil)
	})
	b.run(workflows.Input{SyncID: "1", Settings: rules, Events: []order.Event{creation}})
	in := continued(t, b)
	require.Equal(t, 1000, in.Carried.Inbox.Len())
}

func TestAnAuditThatCannotBeWrittenHoldsUpNeitherDeadLettersNorAContinuation(t *testing.T) {
	first := setup(t)
	first.shop.fail = func(order.Step) error { return refused }
	first.shop.auditDown = true
	first.after(time.Minute, func() {
		first.SignalWorkflow(workflows.SignalRetry, workflows.Retry{By: "support@shop"})
		for v := int64(2); v < 1502; v += 100 {
			var batch []order.Event
			for i := range int64(100) {
				batch = append(batch, ev(order.Update, v+i))
			}
			first.send(batch...)
		}
	})
	first.after(2*time.Minute, func() {
		require.NotEmpty(t, first.shop.dead)
	})
	first.after(time.Hour, func() {
		first.SetContinueAsNewSuggested(true)
		first.send(invoice)
	})
	first.run(workflows.Input{SyncID: "1", Settings: rules, Events: []order.Event{creation}})
	in := continued(t, first)
	require.Len(t, in.Carried.Audits, 1)

	second := setup(t)
	second.after(time.Hour, func() {
		second.SignalWorkflow(workflows.SignalRetry, workflows.Retry{By: "night@shop"})
		second.send(ev(order.Invoice, 9999))
	})
	second.run(in)
	require.NoError(t, second.GetWorkflowError())
	require.Len(t, second.shop.actions, 2)
	require.Equal(t, "support@shop", second.shop.actions[0].By)
}

func TestOperatorSignalsInEveryForm(t *testing.T) {
	for name, c := range map[string]struct {
		payload *commonpb.Payload
		effect  string
	}{
		"nil":              {payload("binary/null", ""), "tried"},
		"JSON null":        {payload("json/plain", "null"), "tried"},
		"a string":         {payload("json/plain", `"the ERP was mended"`), "tried"},
		"an empty object":  {payload("json/plain", `{}`), "tried"},
		"another encoding": {payload("binary/encrypted", "x"), "refused"},
		"a number":         {payload("json/plain", `1`), "refused"},
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			b.shop.fail = func(order.Step) error { return refused }
			b.after(time.Minute, func() { b.raw(workflows.SignalRetry, c.payload) })
			b.after(time.Hour, func() {
				require.Contains(t, b.lastEffect(), c.effect)
				b.shop.fail = nil
				b.SignalWorkflow(workflows.SignalRetry, nil)
			})
			b.start(creation, invoice)
		})
	}
}

func TestEveryOperatorSignalIsInTheAudit(t *testing.T) {
	b := setup(t)
	b.shop.fail = func(order.Step) error { return refused }
	b.after(time.Minute, func() {
		b.SignalWorkflow(workflows.SignalRetry, workflows.Retry{By: "support@shop", Reason: "mended"})
		b.SignalWorkflow(workflows.SignalRetry, workflows.Retry{By: "support@shop"})
		b.raw(workflows.SignalAmend, payload("json/plain", "{"))
		b.SignalWorkflow(workflows.SignalSkip, workflows.Skip{By: "night@shop", Reason: "test order"})
	})
	b.after(time.Hour, func() { b.shop.fail = nil; b.send(update, invoice) })
	b.start(creation)
	effects := map[string]int{}
	ids := map[string]bool{}
	for _, a := range b.shop.actions {
		effects[a.Name+" by "+a.By+": "+strings.SplitN(a.Effect, " ", 2)[0]]++
		ids[a.ID.String()] = true
	}
	require.Equal(t, map[string]int{"retry by support@shop: tried": 2, "amend by : refused:": 1, "skip by night@shop: skipped": 1}, effects)
	require.Len(t, ids, 4)
}

func TestTheAuditIsBounded(t *testing.T) {
	b := setup(t)
	b.shop.fail = func(order.Step) error { return refused }
	b.after(time.Minute, func() {
		for range 150 {
			b.SignalWorkflow(workflows.SignalRetry, nil)
		}
	})
	b.after(time.Hour, func() {
		require.Contains(t, b.lastEffect(), "refused: the audit")
		require.Len(t, b.shop.actions, 100)
		b.shop.fail = nil
		b.SignalWorkflow(workflows.SignalRetry, nil)
	})
	b.start(creation, invoice)
	require.Len(t, b.shop.actions, 101)
}

func TestRequestToCancelIsRefused(t *testing.T) {
	b := setup(t)
	b.after(time.Hour, func() { b.CancelWorkflow() })
	b.after(2*time.Hour, func() {
		require.Contains(t, b.lastEffect(), "refused")
		b.send(update, invoice)
	})
	b.start(creation)
	require.Equal(t, order.Invoiced, b.shop.status)
}

// A repeated signal is about the event that it names, and leaves the next one alone.
func TestARepeatedSignalLeavesTheNextEventAlone(t *testing.T) {
	for name, event := range map[string]string{"the whole id": update.ID.String(), "its first digits": update.ID.String()[:order.ShortID]} {
		t.Run(name, func(t *testing.T) {
			third := ev(order.Update, 3)
			b := setup(t)
			b.shop.fail = func(step order.Step) error {
				if step.Event.Kind == order.Update && !strings.Contains(string(step.Event.Data), "mended") {
					return refused
				}
				return nil
			}
			amend := workflows.Amend{EventID: event, Data: json.RawMessage(`{"mended":2}`)}
			b.after(time.Hour, func() { b.SignalWorkflow(workflows.SignalAmend, amend) })
			b.after(time.Hour+time.Second, func() {
				require.Equal(t, third.ID, b.state().Step.EventID)
				b.SignalWorkflow(workflows.SignalAmend, amend)
				b.SignalWorkflow(workflows.SignalSkip, workflows.Skip{EventID: event})
				b.SignalWorkflow(workflows.SignalRetry, workflows.Retry{EventID: event})
			})
			b.after(2*time.Hour, func() {
				for _, a := range b.state().Operator[1:] {
					require.Equal(t, workflows.Ignored, a.Verdict)
					require.Equal(t, "ignored: the order is stuck on order_updation v3 "+third.ID.String(), a.Effect)
				}
				require.Equal(t, 1, strings.Count(strings.Join(b.shop.steps, " "), "v3"), "v3 was not tried again")
				require.JSONEq(t, `{"mended":2}`, string(b.shop.data))
				b.shop.fail = nil
				b.SignalWorkflow(workflows.SignalRetry, nil)
				b.send(ev(order.Invoice, 4))
			})
			b.start(creation, update, third)
			require.JSONEq(t, string(third.Data), string(b.shop.data))
		})
	}
}

func TestTheBeginningOfSeveralIdsNamesNone(t *testing.T) {
	twin := ev(order.Update, 3)
	twin.ID = update.ID
	twin.ID[15]++
	b := setup(t)
	b.shop.fail = func(step order.Step) error {
		if step.Event.Kind == order.Update {
			return refused
		}
		return nil
	}
	b.after(time.Hour, func() {
		b.SignalWorkflow(workflows.SignalSkip, workflows.Skip{EventID: update.ID.String()[:order.ShortID]})
	})
	b.after(2*time.Hour, func() {
		require.Contains(t, b.lastEffect(), "refused: event_id "+update.ID.String()[:order.ShortID]+" is the beginning of several ids")
		b.shop.fail = nil
		b.SignalWorkflow(workflows.SignalSkip, workflows.Skip{EventID: update.ID.String()})
		b.send(ev(order.Invoice, 4))
	})
	b.start(creation, update, twin)
	require.Equal(t, order.Skipped, b.shop.ledger[update.ID.String()])
	require.Equal(t, order.Applied, b.shop.ledger[twin.ID.String()])
}

// What an input says that is not understood may have been meant to keep the signal from this event.
func TestAnInputThatIsNotUnderstoodWholeDoesNothing(t *testing.T) {
	for input, problem := range map[string]string{
		`{"eventId":"x"}`:                 `it has an unknown field "eventId": skip takes by, event_id, reason, stuck_before`,
		`{"Event_ID":"x"}`:                `it has an unknown field "Event_ID"`,
		`{"data":{"total":1}}`:            `it has an unknown field "data"`,
		`{"event_id":1}`:                  "its field event_id",
		`{"event_id":null}`:               "its field event_id is empty",
		`{"event_id":""}`:                 "its field event_id is empty",
		`{"reason":["x"]}`:                "its field reason",
		`{"stuck_before":"yesterday"}`:    "its field stuck_before",
		`{"stuck_before":null}`:           "its field stuck_before is empty",
		`{"event_id":"x","event_id":"y"}`: `its field "event_id" is there twice`,
		`{"reason":"a"} {"event_id":"y"}`: "something follows",
		`{"reason":"a"}}`:                 "something follows",
		`{"reason":"a"`:                   "it is no JSON object",
		`["x"]`:                           "it is neither a reason",
		`1`:                               "it is neither a reason",
		`"why" "what"`:                    "invalid character",
		"\"\xff\" {}":                     "invalid character",
		`{"reason":"` + strings.Repeat("x", 9) + `","who":"me"}`: `it has an unknown field "who"`,
	} {
		t.Run(input, func(t *testing.T) {
			b := setup(t)
			b.shop.fail = func(order.Step) error { return refused }
			b.after(time.Minute, func() { b.raw(workflows.SignalSkip, payload("json/plain", input)) })
			b.after(time.Hour, func() {
				actions := b.state().Operator
				require.Len(t, actions, 1)
				require.Equal(t, workflows.Refused, actions[0].Verdict)
				require.Contains(t, actions[0].Effect, "refused: its input could not be read: ")
				require.Contains(t, actions[0].Effect, problem)
				require.Len(t, b.shop.actions, 1, "the audit has it")
				require.Equal(t, actions[0].Effect, b.shop.actions[0].Effect)
				require.Equal(t, workflows.StateBlocked, b.state().Status)
				b.shop.fail = nil
				b.SignalWorkflow(workflows.SignalRetry, nil)
			})
			b.start(creation, invoice)
			require.Equal(t, order.Applied, b.shop.ledger[creation.ID.String()])
		})
	}
}

// Runs under the first rules keep what their histories did: unknown fields are ignored, and an event is named
// by its whole id.
func TestTheFirstRulesKeepTheirWay(t *testing.T) {
	first := rules
	first.Rules = workflows.RulesFirst
	b := setup(t)
	b.shop.fail = func(order.Step) error { return refused }
	b.after(time.Minute, func() {
		require.Contains(t, b.state().NextStep, "ordersync retry --event-id "+creation.ID.String()+" 1")
		b.SignalWorkflow(workflows.SignalSkip, workflows.Skip{EventID: creation.ID.String()[:order.ShortID]})
	})
	b.after(time.Hour, func() {
		require.Contains(t, b.lastEffect(), "ignored")
		b.raw(workflows.SignalSkip, payload("json/plain", `{"eventId":"x"}`))
		b.shop.fail = nil
	})
	b.after(2*time.Hour, func() { b.send(update, invoice) })
	b.run(workflows.Input{SyncID: "1", Settings: first, Events: []order.Event{creation}})
	require.NoError(t, b.GetWorkflowError())
	require.Equal(t, order.Skipped, b.shop.ledger[creation.ID.String()])
}

// An unreadable signal has a name as well, so that what is proposed about it leaves the next event alone.
func TestAnUnreadableSignalIsNamed(t *testing.T) {
	b := setup(t)
	b.shop.fail = func(step order.Step) error {
		if step.Event.Kind == order.Update {
			return refused
		}
		return nil
	}
	var named string
	b.after(time.Minute, func() { b.raw(workflows.SignalEvents, payload("json/plain", "{")); b.send(update) })
	b.after(time.Hour, func() {
		s := b.state()
		require.Equal(t, workflows.UndecodableSignal, s.Reason)
		require.Contains(t, s.NextStep, "ordersync skip --event-id "+s.StuckOn[:order.ShortID]+" --reason WHY 1")
		named = s.StuckOn[:order.ShortID]
		b.SignalWorkflow(workflows.SignalRetry, workflows.Retry{EventID: named})
	})
	b.after(2*time.Hour, func() {
		require.Contains(t, b.lastEffect(), "tried to read the events signal again")
		require.Equal(t, named, b.state().StuckOn[:order.ShortID], "a retry changes no name")
		b.SignalWorkflow(workflows.SignalSkip, workflows.Skip{EventID: named})
		b.SignalWorkflow(workflows.SignalSkip, workflows.Skip{EventID: named})
	})
	b.after(3*time.Hour, func() {
		require.Contains(t, b.lastEffect(), "ignored")
		require.Equal(t, update.ID, b.state().Step.EventID)
		require.Len(t, b.shop.dead, 1)
		b.SignalWorkflow(workflows.SignalSkip, workflows.Skip{EventID: named})
	})
	b.after(4*time.Hour, func() {
		require.Contains(t, b.lastEffect(), "ignored: the order is stuck on order_updation v2")
		b.shop.fail = nil
		b.SignalWorkflow(workflows.SignalRetry, nil)
		b.send(invoice)
	})
	b.start(creation)
	require.Equal(t, order.Applied, b.shop.ledger[update.ID.String()])
}
