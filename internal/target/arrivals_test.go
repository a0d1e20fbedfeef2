package target

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ordersync/internal/order"
)

func TestArrivals(t *testing.T) {
	b := setup(t)
	at := func(topic string, partition int, offset int64, second int) order.Source {
		return order.Source{Topic: topic, Partition: partition, Offset: offset, ReceivedAt: time.Date(2026, 1, 2, 3, 4, second, 5e6, time.UTC)}
	}
	for _, s := range []order.Source{at("online", 1, 10, 10), at("online", 1, 20, 20), at("store", 0, 5, 15)} {
		e := event("1", update, 0)
		e.Source = s
		b.apply(t, order.Step{Event: e, InsertMissing: true})
	}
	skipped := event("1", update, 0)
	skipped.Source = at("online", 1, 90, 90)
	_, err := b.Skip(t.Context(), skipped)
	require.NoError(t, err)
	none, err := b.Arrivals(t.Context(), "2")
	require.NoError(t, err)
	_, after := none.After(at("online", 1, 0, 0))
	require.False(t, after)

	arrivals, err := b.Arrivals(t.Context(), "1")
	require.NoError(t, err)
	for name, tc := range map[string]struct {
		source order.Source
		after  bool
	}{
		"between two":                      {at("online", 1, 15, 15), true},
		"after all":                        {at("online", 1, 25, 25), false},
		"after all but a skipped one":      {at("online", 1, 30, 30), false},
		"a higher offset, an earlier time": {at("online", 1, 25, 12), true}, // the topic was made anew
		"a lower offset, a later time":     {at("online", 1, 15, 25), true}, // the producers' clocks differ
		"another partition, after all":     {at("online", 2, 0, 21), false},
		"another partition, between":       {at("online", 2, 99, 16), true},
		"another partition, who knows":     {at("online", 2, 99, 20), true},
		"the other topic's partition":      {at("store", 0, 6, 22), false},
	} {
		e, after := arrivals.After(tc.source)
		require.Equal(t, tc.after, after, name)
		require.Equal(t, tc.after, e.SyncID == "1", name)
	}
}
