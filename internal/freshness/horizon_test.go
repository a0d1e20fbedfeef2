package freshness_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"ordersync/internal/freshness"
	"ordersync/internal/order"
)

func TestHorizons(t *testing.T) {
	b := setup(t)
	horizons := func() map[order.Channel]time.Time {
		t.Helper()
		h, err := b.Horizons(t.Context())
		require.NoError(t, err)
		require.Len(t, h, 2)
		return h
	}
	now := func(at time.Time) {
		t.Helper()
		assert.WithinDuration(t, time.Now(), at, 10*time.Second)
	}

	// A group that has committed nothing, of empty topics.
	h := horizons()
	now(h[order.Online])
	now(h[order.Store])

	// The record a partition goes on with counts for its channel, by the ERP's time of its event.
	b.publish("online", "1", `{"sync_id":1,"event":"order_creation","data":1,"occurred_at":"2026-01-02T03:04:05Z"}`)
	b.publish("online", "1", `{"sync_id":1,"event":"order_updation","data":1,"occurred_at":"2026-01-02T03:04:06Z"}`)
	b.publish("online.backfill", "2", `{"sync_id":2,"event":"order_creation","data":1,"occurred_at":"2020-01-01T00:00:00Z"}`)
	h = horizons()
	assert.Equal(t, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), h[order.Online])
	now(h[order.Store])

	// A record that is no event has only its timestamp, and an ERP's clock may be ahead.
	b.commit("online")
	before := time.Now().Truncate(time.Millisecond)
	b.publish("online", "1", `{"sync_id":1,"event":"order_updation","data":1,"occurred_at":"2999-01-01T00:00:00Z"}`)
	b.publish("store", "3", `no event`)
	published := time.Now()
	for _, at := range horizons() {
		assert.WithinRange(t, at, before, published)
	}
	b.commit("online")
	b.commit("store")

	// An ERP that publishes by itself takes a while for it, also behind the head of a partition.
	b.Overlap = time.Hour
	assert.WithinDuration(t, time.Now().Add(-time.Hour), horizons()[order.Online], 10*time.Second)
	b.publish("online", "1", `{"sync_id":1,"event":"order_updation","data":1,"occurred_at":"2026-01-02T03:04:05Z"}`)
	assert.Equal(t, time.Date(2026, 1, 2, 2, 4, 5, 0, time.UTC), horizons()[order.Online])
	b.commit("online")

	// What the last poll has not read is not known, and late commits are looked for in its overlap.
	read := time.Now().Add(-time.Hour).UTC()
	b.polled(freshness.Poll{ReadUntil: read, Overlap: time.Minute})
	h = horizons()
	assert.Equal(t, read.Add(-time.Minute), h[order.Online])
	assert.Equal(t, read.Add(-time.Minute), h[order.Store])
	b.publish("store", "3", `{"sync_id":3,"event":"order_creation","data":1,"occurred_at":"2026-01-02T03:04:05Z"}`)
	assert.Equal(t, time.Date(2026, 1, 2, 3, 3, 5, 0, time.UTC), horizons()[order.Store])
	b.polled(freshness.Poll{})
	assert.Zero(t, horizons()[order.Online], "no poll is through yet")

	b.Polled = func(context.Context) (freshness.Poll, bool, error) {
		return freshness.Poll{}, false, errors.New("boom")
	}
	_, err := b.Horizons(t.Context())
	require.ErrorContains(t, err, "boom")
	b.Polled = nil
	b.Topics["nowhere"] = order.International
	_, err = b.Horizons(t.Context())
	require.ErrorContains(t, err, "topic nowhere does not exist")
}
