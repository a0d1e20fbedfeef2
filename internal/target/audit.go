package target

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"ordersync/internal/order"
)

// maxOperatorName is what the column operator holds, in characters.
const maxOperatorName = 255

// RecordAction puts a line into the audit, operator_actions. A second call with the same action
// changes nothing. Every error is a *order.Failure.
func (t *Target) RecordAction(ctx context.Context, a order.Action) error {
	by := []rune(a.By)
	_, err := t.db.ExecContext(ctx, `INSERT INTO operator_actions
		(sync_id, action_id, action, event_id, operator, reason, state_before, effect, original_data, acted_at)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		a.SyncID, a.ID, a.Name, a.EventID, string(by[:min(len(by), maxOperatorName)]), a.Reason, a.Before, a.Effect,
		sql.Null[json.RawMessage]{V: a.Original, Valid: len(a.Original) > 0}, a.At)
	if err == nil || hasNumber(err, duplicateKey) {
		return nil
	}
	return Classify(fmt.Errorf("insert into operator_actions: %w", err))
}

const actionColumns = `sync_id, action_id, action, event_id, operator, reason, state_before, effect, original_data, acted_at`

// ActionKey names a line of the audit.
type ActionKey struct {
	SyncID string
	ID     uuid.UUID
}

// Actions reads what people did to an order, oldest first; none is no error.
func (t *Target) Actions(ctx context.Context, syncID string) ([]order.Action, error) {
	actions, err := t.actions(ctx, `SELECT `+actionColumns+` FROM operator_actions WHERE sync_id = ? ORDER BY acted_at, action_id`, syncID)
	if err != nil {
		return nil, fmt.Errorf("read the audit of order %s: %w", syncID, err)
	}
	return actions, nil
}

// Recorded looks lines of the audit up. One that is not there is not in the answer.
func (t *Target) Recorded(ctx context.Context, keys []ActionKey) (map[ActionKey]order.Action, error) {
	found := make(map[ActionKey]order.Action)
	for chunk := range slices.Chunk(keys, lookUpChunk) {
		args := make([]any, 0, 2*len(chunk))
		for _, key := range chunk {
			args = append(args, key.SyncID, key.ID)
		}
		actions, err := t.actions(ctx, `SELECT `+actionColumns+` FROM operator_actions WHERE `+anyOf(len(chunk), `sync_id = ? AND action_id = ?`), args...)
		if err != nil {
			return nil, fmt.Errorf("look %d actions up in operator_actions: %w", len(keys), err)
		}
		for _, a := range actions {
			found[ActionKey{a.SyncID, a.ID}] = a
		}
	}
	return found, nil
}

func (t *Target) actions(ctx context.Context, query string, args ...any) (actions []order.Action, err error) {
	rows, err := t.db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	actions = []order.Action{}
	for rows.Next() {
		var a order.Action
		if err := rows.Scan(&a.SyncID, &a.ID, &a.Name, &a.EventID, &a.By, &a.Reason, &a.Before, &a.Effect,
			(*[]byte)(&a.Original), &a.At); err != nil {
			return nil, err
		}
		actions = append(actions, a)
	}
	return actions, rows.Err()
}
