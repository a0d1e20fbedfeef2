// Package telemetry is what a process tells about itself: the log, the metrics of ordersync and of
// the Temporal SDK in one Prometheus registry, and the HTTP server with health and readiness.
package telemetry

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/otlptranslator"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/opentelemetry"
)

// Metrics is the registry of a process.
type Metrics struct {
	Registry *prometheus.Registry
	// SDK goes into client.Options.MetricsHandler. What the SDK counts appears as
	// temporal_…_total, what it times as the histograms temporal_…_seconds.
	SDK client.MetricsHandler

	provider *metric.MeterProvider
}

// seconds are the buckets of the SDK's timers. OpenTelemetry's own are meant for milliseconds and
// would put nearly every call into the first.
var seconds = []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60}

// NewMetrics makes a registry with the metrics of the Go runtime, the process and the Temporal SDK.
func NewMetrics(log *slog.Logger) (*Metrics, error) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	exporter, err := otelprom.New(
		otelprom.WithRegisterer(registry),
		otelprom.WithTranslationStrategy(otlptranslator.UnderscoreEscapingWithSuffixes),
		otelprom.WithoutScopeInfo(),
		otelprom.WithoutTargetInfo(),
	)
	if err != nil {
		return nil, fmt.Errorf("metrics of the Temporal SDK: %w", err)
	}
	provider := metric.NewMeterProvider(
		metric.WithReader(exporter),
		metric.WithView(metric.NewView(
			metric.Instrument{Kind: metric.InstrumentKindHistogram},
			metric.Stream{Aggregation: metric.AggregationExplicitBucketHistogram{Boundaries: seconds}},
		)),
	)
	return &Metrics{
		Registry: registry,
		SDK: opentelemetry.NewMetricsHandler(opentelemetry.MetricsHandlerOptions{
			Meter:                provider.Meter("temporal-sdk-go"),
			OnError:              func(err error) { log.Warn("a metric of the Temporal SDK is lost", "error", err) },
			UseMonotonicCounters: true,
		}),
		provider: provider,
	}, nil
}

// Close ends the collection.
func (m *Metrics) Close(ctx context.Context) error { return m.provider.Shutdown(ctx) }
