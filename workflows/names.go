package workflows

import "go.temporal.io/sdk/temporal"

// The names by which an order's workflow is found and spoken to: from the starter, the command,
// the Web UI, `temporal` and `tctl`.
const (
	// OrderSyncName is the workflow's type.
	OrderSyncName = "OrderSync"

	// SignalEvents carries a Batch from the starter.
	SignalEvents = "events"
	// SignalRetry tries the step the order is stuck on at once. Input: none, or Retry.
	SignalRetry = "retry"
	// SignalSkip gives the stuck step up, for good. Input: none, a reason, or Skip.
	SignalSkip = "skip"
	// SignalAmend replaces the stuck step's data and tries it. Input: Amend.
	SignalAmend = "amend"

	// QueryState answers with a State.
	QueryState = "state"
)

// WorkflowID is the id of the one workflow of an order.
func WorkflowID(syncID string) string { return "order-" + syncID }

// The search attributes, Keywords but for StuckSince. The first two are set at start and never
// change; the others are set together, so that they cost one action.
var (
	OrderID = temporal.NewSearchAttributeKeyKeyword("OrderID")
	Channel = temporal.NewSearchAttributeKeyKeyword("Channel")
	// SyncStatus is StatusRetrying or StatusBlocked, and unset while the order is not stuck.
	SyncStatus = temporal.NewSearchAttributeKeyKeyword("SyncStatus")
	// SyncError is the type of the error the order is stuck on, never its text.
	SyncError = temporal.NewSearchAttributeKeyKeyword("SyncError")
	// StuckSince is when the order got stuck on its event: by it the old ones are found without
	// asking each order.
	StuckSince = temporal.NewSearchAttributeKeyTime("StuckSince")
)

// The values of SyncStatus.
const (
	StatusRetrying = "retrying"
	StatusBlocked  = "blocked"
)
