package workflows_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
	"google.golang.org/protobuf/encoding/protojson"

	"ordersync/activities"
	"ordersync/internal/connect"
	"ordersync/internal/devstack/devtest"
	"ordersync/internal/order"
	"ordersync/workflows"
	"ordersync/workflows/inbox"
)

// record rewrites the histories that the replay test holds the workflow against. Do so only with a
// new number of Rules: an open run of the old ones would break on what the replay test then hides.
var record = flag.Bool("record", false, "rewrite testdata/histories from the runs of this test")

func TestMain(m *testing.M) { devtest.Main(m) }

// look does something with a shop that a worker uses.
func (s *shop) look(at func(*shop)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at(s)
}

// live is an order on a real server, with a worker of its own.
type live struct {
	t      *testing.T
	client client.Client
	queue  string
	id     string
	shop   *shop
	worker worker.Worker
}

func onServer(t *testing.T) *live {
	t.Helper()
	queue := devtest.Name(t, "queue")
	l := &live{t: t, queue: queue, id: workflows.WorkflowID(queue), shop: &shop{ledger: map[string]order.Outcome{}}}
	l.client = dial(t, devtest.Temporal(t))
	l.startWorker()
	t.Cleanup(func() { l.worker.Stop(); l.client.Close() })
	return l
}

func dial(t *testing.T, address string) client.Client {
	t.Helper()
	c, err := connect.Temporal(t.Context(), client.Options{HostPort: address, Identity: "test", DataConverter: workflows.DataConverter(), Logger: quiet{}})
	require.NoError(t, err)
	return c
}

func (l *live) startWorker() {
	l.worker = newWorker(l.client, l.queue, l.shop)
	require.NoError(l.t, l.worker.Start())
}

func newWorker(c client.Client, queue string, shop interface {
	activities.Target
	activities.DeadLetters
	activities.Notices
}) worker.Worker {
	w := worker.New(c, queue, worker.Options{})
	w.RegisterWorkflowWithOptions(workflows.OrderSync, workflow.RegisterOptions{Name: workflows.OrderSyncName})
	w.RegisterActivity(activities.New(shop, shop, shop, slog.New(slog.DiscardHandler)))
	return w
}

// mine makes an event one of the live order.
func (l *live) mine(e order.Event) order.Event {
	e.SyncID = strings.TrimPrefix(l.id, "order-")
	return e
}

func (l *live) all(events []order.Event) []order.Event {
	out := make([]order.Event, len(events))
	for i, e := range events {
		out[i] = l.mine(e)
	}
	return out
}

func (l *live) input(events ...order.Event) workflows.Input {
	return workflows.Input{SyncID: strings.TrimPrefix(l.id, "order-"), Settings: rules, Events: l.all(events)}
}

func (l *live) options() client.StartWorkflowOptions {
	return client.StartWorkflowOptions{
		ID: l.id, TaskQueue: l.queue, WorkflowTaskTimeout: 5 * time.Second, EnableEagerStart: true,
		TypedSearchAttributes: temporal.NewSearchAttributes(workflows.OrderID.ValueSet(l.id), workflows.Channel.ValueSet("online")),
	}
}

func (l *live) start(in workflows.Input) {
	l.t.Helper()
	_, err := l.client.ExecuteWorkflow(l.t.Context(), l.options(), workflows.OrderSyncName, in)
	require.NoError(l.t, err)
}

// send signals with start, as the starter does.
func (l *live) send(events ...order.Event) {
	l.t.Helper()
	o := l.options()
	o.EnableEagerStart = false
	_, err := l.client.SignalWithStartWorkflow(l.t.Context(), l.id, workflows.SignalEvents, workflows.Batch{Events: l.all(events)}, o, workflows.OrderSyncName, l.input())
	require.NoError(l.t, err)
}

func (l *live) signal(name string, arg any) {
	l.t.Helper()
	require.NoError(l.t, l.client.SignalWorkflow(l.t.Context(), l.id, "", name, arg))
}

func (l *live) finish() {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(l.t.Context(), time.Minute)
	defer cancel()
	require.NoError(l.t, l.client.GetWorkflow(ctx, l.id, "").Get(ctx, nil))
}

func (l *live) state() (s workflows.State, err error) {
	value, err := l.client.QueryWorkflow(l.t.Context(), l.id, "", workflows.QueryState)
	if err != nil {
		return s, err
	}
	err = value.Get(&s)
	return s, err
}

// wait waits until the order's state is as wanted.
func (l *live) wait(what string, want func(workflows.State) bool) {
	l.t.Helper()
	devtest.Eventually(l.t, 30*time.Second, func() error {
		s, err := l.state()
		if err == nil && !want(s) {
			err = fmt.Errorf("%+v", s)
		}
		return err
	}, what)
}

func (l *live) applied(n int64) {
	l.t.Helper()
	l.wait(fmt.Sprintf("%d applied", n), func(s workflows.State) bool { return s.Applied == n })
}

func (l *live) history() *historypb.History {
	l.t.Helper()
	return l.historyOf("")
}

// histories returns those of the order's last run and of all that continued as new before it, the last first.
func (l *live) histories() []*historypb.History {
	l.t.Helper()
	var all []*historypb.History
	for run := ""; ; {
		h := l.historyOf(run)
		all = append(all, h)
		if run = h.Events[0].GetWorkflowExecutionStartedEventAttributes().GetContinuedExecutionRunId(); run == "" {
			return all
		}
	}
}

func (l *live) historyOf(run string) *historypb.History {
	l.t.Helper()
	h := &historypb.History{}
	for it := l.client.GetWorkflowHistory(l.t.Context(), l.id, run, false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT); it.HasNext(); {
		e, err := it.Next()
		require.NoError(l.t, err)
		h.Events = append(h.Events, e)
	}
	return h
}

// keep records the order's history for the replay test.
func (l *live) keep(name string) {
	l.t.Helper()
	if !*record {
		return
	}
	raw, err := protojson.MarshalOptions{Multiline: true}.Marshal(l.history())
	require.NoError(l.t, err)
	path := filepath.Join("testdata", "histories", fmt.Sprintf("rules%d-%s.json", workflows.Rules, name))
	require.NoError(l.t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(l.t, os.WriteFile(path, append(raw, '\n'), 0o600))
}

// actions counts what Temporal Cloud would bill: starts, signals, activities, timers, upserts, and
// the local activities of one task as one (https://docs.temporal.io/cloud/actions).
func actions(h *historypb.History) (n int) {
	local := false
	for _, e := range h.Events {
		switch e.EventType {
		case enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_STARTED, enumspb.EVENT_TYPE_WORKFLOW_EXECUTION_SIGNALED,
			enumspb.EVENT_TYPE_ACTIVITY_TASK_SCHEDULED, enumspb.EVENT_TYPE_TIMER_STARTED,
			enumspb.EVENT_TYPE_UPSERT_WORKFLOW_SEARCH_ATTRIBUTES:
			n++
		case enumspb.EVENT_TYPE_WORKFLOW_TASK_COMPLETED:
			local = false
		case enumspb.EVENT_TYPE_MARKER_RECORDED:
			if !local {
				n++
			}
			local = true
		}
	}
	return n
}

func TestServerOneRequestOfThreeEvents(t *testing.T) {
	l := onServer(t)
	l.start(l.input(creation, update, invoice))
	l.finish()
	h := l.history()
	require.True(t, h.Events[0].GetWorkflowExecutionStartedEventAttributes().EagerExecutionAccepted, "the start was not eager")
	require.LessOrEqual(t, len(h.Events), 11)
	require.Equal(t, 2, actions(h))
	t.Logf("%d history events, %d actions", len(h.Events), actions(h))
	l.keep("one-request")
}

func TestServerSpreadOverTime(t *testing.T) {
	l := onServer(t)
	l.start(l.input(creation))
	l.applied(1)
	l.send(update)
	l.applied(2)
	l.send(invoice)
	l.finish()
	h := l.history()
	require.LessOrEqual(t, len(h.Events), 18)
	t.Logf("%d history events, %d actions", len(h.Events), actions(h))
	l.keep("spread")
}

func TestServerSignalWithoutInput(t *testing.T) {
	l := onServer(t)
	l.shop.look(func(s *shop) { s.fail = func(order.Step) error { return refused } })
	l.start(l.input(creation, update))
	l.wait("blocked", func(s workflows.State) bool { return s.Status == workflows.StateBlocked })
	// As `temporal` and `tctl` send it: no payloads at all; null in tctl's wire form; a string.
	for _, input := range []*commonpb.Payloads{nil, {}, {Payloads: []*commonpb.Payload{payload("json/plain", "null")}}, {Payloads: []*commonpb.Payload{payload("json/plain", `"try"`)}}} {
		before, err := l.state()
		require.NoError(t, err)
		_, err = l.client.WorkflowService().SignalWorkflowExecution(t.Context(), &workflowservice.SignalWorkflowExecutionRequest{
			Namespace: client.DefaultNamespace, Identity: "test", WorkflowExecution: &commonpb.WorkflowExecution{WorkflowId: l.id}, SignalName: workflows.SignalRetry, Input: input,
		})
		require.NoError(t, err)
		l.wait("the signal is noted", func(s workflows.State) bool {
			return len(s.Operator) == len(before.Operator)+1 && strings.HasPrefix(s.Operator[len(s.Operator)-1].Effect, "tried")
		})
	}
	// Another encoding is refused, an unknown name is shown; neither harms.
	l.signal(workflows.SignalSkip, converter.NewRawValue(payload("binary/encrypted", "?")))
	l.signal("rety", nil)
	l.wait("both show", func(s workflows.State) bool {
		return len(s.UnhandledSignals) == 1 && strings.HasPrefix(s.Operator[len(s.Operator)-1].Effect, "refused")
	})
	l.signal(workflows.SignalSkip, nil)
	l.wait("the next one is stuck", func(s workflows.State) bool { return s.Applied == 1 && s.Status != workflows.StateApplying })
	l.shop.look(func(s *shop) { s.fail = nil })
	l.signal(workflows.SignalRetry, nil)
	l.send(invoice)
	l.finish()
	l.shop.look(func(s *shop) {
		for _, a := range s.actions {
			require.Equal(t, "test", a.By, "who sent a bare signal is in the history")
		}
		require.NotEmpty(t, s.actions)
	})
	l.keep("blocked-retry-skip")
}

func TestServerRetryingShowsAndHeals(t *testing.T) {
	l := onServer(t)
	l.shop.look(func(s *shop) { s.fail = func(order.Step) error { return down } })
	l.start(l.input(creation, update, invoice))
	devtest.Eventually(t, 30*time.Second, func() error {
		d, err := l.client.DescribeWorkflowExecution(t.Context(), l.id, "")
		if err != nil {
			return err
		}
		if len(d.PendingActivities) != 1 || d.PendingActivities[0].Attempt < 2 || d.PendingActivities[0].GetLastFailure().GetMessage() == "" {
			return fmt.Errorf("pending activities: %v", d.PendingActivities)
		}
		return nil
	}, "the Web UI shows attempts and the last failure")
	l.found(`SyncStatus="retrying" AND SyncError="TargetUnavailable"`, 1)
	l.shop.look(func(s *shop) { s.fail = nil })
	l.signal(workflows.SignalRetry, nil)
	l.finish()
	l.found(`SyncStatus IN ("retrying","blocked")`, 0)
	l.keep("retrying-retry")
}

// TestServerCarriedRun starts where a run before it left off, as continue-as-new does.
func TestServerCarriedRun(t *testing.T) {
	l := onServer(t)
	in := l.input()
	box := inbox.New(time.Minute)
	for _, e := range l.all([]order.Event{creation, update}) {
		box.Add(e)
	}
	box.Refuse(creation.ID, "CheckViolated", "no", time.Now())
	in.Carried = &workflows.Carried{Inbox: box, LastActive: time.Now()}
	l.start(in)
	l.wait("still blocked", func(s workflows.State) bool { return s.Status == workflows.StateBlocked && s.PendingCount == 2 })
	l.signal(workflows.SignalRetry, nil)
	l.applied(2)
	l.send(invoice)
	l.finish()
	l.keep("carried-blocked")
}

// found waits until visibility shows the order n times under the query.
func (l *live) found(query string, n int64) {
	l.t.Helper()
	devtest.Eventually(l.t, 10*time.Second, func() error {
		r, err := l.client.CountWorkflow(l.t.Context(), &workflowservice.CountWorkflowExecutionsRequest{Query: query + ` AND WorkflowId="` + l.id + `"`})
		if err == nil && r.Count != n {
			err = fmt.Errorf("%d found", r.Count)
		}
		return err
	}, query)
}

func TestServerHeld(t *testing.T) {
	l := onServer(t)
	in := l.input(update, invoice)
	in.Settings.HoldWindow = 1500 * time.Millisecond
	l.start(in)
	l.finish()
	l.shop.look(func(s *shop) { require.Equal(t, order.Invoiced, s.status) })
	l.keep("held-inserted")
}

func TestServerContinuesAsNewWithAFullQueue(t *testing.T) {
	l := onServer(t)
	l.shop.look(func(s *shop) { s.fail = func(order.Step) error { return refused } })
	l.start(l.input(creation))
	first := l.history().Events[0].GetWorkflowExecutionStartedEventAttributes().OriginalExecutionRunId
	// Five times a full queue: the history passes 4 MiB, and what overflows is dead-lettered.
	big := json.RawMessage(`"` + strings.Repeat("x", 10<<10) + `"`)
	var sent int64 = 1
	for v := int64(2); sent < 500; {
		var batch []order.Event
		for range 45 {
			e := ev(order.Update, v)
			e.Data = big
			batch = append(batch, e)
			v++
		}
		l.send(batch...)
		sent += int64(len(batch))
	}
	l.wait("a new run", func(workflows.State) bool {
		d, err := l.client.DescribeWorkflowExecution(t.Context(), l.id, "")
		return err == nil && d.WorkflowExecutionInfo.Execution.RunId != first
	})
	l.wait("a full queue, and still blocked", func(s workflows.State) bool { return s.Status == workflows.StateBlocked && s.PendingCount > 90 })
	l.shop.look(func(s *shop) { s.fail = nil })
	l.signal(workflows.SignalRetry, nil)
	l.send(ev(order.Invoice, 100000))
	l.finish()
	l.shop.look(func(s *shop) {
		require.Equal(t, int(sent)+1, len(s.ledger)+len(s.dead), "each event is in the ledger or in the dead-letter topic")
		require.NotEmpty(t, s.dead)
	})
}

func TestServerContinuesAsNewUnderAStreamOfSignals(t *testing.T) {
	l := onServer(t)
	const sent = 3000
	l.start(l.input(creation))
	first := l.history().Events[0].GetWorkflowExecutionStartedEventAttributes().OriginalExecutionRunId
	for v := int64(2); v <= sent; v++ {
		l.send(ev(order.Update, v))
	}
	l.send(ev(order.Invoice, sent+1))
	l.finish()
	l.shop.look(func(s *shop) {
		require.Len(t, s.ledger, sent+1)
		require.JSONEq(t, fmt.Sprintf(`{"total":%d}`, sent), string(s.data))
	})
	d, err := l.client.DescribeWorkflowExecution(t.Context(), l.id, "")
	require.NoError(t, err)
	require.NotEqual(t, first, d.WorkflowExecutionInfo.Execution.RunId, "the order has not continued as new: send more")
}

func TestServerRequestToCancel(t *testing.T) {
	l := onServer(t)
	l.start(l.input(creation))
	l.applied(1)
	require.NoError(t, l.client.CancelWorkflow(t.Context(), l.id, ""))
	l.wait("refused visibly", func(s workflows.State) bool { return len(s.Operator) == 1 })
	l.send(update, invoice)
	l.finish()
	l.shop.look(func(s *shop) {
		require.Len(t, s.actions, 1, "it is in the audit")
		require.Equal(t, activities.CancelRequest, s.actions[0].Name)
		require.Equal(t, "test", s.actions[0].By, "with the identity of the client that asked")
		require.Contains(t, s.actions[0].Effect, "refused")
	})
	l.keep("cancel-refused")
}

// TestServerWorkerKilledWithinATask runs a worker in a process of its own, kills it while a step is
// under way, and has another one take over.
func TestServerWorkerKilledWithinATask(t *testing.T) {
	l := onServer(t)
	l.worker.Stop()
	address := devtest.Temporal(t)
	mark := filepath.Join(t.TempDir(), "within")
	doomed := exec.Command(os.Args[0], "-test.run=^TestDoomedWorker$", "-test.v")
	doomed.Env = append(os.Environ(), "DOOMED_ADDRESS="+address, "DOOMED_QUEUE="+l.queue, "DOOMED_MARK="+mark)
	require.NoError(t, doomed.Start())
	t.Cleanup(func() { _ = doomed.Process.Kill() })
	l.start(l.input(creation, update, invoice))
	devtest.Eventually(t, 30*time.Second, func() error {
		_, err := os.Stat(mark)
		return err
	}, "the step is under way")
	require.NoError(t, doomed.Process.Kill())
	_ = doomed.Wait()
	l.startWorker()
	l.finish()
	l.shop.look(func(s *shop) {
		require.Equal(t, []string{"order_creation v1", "order_updation v2", "invoice_creation v3"}, s.steps)
	})
}

// hanging is the shop of the doomed worker: it says that a step is under way, and never ends it.
type hanging struct {
	shop
	mark string
}

func (h *hanging) Apply(ctx context.Context, _ order.Step) (order.Result, error) {
	if err := os.WriteFile(h.mark, nil, 0o600); err != nil {
		return order.Result{}, err
	}
	<-ctx.Done()
	return order.Result{}, ctx.Err()
}

// TestDoomedWorker is no test but the process that TestServerWorkerKilledWithinATask kills.
func TestDoomedWorker(t *testing.T) {
	address := os.Getenv("DOOMED_ADDRESS")
	if address == "" {
		return
	}
	c := dial(t, address)
	defer c.Close()
	w := newWorker(c, os.Getenv("DOOMED_QUEUE"), &hanging{mark: os.Getenv("DOOMED_MARK")})
	require.NoError(t, w.Run(worker.InterruptCh()))
}

// TestReplay holds the workflow against recorded histories: what it decides now must be what it
// decided then, or open orders would get stuck at the next deploy.
func TestReplay(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "histories", "*.json"))
	require.NoError(t, err)
	for number := workflows.OldestRules; number <= workflows.Rules; number++ {
		for _, name := range []string{"one-request", "spread", "blocked-retry-skip", "retrying-retry", "held-inserted", "carried-blocked", "cancel-refused"} {
			require.Contains(t, files, filepath.Join("testdata", "histories", fmt.Sprintf("rules%d-%s.json", number, name)), "record it: go test ./workflows -run TestServer -record")
		}
	}
	for _, name := range []string{workflows.PollERPName, workflows.BackfillName} {
		require.Contains(t, files, filepath.Join("testdata", "histories", name+".json"))
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) { require.NoError(t, replay(file, workflows.OrderSync)) })
	}
}

// TestReplayDetectsAChange shows that the replay test can fail.
func TestReplayDetectsAChange(t *testing.T) {
	changed := func(ctx workflow.Context, _ workflows.Input) error { return workflow.Sleep(ctx, time.Second) }
	require.Error(t, replay(filepath.Join("testdata", "histories", fmt.Sprintf("rules%d-one-request.json", workflows.Rules)), changed))
}

// replay replays a history with as in the place of the workflow OrderSync.
func replay(file string, as any) error {
	r, err := replayer(as)
	if err != nil {
		return err
	}
	return r.ReplayWorkflowHistoryFromJSONFile(quiet{}, file)
}

func replayer(as any) (worker.WorkflowReplayer, error) {
	r, err := worker.NewWorkflowReplayerWithOptions(worker.WorkflowReplayerOptions{DataConverter: workflows.DataConverter()})
	if err != nil {
		return nil, err
	}
	r.RegisterWorkflowWithOptions(as, workflow.RegisterOptions{Name: workflows.OrderSyncName})
	r.RegisterWorkflowWithOptions(workflows.PollERP, workflow.RegisterOptions{Name: workflows.PollERPName})
	r.RegisterWorkflowWithOptions(workflows.Backfill, workflow.RegisterOptions{Name: workflows.BackfillName})
	return r, nil
}

// TestChangedSettingsReplay changes what a starter would send now: the open run keeps its own.
func TestChangedSettingsReplay(t *testing.T) {
	l := onServer(t)
	in := l.input(creation)
	in.Settings.IdleTimeout = time.Hour
	l.start(in)
	l.applied(1)
	l.worker.Stop()
	l.startWorker() // nothing is cached: the next task replays
	l.send(update)  // with the settings of a starter that was configured anew
	l.applied(2)
	s, err := l.state()
	require.NoError(t, err)
	require.Contains(t, s.NextStep, time.Now().UTC().Add(time.Hour).Format("2006-01-02T"))
	l.send(invoice)
	l.finish()
}
