package pod_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	enumspb "go.temporal.io/api/enums/v1"

	"ordersync/internal/config"
	"ordersync/internal/devstack"
	"ordersync/internal/devstack/devtest"
	"ordersync/internal/pod"
	"ordersync/internal/simulate"
	"ordersync/internal/target"
	"ordersync/internal/telemetry"
	"ordersync/workflows"
)

func TestMain(m *testing.M) { devtest.Main(m) }

// environ is that of a process with servers of its own, except for Temporal's, where it has its
// own task queue.
func environ(t *testing.T, more ...string) map[string]string {
	t.Helper()
	values := map[string]string{
		"KAFKA_BROKERS":       strings.Join(devtest.Kafka(t), ","),
		"KAFKA_GROUP":         devtest.Name(t, "group"),
		"TEMPORAL_ADDRESS":    devtest.Temporal(t),
		"TEMPORAL_TASK_QUEUE": devtest.Name(t, "queue"),
		"MYSQL_DSN":           devtest.MySQL(t),
		"HTTP_ADDRESS":        "127.0.0.1:0",
		"EAGER_START":         "true",
	}
	for _, channel := range []string{"online", "store", "international"} {
		values["KAFKA_TOPICS"] += channel + "=" + devtest.Name(t, channel) + ","
	}
	values["KAFKA_TOPICS"] = strings.TrimSuffix(values["KAFKA_TOPICS"], ",")
	values["KAFKA_DEAD_LETTER_TOPIC"] = devtest.Name(t, "dead")
	for _, pair := range more {
		name, value, _ := strings.Cut(pair, "=")
		values[name] = value
	}
	return values
}

func load(t *testing.T, environ map[string]string) config.Config {
	t.Helper()
	cfg, err := config.Load(environ)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// journal is a log that a test can read while it is written.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

// process is one that runs.
type process struct {
	log     *journal
	address chan string
	ready   chan struct{}
	ended   chan error
	cancel  context.CancelFunc
}

type runner func(context.Context, config.Config, *slog.Logger, ...pod.Option) error

func start(t *testing.T, run runner, cfg config.Config) *process {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &process{log: &journal{}, address: make(chan string, 1), ready: make(chan struct{}), ended: make(chan error, 1), cancel: cancel}
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.ended <- run(ctx, cfg, telemetry.NewLogger(p.log, slog.LevelInfo),
			pod.OnListening(func(address string) { p.address <- address }),
			pod.OnReady(func() { close(p.ready) }))
	}()
	t.Cleanup(func() {
		cancel()
		<-done
		if t.Failed() {
			t.Log(p.log)
		}
	})
	return p
}

// stop ends the process as SIGTERM does and tells how long that took.
func (p *process) stop(t *testing.T) time.Duration {
	t.Helper()
	began := time.Now()
	p.cancel()
	if err := <-p.ended; err != nil {
		t.Errorf("the process ended with %v", err)
	}
	return time.Since(began)
}

func (p *process) awaitReady(t *testing.T) {
	t.Helper()
	select {
	case <-p.ready:
	case err := <-p.ended:
		t.Fatalf("the process ended: %v", err)
	case <-time.After(time.Minute):
		t.Fatal("not ready within a minute")
	}
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// unready expects /readyz to say why a check fails.
func unready(address, check, reason string) func() error {
	return func() error {
		resp, err := http.Get("http://" + address + telemetry.ReadyPath)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		var report telemetry.Report
		if err := json.NewDecoder(resp.Body).Decode(&report); err != nil {
			return err
		}
		for _, c := range report.Checks {
			if resp.StatusCode == http.StatusServiceUnavailable && c.Name == check && !c.Ready && strings.Contains(c.Reason, reason) {
				return nil
			}
		}
		return fmt.Errorf("%d %+v", resp.StatusCode, report)
	}
}

func contains(log *journal, parts ...string) func() error {
	return func() error {
		for _, part := range parts {
			if !strings.Contains(log.String(), part) {
				return fmt.Errorf("the log lacks %s", part)
			}
		}
		return nil
	}
}

func TestWorkerWaitsForItsServers(t *testing.T) {
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := nobody.Addr().(*net.TCPAddr).Port
	nobody.Close()
	cfg := load(t, environ(t, "TEMPORAL_ADDRESS=127.0.0.1:"+strconv.Itoa(port)))

	p := start(t, pod.RunWorker, cfg)
	address := <-p.address
	if code, _ := get(t, "http://"+address+telemetry.HealthPath); code != http.StatusOK {
		t.Errorf("/healthz of a waiting process: %d", code)
	}
	devtest.Eventually(t, 10*time.Second, unready(address, "temporal", "is it up, are TEMPORAL_ADDRESS"), "unready without Temporal")
	devtest.Eventually(t, 10*time.Second, unready(address, "mysql", "run `ordersync setup`"), "unready without tables")
	devtest.Eventually(t, 10*time.Second, contains(p.log, `"server":"Temporal"`, `"server":"MySQL"`), "the log says what it waits for")

	temporal, err := devstack.StartTemporal(t.Context(), devstack.TemporalOptions{
		Dir: t.TempDir(), Port: port, Headless: true, InMemory: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer temporal.Stop(context.Background())
	if _, err := pod.Setup(t.Context(), cfg, slog.New(slog.DiscardHandler), pod.SetupOptions{}); err != nil {
		t.Fatal(err)
	}
	p.awaitReady(t)
	if code, body := get(t, "http://"+address+telemetry.ReadyPath); code != http.StatusOK {
		t.Errorf("%d %s", code, body)
	}
	if n := strings.Count(p.log.String(), "waiting for a server"); n > 4 {
		t.Errorf("the log said %d times that it waits", n)
	}
	_, scrape := get(t, "http://"+address+telemetry.MetricsPath)
	for _, metric := range []string{"temporal_num_pollers{", "temporal_worker_start_total{", "temporal_request_latency_seconds_count{"} {
		if !strings.Contains(scrape, metric) {
			t.Errorf("the scrape lacks %s", metric)
		}
	}
	if took := p.stop(t); took > 15*time.Second {
		t.Errorf("an idle worker took %v to stop", took)
	}
}

func TestStopWhileWaiting(t *testing.T) {
	cfg := load(t, environ(t, "TEMPORAL_ADDRESS=127.0.0.1:1", "KAFKA_BROKERS=127.0.0.1:1", "MYSQL_DSN=a:b@tcp(127.0.0.1:1)/c"))
	p := start(t, pod.RunBoth, cfg)
	devtest.Eventually(t, 10*time.Second, contains(p.log, "waiting for a server"), "it waits")
	if took := p.stop(t); took > 5*time.Second {
		t.Errorf("a waiting process took %v to stop", took)
	}
}

// TestBothUnderLoad stops a process in the middle of its work, twice, and expects every event in the
// ledger in the end.
func TestBothUnderLoad(t *testing.T) {
	values := environ(t)
	cfg := load(t, values)
	log := slog.New(slog.DiscardHandler)
	if _, err := pod.Setup(t.Context(), cfg, log, pod.SetupOptions{}); err != nil {
		t.Fatal(err)
	}
	published, orderIDs := publish(t, cfg, 300)
	db, err := pod.OpenTarget(cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()

	p := start(t, pod.RunBoth, cfg)
	p.awaitReady(t)
	// Which of the processes did how much of the work is not decided: the last may have come too late
	// for any. So the metrics are looked for in what all of them showed together.
	scrapes := ""
	scrape := func() {
		_, page := get(t, "http://"+<-p.address+telemetry.MetricsPath)
		scrapes += page
	}
	for _, share := range []int{published / 10, published / 2} {
		devtest.Eventually(t, time.Minute, ledgerHas(db, share), "some of the work")
		scrape()
		took := p.stop(t)
		t.Logf("stopped under load within %v", took)
		if took >= pod.ShutdownLimit {
			t.Errorf("the shutdown took %v", took)
		}
		p = start(t, pod.RunBoth, cfg)
		p.awaitReady(t)
	}
	began := time.Now()
	devtest.Eventually(t, 2*time.Minute, ledgerHas(db, published), "all of the work")
	t.Logf("the rest of %d events took %v", published, time.Since(began))
	if err := ledgerHas(db, published+1)(); err == nil {
		t.Error("an event was applied twice")
	}
	scrape()
	for _, metric := range []string{"temporal_workflow_completed_total{", "temporal_local_activity_total{", "ordersync_"} {
		if !strings.Contains(scrapes, metric) {
			t.Errorf("the scrapes lack %s", metric)
		}
	}
	if eager := eagerStarts(t, cfg, orderIDs); eager == 0 {
		t.Error("no order was started on the worker at once")
	} else {
		t.Logf("%d of %d orders were started eagerly", eager, len(orderIDs))
	}
}

// publish simulates orders and publishes their events, and gives the number of events.
func publish(t *testing.T, cfg config.Config, orders int) (events int, orderIDs []string) {
	t.Helper()
	topics := map[string]string{}
	for topic, channel := range cfg.Kafka.Topics {
		topics[string(channel)] = topic
	}
	var messages []kafka.Message
	seen := map[string]bool{}
	for e := range simulate.Orders(uint64(time.Now().UnixNano()), orders, simulate.Options{}) {
		value, err := simulate.Line(e)
		if err != nil {
			t.Fatal(err)
		}
		messages = append(messages, kafka.Message{Topic: topics[string(e.Channel)], Key: []byte(e.SyncID), Value: value})
		if !seen[e.SyncID] {
			seen[e.SyncID] = true
			orderIDs = append(orderIDs, e.SyncID)
		}
	}
	transport := pod.KafkaTransport(cfg)
	defer transport.CloseIdleConnections()
	producer := pod.NewProducer(cfg, transport)
	defer producer.Close()
	if err := producer.Publish(t.Context(), messages...); err != nil {
		t.Fatal(err)
	}
	return len(messages), orderIDs
}

func ledgerHas(db *target.Target, want int) func() error {
	return func() error {
		var rows int
		if err := db.DB().QueryRow("SELECT COUNT(*) FROM order_events").Scan(&rows); err != nil {
			return err
		}
		if rows < want {
			return fmt.Errorf("the ledger has %d rows, not yet %d", rows, want)
		}
		return nil
	}
}

// eagerStarts counts the orders whose first task came with the answer to their start.
func eagerStarts(t *testing.T, cfg config.Config, orderIDs []string) (eager int) {
	t.Helper()
	c, err := pod.DialTemporal(t.Context(), cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, id := range orderIDs {
		history := c.GetWorkflowHistory(t.Context(), workflows.WorkflowID(id), "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
		first, err := history.Next()
		if err != nil {
			t.Fatal(err)
		}
		if first.GetWorkflowExecutionStartedEventAttributes().GetEagerExecutionAccepted() {
			eager++
		}
	}
	return eager
}

func TestStarterNeedsNoTarget(t *testing.T) {
	values := environ(t, "EAGER_START=false")
	cfg := load(t, values)
	if _, err := pod.Setup(t.Context(), cfg, slog.New(slog.DiscardHandler), pod.SetupOptions{}); err != nil {
		t.Fatal(err)
	}
	delete(values, "MYSQL_DSN")
	p := start(t, pod.RunStarter, load(t, values))
	p.awaitReady(t)
	if took := p.stop(t); took > 15*time.Second {
		t.Errorf("an idle starter took %v to stop", took)
	}
}

func TestStarterWaitsForTopics(t *testing.T) {
	cfg := load(t, environ(t, "EAGER_START=false"))
	p := start(t, pod.RunStarter, cfg)
	address := <-p.address
	devtest.Eventually(t, 20*time.Second, unready(address, "kafka", ""), "unready without topics")
	if _, err := pod.Setup(t.Context(), cfg, slog.New(slog.DiscardHandler), pod.SetupOptions{}); err != nil {
		t.Fatal(err)
	}
	p.awaitReady(t)
}

func TestBusyHTTPAddress(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	cfg := load(t, environ(t, "HTTP_ADDRESS="+busy.Addr().String()))
	p := start(t, pod.RunWorker, cfg)
	select {
	case err := <-p.ended:
		if err == nil || !strings.Contains(err.Error(), "HTTP_ADDRESS") {
			t.Errorf("got %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("it runs on a busy address")
	}
}

func TestDialTemporalSaysWhatToDo(t *testing.T) {
	for _, c := range []struct{ variable, want string }{
		{"TEMPORAL_ADDRESS=127.0.0.1:1", "TEMPORAL_ADDRESS"},
		{"TEMPORAL_NAMESPACE=absent", "temporal operator namespace create -n absent"},
	} {
		_, err := pod.DialTemporal(t.Context(), load(t, environ(t, c.variable)), slog.New(slog.DiscardHandler))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.variable, err)
		}
	}
}
