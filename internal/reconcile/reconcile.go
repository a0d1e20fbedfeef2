// Package reconcile compares both ends: every order of the ERP with the target's row of it, and every
// row of the target with the ERP. It goes by pages, holds one at a time, and can go on from any page:
//
//	the ERP's orders, a page ──> their rows in the target, by key ──> agree?
//	                                        no │ second look: horizon, the ERP again, the workflow, the target again
//	                                           ▼
//	             missing, stale, different, amended, ahead; or on its way
//	the target's keys, a page ─> does the ERP know them? ──> no, twice: extra
//
// The sides need no order in common, so each may list its own as it likes.
//
// The first look reads the two sides at different moments, and what lies between them is alive. So an
// order that differs is looked at again, in this sequence: up to when is everything that the ERP has
// changed known to have reached Temporal (the horizon); does the ERP still have it so, unchanged since;
// has its workflow nothing left to do; and does the target still have it so? What was read twice alike,
// with the other side in between, was so at one moment. Everything else is on its way.
package reconcile

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"ordersync/internal/erp"
	"ordersync/internal/order"
	"ordersync/internal/publish"
	"ordersync/internal/target"
)

// Horizons tells for each channel up to when everything that the ERP has changed is known to have
// reached Temporal. A channel that is not in the answer has no such bound. The map is the caller's.
type Horizons func(context.Context) (map[order.Channel]time.Time, error)

// Waiting tells why an order's workflow is not done with what it got; empty where it is.
type Waiting func(ctx context.Context, syncID string) (string, error)

// Options are what New takes.
type Options struct {
	ERP      erp.Source
	Target   *target.Target
	Horizons Horizons // nil for none
	Waiting  Waiting  // nil where no workflow is asked
	// Producer publishes repairs, each to a topic of its order's channel.
	Producer *publish.Producer
	Topics   map[string]order.Channel
	// Registerer gets the metrics; nil for none.
	Registerer prometheus.Registerer
	Logger     *slog.Logger
}

// Reconciler compares both ends.
type Reconciler struct {
	erp      erp.Source
	target   *target.Target
	horizons Horizons
	waiting  Waiting
	producer *publish.Producer
	topics   map[order.Channel]string
	metrics  *metrics
	log      *slog.Logger
	// horizonAge is the constant, except in tests.
	horizonAge time.Duration
}

// New makes a Reconciler. It contacts nobody.
func New(o Options) *Reconciler {
	r := &Reconciler{
		erp: o.ERP, target: o.Target, horizons: o.Horizons, waiting: o.Waiting,
		producer: o.Producer, topics: map[order.Channel]string{}, metrics: newMetrics(o.Registerer), log: o.Logger,
		horizonAge: horizonAge,
	}
	for topic, channel := range o.Topics {
		// Of several topics of a channel always the same one: that keeps an order's repairs in order.
		if known, ok := r.topics[channel]; !ok || topic < known {
			r.topics[channel] = topic
		}
	}
	if r.horizons == nil {
		r.horizons = func(context.Context) (map[order.Channel]time.Time, error) { return nil, nil }
	}
	if r.waiting == nil {
		r.waiting = func(context.Context, string) (string, error) { return "", nil }
	}
	if r.log == nil {
		r.log = slog.Default()
	}
	return r
}

// Bounds of a page.
const (
	// DefaultPageSize is how many orders a page has where the walk does not say it.
	DefaultPageSize = 1000
	// firstPage is how many orders are asked for before it is known how large they are.
	firstPage = 100
	// maxPageBytes is what a page's data should come to at most. Orders of more than that come alone.
	maxPageBytes = 4 << 20
)

// Reconcile goes on with a walk, from the start if it has not begun, and calls progress after each
// page, and when it has asked for the horizons, with all that is known so far. After an error the walk can be taken up where progress was told
// last: what was published for a repair since then is published again under the same ids.
func (r *Reconciler) Reconcile(ctx context.Context, at order.Walk, progress func(order.Walk)) (order.Reconciliation, error) {
	w := &walk{Reconciler: r, Walk: at, limit: firstPage, progress: progress}
	if w.Stage == "" {
		if err := w.begin(ctx); err != nil {
			return order.Reconciliation{}, err
		}
	}
	for w.Stage != order.Walked {
		page := w.pageOfERP
		if w.Stage == order.ListsTarget {
			page = w.pageOfTarget
		}
		if err := page(ctx); err != nil {
			return order.Reconciliation{}, err
		}
		progress(w.Walk)
	}
	w.Found.FinishedAt = time.Now().UTC()
	r.metrics.set(w.Found)
	r.log.InfoContext(ctx, "both ends are compared", "erp_orders", w.Found.ERPOrders, "target_orders", w.Found.TargetOrders,
		"drifted", w.Found.Drifted(), "repaired", w.Found.Repaired, "on_its_way", w.Found.Counts[order.OnItsWay])
	return w.Found, nil
}

// walk is a comparison under way. What a page comes to is added to it as a whole.
type walk struct {
	*Reconciler
	order.Walk
	limit    int // of the next page
	progress func(order.Walk)
	asked    time.Time // when the horizons were asked for
}

func (w *walk) begin(ctx context.Context) error {
	about, err := w.target.AboutOrders(ctx)
	if err != nil {
		return err
	}
	w.Stage, w.Cursor, w.Expected = order.ListsERP, "", 2*about
	if w.PageSize <= 0 {
		w.PageSize = DefaultPageSize
	}
	f := &w.Found
	f.Counts, f.Findings = map[order.Drift]int64{}, []order.Finding{}
	for _, class := range order.Drifts {
		f.Counts[class] = 0
	}
	if f.StartedAt.IsZero() {
		f.StartedAt = time.Now().UTC()
	}
	return nil
}

// pageOfERP compares a page of the ERP's orders.
func (w *walk) pageOfERP(ctx context.Context) error {
	limit := min(w.limit, w.PageSize)
	read, err := w.erp.Orders(ctx, erp.Cursor(w.Cursor), limit)
	if err != nil {
		return fmt.Errorf("read the ERP's orders: %w", later(err))
	}
	if read.More && string(read.Next) == w.Cursor {
		return errors.New("the ERP's list of orders does not go on: it has more after the place it was asked for")
	}
	l := look{walk: w, limit: limit, found: make(map[string]pair, len(read.Orders))}
	n, size := len(read.Orders), l.first(read.Orders)
	read.Orders = nil // what is needed of it later is read again
	if err := l.readTarget(ctx); err != nil {
		return err
	}
	findings, err := l.second(ctx)
	if err != nil {
		return err
	}
	repaired, err := w.repair(ctx, l.again, findings)
	if err != nil {
		return err
	}
	w.add(findings, repaired)
	w.Found.ERPOrders += int64(l.orders)
	w.Found.Agreeing += int64(l.orders - len(findings))
	w.Found.Rejected += int64(l.rejected)
	if w.Found.FirstRejected == "" {
		w.Found.FirstRejected = l.firstRejected
	}
	w.limit = nextLimit(limit, n, size)
	w.Cursor = string(read.Next)
	if !read.More {
		w.Stage, w.Cursor = order.ListsTarget, ""
	}
	return nil
}

// nextLimit grows towards pages of maxPageBytes, at most twofold.
func nextLimit(limit, orders, size int) int {
	if orders == 0 || size == 0 {
		return limit
	}
	return max(1, min(2*limit, maxPageBytes*orders/size))
}

// pageOfTarget looks for what the ERP lacks.
func (w *walk) pageOfTarget(ctx context.Context) error {
	keys, err := w.target.Keys(ctx, w.Cursor, w.PageSize)
	if err != nil {
		return err
	}
	unknown, err := w.unknown(ctx, keys)
	if err != nil {
		return err
	}
	// An order may have been deleted on both sides, one after the other.
	var findings []order.Finding
	if len(unknown) > 0 {
		rows := map[string]order.Finding{}
		err := w.target.Rows(ctx, unknown, func(row target.Row) {
			rows[row.SyncID] = order.Finding{SyncID: row.SyncID, Class: order.DriftExtra, Channel: row.Channel, TargetVersion: row.Version}
		})
		if err != nil {
			return err
		}
		if unknown, err = w.unknown(ctx, unknown); err != nil {
			return err
		}
		for _, id := range unknown {
			if finding, ok := rows[id]; ok {
				findings = append(findings, finding)
			}
		}
	}
	w.add(findings, 0)
	w.Found.TargetOrders += int64(len(keys))
	if len(keys) < w.PageSize {
		w.Stage, w.Cursor = order.Walked, ""
		return nil
	}
	w.Cursor = keys[len(keys)-1]
	return nil
}

// unknown are those of the orders that the ERP lacks.
func (w *walk) unknown(ctx context.Context, ids []string) ([]string, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	known, err := w.erp.Known(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("ask the ERP for %d orders: %w", len(ids), later(err))
	}
	var unknown []string
	for _, id := range ids {
		if !known[id] {
			unknown = append(unknown, id)
		}
	}
	return unknown, nil
}

// add counts findings, and keeps some of them. Drift is kept before what is only on its way.
func (w *walk) add(findings []order.Finding, repaired int) {
	f := &w.Found
	f.Repaired += int64(repaired)
	for _, finding := range findings {
		f.Counts[finding.Class]++
		switch {
		case len(f.Findings) < order.MaxFindings:
			f.Findings = append(f.Findings, finding)
		case finding.Class != order.OnItsWay:
			f.Findings = replaceLast(f.Findings, finding)
		}
	}
}

// replaceLast puts a finding in place of the last that is on its way, in a list of its own: progress
// may still be looking at the other. If there is none, it changes nothing.
func replaceLast(findings []order.Finding, by order.Finding) []order.Finding {
	for i := len(findings) - 1; i >= 0; i-- {
		if findings[i].Class == order.OnItsWay {
			kept := append([]order.Finding{}, findings[:i]...)
			return append(append(kept, findings[i+1:]...), by)
		}
	}
	return findings
}

// Delayed is the error of an ERP that asks not to be asked again for a while.
type Delayed struct {
	After time.Duration
	Err   error
}

func (d *Delayed) Error() string { return d.Err.Error() }

// Unwrap is the reason.
func (d *Delayed) Unwrap() error { return d.Err }

// RetryAfter is when it is worth another attempt.
func (d *Delayed) RetryAfter() time.Duration { return d.After }

// later hands on when the ERP wants to be asked again.
func later(err error) error {
	if unavailable := new(erp.Unavailable); errors.As(err, &unavailable) {
		return &Delayed{After: unavailable.After, Err: err}
	}
	return err
}
