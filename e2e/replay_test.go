package e2e

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/workflowservice/v1"

	"ordersync/internal/deadletter"
	"ordersync/internal/devstack/devtest"
	"ordersync/internal/intake"
	"ordersync/internal/operator"
	"ordersync/internal/order"
	"ordersync/internal/pod"
	"ordersync/internal/replay"
)

func (b *bundle) letterReplay() deadletter.Replay {
	return deadletter.Replay{
		Topic: b.letters(), Channels: b.cfg.Kafka.AllTopics(), Temporal: b.temporal,
		Sender: intake.NewSender(b.temporal, b.cfg.Temporal.TaskQueue, pod.Settings(b.cfg)), Who: deadletter.Who{By: "a test"},
	}
}

// replayAgain runs ordersync replay once the starters have come to all, all of which must be sent.
func (b *bundle) replayAgain(args ...string) replay.Summary {
	b.Helper()
	b.requireCommitted()
	out, err := b.command(append([]string{"replay", "-o", "json"}, args...)...)
	require.NoError(b, err)
	var s replay.Summary
	require.NoError(b, json.Unmarshal(out, &s), "%s", out)
	require.Equal(b, s.Events, s.InLedger+s.DeadLettered+s.Missing)
	require.Zero(b, s.Waiting)
	return s
}

// terminate ends n of the running workflows, drawn at random, and counts the events they held.
func (b *bundle) terminate(random *rand.Rand, n int) (orders []string, held int) {
	b.Helper()
	answer, err := b.temporal.ListWorkflow(b.Context(), &workflowservice.ListWorkflowExecutionsRequest{Query: running, PageSize: 1000})
	require.NoError(b, err)
	var ids []string
	for _, w := range answer.GetExecutions() {
		ids = append(ids, w.GetExecution().GetWorkflowId())
	}
	slices.Sort(ids)
	random.Shuffle(len(ids), func(i, j int) { ids[i], ids[j] = ids[j], ids[i] })
	for _, id := range ids {
		if len(orders) == n {
			break
		}
		syncID := id[len("order-"):]
		state, err := operator.State(b.Context(), b.temporal, syncID)
		if err != nil {
			b.Logf("what order %s holds is not known: %v", syncID, err)
		}
		if b.temporal.TerminateWorkflow(b.Context(), id, "", "by a test") != nil {
			continue // it has completed meanwhile
		}
		orders, held = append(orders, syncID), held+state.PendingCount
	}
	require.Len(b, orders, n)
	return orders, held
}

// Twenty workflows are terminated while events are loaded, which come in any order: much of what those
// workflows held is gone. One replay brings it back, and nothing twice.
func TestReplayAfterTerminatedWorkflows(t *testing.T) {
	s := seed(t)
	random := rand.New(rand.NewPCG(s, 1))
	b := setup(t, "HOLD_WINDOW=20s")
	b.run()
	events := orders(s, sized(600))
	// Up to some hundred events later or earlier than they should come, so that many orders wait for their creation.
	shuffled := slices.Clone(events)
	const apart = 900
	for i := range shuffled {
		j := i + random.IntN(min(apart, len(shuffled)-i))
		shuffled[i], shuffled[j] = shuffled[j], shuffled[i]
	}
	half := len(shuffled) / 2
	b.load(ndjson(t, shuffled[:half]))
	devtest.Eventually(t, time.Minute, func() error {
		n, err := b.workflows(running)
		if err == nil && n < 40 {
			err = fmt.Errorf("%d run", n)
		}
		return err
	}, "workflows run")
	terminated, held := b.terminate(random, 20)
	t.Logf("terminated %v, which held %d events", terminated, held)
	require.Positive(t, held, "nothing is to be repaired")
	b.load(ndjson(t, shuffled[half:]))

	before := b.replayAgain("--since", "1h", "--dry-run")
	require.EqualValues(t, len(events), before.Events)
	found := b.replayAgain("--since", "1h", "--by", "oncall", "--why", "terminated by a test")
	require.Positive(t, found.Sent)
	require.Equal(t, found.Missing, found.Sent)
	b.settle(2 * time.Minute)
	b.requireModel(events)
	require.Empty(t, b.deadLetters())

	again := b.replayAgain("--since", "1h")
	require.Zero(t, again.Missing)
	require.EqualValues(t, len(events), again.InLedger)
	for _, syncID := range terminated {
		row, _, err := b.target.Order(t.Context(), syncID)
		require.NoError(t, err)
		top := slices.MaxFunc(slices.DeleteFunc(slices.Clone(events), func(e order.Event) bool { return e.SyncID != syncID || e.Kind == order.Invoice }),
			func(x, y order.Event) int { return int(x.Version - y.Version) })
		require.Equal(t, top.Version, row.Version)
	}
	devtest.Eventually(t, time.Minute, func() error {
		if n := b.count("SELECT COUNT(*) FROM operator_actions WHERE action = 'terminate' AND operator <> 'unknown' AND reason = 'by a test'"); n != len(terminated) {
			return fmt.Errorf("%d of %d", n, len(terminated))
		}
		return nil
	}, "who terminated them is in the audit")
	require.NotZero(t, b.count("SELECT COUNT(*) FROM operator_actions WHERE action = 'replay' AND operator = 'oncall' AND reason = 'terminated by a test'"))
}

// What the starters have not come to is not lost: sent past them, it would overtake what waits before it,
// and a backfill would have no rate.
func TestReplayLeavesWhatWaitsForTheStarters(t *testing.T) {
	b := setup(t)
	start(t, b.environ, "worker").awaitReady()
	first := start(t, b.environ, "starter")
	first.awaitReady()
	const creation, early, late = `{"sync_id":1,"event":"order_creation","data":{"n":1}}`, `{"sync_id":1,"event":"order_updation","data":{"n":2}}`, `{"sync_id":1,"event":"order_updation","data":{"n":3}}`
	b.send("1", creation)
	b.awaitEntries("1", 1)
	b.requireCommitted()
	first.terminate(pod.ShutdownLimit)

	topic := b.topics()[order.Online]
	for _, m := range []kafka.Message{{Value: []byte(early), Time: time.Now().Add(-3 * time.Hour)}, {Value: []byte(late), Time: time.Now().Add(-time.Hour)}} {
		m.Topic, m.Key = topic, []byte("1")
		require.NoError(t, b.producer.Publish(t.Context(), m))
	}
	b.backfill(orders(seed(t), 10))
	replayed := func(flags ...string) (s replay.Summary) {
		t.Helper()
		out, err := b.command(append([]string{"replay", "-o", "json"}, flags...)...)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(out, &s), "%s", out)
		return s
	}
	for _, flags := range [][]string{{"--since", "2h"}, {"--since", "2h", "--order", "1"}} {
		found := replayed(flags...)
		require.Zero(t, found.Missing, "%+v", found)
		require.Positive(t, found.Waiting)
	}
	require.EqualValues(t, 1, replayed("--order", "1").InLedger)

	start(t, b.environ, "starter").awaitReady()
	entries := b.awaitEntries("1", 3)
	for i, e := range entries {
		require.EqualValues(t, i, e.SourceOffset, "in the order of their arrival")
	}
	require.Zero(t, replayed("--order", "1").Missing)
}

// One order is repaired, and no other is touched; events without a version in their order, but not once
// others have overtaken them. Bounds of time are those of the records.
func TestReplayOfOneOrder(t *testing.T) {
	b := setup(t, "HOLD_WINDOW=1h")
	b.run()
	began := time.Now()
	events := []string{
		`{"sync_id":1,"event":"order_updation","data":{"n":2}}`, `{"sync_id":1,"event":"order_updation","data":{"n":3}}`,
		`{"sync_id":1,"event":"invoice_creation","data":{"n":4}}`, "no event",
	}
	b.send("1", events...)
	b.send("2", `{"sync_id":2,"event":"order_updation","data":{"n":1}}`)
	awaitHeld := func(syncID string, n int) {
		t.Helper()
		devtest.Eventually(t, time.Minute, func() error {
			state, err := operator.State(t.Context(), b.temporal, syncID)
			if err == nil && state.PendingCount != n {
				err = fmt.Errorf("%d", state.PendingCount)
			}
			return err
		}, "it holds its events")
	}
	awaitHeld("1", 3)
	awaitHeld("2", 1)
	for _, syncID := range []string{"1", "2"} {
		require.NoError(t, b.temporal.TerminateWorkflow(t.Context(), "order-"+syncID, "", "by a test"))
	}
	b.awaitOpen("1", 1)

	require.Zero(t, b.replayAgain("--order", "1", "--until", began.Add(-time.Minute).UTC().Format(time.RFC3339)).Read)
	require.Zero(t, b.replayAgain("--since", time.Now().Add(time.Minute).UTC().Format(time.RFC3339)).Read)
	_, err := b.temporal.DescribeWorkflowExecution(t.Context(), "order-1", "")
	require.NoError(t, err)
	found := b.replayAgain("--order", "1")
	require.Equal(t, replay.Summary{Read: 5, Rejected: 1, Events: 3, Missing: 3, Sent: 3, Orders: 1, Problems: []replay.Problem{}}, found)
	actions := b.actions("1", "replay")
	require.Len(t, actions, 1)
	require.Equal(t, "workflow Terminated", actions[0].Before)
	require.Contains(t, actions[0].Effect, "sent 3 events that the ledger lacked, order_updation to invoice_creation, from ")
	awaitHeld("1", 3)
	devtest.Eventually(t, time.Minute, func() error {
		if n, err := b.workflows(running); err != nil || n != 1 {
			return fmt.Errorf("%d, %w", n, err)
		}
		return nil
	}, "that of order 1 runs: order 2 is another's business")
	_, err = b.command("retry", "1")
	require.NoError(t, err)
	timeline := b.awaitEntries("1", 3)
	for i, e := range timeline {
		require.EqualValues(t, i, e.SourceOffset, "in the order of their arrival")
	}
	require.JSONEq(t, `{"n":3}`, b.data("1"))

	// Order 2 goes on without the event it lost, which is then too late.
	b.send("2", `{"sync_id":2,"event":"order_creation","data":{"n":0}}`, `{"sync_id":2,"event":"order_updation","data":{"n":2}}`)
	b.awaitEntries("2", 2)
	b.requireCommitted()
	out, err := b.command("replay", "--order", "2", "-o", "json")
	require.ErrorContains(t, err, "1 missing events were not sent")
	require.NoError(t, json.Unmarshal(out, &found))
	require.EqualValues(t, 1, found.Overtaken)
	require.Contains(t, found.Problems[0].Why, "older data would come back")
	require.JSONEq(t, `{"n":2}`, b.data("2"))
	require.EqualValues(t, 1, b.replayAgain("--order", "2", "--force").Sent)
	b.awaitEntries("2", 3)
	require.JSONEq(t, `{"n":1}`, b.data("2"), "as it was asked for")
	b.requireAppliedOnce()
}

// A record whose timestamp is none (here in seconds) lies before every --since, by Kafka's index of times as by its own word.
// It is replayed all the same.
func TestReplayFindsRecordsWithoutATimestamp(t *testing.T) {
	b := setup(t, "HOLD_WINDOW=1h")
	b.run()
	for n, at := range map[int]time.Time{1: time.UnixMilli(time.Now().Unix()), 2: time.UnixMilli(1), 3: time.Now().Add(-time.Hour), 4: time.Now()} {
		id := fmt.Sprint(n)
		require.NoError(t, b.producer.Publish(t.Context(), kafka.Message{
			Topic: b.topics()[order.Online], Key: []byte(id), Time: at, Value: fmt.Appendf(nil, `{"sync_id":%d,"event":"order_updation","data":1}`, n),
		}))
	}
	for n := range 4 {
		id := fmt.Sprint(n + 1)
		devtest.Eventually(t, time.Minute, func() error {
			state, err := operator.State(t.Context(), b.temporal, id)
			if err == nil && state.PendingCount != 1 {
				err = fmt.Errorf("%d", state.PendingCount)
			}
			return err
		}, "it is held")
		require.NoError(t, b.temporal.TerminateWorkflow(t.Context(), "order-"+id, "", "by a test"))
	}
	require.EqualValues(t, 4, b.replayAgain("--since", "1960-01-01T00:00:00Z", "--dry-run").Missing)
	found := b.replayAgain("--since", "10m", "--why", "a test")
	require.EqualValues(t, 3, found.Sent, "all but the one of an hour ago: %+v", found)
}
