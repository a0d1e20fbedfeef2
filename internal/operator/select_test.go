package operator_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ordersync/internal/operator"
)

func TestQuery(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 600_000_000, time.FixedZone("", 3600))
	for want, s := range map[string]operator.Selection{
		`SyncStatus IN ("retrying","blocked") AND ExecutionStatus="Running"`:                                   {},
		`SyncStatus="blocked" AND SyncError="CheckViolated" AND Channel="store" AND ExecutionStatus="Running"`: {Status: "blocked", Reason: "CheckViolated", Channel: "store"},
		`SyncStatus="retrying" AND StuckSince <= "2026-01-02T02:04:05.600999Z" AND ExecutionStatus="Running"`:  {Status: "retrying", StuckBefore: at},
		`SyncStatus IN ("retrying","blocked") AND TaskQueue="tenant-1" AND ExecutionStatus="Running"`:          {TaskQueue: "tenant-1"},
	} {
		require.NoError(t, s.Check())
		require.Equal(t, want, s.Query())
	}
	require.Equal(t, operator.Selection{}.Query(), operator.StuckQuery)
}

func TestAQueryTakesNoMoreThanWords(t *testing.T) {
	for _, s := range []operator.Selection{{Reason: `x" OR WorkflowId!="`}, {Channel: "a b"}, {Status: `"`}} {
		require.Error(t, s.Check())
	}
}
