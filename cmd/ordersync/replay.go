package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"ordersync/internal/intake"
	"ordersync/internal/pod"
	"ordersync/internal/replay"
)

// replayFlags choose what is looked at again.
type replayFlags struct {
	order        string
	since, until moment
	dryRun       bool
	force        bool
	by, why      string
}

func (a *app) replayCommand() *cobra.Command {
	var flags replayFlags
	c := &cobra.Command{
		Use:     "replay (--order ID | --since T) [--until T]",
		GroupID: "operate",
		Short:   "Read the topics again and send what the shop's database has never got",
		Long: `Reads the topics of the channels and of their backfills again, asks the ledger for each event, and sends
those that it lacks to their orders, with their original coordinates. It repairs orders whose workflow
was terminated, which drops what it held. Nothing is applied twice: an event that only waits in its
workflow is dropped there, and the command may be interrupted and repeated.

--since and --until go by the records' timestamps; a record whose timestamp is none (0, or seconds for
milliseconds) is within both. All is read that the topics still hold. What the starters have not come to
yet is not lost and not looked at: it is counted as waiting, see ` + "`ordersync status`" + `. Records in the
dead-letter topic are left to ` + "`ordersync deadletter replay`" + `.

An event without a version goes by its arrival. It is refused where the order has applied one that
arrived later, since older data would come back; --force sends it all the same.`,
		Example: `  ordersync replay --order 536365 --why 'terminated by mistake'
  ordersync replay --since 2026-01-02T15:00:00Z --until 2026-01-02T16:00:00Z --dry-run
  ordersync replay --since 2h`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			if flags.order == "" && flags.since.IsZero() {
				return errors.New("say what to replay: --order ID, or --since T for all orders (--since 2000-01-01 for all that the topics hold)")
			}
			if !flags.until.IsZero() && !flags.until.After(flags.since.Time) {
				return fmt.Errorf("--until %s is not after --since %s", &flags.until, &flags.since)
			}
			return a.replay(c.Context(), flags)
		},
	}
	c.Flags().StringVar(&flags.order, "order", "", "only the events of this order, a sync_id")
	c.Flags().Var(&flags.since, "since", "records since: 2006-01-02T15:04:05Z, or so long ago, such as 2h")
	c.Flags().Var(&flags.until, "until", "records before: the same forms")
	c.Flags().BoolVar(&flags.dryRun, "dry-run", false, "show what is missing, and send nothing")
	c.Flags().BoolVar(&flags.force, "force", false, "also send events without a version that others have overtaken")
	c.Flags().StringVar(&flags.by, "by", "", "who does it, for the audit (default: user@host)")
	c.Flags().StringVar(&flags.why, "why", "", "why, for the audit")
	return a.withOutput(c)
}

func (a *app) replay(ctx context.Context, flags replayFlags) error {
	id := flags.order
	if id != "" {
		var err error
		if id, err = syncID(id); err != nil {
			return err
		}
	}
	cfg, temporal, err := a.dial(ctx, kafkaBrokers, mysqlDSN)
	if err != nil {
		return err
	}
	defer temporal.Close()
	by := ""
	if !flags.dryRun {
		if by, err = a.person(ctx, flags.by); err != nil {
			return err
		}
	}
	letters, end, err := a.deadLetters(ctx, cfg)
	if err != nil {
		return err
	}
	defer end()

	bar := a.newBar("records", -1, false)
	summary, err := replay.Run(ctx, replay.Options{
		Reader: letters.Reader, Topics: cfg.Kafka.Topics, Backfill: cfg.Kafka.BackfillTopics(), Group: cfg.Kafka.Group,
		DeadLetters: letters, Target: letters.Target, Temporal: temporal,
		Sender: intake.NewSender(temporal, cfg.Temporal.TaskQueue, pod.Settings(cfg)),
		Order:  id, Since: flags.since.Time, Until: flags.until.Time, Force: flags.force, DryRun: flags.dryRun, By: by, Why: flags.why,
		Progress: func(s replay.Summary, done, total int64) {
			bar.resize(total)
			bar.set(done, fmt.Sprintf("%d read, %d missing, %d sent", s.Read, s.Missing, s.Sent))
		},
	})
	bar.finish()
	interrupted := errors.Is(err, context.Canceled)
	if err != nil && !interrupted {
		return err
	}
	printed := a.print(summary, func(out io.Writer) error { return printReplay(out, summary) })
	switch left := summary.Overtaken + summary.Failed; {
	case interrupted:
		err = errors.New("interrupted; run it again from the start: nothing happens twice")
	case left > 0:
		err = fmt.Errorf("%d missing events were not sent; the first problems are told above", left)
	case summary.Sent > 0 && !flags.dryRun:
		a.note("follow them: %s", a.hint("wait"))
	}
	if summary.Waiting > 0 {
		a.note("%d offsets of the topics wait for the starters, which commit about once a second: %s shows whether they do", summary.Waiting, a.hint("status"))
	}
	return errors.Join(err, printed)
}

func printReplay(out io.Writer, s replay.Summary) error {
	t := newTable(out)
	t.row("read", s.Read, "records within the bounds")
	t.row("rejected", s.Rejected, "no events")
	t.row("events", s.Events, "")
	t.row("in the ledger", s.InLedger, "")
	t.row("dead letters", s.DeadLettered, "left to ordersync deadletter")
	t.row("missing", s.Missing, "")
	sent := fmt.Sprintf("of %d orders", s.Orders)
	if s.DryRun {
		sent += ", if it were done"
	}
	t.row("sent", s.Sent, sent)
	if s.Waiting > 0 {
		t.row("waiting", s.Waiting, "for the starters, in Kafka: not looked at")
	}
	if s.Overtaken > 0 {
		t.row("overtaken", s.Overtaken, "not sent")
	}
	if s.Failed > 0 {
		t.row("failed", s.Failed, "not taken by Temporal")
	}
	if err := t.flush(); err != nil {
		return err
	}
	for _, p := range s.Problems {
		fmt.Fprintf(out, "  order %s: %s\n", p.SyncID, oneLine(p.Why))
	}
	return nil
}
