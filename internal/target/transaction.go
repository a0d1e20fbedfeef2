package target

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"ordersync/internal/order"
)

// Apply does one step, at most once per event. An event that the ledger has is answered with its
// recorded outcome, and one with the identity of another event in the ledger with Conflict. Missing, for an
// update or invoice of an order the target lacks, is an answer and no error. After Conflict and Missing nothing
// was written. Every error is a *order.Failure.
func (t *Target) Apply(ctx context.Context, step order.Step) (order.Result, error) {
	return t.resolve(ctx, step.Event, func(row *current) order.Outcome { return decide(row, step) })
}

// Skip writes an event off: a ledger row with outcome skipped and nothing else. An event that the
// ledger has already keeps its outcome, and one with the identity of another event is answered with Conflict.
// Every error is a *order.Failure.
func (t *Target) Skip(ctx context.Context, e order.Event) (order.Result, error) {
	return t.resolve(ctx, e, func(*current) order.Outcome { return order.Skipped })
}

func (t *Target) resolve(ctx context.Context, e order.Event, outcome func(*current) order.Outcome) (order.Result, error) {
	if e.Kind.Rank() == len(order.Kinds) {
		return order.Result{}, &order.Failure{Type: "UnknownEvent", Operator: true,
			Err: fmt.Errorf("event %q is of a kind this worker does not know: deploy workers before starters", e.Kind)}
	}
	result, err := t.transact(ctx, e, outcome)
	switch {
	case err == nil && result.Outcome != order.Missing:
		return result, nil
	case err != nil && !errors.Is(err, errRecorded):
		return order.Result{}, Classify(err)
	}
	// Missing is only an answer for an event that was not resolved before: a creation that was
	// skipped, too, leaves a ledger row without an order.
	known, found, lookupErr := recorded(ctx, t.db, e)
	switch {
	case lookupErr != nil:
		return order.Result{}, Classify(lookupErr)
	case found:
		return known, nil
	case err != nil: // the duplicate key was another's, such as that of a team's trigger
		return order.Result{}, Classify(err)
	default:
		return result, nil
	}
}

// transact runs the event's transaction. Its error is errRecorded where the ledger has the event.
func (t *Target) transact(ctx context.Context, e order.Event, outcome func(*current) order.Outcome) (order.Result, error) {
	tx, err := t.db.BeginTx(ctx, nil) // READ COMMITTED by session
	if err != nil {
		return order.Result{}, fmt.Errorf("begin the transaction: %w", err)
	}
	// A lock wait timeout, for one, rolls back its statement only. Where the rollback itself
	// fails the connection is gone, and the server does it; after the commit it does nothing.
	defer func() { _ = tx.Rollback() }()

	row, err := lock(ctx, tx, e.SyncID)
	if err != nil {
		return order.Result{}, err
	}
	if known, found, err := recordedAsAlias(ctx, tx, e, row); found || err != nil {
		return known, err
	}
	result := order.Result{Outcome: outcome(row)}
	result.Status = statusAfter(row, e.Kind, result.Outcome)
	if result.Outcome == order.Missing {
		return result, nil
	}
	if err := record(ctx, tx, e, result.Outcome); err != nil {
		return order.Result{}, err
	}
	if result.Outcome == order.Applied {
		switch err := write(ctx, tx, row, e); {
		case errors.Is(err, errOther):
			return order.Result{Outcome: order.Conflict, Status: row.status, Recorded: string(e.Kind)}, nil
		case err != nil:
			return order.Result{}, err
		}
	}
	if err := tx.Commit(); err != nil {
		return order.Result{}, commitFailed(err)
	}
	return result, nil
}

// lock reads the order's row and holds it until the transaction ends; nil where there is none,
// and then nothing is held.
func lock(ctx context.Context, tx *sql.Tx, syncID string) (*current, error) {
	var row current
	var version sql.Null[int64]
	err := tx.QueryRowContext(ctx, `SELECT version, status FROM orders WHERE sync_id = ? FOR UPDATE`, syncID).
		Scan(&version, &row.status)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, nil
	case err != nil:
		return nil, fmt.Errorf("lock the order: %w", err)
	}
	row.version = version.V
	return &row, nil
}

func write(ctx context.Context, tx *sql.Tx, row *current, e order.Event) error {
	switch {
	case e.Kind == order.Invoice:
		return insertInvoice(ctx, tx, e)
	case row == nil:
		return insertOrder(ctx, tx, e)
	default:
		return updateOrder(ctx, tx, e)
	}
}

// commitFailed is retryable whatever the server said: the transaction may stand.
func commitFailed(err error) error {
	failure := Classify(fmt.Errorf("commit the transaction, which may or may not have happened: %w", err))
	failure.Permanent = false
	if failure.Type == unknown { // the driver has errors of the connection it does not export
		failure.Type = unavailable
	}
	return failure
}
