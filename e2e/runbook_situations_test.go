package e2e

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"ordersync/internal/deadletter"
	"ordersync/internal/devstack"
	"ordersync/internal/devstack/devtest"
	"ordersync/internal/erpsim"
	"ordersync/internal/operator"
	"ordersync/internal/order"
	"ordersync/internal/pod"
	"ordersync/internal/schedule"
	"ordersync/internal/target"
	"ordersync/internal/telemetry"
	"ordersync/workflows"
)

// situations has one for each section of the runbook, by its title.
var situations = map[string]situation{
	"Before you begin": {
		shows: map[string]string{
			"ordersync blocked":                    "no order is stuck",
			"curl --silent http://$STARTER/readyz": `"ready":true`,
			"curl --silent http://$WORKER/readyz":  `"ready":true`,
		},
	},
	"Is it keeping up": {
		arise: func(r *runbook) {
			r.sql("ALTER TABLE orders ADD CONSTRAINT none_of_these CHECK (sync_id <> '536360')")
			r.publishOrder("online", "536360", `1`)
			r.awaitStuck("536360")
		},
		mend: map[string]func(*runbook){
			"curl --silent http://$STARTER/metrics | grep ordersync_freshness_": func(r *runbook) {
				devtest.Eventually(r, time.Minute, func() error {
					out, err := r.enter(`curl --silent http://$STARTER/metrics | grep 'ordersync_freshness_orders_blocked{channel="online"} 1'`)
					if err != nil {
						return fmt.Errorf("%w: %s", err, out)
					}
					return nil
				}, "the starter has looked")
			},
		},
		shows: map[string]string{
			"ordersync status": `(?s)online +\S+ +order 536360, blocked +\S+ +\d +0 +1 .*ordersync order 536360\n.*ordersync blocked\n`,
			"curl --silent http://$STARTER/metrics | grep ordersync_freshness_": `ordersync_freshness_seconds\{channel="online"\} (0\.\d|[1-9])`,
			"ordersync schedule list": "there are no schedules yet",
		},
		heals: func(r *runbook) {
			r.sql("ALTER TABLE orders DROP CONSTRAINT none_of_these")
			_, err := r.enter("ordersync retry 536360")
			require.NoError(r, err)
			r.awaitEntries("536360", 1)
		},
		unseen: []string{"how far the target is behind could not be looked up as a whole"},
	},
	"The database refuses an order": {
		arise: func(r *runbook) {
			r.sql("ALTER TABLE orders ADD CONSTRAINT positive_total CHECK (JSON_VALUE(data, '$.total') >= 0)")
			for id := 536365; id <= 536368; id++ {
				r.publishOrder("store", fmt.Sprint(id), `{"total": 1}`, `{"total": -1}`)
			}
			r.awaitStuck("536365", "536366", "536367", "536368")
		},
		shows: map[string]string{
			"ordersync order 536365": "(?s)blocked on order_updation v2.*CheckViolated.*positive_total.*ordersync retry --event-id [0-9a-f-]+ 536365\n",
			`mariadb --execute "SELECT constraint_name, check_clause FROM information_schema.check_constraints WHERE constraint_schema = DATABASE()"`: "positive_total",
			"ordersync amend --event-id 1cc9692e --data-file mended.json --reason 'negative total' 536366":                                            "now idle",
			"ordersync skip --event-id 0c3f73e8 --reason 'a test order' 536367":                                                                       "now idle",
			"ordersync retry 536365 --reason 'constraint dropped'":                                                                                    "now idle",
		},
		heals: func(r *runbook) {
			r.awaitStuck()
			for id, outcome := range map[string]target.Entry{"536365": {Outcome: order.Applied}, "536366": {Outcome: order.Applied}, "536367": {Outcome: order.Skipped}, "536368": {Outcome: order.Applied}} {
				entries := r.awaitEntries(id, 2)
				require.Equal(r, outcome.Outcome, entries[1].Outcome, id)
			}
			require.JSONEq(r, `{"customer": "17850", "total": 139.12}`, r.data("536366"))
			require.JSONEq(r, `{"total": -1}`, r.data("536365"))
			devtest.Eventually(r, time.Minute, func() error {
				if len(r.actions("536368", "retry")) != 1 {
					return errors.New("it is not")
				}
				return nil
			}, "a signal of Temporal's own command is in the audit")
		},
	},
	"Signals without our command": {
		arise: func(r *runbook) {
			r.sql("ALTER TABLE orders ADD CONSTRAINT no_negative_total CHECK (sync_id NOT LIKE '53637%' OR JSON_VALUE(data, '$.total') >= 0)")
			for id := 536373; id <= 536375; id++ {
				r.publishOrder("store", fmt.Sprint(id), `{"total": 1}`, `{"total": -1}`)
			}
			r.awaitStuck("536373", "536374", "536375")
		},
		mend: map[string]func(*runbook){
			"ordersync order 536375": func(r *runbook) {
				r.awaitStuck("536375")
				r.sql("ALTER TABLE orders DROP CONSTRAINT no_negative_total")
			},
			"temporal workflow query --workflow-id order-536375 --type state": func(r *runbook) { r.awaitStuck() },
		},
		shows: map[string]string{
			"ordersync order 536375": "(?s)blocked on order_updation v2.*skip .*refused: its input could not be read",
			"temporal workflow query --workflow-id order-536375 --type state": `(?s)unknown field .*eventId.*tried order_updation v2 at once`,
		},
		heals: func(r *runbook) {
			for id, outcome := range map[string]order.Outcome{"536373": order.Applied, "536374": order.Skipped, "536375": order.Applied} {
				require.Equal(r, outcome, r.awaitEntries(id, 2)[1].Outcome, id)
			}
			require.JSONEq(r, `{"total": 3}`, r.data("536373"))
			devtest.Eventually(r, time.Minute, func() error {
				for id, signal := range map[string]string{"536373": "amend", "536374": "skip"} {
					if a := r.actions(id, signal); len(a) != 1 || a[0].By != "ada" {
						return fmt.Errorf("%s: %v", id, a)
					}
				}
				return nil
			}, "the audit has who and why")
		},
	},
	"Many orders are stuck at once": {
		arise: func(r *runbook) {
			r.sql("ALTER TABLE orders ADD CONSTRAINT no_test_orders CHECK (sync_id NOT LIKE 'T%')")
			var ids []string
			for i := range 20 {
				ids = append(ids, fmt.Sprintf("T%d", i))
				r.publishOrder("store", ids[i], `1`, `2`)
			}
			r.awaitStuck(ids...)
		},
		shows: map[string]string{
			"ordersync blocked --error CheckViolated --channel store":                                         `20 +blocked +CheckViolated +store`,
			"ordersync retry --error CheckViolated --dry-run":                                                 "would hit 20 orders",
			"ordersync retry --error CheckViolated --channel store --rate 50/s --reason 'constraint dropped'": "sent to 20 orders, 0 failed; 0 of them are still stuck",
			"temporal batch list": "Completed",
		},
		heals: func(r *runbook) {
			require.Equal(r, 40, r.count(ledgerRows+" WHERE sync_id LIKE 'T%' AND outcome = 'applied'"))
			devtest.Eventually(r, time.Minute, func() error {
				n, err := r.tryCount("SELECT COUNT(*) FROM operator_actions WHERE sync_id LIKE 'T%' AND reason = 'constraint dropped'")
				if err == nil && n != 20 {
					err = fmt.Errorf("%d", n)
				}
				return err
			}, "each is in the audit")
		},
	},
	// Where the starter stops before a run is too large, TestAHotOrder shows; the commands are typed beside an
	// order that is well.
	"One order gets very many events": {
		shows: map[string]string{
			"curl --silent http://$STARTER/metrics | grep ordersync_intake_orders_full": "ordersync_intake_orders_full 0",
		},
		unseen: []string{"an order's events wait in Kafka until its run has worked off what it has"},
	},
	"A full queue behind a blocked order": {
		arise: func(r *runbook) {
			r.sql("ALTER TABLE orders ADD CONSTRAINT no_hot_order CHECK (sync_id <> '536380')")
			data := make([]string, fullQueue)
			for i := range data {
				data[i] = fmt.Sprintf(`{"n":%d,"note":%q}`, i, strings.Repeat("x", 300<<10))
			}
			r.publishOrder("store", "536380", data...)
			r.awaitStuck("536380")
			devtest.Eventually(r, time.Minute, func() error {
				state, err := operator.State(r.Context(), r.temporal, "536380")
				if err != nil {
					return err
				}
				if letters := len(r.list(deadletter.Filter{})); letters == 0 || letters+state.PendingCount != fullQueue {
					return fmt.Errorf("%d letters, %d pending", letters, state.PendingCount)
				}
				return nil
			}, "the queue overflows")
		},
		mend: map[string]func(*runbook){
			"ordersync retry 536380 --reason 'constraint dropped'": func(r *runbook) { r.sql("ALTER TABLE orders DROP CONSTRAINT no_hot_order") },
			"ordersync order 536380 (2)":                           func(r *runbook) { r.awaitEntries("536380", fullQueue) },
		},
		shows: map[string]string{
			"ordersync order 536380":                   "blocked on order_creation v1",
			"ordersync deadletter list --order 536380": "order-blocked",
			"ordersync order 536380 (2)":               fmt.Sprintf("order_updation v%d", fullQueue),
		},
		heals: func(r *runbook) {
			for i, e := range r.entries("536380") {
				require.EqualValues(r, i+1, e.Version, "applied in order")
			}
		},
	},
	"An invoice waits for its order": {
		arise: func(r *runbook) {
			for _, id := range []string{"536370", "536371"} {
				r.publishLine("store", id, order.Invoice, 2, `{"invoice":"R"}`)
			}
			r.awaitStuck("536370", "536371")
		},
		shows: map[string]string{"ordersync order 536370": "UnknownOrder"},
		heals: func(r *runbook) {
			r.awaitEntries("536370", 2)
			require.Equal(r, order.Skipped, r.awaitEntries("536371", 1)[0].Outcome)
			r.awaitStuck()
		},
	},
	"A signal could not be read": {
		arise: func(r *runbook) {
			r.publishOrder("store", "536372", `1`)
			r.awaitEntries("536372", 1)
			require.NoError(r, r.temporal.SignalWorkflow(r.Context(), workflows.WorkflowID("536372"), "", workflows.SignalEvents, "sent by hand"))
			r.awaitStuck("536372")
		},
		mend: map[string]func(*runbook){
			"ordersync deadletter list --reason undecodable-signal": func(r *runbook) {
				devtest.Eventually(r, time.Minute, func() error {
					if len(r.list(deadletter.Filter{Reasons: []order.Reason{order.Undecodable}})) == 0 {
						return errors.New("none")
					}
					return nil
				}, "the signal is in the dead-letter topic")
			},
		},
		shows: map[string]string{
			"ordersync order 536372":                                "UndecodableSignal",
			"ordersync deadletter list --reason undecodable-signal": `undecodable-signal +1`,
		},
		heals: func(r *runbook) { r.awaitStuck() },
	},
	"The database is down or slow": {
		arise: func(r *runbook) {
			r.mysql.Kill()
			for id := range 5 {
				r.publishOrder("online", fmt.Sprint(536385+id), `1`)
			}
			r.awaitStuck("536385", "536386", "536387", "536388", "536389")
		},
		mend: map[string]func(*runbook){
			"ordersync retry --all --reason 'the database is back'": func(r *runbook) {
				var err error
				r.mysql, err = devstack.StartMySQL(r.Context(), r.mysqlOptions)
				require.NoError(r, err)
				server := r.mysql
				r.root.Cleanup(func() { _ = server.Stop(context.Background()) })
			},
		},
		fails:  []string{`mariadb --execute "SHOW PROCESSLIST"`},
		shows:  map[string]string{`temporal workflow count --query 'SyncStatus="retrying" AND ExecutionStatus="Running"'`: "Total: 5"},
		heals:  func(r *runbook) { r.awaitEntries("536389", 1) },
		unseen: []string{"too many orders are retrying: nothing is fetched until they are fewer"},
	},
	"The database refuses the user": {
		arise: func(r *runbook) {
			r.sql("REVOKE INSERT ON orders.* FROM 'sync'@'%'")
			r.disconnect()
			r.publishOrder("online", "536390", `1`)
			r.awaitStuck("536390")
		},
		mend: map[string]func(*runbook){
			"ordersync retry --error AccessDenied --reason 'granted again'": func(r *runbook) { r.disconnect() }, // as a restart would
		},
		shows: map[string]string{`mariadb --execute "SHOW GRANTS FOR 'sync'@'%'"`: "GRANT SELECT"},
		heals: func(r *runbook) { r.awaitEntries("536390", 1) },
	},
	"A step is paused": {
		arise: func(r *runbook) {
			r.sql("RENAME TABLE orders TO orders_away")
			r.publishOrder("online", "536423", `1`)
			r.awaitStuck("536423")
			_, err := r.temporal.WorkflowService().PauseActivity(r.Context(), &workflowservice.PauseActivityRequest{
				Namespace: r.cfg.Temporal.Client.Namespace, Execution: &commonpb.WorkflowExecution{WorkflowId: workflows.WorkflowID("536423")},
				Identity: "support@shop", Activity: &workflowservice.PauseActivityRequest_Type{Type: "CreateOrder"},
			})
			require.NoError(r, err)
			out, err := r.enter("ordersync blocked")
			require.NoError(r, err)
			require.Contains(r, out, "retrying, paused")
			r.sql("RENAME TABLE orders_away TO orders")
		},
		mend: map[string]func(*runbook){"ordersync order 536423 (2)": func(r *runbook) { r.awaitEntries("536423", 1) }},
		shows: map[string]string{
			"ordersync order 536423":     `CreateOrder is at attempt \d+, paused since \S+ by support@shop\n.*temporal activity unpause --workflow-id order-536423 --activity-id`,
			"ordersync order 536423 (2)": "applied",
		},
	},
	"Temporal does not take an order": {
		arise: func(r *runbook) {
			_, err := r.temporal.OperatorService().RemoveSearchAttributes(r.Context(), &operatorservice.RemoveSearchAttributesRequest{
				Namespace: r.cfg.Temporal.Client.Namespace, SearchAttributes: []string{workflows.OrderID.GetName()},
			})
			require.NoError(r, err)
			r.publishOrder("online", "536424", `1`)
			devtest.Eventually(r, 2*time.Minute, func() error {
				out, err := r.enter("ordersync blocked")
				if err == nil && !strings.Contains(out, "536424") {
					err = errors.New(out)
				}
				return err
			}, "the order is named")
		},
		shows: map[string]string{
			"ordersync blocked":                    `536424 +online +Temporal does not take it +\S+ +online/\d+/\d+`,
			"curl --silent http://$STARTER/readyz": `"ready":false.*OrderID`,
			"ordersync setup":                      "OrderID",
		},
		heals: func(r *runbook) { r.awaitEntries("536424", 1) },
	},
	"A run failed": {
		arise: func(r *runbook) {
			r.worker.terminate(30 * time.Second)
			stop := r.deployFailing()
			r.publishOrder("online", "536418", `1`)
			devtest.Eventually(r, time.Minute, func() error {
				w, err := operator.Describe(r.Context(), r.temporal, "536418")
				if err == nil && w.Ended() != order.RunFailed {
					err = errors.New(w.Status)
				}
				return err
			}, "the run fails")
			stop()
			r.requireCommitted()
			r.startWorker()
			r.awaitLog("worker", "an order's workflow failed")
		},
		mend: map[string]func(*runbook){"ordersync order 536418 (2)": func(r *runbook) { r.awaitEntries("536418", 1) }},
		shows: map[string]string{
			"ordersync order 536418":                                 "(?s)sync: failed.*its run failed since .*: a fault.*it held order_creation v1, which the shop's database lacks.*ordersync replay --order 536418",
			"ordersync replay --order 536418 --why 'its run failed'": `sent +1 `,
			"ordersync order 536418 (2)":                             "(?s)applied.*replay",
		},
		heals: func(r *runbook) {
			out, err := r.enter("ordersync blocked")
			require.NoError(r, err)
			require.Contains(r, out, "no order is stuck")
		},
	},
	"No worker works": {
		arise: func(r *runbook) {
			r.worker.terminate(30 * time.Second)
			r.publishOrder("online", "536400", `1`)
			r.awaitWorkflow("536400")
		},
		mend:  map[string]func(*runbook){"curl --silent http://$WORKER/readyz": func(r *runbook) { r.startWorker() }, "ordersync order 536400 (2)": func(r *runbook) { r.awaitEntries("536400", 1) }},
		shows: map[string]string{"ordersync order 536400": "no worker answers", "curl --silent http://$WORKER/readyz": `"ready":true`, "ordersync order 536400 (2)": "applied"},
	},
	"A starter is not ready": {
		arise: func(r *runbook) {
			r.starter.terminate(30 * time.Second)
			r.deleteTopic("international")
			r.startStarter()
			r.awaitLog("starter", "failed and is tried again")
		},
		mend: map[string]func(*runbook){"curl --silent http://$STARTER/readyz (2)": func(r *runbook) { r.starter.awaitReady() }},
		shows: map[string]string{
			"curl --silent http://$STARTER/readyz":     `"ready":false.*the group has not been joined yet`,
			"ordersync setup":                          "international",
			"curl --silent http://$STARTER/readyz (2)": `"ready":true`,
		},
	},
	"Kafka is down": {
		arise: func(r *runbook) {
			require.NoError(r, r.broker.Stop(r.Context()))
			r.awaitLog("starter", "failed and is tried again")
		},
		mend: map[string]func(*runbook){
			"ordersync wait --timeout 30m": func(r *runbook) {
				r.awaitLog("starter", "the group was not joined, which is tried again")
				var err error
				r.broker, err = devstack.StartKafka(r.Context(), r.kafkaOptions)
				require.NoError(r, err)
				broker := r.broker
				r.root.Cleanup(func() { _ = broker.Stop(context.Background()) })
				r.publishOrder("online", "536401", `1`)
			},
		},
		heals: func(r *runbook) { r.awaitEntries("536401", 1) },
	},
	"Temporal is down": {
		arise: func(r *runbook) {
			r.server.Kill()
			r.publishOrder("online", "536402", `1`)
			r.awaitLog("starter", "Temporal did not take an order's events; they are sent again until it does")
		},
		mend: map[string]func(*runbook){
			"ordersync wait --timeout 30m": func(r *runbook) {
				var err error
				r.server, err = devstack.StartTemporal(r.Context(), r.temporalOptions)
				require.NoError(r, err)
				server := r.server
				r.root.Cleanup(func() { _ = server.Stop(context.Background()) })
			},
		},
		fails:  []string{"temporal operator cluster health"},
		heals:  func(r *runbook) { r.awaitEntries("536402", 1) },
		unseen: []string{"waiting for a server"},
	},
	"Records are gone from Kafka": {
		arise: func(r *runbook) {
			r.starter.terminate(30 * time.Second)
			r.publishOrder("store", "536403", `1`, `2`, `3`, `4`, `5`)
			r.loseRecords("store", "536403", 3)
			r.startStarter()
			r.awaitEntries("536403", 2)
			r.deleteTopic("online")
			_, err := pod.Setup(r.Context(), r.cfg, errorLog(), pod.SetupOptions{})
			require.NoError(r, err)
			r.publishOrder("online", "536404", `1`)
			r.awaitEntries("536404", 1)
		},
		shows: map[string]string{
			`mariadb --table --execute "SELECT source_topic, source_partition, MAX(source_offset), MAX(received_at) FROM order_events GROUP BY source_topic, source_partition"`: `store`,
			"ordersync replay --since 48h --dry-run":                             `missing +0`,
			"ordersync replay --since 48h --why 'the topic store was made anew'": `missing +0`,
		},
	},
	"Workflow tasks fail after a deploy": {
		arise: func(r *runbook) {
			r.publishOrder("online", "536410", `1`)
			r.awaitEntries("536410", 1)
			r.worker.terminate(30 * time.Second)
			rollBack := r.deployOther()
			r.publishLine("online", "536410", order.Update, 2, `2`)
			r.awaitFailedTask("536410")
			r.awaitLog("worker", "Workflow panic")
			rollBack()
		},
		mend:  map[string]func(*runbook){"ordersync wait --timeout 30m": func(r *runbook) { r.startWorker() }},
		shows: map[string]string{"temporal workflow show --workflow-id order-536410": "WorkflowTaskFailed"},
		heals: func(r *runbook) { r.awaitEntries("536410", 2) },
	},
	"Workers do not know the rules of a run": {
		arise: func(r *runbook) {
			settings := pod.Settings(r.cfg)
			settings.Rules++
			_, err := r.temporal.ExecuteWorkflow(r.Context(), client.StartWorkflowOptions{
				ID: workflows.WorkflowID("536412"), TaskQueue: r.cfg.Temporal.TaskQueue,
			}, workflows.OrderSyncName, workflows.Input{SyncID: "536412", Settings: settings})
			require.NoError(r, err)
			r.awaitFailedTask("536412")
			r.publishOrder("online", "536412", `1`)
			r.awaitLog("worker", "the run follows rules 3 and this worker knows 1 to 2")
			r.awaitLog("worker", "the workflow tasks of an order fail")
		},
		shows: map[string]string{
			"ordersync blocked": `536412 +\S* *its workflow tasks fail`,
			"temporal workflow show --workflow-id order-536412":   "WorkflowTaskFailed",
			"ordersync replay --order 536412 --why 'rolled back'": `sent +1 `,
		},
		mend:  map[string]func(*runbook){"ordersync replay --order 536412 --why 'rolled back'": func(r *runbook) { r.requireCommitted() }},
		heals: func(r *runbook) { r.awaitEntries("536412", 1) },
	},
	"A workflow was terminated": {
		arise: func(r *runbook) {
			r.sql("ALTER TABLE orders ADD CONSTRAINT not_this_one CHECK (sync_id <> '536413')")
			r.publishOrder("online", "536413", `1`, `2`)
			r.awaitStuck("536413")
			r.requireCommitted()
			r.sql("ALTER TABLE orders DROP CONSTRAINT not_this_one")
			require.NoError(r, r.temporal.TerminateWorkflow(r.Context(), workflows.WorkflowID("536413"), "", "by mistake"))
		},
		mend: map[string]func(*runbook){
			"ordersync replay --since 3h --dry-run": func(r *runbook) { r.awaitEntries("536413", 2) },
		},
		shows: map[string]string{
			"ordersync order 536413": "Terminated",
			"ordersync replay --order 536413 --why 'terminated by mistake'":                              `sent +2 `,
			`temporal workflow list --query 'WorkflowType="OrderSync" AND ExecutionStatus="Terminated"'`: "order-536413",
			"ordersync replay --since 3h --dry-run":                                                      `missing +0`,
		},
		heals: func(r *runbook) {
			ended := r.awaitAction("536413", "terminate")
			require.Equal(r, "by mistake", ended.Reason)
			require.Equal(r, "blocked: CheckViolated", ended.Before)
		},
	},
	"A workflow was reset": {
		arise: func(r *runbook) {
			r.publishOrder("online", "536414", `1`, `2`)
			r.awaitEntries("536414", 2)
		},
		mend:  map[string]func(*runbook){"ordersync order 536414": func(r *runbook) { r.awaitIdle("536414") }},
		shows: map[string]string{"ordersync order 536414": "(?s)version 2.*order_updation v2 .*applied"},
		heals: func(r *runbook) {
			require.Len(r, r.entries("536414"), 2)
			r.requireAppliedOnce()
			require.Contains(r, r.awaitAction("536414", "reset").Reason, "an example")
		},
	},
	"Dead letters": {
		arise: func(r *runbook) {
			open := len(r.list(deadletter.Filter{}))
			for i, value := range []string{
				`{"sync_id": 536415, "event": "order_creation", "data": {"customer": "17850}`,
				`{"sync_id": 536417, "event": "order_deleted", "data": 1}`,
			} {
				r.produce("online", place{key: []byte("536415")}, []byte(value))
				devtest.Eventually(r, time.Minute, func() error {
					if n := len(r.list(deadletter.Filter{})); n != open+i+1 {
						return fmt.Errorf("%d letters", n)
					}
					return nil
				}, "the record is a dead letter")
			}
		},
		shows: map[string]string{
			"ordersync deadletter list":     `(?s)0/3 .*malformed-json.*unknown-event`,
			"ordersync deadletter show 0/3": "malformed-json, open",
		},
		heals: func(r *runbook) {
			r.awaitEntries("536415", 1)
			out, err := r.command("deadletter", "list", "--all")
			require.NoError(r, err)
			require.Regexp(r, `malformed-json +0 +1 +0`, string(out))
			require.Regexp(r, `unknown-event +0 +0 +1`, string(out))
		},
	},
	"The ERP sends duplicates": {
		arise: func(r *runbook) {
			r.publishOrder("online", "536416", `1`)
			invoice := `{"channel":"online","sync_id":536416,"event":"invoice_creation","data":{"invoice":"R-1"}}` + "\n"
			r.load([]byte(invoice + invoice))
			r.awaitEntries("536416", 3)
		},
		shows: map[string]string{
			`mariadb --table --execute "SELECT sync_id, COUNT(*), MIN(created_at), MAX(created_at) FROM invoices GROUP BY sync_id, CAST(data AS CHAR) HAVING COUNT(*) > 1"`: `\| 536416 +\| +2 \|`,
		},
		heals: func(r *runbook) {
			require.Equal(r, 1, r.count("SELECT COUNT(*) FROM invoices WHERE sync_id = '536416'"))
			require.Zero(r, r.replayAgain("--order", "536416").Missing)
		},
	},
	"Polling stands still": {
		arise: func(r *runbook) {
			r.erp.Advance(2)
			_, err := r.enter("ordersync schedule apply --every 1000h")
			require.NoError(r, err)
			r.awaitEntries("536420", 1)
			r.awaitEntries("536421", 1)
			r.awaitPolled(time.Time{})
			require.NoError(r, r.erp.Down(erpsim.Busy))
			r.erp.Finish()
			_, err = r.enter("ordersync schedule trigger")
			require.NoError(r, err)
			devtest.Eventually(r, time.Minute, func() error {
				if r.erp.Progress().Refused == 0 {
					return errors.New("the ERP was not asked")
				}
				return nil
			}, "a poll waits for the ERP")
		},
		mend: map[string]func(*runbook){
			"ordersync schedule pause --why 'the ERP is migrated'": func(r *runbook) {
				require.NoError(r, r.erp.Up())
				r.awaitPolled(r.erp.Progress().At)
				r.awaitEntries("536420", 2)
			},
		},
		shows: map[string]string{
			"ordersync schedule list": "(?s)ordersync-poll.*under way",
			`temporal workflow list --query 'WorkflowType="PollERP" AND ExecutionStatus="Running"'`: "ordersync-poll",
			"ordersync schedule pause --why 'the ERP is migrated'":                                  "paused",
			"ordersync schedule resume --why 'it is back'":                                          "resumed",
			"ordersync schedule apply --from 24h":                                                   "every 1000h0m0s.*changed",
		},
		heals: func(r *runbook) { require.Len(r, r.entries("536420"), 2) },
	},
	"Both ends do not agree": {
		arise: func(r *runbook) {
			r.requireCommitted()
			r.sql(`UPDATE orders SET data = '{"total":9}' WHERE sync_id = '536420'`)
			r.sql("DELETE FROM test_writes WHERE sync_id = '536420' ORDER BY at DESC LIMIT 1") // which no event has made
			r.sql("DELETE FROM orders WHERE sync_id = '536421'")
		},
		// The orders of the other sections never were in this ERP.
		fails: []string{"ordersync reconcile", "ordersync reconcile --last -o json", "ordersync reconcile --repair", "ordersync reconcile (2)"},
		shows: map[string]string{
			"ordersync reconcile":                            `(?s)536420 +different.*536421 +missing`,
			"ordersync reconcile --last -o json":             `"missing": ?1`,
			"ordersync schedule apply --reconcile-every 24h": "ordersync-poll +every 1000h0m0s",
			"ordersync reconcile --repair":                   `(?s)536421 +missing.*repaired`,
			"ordersync reconcile (2)":                        `(?m)^2 +agreeing`,
			"ordersync order 536421":                         "repair",
			"ordersync backfill --from 24h":                  "3",
		},
		heals: func(r *runbook) {
			require.JSONEq(r, `{"total": 2}`, r.data("536420"))
			require.JSONEq(r, `{"total": 1}`, r.data("536421"))
		},
	},
	"Who did what": {
		shows: map[string]string{
			"ordersync order 536366": "(?s)amend.*negative total",
			`mariadb --table --execute "SELECT acted_at, operator, action, sync_id, reason, effect FROM operator_actions ORDER BY acted_at DESC LIMIT 20"`: "discard.*not for this system",
		},
	},
}

// fullQueue is how many events of 300 KiB come for an order behind which 1 MiB has room.
const fullQueue = 5

// publishLine publishes an event.
func (r *runbook) publishLine(channel, id string, kind order.Kind, version int, data string) {
	r.Helper()
	r.load(fmt.Appendf(nil, `{"channel":%q,"sync_id":%q,"event":%q,"version":%d,"data":%s}`+"\n", channel, id, kind, version, data))
}

// publishOrder publishes the creation of an order and its updates, from version 1 on.
func (r *runbook) publishOrder(channel, id string, data ...string) {
	r.Helper()
	kind := order.Creation
	for i, d := range data {
		r.publishLine(channel, id, kind, i+1, d)
		kind = order.Update
	}
}

// awaitStuck waits until these orders are stuck and no others.
func (r *runbook) awaitStuck(ids ...string) {
	r.Helper()
	devtest.Eventually(r, time.Minute, func() error {
		survey, err := operator.Look(r.Context(), r.temporal, operator.Selection{}, 100, time.Now())
		if err != nil {
			return err
		}
		var stuck []string
		for _, o := range survey.Orders {
			stuck = append(stuck, o.SyncID)
		}
		if !sameElements(stuck, ids) {
			return fmt.Errorf("stuck are %v", stuck)
		}
		return nil
	}, fmt.Sprintf("stuck are %v", ids))
}

func sameElements(a, b []string) bool {
	count := map[string]int{}
	for _, s := range a {
		count[s]++
	}
	for _, s := range b {
		count[s]--
	}
	for _, n := range count {
		if n != 0 {
			return false
		}
	}
	return true
}

func (r *runbook) awaitWorkflow(id string) {
	r.Helper()
	devtest.Eventually(r, time.Minute, func() error {
		_, err := operator.Describe(r.Context(), r.temporal, id)
		return err
	}, "the order has a workflow")
}

func (r *runbook) awaitIdle(id string) {
	r.Helper()
	devtest.Eventually(r, time.Minute, func() error {
		state, err := operator.State(r.Context(), r.temporal, id)
		if err == nil && state.Status != workflows.StateIdle {
			err = errors.New(state.Status)
		}
		return err
	}, "the order is idle")
}

func (r *runbook) awaitLog(pod, line string) {
	r.Helper()
	devtest.Eventually(r, time.Minute, func() error {
		if !r.logged(pod, line) {
			return errors.New("it has not")
		}
		return nil
	}, fmt.Sprintf("the %s says %q", pod, line))
}

// sql is what somebody else does to the database, whose rights are not those of the pods.
func (r *runbook) sql(statement string) {
	r.Helper()
	file := filepath.Join(r.home, "statement.sql")
	require.NoError(r, os.WriteFile(file, []byte(statement), 0o600))
	out, err := r.enter("mariadb < statement.sql")
	require.NoError(r, err, "%s\n%s", statement, out)
}

// disconnect ends the pods' connections to the database.
func (r *runbook) disconnect() {
	r.Helper()
	out, err := r.enter(`mariadb --skip-column-names --execute "SELECT CONCAT('KILL ', id, ';') FROM information_schema.processlist WHERE user = 'sync'" > kill.sql && mariadb --force < kill.sql`)
	require.NoError(r, err, out)
}

func (r *runbook) deleteTopic(topic string) {
	r.Helper()
	answer, err := r.kafka.DeleteTopics(r.Context(), &kafka.DeleteTopicsRequest{Topics: []string{topic}})
	require.NoError(r, err)
	require.NoError(r, answer.Errors[topic])
}

// loseRecords deletes the first n records of an order, and what is before them, as retention does.
func (r *runbook) loseRecords(topic, id string, n int64) {
	r.Helper()
	partition := keyed(id, kafka.Murmur2Balancer{}).partition
	ends, err := r.kafka.ListOffsets(r.Context(), &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{topic: {kafka.LastOffsetOf(partition)}}})
	require.NoError(r, err)
	request := kmsg.NewDeleteRecordsRequest()
	p := kmsg.NewDeleteRecordsRequestTopicPartition()
	p.Partition, p.Offset = int32(partition), ends.Topics[topic][0].LastOffset-5+n
	request.Topics = []kmsg.DeleteRecordsRequestTopic{{Topic: topic, Partitions: []kmsg.DeleteRecordsRequestTopicPartition{p}}}
	response, err := request.RequestWith(r.Context(), r.client())
	require.NoError(r, err)
	require.NoError(r, kerr.ErrorForCode(response.Topics[0].Partitions[0].ErrorCode))
}

// deployOther runs a worker whose OrderSync has nothing to do with what runs have done so far. Its
// log counts as a worker's.
func (r *runbook) deployOther() (rollBack func()) {
	r.Helper()
	file, err := os.CreateTemp(r.home, "other-*.log")
	require.NoError(r, err)
	r.logs["worker"] = append(r.logs["worker"], file.Name())
	log := telemetry.NewLogger(file, slog.LevelInfo)
	metrics, err := telemetry.NewMetrics(log)
	require.NoError(r, err)
	c, err := pod.NewTemporal(r.cfg, log, metrics.SDK)
	require.NoError(r, err)
	w := worker.New(c, r.cfg.Temporal.TaskQueue, worker.Options{})
	w.RegisterWorkflowWithOptions(func(ctx workflow.Context, _ workflows.Input) error {
		return workflow.Sleep(ctx, time.Hour)
	}, workflow.RegisterOptions{Name: workflows.OrderSyncName})
	require.NoError(r, w.Start())
	return func() {
		w.Stop()
		c.Close()
		families, err := metrics.Registry.Gather()
		require.NoError(r, err)
		var names []string
		for _, family := range families {
			names = append(names, family.GetName())
		}
		require.Contains(r, names, "temporal_workflow_task_execution_failed_total")
		require.NoError(r, file.Close())
	}
}

// deployFailing runs a worker whose OrderSync fails.
func (r *runbook) deployFailing() (stop func()) {
	r.Helper()
	c, err := pod.NewTemporal(r.cfg, errorLog(), nil)
	require.NoError(r, err)
	w := worker.New(c, r.cfg.Temporal.TaskQueue, worker.Options{})
	w.RegisterWorkflowWithOptions(func(workflow.Context, workflows.Input) error { return errors.New("a fault") },
		workflow.RegisterOptions{Name: workflows.OrderSyncName})
	require.NoError(r, w.Start())
	return func() { w.Stop(); c.Close() }
}

// awaitPolled waits until a poll is through that has read the ERP after a time, and none is under way.
func (r *runbook) awaitPolled(after time.Time) {
	r.Helper()
	devtest.Eventually(r, 2*time.Minute, func() error {
		s, err := schedule.Describe(r.Context(), r.temporal, schedule.Poll)
		if err != nil {
			return err
		}
		last, found, err := schedule.LastPoll(r.Context(), r.temporal)
		if err == nil && (!found || !last.ReadUntil.After(after) || s.Running != nil) {
			err = fmt.Errorf("read until %v, under way: %v", last.ReadUntil, s.Running)
		}
		return err
	}, "the ERP is polled")
}

// awaitFailedTask waits until the history of an order's workflow shows a failed task.
func (r *runbook) awaitFailedTask(id string) {
	r.Helper()
	devtest.Eventually(r, time.Minute, func() error {
		history := r.temporal.GetWorkflowHistory(r.Context(), workflows.WorkflowID(id), "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
		for history.HasNext() {
			event, err := history.Next()
			if err != nil {
				return err
			}
			if event.GetEventType() == enumspb.EVENT_TYPE_WORKFLOW_TASK_FAILED {
				return nil
			}
		}
		return errors.New("it does not")
	}, "the workflow's task fails")
}
