package target

import (
	"strconv"
	"sync/atomic"
	"testing"
)

// BenchmarkApply takes orders of three events through the target on 16 connections.
func BenchmarkApply(b *testing.B) {
	target := setup(b)
	var orders atomic.Int64
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			id := strconv.FormatInt(orders.Add(1), 10)
			target.apply(b, step(id, creation, 1))
			target.apply(b, step(id, update, 2))
			target.apply(b, step(id, invoice, 3))
		}
	})
	b.ReportMetric(float64(3*b.N)/b.Elapsed().Seconds(), "events/s")
}
