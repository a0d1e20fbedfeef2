package intake

import (
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// collector shows the current generation as it stands when it is asked. Partitions of an earlier
// one are gone from it.
type collector struct {
	current func() *generation
}

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(prometheus.BuildFQName(namespace, subsystem, name), help, labels, nil)
}

// backfillLabel tells the topics of backfills, "true", from those that must not fall behind, "false".
const backfillLabel = "backfill"

var (
	committedDesc = describe("committed_offset", "Offset the group's next owner would begin at.", "topic", "partition", backfillLabel)
	lagDesc       = describe("lag", "Offsets between the committed one and the end of the log.", "topic", "partition", backfillLabel)
	inFlightDesc  = describe("in_flight", "Records fetched and not yet in Temporal or the dead-letter topic.", "topic", "partition", backfillLabel)
	ageDesc       = describe("oldest_unfinished_seconds", "Age of the oldest record that was fetched and is not finished; 0 if there is none.", "topic", "partition", backfillLabel)
	lanesDesc     = describe("lanes", "Orders with work in flight.", "topic", backfillLabel)
	bytesDesc     = describe("in_flight_bytes", "Bytes of the records in flight, counted generously.", "topic", backfillLabel)
	fullDesc      = describe("orders_full", "Orders whose further events wait in Kafka until their run has worked off what it has.")
	callsDesc     = describe("calls_in_flight", "Calls to Temporal under way.")
)

func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{committedDesc, lagDesc, inFlightDesc, ageDesc, lanesDesc, bytesDesc, fullDesc, callsDesc} {
		ch <- d
	}
}

func (c collector) Collect(ch chan<- prometheus.Metric) {
	g := c.current()
	if g == nil {
		return
	}
	gauge := func(d *prometheus.Desc, value float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	for _, p := range g.partitions {
		t := p.tracker.Load()
		if t == nil {
			continue
		}
		at, id, slow := t.standing(), strconv.Itoa(p.id), strconv.FormatBool(p.backfill)
		age := 0.0
		if !at.oldest.IsZero() {
			age = max(0, time.Since(at.oldest).Seconds())
		}
		gauge(committedDesc, float64(at.committed), p.topic, id, slow)
		gauge(lagDesc, float64(max(0, p.highWatermark.Load()-at.committed)), p.topic, id, slow)
		gauge(inFlightDesc, float64(at.unfinished), p.topic, id, slow)
		gauge(ageDesc, age, p.topic, id, slow)
	}
	calls, full, shares := g.lanes.usage()
	gauge(fullDesc, float64(full))
	gauge(callsDesc, float64(calls))
	for name, s := range shares {
		slow := strconv.FormatBool(name == backfillShare)
		gauge(lanesDesc, float64(s.lanes), name, slow)
		gauge(bytesDesc, float64(s.bytes), name, slow)
	}
}
