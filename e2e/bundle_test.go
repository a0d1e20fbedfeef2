// Package e2e runs the whole system against itself: events are published to Kafka, starter and
// worker bring them to MySQL, and the target is held against a model that knows nothing of the
// pipeline (internal/simulate). In between things are killed, stopped, refused and sent twice.
//
//	events ──publish──> Kafka ── starter ── Temporal ── worker ──> MySQL
//	   └──── model ───────────────── compare ──────────────────────┘
//
// Waiting is left to internal/settle, which is what `ordersync wait` goes by; what is asserted
// afterwards is read from the database, Temporal and Kafka by other means.
//
// ORDERSYNC_TEST_KAFKA=real runs the same tests against Apache Kafka (make test-real). With
// ORDERSYNC_E2E_SEED the orders of a failed run come again; ORDERSYNC_E2E_LONG=1 makes the outage
// of the database last a minute, and has the ERP tell 20,000 orders.
package e2e

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/types/known/durationpb"

	"ordersync/internal/config"
	"ordersync/internal/devstack/devtest"
	"ordersync/internal/load"
	"ordersync/internal/operator"
	"ordersync/internal/order"
	"ordersync/internal/pod"
	"ordersync/internal/publish"
	"ordersync/internal/settle"
	"ordersync/internal/simulate"
	"ordersync/internal/target"
)

func TestMain(m *testing.M) { devtest.Main(m) }

// bundle is a pipeline's surroundings: topics, group, namespace and schema of the test's own.
type bundle struct {
	*testing.T
	environ   map[string]string
	cfg       config.Config
	temporal  client.Client
	target    *target.Target
	transport *kafka.Transport
	kafka     *kafka.Client
	producer  *publish.Producer
}

// setup prepares servers and topics; nothing of the pipeline runs yet. more are further variables
// of the environment, NAME=value.
func setup(t *testing.T, more ...string) *bundle {
	t.Helper()
	environ := map[string]string{
		"USER":                    "tester",
		"KAFKA_BROKERS":           strings.Join(devtest.Kafka(t), ","),
		"KAFKA_GROUP":             devtest.Name(t, "group"),
		"KAFKA_DEAD_LETTER_TOPIC": devtest.Name(t, "dead"),
		"TEMPORAL_ADDRESS":        devtest.Temporal(t),
		"TEMPORAL_NAMESPACE":      devtest.Name(t, "e2e"),
		"HTTP_ADDRESS":            "127.0.0.1:0",
	}
	var topics []string
	for _, channel := range order.Channels {
		topics = append(topics, string(channel)+"="+devtest.Name(t, string(channel)))
	}
	environ["KAFKA_TOPICS"] = strings.Join(topics, ",")
	for _, pair := range more {
		name, value, _ := strings.Cut(pair, "=")
		environ[name] = value
	}
	if environ["MYSQL_DSN"] == "" {
		environ["MYSQL_DSN"] = devtest.MySQL(t)
	}
	createNamespace(t, environ["TEMPORAL_ADDRESS"], environ["TEMPORAL_NAMESPACE"])
	b := connect(t, environ)
	_, err := pod.Setup(t.Context(), b.cfg, errorLog(), pod.SetupOptions{})
	require.NoError(t, err)
	b.countWrites()
	return b
}

// connect makes a bundle of servers that are prepared already.
func connect(t *testing.T, environ map[string]string) *bundle {
	t.Helper()
	cfg, err := config.Load(environ, "KAFKA_BROKERS", "MYSQL_DSN")
	require.NoError(t, err)
	b := &bundle{T: t, environ: environ, cfg: cfg, transport: pod.KafkaTransport(cfg)}
	t.Cleanup(b.transport.CloseIdleConnections)
	b.kafka = &kafka.Client{Addr: kafka.TCP(cfg.Kafka.Brokers...), Transport: b.transport}
	b.producer = pod.NewProducer(cfg, b.transport)
	t.Cleanup(func() { _ = b.producer.Close() }) // its broker may have been killed
	b.temporal, err = pod.NewTemporal(cfg, errorLog(), nil)
	require.NoError(t, err)
	t.Cleanup(b.temporal.Close)
	b.target, err = pod.OpenTarget(cfg, errorLog())
	require.NoError(t, err)
	t.Cleanup(func() { _ = b.target.Close() })
	return b
}

// createNamespace keeps the orders of one test out of what another counts.
func createNamespace(t *testing.T, address, name string) {
	t.Helper()
	c, err := client.NewNamespaceClient(client.Options{HostPort: address, Logger: errorLog()})
	require.NoError(t, err)
	defer c.Close()
	require.NoError(t, c.Register(t.Context(), &workflowservice.RegisterNamespaceRequest{
		Namespace: name, WorkflowExecutionRetentionPeriod: durationpb.New(24 * time.Hour),
	}))
	devtest.Eventually(t, time.Minute, func() error {
		_, err := c.Describe(t.Context(), name)
		return err
	}, "the namespace is there")
}

func errorLog() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
}

// seed is that of the test's events and faults. It is printed when the test fails, and always with -v.
func seed(t *testing.T) uint64 {
	t.Helper()
	n := rand.Uint64N(1_000_000)
	if fixed := os.Getenv("ORDERSYNC_E2E_SEED"); fixed != "" {
		var err error
		n, err = strconv.ParseUint(fixed, 10, 64)
		require.NoError(t, err)
	}
	t.Logf("seed %d; for the same again set ORDERSYNC_E2E_SEED=%d", n, n)
	return n
}

// orders are the events of n simulated orders of three events each.
func orders(seed uint64, n int) []order.Event {
	return slices.Collect(ordersOfThree(seed, n))
}

func ordersOfThree(seed uint64, n int) iter.Seq[order.Event] {
	one := 1
	return simulate.Orders(seed, n, simulate.Options{Updates: &one})
}

// sized is n, or a tenth of it with -short, where it is the way that counts and not the size.
func sized(n int) int {
	if testing.Short() {
		return n / 10
	}
	return n
}

// ndjson are the events as lines, in the form of the sample.
func ndjson(t *testing.T, events []order.Event) []byte {
	t.Helper()
	var text bytes.Buffer
	for _, e := range events {
		line, err := simulate.Line(e)
		require.NoError(t, err)
		text.Write(line)
	}
	return text.Bytes()
}

// load publishes lines of NDJSON, each of which must be taken.
func (b *bundle) load(text []byte) {
	b.Helper()
	require.NoError(b, b.publish(text))
}

func (b *bundle) publish(text []byte) error {
	var problems []error
	_, err := load.Lines(b.Context(), bytes.NewReader(text), load.Options{
		Topics: b.topics(), Publish: b.producer.Publish,
		Malformed: func(line int, err error) { problems = append(problems, fmt.Errorf("line %d: %w", line, err)) },
	})
	return errors.Join(append(problems, err)...)
}

// stream publishes events of simulated orders, evenly and until it is stopped, so that a fault hits a
// pipeline at work on however fast a machine; and not so far ahead of the ledger that a slow one would never
// be through. A target that is away stops nothing. stop publishes what is left of the orders that have begun,
// and gives the events of all of them.
func (b *bundle) stream(seed uint64, perSecond int) (stop func() []order.Event) {
	const (
		every = 50 * time.Millisecond
		ahead = 3000
	)
	binary(b.T, "starter") // building it takes a while
	quit, done := make(chan struct{}), make(chan error, 1)
	published := map[uuid.UUID]bool{}
	begun := 0
	publish := func(events []order.Event) error {
		for _, e := range events {
			published[e.ID] = true
			if e.Kind == order.Creation {
				begun++
			}
		}
		return b.publish(ndjson(b.T, events))
	}
	go func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		next, end := iter.Pull(ordersOfThree(seed, simulate.MaxOrders))
		defer end()
		for {
			applied, err := b.tryCount(ledgerRows)
			if err != nil || len(published)-applied < ahead {
				batch := make([]order.Event, perSecond*int(every)/int(time.Second))
				for i := range batch {
					batch[i], _ = next()
				}
				if err := publish(batch); err != nil {
					done <- err
					return
				}
			}
			select {
			case <-quit:
				done <- nil
				return
			case <-tick.C:
			}
		}
	}()
	return func() []order.Event {
		b.Helper()
		close(quit)
		require.NoError(b, <-done)
		events := orders(seed, begun)
		require.NoError(b, publish(slices.DeleteFunc(slices.Clone(events), func(e order.Event) bool { return published[e.ID] })))
		return events
	}
}

// topics has the topic of each channel.
func (b *bundle) topics() map[order.Channel]string {
	topics := map[order.Channel]string{}
	for topic, channel := range b.cfg.Kafka.Topics {
		topics[channel] = topic
	}
	return topics
}

// settle waits until everything published is settled, and says what is missing if it does not.
func (b *bundle) settle(limit time.Duration) settle.Summary {
	b.Helper()
	ctx, cancel := context.WithTimeoutCause(b.Context(), limit, fmt.Errorf("not within %s", limit))
	defer cancel()
	summary, err := settle.Wait(ctx, settle.Options{
		Brokers: b.cfg.Kafka.Brokers, Transport: b.transport, Topics: b.cfg.Kafka.Topics, Backfill: b.cfg.Kafka.BackfillTopics(), DeadLetterTopic: b.cfg.Kafka.DeadLetterTopic,
		Target:  b.target,
		Blocked: func(ctx context.Context) (map[string]bool, error) { return operator.Blocked(ctx, b.temporal) },
	})
	require.NoError(b, err, "%d events are outstanding, such as %+v", summary.Outstanding, summary.Waiting)
	return summary
}

// requireModel holds the whole target against what the events must come to.
func (b *bundle) requireModel(events []order.Event) {
	b.Helper()
	got, err := simulate.ReadTarget(b.Context(), b.target.DB())
	require.NoError(b, err)
	require.Empty(b, simulate.Compare(simulate.Expect(slices.Values(events)), got))
	b.requireAppliedOnce()
}

// countWrites has the database count the writes to each order, by triggers: the ledger alone would
// not show an event that was applied twice.
func (b *bundle) countWrites() {
	b.Helper()
	for _, statement := range []string{
		"CREATE TABLE IF NOT EXISTS test_writes (sync_id VARCHAR(64) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin NOT NULL, at DATETIME(6) NOT NULL, KEY (sync_id))",
		"CREATE TRIGGER IF NOT EXISTS test_insert AFTER INSERT ON orders FOR EACH ROW INSERT INTO test_writes VALUES (NEW.sync_id, SYSDATE(6))",
		"CREATE TRIGGER IF NOT EXISTS test_update AFTER UPDATE ON orders FOR EACH ROW INSERT INTO test_writes VALUES (NEW.sync_id, SYSDATE(6))",
	} {
		_, err := b.target.DB().ExecContext(b.Context(), statement)
		require.NoError(b, err)
	}
}

// requireAppliedOnce finds orders that were written to more or less often than the ledger says:
// each applied event writes the order's row exactly once.
func (b *bundle) requireAppliedOnce() {
	b.Helper()
	require.Zero(b, b.count(`SELECT COUNT(*) FROM
		(SELECT sync_id, SUM(outcome = 'applied') AS applied FROM order_events GROUP BY sync_id) AS ledger
		LEFT JOIN (SELECT sync_id, COUNT(*) AS written FROM test_writes GROUP BY sync_id) AS writes USING (sync_id)
		WHERE applied <> COALESCE(written, 0)`), "orders that were not written to once for each applied event")
}

// requireInOrder is for events that were published in the order of their versions: they must have
// been applied in it, none of them too late.
func (b *bundle) requireInOrder() {
	b.Helper()
	require.Zero(b, b.count("SELECT COUNT(*) FROM order_events WHERE outcome <> 'applied'"))
	require.Zero(b, b.count(`SELECT COUNT(*) FROM (SELECT applied_at, LAG(applied_at) OVER (PARTITION BY sync_id ORDER BY version) AS earlier FROM order_events) AS ledger
		WHERE applied_at <= earlier`), "events that were applied after a later one of their order")
}

// count runs a query that answers with one number.
func (b *bundle) count(query string, args ...any) int {
	b.Helper()
	n, err := b.tryCount(query, args...)
	require.NoError(b, err, query)
	return n
}

func (b *bundle) tryCount(query string, args ...any) (int, error) {
	var n sql.Null[int]
	err := b.target.DB().QueryRowContext(b.Context(), query, args...).Scan(&n)
	return n.V, err
}

const ledgerRows = "SELECT COUNT(*) FROM order_events"

// awaitLedger waits until the ledger has n rows.
func (b *bundle) awaitLedger(n int, limit time.Duration) {
	b.Helper()
	devtest.Eventually(b, limit, func() error {
		rows, err := b.tryCount(ledgerRows)
		if err == nil && rows < n {
			err = fmt.Errorf("%d", rows)
		}
		return err
	}, fmt.Sprintf("the ledger has %d rows", n))
}

// workflows counts the runs that a query of Temporal's finds.
func (b *bundle) workflows(query string) (int, error) {
	answer, err := b.temporal.CountWorkflow(b.Context(), &workflowservice.CountWorkflowExecutionsRequest{Query: query})
	return int(answer.GetCount()), err
}

const running = `ExecutionStatus="Running"`

// requireNoneRunning waits until the workflow of every order has completed.
func (b *bundle) requireNoneRunning() {
	b.Helper()
	devtest.Eventually(b, time.Minute, func() error {
		n, err := b.workflows(running)
		if err == nil && n > 0 {
			err = fmt.Errorf("%d run", n)
		}
		return err
	}, "every workflow has completed")
}

// requireCommitted waits until the group has committed everything published: no committed record
// is at or above its offsets.
func (b *bundle) requireCommitted() {
	b.Helper()
	devtest.Eventually(b, time.Minute, func() error {
		lag, err := b.lag()
		if err == nil && lag > 0 {
			err = fmt.Errorf("%d records above the committed offsets", lag)
		}
		return err
	}, "the offsets are committed")
}

// lag is how many offsets the topics have above the committed ones. A transaction's marker is one.
func (b *bundle) lag() (int, error) {
	partitions := map[string][]int{}
	ends := map[string][]kafka.OffsetRequest{}
	answer, err := b.kafka.Metadata(b.Context(), &kafka.MetadataRequest{Topics: b.cfg.Kafka.AllTopics().Names()})
	if err != nil {
		return 0, err
	}
	for _, topic := range answer.Topics {
		for _, p := range topic.Partitions {
			partitions[topic.Name] = append(partitions[topic.Name], p.ID)
			ends[topic.Name] = append(ends[topic.Name], kafka.LastOffsetOf(p.ID))
		}
	}
	committed, err := b.kafka.OffsetFetch(b.Context(), &kafka.OffsetFetchRequest{GroupID: b.cfg.Kafka.Group, Topics: partitions})
	if err == nil && !errors.Is(committed.Error, kafka.GroupIdNotFound) { // nobody has joined it yet
		err = committed.Error
	}
	if err != nil {
		return 0, err
	}
	last, err := b.kafka.ListOffsets(b.Context(), &kafka.ListOffsetsRequest{Topics: ends})
	if err != nil {
		return 0, err
	}
	lag := 0
	var problems []error
	for topic, all := range last.Topics {
		at := map[int]int64{}
		for _, p := range committed.Topics[topic] {
			at[p.Partition] = max(0, p.CommittedOffset)
			problems = append(problems, p.Error)
		}
		for _, p := range all {
			lag += int(p.LastOffset - at[p.Partition])
			problems = append(problems, p.Error)
		}
	}
	return lag, errors.Join(problems...)
}
