package reconcile

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"ordersync/internal/erp"
	"ordersync/internal/order"
	"ordersync/internal/target"
)

// side is an order as one end has it, as far as it is compared.
type side struct {
	there   bool
	version int64 // 0 if it has none
	// derived reports that the ERP has no version of its own, and this one comes from the time of its change.
	derived bool
	data    order.Meaning
}

// pair is an order at both ends.
type pair struct{ erp, target side }

// firstDerived is below every version that comes from a time, in microseconds since 1970, after 1973. The version of
// an order that is lower was the ERP's own, whatever its list of orders says of versions today.
const firstDerived = 100_000_000_000_000

// erpVersion is the ERP's version as far as it can be compared with the target's; 0 where it cannot.
func (p pair) erpVersion() int64 {
	if p.erp.derived && p.target.version < firstDerived {
		return 0
	}
	return p.erp.version
}

// drift is the class of a pair, before anything else is known of it; empty where both ends agree.
func (p pair) drift() order.Drift {
	erpVersion := p.erpVersion()
	versioned := erpVersion > 0 && p.target.version > 0
	switch {
	case !p.target.there:
		return order.DriftMissing
	case p.erp.derived && p.target.data == p.erp.data:
		// The time may be that of something else: the creation, which the target has, or an invoice. And a time that
		// is before the target's is no older state: the newest line, whose time it was, may have been deleted.
		return ""
	case versioned && p.target.version < erpVersion:
		return order.DriftStale
	case versioned && p.target.version > erpVersion && !p.erp.derived:
		return order.DriftAhead
	case p.target.data != p.erp.data:
		return order.DriftDifferent
	default:
		return ""
	}
}

// look compares one page of the ERP's orders.
type look struct {
	*walk
	limit int // of the page
	// found has every order of the page.
	found            map[string]pair
	orders, rejected int
	firstRejected    string
	// again are the orders that differed at first, as the ERP has them the second time.
	again map[string]erp.Order
}

// first takes the ERP's side in, and tells the size of the data in bytes, which is not kept.
func (l *look) first(orders []erp.Order) (size int) {
	for _, o := range orders {
		if o.Rejected != nil {
			l.rejected++
			if l.firstRejected == "" {
				l.firstRejected = fmt.Sprintf("order %q: %v", o.SyncID, o.Rejected)
			}
			continue
		}
		size += len(o.Data)
		l.found[o.SyncID] = pair{erp: sideOf(o)}
	}
	l.orders = len(l.found)
	return size
}

func sideOf(o erp.Order) side {
	return side{there: true, version: o.Version, derived: o.Derived, data: order.MeaningOf(o.Data)}
}

// readTarget takes the target's side of all orders in.
func (l *look) readTarget(ctx context.Context) error {
	ids := make([]string, 0, len(l.found))
	for id := range l.found {
		ids = append(ids, id)
	}
	slices.Sort(ids) // neighbours share the target's pages
	sides, err := l.sides(ctx, ids)
	for id, s := range sides {
		p := l.found[id]
		p.target = s
		l.found[id] = p
	}
	return err
}

func (l *look) sides(ctx context.Context, ids []string) (map[string]side, error) {
	sides := make(map[string]side, len(ids))
	err := l.target.Rows(ctx, ids, func(row target.Row) {
		sides[row.SyncID] = side{there: true, version: row.Version, data: order.MeaningOf(row.Data)}
	})
	return sides, err
}

// second looks again at what differs, and tells what still does.
func (l *look) second(ctx context.Context) ([]order.Finding, error) {
	var candidates []string
	for id, p := range l.found {
		if p.drift() != "" {
			candidates = append(candidates, id)
		}
	}
	if len(candidates) == 0 {
		return nil, nil
	}
	slices.Sort(candidates)
	underway, err := l.underway(ctx, candidates)
	if err != nil {
		return nil, err
	}
	sides, err := l.sides(ctx, candidates)
	if err != nil {
		return nil, err
	}
	var findings []order.Finding
	for _, id := range candidates {
		before, now := l.found[id], pair{target: sides[id]}
		o, listed := l.again[id]
		if now.erp = before.erp; listed {
			now.erp = sideOf(o)
		}
		finding := order.Finding{
			SyncID: id, Class: now.drift(), Channel: o.Channel, ChangedAt: o.ChangedAt,
			ERPVersion: now.erpVersion(), TargetVersion: now.target.version, Why: underway[id],
		}
		switch {
		case finding.Class == "":
			continue
		case finding.Why != "":
			finding.Class = order.OnItsWay
		case now.target != before.target:
			finding.Class, finding.Why = order.OnItsWay, "changed in the target during the look"
		}
		findings = append(findings, finding)
	}
	return findings, l.explain(ctx, findings)
}

// underway reads the ERP's side of the candidates again, and tells of which a change may still be
// between the two ends, and why. The horizon comes first: what the ERP has changed before it was in
// Temporal by then, so that its workflow knows of it when it is asked.
func (l *look) underway(ctx context.Context, candidates []string) (map[string]string, error) {
	bound, err := l.horizon(ctx)
	if err != nil {
		return nil, err
	}
	read, err := l.erp.Orders(ctx, erp.Cursor(l.Cursor), l.limit)
	if err != nil {
		return nil, fmt.Errorf("read the ERP's orders a second time: %w", later(err))
	}
	l.again = make(map[string]erp.Order, len(candidates))
	for _, o := range read.Orders {
		if p, ok := l.found[o.SyncID]; ok && o.Rejected == nil && p.drift() != "" {
			l.again[o.SyncID] = o
		}
	}
	why := map[string]string{}
	var settled []string
	for _, id := range candidates {
		o, listed := l.again[id]
		horizon := bound(o.Channel)
		switch {
		case !listed || sideOf(o) != l.found[id].erp:
			why[id] = "changed in the ERP during the look"
		case horizon.IsZero():
			why[id] = "no poll of the ERP is through yet"
		case !o.ChangedAt.IsZero() && !o.ChangedAt.Before(horizon):
			why[id] = "changed in the ERP after " + horizon.UTC().Format(time.RFC3339) + ", up to which all changes are with Temporal"
		default:
			settled = append(settled, id)
		}
	}
	answers := make([]string, len(settled))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for i, id := range settled {
		group.Go(func() (err error) {
			answers[i], err = l.waiting(ctx, id)
			return err
		})
	}
	err = group.Wait()
	for i, id := range settled {
		if answers[i] != "" {
			why[id] = answers[i]
		}
	}
	return why, err
}

// horizonAge is how old a horizon may be. An older one is as good, but puts more on its way.
const horizonAge = 5 * time.Second

// horizon gives each channel's. None is older than one before: what waits in Kafka by now may be repairs,
// which are as old as the changes that they mend, and those the walk has passed. It is told as progress
// before the page goes on to publish any.
func (w *walk) horizon(ctx context.Context) (func(order.Channel) time.Time, error) {
	if asked := time.Now(); asked.Sub(w.asked) >= w.horizonAge {
		horizons, err := w.horizons(ctx)
		if err != nil {
			return nil, fmt.Errorf("find out what is between the ERP and Temporal: %w", err)
		}
		for channel, at := range horizons {
			if before := w.Horizons[channel]; before.After(at) {
				horizons[channel] = before
			}
		}
		w.Horizons, w.asked = horizons, asked
		w.progress(w.Walk)
	}
	return func(c order.Channel) time.Time {
		if at, known := w.Horizons[c]; known {
			return at
		}
		return w.asked
	}, nil
}

// atOnce is how many orders are asked for, or written about, at the same time.
const atOnce = 8

// explain finds what operators have made so: they replaced just what the ERP has, or gave its last event
// up, which is final.
func (l *look) explain(ctx context.Context, findings []order.Finding) error {
	at := map[string]int{}
	var different, repairable []string
	for i, f := range findings {
		if !f.Class.Repairable() {
			continue
		}
		at[f.SyncID] = i
		repairable = append(repairable, f.SyncID)
		if f.Class == order.DriftDifferent || l.found[f.SyncID].erp.derived {
			different = append(different, f.SyncID)
		}
	}
	err := l.target.Skips(ctx, repairable, func(id string, version int64) {
		if f := &findings[at[id]]; version == f.ERPVersion || version == l.found[id].erp.version {
			f.Class, f.Why = order.DriftAmended, "an operator skipped the ERP's event"
		}
	})
	if err != nil {
		return err
	}
	return l.target.Amendments(ctx, different, func(id string, original []byte) {
		if f := &findings[at[id]]; order.MeaningOf(original) == l.found[id].erp.data {
			f.Class, f.Why = order.DriftAmended, "an operator replaced the ERP's data"
		}
	})
}
