package pod_test

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"ordersync/internal/config"
	"ordersync/internal/devstack/devtest"
	"ordersync/internal/operator"
	"ordersync/internal/order"
	"ordersync/internal/pod"
	"ordersync/internal/reconcile"
	"ordersync/internal/target"
	"ordersync/internal/telemetry"
	"ordersync/workflows"
)

// shops is an ERP's database and the shop's, with the pipeline between them.
type shops struct {
	*testing.T
	cfg      config.Config
	erp      *sql.DB
	target   *target.Target
	temporal client.Client
}

// changed is when the ERP has changed its orders: long ago.
const changed = "2026-01-02 03:04:05"

// withERP prepares both databases. Events are published by the test, as an ERP that does it itself would.
func withERP(t *testing.T) *shops {
	t.Helper()
	dir, dsn := t.TempDir(), devtest.MySQL(t)
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	orders := write("orders.txt", `SELECT id AS sync_id, channel, version, document AS data, changed_at FROM sales_orders`)
	write("changes.sql", `SELECT id AS sync_id, 'order_updation' AS event, channel, version, document AS data, changed_at, id FROM sales_orders`)
	values := environ(t, "ERP_SOURCE=mysql", "ERP_URL="+dsn, "ERP_QUERIES="+dir, "ERP_ORDERS_QUERY="+orders)
	s := &shops{T: t, cfg: load(t, values)}
	log := slog.New(slog.DiscardHandler)
	_, err := pod.Setup(t.Context(), s.cfg, log, pod.SetupOptions{})
	require.NoError(t, err)
	s.erp, err = sql.Open("mysql", dsn)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.erp.Close() })
	s.exec(s.erp, `CREATE TABLE sales_orders (id BIGINT PRIMARY KEY, channel VARCHAR(20) NOT NULL, version BIGINT, document JSON NOT NULL, changed_at DATETIME(6) NOT NULL)`)
	s.target, err = pod.OpenTarget(s.cfg, log)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.target.Close() })
	s.temporal, err = pod.NewTemporal(s.cfg, log, nil)
	require.NoError(t, err)
	t.Cleanup(s.temporal.Close)
	return s
}

func (s *shops) exec(db *sql.DB, query string, args ...any) {
	s.Helper()
	_, err := db.ExecContext(s.Context(), query, args...)
	require.NoError(s, err, query)
}

// publish sends events to the topics of their channels.
func (s *shops) publish(events ...order.Event) {
	s.Helper()
	topics := map[order.Channel]string{}
	for topic, channel := range s.cfg.Kafka.Topics {
		topics[channel] = topic
	}
	var messages []kafka.Message
	for _, e := range events {
		e.ID = order.ParseEventID(e.SyncID + e.Name())
		value, err := e.Message()
		require.NoError(s, err)
		messages = append(messages, kafka.Message{Topic: topics[e.Channel], Key: []byte(e.SyncID), Value: value})
	}
	transport := pod.KafkaTransport(s.cfg)
	defer transport.CloseIdleConnections()
	producer := pod.NewProducer(s.cfg, transport)
	defer producer.Close()
	require.NoError(s, producer.Publish(s.Context(), messages...))
}

// reconcile runs the workflow, and gives the findings by their orders. Before, it waits until the starter
// has committed what Temporal has: until then all of it may be on its way.
func (s *shops) reconcile(repair bool) (order.Reconciliation, map[string]order.Finding) {
	s.Helper()
	transport := pod.KafkaTransport(s.cfg)
	defer transport.CloseIdleConnections()
	probe := pod.NewProbe(s.cfg, transport, s.temporal, nil)
	devtest.Eventually(s.T, 20*time.Second, func() error {
		horizons, err := probe.Horizons(s.Context())
		for channel, at := range horizons {
			if time.Since(at) > time.Hour {
				return fmt.Errorf("%s: %v", channel, at)
			}
		}
		return err
	}, "nothing is left in Kafka")
	run, err := reconcile.Start(s.Context(), s.temporal, s.cfg.Temporal.TaskQueue, workflows.ReconcileInput{Repair: repair, PageSize: 17, By: "support@shop"})
	require.NoError(s, err)
	report, err := reconcile.Follow(s.Context(), s.temporal, run, func(reconcile.Progress) {})
	require.NoError(s, err)
	require.Equal(s, repair, report.Repair)
	found := map[string]order.Finding{}
	for _, f := range report.Findings {
		found[f.SyncID] = f
	}
	return report, found
}

func (s *shops) ledger(want int) {
	s.Helper()
	devtest.Eventually(s.T, time.Minute, ledgerHas(s.target, want), "the ledger")
}

// Everything between both ends: nothing differs, a hundred rows are tampered with, found, repaired, and
// found clean; then what is on its way, and what an operator did.
func TestReconcile(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the whole pipeline")
	}
	s := withERP(t)
	p := start(t, pod.RunBoth, s.cfg)
	p.awaitReady(t)
	address := <-p.address

	// Orders of every channel; every second one was updated, every third one has an invoice.
	const orders = 200
	var events []order.Event
	for i := range orders {
		e := order.Event{SyncID: strconv.Itoa(i), Kind: order.Creation, Version: 1, Channel: order.Channels[i%3], Data: document(i, 1), OccurredAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
		events = append(events, e)
		if i%2 == 0 {
			e.Kind, e.Version, e.Data = order.Update, 2, document(i, 2)
			events = append(events, e)
		}
		s.exec(s.erp, `INSERT INTO sales_orders VALUES (?, ?, ?, ?, ?)`, i, e.Channel, e.Version, string(e.Data), changed)
		if i%3 == 0 {
			e.Kind, e.Version, e.Data = order.Invoice, 3, json.RawMessage(`{"amount":1}`)
			events = append(events, e)
		}
	}
	s.publish(events...)
	s.ledger(len(events))
	report, found := s.reconcile(false)
	require.Empty(t, found)
	require.EqualValues(t, orders, report.Agreeing)
	require.EqualValues(t, orders, report.TargetOrders)

	// Tamper with a hundred.
	want := map[string]order.Drift{}
	tamper := func(i int, class order.Drift, query string) {
		s.exec(s.target.DB(), query, strconv.Itoa(i))
		want[strconv.Itoa(i)] = class
	}
	for i := range 100 {
		switch i % 4 {
		case 0: // version 2, every third with an invoice
			tamper(i, order.DriftStale, `UPDATE orders SET version = 1, data = '{"old": true}' WHERE sync_id = ?`)
		case 1:
			tamper(i, order.DriftDifferent, `UPDATE orders SET data = JSON_SET(data, '$.total', 0) WHERE sync_id = ?`)
		case 2:
			tamper(i, order.DriftMissing, `DELETE FROM orders WHERE sync_id = ?`)
		case 3:
			tamper(i, order.DriftDifferent, `UPDATE orders SET data = '"gone"', version = NULL WHERE sync_id = ?`)
		}
	}
	s.exec(s.target.DB(), `UPDATE orders SET version = 9 WHERE sync_id = '150'`)
	s.exec(s.target.DB(), `UPDATE orders SET sync_id = 'nobody''s' WHERE sync_id = '151'`)
	want["150"], want["151"], want["nobody's"] = order.DriftAhead, order.DriftMissing, order.DriftExtra
	got, repaired := map[string]order.Drift{}, int64(0)
	devtest.Eventually(t, time.Minute, func() error {
		report, found = s.reconcile(true)
		repaired += report.Repaired
		for id, f := range found {
			if f.Class != order.OnItsWay { // a workflow that is too busy to answer may have something pending
				got[id] = f.Class
			}
		}
		if len(got) < len(want) {
			return fmt.Errorf("%d of %d", len(got), len(want))
		}
		return nil
	}, "all that was tampered with is found")
	require.Equal(t, want, got)
	require.EqualValues(t, 101, repaired)
	require.EqualValues(t, 2, report.Unrepaired())

	// The repairs take their way; what nobody repairs stays.
	s.ledger(len(events) + 101)
	report, found = s.reconcile(true)
	require.ElementsMatch(t, []string{"150", "nobody's"}, slices.Collect(maps.Keys(found)))
	require.Zero(t, report.Repaired)
	s.exec(s.target.DB(), `UPDATE orders SET version = 2 WHERE sync_id = '150'`)
	s.exec(s.target.DB(), `DELETE FROM orders WHERE sync_id = 'nobody''s'`)
	_, found = s.reconcile(false)
	require.Empty(t, found)
	var open int
	require.NoError(t, s.target.DB().QueryRowContext(t.Context(), `SELECT COUNT(*) FROM orders JOIN invoices USING (sync_id) WHERE status <> 'invoiced'`).Scan(&open))
	require.Zero(t, open, "an order that was deleted is invoiced again")
	actions, err := s.target.Actions(t.Context(), "2")
	require.NoError(t, err)
	require.Len(t, actions, 1)
	require.Equal(t, order.RepairAction, actions[0].Name)
	entries, err := s.target.Timeline(t.Context(), "2")
	require.NoError(t, err)
	require.Equal(t, *actions[0].EventID, entries[len(entries)-1].EventID)

	// An update that the shop's database refuses is on its way as long as its order is blocked, and
	// amended afterwards.
	s.exec(s.target.DB(), `ALTER TABLE orders ADD CONSTRAINT positive CHECK (JSON_VALUE(data, '$.total') >= 0)`)
	refused := events[0]
	refused.Kind, refused.Version, refused.Data = order.Update, 7, json.RawMessage(`{"total":-1}`)
	s.exec(s.erp, `UPDATE sales_orders SET version = 7, document = '{"total": -1.0}' WHERE id = 0`)
	s.publish(refused)
	devtest.Eventually(t, 30*time.Second, func() error {
		_, found := s.reconcile(false)
		if f := found["0"]; f.Class != order.OnItsWay || !strings.Contains(f.Why, "blocked: CheckViolated") {
			return fmt.Errorf("%+v", found)
		}
		return nil
	}, "a blocked order is on its way")
	stuck, err := operator.FindStuck(t.Context(), s.temporal, "0")
	require.NoError(t, err)
	_, err = operator.Act(t.Context(), s.temporal, stuck, workflows.SignalAmend, workflows.Amend{EventID: stuck.Pin().EventID, Data: json.RawMessage(`{"total":1}`), By: "support@shop"})
	require.NoError(t, err)
	devtest.Eventually(t, 30*time.Second, func() error {
		report, found := s.reconcile(true)
		if found["0"].Class != order.DriftAmended || report.Repaired != 0 {
			return fmt.Errorf("%+v", found)
		}
		return nil
	}, "it is amended")

	// What the ERP has just changed nobody can know of yet.
	s.exec(s.erp, `UPDATE sales_orders SET version = 99, changed_at = UTC_TIMESTAMP(6) + INTERVAL 1 MINUTE WHERE id = 1`)
	_, found = s.reconcile(true)
	require.Equal(t, order.OnItsWay, found["1"].Class)
	devtest.Eventually(t, 10*time.Second, func() error {
		_, page := get(t, "http://"+address+telemetry.MetricsPath)
		for _, line := range []string{`ordersync_reconcile_orders{class="on_its_way"} 1`, `ordersync_reconcile_orders{class="amended"} 1`, "ordersync_reconcile_finished_timestamp_seconds 1."} {
			if !strings.Contains(page, line) {
				return errors.New("the scrape lacks " + line)
			}
		}
		return nil
	}, "the metrics")
	last, err := reconcile.Last(t.Context(), s.temporal, s.cfg.Temporal.TaskQueue)
	require.NoError(t, err)
	require.NotEmpty(t, last.RunID)
}

// document is an order's data of a version, as the ERP spells it.
func document(i, version int) json.RawMessage {
	return json.RawMessage(fmt.Sprintf(`{"total": %d.50, "lines": [%d, 1e1], "note": "caf\u00e9"}`, 10*i, version))
}
