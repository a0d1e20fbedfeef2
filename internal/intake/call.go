package intake

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"google.golang.org/grpc/codes"

	"ordersync/internal/order"
	"ordersync/workflows"
)

// workflowTaskTimeout is how long an order waits when its worker is killed in the middle of a task.
const workflowTaskTimeout = 5 * time.Second

// caller hands batches of events to Temporal.
type caller struct {
	client    client.Client
	taskQueue string
	eager     bool
	// backfill tells the topics whose events are in no hurry; nil where there are none.
	backfill func(topic string) bool
	settings workflows.Settings
	metrics  *metrics
	credit   *credit
}

// call hands over events of one order, in order of arrival, and returns when the server has them.
//
// A batch that begins with a creation starts the order's workflow with the events as its input:
// one history event less than a signal, and a start may be eager, if nothing of a backfill is among
// them. If the workflow runs already the
// same events go as a signal. After an error the events may have been received all the same; their
// ids make it harmless to send them again. A *RunFullError is the answer where the order's credit is
// used up; nothing was sent then.
func (c *caller) call(ctx context.Context, events []order.Event) error {
	if err := c.credit.take(ctx, events); err != nil {
		return err
	}
	if events[0].Kind != order.Creation {
		return c.signal(ctx, events)
	}
	err := c.start(ctx, events)
	if running := new(serviceerror.WorkflowExecutionAlreadyStarted); errors.As(err, &running) {
		c.metrics.alreadyStarted.Inc()
		return c.signal(ctx, events)
	}
	return err
}

func (c *caller) start(ctx context.Context, events []order.Event) error {
	defer c.metrics.observeCall("start", time.Now())
	options := c.options(events[0])
	options.EnableEagerStart = c.eager && !c.backfilled(events)
	// Both are needed. Without the second the SDK answers with the run that is there and no error,
	// and the events are gone.
	options.WorkflowIDConflictPolicy = enumspb.WORKFLOW_ID_CONFLICT_POLICY_FAIL
	options.WorkflowExecutionErrorWhenAlreadyStarted = true
	_, err := c.client.ExecuteWorkflow(ctx, options, workflows.OrderSyncName, c.input(events[0].SyncID, events))
	if err != nil {
		return fmt.Errorf("start workflow %s: %w", options.ID, err)
	}
	return nil
}

// backfilled tells whether some of the events come from a backfill. The capacity for eager starts is
// for new orders.
func (c *caller) backfilled(events []order.Event) bool {
	return c.backfill != nil && slices.ContainsFunc(events, func(e order.Event) bool { return c.backfill(e.Source.Topic) })
}

// signal starts the workflow too if there is none. The conflict policy stays unset: the server
// refuses FAIL here.
func (c *caller) signal(ctx context.Context, events []order.Event) error {
	defer c.metrics.observeCall("signal", time.Now())
	options := c.options(events[0])
	_, err := c.client.SignalWithStartWorkflow(ctx, options.ID, workflows.SignalEvents, workflows.Batch{Events: events},
		options, workflows.OrderSyncName, c.input(events[0].SyncID, nil))
	if err != nil {
		return fmt.Errorf("signal workflow %s: %w", options.ID, err)
	}
	return nil
}

func (c *caller) input(syncID string, events []order.Event) workflows.Input {
	return workflows.Input{SyncID: syncID, Settings: c.settings, Events: events}
}

// options are those of a start and of a signal-with-start alike. Search attributes that never
// change are set here, where they cost nothing.
func (c *caller) options(first order.Event) client.StartWorkflowOptions {
	return client.StartWorkflowOptions{
		ID:                    workflows.WorkflowID(first.SyncID),
		TaskQueue:             c.taskQueue,
		WorkflowIDReusePolicy: enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
		WorkflowTaskTimeout:   workflowTaskTimeout,
		TypedSearchAttributes: temporal.NewSearchAttributes(
			workflows.OrderID.ValueSet(first.SyncID),
			workflows.Channel.ValueSet(string(first.Channel)),
		),
		StaticSummary: fmt.Sprintf("%s order %s", first.Channel, first.SyncID),
	}
}

// refusedForSize tells whether the server will never take these events because they are too many
// bytes. It goes by texts, as the codes also stand for what passes: InvalidArgument for the limit of
// signals of a run or a search attribute that is not registered yet, ResourceExhausted for rate
// limits.
func refusedForSize(err error) bool {
	switch text := err.Error(); errorCode(err) {
	case codes.InvalidArgument:
		return strings.Contains(text, "Blob data size exceeds limit")
	case codes.ResourceExhausted:
		return strings.Contains(text, "larger than max")
	default:
		return false
	}
}

// errorCode sorts an error of a call by its gRPC code.
func errorCode(err error) codes.Code { return serviceerror.ToStatus(err).Code() }
