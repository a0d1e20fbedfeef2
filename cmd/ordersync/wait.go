package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.temporal.io/sdk/client"

	"ordersync/internal/config"
	"ordersync/internal/freshness"
	"ordersync/internal/operator"
	"ordersync/internal/order"
	"ordersync/internal/pod"
	"ordersync/internal/settle"
	"ordersync/internal/target"
	"ordersync/workflows"
)

func (a *app) waitCommand() *cobra.Command {
	var timeout time.Duration
	c := &cobra.Command{
		Use:     "wait",
		GroupID: "events",
		Short:   "Wait until everything published is applied, dead-lettered or will not arrive by itself",
		Long: `Reads everything that is in the topics of the channels and of their backfills now and waits until each
of those events is in the ledger of the shop's database, in the dead-letter topic, or will not arrive by
itself: behind an order that is blocked, held by a run that ended without completing or cannot go on, or of
an order that Temporal does not take. Such orders are listed, and the command exits with 3. What heals by
itself is waited for. The events themselves are ticked off, not their number. One that ` + "`ordersync deadletter replay`" + `
has sent again is waited for, unless its value was corrected: ` + "`ordersync order ID`" + ` tells of that.

Then it says what became of them. Events without duplicates (events published before) are the sum of
applied, stale, skipped, dead letters, blocked and not arriving. The rate is over the events in the ledger, from the
first broker timestamp to the last commit; p50 and p99 are from an event's broker timestamp to its
commit, of events that are no backfill's. A topic keeps what was published before, so on a stack with a
past the rate covers all of it.`,
		Example: `  ordersync load orders.ndjson && ordersync wait
  ordersync wait --timeout 5m -o json`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			if timeout < 0 {
				return fmt.Errorf("--timeout %v: give a duration such as 5m, or 0 for no limit", timeout)
			}
			return a.wait(c.Context(), timeout)
		},
	}
	c.Flags().DurationVar(&timeout, "timeout", time.Hour, "give up after so long; 0 for no limit")
	return a.withOutput(c)
}

// stallTime is after how long without progress a person may wonder.
const stallTime = 30 * time.Second

func (a *app) wait(ctx context.Context, timeout time.Duration) error {
	cfg, temporal, err := a.dial(ctx, kafkaBrokers, mysqlDSN)
	if err != nil {
		return err
	}
	defer temporal.Close()
	shop, err := a.openShop(ctx, cfg)
	if err != nil {
		return err
	}
	defer shop.Close() //nolint:errcheck // it was read only
	transport := pod.KafkaTransport(cfg)
	defer transport.CloseIdleConnections()

	waiting := ctx
	if timeout > 0 {
		var cancel context.CancelFunc
		waiting, cancel = context.WithTimeoutCause(ctx, timeout, errTimeout)
		defer cancel()
	}
	probe := pod.NewProbe(cfg, transport, temporal, shop)
	notTaken := &notTaken{probe: probe, temporal: temporal, seen: map[string]time.Time{}}
	bar := a.newBar("events", -1, false)
	stall := newStall(a, bar)
	summary, err := settle.Wait(waiting, settle.Options{
		Brokers: cfg.Kafka.Brokers, Transport: transport, Topics: cfg.Kafka.Topics, Backfill: backfillsRead(cfg),
		DeadLetterTopic: cfg.Kafka.DeadLetterTopic,
		Target:          shop,
		Blocked:         func(ctx context.Context) (map[string]bool, error) { return operator.Blocked(ctx, temporal) },
		Unwell: func(ctx context.Context, syncIDs []string) (map[string]order.Trouble, error) {
			return unwell(ctx, shop, notTaken, syncIDs)
		},
		Progress: func(p settle.Progress) {
			bar.resize(int64(p.Total))
			switch {
			case p.Reading:
				bar.set(int64(p.Done), fmt.Sprintf("%d read from Kafka", p.Done))
			case p.Blocked > 0:
				bar.set(int64(p.Done), fmt.Sprintf("%d of %d settled, %d of them behind blocked orders", p.Done, p.Total, p.Blocked))
			default:
				bar.set(int64(p.Done), fmt.Sprintf("%d of %d settled", p.Done, p.Total))
			}
			stall.at(p.Done)
		},
	})
	bar.finish()
	givenUp := errors.Is(err, errTimeout) || errors.Is(err, context.Canceled)
	switch {
	case errors.Is(err, settle.ErrReading):
		return fmt.Errorf("%s: Kafka was still being read, nothing is known yet", whyGivenUp(err, timeout))
	case err != nil && !givenUp:
		return err
	}
	printed := a.print(summary, func(out io.Writer) error { return printSummary(out, summary) })
	if err != nil {
		err = a.outstanding(summary, err, timeout)
	} else if summary.BlockedOrders > 0 || summary.Unwell > 0 {
		err = &exitError{exitStuck, a.notArriving(summary)}
	}
	return errors.Join(err, printed)
}

// notArriving says what will not arrive by itself, and what to type.
func (a *app) notArriving(s settle.Summary) error {
	var text strings.Builder
	text.WriteString("not everything arrives by itself:")
	if s.BlockedOrders > 0 {
		fmt.Fprintf(&text, "\n  %d orders are blocked, with %d events", s.BlockedOrders, s.Blocked)
	}
	for i, o := range s.UnwellOrders {
		if i == maxUnwellShown {
			fmt.Fprintf(&text, "\n  … and others, %d events in all", s.Unwell)
			break
		}
		next := a.propose(order.ShowCommand(o.SyncID))
		switch o.Trouble {
		case order.RunFailed, order.RunTimedOut, order.RunTerminated, order.RunCanceled:
			next = a.propose(order.ReplayCommand(o.SyncID))
		}
		fmt.Fprintf(&text, "\n  order %s, %s: %s", o.SyncID, troubles[o.Trouble], next)
	}
	fmt.Fprintf(&text, "\nall of them, and what to do: %s", a.hint("blocked"))
	return errors.New(text.String())
}

// maxUnwellShown is how many orders the error of a wait names.
const maxUnwellShown = 20

// unwell are those of the orders that will not arrive by themselves, beside blocked ones. A run that ended counts as
// long as no other goes on in its place: what that holds arrives.
func unwell(ctx context.Context, shop *target.Target, refused *notTaken, syncIDs []string) (map[string]order.Trouble, error) {
	found, err := refused.among(ctx, syncIDs)
	if err != nil {
		return nil, err
	}
	asking, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	runs, err := shop.Unwell(asking, 0)
	if err != nil {
		return nil, err
	}
	asked := map[string]bool{}
	for _, syncID := range syncIDs {
		asked[syncID] = true
	}
	for _, u := range runs {
		if !asked[u.SyncID] {
			continue
		}
		if u.Trouble != order.TasksFail {
			w, err := operator.Describe(ctx, refused.temporal, u.SyncID)
			if err != nil && !errors.Is(err, operator.ErrNoWorkflow) {
				return nil, err
			}
			if err == nil && w.Running() && w.SyncStatus == "" && !onlyLost(ctx, refused.temporal, u.SyncID) {
				continue
			}
		}
		found[u.SyncID] = u.Trouble
	}
	return found, nil
}

// onlyLost returns whether an order's run has nothing pending: what is outstanding of it was lost with another one.
func onlyLost(ctx context.Context, temporal client.Client, syncID string) bool {
	state, err := operator.State(ctx, temporal, syncID)
	return err == nil && state.Status == workflows.StateIdle && state.PendingCount == 0
}

// notTaken finds the orders that Temporal does not take: those at which a partition has stood still for long, and
// those behind them of which Temporal has nothing.
type notTaken struct {
	probe    *freshness.Probe
	temporal client.Client
	seen     map[string]time.Time // the stalled records, since when
}

// notTakenAfter is for how long a record must have stood still. A server that is away for a while passes.
const notTakenAfter = 45 * time.Second

func (n *notTaken) among(ctx context.Context, syncIDs []string) (map[string]order.Trouble, error) {
	stalled, err := n.probe.Stalled(ctx)
	if err != nil {
		return nil, err
	}
	found, seen := map[string]order.Trouble{}, map[string]time.Time{}
	for _, s := range stalled {
		if s.Trouble != order.NotTaken {
			continue
		}
		seen[s.Record] = time.Now()
		if since, ok := n.seen[s.Record]; ok {
			seen[s.Record] = since
		}
		if time.Since(seen[s.Record]) >= notTakenAfter {
			found[s.SyncID] = order.NotTaken
		}
	}
	n.seen = seen
	if len(found) == 0 {
		return found, nil
	}
	for _, syncID := range syncIDs {
		_, err := operator.Describe(ctx, n.temporal, syncID)
		if errors.Is(err, operator.ErrNoWorkflow) {
			found[syncID] = order.NotTaken
			continue
		}
		if err != nil {
			return nil, err
		}
	}
	return found, nil
}

// backfillsRead are the topics of backfills, unless they are not read: then nothing in them will be settled.
func backfillsRead(cfg config.Config) config.Topics {
	if cfg.BackfillRate == 0 {
		return nil
	}
	return cfg.Kafka.BackfillTopics()
}

var errTimeout = errors.New("the time is up")

func whyGivenUp(err error, timeout time.Duration) string {
	if errors.Is(err, errTimeout) {
		return fmt.Sprintf("not all was settled within %v", timeout)
	}
	return "interrupted"
}

// outstanding is the error of a wait that was given up: what is missing, and where to look.
func (a *app) outstanding(s settle.Summary, err error, timeout time.Duration) error {
	var text strings.Builder
	fmt.Fprintf(&text, "%s: %d events are outstanding", whyGivenUp(err, timeout), s.Outstanding)
	look := ""
	for _, w := range s.Waiting {
		fmt.Fprintf(&text, "\n  %s, partition %d, offset %d: %s", w.Topic, w.Partition, w.Offset, w.Reason)
		if w.SyncID != "" {
			fmt.Fprintf(&text, ", order %s, %s", w.SyncID, w.Kind)
			if look == "" {
				look = w.SyncID
			}
		}
	}
	if s.Outstanding > len(s.Waiting) {
		fmt.Fprintf(&text, "\n  … and %d more", s.Outstanding-len(s.Waiting))
	}
	if look != "" {
		fmt.Fprintf(&text, "\nsee what the first waits for: %s; all that are stuck: %s", a.propose(order.ShowCommand(look)), a.hint("blocked"))
	}
	return errors.New(text.String())
}

// stall says once when nothing has moved for a while.
type stall struct {
	app   *app
	bar   *bar
	done  int
	since time.Time
	said  bool
}

func newStall(a *app, b *bar) *stall { return &stall{app: a, bar: b, done: -1, since: time.Now()} }

func (s *stall) at(done int) {
	if done != s.done {
		s.done, s.since, s.said = done, time.Now(), false
		return
	}
	if !s.said && time.Since(s.since) > stallTime {
		s.said = true
		s.bar.clear()
		s.app.note("nothing has been applied for %v: are a starter and a worker running? what is stuck: %s", stallTime, s.app.hint("blocked"))
	}
}

func printSummary(out io.Writer, s settle.Summary) error {
	t := newTable(out)
	t.row("events", s.Events, "in the topics of the channels and of backfills")
	t.row("duplicates", s.Duplicates, "published before")
	t.row("applied", s.Applied, "")
	t.row("stale", s.Stale, "older than what the order had")
	t.row("skipped", s.Skipped, "given up by an operator")
	t.row("orders", s.Orders, "")
	t.row("invoices", s.Invoices, "applied")
	t.row("dead letters", s.DeadLetters, "")
	behind := ""
	if s.BlockedOrders > 0 {
		behind = fmt.Sprintf("behind %d blocked orders", s.BlockedOrders)
	}
	t.row("blocked", s.Blocked, behind)
	if s.Unwell > 0 {
		t.row("not arriving", s.Unwell, "of runs that ended or cannot go on, or not taken by Temporal")
	}
	if s.Outstanding > 0 {
		t.row("outstanding", s.Outstanding, "")
	}
	t.row("events/s", fmt.Sprintf("%.1f", s.EventsPerSecond), "from the first broker timestamp to the last commit")
	t.row("p50", fmt.Sprintf("%d ms", s.P50), "from broker timestamp to commit")
	t.row("p99", fmt.Sprintf("%d ms", s.P99), "")
	return t.flush()
}
