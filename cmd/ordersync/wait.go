package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ordersync/internal/config"
	"ordersync/internal/operator"
	"ordersync/internal/order"
	"ordersync/internal/pod"
	"ordersync/internal/settle"
)

func (a *app) waitCommand() *cobra.Command {
	var timeout time.Duration
	c := &cobra.Command{
		Use:     "wait",
		GroupID: "events",
		Short:   "Wait until everything published is applied, dead-lettered or behind a blocked order",
		Long: `Reads everything that is in the topics of the channels and of their backfills now and waits until each
of those events is in the ledger of the shop's database, in the dead-letter topic, or behind an order
that is blocked. The events themselves are ticked off, not their number. One that ` + "`ordersync deadletter replay`" + `
has sent again is waited for, unless its value was corrected: ` + "`ordersync order ID`" + ` tells of that.

Then it says what became of them. Events without duplicates (events published before) are the sum of
applied, stale, skipped, dead letters and blocked. The rate is over the events in the ledger, from the
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
	bar := a.newBar("events", -1, false)
	stall := newStall(a, bar)
	summary, err := settle.Wait(waiting, settle.Options{
		Brokers: cfg.Kafka.Brokers, Transport: transport, Topics: cfg.Kafka.Topics, Backfill: backfillsRead(cfg),
		DeadLetterTopic: cfg.Kafka.DeadLetterTopic,
		Target:          shop,
		Blocked:         func(ctx context.Context) (map[string]bool, error) { return operator.Blocked(ctx, temporal) },
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
	} else if summary.BlockedOrders > 0 {
		a.note("%d orders are blocked: %s", summary.BlockedOrders, a.hint("blocked"))
	}
	return errors.Join(err, printed)
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
	if s.Outstanding > 0 {
		t.row("outstanding", s.Outstanding, "")
	}
	t.row("events/s", fmt.Sprintf("%.1f", s.EventsPerSecond), "from the first broker timestamp to the last commit")
	t.row("p50", fmt.Sprintf("%d ms", s.P50), "from broker timestamp to commit")
	t.row("p99", fmt.Sprintf("%d ms", s.P99), "")
	return t.flush()
}
