package operator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	enumspb "go.temporal.io/api/enums/v1"
	historypb "go.temporal.io/api/history/v1"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/grpc"

	"ordersync/workflows"
)

// Tasks sees the workflow tasks that a worker gets from Temporal, and keeps what they say of runs that are not
// well. No server of before 1.30 can list those whose tasks fail, but it says with each task which attempt it
// is. Looking costs no call.
type Tasks struct {
	mu sync.Mutex
	// again are the runs that got a further attempt, by order, and resets those that go on from another run.
	again  map[string]string
	resets map[string]reset
	// knows has for the last orders whether this worker knows the rules of their runs, oldest first.
	knows []known
}

type reset struct {
	syncID string
	Reset
}

type known struct {
	syncID string
	rules  int
	ok     bool
}

// Bounds of Tasks.
const (
	// maxTasks is how many runs of a kind are kept until the next look.
	maxTasks = 1000
	// lastOrders is how many orders must all follow rules that the worker does not know before it says so of
	// itself. One broken order comes again and again, and counts once.
	lastOrders = 20
)

// NewTasks makes a Tasks.
func NewTasks() *Tasks { return &Tasks{again: map[string]string{}, resets: map[string]reset{}} }

// Intercept is a client's gRPC interceptor.
func (t *Tasks) Intercept(ctx context.Context, method string, request, answer any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, options ...grpc.CallOption) error {
	err := invoke(ctx, method, request, answer, cc, options...)
	if task, ok := answer.(*workflowservice.PollWorkflowTaskQueueResponse); ok && err == nil {
		t.see(task)
	}
	return err
}

func (t *Tasks) see(task *workflowservice.PollWorkflowTaskQueueResponse) {
	if task.GetWorkflowType().GetName() != workflows.OrderSyncName || task.GetQuery() != nil {
		return
	}
	syncID, runID := syncIDOf(task.GetWorkflowExecution().GetWorkflowId()), task.GetWorkflowExecution().GetRunId()
	rules, told := rulesOf(task.GetHistory())
	t.mu.Lock()
	defer t.mu.Unlock()
	if task.GetAttempt() > 1 && len(t.again) < maxTasks {
		t.again[syncID] = runID
	}
	if told {
		t.note(known{syncID, rules, workflows.KnowsRules(rules)})
	}
	for _, event := range task.GetHistory().GetEvents() {
		if event.GetWorkflowTaskFailedEventAttributes().GetCause() != enumspb.WORKFLOW_TASK_FAILED_CAUSE_RESET_WORKFLOW {
			continue
		}
		if r := resetOf(event); r.newRun == runID && len(t.resets) < maxTasks {
			t.resets[runID] = reset{syncID, *r}
		}
	}
}

// note keeps whether the rules of an order's run are known, an order once.
func (t *Tasks) note(k known) {
	t.knows = slices.DeleteFunc(t.knows, func(other known) bool { return other.syncID == k.syncID })
	t.knows = append(t.knows, k)
	t.knows = t.knows[max(0, len(t.knows)-lastOrders):]
}

// rulesOf is the number of the rules that a run follows, where the history begins with its start.
func rulesOf(history *historypb.History) (int, bool) {
	events := history.GetEvents()
	if len(events) == 0 {
		return 0, false
	}
	payloads := events[0].GetWorkflowExecutionStartedEventAttributes().GetInput().GetPayloads()
	if len(payloads) == 0 {
		return 0, false
	}
	var in struct {
		Settings struct {
			Rules int `json:"rules"`
		} `json:"settings"`
	}
	if json.Unmarshal(payloads[0].GetData(), &in) != nil {
		return 0, false // the workflow says so itself
	}
	return in.Settings.Rules, true
}

// take hands over what was seen since the last time.
func (t *Tasks) take() (again map[string]string, resets map[string]reset) {
	t.mu.Lock()
	defer t.mu.Unlock()
	again, resets = maps.Clone(t.again), maps.Clone(t.resets)
	clear(t.again)
	clear(t.resets)
	return again, resets
}

// Ready is an error while the worker knows the rules of none of the last orders' runs: it was deployed after
// the starters, or is an old one. One order whose run follows other rules makes no worker unready that has
// work which it can do.
func (t *Tasks) Ready() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.knows) == 0 || slices.ContainsFunc(t.knows, func(k known) bool { return k.ok }) {
		return nil
	}
	last := t.knows[len(t.knows)-1]
	return fmt.Errorf("%w: the runs of the last %d orders follow others, that of order %s for example rules %d, and this worker knows %d to %d: "+
		"deploy workers that know them, before starters", errRules, len(t.knows), last.syncID, last.rules, workflows.OldestRules, workflows.Rules)
}

var errRules = errors.New("this worker knows the rules of no run that it gets")
