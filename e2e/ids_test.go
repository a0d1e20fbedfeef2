package e2e

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"ordersync/internal/devstack"
	"ordersync/internal/devstack/devtest"
	"ordersync/internal/operator"
	"ordersync/internal/order"
	"ordersync/workflows"
)

// Whatever an ERP puts into a sync_id, its order gets from Kafka to MySQL, and people reach it: by our commands, and by
// the temporal command.
func TestOddSyncIDs(t *testing.T) {
	b := setup(t)
	ids := []string{"Müller-1", "注文-1", "طلب-1", "🛒", "A B", `it's "50%"`, "e\u0301", "é", "<b>", "-1", "--help", `back\slash`}
	blocks := `ALTER TABLE orders ADD CONSTRAINT no_debt CHECK (JSON_VALUE(data, '$.total') >= 0)`
	_, err := b.target.DB().ExecContext(t.Context(), blocks)
	require.NoError(t, err)
	line := func(id string, kind order.Kind, version, total int) []byte {
		name, err := json.Marshal(id)
		require.NoError(t, err)
		return fmt.Appendf(nil, `{"channel":"online","sync_id":%s,"event":%q,"version":%d,"data":{"total":%d}}`+"\n", name, kind, version, total)
	}
	for _, id := range ids {
		b.load(line(id, order.Creation, 1, 1))
		b.load(line(id, order.Update, 2, -1)) // which blocks
	}
	b.run()
	require.Equal(t, len(ids), b.settle(2*time.Minute).BlockedOrders)

	for i, id := range ids {
		out, err := b.command("order", "--output", "json", "--", id)
		require.NoError(t, err, "%s: %s", id, out)
		var view struct {
			SyncID string `json:"sync_id"`
		}
		require.NoError(t, json.Unmarshal(out, &view))
		require.Equal(t, id, view.SyncID)
		way := i % 3
		if strings.ContainsAny(id, `"'\`) { // which the query's own quoting cannot hold
			way = 0
		}
		switch way {
		case 0:
			out, err = b.command("amend", "--by", "test", "--yes", "--data", `{"total":7}`, "--reason", "mended", "--", id)
			require.NoError(t, err, "%s: %s", id, out)
		case 1: // by the workflow's id
			out, err = b.temporalCommand("workflow", "signal", "--workflow-id", workflows.WorkflowID(id), "--name", "amend", "--input", `{"data":{"total":7}}`)
			require.NoError(t, err, "%s: %s", id, out)
		default: // by a query, which every version of the command takes
			out, err = b.temporalCommand("workflow", "signal", "--query", fmt.Sprintf(`OrderID="%s"`, id), "--name", "amend", "--input", `{"data":{"total":7}}`, "--reason", "test", "--yes")
			require.NoError(t, err, "%s: %s", id, out)
		}
		b.load(line(id, order.Invoice, 3, 7))
	}
	// A batch takes its time to begin.
	devtest.Eventually(t, 2*time.Minute, func() error {
		blocked, err := operator.Blocked(t.Context(), b.temporal)
		if err == nil && len(blocked) > 0 {
			err = fmt.Errorf("still blocked: %v", blocked)
		}
		return err
	}, "every signal arrives")
	summary := b.settle(2 * time.Minute)
	require.Equal(t, 3*len(ids), summary.Applied)
	require.Equal(t, len(ids), b.count("SELECT COUNT(*) FROM orders WHERE status = 'invoiced' AND JSON_VALUE(data, '$.total') = 7"))
	for _, id := range ids {
		require.Equal(t, 1, b.count("SELECT COUNT(*) FROM invoices WHERE sync_id = ?", id))
	}
}

// temporalCommand runs the temporal command in the bundle's namespace.
func (b *bundle) temporalCommand(args ...string) ([]byte, error) {
	b.Helper()
	path, err := devstack.FindTemporal(b.Context())
	require.NoError(b, err)
	args = append(args, "--address", b.environ["TEMPORAL_ADDRESS"], "--namespace", b.environ["TEMPORAL_NAMESPACE"])
	return exec.CommandContext(b.Context(), path, args...).CombinedOutput()
}

// One event_id for all events of an order is a common mistake. None of them is lost: what cannot be applied is a dead
// letter that says so, and can be sent again with an id of its own.
func TestOneEventIDForAllEventsOfAnOrder(t *testing.T) {
	b := setup(t)
	guid := uuid.NewString()
	for version, kind := range []order.Kind{order.Creation, order.Update, order.Update, order.Invoice} {
		b.load(fmt.Appendf(nil, `{"channel":"online","sync_id":1,"event_id":%q,"event":%q,"version":%d,"data":{"v":%d}}`+"\n", guid, kind, version+1, version+1))
	}
	for number := range 2 { // and two invoices of one version without an event_id
		b.load(fmt.Appendf(nil, `{"channel":"online","sync_id":1,"event":"invoice_creation","version":9,"data":{"number":%d}}`+"\n", number))
	}
	b.run()
	summary := b.settle(time.Minute)
	require.Equal(t, 3, summary.Applied, "the creation and two invoices")
	require.Equal(t, 3, summary.DeadLetters)
	require.Zero(t, summary.Duplicates)
	for _, l := range b.deadLetters() {
		require.Equal(t, string(order.IdentityConflict), l.reason)
	}
	require.Equal(t, 2, b.count("SELECT COUNT(*) FROM invoices"))
	b.requireCommitted()
}
