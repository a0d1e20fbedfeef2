package order

import (
	"time"

	"github.com/google/uuid"
)

// Trouble is why an order does not get on, beside being retrying or blocked, which its workflow says itself.
type Trouble string

// The troubles of a run, as workers find them. The first four are runs that ended without completing.
const (
	RunFailed     Trouble = "failed"
	RunTimedOut   Trouble = "timed_out"
	RunTerminated Trouble = "terminated"
	RunCanceled   Trouble = "canceled"
	// TasksFail is a run whose workflow tasks fail: its worker's code cannot go on with it.
	TasksFail Trouble = "tasks_fail"
)

// The troubles that are seen from outside.
const (
	// NotTaken is an order whose first unfinished record Temporal has not taken for a while.
	NotTaken Trouble = "not_taken"
	// NoLetter is a record that is no event, and whose dead letter has not been written for a while.
	NoLetter Trouble = "no_letter"
	// RunFull is an order whose run has as much history as it may. The rest waits in Kafka on purpose.
	RunFull Trouble = "run_full"
)

// Troubles are those of a run, in the order in which they are shown.
var Troubles = []Trouble{RunFailed, RunTimedOut, RunTerminated, RunCanceled, TasksFail}

// Held is an event that a run held.
type Held struct {
	EventID    uuid.UUID `json:"event_id"`
	Kind       Kind      `json:"event"`
	Version    int64     `json:"version,omitempty"`
	OccurredAt time.Time `json:"occurred_at"`
}

// HeldEvent is what is kept of an event that a run holds.
func HeldEvent(e Event) Held {
	return Held{EventID: e.ID, Kind: e.Kind, Version: e.Version, OccurredAt: e.OccurredAt}
}

// UnwellRun is a run of an order that holds events which no worker will apply by itself.
type UnwellRun struct {
	SyncID  string  `json:"sync_id"`
	RunID   string  `json:"run_id"`
	Trouble Trouble `json:"trouble"`
	Channel string  `json:"channel,omitempty"`
	// Since is when the run ended, or its tasks began to fail, by Temporal's clock.
	Since time.Time `json:"since"`
	// Reason is what Temporal says about it.
	Reason string `json:"reason,omitempty"`
	// Lacking are the first events that the run held and the ledger lacks, and LackingCount is how many there
	// are; nil and -1 where that could not be found out.
	Lacking      []Held `json:"lacking"`
	LackingCount int    `json:"lacking_count"`
}

// Oldest is the ERP's time of the oldest of the lacking events that are known, and otherwise Since.
func (u UnwellRun) Oldest() time.Time {
	oldest := u.Since
	for _, h := range u.Lacking {
		if h.OccurredAt.Before(oldest) {
			oldest = h.OccurredAt
		}
	}
	return oldest
}
