package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ordersync/internal/freshness"
	"ordersync/internal/order"
	"ordersync/internal/pod"
)

func (a *app) statusCommand() *cobra.Command {
	var watch bool
	c := &cobra.Command{
		Use:     "status",
		GroupID: "operate",
		Short:   "Show how far the shop's database is behind the ERP, and where events wait",
		Long: `Shows for each channel how old the oldest event is that the shop's database lacks, by the ERP's time,
where it waits, and for how long at least: in Kafka (for a starter), in Temporal's task queue (for a
worker), in its order (which is retrying or blocked, or whose run failed or cannot go on), or perhaps in
the ERP (if the poll is late). Kafka's lag alone reads zero as soon as Temporal has an event.

Below it stand the runs that failed, were ended or cannot go on while events of theirs are missing, and the
records that the starters do not get past; see ` + "`ordersync blocked`" + `.

LAG counts records that no starter has finished, RETRYING and BLOCKED orders. EVENTS/S, P50 and P99 are of
the events that the ledger got in the last minute; the latter from broker timestamp to commit. Not
seen is an event that is being applied, or held for its order's creation (HOLD_WINDOW at most). How many
events wait within orders is not counted; tasks that wait for a worker are. Backfills are shown apart and
count for no age. What could not be looked up is a question mark, and the command fails.`,
		Example: `  ordersync status
  ordersync status --watch
  ordersync status -o json | jq '.channels[] | {channel, age_seconds, lag}'`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error { return a.status(c.Context(), watch) },
	}
	c.Flags().BoolVar(&watch, "watch", false, "look again every two seconds until Ctrl-C")
	return a.withOutput(c)
}

func (a *app) status(ctx context.Context, watch bool) error {
	l, err := a.look(ctx)
	if err != nil {
		return err
	}
	defer l.close()
	if l.temporal == nil {
		return errors.New(strings.Join(l.problems, "\n")) // without it there is nothing to show but a lag
	}
	cfg := l.cfg
	transport := pod.KafkaTransport(cfg)
	defer transport.CloseIdleConnections()
	probe := pod.NewProbe(cfg, transport, l.temporal, l.shop)

	lines := watch && !terminal(a.stdout)
	return a.show(ctx, watch, func(ctx context.Context) (func() error, error) {
		s, problem := probe.Look(ctx)
		return func() error {
			err := a.print(s, func(out io.Writer) error {
				if lines {
					return printStatusLines(out, s)
				}
				return a.printStatus(out, s, cfg.Kafka.DeadLetterTopic)
			})
			if problem != nil && !watch { // what comes back is seen by who watches
				err = errors.Join(err, errors.New("not everything could be looked up; the problems are told above"))
			}
			return err
		}, nil
	})
}

func (a *app) printStatus(out io.Writer, s freshness.Status, deadLetters string) error {
	t := newTable(out)
	t.row("CHANNEL", "OLDEST", "WAITS IN", "FOR", "LAG", "RETRYING", "BLOCKED", "EVENTS/S", "P50", "P99")
	for _, c := range s.Channels {
		t.row(c.Channel, age(c), waitsIn(c.Oldest), waitsFor(c.Oldest, s.At), known(c.Lag), known(c.Retrying), known(c.Blocked), rate(c.EventsPerSecond), quantile(c.P50), quantile(c.P99))
	}
	if err := t.flush(); err != nil {
		return err
	}
	fmt.Fprintln(out)
	t = newTable(out)
	if q := s.TaskQueue; q == nil {
		t.row("workers", "?")
	} else {
		waiting := "no task waits"
		if q.Tasks > 0 || q.OldestSeconds > 0 {
			waiting = fmt.Sprintf("about %d tasks wait, the first for %s", q.Tasks, spell(q.OldestSeconds))
		}
		t.row("workers", fmt.Sprintf("%d on task queue %s; %s", q.Pollers, q.Name, waiting))
	}
	if p := s.Poll; p != nil {
		t.row("poll", pollLine(*p, s.At))
	}
	for _, b := range s.Backfills {
		if b.Lag > 0 {
			t.row("backfill", fmt.Sprintf("%s: %d records to be read, %s events/s", b.Channel, b.Lag, rate(b.EventsPerSecond)))
		}
	}
	for _, u := range s.Unwell {
		t.row("not well", fmt.Sprintf("%d orders of %s: %s, the first since %s", u.Count, u.Channel, troubles[u.Trouble], stamp(u.Oldest)))
	}
	for _, one := range s.Stalled {
		what := "record"
		if one.SyncID != "" {
			what = "order " + one.SyncID
		}
		t.row("stalled", fmt.Sprintf("%s, %s: %s", one.Record, what, stalledWhat(one)))
	}
	t.row("dead letters", fmt.Sprintf("%s in %s, whatever was done with them", known(s.DeadLetters), deadLetters))
	if err := t.flush(); err != nil {
		return err
	}
	for _, problem := range s.Problems {
		fmt.Fprintf(out, "\nnot known: %s\n", oneLine(problem))
	}
	return a.printNext(out, s)
}

// printNext says what to type next, if anything waits for somebody.
func (a *app) printNext(out io.Writer, s freshness.Status) error {
	var next []string
	stuck := false
	for _, c := range s.Channels {
		stuck = stuck || positive(c.Blocked) || positive(c.Retrying)
	}
	for _, c := range s.Channels {
		if c.Oldest != nil && (c.Oldest.Where == freshness.InOrder || c.Oldest.Where == freshness.InRun) {
			next = append(next, fmt.Sprintf("what the oldest of %s waits for: %s", c.Channel, a.propose(order.ShowCommand(c.Oldest.SyncID))))
		}
	}
	stalled := slices.ContainsFunc(s.Stalled, func(one freshness.Stalled) bool { return one.Trouble != order.RunFull })
	if stuck || stalled || len(s.Unwell) > 0 {
		next = append(next, "all that are stuck: "+a.hint("blocked"))
	}
	if s.TaskQueue != nil && s.TaskQueue.Pollers == 0 {
		next = append(next, "no worker polls the task queue: is one running?")
	}
	if p := s.Poll; p != nil && (p.Paused || p.Late || p.Error != "") {
		next = append(next, "what the schedules do: "+a.hint("schedule list"))
		if p.Paused {
			next = append(next, "poll the ERP again: "+a.hint("schedule resume"))
		}
	}
	if positive(s.DeadLetters) {
		next = append(next, "what lies in the dead-letter topic: "+a.hint("deadletter list"))
	}
	if len(next) == 0 {
		return nil
	}
	_, err := fmt.Fprintf(out, "\n%s\n", strings.Join(next, "\n"))
	return err
}

// printStatusLines is for a log: a line for each channel.
func printStatusLines(out io.Writer, s freshness.Status) error {
	for _, c := range s.Channels {
		waits := ""
		if c.Oldest != nil {
			waits = fmt.Sprintf(" in %s for %s", waitsIn(c.Oldest), waitsFor(c.Oldest, s.At))
		}
		if _, err := fmt.Fprintf(out, "%s %s oldest %s%s lag %s retrying %s blocked %s events/s %s\n",
			stamp(s.At), c.Channel, age(c), waits, known(c.Lag), known(c.Retrying), known(c.Blocked), rate(c.EventsPerSecond)); err != nil {
			return err
		}
	}
	for _, problem := range s.Problems {
		if _, err := fmt.Fprintf(out, "%s not known: %s\n", stamp(s.At), oneLine(problem)); err != nil {
			return err
		}
	}
	return nil
}

func pollLine(p freshness.Poll, now time.Time) string {
	line := "has not come through yet"
	switch {
	case p.ReadUntil.IsZero() && p.Late:
		line = fmt.Sprintf("none that Temporal still knows has come through; the last began %s ago, at %s", spell(now.Sub(p.BegunAt).Seconds()), stamp(p.BegunAt))
	case !p.ReadUntil.IsZero():
		line = fmt.Sprintf("the ERP was read to its end %s ago, at %s", spell(now.Sub(p.ReadUntil).Seconds()), stamp(p.ReadUntil))
	}
	if p.Late {
		line += ", which is late"
	}
	if u := p.UnderWay; u != nil && u.Rows > 0 {
		line += fmt.Sprintf("; one is under way since %s, with %d rows read, %d published", stamp(u.StartedAt), u.Rows, u.Published)
		if !u.ChangedUntil.IsZero() {
			line += ", changes up to " + stamp(u.ChangedUntil)
		}
	}
	if p.Paused {
		line += "; the schedule is paused"
	}
	if p.Error != "" {
		line += fmt.Sprintf("; attempt %d is under way: %s", p.Attempt, shortened(p.Error, 200))
	}
	return line
}

func waitsIn(o *freshness.Oldest) string {
	switch {
	case o == nil:
		return ""
	case o.Where == freshness.InKafka:
		return "Kafka, " + o.Record
	case o.Where == freshness.InOrder:
		if o.Paused {
			return "order " + o.SyncID + ", " + o.Stuck + " but paused"
		}
		return "order " + o.SyncID + ", " + o.Stuck
	case o.Where == freshness.InRun:
		return "order " + o.SyncID + ", " + troubles[order.Trouble(o.Stuck)]
	case o.Where == freshness.InTaskQueue:
		return "the task queue"
	default:
		return "the ERP, perhaps"
	}
}

// waitsFor is for how long at least.
func waitsFor(o *freshness.Oldest, now time.Time) string {
	if o == nil {
		return ""
	}
	return spell(max(0, now.Sub(o.Since).Seconds()))
}

// unknown stands for what could not be looked up.
const unknown = "?"

func known(n *int64) string {
	if n == nil {
		return unknown
	}
	return fmt.Sprint(*n)
}

func positive(n *int64) bool { return n != nil && *n > 0 }

func age(c freshness.Channel) string {
	if c.AgeSeconds == nil {
		return unknown
	}
	return spell(*c.AgeSeconds)
}

func rate(perSecond *float64) string {
	if perSecond == nil {
		return unknown
	}
	return fmt.Sprintf("%.1f", *perSecond)
}

func quantile(ms *int64) string {
	if ms == nil {
		return ""
	}
	return latency(time.Duration(*ms) * time.Millisecond)
}

// spell is a number of seconds for people.
func spell(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second)).Round(time.Second)
	if d < 48*time.Hour {
		return d.String()
	}
	return fmt.Sprintf("%dd%dh", d/(24*time.Hour), d%(24*time.Hour)/time.Hour)
}
