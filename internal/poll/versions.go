package poll

import (
	"context"
	"crypto/sha256"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"ordersync/internal/erp"
	"ordersync/internal/order"
)

// An order's versions must not fall: the shop keeps the data of the highest, and takes what comes with a lower one for
// old. Two mistakes make them fall: a query that gets a version column of its own, with smaller numbers than the times
// that were its versions before, and a version of the greatest of several times, whose row is deleted. A poll
// publishes such rows all the same, and says so loudly.

// versions are those of the rows that were read lately, by what changed in the source. They are forgotten with the
// process.
type versions struct {
	mu          sync.Mutex
	now, before map[digest]int64
}

// rose remembers the version of a row. It returns the one before it where that was higher.
func (v *versions) rose(row erp.Row) (before int64, ok bool) {
	if row.Place == "" {
		return 0, true
	}
	sum := sha256.Sum256([]byte(string(row.Event.Kind) + "\x00" + row.Event.SyncID + "\x00" + row.Place))
	key := digest(sum[:16])
	v.mu.Lock()
	defer v.mu.Unlock()
	before, known := v.now[key]
	if !known {
		before = v.before[key]
	}
	if v.now == nil || len(v.now) >= recentRows {
		v.now, v.before = make(map[digest]int64), v.now
	}
	v.now[key] = row.Event.Version
	return before, row.Event.Version >= before
}

// watchVersions looks for versions that fall, among rows that are about to be published.
func (s *stretch) watchVersions(ctx context.Context, rows []erp.Row) {
	if s.task.Backfill {
		return
	}
	var updates []erp.Row
	var ids []string
	for _, row := range rows {
		if row.Rejected != nil || !row.Event.Versioned() || row.Event.Kind == order.Invoice {
			continue
		}
		if before, ok := s.versions.rose(row); !ok {
			s.fell(ctx, row, before)
			continue
		}
		// A creation may come late under its first version. What was read before is in any order, when it comes again.
		if row.Event.Kind == order.Update && !s.state.Anew && !readBefore(row, s.state.KnownUntil, time.Now()) {
			updates, ids = append(updates, row), append(ids, row.Event.SyncID)
		}
	}
	if len(ids) == 0 || s.blind {
		return
	}
	limited, cancel := context.WithTimeout(ctx, ledgerTime)
	defer cancel()
	known, err := s.Ledger.Versions(limited, ids)
	if err != nil { // the events must get to Kafka, whatever the target does
		s.Logger.WarnContext(ctx, "the target does not answer: whether a version falls is not known", "error", err)
		s.blind = true
		return
	}
	for _, row := range updates {
		if before := known[row.Event.SyncID]; before > row.Event.Version {
			s.fell(ctx, row, before)
		}
	}
}

// fell takes note of a version that fell.
func (s *stretch) fell(ctx context.Context, row erp.Row, before int64) {
	s.falls.Inc()
	fall := order.VersionFall{SyncID: row.Event.SyncID, Version: row.Event.Version, Before: before, SeenAt: time.Now().UTC(), Count: 1}
	if s.state.Fall != nil {
		fall.Count += s.state.Fall.Count
	}
	s.state.Fall = &fall
	s.Logger.ErrorContext(ctx, "an order's version fell: the shop takes the change for old and keeps what it has. "+
		"Versions must rise with each change; see docs/ERP.md, versions that fall",
		"sync_id", fall.SyncID, "version", fall.Version, "before", fall.Before)
}

// fallTime is how long a fall is shown.
const fallTime = 7 * 24 * time.Hour

// remembered is a fall that is not too old to be shown.
func remembered(fall *order.VersionFall) *order.VersionFall {
	if fall == nil || time.Since(fall.SeenAt) > fallTime {
		return nil
	}
	return fall
}

func newFalls(r prometheus.Registerer) prometheus.Counter {
	return promauto.With(r).NewCounter(prometheus.CounterOpts{
		Namespace: "ordersync", Subsystem: "poll", Name: "version_falls_total",
		Help: "Changes of orders that the ERP lists with a lower version than before, so that the shop does not take them.",
	})
}
