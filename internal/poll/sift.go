package poll

import (
	"context"
	"fmt"
	"time"

	"github.com/google/uuid"

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
		if !row.ChangedAt.IsZero() && !row.ChangedAt.After(s.state.FormerUntil) {
			row = row.Former()
		}
		switch {
		case row.Rejected != nil:
		case s.task.Backfill && !row.Event.Versioned() && row.Event.Kind != order.Invoice: // nothing says what is newer
			counts.Unversioned++
			continue
		case recent.has(eventDigest(row), since):
			counts.Known++
			continue
		case s.state.Anew, readBefore(row, s.state.KnownUntil, page.asked):
			ask = append(ask, keysOf(row)...)
		}
		rows = append(rows, row)
	}
	known, err := s.known(ctx, ask)
	if err != nil {
		return nil, err
	}
	left := rows[:0]
	for _, row := range rows {
		if row.Rejected == nil && arrived(row, known) {
			counts.Known++
			continue
		}
		left = append(left, row)
	}
	s.watchVersions(ctx, left)
	return left, nil
}

// arrived returns whether the ledger has a row's event, under its identity or as a release before published it.
// Another event of the same identity becomes a dead letter, once the target has refused it.
func arrived(row erp.Row, known map[target.EventKey]target.Entry) bool {
	if entry, ok := known[target.KeyOf(row.Event)]; ok && is(entry, row.Event) {
		return true
	}
	if row.Earlier == uuid.Nil {
		return false
	}
	former := formerEvent(row)
	entry, ok := known[target.KeyOf(former)]
	return ok && is(entry, former)
}

// formerEvent is the event of a row as a release before published it, as far as the ledger knows it.
func formerEvent(row erp.Row) order.Event {
	e := row.Event
	e.ID, e.Version = row.Earlier, 0
	return e
}

// is returns whether an entry is that of an event. The version of an invoice, which may be its order's, only says
// behind which update it belongs, and may be another when the invoice is read again.
func is(entry target.Entry, e order.Event) bool {
	if e.Kind == order.Invoice && entry.Digest != "" {
		e.Version = entry.Version
		return entry.Is(e) && entry.Digest == e.Digest
	}
	return entry.Is(e)
}

// keysOf are the keys under which the ledger may have a row's event: its own, and that of a release before.
func keysOf(row erp.Row) []target.EventKey {
	keys := []target.EventKey{target.KeyOf(row.Event)}
	if row.Earlier != uuid.Nil {
		if key := target.KeyOf(formerEvent(row)); key != keys[0] {
			keys = append(keys, key)
		}
	}
	return keys
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
