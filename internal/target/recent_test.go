package target

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRecent(t *testing.T) {
	target := setup(t)
	recent := func() map[string]Pace {
		t.Helper()
		paces, err := target.Recent(t.Context(), time.Minute)
		require.NoError(t, err)
		return paces
	}
	assert.Empty(t, recent())

	// insert puts n events into the ledger that were applied so long ago, the i-th i ms after it was
	// received.
	insert := func(topic string, n int, ago time.Duration) {
		t.Helper()
		var values []string
		for i := range n {
			values = append(values, fmt.Sprintf(`('%s-%d', UUID(), 'order_creation', 'applied', '%[1]s', 0, 0, NOW(6),
				NOW(3) - INTERVAL %[3]d MICROSECOND, NOW(3) - INTERVAL %[4]d MICROSECOND)`,
				topic, i+1, ago.Microseconds()+int64(i+1)*1000, ago.Microseconds()))
		}
		target.exec(t, `INSERT INTO order_events (sync_id, event_id, kind, outcome, source_topic, source_partition, source_offset,
			occurred_at, received_at, applied_at) VALUES `+strings.Join(values, ", "))
	}
	insert("online", 200, time.Second)
	insert("store", 1, 2*time.Second)
	insert("old", 5, 2*time.Minute)
	assert.Equal(t, map[string]Pace{
		"online": {Events: 200, Window: time.Minute, Timed: 200, P50: 100 * time.Millisecond, P99: 198 * time.Millisecond},
		"store":  {Events: 1, Window: time.Minute, Timed: 1, P50: time.Millisecond, P99: time.Millisecond},
	}, recent())
	assert.InDelta(t, 200.0/60, recent()["online"].PerSecond(), 0.001)

	// Timestamps of 0, in seconds and far ahead are no times.
	for i, received := range []string{"1970-01-01", "1970-01-20 16:13:20", "9999-12-31"} {
		target.exec(t, fmt.Sprintf(`INSERT INTO order_events (sync_id, event_id, kind, outcome, source_topic, source_partition, source_offset,
			occurred_at, received_at, applied_at) VALUES ('untimed-%d', UUID(), 'order_creation', 'applied', 'store', 0, %[1]d, NOW(6), '%s', NOW(6) - INTERVAL 3 SECOND)`, i, received))
	}
	store := recent()["store"]
	assert.Equal(t, Pace{Events: 4, Window: time.Minute, Timed: 1, P50: time.Millisecond, P99: time.Millisecond}, store)
	assert.Zero(t, Entry{ReceivedAt: time.Unix(0, 0), AppliedAt: time.Now()}.Latency())

	// Above the bound the newest tell.
	insert("busy", maxRecent, 500*time.Millisecond)
	busy := recent()
	require.Len(t, busy, 1)
	assert.Equal(t, maxRecent, busy["busy"].Events)
	assert.Less(t, busy["busy"].Window, 30*time.Second)
	assert.Greater(t, busy["busy"].PerSecond(), float64(maxRecent)/30)
}
