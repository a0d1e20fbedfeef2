package freshness

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"ordersync/internal/order"
)

// How often the metrics are brought up to date: the looking takes a twentieth of the time at most,
// unless it takes more than three seconds.
const (
	lookEvery   = 15 * time.Second
	restFactor  = 20
	maxRest     = time.Minute
	lookTimeout = 30 * time.Second
)

// Exporter keeps the metrics of a process up to date. Every process that has one shows the same.
type Exporter struct {
	probe    *Probe
	log      *slog.Logger
	failures prometheus.Counter
	last     atomic.Pointer[Status] // the last that knew every channel's age
	failing  bool
}

// NewExporter registers the metrics; Run fills them. Until it has looked there are none.
func NewExporter(p *Probe, registerer prometheus.Registerer, log *slog.Logger) *Exporter {
	x := &Exporter{probe: p, log: log}
	x.failures = promauto.With(registerer).NewCounter(prometheus.CounterOpts{
		Namespace: namespace, Subsystem: subsystem, Name: "failures_total", Help: "Looks that lack something.",
	})
	if registerer != nil {
		registerer.MustRegister(x)
	}
	return x
}

// Run looks now and again until ctx ends.
func (x *Exporter) Run(ctx context.Context) {
	for {
		began := time.Now()
		x.look(ctx)
		rest := max(lookEvery, min(restFactor*time.Since(began), maxRest))
		select {
		case <-ctx.Done():
			return
		case <-time.After(rest):
		}
	}
}

func (x *Exporter) look(ctx context.Context) {
	looking, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	s, err := x.probe.Look(looking)
	if ctx.Err() != nil {
		return
	}
	if s.agesKnown() {
		x.last.Store(&s)
	}
	switch {
	case err != nil:
		x.failures.Inc()
		if !x.failing {
			x.log.Warn("how far the target is behind could not be looked up as a whole; the metrics of freshness stay as they are", "error", err)
		}
	case x.failing:
		x.log.Info("how far the target is behind is looked up again")
	}
	x.failing = err != nil
}

func (s Status) agesKnown() bool {
	for _, c := range s.Channels {
		if c.AgeSeconds == nil {
			return false
		}
	}
	return true
}

const namespace, subsystem = "ordersync", "freshness"

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(namespace, subsystem, name), help, labels, nil)
}

var (
	ageDesc      = describe("seconds", "Age of the oldest event of the channel that is not in the target, by the ERP's time; 0 if there is none.", "channel")
	waitingDesc  = describe("waiting_seconds", "For how long at least an event of the channel has waited in Kafka, for a worker or in a stuck order, or perhaps in the ERP; 0 if none does.", "channel")
	lagDesc      = describe("lag", "Records of the channel in Kafka that no starter has finished.", "channel")
	retryingDesc = describe("orders_retrying", "Orders of the channel that are retrying.", "channel")
	blockedDesc  = describe("orders_blocked", "Orders of the channel that are blocked.", "channel")
	backfillDesc = describe("backfill_lag", "Records of the channel's backfill in Kafka that no starter has finished.", "channel")
	tasksDesc    = describe("waiting_tasks", "Tasks that wait for a worker, about.")
	workersDesc  = describe("workers", "Workers that polled the task queue in the last minutes.")
	lettersDesc  = describe("dead_letters", "Letters in the dead-letter topic, whatever was done with them.")
	stalledDesc  = describe("stalled", "Partitions whose first unfinished record the starters do not get past, by why: not_taken (Temporal does not take it), no_letter (its dead letter cannot be written), run_full (its order's run has as much as it can hold).", "trouble")
	readDesc     = describe("poll_read_until_timestamp_seconds", "When the last completed poll asked for the page with which it reached the end of the ERP's changes.")
	lookedDesc   = describe("looked_timestamp_seconds", "When this was looked up. What is stuck goes on growing older; all else stays as it was then.")
)

// Describe implements prometheus.Collector.
func (x *Exporter) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		ageDesc, waitingDesc, lagDesc, retryingDesc, blockedDesc, backfillDesc, tasksDesc, workersDesc, lettersDesc, stalledDesc, readDesc, lookedDesc,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector. Ages are those of now: what waited at the last look is taken
// to wait still.
func (x *Exporter) Collect(ch chan<- prometheus.Metric) {
	s := x.last.Load()
	if s == nil {
		return
	}
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	count := func(d *prometheus.Desc, n *int64, labels ...string) {
		if n != nil {
			gauge(d, float64(*n), labels...)
		}
	}
	now := time.Now()
	for _, c := range s.Channels {
		age, waiting := *c.AgeSeconds, *c.WaitingSeconds
		if c.Oldest != nil {
			age = secondsSince(c.Oldest.At, now)
			waiting += now.Sub(s.At).Seconds()
		}
		channel := string(c.Channel)
		gauge(ageDesc, age, channel)
		gauge(waitingDesc, waiting, channel)
		count(lagDesc, c.Lag, channel)
		count(retryingDesc, c.Retrying, channel)
		count(blockedDesc, c.Blocked, channel)
	}
	for _, b := range s.Backfills {
		gauge(backfillDesc, float64(b.Lag), string(b.Channel))
	}
	if q := s.TaskQueue; q != nil {
		gauge(tasksDesc, float64(q.Tasks))
		gauge(workersDesc, float64(q.Pollers))
	}
	count(lettersDesc, s.DeadLetters)
	for _, trouble := range []order.Trouble{order.NotTaken, order.NoLetter, order.RunFull} {
		n := 0
		for _, one := range s.Stalled {
			if one.Trouble == trouble {
				n++
			}
		}
		gauge(stalledDesc, float64(n), string(trouble))
	}
	if s.Poll != nil && !s.Poll.ReadUntil.IsZero() {
		gauge(readDesc, float64(s.Poll.ReadUntil.UnixMilli())/1000)
	}
	gauge(lookedDesc, float64(s.At.UnixMilli())/1000)
}
