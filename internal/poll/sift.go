package poll

import (
	"context"
	"fmt"
	"time"

	"ordersync/internal/erp"
	"ordersync/internal/order"
	"ordersync/internal/target"
)

const (
	// ledgerTime is how long the ledger may take for a page.
	ledgerTime = 10 * time.Second
	// ledgerPatience is how long a poll without a cursor waits for the ledger.
	ledgerPatience = 10 * time.Minute
)

// sift leaves out what has arrived already, or is at least surely in Kafka.
//
// Only what may have been read before is looked for: everything where polling begins anew, else the rows
// that are not younger than all that was read, and those that tell no time or a wrong one. What the
// ledger lacks is published again; it may be behind a stuck order, or late.
//
// Polling does not depend on the ledger. While that does not answer, the overlap is published again,
// which costs Temporal some signals and changes nothing: the events must get to Kafka, where they wait
// for the target as they should. Only where everything would be published again, as polling begins anew,
// is the ledger waited for, and not for ever either; a backfill, which nobody waits for, does so without end.
func (s *stretch) sift(ctx context.Context, page fetched, counts *order.PollCounts) ([]erp.Row, error) {
	rows := make([]erp.Row, 0, len(page.Rows))
	var ask []target.EventKey
	recent, since := &s.way().recent, time.Time{}
	if s.state.Anew {
		// Somebody may have had it begin anew because Kafka has lost what it had acknowledged.
		since = s.state.StartedAt
	}
	for _, row := range page.Rows {
		key := target.KeyOf(row.Event)
		switch {
		case row.Rejected != nil:
		case s.task.Backfill && !row.Event.Versioned():
			counts.Unversioned++
			continue
		case recent.has(eventDigest(row), since):
			counts.Known++
			continue
		case s.state.Anew, readBefore(row, s.state.KnownUntil, page.asked):
			ask = append(ask, key)
		}
		rows = append(rows, row)
	}
	known, err := s.known(ctx, ask)
	if err != nil || len(known) == 0 {
		return rows, err
	}
	left := rows[:0]
	for _, row := range rows {
		if row.Rejected == nil {
			// Another event of this identity becomes a dead letter, once the target has refused it.
			if entry, ok := known[target.KeyOf(row.Event)]; ok && entry.Is(row.Event) {
				counts.Known++
				continue
			}
		}
		left = append(left, row)
	}
	return left, nil
}

// readBefore tells whether a row may have been read by the polls before one that began with knownUntil.
func readBefore(row erp.Row, knownUntil, asked time.Time) bool {
	return !row.ChangedAt.After(knownUntil) || row.ChangedAt.After(asked.Add(farAhead))
}

func (s *stretch) known(ctx context.Context, keys []target.EventKey) (map[target.EventKey]target.Entry, error) {
	if len(keys) == 0 || s.blind {
		return nil, nil
	}
	limited, cancel := context.WithTimeout(ctx, ledgerTime)
	defer cancel()
	known, err := s.Ledger.Outcomes(limited, keys)
	if err == nil {
		return known, nil
	}
	if ctx.Err() != nil {
		return nil, unavailable("poll", ctx.Err())
	}
	if s.task.Backfill || s.state.Anew && time.Since(s.state.StartedAt) < ledgerPatience {
		return nil, &order.Failure{Type: LedgerUnavailable, Err: fmt.Errorf("which of the rows have arrived already is not known: %w", err)}
	}
	s.blind = true
	s.Logger.WarnContext(ctx, "the ledger does not answer: what is read again is published again, which is harmless", "error", err)
	return nil, nil
}
