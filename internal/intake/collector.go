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

var (
	committedDesc = describe("committed_offset", "Offset the group's next owner would begin at.", "topic", "partition")
	lagDesc       = describe("lag", "Offsets between the committed one and the end of the log.", "topic", "partition")
	inFlightDesc  = describe("in_flight", "Records fetched and not yet in Temporal or the dead-letter topic.", "topic", "partition")
	ageDesc       = describe("oldest_unfinished_seconds", "Age of the oldest record that was fetched and is not finished; 0 if there is none.", "topic", "partition")
	lanesDesc     = describe("lanes", "Orders with work in flight.", "topic")
	bytesDesc     = describe("in_flight_bytes", "Bytes of the records in flight, counted generously.", "topic")
	callsDesc     = describe("calls_in_flight", "Calls to Temporal under way.")
)

func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{committedDesc, lagDesc, inFlightDesc, ageDesc, lanesDesc, bytesDesc, callsDesc} {
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
		at, id := t.standing(), strconv.Itoa(p.id)
		age := 0.0
		if !at.oldest.IsZero() {
			age = max(0, time.Since(at.oldest).Seconds())
		}
		gauge(committedDesc, float64(at.committed), p.topic, id)
		gauge(lagDesc, float64(max(0, p.highWatermark.Load()-at.committed)), p.topic, id)
		gauge(inFlightDesc, float64(at.unfinished), p.topic, id)
		gauge(ageDesc, age, p.topic, id)
	}
	calls, shares := g.lanes.usage()
	gauge(callsDesc, float64(calls))
	for topic, s := range shares {
		gauge(lanesDesc, float64(s.lanes), topic)
		gauge(bytesDesc, float64(s.bytes), topic)
	}
}
