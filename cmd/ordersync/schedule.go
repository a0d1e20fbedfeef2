package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.temporal.io/sdk/client"

	"ordersync/internal/config"
	"ordersync/internal/order"
	"ordersync/internal/schedule"
	"ordersync/workflows"
)

func (a *app) scheduleCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "schedule",
		GroupID: "events",
		Short:   "Have the ERP polled at an interval, and both ends compared now and then",
		Long: `Looks after the Temporal schedules of ordersync, which are found in Temporal's Web UI too:

  ordersync-poll       reads what changed in the ERP and publishes it to Kafka
  ordersync-reconcile  compares the ERP with the shop's database

A schedule never runs twice at once. While the ERP is down, a poll waits for it; what would have begun
meanwhile is skipped, as that one reads everything when the ERP is back.`,
		Example: `  ordersync schedule apply
  ordersync schedule list
  ordersync schedule pause --why 'the ERP is migrated'`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(
		a.scheduleApplyCommand(), a.schedulePauseCommand(), a.scheduleResumeCommand(),
		a.scheduleTriggerCommand(), a.scheduleListCommand(),
	)
	return c
}

// scheduleFlags are those of ordersync schedule apply.
type scheduleFlags struct {
	every, overlap, reconcileEvery time.Duration
	from                           moment
	pageSize                       int
	repair                         bool
}

func (a *app) scheduleApplyCommand() *cobra.Command {
	var flags scheduleFlags
	c := &cobra.Command{
		Use:   "apply [--from T] [--every D] [--reconcile-every D]",
		Short: "Make the schedules, or change those that are there",
		Long: `Makes the schedule that polls the ERP, or changes the one that is there. Interval, overlap and page size
are what the flags say; else ERP_POLL_INTERVAL, ERP_OVERLAP and ERP_PAGE_SIZE where they are set; else what
the schedule has already; else the defaults. It may be repeated. A paused schedule stays paused, and
polling goes on where it is.

The first poll reads everything that the ERP has, or what has changed since --from. Given later, another
--from makes polling begin anew at that time; what has arrived already is left out. A --from such as 720h is
another time whenever it is typed: it does not belong into a script that runs with every deployment. An
invoice since then whose order is older, and not in the shop, blocks that order until the order comes or
the invoice is skipped.

With --reconcile-every, the comparison of both ends gets a schedule too. It goes on to repair, or not to,
until --repair or --repair=false says otherwise.`,
		Example: `  ordersync schedule apply
  ordersync schedule apply --from 2026-01-01 --every 1m
  ordersync schedule apply --reconcile-every 24h`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			switch {
			case c.Flags().Changed("every") && flags.every < time.Second:
				return fmt.Errorf("--every %v: give a duration of 1s or more", flags.every)
			case c.Flags().Changed("overlap") && flags.overlap < 0:
				return fmt.Errorf("--overlap %v: give a duration such as 1m, or 0s for none", flags.overlap)
			case c.Flags().Changed("page-size") && (flags.pageSize < 1 || flags.pageSize > maxPageSize):
				return fmt.Errorf("--page-size %d: give a number from 1 to %d", flags.pageSize, maxPageSize)
			case flags.reconcileEvery != 0 && flags.reconcileEvery < time.Minute:
				return fmt.Errorf("--reconcile-every %v: give a duration of 1m or more", flags.reconcileEvery)
			case c.Flags().Changed("repair") && flags.reconcileEvery == 0:
				return errors.New("--repair is about --reconcile-every D, which is missing")
			}
			cfg, temporal, err := a.dial(c.Context())
			if err != nil {
				return err
			}
			defer temporal.Close()
			// unset tells that neither a flag nor a variable says what is wanted.
			unset := func(flag, variable string) bool { return !c.Flags().Changed(flag) && !a.given(variable) }
			kept := schedule.Kept{
				Every: unset("every", "ERP_POLL_INTERVAL"), Overlap: unset("overlap", "ERP_OVERLAP"),
				PageSize: unset("page-size", "ERP_PAGE_SIZE"), Repair: !c.Flags().Changed("repair"),
			}
			if !c.Flags().Changed("every") {
				flags.every = cfg.ERP.Interval
			}
			if !c.Flags().Changed("overlap") {
				flags.overlap = cfg.ERP.Overlap
			}
			if !c.Flags().Changed("page-size") {
				flags.pageSize = cfg.ERP.PageSize
			}
			return a.scheduleApply(c.Context(), cfg, temporal, flags, kept)
		},
	}
	c.Flags().Var(&flags.from, "from", "begin with changes since: 2026-01-02T15:04:05Z, a day, or how long ago, such as 720h")
	c.Flags().DurationVar(&flags.every, "every", 0, "the time between two polls (default ERP_POLL_INTERVAL, else unchanged)")
	c.Flags().DurationVar(&flags.overlap, "overlap", 0, "how far before its last row a poll begins again (default ERP_OVERLAP, else unchanged)")
	c.Flags().IntVar(&flags.pageSize, "page-size", 0, "rows of a page (default ERP_PAGE_SIZE, else unchanged)")
	c.Flags().DurationVar(&flags.reconcileEvery, "reconcile-every", 0, "compare both ends so often; without it, that schedule is left as it is")
	c.Flags().BoolVar(&flags.repair, "repair", false, "the comparison publishes what is missing, stale or different (default unchanged)")
	return a.withOutput(c)
}

// applied is what there is after an apply.
type applied struct {
	Schedules []schedule.Applied `json:"schedules"`
}

func (a *app) scheduleApply(ctx context.Context, cfg config.Config, temporal client.Client, flags scheduleFlags, kept schedule.Kept) error {
	all, err := schedule.Apply(ctx, temporal, schedule.Settings{
		TaskQueue: cfg.Temporal.TaskQueue, Every: flags.every,
		Poll:           workflows.PollInput{From: flags.from.Time, Overlap: flags.overlap, PageSize: flags.pageSize},
		ReconcileEvery: flags.reconcileEvery, Reconcile: workflows.ReconcileInput{Repair: flags.repair},
		Kept: kept,
	})
	printed := a.print(applied{append([]schedule.Applied{}, all...)}, func(out io.Writer) error {
		t := newTable(out)
		for _, s := range all {
			state := "changed"
			if s.Created {
				state = "made"
			}
			if s.Paused {
				state += ", is paused"
			}
			t.row(s.ID, interval(s.EverySeconds), appliedText(s), state)
		}
		return t.flush()
	})
	if err == nil {
		err = errors.Join(a.noteGap(ctx, temporal, flags.from.Time), a.noteWorkers(ctx, cfg, temporal))
	}
	return errors.Join(err, printed)
}

// interval is how often a schedule begins a run.
func interval(everySeconds float64) string {
	if everySeconds == 0 {
		return "not at an interval"
	}
	return "every " + time.Duration(everySeconds*float64(time.Second)).String()
}

// appliedText is what the runs of a schedule go by.
func appliedText(s schedule.Applied) string {
	switch {
	case s.Poll != nil:
		return fmt.Sprintf("overlap %v, pages of %d rows", time.Duration(s.Poll.OverlapSeconds*float64(time.Second)), s.Poll.PageSize)
	case s.Reconcile != nil && s.Reconcile.Repair:
		return "repairs"
	default:
		return "reports"
	}
}

// noteGap says so if polling is to begin later than where it is, and leaves something out.
func (a *app) noteGap(ctx context.Context, temporal client.Client, from time.Time) error {
	last, found, err := schedule.LastPoll(ctx, temporal)
	if err != nil || !found || !last.ChangedUntil.Before(from) || last.From.Equal(from) {
		return err
	}
	read := stamp(last.ChangedUntil)
	if last.ChangedUntil.IsZero() {
		read = "the beginning"
	}
	a.note("what changed in the ERP from %s, up to which it was polled, to %s is not read: if that was not meant, give --from an earlier time", read, stamp(from))
	return nil
}

// noteWorkers says so if nobody takes what the schedules begin.
func (a *app) noteWorkers(ctx context.Context, cfg config.Config, temporal client.Client) error {
	n, err := schedule.Workers(ctx, temporal, cfg.Temporal.TaskQueue)
	if err == nil && n == 0 {
		a.note("no worker reads the ERP now: set ERP_SOURCE and ERP_URL (worker --help lists the rest) for workers and start them")
	}
	return err
}

// scheduleAct is a command that does something to one schedule.
func (a *app) scheduleAct(c *cobra.Command, do func(ctx context.Context, temporal client.Client, id string) error) *cobra.Command {
	c.Args = func(c *cobra.Command, args []string) error {
		if len(args) > 1 {
			return fmt.Errorf("%s takes the name of one schedule, not %d; see %s --help", c.CommandPath(), len(args), c.CommandPath())
		}
		return nil
	}
	c.ValidArgs = []string{"poll", "reconcile"}
	c.RunE = func(c *cobra.Command, args []string) error {
		id := schedule.Poll
		if len(args) == 1 {
			switch args[0] {
			case "poll", schedule.Poll:
			case "reconcile", schedule.Reconcile:
				id = schedule.Reconcile
			default:
				return fmt.Errorf("there is no schedule %q: give poll or reconcile", args[0])
			}
		}
		_, temporal, err := a.dial(c.Context())
		if err != nil {
			return err
		}
		defer temporal.Close()
		if err := do(c.Context(), temporal, id); err != nil {
			return a.explainSchedule(err, id)
		}
		s, err := schedule.Describe(c.Context(), temporal, id)
		if err != nil {
			return err
		}
		return a.print(s, func(out io.Writer) error { return printSchedules(out, []schedule.Schedule{s}) })
	}
	return a.withOutput(c)
}

func (a *app) explainSchedule(err error, id string) error {
	switch {
	case errors.Is(err, schedule.ErrMissing) && id == schedule.Reconcile:
		return fmt.Errorf("%w: make it with %s", err, a.hint("schedule apply --reconcile-every 24h"))
	case errors.Is(err, schedule.ErrMissing):
		return fmt.Errorf("%w: make it with %s", err, a.hint("schedule apply"))
	case errors.Is(err, schedule.ErrRunning):
		return fmt.Errorf("%w; see what it does: %s", err, a.hint("schedule list"))
	default:
		return err
	}
}

func (a *app) schedulePauseCommand() *cobra.Command {
	var by, why string
	c := &cobra.Command{
		Use:   "pause [poll|reconcile]",
		Short: "Begin no further run of a schedule",
		Long: `Begins no further run of a schedule, by default of the polls, until it is resumed. A run that is under way
goes on to its end. Nothing is lost: the next poll reads everything from where the last one was.`,
		Example: `  ordersync schedule pause --why 'the ERP is migrated'
  ordersync schedule pause reconcile`,
	}
	addNote(c, &by, &why)
	return a.scheduleAct(c, a.noted(&by, &why, schedule.Pause))
}

func (a *app) scheduleResumeCommand() *cobra.Command {
	var by, why string
	c := &cobra.Command{
		Use:   "resume [poll|reconcile]",
		Short: "Go on with a paused schedule",
		Long:  `Goes on with a paused schedule, by default that of the polls.`,
		Example: `  ordersync schedule resume --why 'the ERP is back'
  ordersync schedule resume reconcile`,
	}
	addNote(c, &by, &why)
	return a.scheduleAct(c, a.noted(&by, &why, schedule.Resume))
}

// addNote gives a command the flags that become the note of a schedule.
func addNote(c *cobra.Command, by, why *string) {
	c.Flags().StringVar(by, "by", "", "who does it, for the schedule's note (default: user@host)")
	c.Flags().StringVar(why, "why", "", "why, for the schedule's note")
	c.Flags().StringVar(why, "note", "", "the same as --why")
}

// noted does something to a schedule that its note has the person and the reason of.
func (a *app) noted(by, why *string, do func(ctx context.Context, temporal client.Client, id, by, why string) error) func(context.Context, client.Client, string) error {
	return func(ctx context.Context, temporal client.Client, id string) error {
		who, err := a.person(ctx, *by)
		if err != nil {
			return err
		}
		return do(ctx, temporal, id, who, *why)
	}
}

func (a *app) scheduleTriggerCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "trigger [poll|reconcile]",
		Short: "Begin a run of a schedule now",
		Long: `Begins a run of a schedule now, by default a poll, also of a paused schedule. It fails while one is under
way, as there is never more than one.`,
		Example: `  ordersync schedule trigger
  ordersync schedule trigger reconcile`,
	}
	return a.scheduleAct(c, schedule.Trigger)
}

func (a *app) scheduleListCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "list",
		Short: "Show the schedules: state, last run and what came of it, next run",
		Long: `Shows the schedules: whether they are paused, and by whom; what the last run came to; what the one under
way is doing, and what it is waiting for; when the next is due.`,
		Example: `  ordersync schedule list
  ordersync schedule list -o json | jq '.schedules[0].last.result'`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, temporal, err := a.dial(c.Context())
			if err != nil {
				return err
			}
			defer temporal.Close()
			all, err := schedule.List(c.Context(), temporal)
			if err != nil {
				return err
			}
			if err := a.print(scheduleList{all}, func(out io.Writer) error { return printSchedules(out, all) }); err != nil {
				return err
			}
			if len(all) == 0 {
				a.note("there are no schedules yet: %s", a.hint("schedule apply"))
				return nil
			}
			return a.noteWorkers(c.Context(), cfg, temporal)
		},
	}
	return a.withOutput(c)
}

// scheduleList is the answer of ordersync schedule list.
type scheduleList struct {
	Schedules []schedule.Schedule `json:"schedules"`
}

func printSchedules(out io.Writer, all []schedule.Schedule) error {
	for i, s := range all {
		if i > 0 {
			fmt.Fprintln(out)
		}
		state := "active"
		if s.Paused {
			state = "paused"
		}
		fmt.Fprintln(out, strings.TrimRight(fmt.Sprintf("%s  %s  %s", s.ID, state, oneLine(s.Note)), " "))
		t := newTable(out)
		t.indent = "  "
		t.row("begins", interval(s.EverySeconds))
		if r := s.Running; r != nil {
			since := r.StartedAt
			if state, ok := r.Poll(); ok && s.ID == schedule.Poll && !state.StartedAt.IsZero() {
				since = state.StartedAt // the run may be one of several of the same poll
			}
			t.row("under way", "since "+stamp(since), runText(s.ID, *r))
			if r.Attempt > 1 {
				t.row("retrying", fmt.Sprintf("attempt %d", r.Attempt), shortened(r.Error, 200))
			}
		}
		switch r := s.Last; {
		case r == nil:
			t.row("last run", "none yet")
		case r.Error != "":
			t.row("last run", stamp(r.EndedAt), r.Status+": "+shortened(r.Error, 200))
		default:
			t.row("last run", stamp(r.EndedAt), runText(s.ID, *r))
		}
		if fall := fallOf(s); fall != nil {
			t.row("version fell", stamp(fall.SeenAt), fallText(*fall))
		}
		if !s.NextAt.IsZero() {
			t.row("next run", stamp(s.NextAt))
		}
		if err := t.flush(); err != nil {
			return err
		}
	}
	return nil
}

// fallOf is the last fall of a version that polls have seen; nil where there is none.
func fallOf(s schedule.Schedule) *order.VersionFall {
	if s.ID != schedule.Poll {
		return nil
	}
	for _, run := range []*schedule.Run{s.Running, s.Last} {
		if state, ok := run.Poll(); ok && state.Fall != nil {
			return state.Fall
		}
	}
	return nil
}

func fallText(f order.VersionFall) string {
	text := fmt.Sprintf("order %s: version %d after %d, so the shop keeps what it has", order.Typed(f.SyncID), f.Version, f.Before)
	if f.Count > 1 {
		text += fmt.Sprintf(" (and %d before it)", f.Count-1)
	}
	return text + "; see docs/ERP.md, Versions that fall"
}

// runText is what a run has come to.
func runText(id string, r schedule.Run) string {
	if len(r.Result) == 0 {
		return r.Status
	}
	if id == schedule.Reconcile {
		var report order.Reconciliation
		if json.Unmarshal(r.Result, &report) != nil {
			return r.Status
		}
		return reconcileText(report)
	}
	var state workflows.PollState
	if json.Unmarshal(r.Result, &state) != nil {
		return r.Status
	}
	return pollText(state)
}

// begin is where a poll without a cursor began.
func begin(s workflows.PollState) string {
	if s.From.IsZero() {
		return "the beginning"
	}
	return stamp(s.From)
}

func pollText(s workflows.PollState) string {
	text := fmt.Sprintf("%d rows, %d published, %d known", s.Read, s.Published, s.Known)
	if s.More && s.Anew {
		text = "everything from " + begin(s) + " on is read: " + text
	}
	if s.Unversioned > 0 {
		text += fmt.Sprintf(", %d without a version", s.Unversioned)
	}
	if s.Rejected > 0 {
		text += fmt.Sprintf(", %d no events", s.Rejected)
	}
	if !s.ChangedUntil.IsZero() {
		text += ", changes up to " + stamp(s.ChangedUntil)
	}
	return text
}

func reconcileText(r order.Reconciliation) string {
	text := fmt.Sprintf("%d orders agree", r.Agreeing)
	for _, class := range order.Drifts {
		if n := r.Counts[class]; n > 0 {
			text += fmt.Sprintf(", %d %s", n, class)
		}
	}
	return text
}
