package target

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// What reconciliation reads: orders by their keys, and the keys in their order. Both stream, so that
// what is held does not grow with the orders' data.

// Rows hands the rows of the orders to each, in no order; those that the target lacks are left out. A
// row's Data is gone when each returns.
func (t *Target) Rows(ctx context.Context, syncIDs []string, each func(Row)) error {
	for chunk := range slices.Chunk(syncIDs, lookUpChunk) {
		err := t.stream(ctx, `SELECT sync_id, channel, status, version, created_at, updated_at, data FROM orders WHERE sync_id IN (`+places(len(chunk))+`)`,
			anys(chunk), func(rows *sql.Rows) error {
				var row Row
				var version sql.Null[int64]
				var data sql.RawBytes
				if err := rows.Scan(&row.SyncID, &row.Channel, &row.Status, &version, &row.CreatedAt, &row.UpdatedAt, &data); err != nil {
					return err
				}
				row.Version, row.Data = version.V, json.RawMessage(data)
				each(row)
				return nil
			})
		if err != nil {
			return fmt.Errorf("look up %d orders: %w", len(syncIDs), err)
		}
	}
	return nil
}

// Keys are the sync_ids after one, at most limit, in the order of the primary key; the empty one is
// before all.
func (t *Target) Keys(ctx context.Context, after string, limit int) ([]string, error) {
	query, args := `SELECT sync_id FROM orders WHERE sync_id > ? ORDER BY sync_id LIMIT ?`, []any{after, limit}
	if after == "" { // which is no sync_id, and not below all of them by the collation
		query, args = `SELECT sync_id FROM orders ORDER BY sync_id LIMIT ?`, args[1:]
	}
	keys := make([]string, 0, limit)
	err := t.stream(ctx, query, args, func(rows *sql.Rows) error {
		var key string
		if err := rows.Scan(&key); err != nil {
			return err
		}
		keys = append(keys, key)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the orders' keys after %q: %w", after, err)
	}
	return keys, nil
}

// Amendments hands the data that operators have replaced to each, with its order. The data is gone
// when each returns.
func (t *Target) Amendments(ctx context.Context, syncIDs []string, each func(syncID string, original []byte)) error {
	for chunk := range slices.Chunk(syncIDs, lookUpChunk) {
		err := t.stream(ctx, `SELECT sync_id, original_data FROM operator_actions
			WHERE sync_id IN (`+places(len(chunk))+`) AND action = 'amend' AND original_data IS NOT NULL`,
			anys(chunk), func(rows *sql.Rows) error {
				var syncID string
				var original sql.RawBytes
				if err := rows.Scan(&syncID, &original); err != nil {
					return err
				}
				each(syncID, original)
				return nil
			})
		if err != nil {
			return fmt.Errorf("read the amendments of %d orders: %w", len(syncIDs), err)
		}
	}
	return nil
}

// Skips hands the versions of the creations and updates that operators have given up to each, with their
// orders.
func (t *Target) Skips(ctx context.Context, syncIDs []string, each func(syncID string, version int64)) error {
	for chunk := range slices.Chunk(syncIDs, lookUpChunk) {
		err := t.stream(ctx, `SELECT sync_id, version FROM order_events
			WHERE sync_id IN (`+places(len(chunk))+`) AND outcome = 'skipped' AND kind <> 'invoice_creation' AND version IS NOT NULL`,
			anys(chunk), func(rows *sql.Rows) error {
				var syncID string
				var version int64
				if err := rows.Scan(&syncID, &version); err != nil {
					return err
				}
				each(syncID, version)
				return nil
			})
		if err != nil {
			return fmt.Errorf("read what was skipped of %d orders: %w", len(syncIDs), err)
		}
	}
	return nil
}

// AboutOrders is the server's own estimate of the number of orders, which costs nothing.
func (t *Target) AboutOrders(ctx context.Context) (int64, error) {
	var n sql.Null[int64]
	err := t.db.QueryRowContext(ctx, `SELECT table_rows FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = 'orders'`).Scan(&n)
	if err != nil {
		return 0, fmt.Errorf("estimate the number of orders: %w", err)
	}
	return n.V, nil
}

// stream hands rows on as they come.
func (t *Target) stream(ctx context.Context, query string, args []any, each func(*sql.Rows) error) (err error) {
	rows, err := t.db.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		if err := each(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// places are n placeholders for an IN of one column.
func places(n int) string { return strings.Repeat(`,?`, n)[1:] }

func anys(values []string) []any {
	args := make([]any, len(values))
	for i, v := range values {
		args[i] = v
	}
	return args
}
