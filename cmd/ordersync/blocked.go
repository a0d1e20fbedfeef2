package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"ordersync/internal/config"
	"ordersync/internal/freshness"
	"ordersync/internal/operator"
	"ordersync/internal/order"
	"ordersync/internal/pod"
)

// selectFlags choose stuck orders.
type selectFlags struct {
	reason, channel string
	olderThan       time.Duration
}

func (f *selectFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.reason, "error", "", "only orders stuck on this type of error, such as CheckViolated")
	c.Flags().StringVar(&f.channel, "channel", "", "only orders of this channel")
	c.Flags().DurationVar(&f.olderThan, "older-than", 0, "only orders stuck for longer than this, such as 1h")
}

// selection is what the flags choose at now, which is Temporal's time: by that orders are stuck.
// They are those of this deployment, should others share its namespace.
func (f *selectFlags) selection(cfg config.Config, status string, now time.Time) (operator.Selection, error) {
	s := operator.Selection{Status: status, Reason: f.reason, Channel: f.channel, TaskQueue: cfg.Temporal.TaskQueue}
	if f.olderThan > 0 {
		s.StuckBefore = now.Add(-f.olderThan).UTC()
	}
	return s, s.Check()
}

func (f *selectFlags) any() bool { return f.reason != "" || f.channel != "" || f.olderThan > 0 }

func (a *app) blockedCommand() *cobra.Command {
	var flags selectFlags
	var limit int
	var watch bool
	c := &cobra.Command{
		Use:     "blocked",
		GroupID: "operate",
		Short:   "List the orders that do not get on: blocked, retrying, failed, or not taken by Temporal",
		Long: `Counts and lists the orders that are stuck, longest first, by Temporal's search attributes: the blocked
ones wait for a person. The retrying ones heal by themselves once their cause is gone, unless a person has
paused the step. The same list in the Web UI:

  ` + operator.StuckQuery + `

Each order's worker says what it is stuck on. Then follow the runs that failed, timed out, were terminated
or cancelled while the shop's database lacks events of theirs, and those whose workflow tasks fail: workers
note them in the database, where they stay until their events have arrived or the order is replayed. Last
come the records in Kafka that the starters do not get past: orders that Temporal does not take, and those
whose run is full, which go on by themselves.

What cannot be looked up is named, the rest is shown, and the command fails.`,
		Example: `  ordersync blocked
  ordersync blocked --error CheckViolated --channel store --older-than 1h
  ordersync blocked --watch
  ordersync blocked --limit 1000 -o json | jq -r '.orders[].sync_id'`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			if limit < 1 || limit > maxStuck {
				return fmt.Errorf("--limit %d: give a number from 1 to %d", limit, maxStuck)
			}
			return a.blocked(c.Context(), flags, limit, watch)
		},
	}
	flags.add(c)
	c.Flags().IntVar(&limit, "limit", 100, "list so many orders at most; all are counted")
	c.Flags().BoolVar(&watch, "watch", false, "look again every two seconds until Ctrl-C")
	return a.withOutput(c)
}

// maxStuck is the most orders that are listed, and asked one by one.
const maxStuck = 10_000

// blockedView is every order that does not get on.
type blockedView struct {
	operator.Survey
	// Unwell are runs that ended without completing, or whose tasks fail, while events of theirs are missing; the
	// longest ones. UnwellTotal counts all.
	Unwell      []order.UnwellRun `json:"unwell"`
	UnwellTotal int64             `json:"unwell_total"`
	// Stalled are the records in Kafka that the starters do not get past.
	Stalled []freshness.Stalled `json:"stalled"`
	// Problems say what could not be looked up.
	Problems []string `json:"problems"`
}

func (a *app) blocked(ctx context.Context, flags selectFlags, limit int, watch bool) error {
	l, err := a.look(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	if _, err := flags.selection(l.cfg, "", time.Time{}); err != nil {
		return err
	}
	transport := pod.KafkaTransport(l.cfg)
	defer transport.CloseIdleConnections()
	probe := pod.NewProbe(l.cfg, transport, l.temporal, l.shop)
	return a.show(ctx, watch, func(ctx context.Context) (func() error, error) {
		view := a.survey(ctx, l, probe, flags, limit)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return func() error {
			err := a.print(view, func(out io.Writer) error { return a.printStuck(out, view) })
			if len(view.Problems) > 0 && !watch {
				err = errors.Join(err, errIncomplete)
			}
			return err
		}, nil
	})
}

// survey looks for all that the flags select, each part whatever became of the others.
func (a *app) survey(ctx context.Context, l *looking, probe *freshness.Probe, flags selectFlags, limit int) blockedView {
	seen := looking{problems: slices.Clone(l.problems)}
	v := blockedView{Survey: operator.Survey{Groups: []operator.Group{}, Orders: []operator.StuckOrder{}}, Unwell: []order.UnwellRun{}, Stalled: []freshness.Stalled{}}
	now := time.Now()
	if l.temporal != nil {
		if at, err := operator.ServerNow(ctx, l.temporal, l.cfg.Temporal.Client.Namespace, l.cfg.Temporal.TaskQueue); err == nil && !at.IsZero() {
			now = at
		}
		selection, err := flags.selection(l.cfg, "", now)
		if err == nil {
			v.Survey, err = operator.Look(ctx, l.temporal, selection, limit, now)
		}
		seen.missing("the stuck orders", err)
		seen.missing("which of them are paused", operator.Conditions(ctx, l.temporal, v.Orders))
		if err := operator.Detail(ctx, l.temporal, v.Orders); err != nil {
			a.note("what they are stuck on is not known: %v", err)
		}
	}
	// A run that is not well is stuck on no error.
	if flags.reason == "" {
		asking, cancel := context.WithTimeout(ctx, lookTimeout)
		defer cancel()
		counts, err := l.shop.CountUnwell(asking)
		for _, c := range counts {
			v.UnwellTotal += c.Count
		}
		if err == nil && v.UnwellTotal > 0 {
			var runs []order.UnwellRun
			runs, err = l.shop.Unwell(asking, 0)
			runs = slices.DeleteFunc(runs, func(u order.UnwellRun) bool {
				return flags.channel != "" && u.Channel != flags.channel || flags.olderThan > 0 && now.Sub(u.Since) < flags.olderThan
			})
			v.UnwellTotal = int64(len(runs))
			v.Unwell = append(v.Unwell, runs[:min(len(runs), limit)]...)
		}
		seen.missing("MySQL, which has the runs that failed, were ended or cannot go on", err)
		if l.temporal != nil {
			stalled, err := probe.Stalled(ctx)
			for _, s := range stalled {
				if flags.channel == "" || string(s.Channel) == flags.channel {
					v.Stalled = append(v.Stalled, s)
				}
			}
			seen.missing("Kafka, which has the orders that Temporal does not take", err)
		}
	}
	v.Problems = append([]string{}, seen.problems...)
	return v
}

// lookTimeout bounds one question to the shop's database.
const lookTimeout = 10 * time.Second

func printGroups(out io.Writer, s operator.Survey) error {
	t := newTable(out)
	t.row("ORDERS", "STATUS", "REASON", "CHANNEL", "SINCE", "< 1 MIN", "< 1 H", "< 1 DAY", "LONGER")
	for _, g := range s.Groups {
		t.row(g.Count, g.Status, g.Reason, g.Channel, stamp(g.Oldest), g.Ages[0], g.Ages[1], g.Ages[2], g.Ages[3])
	}
	return t.flush()
}

func (a *app) printStuck(out io.Writer, v blockedView) error {
	if v.Total == 0 && len(v.Unwell) == 0 && len(v.Stalled) == 0 && len(v.Problems) == 0 {
		_, err := fmt.Fprintln(out, "no order is stuck")
		return err
	}
	var err error
	if v.Total > 0 {
		err = a.printSurvey(out, v.Survey)
	}
	err = errors.Join(err, a.printUnwell(out, v), a.printStalled(out, v.Stalled))
	printMissing(out, v.Problems)
	return err
}

func (a *app) printSurvey(out io.Writer, s operator.Survey) error {
	if err := printGroups(out, s); err != nil {
		return err
	}
	fmt.Fprintln(out)
	t := newTable(out)
	t.row("ORDER", "CHANNEL", "STATUS", "REASON", "SINCE", "ON", "PENDING")
	for _, o := range s.Orders {
		since, on, pending := "", "", ""
		if o.Since != nil {
			since = stamp(*o.Since)
		}
		if o.Step != nil {
			on, pending = order.NameOf(o.Step.Kind, o.Step.Version), strconv.Itoa(o.Pending)
		}
		status := o.Status
		switch {
		case o.Paused != nil:
			status += ", paused"
		case o.TasksFail:
			status += ", tasks fail"
		}
		t.row(o.SyncID, o.Channel, status, o.Reason, since, on, pending)
	}
	if err := t.flush(); err != nil {
		return err
	}
	if s.More {
		fmt.Fprintf(out, "… and %d more: raise --limit, or look in the Web UI for %s\n", s.Total-len(s.Orders), operator.StuckQuery)
	}
	for _, o := range s.Orders {
		if o.Paused != nil {
			fmt.Fprintf(out, "\norder %s is paused%s and does not go on by itself: %s\n", o.SyncID, pausedBy(*o.Paused), o.Paused.UnpauseCommand(o.SyncID))
		}
	}
	_, err := fmt.Fprintf(out, "\nwhat one waits for, and what to do: %s\n", a.propose(order.ShowCommand(s.Orders[0].SyncID)))
	return err
}

func pausedBy(p operator.Pause) string {
	text := " since " + stamp(p.At)
	if p.By != "" {
		text += " by " + p.By
	}
	if p.Reason != "" {
		text += " (" + shortened(p.Reason, 100) + ")"
	}
	return text
}

// troubles says of each trouble what it is, for people.
var troubles = map[order.Trouble]string{
	order.RunFailed: "its run failed", order.RunTimedOut: "its run timed out", order.RunTerminated: "its run was terminated",
	order.RunCanceled: "its run was cancelled", order.TasksFail: "its workflow tasks fail",
	order.NotTaken: "Temporal does not take it", order.NoLetter: "no event, and its dead letter is not written", order.RunFull: "its run is full",
}

func (a *app) printUnwell(out io.Writer, v blockedView) error {
	if len(v.Unwell) == 0 {
		return nil
	}
	fmt.Fprintf(out, "\nthe runs of these orders hold events that the shop's database lacks, and do not go on by themselves:\n")
	t := newTable(out)
	t.row("ORDER", "CHANNEL", "WHAT", "SINCE", "LACKS", "WHY")
	ended, failing := "", ""
	for _, u := range v.Unwell {
		t.row(u.SyncID, u.Channel, troubles[u.Trouble], stamp(u.Since), lacks(u), shortened(u.Reason, 80))
		if u.Trouble == order.TasksFail && failing == "" {
			failing = u.SyncID
		}
		if u.Trouble != order.TasksFail && ended == "" {
			ended = u.SyncID
		}
	}
	if err := t.flush(); err != nil {
		return err
	}
	if more := v.UnwellTotal - int64(len(v.Unwell)); more > 0 {
		fmt.Fprintf(out, "… and %d more: raise --limit\n", more)
	}
	if ended != "" {
		fmt.Fprintf(out, "send again what a run held that ended, from Kafka: %s\n", a.propose(order.ReplayCommand(ended)))
	}
	if failing != "" {
		fmt.Fprintf(out, "where workflow tasks fail: roll the workers back, or deploy those that know the run; then %s goes on by itself\n", failing)
	}
	return nil
}

func lacks(u order.UnwellRun) string {
	switch {
	case u.LackingCount < 0:
		return unknown
	case len(u.Lacking) == 1:
		return order.NameOf(u.Lacking[0].Kind, u.Lacking[0].Version)
	case len(u.Lacking) > 1:
		return fmt.Sprintf("%d from %s on", u.LackingCount, order.NameOf(u.Lacking[0].Kind, u.Lacking[0].Version))
	default:
		return "nothing"
	}
}

func (a *app) printStalled(out io.Writer, all []freshness.Stalled) error {
	if len(all) == 0 {
		return nil
	}
	fmt.Fprintf(out, "\nthe starters do not get past these records:\n")
	t := newTable(out)
	t.row("ORDER", "CHANNEL", "WHAT", "SINCE", "RECORD")
	refused := false
	for _, s := range all {
		t.row(s.SyncID, s.Channel, stalledWhat(s), stamp(s.Since), s.Record)
		refused = refused || s.Trouble != order.RunFull
	}
	if err := t.flush(); err != nil {
		return err
	}
	if refused {
		fmt.Fprintf(out, "why not stands in a starter's /readyz and log; what is missing in Temporal or Kafka is made by %s; it goes on by itself then\n", a.hint("setup"))
	}
	return nil
}

// stalledWhat says why a record stalls. That of a full run is no fault.
func stalledWhat(s freshness.Stalled) string {
	if s.Trouble == order.RunFull {
		return fmt.Sprintf("its run is full: %d events, %.1f MiB of history; the rest waits in Kafka and goes on by itself", s.HistoryEvents, mebibytes(s.HistoryBytes))
	}
	return troubles[s.Trouble]
}

func mebibytes(bytes int64) float64 { return float64(bytes) / (1 << 20) }
