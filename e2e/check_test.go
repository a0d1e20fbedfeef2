package e2e

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ordersync/internal/devstack/devtest"
	"ordersync/internal/order"
	"ordersync/workflows"
)

// The team's own CHECK constraint refuses one order in a hundred. Those are blocked, visibly and
// by themselves; without the constraint each gets going by a retry.
func TestCheckConstraintRefusesSome(t *testing.T) {
	s := seed(t)
	b := setup(t)
	_, err := b.target.DB().ExecContext(t.Context(), "ALTER TABLE orders ADD CONSTRAINT team_check CHECK (sync_id NOT LIKE '%42')")
	require.NoError(t, err)
	b.run()

	events := orders(s, 1000)
	refused := func(e order.Event) bool { return strings.HasSuffix(e.SyncID, "42") }
	var others []order.Event
	stuck := map[string]bool{}
	for _, e := range events {
		if refused(e) {
			stuck[e.SyncID] = true
		} else {
			others = append(others, e)
		}
	}
	require.Len(t, stuck, 10)
	b.load(ndjson(t, events))
	summary := b.settle(2 * time.Minute)
	require.Equal(t, 10, summary.BlockedOrders)
	require.Equal(t, 30, summary.Blocked)
	b.requireModel(others)
	b.requireCommitted()
	for _, query := range []string{running, `SyncStatus="` + workflows.StatusBlocked + `" AND SyncError="CheckViolated" AND ` + running} {
		devtest.Eventually(t, time.Minute, func() error {
			if n, err := b.workflows(query); err != nil || n != 10 {
				return fmt.Errorf("%d, %w", n, err)
			}
			return nil
		}, "those that are blocked run, and no other")
	}

	// What support sees, and does.
	out, err := b.command("blocked", "-o", "json")
	require.NoError(t, err)
	var seen struct {
		Orders []struct {
			SyncID string `json:"sync_id"`
			Status string `json:"status"`
			Reason string `json:"reason"`
		} `json:"orders"`
	}
	require.NoError(t, json.Unmarshal(out, &seen))
	require.Len(t, seen.Orders, 10)
	for _, o := range seen.Orders {
		require.True(t, stuck[o.SyncID], "order %s should not be blocked", o.SyncID)
		require.Equal(t, workflows.StatusBlocked, o.Status)
		require.Equal(t, "CheckViolated", o.Reason)
	}
	out, err = b.command("retry", seen.Orders[0].SyncID)
	require.Error(t, err, "the constraint is still there: %s", out)

	_, err = b.target.DB().ExecContext(t.Context(), "ALTER TABLE orders DROP CONSTRAINT team_check")
	require.NoError(t, err)
	b.requireModel(others) // nothing heals by itself
	for _, o := range seen.Orders {
		out, err := b.command("retry", o.SyncID, "--reason", "constraint dropped")
		require.NoError(t, err, "%s", out)
	}
	b.settle(time.Minute)
	b.requireModel(slices.Clone(events))
	b.requireInOrder()
	b.requireNoneRunning()
	n, err := b.workflows("SyncStatus IN ('retrying', 'blocked') AND " + running)
	require.NoError(t, err)
	require.Zero(t, n)
	require.Empty(t, b.deadLetters())
}
