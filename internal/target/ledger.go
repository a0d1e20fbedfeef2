package target

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"ordersync/internal/order"
)

// errRecorded tells that the ledger has the event already.
var errRecorded = errors.New("the ledger has the event already")

// record inserts the event's ledger row. Its error is errRecorded where the ledger has one.
//
// applied_at is the server's clock, one for all workers, read while the order is locked: an
// order's events stand in the ledger in the order in which they were applied.
func record(ctx context.Context, tx *sql.Tx, e order.Event, outcome order.Outcome) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO order_events
		(sync_id, event_id, kind, version, outcome, source_topic, source_partition, source_offset, occurred_at, received_at, applied_at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, CURRENT_TIMESTAMP(6))`,
		e.SyncID, e.ID, e.Kind, nullable(e.Version), outcome,
		e.Source.Topic, e.Source.Partition, e.Source.Offset, e.OccurredAt, e.Source.ReceivedAt)
	switch {
	case err == nil:
		return nil
	case hasNumber(err, duplicateKey):
		return fmt.Errorf("%w: %w", errRecorded, err)
	default:
		return fmt.Errorf("insert the event into order_events: %w", err)
	}
}

// recorded is the answer to a further delivery: the outcome in the ledger, and the order's status
// of now. It tells whether the ledger has the event.
func recorded(ctx context.Context, db *sql.DB, e order.Event) (order.Result, bool, error) {
	result := order.Result{Duplicate: true}
	err := db.QueryRowContext(ctx, `SELECT e.outcome, COALESCE(o.status, '')
		FROM order_events e LEFT JOIN orders o ON o.sync_id = e.sync_id
		WHERE e.sync_id = ? AND e.event_id = ?`, e.SyncID, e.ID).Scan(&result.Outcome, &result.Status)
	switch {
	case err == nil:
		return result, true, nil
	case errors.Is(err, sql.ErrNoRows):
		return order.Result{}, false, nil
	default:
		return order.Result{}, false, fmt.Errorf("look the event up in order_events: %w", err)
	}
}

// nullable is NULL for the version of an event that has none.
func nullable(version int64) sql.Null[int64] {
	return sql.Null[int64]{V: version, Valid: version > 0}
}
