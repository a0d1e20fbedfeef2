package devtest_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"ordersync/internal/devstack/devtest"
	"ordersync/workflows"
)

func TestKeywordsAreThoseOfTheWorkflow(t *testing.T) {
	require.ElementsMatch(t, devtest.Keywords, []string{
		workflows.OrderID.GetName(), workflows.Channel.GetName(),
		workflows.SyncStatus.GetName(), workflows.SyncError.GetName(),
	})
}
