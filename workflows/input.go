package workflows

import (
	"encoding/json"
	"time"

	"github.com/google/uuid"

	"ordersync/internal/order"
)

// The rules are numbers of behaviours. A run keeps the number that it was started with, over
// continue-as-new too, so that its history replays. A worker knows all from OldestRules to Rules.
const (
	// RulesFirst is the behaviour of the first release.
	RulesFirst = 1
	// RulesCredit came with the credit of an order. A second event of the same identity becomes a dead
	// letter. A run whose history nears the server's limit sends the tail of what is pending to the
	// dead-letter topic. A result that is not known, such as one that was given by hand, means: try again.
	// Operator signals are read strictly: an unknown field is refused; the first digits of an event's id name it.
	RulesCredit = 2

	// OldestRules may still be followed by open runs.
	OldestRules = RulesFirst
	// Rules are followed by new runs. A change of behaviour takes the next number, so workers are
	// deployed before starters.
	Rules = RulesCredit
)

// KnowsRules returns whether a worker of this build can go on with a run that follows those rules.
func KnowsRules(rules int) bool { return rules >= OldestRules && rules <= Rules }

// Settings are what a run goes by. They travel in its input, never from the worker's environment:
// a setting that changed under an open run would make its replay differ.
type Settings struct {
	Rules int `json:"rules"`
	// HoldWindow is how long a step waits for the creation of an order the target lacks.
	HoldWindow time.Duration `json:"hold_window"`
	// IdleTimeout is how long a run with nothing to do stays open; 0 completes it at once.
	IdleTimeout time.Duration `json:"idle_timeout"`
}

// Input starts a run of OrderSync.
type Input struct {
	SyncID   string   `json:"sync_id"`
	Settings Settings `json:"settings"`
	// Events is the batch the order was started with; signal-with-start leaves it empty.
	Events []order.Event `json:"events,omitempty"`
	// Carried is what the run before it handed on by continue-as-new.
	Carried *Carried `json:"carried,omitempty"`
}

// Batch is the input of SignalEvents: events of one order, in order of arrival.
type Batch struct {
	Events []order.Event `json:"events"`
}

// Retry is the optional input of SignalRetry.
type Retry struct {
	// EventID restricts the signal to that event: if the order is stuck on another, it is ignored. It is
	// the event's id, at least the first 8 digits of it, or the ERP's own event_id.
	EventID string `json:"event_id,omitempty"`
	Reason  string `json:"reason,omitempty"`
	// By is who sends it; without it, the identity of the client that did.
	By string `json:"by,omitempty"`
	// StuckBefore restricts the signal to an order that got stuck at or before that time. One input
	// for many orders can name no event: this keeps a repeat from hitting an order's next one.
	StuckBefore time.Time `json:"stuck_before,omitzero"`
}

// Skip is the input of SignalSkip.
type Skip struct {
	EventID     string    `json:"event_id,omitempty"`
	Reason      string    `json:"reason,omitempty"`
	By          string    `json:"by,omitempty"`
	StuckBefore time.Time `json:"stuck_before,omitzero"`
}

// Amend is the input of SignalAmend.
type Amend struct {
	EventID string          `json:"event_id,omitempty"`
	Data    json.RawMessage `json:"data"`
	Reason  string          `json:"reason,omitempty"`
	By      string          `json:"by,omitempty"`

	StuckBefore time.Time `json:"stuck_before,omitzero"`
}

// State is the answer of QueryState.
type State struct {
	SyncID string `json:"sync_id"`
	// Status is one of applying, idle, held, retrying, blocked.
	Status string `json:"status"`
	// OrderStatus is the order's status in the target as of the last step; empty if unknown.
	OrderStatus order.Status `json:"order_status,omitempty"`
	// Applied counts the events resolved since the order's first run of this chain.
	Applied int64 `json:"applied"`
	// Pending are the events that wait, in the order in which they will be applied; at most the
	// first 100, PendingCount tells all.
	Pending      []PendingEvent `json:"pending"`
	PendingCount int            `json:"pending_count"`
	// Leaving counts the events and signals on their way to the dead-letter topic.
	Leaving int `json:"leaving,omitempty"`
	// Step is the event the order is stuck on or about to apply.
	Step       *PendingEvent `json:"step,omitempty"`
	StuckSince *time.Time    `json:"stuck_since,omitempty"`
	// Reason is the type of the error the order is stuck on.
	Reason    string `json:"reason,omitempty"`
	LastError string `json:"last_error,omitempty"`
	// StuckOn is what an operator signal names as its event_id: the id of the event that the order is stuck
	// on, or of the events signal that could not be read. Empty if the order is not stuck.
	StuckOn string `json:"stuck_on,omitempty"`
	// DataExcerpt is the beginning of the data of Step, for people.
	DataExcerpt string `json:"data_excerpt,omitempty"`
	// NextStep says what will happen without anybody's help, and what somebody can do. It is Happens and
	// Remedies in one sentence.
	NextStep string   `json:"next_step"`
	Happens  string   `json:"happens,omitempty"`
	Remedies []Remedy `json:"remedies,omitempty"`
	// Operator are the last operator signals and what came of them, oldest first.
	Operator []OperatorAction `json:"operator_actions"`
	// UnhandledSignals are names of signals that nobody reads: typing errors, mostly.
	UnhandledSignals []string `json:"unhandled_signals,omitempty"`
	Rules            int      `json:"rules"`
}

// Remedy is a command that a person may type, and what it is for.
type Remedy struct {
	To      string        `json:"to"`
	Command order.Command `json:"command"`
}

// PendingEvent names an event that waits.
type PendingEvent struct {
	EventID    uuid.UUID  `json:"event_id"`
	Kind       order.Kind `json:"event"`
	Version    int64      `json:"version,omitempty"`
	OccurredAt time.Time  `json:"occurred_at"`
}

// OperatorAction is an operator signal and its effect.
type OperatorAction struct {
	At      time.Time `json:"at"`
	Signal  string    `json:"signal"`
	EventID string    `json:"event_id,omitempty"`
	// By is who the signal said it was from; the audit in the target also knows the identity of
	// the client that sent a signal which said nothing.
	By     string `json:"by,omitempty"`
	Reason string `json:"reason,omitempty"`
	// Before is the state the order was in.
	Before string `json:"before,omitempty"`
	// Effect is what the signal did, or why it was ignored or refused.
	Effect string `json:"effect"`
	// Verdict is the effect in a word.
	Verdict Verdict `json:"verdict,omitempty"`
}

// Verdict is what became of an operator signal.
type Verdict string

// The verdicts. An action that an older worker noted has none.
const (
	// Acted: the signal did what it says.
	Acted Verdict = "acted"
	// Ignored: the order is not stuck, or on something else than the signal names.
	Ignored Verdict = "ignored"
	// Refused: the signal cannot be carried out as it is.
	Refused Verdict = "refused"
	// TooLate: the target had the event already.
	TooLate Verdict = "too_late"
)

// Values of State.Status.
const (
	StateApplying = "applying"
	StateIdle     = "idle"
	StateHeld     = "held"
	StateRetrying = StatusRetrying
	StateBlocked  = StatusBlocked
)
