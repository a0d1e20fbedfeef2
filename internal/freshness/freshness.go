// Package freshness tells how far the shop's database is behind the ERP.
//
// Kafka's lag alone does not: it reads zero as soon as Temporal has the events, while the target may
// be down. So what counts is the age of the oldest event that is not in the target yet, by the ERP's
// time, wherever it waits:
//
//	ERP ──poll──> Kafka ──starter──> Temporal ──worker──> MySQL
//	  │             │                   │
//	  │             │                   ├ an order that is stuck: its event, by the workflow's answer
//	  │             │                   ├ a run that failed or cannot go on: its events, as workers noted them
//	  │             │                     a task that no worker takes: the age of the queue's head
//	  │             └ a partition that lags: the record at the group's committed offset
//	  └ a poll that is late: what it has not read may be as old as the last page that reached the end
//
// Everything is looked up from outside, at a cost that does not grow with the number of orders: a
// Probe asks for offsets, one record of each lagging partition, a page of stuck orders, the task
// queue's own figures and at most some thousand rows of the ledger's last minute.
//
// What this does not see is an event within Temporal that is neither stuck nor waits for a worker: one
// that is being applied, or held for its order's creation (HOLD_WINDOW at most). Without a Target it does not see the
// runs either that failed, were ended or cannot go on.
package freshness

import (
	"context"
	"time"

	"go.temporal.io/sdk/client"

	"ordersync/internal/order"
	"ordersync/internal/target"
	"ordersync/internal/topics"
)

// Probe looks at a deployment. Its fields are not changed while it is in use.
type Probe struct {
	// Reader reads the topics, of which Group is the starters' consumer group.
	Reader topics.Reader
	Group  string
	// Topics are those of the channels. Backfill are those that are read beside them at a limited rate.
	Topics, Backfill map[string]order.Channel
	DeadLetterTopic  string

	Temporal client.Client
	// Namespace is that of Temporal.
	Namespace, TaskQueue string

	// Target tells the rates; nil for none.
	Target *target.Target

	// Polled tells how far the ERP is polled, false where it is not; nil where it is not either.
	Polled func(context.Context) (Poll, bool, error)
	// Overlap is how much later than its own time a change may reach Kafka where the ERP is not polled: where
	// it publishes by itself.
	Overlap time.Duration

	// MaxRetrying is the number of retrying orders above which starters fetch nothing; 0 for no such number.
	MaxRetrying int

	// steps remembers what the orders asked for last are stuck on.
	steps steps
	heads heads
}

// Poll is how far the ERP is polled.
type Poll struct {
	// ReadUntil is when the last completed poll asked for the page with which it reached the end of
	// the changes; zero while none has, and where Temporal has forgotten it.
	ReadUntil time.Time `json:"read_until,omitzero"`
	// BegunAt stands in for a ReadUntil that is not known: when the poll under way began, else the last
	// one, else when the schedule was made.
	BegunAt time.Time `json:"begun_at,omitzero"`
	// Every is the time between two polls.
	Every time.Duration `json:"-"`
	// Overlap is how much later than its own time a change may become visible in the ERP.
	Overlap time.Duration `json:"-"`
	// Paused tells that the next poll waits for somebody.
	Paused bool `json:"paused"`
	// Late tells that polls should have come through since.
	Late bool `json:"late"`
	// Attempt and Error are of a poll under way that has failed and is tried again.
	Attempt int    `json:"attempt,omitempty"`
	Error   string `json:"error,omitempty"`
	// UnderWay is how far a poll under way is; nil where none is, or nothing is known of it yet.
	UnderWay *Progress `json:"under_way,omitempty"`
}

// Progress is how far a poll is.
type Progress struct {
	StartedAt time.Time `json:"started_at,omitzero"`
	// Rows are those that it has read, and Published those of them that are in Kafka now.
	Rows      int64 `json:"rows"`
	Published int64 `json:"published"`
	// ChangedUntil is the time of the youngest change read; zero where the ERP tells none.
	ChangedUntil time.Time `json:"changed_until,omitzero"`
}

// since is the time since which no poll has come through, as far as is known.
func (p Poll) since() time.Time {
	if p.ReadUntil.IsZero() {
		return p.BegunAt
	}
	return p.ReadUntil
}

// late tells whether three polls are missing, or a minute of them. The first poll, which reads all that the
// ERP has, is late as well while it takes so long: what is new comes last.
func (p Poll) late(now time.Time) bool {
	return !p.since().IsZero() && now.Sub(p.since()) > max(3*p.Every, time.Minute)
}

// Status is how far a deployment is behind at a moment. What could not be looked up is nil.
type Status struct {
	At       time.Time `json:"at"`
	Channels []Channel `json:"channels"`
	// Backfills are the lanes beside the channels, which count for no age.
	Backfills []Backfill `json:"backfills"`
	TaskQueue *TaskQueue `json:"task_queue"`
	// Poll is also nil where nothing is polled.
	Poll *Poll `json:"poll"`
	// DeadLetters are those in their topic, whatever was done with them.
	DeadLetters *int64 `json:"dead_letters"`
	// Unwell counts the runs that ended without completing, or whose tasks fail, while events of theirs are
	// missing; nil where there is no target to ask.
	Unwell []target.UnwellCount `json:"unwell"`
	// Stalled are first unfinished records that the starters do not get past.
	Stalled []Stalled `json:"stalled"`
	// Problems say what could not be looked up.
	Problems []string `json:"problems"`
}

// Channel is how far a channel is behind.
type Channel struct {
	Channel order.Channel `json:"channel"`
	// AgeSeconds is the age of the oldest event that is not in the target; 0 if there is none.
	AgeSeconds *float64 `json:"age_seconds"`
	// Oldest is where that event waits; nil if there is none.
	Oldest *Oldest `json:"oldest"`
	// WaitingSeconds is for how long at least an event, not necessarily the oldest, has waited where it
	// is; 0 if none does. It tells a delay from an event that came to ordersync late.
	WaitingSeconds *float64 `json:"waiting_seconds"`
	// Lag counts the records that the starters have not handed to Temporal or the dead-letter topic.
	Lag *int64 `json:"lag"`
	// Retrying and Blocked count orders.
	Retrying *int64 `json:"retrying"`
	Blocked  *int64 `json:"blocked"`
	// EventsPerSecond, P50 and P99 are of the events that the ledger got in the last minute; the latter
	// from the broker's timestamp to the target, in milliseconds, nil if there was none.
	EventsPerSecond *float64 `json:"events_per_second"`
	P50             *int64   `json:"p50_ms"`
	P99             *int64   `json:"p99_ms"`
}

// Where the oldest event waits.
const (
	InERP       = "erp"        // perhaps: the poll is late
	InKafka     = "kafka"      // for a starter
	InTaskQueue = "task_queue" // in Temporal, for a worker; of which channel is not known
	InOrder     = "order"      // its order is stuck
	InRun       = "run"        // its run ended without completing, or cannot go on
)

// Oldest is an event that is not in the target yet.
type Oldest struct {
	// At is the ERP's time of the event; Since where that is not known.
	At time.Time `json:"at"`
	// Where it waits, and since when at least.
	Where string    `json:"where"`
	Since time.Time `json:"since"`
	// SyncID is its order, where that is known.
	SyncID string `json:"sync_id,omitempty"`
	// Record is its place in Kafka (topic/partition/offset).
	Record string `json:"record,omitempty"`
	// Stuck is the order's status, retrying or blocked, or the trouble of its run.
	Stuck string `json:"stuck,omitempty"`
	// Paused tells that somebody has paused the step, so that it does not heal by itself.
	Paused bool `json:"paused,omitempty"`
}

// Backfill is how much of a channel's backfill is to be read.
type Backfill struct {
	Channel order.Channel `json:"channel"`
	Lag     int64         `json:"lag"`
	// EventsPerSecond is as for a channel.
	EventsPerSecond *float64 `json:"events_per_second"`
}

// TaskQueue is what waits for workers.
type TaskQueue struct {
	Name string `json:"name"`
	// Pollers are the workers that polled it in the last minutes.
	Pollers int `json:"workers"`
	// Tasks is about how many tasks wait, and OldestSeconds for how long.
	Tasks         int64   `json:"waiting_tasks"`
	OldestSeconds float64 `json:"oldest_task_seconds"`
}
