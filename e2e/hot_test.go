package e2e

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"

	"ordersync/internal/devstack/devtest"
	"ordersync/internal/intake"
	"ordersync/internal/order"
	"ordersync/internal/pod"
	"ordersync/workflows"
)

// hot is the order that gets far more events than any other.
const hot = "hot"

// publishHot publishes the creation of one order and n-1 updates of it, with about so many bytes of data each.
func (b *bundle) publishHot(n, bytes int, versioned bool) []order.Event {
	b.Helper()
	events := make([]order.Event, n)
	messages := make([]kafka.Message, n)
	for i := range events {
		e := order.Event{
			SyncID: hot, Kind: order.Update, ID: uuid.New(), Channel: order.Online, OccurredAt: time.Now().UTC(),
			Data: fmt.Appendf(nil, `{"n":%d,"note":%q}`, i, strings.Repeat("x", bytes)),
		}
		if i == 0 {
			e.Kind = order.Creation
		}
		if versioned {
			e.Version = int64(i + 1)
		}
		value, err := e.Message()
		require.NoError(b, err)
		events[i], messages[i] = e, kafka.Message{Topic: b.topics()[order.Online], Key: []byte(hot), Value: value}
	}
	require.NoError(b, b.producer.Publish(b.Context(), messages...))
	return events
}

// realKafka returns whether the tests run against Apache Kafka. How much one order can hold is Temporal's
// matter, so there it is tried with fewer events.
func realKafka() bool { return os.Getenv("ORDERSYNC_TEST_KAFKA") == "real" }

// maxRun is the largest history that a run may come to, in bytes: the server terminates it at 50 MiB.
const maxRun = 20 << 20

// requireSmallRuns looks at every run of an order: none was ended by the server, and none came near its
// limits.
func (b *bundle) requireSmallRuns(syncID string) {
	b.Helper()
	var largest, events int64
	runs := 0
	var page []byte
	for {
		answer, err := b.temporal.ListWorkflow(b.Context(), &workflowservice.ListWorkflowExecutionsRequest{
			Query: fmt.Sprintf("WorkflowId=%q", workflows.WorkflowID(syncID)), NextPageToken: page,
		})
		require.NoError(b, err)
		for _, run := range answer.GetExecutions() {
			switch run.GetStatus() {
			case enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING, enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED, enumspb.WORKFLOW_EXECUTION_STATUS_CONTINUED_AS_NEW:
			default:
				b.Fatalf("run %s of order %s is %s", run.GetExecution().GetRunId(), syncID, run.GetStatus())
			}
			largest, events = max(largest, run.GetHistorySizeBytes()), max(events, run.GetHistoryLength())
			runs++
		}
		if page = answer.GetNextPageToken(); len(page) == 0 {
			break
		}
	}
	current, err := b.temporal.DescribeWorkflowExecution(b.Context(), workflows.WorkflowID(syncID), "")
	require.NoError(b, err)
	largest = max(largest, current.GetWorkflowExecutionInfo().GetHistorySizeBytes())
	b.Logf("order %s: %d runs, the largest history has %.1f MiB, the longest %d events", syncID, runs, float64(largest)/(1<<20), events)
	require.NotZero(b, runs)
	require.Less(b, largest, int64(maxRun))
}

// One order gets 20,000 updates while a thousand others go their way. Its run takes what it can hold, the
// rest waits in Kafka. Orders of other partitions do not notice.
func TestAHotOrder(t *testing.T) {
	s := seed(t)
	b := setup(t)
	n := sized(20_000)
	if realKafka() {
		n = min(n, 2000) // still far more than the order is given at a time
	}
	events := b.publishHot(n, 4000, true)
	others := orders(s, sized(1000))
	b.load(ndjson(t, others))
	worker, starter := start(t, b.environ, "worker"), start(t, b.environ, "starter")
	worker.awaitReady()
	metrics := starter.awaitReady()
	began := time.Now()
	full := 0
	devtest.Eventually(t, 10*time.Minute, func() error {
		n, err := b.tryCount(ledgerRows)
		if err != nil {
			return err
		}
		if waiting, err := metric(metrics, "ordersync_intake_orders_full"); err == nil && waiting > 0 {
			full++
		}
		if n < len(events)+len(others) {
			return fmt.Errorf("%d applied", n)
		}
		return nil
	}, "every event is in the ledger")
	took := time.Since(began)
	b.requireModel(append(others, events...))
	b.requireInOrder()
	b.requireSmallRuns(hot)
	require.Empty(t, b.deadLetters())

	// By the server's clock, in the ledger itself.
	const elsewhere = `SELECT COUNT(*) FROM order_events WHERE (source_topic, source_partition) NOT IN
		(SELECT source_topic, source_partition FROM (SELECT DISTINCT source_topic, source_partition FROM order_events WHERE sync_id = ?) AS its)`
	all := b.count(elsewhere, hot)
	before := b.count(elsewhere+` AND applied_at < (SELECT MAX(applied_at) FROM order_events WHERE sync_id = ?
		AND version < (SELECT MAX(version) FROM order_events WHERE sync_id = ?) / 2)`, hot, hot, hot)
	t.Logf("%d events of one order and %d others in %s; the starter saw it full %d times; %d of %d events in other partitions were applied before half of the hot order was",
		len(events), len(others), took.Round(time.Second), full, before, all)
	require.Equal(t, all, before)
	for _, p := range []*process{worker, starter} {
		peak := p.peakMemory()
		t.Logf("%s: at most %.1f MiB resident", p.name, float64(peak)/(1<<20))
		require.Less(t, peak, 150<<20, "%s: bytes resident", p.name)
	}
}

// dropDeadLetterTopic deletes the topic; setup makes it again.
func (b *bundle) dropDeadLetterTopic() {
	b.Helper()
	topic := b.cfg.Kafka.DeadLetterTopic
	answer, err := b.kafka.DeleteTopics(b.Context(), &kafka.DeleteTopicsRequest{Topics: []string{topic}})
	require.NoError(b, err)
	require.NoError(b, answer.Errors[topic])
}

// restoreDeadLetterTopic has setup make the topic again, and waits until this test's client knows it.
func (b *bundle) restoreDeadLetterTopic() {
	b.Helper()
	_, err := pod.Setup(b.Context(), b.cfg, errorLog(), pod.SetupOptions{})
	require.NoError(b, err)
	devtest.Eventually(b, time.Minute, func() error {
		_, err := b.letters().Reader.Spans(b.Context(), b.cfg.Kafka.DeadLetterTopic, time.Time{})
		return err
	}, "the dead-letter topic is there again")
}

// awaitFull waits until an order's run is given no further events, and until that has been so for a while:
// a minute with ORDERSYNC_E2E_LONG=1.
func (b *bundle) awaitFull(syncID string) {
	b.Helper()
	since, atLeast := time.Time{}, 10*time.Second
	if os.Getenv("ORDERSYNC_E2E_LONG") != "" {
		atLeast = time.Minute
	}
	devtest.Eventually(b, 5*time.Minute, func() error {
		d, err := b.temporal.DescribeWorkflowExecution(b.Context(), workflows.WorkflowID(syncID), "")
		if err != nil {
			return err
		}
		run := d.GetWorkflowExecutionInfo()
		switch {
		case !intake.RunIsFull(run.GetHistoryLength(), run.GetHistorySizeBytes()):
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		case time.Since(since) >= atLeast:
			return nil
		}
		return fmt.Errorf("%d events, %d bytes", run.GetHistoryLength(), run.GetHistorySizeBytes())
	}, "the run of order "+syncID+" is full and stays so")
}
