package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.temporal.io/sdk/client"

	"ordersync/internal/operator"
	"ordersync/internal/order"
	"ordersync/workflows"
)

// bulkFlags choose the orders of a signal to many, and its pace.
type bulkFlags struct {
	selectFlags
	all         bool
	dryRun      bool
	rate        string
	stuckBefore moment
}

func (f *bulkFlags) add(c *cobra.Command) {
	f.selectFlags.add(c)
	c.Flags().BoolVar(&f.all, "all", false, "all stuck orders")
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "show which orders would be hit, and do nothing")
	c.Flags().Var(&f.stuckBefore, "stuck-before", "only what got stuck until then, such as 2006-01-02T15:04:05Z: a repeat hits nothing later")
	c.Flags().StringVar(&f.rate, "rate", "", "signals a second at most, such as 50/s (default: the server's)")
}

func (f *bulkFlags) any() bool {
	return f.all || f.selectFlags.any() || !f.stuckBefore.IsZero()
}

// command is the one that hits what was selected, and nothing that gets stuck later. It says when that is,
// so it needs no --older-than.
func (f *bulkFlags) command(signal string, s operator.Selection) order.Command {
	c := order.Command{signal}
	for _, flag := range [][2]string{{"--error", f.reason}, {"--channel", f.channel}, {"--rate", f.rate}} {
		if flag[1] != "" {
			c = append(c, flag[0], flag[1])
		}
	}
	return append(c, "--stuck-before", s.StuckBefore.UTC().Format(time.RFC3339Nano))
}

// oneOrMany wants an order's id or flags that select orders, and not both.
func oneOrMany(f *bulkFlags) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		switch {
		case len(args) > 1:
			return oneArgument("a sync_id")(c, args)
		case len(args) == 1 && (f.any() || f.dryRun || f.rate != ""):
			return fmt.Errorf("%s takes a sync_id or flags that select many orders, not both; see %s --help", c.CommandPath(), c.CommandPath())
		case len(args) == 0 && !f.any():
			return fmt.Errorf("%s needs a sync_id, or --all, --error, --channel, --older-than or --stuck-before to select many; see %s --help", c.CommandPath(), c.CommandPath())
		case !f.stuckBefore.IsZero() && f.all:
			return errors.New("--stuck-before selects all that got stuck until then: leave --all out")
		case len(args) == 0 && c.Flags().Changed("event-id"):
			return errors.New("--event-id is for a single order")
		}
		return nil
	}
}

// perSecond reads a rate such as 50/s; 0 for none.
func perSecond(rate string) (float32, error) {
	if rate == "" {
		return 0, nil
	}
	n, err := strconv.ParseFloat(strings.TrimSuffix(rate, "/s"), 32)
	if err != nil || n <= 0 {
		return 0, fmt.Errorf("--rate %q: give signals a second, such as 50/s", rate)
	}
	return float32(n), nil
}

// bulkView is what came of a signal to many orders.
type bulkView struct {
	Query  string `json:"query"`
	DryRun bool   `json:"dry_run"`
	// Survey is what the query found before.
	Survey operator.Survey `json:"selected"`
	// Command does the same to the same orders, and nothing to what gets stuck later.
	Command string `json:"command"`
	// Progress is null for a dry run.
	Progress *operator.Progress `json:"progress"`
	// StillStuck of the selected orders have not got going.
	StillStuck int64 `json:"still_stuck"`
}

// bulk sends a signal to every order that the flags select, and waits for them to get going. It is about
// what they are stuck on now, by the server's clock: the input of a batch operation can name no event.
func (a *app) bulk(ctx context.Context, f signalFlags, many bulkFlags, signal, status string, input func(by string, p operator.Pin) any) error {
	rate, err := perSecond(many.rate)
	if err != nil {
		return err
	}
	cfg, temporal, err := a.dial(ctx)
	if err != nil {
		return err
	}
	defer temporal.Close()

	by := ""
	if !many.dryRun {
		if by, err = a.person(ctx, f.by); err != nil {
			return err
		}
	}
	now, err := operator.ServerNow(ctx, temporal, cfg.Temporal.Client.Namespace, cfg.Temporal.TaskQueue)
	if err != nil {
		return err
	}
	if now.IsZero() { // no worker polls, and none will act on it soon
		now = time.Now()
	}
	selection, err := many.selection(cfg, status, now)
	if err != nil {
		return err
	}
	if at := many.stuckBefore.Time; !at.IsZero() && (selection.StuckBefore.IsZero() || at.Before(selection.StuckBefore)) {
		selection.StuckBefore = at
	}
	const examples = 20
	view := bulkView{DryRun: many.dryRun}
	if view.Survey, err = operator.Look(ctx, temporal, selection, examples, now); err != nil {
		return err
	}
	selection = selection.Pinned(view.Survey)
	view.Query = selection.Query()
	view.Command = a.propose(many.command(signal, selection))
	if many.dryRun || view.Survey.Total == 0 {
		return a.print(view, func(out io.Writer) error { return printSelected(out, signal, view) })
	}
	if signal == workflows.SignalSkip && !f.yes && many.stuckBefore.IsZero() {
		if err := a.confirmBulk(ctx, signal, view); err != nil {
			return err
		}
	}
	namespace := cfg.Temporal.Client.Namespace
	job, err := operator.Bulk{
		Selection: selection, Signal: signal, Input: input(by, operator.Pin{StuckBefore: selection.StuckBefore}), By: by, Reason: f.reason, Rate: rate,
	}.Start(ctx, temporal, namespace)
	if err != nil {
		return err
	}
	b := a.newBar(signal, int64(view.Survey.Total), false)
	progress, err := operator.Follow(ctx, temporal, namespace, job, func(p operator.Progress) {
		b.set(p.Sent+p.Failed, fmt.Sprintf("%d of %d orders", p.Sent+p.Failed, max(p.Total, int64(view.Survey.Total))))
	})
	b.finish()
	if ctx.Err() != nil {
		return fmt.Errorf("interrupted; Temporal goes on with it: temporal batch describe --job-id %s", job)
	}
	if err != nil {
		return err
	}
	view.Progress = &progress
	if view.StillStuck, err = stillStuck(ctx, temporal, selection); err != nil {
		return err
	}
	if err := a.print(view, func(out io.Writer) error {
		_, err := fmt.Fprintf(out, "%s sent to %d orders, %d failed; %d of them are still stuck\n", signal, progress.Sent, progress.Failed, view.StillStuck)
		return err
	}); err != nil {
		return err
	}
	if progress.Failed > 0 || view.StillStuck > 0 {
		return fmt.Errorf("not all orders got going; see %s", a.hint("blocked"))
	}
	return nil
}

// stillStuck is how many orders of the selection remain, once their number has not fallen for a
// while: orders take a moment to get going, and the visibility store another to know.
func stillStuck(ctx context.Context, temporal client.Client, selection operator.Selection) (int64, error) {
	const every, patience = 250 * time.Millisecond, 20
	last, unchanged := int64(-1), 0
	for {
		n, err := selection.Count(ctx, temporal)
		if err != nil || n == 0 {
			return n, err
		}
		if unchanged++; n != last {
			last, unchanged = n, 0
		}
		if unchanged == patience {
			return n, nil
		}
		select {
		case <-ctx.Done():
			return n, ctx.Err()
		case <-time.After(every):
		}
	}
}

// confirmBulk shows what a signal would hit and asks, where there is somebody to ask.
func (a *app) confirmBulk(ctx context.Context, signal string, v bulkView) error {
	var hits strings.Builder
	if err := printHits(&hits, signal, v); err != nil {
		return err
	}
	if !a.interactive() {
		return fmt.Errorf("%s\nwithout a terminal to ask, this does it to these orders: %s\nor --yes, to whatever is selected by then", hits.String(), v.Command)
	}
	a.note("%s", hits.String())
	return a.confirm(ctx, fmt.Sprintf("give up the events of %d orders, for good?", v.Survey.Total))
}

func printSelected(out io.Writer, signal string, v bulkView) error {
	if v.Survey.Total == 0 {
		_, err := fmt.Fprintln(out, "no stuck order is selected; nothing was done")
		return err
	}
	if err := printHits(out, signal, v); err != nil {
		return err
	}
	_, err := fmt.Fprintf(out, "\nthis does it, to what is stuck now and to nothing that gets stuck later: %s\n", v.Command)
	return err
}

func printHits(out io.Writer, signal string, v bulkView) error {
	fmt.Fprintf(out, "%s would hit %d orders:\n\n", signal, v.Survey.Total)
	if err := printGroups(out, v.Survey); err != nil {
		return err
	}
	fmt.Fprintln(out, "\nthe longest stuck ones:")
	for _, o := range v.Survey.Orders {
		fmt.Fprintf(out, "  %s\n", o.SyncID)
	}
	return nil
}
