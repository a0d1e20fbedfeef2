package target

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"ordersync/internal/order"
)

// Row is an order as it stands in the target.
type Row struct {
	SyncID  string        `json:"sync_id"`
	Channel order.Channel `json:"channel"`
	Status  order.Status  `json:"status"`
	// Version is the version that last wrote Data; 0 if none.
	Version int64 `json:"version,omitempty"`
	// Data is what was published, by meaning: MySQL orders keys and writes numbers its own way.
	Data      json.RawMessage `json:"data"`
	CreatedAt time.Time       `json:"created_at"`
	UpdatedAt time.Time       `json:"updated_at"`
}

// Order reads an order's row, and tells whether there is one.
func (t *Target) Order(ctx context.Context, syncID string) (Row, bool, error) {
	row := Row{SyncID: syncID}
	var version sql.Null[int64]
	err := t.db.QueryRowContext(ctx, `SELECT channel, status, version, data, created_at, updated_at FROM orders WHERE sync_id = ?`, syncID).
		Scan(&row.Channel, &row.Status, &version, (*[]byte)(&row.Data), &row.CreatedAt, &row.UpdatedAt)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return Row{}, false, nil
	case err != nil:
		return Row{}, false, fmt.Errorf("read order %s: %w", syncID, err)
	}
	row.Version = version.V
	return row, true, nil
}

// Versions reads the versions of orders. One that the target lacks, or that has no version, is not in the answer.
func (t *Target) Versions(ctx context.Context, syncIDs []string) (map[string]int64, error) {
	versions := make(map[string]int64, len(syncIDs))
	for chunk := range slices.Chunk(syncIDs, lookUpChunk) {
		err := t.stream(ctx, `SELECT sync_id, version FROM orders WHERE version IS NOT NULL AND sync_id IN (`+places(len(chunk))+`)`,
			anys(chunk), func(rows *sql.Rows) error {
				var id string
				var version int64
				if err := rows.Scan(&id, &version); err != nil {
					return err
				}
				versions[id] = version
				return nil
			})
		if err != nil {
			return nil, fmt.Errorf("look up the versions of %d orders: %w", len(syncIDs), err)
		}
	}
	return versions, nil
}

// EventKey is an event's identity.
type EventKey struct {
	SyncID string
	ID     uuid.UUID
	// Alias is the second id that the ledger may have the event under.
	Alias order.Alias
}

// KeyOf is the identity of an event.
func KeyOf(e order.Event) EventKey {
	return EventKey{SyncID: e.SyncID, ID: e.ID, Alias: e.Alias()}
}

// Entry is an event's row in the ledger.
type Entry struct {
	SyncID  string     `json:"sync_id"`
	EventID uuid.UUID  `json:"event_id"`
	Kind    order.Kind `json:"event"`
	Version int64      `json:"version,omitempty"`
	// Digest is that of the event's data; empty if it is not known.
	Digest          string        `json:"-"`
	Outcome         order.Outcome `json:"outcome"`
	SourceTopic     string        `json:"source_topic"`
	SourcePartition int           `json:"source_partition"`
	SourceOffset    int64         `json:"source_offset"`
	// OccurredAt is the ERP's time, ReceivedAt the broker's timestamp, AppliedAt the database
	// server's clock within the event's transaction; all UTC.
	OccurredAt time.Time `json:"occurred_at"`
	ReceivedAt time.Time `json:"received_at"`
	AppliedAt  time.Time `json:"applied_at"`
}

// Latency is the time from the broker's timestamp to the target. It is only as good as the two
// servers' clocks agree, and 0 where the record's timestamp is not plausible.
func (e Entry) Latency() time.Duration {
	if !order.Plausible(e.ReceivedAt, e.AppliedAt) {
		return 0
	}
	return e.AppliedAt.Sub(e.ReceivedAt)
}

// Is returns whether the entry is that of e, and not of another event that the ERP gave the same event_id.
func (e Entry) Is(event order.Event) bool { return event.SameAs(e.Kind, e.Version, e.Digest) }

// Name is the event for people, as order.NameOf.
func (e Entry) Name() string { return order.NameOf(e.Kind, e.Version) }

const entryColumns = `sync_id, event_id, kind, version, digest, outcome, source_topic, source_partition, source_offset, occurred_at, received_at, applied_at`

// Timeline reads what became of an order's events, in the order in which it did; none is no error.
func (t *Target) Timeline(ctx context.Context, syncID string) ([]Entry, error) {
	entries, err := t.entries(ctx, `SELECT `+entryColumns+` FROM order_events WHERE sync_id = ? ORDER BY applied_at`, syncID)
	if err != nil {
		return nil, fmt.Errorf("read the timeline of order %s: %w", syncID, err)
	}
	return entries, nil
}

// lookUpChunk is how many rows are asked for by their keys in one statement: about 30 KiB of SQL.
const lookUpChunk = 250

// anyOf is a condition that holds where one of n does. It is meant for pairs of columns: for
// (a, b) IN (…), older optimizers read the whole table.
func anyOf(n int, condition string) string {
	return strings.Repeat(` OR `+condition, n)[len(` OR `):]
}

// Outcomes looks events up in the ledger. An identity that it lacks is not in the answer. The entry of one that
// it has may be that of another event: Entry.Is compares them.
func (t *Target) Outcomes(ctx context.Context, keys []EventKey) (map[EventKey]Entry, error) {
	found := make(map[EventKey]Entry, len(keys))
	var aliases []EventKey
	for chunk := range slices.Chunk(keys, lookUpChunk) {
		entries, err := t.lookUp(ctx, chunk)
		if err != nil {
			return nil, fmt.Errorf("look up %d events in order_events: %w", len(keys), err)
		}
		for _, key := range chunk {
			if e, ok := entries[EventKey{SyncID: key.SyncID, ID: key.ID}]; ok {
				found[key] = e
			} else if key.Alias.ID != uuid.Nil {
				aliases = append(aliases, key)
			}
		}
	}
	for chunk := range slices.Chunk(aliases, lookUpChunk) {
		if err := t.lookUpAliases(ctx, chunk, found); err != nil {
			return nil, fmt.Errorf("look up %d events in order_events: %w", len(keys), err)
		}
	}
	return found, nil
}

// lookUp finds the entries of some events by their ids. The keys of the answer have no alias.
func (t *Target) lookUp(ctx context.Context, keys []EventKey) (map[EventKey]Entry, error) {
	args := make([]any, 0, 2*len(keys))
	for _, key := range keys {
		args = append(args, key.SyncID, key.ID)
	}
	entries, err := t.entries(ctx, `SELECT `+entryColumns+` FROM order_events WHERE `+anyOf(len(keys), `sync_id = ? AND event_id = ?`), args...)
	if err != nil {
		return nil, err
	}
	found := make(map[EventKey]Entry, len(entries))
	for _, e := range entries {
		found[EventKey{SyncID: e.SyncID, ID: e.EventID}] = e
	}
	return found, nil
}

// lookUpAliases adds the entries that some events have under their aliases to found.
func (t *Target) lookUpAliases(ctx context.Context, keys []EventKey, found map[EventKey]Entry) error {
	byAlias := make([]EventKey, len(keys))
	for i, key := range keys {
		byAlias[i] = EventKey{SyncID: key.SyncID, ID: key.Alias.ID}
	}
	entries, err := t.lookUp(ctx, byAlias)
	if err != nil {
		return err
	}
	for i, key := range keys {
		e, ok := entries[byAlias[i]]
		if !ok {
			continue
		}
		_, came, err := invoiceRow(ctx, t.db, key.SyncID, key.Alias.ID)
		if err != nil {
			return err
		}
		if sameData(came, key.Alias.Digest) {
			found[key] = e
		}
	}
	return nil
}

func (t *Target) entries(ctx context.Context, query string, args ...any) (_ []Entry, err error) {
	rows, err := t.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	entries := []Entry{}
	for rows.Next() {
		var e Entry
		var version sql.Null[int64]
		var digest sql.Null[string]
		if err := rows.Scan(&e.SyncID, &e.EventID, &e.Kind, &version, &digest, &e.Outcome, &e.SourceTopic, &e.SourcePartition,
			&e.SourceOffset, &e.OccurredAt, &e.ReceivedAt, &e.AppliedAt); err != nil {
			return nil, err
		}
		e.Version, e.Digest = version.V, digest.V
		entries = append(entries, e)
	}
	return entries, rows.Err()
}

// Counts are the numbers of rows in the target.
type Counts struct {
	Orders   int64 `json:"orders"`
	Invoiced int64 `json:"invoiced"` // of the orders
	Invoices int64 `json:"invoices"`
	Events   int64 `json:"events"`
	// Applied, Stale and Skipped are the events by outcome.
	Applied int64 `json:"applied"`
	Stale   int64 `json:"stale"`
	Skipped int64 `json:"skipped"`
}

// Counts counts all rows, by reading them: it is meant for people, not for a poll.
func (t *Target) Counts(ctx context.Context) (Counts, error) {
	var c Counts
	err := t.db.QueryRowContext(ctx, `SELECT
		(SELECT COUNT(*) FROM orders), (SELECT COUNT(*) FROM orders WHERE status = 'invoiced'),
		(SELECT COUNT(*) FROM invoices), COUNT(*),
		COALESCE(SUM(outcome = 'applied'), 0), COALESCE(SUM(outcome = 'stale'), 0), COALESCE(SUM(outcome = 'skipped'), 0)
		FROM order_events`).
		Scan(&c.Orders, &c.Invoiced, &c.Invoices, &c.Events, &c.Applied, &c.Stale, &c.Skipped)
	if err != nil {
		return Counts{}, fmt.Errorf("count the rows: %w", err)
	}
	return c, nil
}
