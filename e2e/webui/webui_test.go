// Package webui looks at orders in Temporal's Web UI as support staff do: with a browser. It runs the
// program as it is delivered, `ordersync dev`, and a real headless Chromium.
//
// With -update the pictures in docs are taken anew.
package webui

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "take the pictures in docs anew")

// Order 77 is refused by a constraint, order 78 runs into a lock that somebody holds, and order 80 is
// well.
const events = `
{"channel":"store","sync_id":77,"event":"order_creation","version":1,"data":{"customer":"17850","total":139.12}}
{"channel":"store","sync_id":77,"event":"order_updation","version":2,"data":{"customer":"17850","total":-5}}
{"channel":"store","sync_id":77,"event":"order_updation","version":3,"data":{"customer":"17850","total":120}}
{"channel":"store","sync_id":77,"event":"invoice_creation","version":4,"data":{"invoice":"R-77"}}
{"channel":"online","sync_id":78,"event":"order_creation","version":1,"data":{"customer":"17851","total":22}}
{"channel":"online","sync_id":78,"event":"order_updation","version":2,"data":{"customer":"17851","total":23}}
{"channel":"online","sync_id":80,"event":"order_creation","version":1,"data":{"customer":"17852","total":1}}
`

func TestStuckOrdersInTheWebUI(t *testing.T) {
	chromium := findChromium(t)
	s := startStack(t)
	s.sql(`ALTER TABLE orders ADD CONSTRAINT positive_total CHECK (JSON_VALUE(data, '$.total') >= 0)`)
	s.sql(`CREATE TRIGGER locked BEFORE UPDATE ON orders FOR EACH ROW BEGIN IF NEW.sync_id = '78' THEN
		SIGNAL SQLSTATE 'HY000' SET MYSQL_ERRNO = 1205, MESSAGE_TEXT = 'Lock wait timeout exceeded; try restarting transaction';
	END IF; END`)
	_, err := s.ordersync(events, "load", "-")
	require.NoError(t, err)
	s.awaitStuck(2)
	b := openBrowser(t, chromium)
	workflow := func(id string) string { return s.ui + "/namespaces/default/workflows/order-" + id }
	list := func(query string) string {
		return s.ui + "/namespaces/default/workflows?query=" + url.QueryEscape(query)
	}

	t.Run("every stuck order", func(t *testing.T) {
		b := &browser{t, b.tab}
		b.open(list(`SyncStatus IN ("retrying","blocked") AND ExecutionStatus="Running"`))
		b.await("2 Workflows", "order-77", "order-78")
		require.NotContains(t, b.text(), "order-80")
	})

	t.Run("blocked orders, with the columns that matter", func(t *testing.T) {
		b := &browser{t, b.tab}
		b.open(list(`SyncStatus="blocked"`))
		b.await("1 Workflow", "order-77")
		require.NotContains(t, b.text(), "order-78")
		b.press("Collapse saved views")
		b.click(`all("[data-testid=workflows-summary-table-configuration-button]")[0]`)
		for _, column := range []string{"Remove Type", "Remove Run ID", "Remove End", "Add SyncStatus", "Add SyncError", "Add Channel", "Add StuckSince"} {
			b.press(column + " column")
		}
		b.open(list(`SyncStatus="blocked"`)) // which the browser has remembered
		b.await("order-77", "SyncError", "CheckViolated", "Channel", "store", "StuckSince", time.Now().UTC().Format("2006-01"))
		b.picture("webui-blocked.png", 480)
	})

	t.Run("the history of an order names its steps", func(t *testing.T) {
		b := &browser{t, b.tab}
		b.open(workflow("77"))
		b.await("store order 77", "CreateOrder Summary order_creation v1", "UpdateOrder Summary order_updation v2",
			"NoticeBlocked Summary blocked: CheckViolated")
	})

	t.Run("what a blocked order waits for, and what to type", func(t *testing.T) {
		b := &browser{t, b.tab}
		b.open(workflow("77"))
		b.press("User Metadata")
		b.await("store order 77", "blocked on order_updation v2 since 20", "CheckViolated:", "CONSTRAINT `positive_total` failed",
			"ordersync retry --event-id", "--data-file FILE 77", "ordersync skip --event-id", "--reason WHY 77", "3 pending, 1 resolved")
		b.picture("webui-order.png", 760)
	})

	t.Run("the attempts of a retrying order", func(t *testing.T) {
		b := &browser{t, b.tab}
		b.open(workflow("78"))
		b.press("Pending Activities")
		b.until("shows several attempts, and why they fail", func() bool {
			attempts, err := evaluate[int](b, `Number(shown().match(/UpdateOrder .*Attempt (\d+) of Unlimited/)?.[1] ?? 0)`)
			return err == nil && attempts > 1
		})
		b.await("Lock wait timeout exceeded", "LockWaitTimeout", "Next Retry")
		b.press("User Metadata")
		b.await("online order 78", "retrying on order_updation v2", "LockWaitTimeout:", "Lock wait timeout exceeded", "heals by itself", "ordersync retry --event-id")
	})

	t.Run("an order is got going from the browser", func(t *testing.T) {
		b := &browser{t, b.tab}
		s := *s
		s.T = t
		s.sql(`ALTER TABLE orders DROP CONSTRAINT positive_total`)
		b.open(workflow("77"))
		b.press("More Actions")
		b.press("Send a Signal")
		b.click(`all("[data-testid=signal-select-button]")[0]`)
		b.click(`all("[role=option]").find(e => e.innerText.trim() === "retry")`)
		b.click(`all("[data-testid=confirm-modal-button]").find(e => !e.disabled)`)
		s.awaitStuck(1)
		b.open(workflow("77"))
		b.await("Completed", "CreateInvoice Summary invoice_creation v4", "Workflow Execution Signaled")
	})
}

// awaitStuck waits until so many orders are stuck.
func (s *stack) awaitStuck(n int) {
	s.Helper()
	s.eventually(time.Minute, "orders are stuck", func() error {
		out, err := s.ordersync("", "blocked", "-o", "json")
		if err != nil {
			return err
		}
		var stuck struct{ Total int }
		if err := json.Unmarshal([]byte(out), &stuck); err != nil {
			return err
		}
		if stuck.Total != n {
			return errors.New(fmt.Sprint(stuck.Total))
		}
		return nil
	})
}
