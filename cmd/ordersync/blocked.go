package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"ordersync/internal/operator"
	"ordersync/internal/pod"
)

func (a *app) blockedCommand() *cobra.Command {
	var limit int
	c := &cobra.Command{
		Use:     "blocked",
		GroupID: "operate",
		Short:   "List the orders that are stuck: blocked until somebody acts, or retrying",
		Long: `Lists the orders that are stuck, by Temporal's search attributes: the blocked ones wait for somebody,
the retrying ones heal by themselves once their cause is gone. The same list in the Web UI:

  ` + operator.StuckQuery + `

What an order is stuck on and since when its worker tells.`,
		Example: `  ordersync blocked
  ordersync blocked --limit 1000 -o json | jq -r '.orders[].sync_id' | xargs -n 1 ordersync retry`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			if limit < 1 || limit > maxStuck {
				return fmt.Errorf("--limit %d: give a number from 1 to %d", limit, maxStuck)
			}
			return a.blocked(c.Context(), limit)
		},
	}
	c.Flags().IntVar(&limit, "limit", 100, "list so many orders at most")
	return a.withOutput(c)
}

// maxStuck is the most orders that are listed, and asked one by one.
const maxStuck = 10_000

// stuckView is the list of stuck orders.
type stuckView struct {
	Orders []operator.StuckOrder `json:"orders"`
	// More tells that there are further ones.
	More bool `json:"more"`
}

func (a *app) blocked(ctx context.Context, limit int) error {
	cfg, err := a.config(ctx, temporalAddress)
	if err != nil {
		return err
	}
	temporal, err := pod.DialTemporal(ctx, cfg, a.warnings())
	if err != nil {
		return err
	}
	defer temporal.Close()
	orders, more, err := operator.Stuck(ctx, temporal, limit)
	if err != nil {
		return err
	}
	if err := operator.Detail(ctx, temporal, orders); errors.Is(err, operator.ErrNoWorker) {
		a.note("since when is not known: %v", err)
	} else if err != nil {
		return err
	}
	view := stuckView{Orders: append([]operator.StuckOrder{}, orders...), More: more}
	return a.print(view, func(out io.Writer) error { return a.printStuck(out, view) })
}

func (a *app) printStuck(out io.Writer, v stuckView) error {
	if len(v.Orders) == 0 {
		_, err := fmt.Fprintln(out, "no order is stuck")
		return err
	}
	t := newTable(out)
	t.row("ORDER", "CHANNEL", "STATUS", "REASON", "SINCE", "ON", "PENDING")
	for _, o := range v.Orders {
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
	if v.More {
		fmt.Fprintf(out, "… and more: raise --limit, or look in the Web UI for %s\n", operator.StuckQuery)
	}
	_, err := fmt.Fprintf(out, "\nwhat one waits for, and what to do: %s\n", a.hint("order "+v.Orders[0].SyncID))
	return err
}
