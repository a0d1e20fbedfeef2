package target

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"ordersync/internal/order"
)

// maxRecent bounds the rows that Recent reads.
const maxRecent = 10_000

// Pace is how fast the events of a topic come in.
type Pace struct {
	// Events are those that were resolved within Window, up to the moment it was asked for.
	Events int
	Window time.Duration
	// Timed of them have a plausible timestamp. P50 and P99 are quantiles of their time from the broker's timestamp to the
	// target; 0 of none.
	Timed    int
	P50, P99 time.Duration
}

// PerSecond is the mean rate.
func (p Pace) PerSecond() float64 { return float64(p.Events) / max(p.Window.Seconds(), 1e-3) }

// Recent is the pace of each topic over the last window. It reads the newest 10,000 rows of the ledger
// at most; where the window has more, those tell, and the Pace's window is shorter.
func (t *Target) Recent(ctx context.Context, window time.Duration) (_ map[string]Pace, err error) {
	rows, err := t.db.QueryContext(ctx, `SELECT source_topic, received_at, applied_at, CURRENT_TIMESTAMP(6) FROM order_events FORCE INDEX (applied_at)
		WHERE applied_at > CURRENT_TIMESTAMP(6) - INTERVAL ? SECOND ORDER BY applied_at DESC LIMIT ?`, window.Seconds(), maxRecent)
	if err != nil {
		return nil, fmt.Errorf("read the newest rows of order_events: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	latencies, events := map[string][]time.Duration{}, map[string]int{}
	read := 0
	var now, applied time.Time
	for rows.Next() {
		var topic string
		var received time.Time
		if err := rows.Scan(&topic, &received, &applied, &now); err != nil {
			return nil, err
		}
		if order.Plausible(received, applied) {
			latencies[topic] = append(latencies[topic], applied.Sub(received))
		}
		events[topic]++
		read++
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	if read == maxRecent {
		window = now.Sub(applied)
	}
	paces := map[string]Pace{}
	for topic, n := range events {
		times := latencies[topic]
		slices.Sort(times)
		paces[topic] = Pace{Events: n, Window: window, Timed: len(times), P50: quantile(times, 50), P99: quantile(times, 99)}
	}
	return paces, nil
}

// quantile is the smallest of sorted values that percent of them do not exceed; 0 of none.
func quantile(sorted []time.Duration, percent int) time.Duration {
	if len(sorted) == 0 {
		return 0
	}
	return sorted[(len(sorted)*percent+99)/100-1]
}
