package target

import (
	"context"
	"database/sql"
	"fmt"

	"ordersync/internal/order"
)

// The writes of an applied event to the shop's own tables, and nothing else: a team with tables
// of its own replaces these functions. What they can rely on: they run inside the event's
// transaction, at most once per event that the ledger knows, after the ledger row, with the order's
// row locked if it exists. An event whose ledger row was deleted, as old ones may be, can come again
// from a backfill, say: of an order the rules take its version for what it is, and an invoice must not
// be written twice. Data is JSON and is passed as json.RawMessage: as a []byte the driver would mark it as
// binary, which MySQL's JSON columns refuse.

// insertOrder writes the order of a creation, or of an update whose creation never came. Invoices
// that are there already belong to an order that was deleted and comes back.
func insertOrder(ctx context.Context, tx *sql.Tx, e order.Event) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO orders (sync_id, channel, data, version, status, created_at, updated_at)
		VALUES (?, ?, ?, ?, IF(EXISTS (SELECT 1 FROM invoices WHERE sync_id = ?), ?, ?), CURRENT_TIMESTAMP(3), CURRENT_TIMESTAMP(3))`,
		e.SyncID, e.Channel, e.Data, nullable(e.Version), e.SyncID, order.Invoiced, order.Open)
	if err != nil {
		return fmt.Errorf("insert into orders: %w", err)
	}
	return nil
}

// updateOrder writes the data of a creation or an update of an order that exists. An event
// without a version leaves the row's alone.
func updateOrder(ctx context.Context, tx *sql.Tx, e order.Event) error {
	_, err := tx.ExecContext(ctx, `UPDATE orders
		SET channel = ?, data = ?, version = COALESCE(?, version), updated_at = CURRENT_TIMESTAMP(3)
		WHERE sync_id = ?`,
		e.Channel, e.Data, nullable(e.Version), e.SyncID)
	if err != nil {
		return fmt.Errorf("update orders: %w", err)
	}
	return nil
}

// insertInvoice writes an invoice and marks its order as invoiced; the order's data and version
// stay as they are. An invoice that is there stays as it is too.
func insertInvoice(ctx context.Context, tx *sql.Tx, e order.Event) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO invoices (sync_id, event_id, data, occurred_at, created_at)
		VALUES (?, ?, ?, ?, CURRENT_TIMESTAMP(3))`,
		e.SyncID, e.ID, e.Data, e.OccurredAt)
	if hasNumber(err, duplicateKey) { // this one's, or that of a key of the team's
		var there bool
		if lookupErr := tx.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM invoices WHERE sync_id = ? AND event_id = ?)`, e.SyncID, e.ID).Scan(&there); lookupErr != nil {
			return fmt.Errorf("look for the invoice: %w", lookupErr)
		}
		if there {
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("insert into invoices: %w", err)
	}
	_, err = tx.ExecContext(ctx, `UPDATE orders SET status = ?, updated_at = CURRENT_TIMESTAMP(3) WHERE sync_id = ?`,
		order.Invoiced, e.SyncID)
	if err != nil {
		return fmt.Errorf("mark the order as invoiced: %w", err)
	}
	return nil
}
