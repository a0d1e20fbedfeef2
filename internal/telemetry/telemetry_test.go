package telemetry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.temporal.io/sdk/client"

	"ordersync/internal/telemetry"
)

// serve starts a server on a free port and answers with GET on it.
func serve(t *testing.T, health *telemetry.Health, metrics *telemetry.Metrics) func(path string) (int, string) {
	t.Helper()
	server, err := telemetry.Listen("127.0.0.1:0", health, metrics.Registry, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { done <- server.Serve() }()
	t.Cleanup(func() {
		if err := server.Close(context.Background()); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return func(path string) (int, string) {
		resp, err := http.Get("http://" + server.Addr().String() + path)
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
}

func newMetrics(t *testing.T) *telemetry.Metrics {
	t.Helper()
	metrics, err := telemetry.NewMetrics(slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return metrics
}

func TestScrapeHasTheSDKsMetrics(t *testing.T) {
	metrics := newMetrics(t)
	get := serve(t, &telemetry.Health{}, metrics)

	// A client whose server is not there: the SDK counts and times the failing call.
	nowhere, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nowhere.Close()
	c, err := client.NewLazyClient(client.Options{
		HostPort: nowhere.Addr().String(), MetricsHandler: metrics.SDK, Logger: telemetry.SDKLogger(slog.New(slog.DiscardHandler)),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if _, err := c.CheckHealth(ctx, nil); err == nil {
		t.Fatal("a server that is not there is healthy")
	}
	metrics.SDK.WithTags(map[string]string{"task_queue": "ordersync"}).Timer("temporal_workflow_task_execution_latency").Record(30 * time.Millisecond)

	code, body := get(telemetry.MetricsPath)
	if code != http.StatusOK {
		t.Fatalf("%d %s", code, body)
	}
	for _, want := range []string{
		`temporal_request_total{`,
		`temporal_request_latency_seconds_bucket{`,
		`operation="GetSystemInfo"`,
		// Buckets in seconds: 30 ms is above 25 ms and below 50 ms.
		`temporal_workflow_task_execution_latency_seconds_bucket{task_queue="ordersync",le="0.025"} 0`,
		`temporal_workflow_task_execution_latency_seconds_bucket{task_queue="ordersync",le="0.05"} 1`,
		"go_goroutines ",
		"process_resident_memory_bytes ",
	} {
		if !strings.Contains(body, want) {
			t.Errorf("the scrape lacks %s", want)
		}
	}
	if strings.Contains(body, "otel_scope") {
		t.Error("the scrape repeats the name of the instrumentation in every line")
	}
}

func TestReadiness(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		health := &telemetry.Health{}
		missing := errors.New("schema is at 0, this binary needs 1; run ordersync setup")
		asked := 0
		health.Add("mysql", func(context.Context) error { asked++; return missing })
		health.Add("temporal", func(ctx context.Context) error { return nil })

		report := health.Report(t.Context())
		want := telemetry.Report{Checks: []telemetry.Check{{Name: "mysql", Reason: missing.Error()}, {Name: "temporal", Ready: true}}}
		if got, _ := json.Marshal(report); string(got) != must(json.Marshal(want)) {
			t.Errorf("%s", got)
		}

		missing = nil
		if health.Report(t.Context()).Ready || asked != 1 {
			t.Errorf("asked %d times within a second", asked)
		}
		time.Sleep(time.Second)
		if report := health.Report(t.Context()); !report.Ready || asked != 2 {
			t.Errorf("%+v after %d questions", report, asked)
		}

		// A check that hangs is bounded, and an asker who left changes nothing.
		health.Add("kafka", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		time.Sleep(time.Second)
		gone, cancel := context.WithCancel(t.Context())
		cancel()
		began := time.Now()
		report = health.Report(gone)
		if report.Ready || !strings.Contains(report.Checks[2].Reason, "no answer within 2s") || !report.Checks[0].Ready {
			t.Errorf("%+v", report)
		}
		if took := time.Since(began); took != 2*time.Second {
			t.Errorf("the report took %v", took)
		}
	})
}

func must(text []byte, _ error) string { return string(text) }

func TestServer(t *testing.T) {
	health := &telemetry.Health{}
	health.Add("temporal", func(context.Context) error { return errors.New("connection refused; is TEMPORAL_ADDRESS right?") })
	get := serve(t, health, newMetrics(t))

	if code, body := get(telemetry.HealthPath); code != http.StatusOK || body != "ok\n" {
		t.Errorf("healthz: %d %q", code, body)
	}
	code, body := get(telemetry.ReadyPath)
	if code != http.StatusServiceUnavailable {
		t.Errorf("readyz: %d", code)
	}
	if want := `{"ready":false,"checks":[{"name":"temporal","ready":false,"reason":"connection refused; is TEMPORAL_ADDRESS right?"}]}` + "\n"; body != want {
		t.Errorf("readyz: %s", body)
	}
}

func TestBusyAddress(t *testing.T) {
	busy, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Close()
	_, err = telemetry.Listen(busy.Addr().String(), &telemetry.Health{}, newMetrics(t).Registry, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "HTTP_ADDRESS "+busy.Addr().String()+" is in use") {
		t.Errorf("got %v", err)
	}
	_, err = telemetry.Listen("192.0.2.1:0", &telemetry.Health{}, newMetrics(t).Registry, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "choose another HTTP_ADDRESS") || strings.Contains(err.Error(), "is in use") {
		t.Errorf("an address of another host: got %v", err)
	}
}

func TestLogKeys(t *testing.T) {
	var out bytes.Buffer
	log := telemetry.NewLogger(&out, slog.LevelInfo)
	telemetry.SDKLogger(log).Warn("poll failed", "Error", errors.New("refused"), "Attempt", 3)
	telemetry.SDKLogger(log).Debug("not at this level")
	var line map[string]any
	if err := json.Unmarshal(out.Bytes(), &line); err != nil {
		t.Fatalf("%v in %s", err, out.String())
	}
	if line["error"] != "refused" || line["attempt"] != 3.0 || line["component"] != "temporal-sdk" {
		t.Errorf("%v", line)
	}
}
