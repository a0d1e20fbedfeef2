package e2e

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ordersync/internal/devstack/devtest"
	"ordersync/internal/notice"
)

// blockThree has a constraint refuse three orders, and gives lines that publish them.
func (b *bundle) blockThree() []byte {
	b.Helper()
	_, err := b.target.DB().ExecContext(b.Context(), "ALTER TABLE orders ADD CONSTRAINT positive_total CHECK (JSON_VALUE(data, '$.total') IS NULL OR JSON_VALUE(data, '$.total') >= 0)")
	require.NoError(b, err)
	var lines []byte
	for i := range 3 {
		lines = fmt.Appendf(lines, `{"channel":"store","sync_id":"refused-%d","event":"order_creation","version":1,"data":{"total":-1}}`+"\n", i)
	}
	return lines
}

// Three orders get blocked in a row: one post says so, with their number.
func TestBlockedOrdersArePosted(t *testing.T) {
	posts := make(chan notice.Message, 10)
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var m notice.Message
		if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
			t.Error(err)
		}
		posts <- m
	}))
	t.Cleanup(hook.Close)
	b := setup(t, "ALERT_WEBHOOK_URL="+hook.URL)
	worker, starter := start(t, b.environ, "worker"), start(t, b.environ, "starter")
	metrics := worker.awaitReady()
	starter.awaitReady()
	b.load(b.blockThree())

	select {
	case m := <-posts:
		require.Equal(t, 3, m.Count)
		require.Equal(t, "CheckViolated", m.Reason)
		require.Contains(t, m.Text, "3 order(s) blocked by CheckViolated")
		require.Equal(t, "ordersync order "+m.Order.SyncID, m.Command)
	case <-time.After(time.Minute):
		t.Fatal("no post within a minute")
	}
	blocked, err := metric(metrics, "ordersync_orders_blocked_total")
	require.NoError(t, err)
	require.InDelta(t, 3, blocked, 0)
	devtest.Eventually(t, 10*time.Second, func() error {
		posted, err := metric(metrics, "ordersync_alert_posts_total")
		if err == nil && posted != 1 {
			err = fmt.Errorf("%v", posted)
		}
		return err
	}, "the post is counted")
	require.Empty(t, posts)
}

// A webhook that takes the connection and never answers holds up no order, and not the worker's end.
func TestAHangingWebhookIsInNobodysWay(t *testing.T) {
	s := seed(t)
	reached, release := make(chan struct{}, 10), make(chan struct{})
	hook := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		reached <- struct{}{}
		<-release
	}))
	t.Cleanup(hook.Close)
	t.Cleanup(func() { close(release) })
	b := setup(t, "ALERT_WEBHOOK_URL="+hook.URL)
	worker, starter := start(t, b.environ, "worker"), start(t, b.environ, "starter")
	worker.awaitReady()
	starter.awaitReady()
	b.load(b.blockThree())
	select {
	case <-reached:
	case <-time.After(time.Minute):
		t.Fatal("the webhook was not called within a minute")
	}

	events := orders(s, sized(500))
	b.load(ndjson(t, events))
	b.settle(time.Minute)
	b.requireModel(events)
	require.NoError(t, worker.alive())
	_, err := b.command("skip", "refused-0", "--reason", "a test", "--yes")
	require.NoError(t, err, "an order that was blocked is got going as ever")
	require.Less(t, worker.terminate(30*time.Second), 20*time.Second)
}
