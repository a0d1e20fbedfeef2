package order

import (
	"time"

	"github.com/google/uuid"
)

// Drift is in what way the target does not have an order as the ERP has it.
type Drift string

// The classes of drift. Of those that a repair mends the ERP's data is published once more.
const (
	DriftMissing   Drift = "missing"   // the target lacks the order
	DriftStale     Drift = "stale"     // its version is below the ERP's
	DriftDifferent Drift = "different" // the same version, or one side has none, and data of another meaning
	// DriftAmended is as an operator has made it, who amended the ERP's data or skipped its event.
	DriftAmended Drift = "amended"
	DriftAhead   Drift = "ahead" // the target's version is above the ERP's
	DriftExtra   Drift = "extra" // the ERP lacks the order
	// OnItsWay is no drift yet: a change may still be between the ERP and the target.
	OnItsWay Drift = "on_its_way"
)

// Drifts lists the classes, those first that a repair mends.
var Drifts = []Drift{DriftMissing, DriftStale, DriftDifferent, DriftAmended, DriftAhead, DriftExtra, OnItsWay}

// Repairable tells whether a repair publishes the order anew. What is ahead or extra only people can
// judge, and what an operator amended or skipped is as it was meant to be.
func (d Drift) Repairable() bool {
	return d == DriftMissing || d == DriftStale || d == DriftDifferent
}

// RepairAction is the name by which the audit knows a repair.
const RepairAction = "repair"

// Finding is an order that the two ends do not agree on.
type Finding struct {
	SyncID  string  `json:"sync_id"`
	Class   Drift   `json:"class"`
	Channel Channel `json:"channel,omitempty"`
	// ERPVersion and TargetVersion are 0 where the side lacks the order, or its version.
	ERPVersion    int64 `json:"erp_version"`
	TargetVersion int64 `json:"target_version"`
	// ChangedAt is the ERP's time of the order's last change; zero where it tells none.
	ChangedAt time.Time `json:"changed_at,omitzero"`
	// Why is what speaks for the class beside the versions.
	Why string `json:"why,omitempty"`
	// Repair is the event that was published; nil where none was.
	Repair *uuid.UUID `json:"repair_event_id,omitempty"`
}

// MaxFindings is how many findings are kept in detail. All are counted.
const MaxFindings = 1000

// Reconciliation is what came of comparing both ends.
type Reconciliation struct {
	RunID string `json:"run_id"`
	// By is who asked for it, for the audit.
	By         string    `json:"by,omitempty"`
	Repair     bool      `json:"repair"`
	StartedAt  time.Time `json:"started_at"`
	FinishedAt time.Time `json:"finished_at,omitzero"`
	// ERPOrders and TargetOrders are the orders that were looked at.
	ERPOrders    int64 `json:"erp_orders"`
	TargetOrders int64 `json:"target_orders"`
	Agreeing     int64 `json:"agreeing"`
	// Rejected are the ERP's rows that are no orders, and FirstRejected says why the first one is none.
	Rejected      int64  `json:"rejected"`
	FirstRejected string `json:"first_rejected,omitempty"`
	// Counts has every class.
	Counts map[Drift]int64 `json:"counts"`
	// Repaired of the orders were published anew. They reach the target like any event.
	Repaired int64 `json:"repaired"`
	// Findings are the first MaxFindings, in the order found; those on their way only as far as there
	// is room.
	Findings []Finding `json:"findings"`
}

// Drifted is how many orders differ, not counting those that are on their way or amended.
func (r Reconciliation) Drifted() int64 {
	return r.Counts[DriftMissing] + r.Counts[DriftStale] + r.Counts[DriftDifferent] + r.Counts[DriftAhead] + r.Counts[DriftExtra]
}

// Unrepaired is how many of them nothing was done about.
func (r Reconciliation) Unrepaired() int64 { return r.Drifted() - r.Repaired }

// Walk is a comparison under way: what it has found, and where it goes on.
type Walk struct {
	Found Reconciliation `json:"found"`
	// Stage is which side is being listed; empty before the first.
	Stage Stage `json:"stage,omitempty"`
	// Cursor is where the stage goes on.
	Cursor string `json:"cursor,omitempty"`
	// Expected is about how many orders both sides will have listed in the end; 0 if that is not known.
	Expected int64 `json:"expected,omitempty"`
	PageSize int   `json:"page_size"`
	// Horizons are for each channel the latest that is known of up to when everything that the ERP has
	// changed is with Temporal. What is true of a time stays true.
	Horizons map[Channel]time.Time `json:"horizons,omitempty"`
}

// Stage is a part of a walk.
type Stage string

// A walk lists the ERP's orders and looks each up in the target, then lists the target's and asks the
// ERP for each.
const (
	ListsERP    Stage = "erp"
	ListsTarget Stage = "target"
	Walked      Stage = "done"
)
