package intake

import (
	"context"
	"errors"
	"fmt"
	"sync"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"ordersync/internal/order"
	"ordersync/workflows"
)

// The credit of an order. A run cannot refuse signals, and at 50 MiB or 51,200 events of history the
// server terminates it with everything in it. So no order is given more than its credit before Temporal
// was asked how large the history of its run is. While that is too large the order's events wait where
// they are, in Kafka. The run works off what it has, continues as new and is small again.
const (
	// creditEvents and creditBytes are what an order is given after its run was found small.
	creditEvents, creditBytes = 2_000, 1 << 20
	// firstEvents and firstBytes are the credit of an order that was not asked about yet: a process that
	// crashes again and again must not fill a run. Its first call goes in any case.
	firstEvents, firstBytes = 200, 512 << 10
	// A run with a history of fullEvents or fullBytes is full. Behind a stuck order almost everything goes
	// on to the dead-letter topic and is in the history twice: with the credit on top that stays below 20 MiB.
	// The worker has all of it in memory, several times: with 6 MiB and 2 MiB of credit it came to 141 MiB.
	// From 4 MiB on the server suggests to continue as new.
	fullEvents, fullBytes = 8_000, 4 << 20
	// maxAccounts bounds the orders whose account is kept. One that is forgotten gets a first call again.
	maxAccounts = 20_000
)

// RunIsFull reports whether a run with a history of so many events and bytes is given no further events
// until it has continued as new.
func RunIsFull(events, bytes int64) bool { return events >= fullEvents || bytes >= fullBytes }

// RunFullError says that an order has to wait until its run has become smaller. It is no failure.
type RunFullError struct {
	SyncID string
	// Events and Bytes are those of the run's history.
	Events, Bytes int64
}

func (e *RunFullError) Error() string {
	return fmt.Sprintf("the run of order %s is full: its history has %d events and %d KiB; its further events wait until it has worked off what it has",
		e.SyncID, e.Events, e.Bytes>>10)
}

// account is what an order was given since its run was last asked about.
type account struct {
	events, bytes int
	asked         bool
}

// credit keeps the accounts of the orders that were given events lately. It outlives lanes and
// generations. It may be used by several goroutines at once, if not for the same order.
type credit struct {
	client client.Client

	mu sync.Mutex
	// recent and older have at most maxAccounts together: when recent is full it becomes older, and what
	// was in older is forgotten.
	recent, older map[string]account
}

func newCredit(c client.Client) *credit {
	return &credit{client: c, recent: map[string]account{}, older: map[string]account{}}
}

// take counts events that are about to be sent. Where that is beyond the order's credit it asks for the
// order's run first. The error is a *RunFullError if the run is full.
func (c *credit) take(ctx context.Context, events []order.Event) error {
	syncID := events[0].SyncID
	bytes := 0
	for _, e := range events {
		bytes += e.Size()
	}
	a, known := c.account(syncID)
	if known && !a.allows(len(events), bytes) {
		if err := c.ask(ctx, syncID); err != nil {
			c.keep(syncID, a) // forgotten, it would get a first call again
			return err
		}
		a = account{asked: true}
	}
	a.events += len(events)
	a.bytes += bytes
	c.keep(syncID, a)
	return nil
}

func (a account) allows(events, bytes int) bool {
	if a.asked {
		return a.events+events <= creditEvents && a.bytes+bytes <= creditBytes
	}
	return a.events+events <= firstEvents && a.bytes+bytes <= firstBytes
}

// ask looks at the order's run, for which no worker is needed.
func (c *credit) ask(ctx context.Context, syncID string) error {
	d, err := c.client.DescribeWorkflowExecution(ctx, workflows.WorkflowID(syncID), "")
	if missing := new(serviceerror.NotFound); errors.As(err, &missing) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("describe workflow %s: %w", workflows.WorkflowID(syncID), err)
	}
	run := d.GetWorkflowExecutionInfo()
	// A run that has nothing to do stays as it is: only a further call makes it continue as new.
	works := d.GetPendingWorkflowTask() != nil || len(d.GetPendingActivities()) > 0
	if run.GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING && works && RunIsFull(run.GetHistoryLength(), run.GetHistorySizeBytes()) {
		return &RunFullError{SyncID: syncID, Events: run.GetHistoryLength(), Bytes: run.GetHistorySizeBytes()}
	}
	return nil
}

func (c *credit) account(syncID string) (account, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if a, ok := c.recent[syncID]; ok {
		return a, true
	}
	a, ok := c.older[syncID]
	return a, ok
}

func (c *credit) keep(syncID string, a account) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.recent[syncID]; !ok && len(c.recent) == maxAccounts/2 {
		c.older, c.recent = c.recent, make(map[string]account, maxAccounts/2)
	}
	c.recent[syncID] = a
}
