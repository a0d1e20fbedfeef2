// Package freshness tells how far the shop's database is behind the ERP.
//
// Kafka's lag alone does not: it reads zero as soon as Temporal has the events, while the target may
// be down. So what counts is the age of the oldest event that is not in the target yet, by the ERP's
// time, wherever it waits:
//
//	ERP ──poll──> Kafka ──starter──> Temporal ──worker──> MySQL
//	  │             │                   │
//	  │             │                   └ an order that is stuck: its event, by the workflow's answer
//	  │             │                     a task that no worker takes: the age of the queue's head
//	  │             └ a partition that lags: the record at the group's committed offset
//	  └ a poll that is late: what it has not read may be as old as the last page that reached the end
//
// Everything is looked up from outside, at a cost that does not grow with the number of orders: a
// Probe asks for offsets, one record of each lagging partition, a page of stuck orders, the task
// queue's own figures and at most some thousand rows of the ledger's last minute.
package freshness

import (
	"context"
	"time"

	"go.temporal.io/sdk/client"

	"ordersync/internal/order"
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

	Temporal  client.Client
	TaskQueue string

	// Polled tells how far the ERP is polled, false where it is not; nil where it is not either.
	Polled func(context.Context) (Poll, bool, error)
	// Overlap is how much later than its own time a change may become visible in the ERP.
	Overlap time.Duration
}

// Poll is how far the ERP is polled.
type Poll struct {
	// ReadUntil is when the last completed poll asked for the page with which it reached the end of
	// the changes; zero while none has.
	ReadUntil time.Time `json:"read_until,omitzero"`
}
