package operator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	enumspb "go.temporal.io/api/enums/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"golang.org/x/sync/errgroup"

	"ordersync/internal/order"
	"ordersync/internal/target"
	"ordersync/workflows"
)

const (
	// watchEvery is the time between two looks. A list is no Temporal action, nor is a Describe or a history.
	watchEvery = 10 * time.Second
	// visibilitySlack is how far before the youngest end that was seen the next list begins: visibility lags.
	visibilitySlack = time.Minute
	// runsAtOnce bounds the runs that are asked for at the same time.
	runsAtOnce = 8
	// checkedRuns bounds the unwell runs that a look checks; the next look goes on with the others.
	checkedRuns = 500
	// seenRuns bounds the ended runs that are remembered as dealt with.
	seenRuns = 10_000
	// failingAttempt is the attempt of a workflow task from which on its run counts as one whose tasks fail,
	// also where the history names no failure: a worker that is killed in a task costs one attempt.
	failingAttempt = 3
)

// endings are the ways in which a run ends without completing: how the audit names each, and how the log does.
var endings = map[order.Trouble]struct{ action, verb string }{
	order.RunFailed:     {"fail", "failed"},
	order.RunTimedOut:   {"time-out", "timed out"},
	order.RunTerminated: {"terminate", "was terminated"},
	order.RunCanceled:   {"cancelled", "was cancelled"},
}

// Watch looks after runs that cannot do it themselves. A run has no say in its own end, and one whose workflow
// tasks fail cannot say that they do. So the workers look, and note in the target
//
//   - in the audit: who ended a run, and that it was reset;
//   - in the unwell runs: those that ended without completing while the ledger lacks events of theirs, and those
//     whose tasks fail. A run leaves that list when its events have arrived, or its tasks work again.
//
// Several processes may look: what they note is the same, and is noted once.
type Watch struct {
	WatchOptions
	unwell *prometheus.GaugeVec
	since  *prometheus.GaugeVec

	// ended is the youngest end of a run that was seen, by Temporal's clock; zero before the first look, which
	// is for all that Temporal still keeps.
	ended time.Time
	mu    sync.Mutex
	seen  map[string]bool // by run id
	// failing are the runs whose failing tasks are noted.
	failing map[string]bool
	// after is the key of the last unwell run that was checked.
	after struct{ syncID, runID string }
}

// WatchOptions are what a Watch needs.
type WatchOptions struct {
	Temporal client.Client
	// TaskQueue restricts it to one deployment of those that share a namespace.
	TaskQueue string
	Target    *target.Target
	// Tasks sees the worker's workflow tasks.
	Tasks      *Tasks
	Registerer prometheus.Registerer // nil keeps the metrics to itself
	Logger     *slog.Logger
}

// NewWatch registers the metrics; Run fills them.
func NewWatch(o WatchOptions) *Watch {
	w := &Watch{WatchOptions: o, seen: map[string]bool{}, failing: map[string]bool{}}
	gauge := func(name, help string) *prometheus.GaugeVec {
		return promauto.With(o.Registerer).NewGaugeVec(prometheus.GaugeOpts{Namespace: "ordersync", Name: name, Help: help}, []string{"trouble"})
	}
	w.unwell = gauge("runs_unwell", "Runs of orders that hold events which no worker will apply by itself, by trouble.")
	w.since = gauge("runs_unwell_since_timestamp_seconds", "Since when the longest unwell run of a trouble is so; 0 for none.")
	w.show(nil)
	return w
}

// Run looks until ctx ends. A look that fails is repeated with the next.
func (w *Watch) Run(ctx context.Context) {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		if err := w.look(ctx); err != nil && ctx.Err() == nil {
			w.Logger.Warn("not all runs could be looked after, which is tried again", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// look does each part whatever became of the others: the target may lack a table, or visibility be away.
func (w *Watch) look(ctx context.Context) error {
	again, resets := w.Tasks.take()
	errs := []error{w.lookForEnded(ctx), w.recordResets(ctx, resets), w.lookAtTasks(ctx, again), w.check(ctx)}
	counts, err := w.Target.CountUnwell(ctx)
	if err == nil {
		w.show(counts)
	}
	return errors.Join(append(errs, err)...)
}

func (w *Watch) show(counts []target.UnwellCount) {
	for _, trouble := range order.Troubles {
		var n int64
		var since float64
		for _, c := range counts {
			if c.Trouble != trouble {
				continue
			}
			n += c.Count
			if at := float64(c.Oldest.UnixMilli()) / 1000; since == 0 || at < since {
				since = at
			}
		}
		w.unwell.WithLabelValues(string(trouble)).Set(float64(n))
		w.since.WithLabelValues(string(trouble)).Set(since)
	}
}

// EndedQuery finds the runs of orders that ended without completing, also when pasted into the Web UI.
const EndedQuery = `WorkflowType="` + workflows.OrderSyncName + `" AND ExecutionStatus IN ("Failed","TimedOut","Terminated","Canceled")`

// lookForEnded notes the runs that ended without completing since the youngest of which that is known.
func (w *Watch) lookForEnded(ctx context.Context) error {
	request := &workflowservice.ListWorkflowExecutionsRequest{PageSize: pageSize, Query: EndedQuery + " AND " + equals("TaskQueue", w.TaskQueue)}
	if !w.ended.IsZero() {
		request.Query += fmt.Sprintf(` AND CloseTime >= %q`, w.ended.Add(-visibilitySlack).UTC().Format(time.RFC3339Nano))
	}
	youngest := w.ended
	for {
		answer, err := listPage(ctx, w.Temporal, request)
		if err != nil {
			return fmt.Errorf("ask Temporal for runs that ended without completing: %w", err)
		}
		if err := w.recordEnded(ctx, answer.GetExecutions()); err != nil {
			return err
		}
		for _, run := range answer.GetExecutions() {
			if at := run.GetCloseTime().AsTime(); at.After(youngest) {
				youngest = at
			}
		}
		if request.NextPageToken = answer.GetNextPageToken(); len(request.NextPageToken) == 0 {
			w.ended = youngest
			return nil
		}
	}
}

// recordEnded notes those runs that are not noted yet.
func (w *Watch) recordEnded(ctx context.Context, runs []*workflowpb.WorkflowExecutionInfo) error {
	keys := make([]target.ActionKey, len(runs))
	for i, run := range runs {
		id, err := uuid.Parse(run.GetExecution().GetRunId())
		if err != nil {
			return fmt.Errorf("run %q of workflow %s has no UUID: %w", run.GetExecution().GetRunId(), run.GetExecution().GetWorkflowId(), err)
		}
		keys[i] = target.ActionKey{SyncID: syncIDOf(run.GetExecution().GetWorkflowId()), ID: uuid.NewSHA1(id, []byte("terminate"))}
	}
	recorded, err := w.Target.Recorded(ctx, keys)
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runsAtOnce)
	for i, run := range runs {
		runID := run.GetExecution().GetRunId()
		if _, ok := recorded[keys[i]]; ok || w.dealtWith(runID) {
			continue
		}
		group.Go(func() error {
			if err := w.recordEnd(ctx, run, keys[i]); err != nil {
				return err
			}
			w.done(runID)
			return nil
		})
	}
	return group.Wait()
}

func (w *Watch) dealtWith(runID string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen[runID]
}

func (w *Watch) done(runID string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.seen) >= seenRuns {
		clear(w.seen)
	}
	w.seen[runID] = true
}

// recordEnd notes a run that ended without completing: first among the unwell runs, if events of it are
// missing, then in the audit, by which it is known to be noted.
func (w *Watch) recordEnd(ctx context.Context, run *workflowpb.WorkflowExecutionInfo, key target.ActionKey) error {
	runID := run.GetExecution().GetRunId()
	story, err := ReadStory(ctx, w.Temporal, key.SyncID, runID)
	if err != nil {
		return err
	}
	end := story.Ended
	if end == nil { // forgotten since it was listed
		end = &Ended{Trouble: troubleOf(run.GetStatus()), At: run.GetCloseTime().AsTime(), By: "unknown"}
	}
	if end.ForReset {
		return w.recordReset(ctx, key.SyncID, runID, "", Reset{At: end.At, BaseRunID: runID, Reason: end.Reason})
	}
	lacking, count, err := story.Lacking(ctx, w.Target, key.SyncID)
	if err != nil {
		return err
	}
	before := "running"
	if status := keyword(run, workflows.SyncStatus.GetName()); status != "" {
		before = status + ": " + keyword(run, workflows.SyncError.GetName())
	}
	if count != 0 {
		unwell := order.UnwellRun{
			SyncID: key.SyncID, RunID: runID, Trouble: end.Trouble, Channel: keyword(run, workflows.Channel.GetName()),
			Since: end.At, Reason: end.Reason, Lacking: lacking, LackingCount: count,
		}
		if err := w.Target.RecordUnwell(ctx, unwell); err != nil {
			return err
		}
	}
	is := endings[end.Trouble]
	w.Logger.Log(ctx, levelOf(count), "an order's workflow "+is.verb, "order", key.SyncID, "by", end.By, "reason", end.Reason,
		"missing", count, "command", order.ReplayCommand(key.SyncID).String())
	return w.Target.RecordAction(ctx, order.Action{
		SyncID: key.SyncID, ID: key.ID, Name: is.action, By: end.By, At: end.At, Reason: end.Reason, Before: before,
		Effect: "the workflow ended; " + missing(lacking, count, key.SyncID),
	})
}

func levelOf(missing int) slog.Level {
	if missing == 0 {
		return slog.LevelWarn
	}
	return slog.LevelError
}

// missing says what a run held that the ledger lacks, and what to type.
func missing(lacking []order.Held, count int, syncID string) string {
	replay := order.ReplayCommand(syncID).String()
	switch {
	case count == 0:
		return "nothing that it held is missing"
	case count < 0:
		return "what it held could not be read, so some of it may be missing: " + replay
	case count == 1:
		return "it held " + order.NameOf(lacking[0].Kind, lacking[0].Version) + ", which the shop's database lacks: " + replay
	default:
		return fmt.Sprintf("it held %d events that the shop's database lacks, %s first: %s", count, order.NameOf(lacking[0].Kind, lacking[0].Version), replay)
	}
}

func troubleOf(status enumspb.WorkflowExecutionStatus) order.Trouble {
	switch status {
	case enumspb.WORKFLOW_EXECUTION_STATUS_FAILED:
		return order.RunFailed
	case enumspb.WORKFLOW_EXECUTION_STATUS_TIMED_OUT:
		return order.RunTimedOut
	case enumspb.WORKFLOW_EXECUTION_STATUS_TERMINATED:
		return order.RunTerminated
	case enumspb.WORKFLOW_EXECUTION_STATUS_CANCELED:
		return order.RunCanceled
	default:
		return ""
	}
}

// recordResets puts resets into the audit that the worker's tasks have shown: that of a run which had ended
// before ends no run by which it could be found.
func (w *Watch) recordResets(ctx context.Context, resets map[string]reset) error {
	var errs []error
	for runID, r := range resets {
		errs = append(errs, w.recordReset(ctx, r.syncID, r.BaseRunID, runID, r.Reset))
	}
	return errors.Join(errs...)
}

// recordReset notes a reset once, whether it was found by the run that ended for it or by the one that began.
func (w *Watch) recordReset(ctx context.Context, syncID, baseRunID, newRunID string, r Reset) error {
	if newRunID == "" {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		d, err := w.Temporal.DescribeWorkflowExecution(ctx, workflows.WorkflowID(syncID), baseRunID)
		if err != nil {
			return fmt.Errorf("ask Temporal for the run that goes on in place of another of order %s: %w", syncID, err)
		}
		newRunID = cmp.Or(d.GetWorkflowExtendedInfo().GetResetRunId(), baseRunID)
	}
	id, err := uuid.Parse(newRunID)
	if err != nil {
		return fmt.Errorf("run %q of order %s has no UUID: %w", newRunID, syncID, err)
	}
	w.Logger.Warn("an order's workflow was reset", "order", syncID, "reason", r.Reason)
	return w.Target.RecordAction(ctx, order.Action{
		SyncID: syncID, ID: uuid.NewSHA1(id, []byte("reset")), Name: "reset", By: resetter, At: r.At, Reason: r.Reason, Before: "run " + baseRunID,
		Effect: "a new run goes on from an earlier place of this one's history",
	})
}

// lookAtTasks notes those of the runs that got a further attempt of a workflow task whose tasks fail.
func (w *Watch) lookAtTasks(ctx context.Context, again map[string]string) error {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runsAtOnce)
	for syncID, runID := range again {
		if w.failing[runID] {
			continue
		}
		group.Go(func() error {
			found, err := FailingTasks(ctx, w.Temporal, w.Target, syncID)
			if err != nil || found == nil {
				return err
			}
			if err := w.Target.RecordUnwell(ctx, *found); err != nil {
				return err
			}
			w.Logger.Error("the workflow tasks of an order fail: it waits for a worker that can do them", "order", syncID, "reason", found.Reason, "since", found.Since)
			return nil
		})
	}
	return group.Wait()
}

// FailingTasks is an order's run if its workflow tasks fail, with what it holds; nil if they do not, or the order
// has no open run. A nil ledger leaves open what is missing.
func FailingTasks(ctx context.Context, c client.Client, ledger Ledger, syncID string) (*order.UnwellRun, error) {
	w, err := Describe(ctx, c, syncID)
	if errors.Is(err, ErrNoWorkflow) {
		return nil, nil
	}
	// The attempt alone does not say it: after a signal the server counts from 1 again.
	if err != nil || !w.Running() || w.TaskAttempt == 0 {
		return nil, err
	}
	story, err := ReadStory(ctx, c, syncID, w.RunID)
	if err != nil {
		return nil, err
	}
	u := &order.UnwellRun{SyncID: syncID, RunID: w.RunID, Trouble: order.TasksFail, Channel: w.Channel, LackingCount: -1}
	switch failure := story.TaskFailure; {
	case failure != nil && !passes(failure.Cause):
		u.Since, u.Reason = failure.At, failure.Message
	case w.TaskAttempt >= failingAttempt:
		u.Since, u.Reason = *w.TaskSince, fmt.Sprintf("%d attempts of a workflow task did not end in time", w.TaskAttempt-1)
	default:
		return nil, nil
	}
	if ledger != nil {
		u.Lacking, u.LackingCount, err = story.Lacking(ctx, ledger, syncID)
	}
	return u, err
}

// passes returns whether a task fails for a cause that the server and the SDK deal with.
func passes(cause enumspb.WorkflowTaskFailedCause) bool {
	return cause == enumspb.WORKFLOW_TASK_FAILED_CAUSE_UNHANDLED_COMMAND || cause == enumspb.WORKFLOW_TASK_FAILED_CAUSE_FORCE_CLOSE_COMMAND ||
		cause == enumspb.WORKFLOW_TASK_FAILED_CAUSE_RESET_STICKY_TASK_QUEUE || cause == enumspb.WORKFLOW_TASK_FAILED_CAUSE_RESET_WORKFLOW
}

// check takes the unwell runs away that have become well, a number of them with each look.
func (w *Watch) check(ctx context.Context) error {
	runs, err := w.Target.UnwellAfter(ctx, w.after.syncID, w.after.runID, checkedRuns)
	if err != nil {
		return err
	}
	w.after.syncID, w.after.runID = "", ""
	if len(runs) == checkedRuns {
		last := runs[len(runs)-1]
		w.after.syncID, w.after.runID = last.SyncID, last.RunID
	}
	clear(w.failing)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runsAtOnce)
	for _, u := range runs {
		if u.Trouble == order.TasksFail {
			w.failing[u.RunID] = true
		}
		group.Go(func() error {
			well, err := w.well(ctx, u)
			if err != nil || !well {
				return err
			}
			w.Logger.Info("a run that was not well is so again, or its events have arrived", "order", u.SyncID, "reason", u.Trouble)
			return w.Target.ForgetUnwell(ctx, u)
		})
	}
	return group.Wait()
}

// well returns whether a run has nothing left that is missing, or its tasks work again. What it held and could
// not be read is missing until somebody replays the order.
func (w *Watch) well(ctx context.Context, u order.UnwellRun) (bool, error) {
	if u.Trouble == order.TasksFail {
		now, err := FailingTasks(ctx, w.Temporal, nil, u.SyncID)
		return err == nil && (now == nil || now.RunID != u.RunID), err
	}
	if u.LackingCount < 0 {
		return false, nil
	}
	if _, count, err := (Story{Held: u.Lacking, Known: true}).Lacking(ctx, w.Target, u.SyncID); err != nil || count > 0 {
		return false, err
	}
	if u.LackingCount <= len(u.Lacking) {
		return true, nil
	}
	// More was missing than was noted: the history says what.
	story, err := ReadStory(ctx, w.Temporal, u.SyncID, u.RunID)
	if err != nil {
		return false, err
	}
	lacking, count, err := story.Lacking(ctx, w.Target, u.SyncID)
	if err != nil || count == 0 {
		return count == 0, err
	}
	if err := w.Target.ForgetUnwell(ctx, u); err != nil {
		return false, err
	}
	u.Lacking, u.LackingCount = lacking, count
	return false, w.Target.RecordUnwell(ctx, u)
}
