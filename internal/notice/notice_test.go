package notice_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/stretchr/testify/require"

	"ordersync/internal/notice"
	"ordersync/internal/order"
)

// hook is a webhook that answers with the codes it is given, then with 200.
type hook struct {
	mu       sync.Mutex
	codes    []int
	messages []notice.Message
	got      chan notice.Message
}

func (h *hook) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.codes) > 0 {
		w.WriteHeader(h.codes[0])
		h.codes = h.codes[1:]
		return
	}
	var m notice.Message
	if err := json.NewDecoder(r.Body).Decode(&m); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	h.messages = append(h.messages, m)
	h.got <- m
}

func start(t *testing.T, every time.Duration, codes ...int) (*notice.Notices, *hook, *prometheus.Registry) {
	t.Helper()
	h := &hook{codes: codes, got: make(chan notice.Message, 100)}
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	registry := prometheus.NewRegistry()
	n := notice.New(notice.Options{WebhookURL: server.URL, Interval: every, Gather: 100 * time.Millisecond, Registerer: registry, Logger: slog.New(slog.DiscardHandler)})
	var running sync.WaitGroup
	ctx := t.Context()
	running.Go(func() { n.Run(ctx) })
	t.Cleanup(running.Wait)
	return n, h, registry
}

func blocked(id, reason string) order.Blocked {
	return order.Blocked{SyncID: id, Event: "order_updation v2", Reason: reason, Error: "no"}
}

func (h *hook) next(t *testing.T) notice.Message {
	t.Helper()
	select {
	case m := <-h.got:
		return m
	case <-time.After(20 * time.Second):
		t.Fatal("no post")
		return notice.Message{}
	}
}

func TestOnePostPerReasonAndInterval(t *testing.T) {
	n, h, registry := start(t, time.Hour)
	n.Blocked(blocked("1", "CheckViolated"))
	m := h.next(t)
	require.Equal(t, 1, m.Count)
	require.Contains(t, m.Text, "ordersync order 1")
	for range 100 {
		n.Blocked(blocked("2", "CheckViolated"))
	}
	n.Blocked(blocked("3", "DataTooLong"))
	require.Equal(t, "DataTooLong", h.next(t).Reason, "another reason has a post of its own; the first one's is not due")
	require.Empty(t, h.got)
	require.NoError(t, testutil.GatherAndCompare(registry, expected(), "ordersync_orders_blocked_total"))
}

func TestABurstIsOnePost(t *testing.T) {
	n, h, _ := start(t, time.Hour)
	for range 1000 {
		n.Blocked(blocked("1", "CheckViolated"))
	}
	require.Equal(t, 1000, h.next(t).Count)
	require.Empty(t, h.got)
}

func TestTheURLIsNotLogged(t *testing.T) {
	var log bytes.Buffer
	n := notice.New(notice.Options{
		WebhookURL: "https://127.0.0.1:1/secret\x7f", Gather: time.Millisecond, Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	n.Blocked(blocked("1", "CheckViolated"))
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	n.Run(ctx)
	require.Contains(t, log.String(), "could not be posted")
	require.NotContains(t, log.String(), "secret")

	log.Reset()
	n = notice.New(notice.Options{
		WebhookURL: "http://127.0.0.1:1/secret", Gather: time.Millisecond, Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	n.Blocked(blocked("1", "CheckViolated"))
	ctx, cancel = context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	n.Run(ctx)
	require.Contains(t, log.String(), "could not be posted")
	require.NotContains(t, log.String(), "secret")
}

func TestWhatComesMeanwhileIsCounted(t *testing.T) {
	n, h, _ := start(t, 200*time.Millisecond)
	n.Blocked(blocked("1", "CheckViolated"))
	total := h.next(t).Count
	for range 100 {
		n.Blocked(blocked("2", "CheckViolated"))
	}
	for total < 101 {
		total += h.next(t).Count
	}
	require.Equal(t, 101, total)
	h.mu.Lock()
	defer h.mu.Unlock()
	require.Less(t, len(h.messages), 20)
}

func TestAFailingWebhookIsTriedAgain(t *testing.T) {
	n, h, _ := start(t, time.Hour, http.StatusInternalServerError, http.StatusTooManyRequests)
	n.Blocked(blocked("1", "CheckViolated"))
	require.Equal(t, 1, h.next(t).Count)
}

func TestWithoutAWebhookNothingWaits(t *testing.T) {
	n := notice.New(notice.Options{Logger: slog.New(slog.DiscardHandler)})
	for range 1000 {
		n.Blocked(blocked("1", "CheckViolated"))
	}
}

func expected() *strings.Reader {
	return strings.NewReader(`
# HELP ordersync_orders_blocked_total Orders that became blocked, by the type of the error.
# TYPE ordersync_orders_blocked_total counter
ordersync_orders_blocked_total{reason="CheckViolated"} 101
ordersync_orders_blocked_total{reason="DataTooLong"} 1
`)
}
