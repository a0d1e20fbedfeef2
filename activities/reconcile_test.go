package activities_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/testsuite"

	"ordersync/activities"
	"ordersync/internal/order"
)

// halfWay fails in the middle of a page, of which it has counted something already.
type halfWay struct{ at order.Walk }

func (h *halfWay) Reconcile(_ context.Context, at order.Walk, _ func(order.Walk)) (order.Reconciliation, error) {
	h.at = at
	at.Found.Counts[order.DriftMissing]++
	at.Found.Findings[0].Why = "of the next page"
	return order.Reconciliation{}, errors.New("the ERP is away")
}

// What an attempt took over from the one before is in its heartbeats until it has come further, and the
// walk has its own of it meanwhile: the two are used at the same time.
func TestAComparisonThatGoesOnSharesNothingWithItsHeartbeats(t *testing.T) {
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	walker := &halfWay{}
	a := activities.NewReconciliation(walker)
	env.RegisterActivity(a)
	reached := order.Walk{Stage: order.ListsERP, Cursor: "here", Found: order.Reconciliation{
		Counts: map[order.Drift]int64{order.DriftMissing: 1}, Findings: []order.Finding{{SyncID: "1", Class: order.DriftMissing}},
	}}
	env.SetHeartbeatDetails(reached)
	var beat order.Walk
	env.SetOnActivityHeartbeatListener(func(_ *activity.Info, details converter.EncodedValues) {
		require.NoError(t, details.Get(&beat))
	})
	_, err := env.ExecuteActivity(a.CompareOrders, order.Walk{})
	require.ErrorContains(t, err, "the ERP is away")
	require.Equal(t, "here", walker.at.Cursor)
	require.Equal(t, reached, beat)
}
