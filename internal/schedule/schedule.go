// Package schedule looks after the Temporal schedules of a deployment: the one that polls the ERP and
// the one that compares both ends. Each has a fixed name, so a deployment has one of each, in a
// namespace of its own.
//
// A schedule never runs twice at once: while a poll waits for an ERP that is down, the polls that
// would have begun meanwhile are skipped, as that one reads everything when it is back. What was
// missed while Temporal was down is not made up for either.
package schedule

import (
	"context"
	"errors"
	"fmt"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"

	"ordersync/workflows"
)

// The names of the schedules.
const (
	Poll      = workflows.PollERPID
	Reconcile = workflows.ReconcileID
)

// Names are all of them.
var Names = []string{Poll, Reconcile}

// catchUp is how late a run may still begin. The next one does its work as well.
const catchUp = time.Minute

// Settings are what Apply brings about.
type Settings struct {
	TaskQueue string
	// Every is the time between two polls.
	Every time.Duration
	// Poll is what each goes by. A zero From keeps that of the schedule as it is.
	Poll workflows.PollInput
	// ReconcileEvery is the time between two comparisons; 0 leaves their schedule alone.
	ReconcileEvery time.Duration
	// Reconcile is the input of each.
	Reconcile workflows.ReconcileInput
	// Kept are those of the above that are for a new schedule only.
	Kept Kept
}

// Kept names settings that stay as the schedule has them, if there is one.
type Kept struct{ Every, Overlap, PageSize, Repair bool }

// Applied is what Apply did to a schedule, and how it stands now.
type Applied struct {
	ID      string `json:"id"`
	Created bool   `json:"created"` // else it was there, and is as wanted now
	// Paused tells that it is, and stays so.
	Paused bool `json:"paused"`
	// EverySeconds is the time between two runs; 0 where somebody gave it a calendar instead.
	EverySeconds float64 `json:"every_seconds"`
	// Poll is what polls go by, and Reconcile comparisons; nil for the other schedule.
	Poll      *AppliedPoll      `json:"poll,omitempty"`
	Reconcile *AppliedReconcile `json:"reconcile,omitempty"`
}

// AppliedPoll is what polls go by.
type AppliedPoll struct {
	OverlapSeconds float64 `json:"overlap_seconds"`
	PageSize       int     `json:"page_size"`
}

// AppliedReconcile is what comparisons go by.
type AppliedReconcile struct {
	Repair bool `json:"repair"`
}

// Apply makes the schedules, or changes those that are there. It may be repeated; a paused schedule
// stays paused, and a run under way is left alone. A schedule of polls that was deleted is made with
// the result of the last poll that Temporal still knows.
func Apply(ctx context.Context, c client.Client, s Settings) ([]Applied, error) {
	var applied AppliedPoll
	poll, err := apply(ctx, c, wanted{
		id: Poll, every: s.Every, keepEvery: s.Kept.Every, taskQueue: s.TaskQueue, workflow: workflows.PollERPName, summary: "polls the ERP", atOnce: true,
		input: func(is client.ScheduleAction) (any, error) {
			in, err := s.poll(ctx, c, is)
			applied = AppliedPoll{OverlapSeconds: in.Overlap.Seconds(), PageSize: in.PageSize}
			return in, err
		},
	})
	if err != nil {
		return nil, err
	}
	poll.Poll = &applied
	all := []Applied{poll}
	if s.ReconcileEvery > 0 {
		var applied AppliedReconcile
		reconcile, err := apply(ctx, c, wanted{
			id: Reconcile, every: s.ReconcileEvery, taskQueue: s.TaskQueue, workflow: workflows.ReconcileName, summary: "compares the ERP with the target",
			input: func(is client.ScheduleAction) (any, error) {
				in := s.Reconcile
				if before, ok := inputOf[workflows.ReconcileInput](is); ok && s.Kept.Repair {
					in.Repair = before.Repair
				}
				applied.Repair = in.Repair
				return in, nil
			},
		})
		if err != nil {
			return all, err
		}
		reconcile.Reconcile = &applied
		all = append(all, reconcile)
	}
	return all, nil
}

// poll is the input of polls, made of that of the schedule as it is.
func (s Settings) poll(ctx context.Context, c client.Client, is client.ScheduleAction) (workflows.PollInput, error) {
	in := s.Poll
	before, ok := inputOf[workflows.PollInput](is)
	if !ok {
		last, found, err := LastPoll(ctx, c)
		if err == nil && found {
			in.Resume = &last
		}
		return in, err
	}
	in.Resume = before.Resume
	if in.From.IsZero() {
		in.From = before.From
	}
	if s.Kept.Overlap {
		in.Overlap = before.Overlap
	}
	if s.Kept.PageSize && before.PageSize > 0 {
		in.PageSize = before.PageSize
	}
	return in, nil
}

// wanted is a schedule as it should be.
type wanted struct {
	id, workflow, taskQueue, summary string
	every                            time.Duration
	// keepEvery leaves the interval of a schedule as it is.
	keepEvery bool
	// atOnce begins a run as soon as the schedule is made.
	atOnce bool
	// input is that of the runs, made of the action of the schedule as it is; nil where there is none.
	input func(is client.ScheduleAction) (any, error)
}

func apply(ctx context.Context, c client.Client, w wanted) (Applied, error) {
	applied := Applied{ID: w.id, EverySeconds: w.every.Seconds()}
	handle := c.ScheduleClient().GetHandle(ctx, w.id)
	_, err := handle.Describe(ctx)
	if missing(err) {
		input, err := w.input(nil)
		if err != nil {
			return applied, err
		}
		applied.Created = true
		_, err = c.ScheduleClient().Create(ctx, client.ScheduleOptions{
			ID: w.id, Spec: w.spec(), Action: w.action(input), Overlap: enumspb.SCHEDULE_OVERLAP_POLICY_SKIP,
			CatchupWindow: catchUp, TriggerImmediately: w.atOnce,
		})
		if !errors.Is(err, temporal.ErrScheduleAlreadyRunning) {
			return applied, wrap(w.id, "create", err)
		}
		applied.Created = false // somebody else made it meanwhile
	} else if err != nil {
		return applied, wrap(w.id, "read", err)
	}
	err = handle.Update(ctx, client.ScheduleUpdateOptions{DoUpdate: func(in client.ScheduleUpdateInput) (*client.ScheduleUpdate, error) {
		is := in.Description.Schedule
		input, err := w.input(is.Action)
		if err != nil {
			return nil, err
		}
		if !w.keepEvery || is.Spec == nil {
			spec := w.spec()
			is.Spec = &spec
		}
		is.Action = w.action(input)
		is.Policy = &client.SchedulePolicies{Overlap: enumspb.SCHEDULE_OVERLAP_POLICY_SKIP, CatchupWindow: catchUp}
		applied.Paused = is.State != nil && is.State.Paused
		applied.EverySeconds = everySeconds(is.Spec)
		return &client.ScheduleUpdate{Schedule: &is}, nil
	}})
	return applied, wrap(w.id, "change", err)
}

func (w wanted) spec() client.ScheduleSpec {
	return client.ScheduleSpec{Intervals: []client.ScheduleIntervalSpec{{Every: w.every}}}
}

// everySeconds is the interval of a schedule; 0 where it has something else.
func everySeconds(spec *client.ScheduleSpec) float64 {
	if spec == nil || len(spec.Intervals) != 1 {
		return 0
	}
	return spec.Intervals[0].Every.Seconds()
}

func (w wanted) action(input any) *client.ScheduleWorkflowAction {
	return &client.ScheduleWorkflowAction{
		ID: w.id, Workflow: w.workflow, Args: []any{input}, TaskQueue: w.taskQueue, StaticSummary: w.summary,
	}
}

// inputOf is the input that a schedule gives its runs. One that somebody else has written may not be
// readable, and counts as none: it is about to be replaced.
func inputOf[T any](action client.ScheduleAction) (in T, ok bool) {
	a, isWorkflow := action.(*client.ScheduleWorkflowAction)
	if !isWorkflow || len(a.Args) == 0 {
		return in, false
	}
	payload, isPayload := a.Args[0].(*commonpb.Payload)
	ok = isPayload && dataConverter.FromPayload(payload, &in) == nil
	return in, ok
}

var dataConverter converter.DataConverter = workflows.DataConverter()

// Pause keeps a schedule from beginning further runs. The one under way goes on.
func Pause(ctx context.Context, c client.Client, id, by, why string) error {
	return wrap(id, "pause", setPaused(ctx, c, id, true, func(h client.ScheduleHandle) error {
		return h.Pause(ctx, client.SchedulePauseOptions{Note: note("paused", by, why)})
	}))
}

// Resume ends a pause.
func Resume(ctx context.Context, c client.Client, id, by, why string) error {
	return wrap(id, "resume", setPaused(ctx, c, id, false, func(h client.ScheduleHandle) error {
		return h.Unpause(ctx, client.ScheduleUnpauseOptions{Note: note("resumed", by, why)})
	}))
}

const (
	// pauseTries and pauseTime are how often a pause or its end is asked for, and how long each is waited for.
	pauseTries = 5
	pauseTime  = 3 * time.Second
	pauseLook  = 50 * time.Millisecond
)

// setPaused asks until the schedule is as wanted. Temporal takes a change of a schedule and a pause down as
// two signals, and where both come at once it carries the pause out first and then the change, which
// says what was before: a resume right after an Apply would be gone.
func setPaused(ctx context.Context, c client.Client, id string, paused bool, ask func(client.ScheduleHandle) error) error {
	handle := c.ScheduleClient().GetHandle(ctx, id)
	for range pauseTries {
		if err := ask(handle); err != nil {
			return err
		}
		for asked := time.Now(); time.Since(asked) < pauseTime; {
			description, err := handle.Describe(ctx)
			if err != nil {
				return err
			}
			if description.Schedule.State.Paused == paused {
				return nil
			}
			select {
			case <-time.After(pauseLook):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	return errors.New("Temporal has taken the request and not carried it out; try again")
}

func note(what, by, why string) string {
	text := what + " by " + by
	if why != "" {
		text += ": " + why
	}
	return text
}

// ErrRunning is the error of a trigger that would have no effect.
var ErrRunning = errors.New("a run is under way")

// Trigger begins a run now, also of a paused schedule. While one is under way it is an ErrRunning.
func Trigger(ctx context.Context, c client.Client, id string) error {
	handle := c.ScheduleClient().GetHandle(ctx, id)
	description, err := handle.Describe(ctx)
	if err != nil {
		return wrap(id, "read", err)
	}
	if running := description.Info.RunningWorkflows; len(running) > 0 {
		return fmt.Errorf("%s: %w: %s", id, ErrRunning, running[0].WorkflowID)
	}
	return wrap(id, "trigger", handle.Trigger(ctx, client.ScheduleTriggerOptions{}))
}

// ErrMissing is the error of a schedule that does not exist.
var ErrMissing = errors.New("there is no such schedule")

func missing(err error) bool {
	var notFound *serviceerror.NotFound
	return errors.As(err, &notFound)
}

func wrap(id, what string, err error) error {
	switch {
	case err == nil:
		return nil
	case missing(err):
		return fmt.Errorf("%s: %w", id, ErrMissing)
	default:
		return fmt.Errorf("%s the schedule %s: %w", what, id, err)
	}
}
