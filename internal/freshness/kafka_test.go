package freshness

import (
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"

	"ordersync/internal/order"
)

// A timestamp that is none makes no record old: 0 would be an age of twenty thousand days.
func TestAgeOfARecordWithoutATimestamp(t *testing.T) {
	now := time.Date(2026, 11, 28, 5, 0, 0, 0, time.UTC)
	for name, timestamp := range map[string]time.Time{
		"-1": time.UnixMilli(-1), "0": time.UnixMilli(0), "seconds": time.UnixMilli(now.Unix()), "microseconds": time.UnixMilli(now.UnixMicro()),
	} {
		t.Run(name, func(t *testing.T) {
			m := kafka.Message{Topic: "online", Time: order.ClampTime(timestamp), Value: []byte(`{"sync_id":1,"event":"order_creation","data":1}`)}
			h := headOf(m, order.Online, now)
			require.Equal(t, []time.Time{now, now}, []time.Time{h.at, h.since})

			m.Value = []byte(`{"sync_id":1,"event":"order_creation","data":1,"occurred_at":"2026-11-28T04:00:00Z"}`)
			h = headOf(m, order.Online, now)
			require.Equal(t, now.Add(-time.Hour), h.at, "the ERP's time is one")
			require.Equal(t, now, h.since)
		})
	}
}
