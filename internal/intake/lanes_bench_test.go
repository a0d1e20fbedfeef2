package intake

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"ordersync/internal/order"
)

// A fetch of 3,000 events of 1,000 orders, spread over their lanes, sent and finished; Temporal
// answers at once.
func BenchmarkLanes(b *testing.B) {
	const orders, each = 1000, 3
	b.ReportAllocs()
	for b.Loop() {
		tracker := newTracker(0, true)
		l := newLanes(b.Context(), &lanes{
			call:     func(context.Context, []order.Event) error { return nil },
			called:   func(time.Duration) {},
			braked:   func(bool) bool { return false },
			limits:   Limits{}.withDefaults(),
			log:      quiet(),
			metrics:  newMetrics(nil),
			troubles: newTroubles(),
		}, []string{"online"}, nil)
		records := make([]*record, 0, orders*each)
		for n := range cap(records) {
			m := kafka.Message{Topic: "online", Offset: int64(n), Time: time.Now()}
			records = append(records, &record{message: m, event: order.Event{SyncID: strconv.Itoa(n % orders)}, tracker: tracker})
		}
		l.take(records)
		l.mu.Lock()
		for tracker.standing().unfinished > 0 {
			l.room.Wait()
		}
		l.mu.Unlock()
		l.close()
		l.running.Wait()
	}
}
