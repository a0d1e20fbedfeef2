package intake

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are the starter's counters. What stands at a moment (lag, in flight, lanes) is read from
// the current generation by collector.
type metrics struct {
	fetched          *prometheus.CounterVec // topic
	deadLetters      *prometheus.CounterVec // topic, reason
	foreignKey       *prometheus.CounterVec // topic
	foreignPartition *prometheus.CounterVec // topic
	unreadTimes      *prometheus.CounterVec // topic
	lost             *prometheus.CounterVec // topic
	reset            *prometheus.CounterVec // topic
	calls            *prometheus.HistogramVec
	coalesced        prometheus.Counter
	alreadyStarted   prometheus.Counter
	retries          *prometheus.CounterVec // code
	generations      prometheus.Counter
	commitFailures   prometheus.Counter
	retrying         prometheus.Gauge
	braked           prometheus.Gauge
	backfillBraked   prometheus.Gauge
	backfillRate     prometheus.Gauge
}

const namespace, subsystem = "ordersync", "intake"

func newMetrics(r prometheus.Registerer) *metrics {
	f := promauto.With(r)
	counter := func(name, help string) prometheus.Counter {
		return f.NewCounter(prometheus.CounterOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help})
	}
	counters := func(name, help string, labels ...string) *prometheus.CounterVec {
		return f.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help}, labels)
	}
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help})
	}
	return &metrics{
		fetched:          counters("records_fetched_total", "Records fetched from Kafka.", "topic"),
		deadLetters:      counters("dead_letters_total", "Records acknowledged by the dead-letter topic.", "topic", "reason"),
		foreignKey:       counters("foreign_key_total", "Events whose record has no key, or one that is not their sync_id.", "topic"),
		foreignPartition: counters("foreign_partition_total", "Events in another partition than Murmur2 of their sync_id gives.", "topic"),
		unreadTimes:      counters("unread_times_total", "Events whose occurred_at cannot be read, so that the record's timestamp stands for it.", "topic"),
		lost:             counters("offsets_lost_total", "Offsets that Kafka's retention deleted before they were read.", "topic"),
		reset:            counters("topic_resets_total", "Partitions that began anew below the committed offset.", "topic"),
		calls: f.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "call_seconds",
			Help:    "Calls to Temporal, failed ones included, by kind: start or signal.",
			Buckets: []float64{.002, .005, .01, .02, .05, .1, .2, .5, 1, 2, 5, 10},
		}, []string{"call"}),
		coalesced:      counter("events_coalesced_total", "Events that shared the call of an earlier one."),
		alreadyStarted: counter("already_started_total", "Starts that found the workflow running and went on as signals."),
		retries:        counters("call_retries_total", "Failed calls to Temporal that are made again, by gRPC code.", "code"),
		generations:    counter("generations_total", "Generations of the consumer group this process took part in."),
		commitFailures: counter("commit_failures_total", "Failed commits of offsets."),
		retrying:       gauge("orders_retrying", "Orders that are retrying, as of the last count."),
		braked:         gauge("braked", "1 while nothing is fetched because too many orders are retrying."),
		backfillBraked: gauge("backfill_braked", "1 while nothing of a backfill is fetched because half as many orders are retrying."),
		backfillRate:   gauge("backfill_rate", "Records of backfills that are taken a second, at most, as busy as Temporal is; 0 if none are read."),
	}
}

func (m *metrics) observeCall(kind string, began time.Time) {
	m.calls.WithLabelValues(kind).Observe(time.Since(began).Seconds())
}
