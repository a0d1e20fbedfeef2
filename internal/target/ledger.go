package target

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"ordersync/internal/order"
)

// errRecorded tells that the ledger has the event already.
var errRecorded = errors.New("the ledger has the event already")

// errOther tells that another invoice of this identity is there, whose ledger row is gone.
var errOther = errors.New("another invoice of this identity is there already")

// record inserts the event's ledger row. Its error is errRecorded where the ledger has one.
//
// applied_at is the server's clock, one for all workers, read while the order is locked: an
// order's events stand in the ledger in the order in which they were applied.
func record(ctx context.Context, tx *sql.Tx, e order.Event, outcome order.Outcome) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO order_events
		(sync_id, event_id, kind, version, digest, outcome, source_topic, source_partition, source_offset, occurred_at, received_at, applied_at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, CURRENT_TIMESTAMP(6))`,
		e.SyncID, e.ID, e.Kind, nullable(e.Version), sql.Null[string]{V: e.Digest, Valid: e.Digest != ""}, outcome,
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

// recorded is the answer to an event whose identity the ledger has: the outcome in the ledger for a further
// delivery, Conflict for another event, each with the order's status of now. It also returns whether the
// ledger has the identity.
func recorded(ctx context.Context, db querier, e order.Event) (order.Result, bool, error) {
	var known Entry
	var version sql.Null[int64]
	var digest sql.Null[string]
	var status order.Status
	err := db.QueryRowContext(ctx, `SELECT e.kind, e.version, e.digest, e.outcome, COALESCE(o.status, '')
		FROM order_events e LEFT JOIN orders o ON o.sync_id = e.sync_id
		WHERE e.sync_id = ? AND e.event_id = ?`, e.SyncID, e.ID).Scan(&known.Kind, &version, &digest, &known.Outcome, &status)
	known.Version, known.Digest = version.V, digest.V
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return order.Result{}, false, nil
	case err != nil:
		return order.Result{}, false, fmt.Errorf("look the event up in order_events: %w", err)
	case !known.Is(e):
		return order.Result{Outcome: order.Conflict, Status: status, Recorded: known.Name()}, true, nil
	default:
		return order.Result{Outcome: known.Outcome, Status: status, Duplicate: true}, true, nil
	}
}

// recordedAsAlias is the answer to an event that the ledger has under the event's alias. It also returns
// whether it has. The order must be locked, or both forms could be applied at once.
func recordedAsAlias(ctx context.Context, tx *sql.Tx, e order.Event, row *current) (order.Result, bool, error) {
	alias := e.Alias()
	if alias.ID == uuid.Nil {
		return order.Result{}, false, nil
	}
	result := order.Result{Duplicate: true}
	if row != nil {
		result.Status = row.status
	}
	err := tx.QueryRowContext(ctx, `SELECT outcome FROM order_events WHERE sync_id = ? AND event_id = ?`, e.SyncID, alias.ID).Scan(&result.Outcome)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return order.Result{}, false, nil
	case err != nil:
		return order.Result{}, false, fmt.Errorf("look the event's alias up in order_events: %w", err)
	}
	_, came, err := invoiceRow(ctx, tx, e.SyncID, alias.ID)
	return result, sameData(came, alias.Digest), err
}

// querier is a database or a transaction.
type querier interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// invoiceRow looks an invoice up. It returns whether it is there, and the data that it came with, which is nil
// where that is not known. An amendment has replaced the data; what it replaced is in the audit.
func invoiceRow(ctx context.Context, db querier, syncID string, id uuid.UUID) (there bool, came []byte, err error) {
	var original, data []byte
	err = db.QueryRowContext(ctx, `SELECT (SELECT original_data FROM operator_actions
			WHERE sync_id = ? AND event_id = ? AND action = 'amend' AND original_data IS NOT NULL ORDER BY acted_at, action_id LIMIT 1),
		(SELECT data FROM invoices WHERE sync_id = ? AND event_id = ?)`, syncID, id, syncID, id).Scan(&original, &data)
	switch {
	case err != nil:
		return false, nil, fmt.Errorf("look for the invoice: %w", err)
	case original != nil:
		return data != nil, original, nil
	default:
		return data != nil, data, nil
	}
}

// sameData returns whether data may have this digest. Where either is not known, it may.
func sameData(data []byte, digest string) bool {
	return data == nil || digest == "" || order.MeaningOf(data).Digest() == digest
}

// nullable is NULL for the version of an event that has none.
func nullable(version int64) sql.Null[int64] {
	return sql.Null[int64]{V: version, Valid: version > 0}
}
