package devtest_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"

	"ordersync/internal/devstack/devtest"
	"ordersync/workflows"
)

func TestSearchAttributesAreThoseOfTheWorkflow(t *testing.T) {
	known := map[string]enumspb.IndexedValueType{}
	for _, key := range []temporal.SearchAttributeKey{workflows.OrderID, workflows.Channel, workflows.SyncStatus, workflows.SyncError, workflows.StuckSince} {
		known[key.GetName()] = key.GetValueType()
	}
	require.Equal(t, known, devtest.SearchAttributes)
}
