package e2e

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"

	"ordersync/internal/order"
	"ordersync/internal/simulate"
)

// The real orders: every one arrives as its highest creation or update says, and the same file
// again changes nothing.
func TestSampleFile(t *testing.T) {
	text, err := os.ReadFile("testdata/retail-orders.ndjson")
	require.NoError(t, err)
	var events []order.Event
	for line := range bytes.Lines(text) {
		e, err := simulate.Parse(line)
		require.NoError(t, err)
		events = append(events, e)
	}
	require.Len(t, events, 835)

	b := setup(t)
	b.run()
	for _, times := range []int{1, 2} {
		b.load(text)
		summary := b.settle(2 * time.Minute)
		require.Equal(t, times*835, summary.Events)
		require.Equal(t, (times-1)*835, summary.Duplicates)

		require.Equal(t, 314, b.count("SELECT COUNT(*) FROM orders"))
		require.Equal(t, 314, b.count("SELECT COUNT(*) FROM orders WHERE status = 'invoiced'"))
		require.Equal(t, 314, b.count("SELECT COUNT(*) FROM invoices"))
		require.Equal(t, 835, b.count(ledgerRows))
		b.requireModel(events)
		b.requireInOrder()
		b.requireCommitted() // the duplicates are through, too
		b.requireNoneRunning()
	}
	require.Empty(t, b.deadLetters())
}

// Events with versions may arrive in any order, from any partition and several times.
func TestAnyOrderOfArrival(t *testing.T) {
	s := seed(t)
	b := setup(t)
	b.run()
	events := slices.Collect(simulate.Orders(s, 400, simulate.Options{}))
	random := rand.New(rand.NewPCG(s, 0))
	var soon, late []kafka.Message
	for _, e := range events {
		line, err := simulate.Line(e)
		require.NoError(t, err)
		// Some updates come when their order is long done.
		to := &soon
		if e.Kind == order.Update && random.IntN(5) == 0 {
			to = &late
		}
		for range 1 + random.IntN(3) {
			*to = append(*to, kafka.Message{Topic: b.topics()[e.Channel], Key: fmt.Append(nil, random.IntN(100)), Value: line})
		}
	}
	for _, wave := range [][]kafka.Message{soon, late} {
		random.Shuffle(len(wave), func(i, j int) { wave[i], wave[j] = wave[j], wave[i] })
		for part := range slices.Chunk(wave, len(wave)/20) {
			require.NoError(t, b.producer.Publish(t.Context(), part...))
		}
		b.settle(2 * time.Minute)
	}
	b.requireModel(events)
	b.requireCommitted()
	b.requireNoneRunning()
	require.NotZero(t, b.count(ledgerRows+" WHERE outcome = 'stale'"), "none came too late: the test has shown nothing")
	require.Empty(t, b.deadLetters())
}
