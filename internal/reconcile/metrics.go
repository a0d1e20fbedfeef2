package reconcile

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"ordersync/internal/order"
)

// metrics tell of the last comparison that this process has finished. With several workers the one
// with the latest time counts.
type metrics struct {
	orders   *prometheus.GaugeVec // class
	repaired prometheus.Gauge
	finished prometheus.Gauge
	took     prometheus.Gauge
}

// agreeing is the class of the orders that are the same at both ends.
const agreeing = "agreeing"

func newMetrics(r prometheus.Registerer) *metrics {
	const namespace, subsystem = "ordersync", "reconcile"
	f := promauto.With(r)
	gauge := func(name, help string) prometheus.Gauge {
		return f.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Subsystem: subsystem, Name: name, Help: help})
	}
	return &metrics{
		orders: f.NewGaugeVec(prometheus.GaugeOpts{
			Namespace: namespace, Subsystem: subsystem, Name: "orders",
			Help: "Orders by what the last reconciliation found: agreeing, missing, stale, different, amended, ahead, extra or on_its_way.",
		}, []string{"class"}),
		repaired: gauge("repaired_orders", "Orders that the last reconciliation published anew."),
		finished: gauge("finished_timestamp_seconds", "When the last reconciliation ended; 0 before the first of this process."),
		took:     gauge("duration_seconds", "How long the last reconciliation took."),
	}
}

func (m *metrics) set(f order.Reconciliation) {
	for class, n := range f.Counts {
		m.orders.WithLabelValues(string(class)).Set(float64(n))
	}
	m.orders.WithLabelValues(agreeing).Set(float64(f.Agreeing))
	m.repaired.Set(float64(f.Repaired))
	m.finished.Set(float64(f.FinishedAt.UnixMilli()) / 1000)
	m.took.Set(f.FinishedAt.Sub(f.StartedAt).Seconds())
}
