// Package notice tells people that an order waits for them: in the log, in a metric by reason, and
// by a webhook. A webhook that is slow or gone never holds up an order: notices wait for it by
// reason, as a count, and are posted at most once a minute for each.
package notice

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"ordersync/internal/order"
)

// Bounds of the webhook.
const (
	// interval is the least time between two posts about the same reason.
	interval = time.Minute
	// gather is how long the first notice of a reason waits for others: what blocks one order mostly
	// blocks many, and the one post of the minute should say so.
	gather = 3 * time.Second
	// maxReasons bounds the reasons that wait to be posted; what comes above is counted as others.
	maxReasons = 50
	others     = "others"
	// A post has attempts of postTimeout each, spaced by backoff, within postLimit.
	postTimeout = 5 * time.Second
	postLimit   = 30 * time.Second
)

// Options configure Notices.
type Options struct {
	// WebhookURL takes a JSON object by POST; empty for none.
	WebhookURL string
	// Interval is the least time between two posts about the same reason; 0 is a minute.
	Interval time.Duration
	// Gather is how long the first notice of a reason waits for others; 0 is three seconds.
	Gather     time.Duration
	Registerer prometheus.Registerer // nil keeps the metrics to itself
	Logger     *slog.Logger
}

// Message is what the webhook gets. Text is a sentence for people, as Slack and its likes show it.
type Message struct {
	Text   string `json:"text"`
	Reason string `json:"reason"`
	// Count is how many orders have been blocked for the reason since the last post about it.
	Count int `json:"count"`
	// Order is one of them.
	Order   order.Blocked `json:"order"`
	Command string        `json:"command"`
}

// Notices take the notices of a process. They are safe for concurrent use.
type Notices struct {
	options Options
	blocked *prometheus.CounterVec
	posts   *prometheus.CounterVec

	mu      sync.Mutex
	waiting map[string]*waiting
	wake    chan struct{}
}

// waiting is what there is to post about a reason, and when the next post is due.
type waiting struct {
	count int
	last  order.Blocked
	due   time.Time
}

// New makes Notices; Run posts them.
func New(o Options) *Notices {
	if o.Interval == 0 {
		o.Interval = interval
	}
	if o.Gather == 0 {
		o.Gather = gather
	}
	metrics := promauto.With(o.Registerer)
	return &Notices{
		options: o,
		blocked: metrics.NewCounterVec(prometheus.CounterOpts{
			Name: "ordersync_orders_blocked_total", Help: "Orders that became blocked, by the type of the error.",
		}, []string{"reason"}),
		posts: metrics.NewCounterVec(prometheus.CounterOpts{
			Name: "ordersync_alert_posts_total", Help: "Posts to the alert webhook, by result: ok or failed.",
		}, []string{"result"}),
		waiting: map[string]*waiting{},
		wake:    make(chan struct{}, 1),
	}
}

// Blocked logs and counts the notice and leaves it to Run to post. It does not wait.
func (n *Notices) Blocked(b order.Blocked) {
	n.options.Logger.Error("order is blocked and waits for somebody", "order", b.SyncID, "channel", b.Channel, "event", b.Event,
		"reason", b.Reason, "error", b.Error, "command", command(b))
	n.blocked.WithLabelValues(b.Reason).Inc()
	if n.options.WebhookURL == "" {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	w := n.waiting[b.Reason]
	if w == nil && len(n.waiting) >= maxReasons {
		b.Reason = others
		w = n.waiting[others]
	}
	if w == nil {
		w = &waiting{due: time.Now().Add(n.options.Gather)}
		n.waiting[b.Reason] = w
	}
	w.count++
	w.last = b
	select {
	case n.wake <- struct{}{}:
	default: // it is awake
	}
}

func command(b order.Blocked) string { return order.ShowCommand(b.SyncID).String() }

// Run posts until ctx ends. What waits then is dropped: the orders are found by their search
// attributes.
func (n *Notices) Run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		message, next, ok := n.take(time.Now())
		if ok {
			n.post(ctx, message)
			if ctx.Err() != nil {
				return
			}
			continue
		}
		timer.Reset(next)
		select {
		case <-ctx.Done():
			return
		case <-n.wake:
		case <-timer.C:
		}
	}
}

// take gives a message that is due, or how long none will be.
func (n *Notices) take(now time.Time) (_ Message, next time.Duration, ok bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	next = time.Hour
	for reason, w := range n.waiting {
		wait := w.due.Sub(now)
		switch {
		case w.count == 0 && wait <= 0:
			delete(n.waiting, reason)
		case w.count > 0 && wait <= 0:
			m := Message{Reason: reason, Count: w.count, Order: w.last, Command: command(w.last)}
			m.Text = fmt.Sprintf("ordersync: %d order(s) blocked by %s, the last one order %s on %s: %s. See `%s`, and all by `ordersync blocked`.",
				w.count, reason, w.last.SyncID, w.last.Event, w.last.Error, m.Command)
			w.count, w.due = 0, now.Add(n.options.Interval)
			return m, 0, true
		default:
			next = min(next, wait)
		}
	}
	return Message{}, next, false
}

func (n *Notices) post(ctx context.Context, m Message) {
	body, err := json.Marshal(m)
	if err == nil {
		_, err = backoff.Retry(ctx, func() (struct{}, error) { return struct{}{}, n.send(ctx, body) },
			backoff.WithBackOff(backoff.NewExponentialBackOff()), backoff.WithMaxElapsedTime(postLimit))
	}
	if err != nil {
		n.posts.WithLabelValues("failed").Inc()
		n.options.Logger.Error("a notice of blocked orders could not be posted; check ALERT_WEBHOOK_URL", "reason", m.Reason, "count", m.Count, "error", err)
		return
	}
	n.posts.WithLabelValues("ok").Inc()
}

func (n *Notices) send(ctx context.Context, body []byte) error {
	ctx, cancel := context.WithTimeout(ctx, postTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, n.options.WebhookURL, bytes.NewReader(body))
	if err != nil {
		return backoff.Permanent(withoutURL(err))
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return withoutURL(err)
	}
	defer func() { _ = response.Body.Close() }()
	_, _ = io.CopyN(io.Discard, response.Body, 1<<16) // so that the connection can serve the next post
	switch {
	case response.StatusCode < 300:
		return nil
	case response.StatusCode < 500 && response.StatusCode != http.StatusTooManyRequests:
		return backoff.Permanent(fmt.Errorf("the webhook answered %s", response.Status))
	default:
		return fmt.Errorf("the webhook answered %s", response.Status)
	}
}

// withoutURL is an error that does not name the webhook's URL, which is a secret.
func withoutURL(err error) error {
	if failed := new(url.Error); errors.As(err, &failed) {
		return failed.Err
	}
	return err
}
