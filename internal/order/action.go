package order

import (
	"encoding/json"
	"time"

	"github.com/google/uuid"
)

// Action is what a person did to an order, and what came of it: a line of the audit.
type Action struct {
	// ID is the same however often the action is recorded.
	ID     uuid.UUID `json:"action_id"`
	SyncID string    `json:"sync_id"`
	// Name is retry, skip, amend, replay, discard, terminate, reset or repair.
	Name string `json:"action"`
	// EventID is the event it was about; nil for an action on the order as a whole.
	EventID *uuid.UUID `json:"event_id,omitempty"`
	// By is who did it: what they gave, or the identity of the client that sent the signal.
	By     string    `json:"by"`
	At     time.Time `json:"at"`
	Reason string    `json:"reason,omitempty"`
	// Before is the state the order was in, in a few words ("blocked: CheckViolated").
	Before string `json:"before,omitempty"`
	// Effect is what the action did, or why it was ignored or refused.
	Effect string `json:"effect"`
	// Original is an amended event's data from before.
	Original json.RawMessage `json:"original_data,omitempty"`
}

// Blocked is the notice that an order waits for somebody.
type Blocked struct {
	SyncID  string  `json:"sync_id"`
	Channel Channel `json:"channel,omitempty"`
	// Event names the event it is stuck on.
	Event string `json:"event"`
	// Reason is the type of the error, Error its text.
	Reason string    `json:"reason"`
	Error  string    `json:"error"`
	Since  time.Time `json:"since"`
}
