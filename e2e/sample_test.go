package e2e

import (
	"bytes"
	"os"
	"testing"
	"time"

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
