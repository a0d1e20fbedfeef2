package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"go.temporal.io/sdk/client"

	"ordersync/internal/config"
	"ordersync/internal/operator"
	"ordersync/internal/order"
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

// selection is what the flags choose at now.
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
		Short:   "List the orders that are stuck: blocked until somebody acts, or retrying",
		Long: `Counts and lists the orders that are stuck, longest first, by Temporal's search attributes: the blocked
ones wait for somebody, the retrying ones heal by themselves once their cause is gone. The same list
in the Web UI:

  ` + operator.StuckQuery + `

What each order is stuck on its worker tells.`,
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

func (a *app) blocked(ctx context.Context, flags selectFlags, limit int, watch bool) error {
	cfg, temporal, err := a.dial(ctx)
	if err != nil {
		return err
	}
	defer temporal.Close()
	return a.show(ctx, watch, func(ctx context.Context) (func() error, error) {
		survey, err := a.survey(ctx, cfg, temporal, flags, limit)
		return func() error {
			return a.print(survey, func(out io.Writer) error { return a.printStuck(out, survey) })
		}, err
	})
}

func (a *app) survey(ctx context.Context, cfg config.Config, temporal client.Client, flags selectFlags, limit int) (operator.Survey, error) {
	now := time.Now()
	selection, err := flags.selection(cfg, "", now)
	if err != nil {
		return operator.Survey{}, err
	}
	survey, err := operator.Look(ctx, temporal, selection, limit, now)
	if err != nil {
		return survey, err
	}
	err = operator.Detail(ctx, temporal, survey.Orders)
	if errors.Is(err, operator.ErrNoWorker) {
		a.note("what they are stuck on is not known: %v", err)
		err = nil
	}
	return survey, err
}

func printGroups(out io.Writer, s operator.Survey) error {
	t := newTable(out)
	t.row("ORDERS", "STATUS", "REASON", "CHANNEL", "SINCE", "< 1 MIN", "< 1 H", "< 1 DAY", "LONGER")
	for _, g := range s.Groups {
		t.row(g.Count, g.Status, g.Reason, g.Channel, stamp(g.Oldest), g.Ages[0], g.Ages[1], g.Ages[2], g.Ages[3])
	}
	return t.flush()
}

func (a *app) printStuck(out io.Writer, s operator.Survey) error {
	if s.Total == 0 {
		_, err := fmt.Fprintln(out, "no order is stuck")
		return err
	}
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
			on, pending = eventName(o.Step.Kind, o.Step.Version), strconv.Itoa(o.Pending)
		}
		t.row(o.SyncID, o.Channel, o.Status, o.Reason, since, on, pending)
	}
	if err := t.flush(); err != nil {
		return err
	}
	if s.More {
		fmt.Fprintf(out, "… and %d more: raise --limit, or look in the Web UI for %s\n", s.Total-len(s.Orders), operator.StuckQuery)
	}
	_, err := fmt.Fprintf(out, "\nwhat one waits for, and what to do: %s\n", a.propose(order.ShowCommand(s.Orders[0].SyncID)))
	return err
}
