package inbox_test

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"ordersync/internal/order"
	"ordersync/workflows/inbox"
)

// A whole order, as most are: everything arrives at once and is applied.
func BenchmarkOrder(b *testing.B) {
	events := []order.Event{ev("creation1"), ev("update2"), ev("invoice3")}
	b.ReportAllocs()
	for b.Loop() {
		in := inbox.New(hold)
		for _, e := range events {
			in.Add(e)
		}
		for range events {
			in.Resolve(in.Next(start).Step.Event.ID, order.Result{Outcome: order.Applied, Status: order.Open}, start)
		}
	}
}

// The costliest arrival: an event that goes before all that wait behind a stuck order.
func BenchmarkAddToFull(b *testing.B) {
	in := inbox.New(hold)
	for i := range inbox.MaxPending {
		in.Add(ev(fmt.Sprintf("update%d", i+2)))
	}
	first := ev("creation1")
	b.ReportAllocs()
	for n := uint64(0); b.Loop(); n++ {
		binary.BigEndian.PutUint64(first.ID[:], n)
		require.Equal(b, inbox.Queued, in.Add(first))
		in.Resolve(first.ID, order.Result{Outcome: order.Applied, Status: order.Open}, start)
	}
}
