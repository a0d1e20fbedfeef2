package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"ordersync/internal/devstack"
	"ordersync/internal/devstack/devtest"
	"ordersync/internal/envfile"
	"ordersync/internal/order"
	"ordersync/internal/settle"
	"ordersync/workflows"
)

func (d *devRun) temporal() client.Client {
	d.t.Helper()
	env, err := envfile.Read(devstack.EnvFile(d.dir))
	require.NoError(d.t, err)
	c, err := client.Dial(client.Options{HostPort: env[temporalAddress], DataConverter: workflows.DataConverter()})
	require.NoError(d.t, err)
	d.t.Cleanup(c.Close)
	return c
}

// shows runs a command until its output matches all of some expressions. It may fail: it has shown what it could.
func (d *devRun) shows(args []string, want ...string) result {
	d.t.Helper()
	var r result
	devtest.Eventually(d.t, 2*time.Minute, func() error {
		r = d.ordersync("", args...)
		for _, expression := range want {
			if !assert.Regexp(&silent{}, expression, r.stdout) {
				return fmt.Errorf("%v shows no %s:\n%s%s%w", args, expression, r.stdout, r.stderr, errors.Join(r.err, errors.New("see above")))
			}
		}
		return nil
	}, fmt.Sprint(args))
	d.t.Logf("%s shown", args)
	return r
}

type silent struct{}

func (*silent) Errorf(string, ...any) {}

// Whatever keeps an order from getting on, the commands show it with what to type, and wait ends.
func TestOrdersThatDoNotGetOn(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a whole stack")
	}
	d := startDev(t, filepath.Join(t.TempDir(), "stack"))
	temporal, shop := d.temporal(), d.shop()
	publish := func(id string) {
		t.Helper()
		require.NoError(t, d.ordersync(fmt.Sprintf(`{"sync_id":%q,"event":"order_creation","version":1,"data":{"total":1}}`, id), "load", "-", "--channel", "store").err)
	}
	exec := func(statement string) {
		t.Helper()
		_, err := shop.DB().ExecContext(t.Context(), statement)
		require.NoError(t, err)
	}

	// A table is missing: the commands show the rest. The order is retrying.
	publish("first")
	require.NoError(t, d.ordersync("", "wait", "--timeout", "1m").err)
	exec("RENAME TABLE orders TO gone")
	publish("paused")
	d.shows([]string{"blocked"}, `paused +store +retrying +UnknownTable`)
	r := d.shows([]string{"order", "first"}, `whether the shop's database has it is not known`, `order_creation v1 .*applied`, `not known: MySQL, table orders: .*1146`)
	require.ErrorIs(t, r.err, errIncomplete)

	// Paused, it does not heal by itself, and is not said to.
	_, err := temporal.WorkflowService().PauseActivity(t.Context(), &workflowservice.PauseActivityRequest{
		Namespace: client.DefaultNamespace, Execution: &commonpb.WorkflowExecution{WorkflowId: workflows.WorkflowID("paused")},
		Identity: "support@shop", Reason: "a look first", Activity: &workflowservice.PauseActivityRequest_Type{Type: "CreateOrder"},
	})
	require.NoError(t, err)
	unpause := `temporal activity unpause --workflow-id order-paused --activity-id \d+`
	d.shows([]string{"blocked"}, `retrying, paused`, `paused since \S+ by support@shop \(a look first\) and does not go on by itself: `+unpause)
	r = d.shows([]string{"order", "paused"}, `CreateOrder is at attempt \d+, paused since`, unpause)
	assert.NotContains(t, r.stdout, "heals by itself")
	d.shows([]string{"status"}, `order paused, retrying but paused`)
	exec("RENAME TABLE gone TO orders")

	// Terminated while it holds an event: missing until it is replayed.
	require.NoError(t, temporal.TerminateWorkflow(t.Context(), workflows.WorkflowID("paused"), "", "by mistake"))
	replay := `ordersync --data-dir \S+ replay --order paused`
	d.shows([]string{"order", "paused"}, `sync: terminated`, `its run was terminated since \S+: by mistake\n  it held order_creation v1, which the shop's database lacks\n.*`+replay)
	d.shows([]string{"blocked"}, `paused +store +its run was terminated +\S+ +order_creation v1 +by mistake`, replay)
	d.shows([]string{"status"}, `not well +1 orders of store: its run was terminated`, `(?m)^store +\S+ +order paused, its run was terminated`)
	r = d.ordersync("", "wait", "--timeout", "1m", "-o", "json")
	require.Equal(t, exitStuck, exitCode(r.err), "%v", r.err)
	require.ErrorContains(t, r.err, "order paused, its run was terminated: ordersync")
	var s settle.Summary
	r.decodeAnyway(t, &s)
	assert.Equal(t, 1, s.Unwell)
	assert.Zero(t, s.Outstanding)
	assert.Equal(t, []settle.UnwellOrder{{SyncID: "paused", Trouble: order.RunTerminated}}, s.UnwellOrders)
	require.NoError(t, d.ordersync("", "replay", "--order", "paused", "--why", "by mistake").err)
	require.NoError(t, d.ordersync("", "wait", "--timeout", "1m").err)
	d.shows([]string{"blocked"}, `no order is stuck`)

	// Workflow tasks fail: no worker knows the rules of the run.
	_, err = temporal.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: workflows.WorkflowID("later"), TaskQueue: "ordersync"}, workflows.OrderSyncName,
		workflows.Input{SyncID: "later", Settings: workflows.Settings{Rules: workflows.Rules + 1}})
	require.NoError(t, err)
	publish("later")
	d.shows([]string{"blocked"}, `later +its workflow tasks fail|later +\S* *its workflow tasks fail`, `roll the workers back, or deploy`)
	d.shows([]string{"order", "later"}, `sync: tasks_fail`, `its workflow tasks fail since \S+: the run follows rules`, `it holds order_creation v1, which the shop's database lacks`)
	d.shows([]string{"status"}, `its workflow tasks fail`)
	r = d.ordersync("", "wait", "--timeout", "1m")
	require.Equal(t, exitStuck, exitCode(r.err), "%v", r.err)
	require.ErrorContains(t, r.err, "order later, its workflow tasks fail")
	require.NoError(t, temporal.TerminateWorkflow(t.Context(), workflows.WorkflowID("later"), "", "no such rules"))
	require.NoError(t, d.ordersync("", "replay", "--order", "later").err)
	require.NoError(t, d.ordersync("", "wait", "--timeout", "1m").err)

	// Temporal does not take an order: a search attribute is missing.
	_, err = temporal.OperatorService().RemoveSearchAttributes(t.Context(), &operatorservice.RemoveSearchAttributesRequest{
		Namespace: client.DefaultNamespace, SearchAttributes: []string{workflows.OrderID.GetName()},
	})
	require.NoError(t, err)
	publish("refused")
	d.shows([]string{"blocked"}, `refused +store +Temporal does not take it +\S+ +store/\d+/\d+`, `ordersync --data-dir \S+ setup`)
	d.shows([]string{"order", "refused"}, `1 of its records wait in Kafka, from store/\d+/\d+ on`, `Temporal does not take the first of them`)
	d.shows([]string{"status"}, `stalled +store/\d+/\d+, order refused: Temporal does not take it`)
	r = d.ordersync("", "wait", "--timeout", "5m")
	require.Equal(t, exitStuck, exitCode(r.err), "%v", r.err)
	require.ErrorContains(t, r.err, "order refused, Temporal does not take it")
	require.NoError(t, d.ordersync("", "setup").err)
	devtest.Eventually(t, 2*time.Minute, func() error {
		if r := d.ordersync("", "wait", "--timeout", "1m"); r.err != nil {
			return errors.Join(errors.New(r.stdout), r.err)
		}
		return nil
	}, "it goes on by itself then")
	require.NoError(t, d.end())
}
