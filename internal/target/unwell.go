package target

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"ordersync/internal/order"
)

// maxUnwellReason bounds a reason, in bytes, as its column does.
const maxUnwellReason = 2000

// RecordUnwell notes a run that is not well. A second call for the same run and trouble changes nothing.
func (t *Target) RecordUnwell(ctx context.Context, u order.UnwellRun) error {
	var lacking sql.Null[string]
	if u.LackingCount >= 0 {
		text, err := json.Marshal(u.Lacking)
		if err != nil {
			return err
		}
		lacking = sql.Null[string]{V: string(text), Valid: true}
	}
	_, err := t.db.ExecContext(ctx, `INSERT INTO unwell_runs
		(sync_id, run_id, trouble, channel, since, reason, lacking, lacking_count) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
		u.SyncID, u.RunID, u.Trouble, u.Channel, u.Since, order.Clip(u.Reason, maxUnwellReason), lacking, u.LackingCount)
	if err != nil && !hasNumber(err, duplicateKey) {
		return fmt.Errorf("insert into unwell_runs: %w", err)
	}
	return nil
}

// ForgetUnwell takes a run away that is well, or whose events have all arrived.
func (t *Target) ForgetUnwell(ctx context.Context, u order.UnwellRun) error {
	if _, err := t.db.ExecContext(ctx, `DELETE FROM unwell_runs WHERE sync_id = ? AND run_id = ? AND trouble = ?`, u.SyncID, u.RunID, u.Trouble); err != nil {
		return fmt.Errorf("delete from unwell_runs: %w", err)
	}
	return nil
}

// SettleEnded takes the runs of an order away that ended at or before a time, as somebody has replayed the
// order since. It returns how many there were.
func (t *Target) SettleEnded(ctx context.Context, syncID string, until time.Time) (int64, error) {
	result, err := t.db.ExecContext(ctx, `DELETE FROM unwell_runs WHERE sync_id = ? AND trouble <> ? AND since <= ?`, syncID, order.TasksFail, until)
	if err != nil {
		return 0, fmt.Errorf("delete from unwell_runs: %w", err)
	}
	return result.RowsAffected()
}

const unwellColumns = `sync_id, run_id, trouble, channel, since, reason, lacking, lacking_count`

// Unwell reads the first runs that are not well, longest first. A zero limit is no limit.
func (t *Target) Unwell(ctx context.Context, limit int) ([]order.UnwellRun, error) {
	query := `SELECT ` + unwellColumns + ` FROM unwell_runs ORDER BY since, sync_id`
	if limit > 0 {
		query += fmt.Sprintf(" LIMIT %d", limit)
	}
	return t.unwell(ctx, query)
}

// UnwellAfter reads the next runs that are not well, in the order of their keys.
func (t *Target) UnwellAfter(ctx context.Context, syncID, runID string, limit int) ([]order.UnwellRun, error) {
	return t.unwell(ctx, `SELECT `+unwellColumns+` FROM unwell_runs WHERE sync_id > ? OR sync_id = ? AND run_id > ?
		ORDER BY sync_id, run_id LIMIT ?`, syncID, syncID, runID, limit)
}

// UnwellOf reads the runs of an order that are not well.
func (t *Target) UnwellOf(ctx context.Context, syncID string) ([]order.UnwellRun, error) {
	return t.unwell(ctx, `SELECT `+unwellColumns+` FROM unwell_runs WHERE sync_id = ? ORDER BY since`, syncID)
}

func (t *Target) unwell(ctx context.Context, query string, args ...any) (all []order.UnwellRun, err error) {
	rows, err := t.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read unwell_runs: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var u order.UnwellRun
		var lacking sql.Null[string]
		if err := rows.Scan(&u.SyncID, &u.RunID, &u.Trouble, &u.Channel, &u.Since, &u.Reason, &lacking, &u.LackingCount); err != nil {
			return nil, fmt.Errorf("read unwell_runs: %w", err)
		}
		if lacking.Valid {
			if err := json.Unmarshal([]byte(lacking.V), &u.Lacking); err != nil {
				return nil, fmt.Errorf("read unwell_runs: %w", err)
			}
		}
		all = append(all, u)
	}
	return all, rows.Err()
}

// UnwellCount is how many runs have a trouble, of a channel, and since when the first has.
type UnwellCount struct {
	Trouble order.Trouble `json:"trouble"`
	Channel string        `json:"channel"`
	Count   int64         `json:"count"`
	Oldest  time.Time     `json:"oldest"`
}

// CountUnwell counts the runs that are not well.
func (t *Target) CountUnwell(ctx context.Context) (all []UnwellCount, err error) {
	rows, err := t.db.QueryContext(ctx, `SELECT trouble, channel, COUNT(*), MIN(since) FROM unwell_runs GROUP BY trouble, channel ORDER BY trouble, channel`)
	if err != nil {
		return nil, fmt.Errorf("count unwell_runs: %w", err)
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	for rows.Next() {
		var c UnwellCount
		if err := rows.Scan(&c.Trouble, &c.Channel, &c.Count, &c.Oldest); err != nil {
			return nil, fmt.Errorf("count unwell_runs: %w", err)
		}
		all = append(all, c)
	}
	return all, rows.Err()
}
