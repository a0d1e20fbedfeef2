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
// Only what may have been read before is looked for: everything where polling begins anew or takes over from a
// release before, else the rows
// that are not younger than all that was read, and those that tell no time or a wrong one. What the
// ledger lacks is published again; it may be behind a stuck order, or late.
//
// Polling does not depend on the ledger. While that does not answer, the overlap is published again,
// which costs Temporal some signals and changes nothing: the events must get to Kafka, where they wait
// for the target as they should. Only where it is asked for everything is the ledger waited for, and not for ever either; a backfill, which nobody waits for, does so without end.
func (s *stretch) sift(ctx context.Context, page fetched, counts *order.PollCounts) ([]erp.Row, error) {
	rows := make([]erp.Row, 0, len(page.Rows))
	var ask []target.EventKey
	recent, since := &s.way().recent, time.Time{}
	if s.state.Anew {
		// Somebody may have had it begin anew because Kafka has lost what it had acknowledged.
		since = s.state.StartedAt
	}
	for _, row := range page.Rows {
		switch {
		case row.Rejected != nil:
		case s.task.Backfill && !row.Event.Versioned() && row.Event.Kind != order.Invoice: // nothing says what is newer
			counts.Unversioned++
			continue
		case recent.has(row, since):
			counts.Known++
			continue
		case s.all(), readBefore(row, s.state.KnownUntil, page.asked):
			for _, e := range events(row) {
				ask = append(ask, target.KeyOf(e))
			}
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
		if !row.ChangedAt.IsZero() && !row.ChangedAt.After(s.state.FormerUntil) {
			row = row.Former()
		}
		left = append(left, row)
	}
	s.watchVersions(ctx, left)
	return left, nil
}

// all returns whether the ledger is asked for every row.
func (s *stretch) all() bool { return s.state.Anew || s.state.AskAll }

// events are those under which a row may have been published: its own, and that of a release before. Everything that
// looks a row up asks for both, since releases may have taken turns.
func events(row erp.Row) []order.Event {
	if row.Earlier == uuid.Nil || row.Earlier == row.Event.ID {
		return []order.Event{row.Event}
	}
	former := row.Event
	former.ID, former.Version = row.Earlier, 0
	return []order.Event{row.Event, former}
}

// arrived returns whether the ledger has a row under one of its identities. Another event of the same identity becomes
// a dead letter, once the target has refused it.
func arrived(row erp.Row, known map[target.EventKey]target.Entry) bool {
	for _, e := range events(row) {
		entry, ok := known[target.KeyOf(e)]
		// An identity that comes from the content is that of no other event. Whether it has a version from its time
		// depends on what else the ERP lists.
		if ok && (is(entry, e) || row.Earlier != uuid.Nil && entry.Kind == e.Kind) {
			return true
		}
	}
	return false
}

// is returns whether an entry is that of an event. The version of an invoice, which may be its order's, only says
// behind which update it belongs, and may be another when the invoice is read again. A digest that is empty is not
// known, and differs from none.
func is(entry target.Entry, e order.Event) bool {
	if e.Kind != order.Invoice || entry.Kind != order.Invoice {
		return entry.Is(e)
	}
	return entry.Digest == "" || e.Digest == "" || entry.Digest == e.Digest
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
	if s.task.Backfill || s.all() && time.Since(s.state.StartedAt) < ledgerPatience {
		return nil, &order.Failure{Type: LedgerUnavailable, Err: fmt.Errorf("which of the rows have arrived already is not known: %w", err)}
	}
	s.blind = true
	s.Logger.WarnContext(ctx, "the ledger does not answer: what is read again is published again, which is harmless", "error", err)
	return nil, nil
}
