package target

import (
	"context"
	"database/sql"
	"fmt"

	"github.com/google/uuid"

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
// stay as they are. An invoice that is there stays as it is too. The error is errOther where another one of
// this identity is there.
func insertInvoice(ctx context.Context, tx *sql.Tx, e order.Event) error {
	there := false
	if alias := e.Alias(); alias.ID != uuid.Nil {
		known, came, err := invoiceRow(ctx, tx, e.SyncID, alias.ID)
		if err != nil {
			return err
		}
		there = known && sameData(came, alias.Digest)
	}
	if !there {
		if err := insertInvoiceRow(ctx, tx, e); err != nil {
			return err
		}
	}
	_, err := tx.ExecContext(ctx, `UPDATE orders SET status = ?, updated_at = CURRENT_TIMESTAMP(3) WHERE sync_id = ?`,
		order.Invoiced, e.SyncID)
	if err != nil {
		return fmt.Errorf("mark the order as invoiced: %w", err)
	}
	return nil
}

func insertInvoiceRow(ctx context.Context, tx *sql.Tx, e order.Event) error {
	_, err := tx.ExecContext(ctx, `INSERT INTO invoices (sync_id, event_id, data, occurred_at, created_at)
		VALUES (?, ?, ?, ?, CURRENT_TIMESTAMP(3))`,
		e.SyncID, e.ID, e.Data, e.OccurredAt)
	switch {
	case err == nil:
		return nil
	case !hasNumber(err, duplicateKey):
		return fmt.Errorf("insert into invoices: %w", err)
	}
	// The key may be this invoice's, or one of the team's.
	there, came, lookupErr := invoiceRow(ctx, tx, e.SyncID, e.ID)
	switch {
	case lookupErr != nil:
		return lookupErr
	case !there:
		return fmt.Errorf("insert into invoices: %w", err)
	case !e.Versioned() && !sameData(came, e.Digest):
		return errOther
	default:
		return nil
	}
}
