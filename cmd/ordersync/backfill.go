package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"go.temporal.io/sdk/client"

	"ordersync/internal/backfill"
	"ordersync/internal/config"
	"ordersync/internal/schedule"
	"ordersync/workflows"
)

// backfillFlags choose the period of a backfill.
type backfillFlags struct {
	from, to       moment
	cancel, follow bool
	pageSize       int
	by             string
}

func (a *app) backfillCommand() *cobra.Command {
	var flags backfillFlags
	c := &cobra.Command{
		Use:     "backfill (--from T [--to T] | --cancel)",
		GroupID: "events",
		Short:   "Publish the ERP's past, beside the live events and slower",
		Long: `Publishes what changed in the ERP in a period and the shop's database lacks, to topics of their own
(online.backfill for online), which starters read at a limited rate (BACKFILL_RATE), so that new orders
stay fast. A workflow does it on a worker that has ERP_SOURCE; this command starts it, or joins the one
under way, and follows it. Give it the starters' BACKFILL_RATE: with 0 they read nothing of a backfill, so
it is refused.

Only events with a version are published; a row without one takes the time of its change as such. Where
the live events have versions or times too, they never overwrite newer data, whenever they come; where
those have neither, they may. What has neither is left out and counted. Rows that are no events get their
dead letters. An invoice in the period whose order is older than --from, and not in the shop, blocks that
order until the order comes or the invoice is skipped.

Ctrl-C leaves the backfill running; --cancel stops the one that is under way. It may be done again for
the same period: what has arrived is left out.`,
		Example: `  ordersync backfill --from 2026-01-01 --to 2026-02-01
  ordersync backfill --from 2026-01-01 --follow=false
  ordersync backfill --cancel`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			switch {
			case flags.cancel && (!flags.from.IsZero() || !flags.to.IsZero()):
				return errors.New("--cancel stops the backfill that is under way: it takes no period")
			case !flags.cancel && flags.from.IsZero():
				return errors.New("say from when: --from T (--from 2000-01-01 for everything that the ERP has)")
			case !flags.to.IsZero() && !flags.to.After(flags.from.Time):
				return fmt.Errorf("--to %s is not after --from %s", &flags.to, &flags.from)
			case c.Flags().Changed("page-size") && (flags.pageSize < 1 || flags.pageSize > maxPageSize):
				return fmt.Errorf("--page-size %d: give a number from 1 to %d", flags.pageSize, maxPageSize)
			}
			cfg, temporal, err := a.dial(c.Context())
			if err != nil {
				return err
			}
			defer temporal.Close()
			if flags.cancel {
				return a.cancelBackfill(c.Context(), temporal)
			}
			if cfg.BackfillRate == 0 {
				return fmt.Errorf("BACKFILL_RATE is 0: starters with that read nothing of a backfill, and its topics need not exist\n"+
					"run %s with it above 0, then the starters, and then this; what starters have set cannot be seen from here", a.hint("setup"))
			}
			if flags.pageSize == 0 {
				flags.pageSize = cfg.ERP.PageSize
			}
			return a.backfill(c.Context(), cfg, temporal, flags)
		},
	}
	c.Flags().Var(&flags.from, "from", "changes since: 2026-01-02T15:04:05Z, a day, or how long ago, such as 720h")
	c.Flags().Var(&flags.to, "to", "changes before: the same forms (default: now)")
	c.Flags().BoolVar(&flags.cancel, "cancel", false, "stop the backfill that is under way")
	c.Flags().BoolVar(&flags.follow, "follow", true, "wait for the end and say what was published")
	c.Flags().IntVar(&flags.pageSize, "page-size", 0, "rows of a page (default ERP_PAGE_SIZE)")
	c.Flags().StringVar(&flags.by, "by", "", "who does it, for those who look at the workflow (default: user@host)")
	return a.withOutput(c)
}

// period are the flags of the same period, also where it was given as how long ago.
func (f backfillFlags) period() string {
	text := " --from " + f.from.UTC().Format(time.RFC3339Nano)
	if !f.to.IsZero() {
		text += " --to " + f.to.UTC().Format(time.RFC3339Nano)
	}
	return text
}

// backfillView is what there is to say of a backfill.
type backfillView struct {
	backfill.Run
	// Result is there when it has ended.
	Result *workflows.PollState `json:"result,omitempty"`
}

func (a *app) backfill(ctx context.Context, cfg config.Config, temporal client.Client, flags backfillFlags) error {
	by, err := a.person(ctx, flags.by)
	if err != nil {
		return err
	}
	run, err := backfill.Start(ctx, temporal, cfg.Temporal.TaskQueue, workflows.BackfillInput{
		From: flags.from.Time, To: flags.to.Time, PageSize: flags.pageSize, By: by,
	})
	var other *backfill.OtherError
	if errors.As(err, &other) {
		return fmt.Errorf("%w\nwait for its end, or stop it: %s", err, a.hint("backfill --cancel"))
	}
	if err != nil {
		return err
	}
	if err := a.noteWorkers(ctx, cfg, temporal); err != nil {
		return err
	}
	switch {
	case run.Joined:
		a.note("joined the one that is under way since %s", stamp(run.StartedAt))
	case flags.follow:
		a.note("it runs as workflow %s, also if this command is interrupted", run.WorkflowID)
	}
	view := backfillView{Run: run}
	if !flags.follow {
		return a.print(view, func(out io.Writer) error {
			_, err := fmt.Fprintf(out, "it runs as workflow %s\n", run.WorkflowID)
			return err
		})
	}
	bar := a.newBar("backfill", backfillUnits, false)
	state, err := backfill.Follow(ctx, temporal, run, func(r schedule.Run) {
		done, text := backfillProgress(flags, r)
		bar.set(done, text)
	})
	bar.finish()
	if ctx.Err() != nil {
		return fmt.Errorf("interrupted; the backfill goes on: %s follows it again, and this stops it: %s",
			a.hint("backfill"+flags.period()), a.hint("backfill --cancel"))
	}
	if err != nil {
		return err
	}
	view.Result = &state
	if state.Published > 0 {
		a.note("the starters read them at BACKFILL_RATE; follow them: %s", a.hint("wait"))
	}
	return a.print(view, func(out io.Writer) error { return printBackfill(out, state) })
}

// backfillUnits is the length of the bar: the period in thousandths.
const backfillUnits = 1000

// backfillProgress is how far a backfill is, by the times of the changes.
func backfillProgress(flags backfillFlags, r schedule.Run) (done int64, text string) {
	var state workflows.PollState
	switch err := json.Unmarshal(r.Result, &state); {
	case r.Attempt > 1 && r.Error != "":
		text = fmt.Sprintf("waiting, attempt %d: %s", r.Attempt, shortened(r.Error, 100))
	case err != nil:
		text = "begins"
	}
	if text == "" {
		text = pollText(state)
	}
	to := flags.to.Time
	if to.IsZero() {
		to = r.StartedAt
	}
	if !state.ChangedUntil.IsZero() && to.After(flags.from.Time) {
		part := float64(state.ChangedUntil.Sub(flags.from.Time)) / float64(to.Sub(flags.from.Time))
		done = int64(backfillUnits * min(max(part, 0), 1))
	}
	return done, text
}

func printBackfill(out io.Writer, s workflows.PollState) error {
	t := newTable(out)
	t.row("rows", s.Read, "of the period")
	t.row("published", s.Published, "to the topics of backfills")
	t.row("known", s.Known, "in the ledger already")
	t.row("no version", s.Unversioned, "left out")
	t.row("no events", s.Rejected, s.FirstBad)
	t.row("took", s.ReadUntil.Sub(s.StartedAt).Round(time.Second), "")
	return t.flush()
}

func (a *app) cancelBackfill(ctx context.Context, temporal client.Client) error {
	run, err := backfill.Cancel(ctx, temporal)
	if err != nil {
		return err
	}
	return a.print(backfillView{Run: run}, func(out io.Writer) error {
		_, err := fmt.Fprintf(out, "cancelled %s; what it has published stays\n", run.WorkflowID)
		return err
	})
}
