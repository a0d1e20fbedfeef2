package main

import (
	"context"
	"fmt"
	"hash/crc32"
	"log/slog"
	"time"

	"ordersync/internal/operator"
	"ordersync/internal/order"
	"ordersync/internal/pod"
	"ordersync/workflows"
)

// refusing is ordersync with a target that refuses one order in a hundred by a CHECK constraint of
// the team's. What is measured is the healthy orders: they must not notice. When they are done the
// constraint is dropped and one bulk retry gets the others going.
type refusing struct {
	pipeline
}

func newRefusing(b *bench, t trial) system {
	t.refused = map[string]bool{}
	for _, e := range t.events {
		if crc32.ChecksumIEEE([]byte(e.SyncID))%100 == 0 {
			t.refused[e.SyncID] = true
		}
	}
	return &refusing{pipeline{backlog{bench: b, trial: t}}}
}

func (r *refusing) prepare(ctx context.Context) error {
	if err := r.pipeline.prepare(ctx); err != nil {
		return err
	}
	_, err := r.target.DB().ExecContext(ctx, "ALTER TABLE orders ADD CONSTRAINT hundredth CHECK (CRC32(sync_id) % 100 <> 0)")
	return err
}

// run says nothing of each refused order: that is what the others are measured beside.
func (r *refusing) run(ctx context.Context) error {
	return pod.RunBoth(ctx, r.cfg, slog.New(slog.DiscardHandler))
}

// finished tells whether the healthy orders are in the ledger and the others blocked.
func (r *refusing) finished(ctx context.Context) (bool, error) {
	var n int
	if err := r.target.DB().QueryRowContext(ctx, "SELECT COUNT(*) FROM order_events").Scan(&n); err != nil {
		return false, err
	}
	healthy := 0
	for _, e := range r.events {
		if !r.refused[e.SyncID] {
			healthy++
		}
	}
	if n != healthy {
		return false, nil
	}
	blocked, err := r.selection(time.Time{}).Count(ctx, r.temporal)
	return int(blocked) == len(r.refused), err
}

// selection is the orders of this trial alone that the constraint refuses.
func (r *refusing) selection(before time.Time) operator.Selection {
	return operator.Selection{Reason: "CheckViolated", StuckBefore: before, TaskQueue: r.name}
}

// check first finds the healthy orders as they should be and the others blocked; then it drops the
// constraint, retries them in one go, and finds all as they should be.
func (r *refusing) check(ctx context.Context) error {
	var healthy []order.Event
	for _, e := range r.events {
		if !r.refused[e.SyncID] {
			healthy = append(healthy, e)
		}
	}
	if err := r.compare(ctx, healthy); err != nil {
		return fmt.Errorf("of the healthy orders: %w", err)
	}
	if len(r.refused) == 0 {
		return nil // so few orders that no hundredth is among them: the warm-up
	}
	return r.free(ctx)
}

// free drops the constraint and gets the refused orders going by one bulk retry, while the pipeline
// runs.
func (r *refusing) free(ctx context.Context) error {
	if _, err := r.target.DB().ExecContext(ctx, "ALTER TABLE orders DROP CONSTRAINT hundredth"); err != nil {
		return err
	}
	began := time.Now()
	selection := r.selection(began.UTC())
	const by = "bench"
	job, err := operator.Bulk{
		Selection: selection, Signal: workflows.SignalRetry, By: by, Reason: "the constraint is gone",
		Input: workflows.Retry{By: by, StuckBefore: selection.StuckBefore},
	}.Start(ctx, r.temporal, "default")
	if err != nil {
		return err
	}
	if _, err := operator.Follow(ctx, r.temporal, "default", job, func(operator.Progress) {}); err != nil {
		return err
	}
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		all, err := r.backlog.finished(ctx)
		var audited int
		if err == nil {
			err = r.target.DB().QueryRowContext(ctx, "SELECT COUNT(*) FROM operator_actions WHERE action = 'retry' AND operator = ?", by).Scan(&audited)
		}
		switch {
		case err != nil:
			return err
		case audited > len(r.refused):
			return fmt.Errorf("the audit has %d entries for %d orders", audited, len(r.refused))
		case all && audited == len(r.refused):
			r.Say("one bulk retry got %d refused orders going in %.1f s, each with an entry in the audit", len(r.refused), time.Since(began).Seconds())
			return r.compare(ctx, r.events)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: all applied: %t, %d of %d in the audit", context.Cause(ctx), all, audited, len(r.refused))
		case <-tick.C:
		}
	}
}
