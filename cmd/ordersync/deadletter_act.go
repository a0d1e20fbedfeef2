package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"ordersync/internal/deadletter"
	"ordersync/internal/intake"
	"ordersync/internal/order"
	"ordersync/internal/pod"
)

// actFlags are those of what is done with letters.
type actFlags struct {
	letterFlags
	all    bool
	dryRun bool
	by     string
	why    string
}

func (f *actFlags) add(c *cobra.Command) {
	f.letterFlags.add(c)
	c.Flags().BoolVar(&f.all, "all", false, "all letters that are open")
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "show what would come of it, and do nothing")
	c.Flags().StringVar(&f.by, "by", "", "who does it, for the audit (default: user@host)")
	c.Flags().StringVar(&f.why, "why", "", "why, for the audit")
}

// who is the person for the audit, whom a dry run does not need.
func (f *actFlags) who(ctx context.Context, a *app) (deadletter.Who, error) {
	who := deadletter.Who{Why: f.why, DryRun: f.dryRun}
	if f.dryRun {
		return who, nil
	}
	var err error
	who.By, err = a.person(ctx, f.by)
	return who, err
}

// filter is what places and flags choose.
func (f *actFlags) filter(places []string, topic string) (deadletter.Filter, error) {
	filter := f.letterFlags.filter()
	for _, text := range places {
		place, err := deadletter.ParsePlace(text, topic)
		if err != nil {
			return filter, err
		}
		filter.Places = append(filter.Places, place)
	}
	return filter, nil
}

// lettersNamed wants places, flags that select letters, or --all.
func lettersNamed(f *actFlags) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		switch {
		case f.all && (len(args) > 0 || f.any()):
			return fmt.Errorf("%s: --all takes all open letters; leave it out to select some", c.CommandPath())
		case !f.all && len(args) == 0 && !f.any():
			return fmt.Errorf("%s needs letters: their places, or --reason, --order, --topic, --since, --until, or --all for all that are open", c.CommandPath())
		}
		return nil
	}
}

func (a *app) deadletterReplayCommand() *cobra.Command {
	var flags actFlags
	var force bool
	var file string
	c := &cobra.Command{
		Use:   "replay (PLACE... | --reason R | --order ID | --topic T | --since T | --all)",
		Short: "Send what dead letters hold on its way again",
		Long: `Sends what dead letters hold to their orders again, by the way the starter goes. An event keeps the
coordinates of its record and so its identity: what was applied already is not applied again. The
letters of an order are sent in the order in which they lie in the topic. Those selected by flags are
sent if they are open; those named, whatever was done with them. It may be interrupted and repeated.

A record that is no event needs a corrected value (--value-file), which takes its place.

What found the queue of its order full (order-blocked, order-backlog) is replayed for the order as a whole:
one such letter takes all open ones of its order along. While the order is still stuck they are refused,
since they would only overflow again.

An event without a version goes by its arrival. It is refused where the order has applied one that
arrived later, since older data would come back. --force sends what is refused for these two reasons.`,
		Example: `  ordersync deadletter replay 0/17
  ordersync deadletter replay 0/17 --value-file mended.json --why 'the ERP sent a broken quote'
  ordersync deadletter replay --order 536365
  ordersync deadletter replay --reason order-blocked --dry-run`,
		Args: lettersNamed(&flags),
		RunE: func(c *cobra.Command, args []string) error {
			return a.replayLetters(c.Context(), args, flags, file, force)
		},
	}
	flags.add(c)
	c.Flags().StringVar(&file, "value-file", "", "the file with the value to send instead, of exactly one letter; - is standard input")
	c.Flags().BoolVar(&force, "force", false, "also while the order is stuck, and what others have overtaken")
	return a.withOutput(c)
}

func (a *app) replayLetters(ctx context.Context, places []string, flags actFlags, file string, force bool) error {
	cfg, temporal, err := a.dial(ctx, kafkaBrokers, mysqlDSN)
	if err != nil {
		return err
	}
	defer temporal.Close()
	filter, err := flags.filter(places, cfg.Kafka.DeadLetterTopic)
	if err != nil {
		return err
	}
	var value []byte
	if file != "" {
		if value, err = a.readValue(file); err != nil {
			return err
		}
	}
	who, err := flags.who(ctx, a)
	if err != nil {
		return err
	}
	topic, end, err := a.deadLetters(ctx, cfg)
	if err != nil {
		return err
	}
	defer end()

	bar := a.newBar("letters", -1, false)
	result, err := deadletter.Replay{
		Topic: topic, Channels: cfg.Kafka.AllTopics(), Temporal: temporal,
		Sender: intake.NewSender(temporal, cfg.Temporal.TaskQueue, pod.Settings(cfg)),
		Who:    who, Force: force, Value: value,
		Progress: func(done, total int64) {
			bar.resize(total)
			bar.set(done, fmt.Sprintf("%d of %d replayed", done, total))
		},
	}.Run(ctx, filter)
	bar.finish()
	return a.report(result, err, "replay")
}

// readValue reads a corrected value.
func (a *app) readValue(file string) ([]byte, error) {
	in, _, err := a.open(file)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	value, err := io.ReadAll(io.LimitReader(in, order.MaxValue+1))
	switch {
	case err != nil:
		return nil, err
	case len(value) > order.MaxValue:
		return nil, fmt.Errorf("%s has more than %d bytes, which no event may have", file, order.MaxValue)
	case len(bytes.TrimSpace(value)) == 0:
		return nil, fmt.Errorf("%s is empty; it should hold the event, as in: %s", file, a.hint("deadletter show PLACE -o json | jq -r .value_text"))
	}
	return value, nil
}

func (a *app) deadletterDiscardCommand() *cobra.Command {
	var flags actFlags
	var yes bool
	c := &cobra.Command{
		Use:   "discard (PLACE... | --reason R | --order ID | --topic T | --since T | --all)",
		Short: "Note that nobody will replay dead letters",
		Long: `Marks dead letters as dealt with, so that they are listed with --all only. Nothing is deleted; a
discarded letter may still be replayed by its place.

Without places it shows what it would discard and asks; where there is no terminal it does nothing, unless
--yes is given.`,
		Example: `  ordersync deadletter discard 0/17 --why 'the order was cancelled'
  ordersync deadletter discard --reason null-value --dry-run`,
		Args: lettersNamed(&flags),
		RunE: func(c *cobra.Command, args []string) error { return a.discardLetters(c.Context(), args, flags, yes) },
	}
	flags.add(c)
	c.Flags().BoolVar(&yes, "yes", false, "do not ask, whatever is selected")
	return a.withOutput(c)
}

func (a *app) discardLetters(ctx context.Context, places []string, flags actFlags, yes bool) error {
	who, err := flags.who(ctx, a)
	if err != nil {
		return err
	}
	topic, end, err := a.configuredLetters(ctx)
	if err != nil {
		return err
	}
	defer end()
	filter, err := flags.filter(places, topic.Name)
	if err != nil {
		return err
	}
	if len(places) == 0 && !yes && !flags.dryRun {
		if filter, err = a.confirmDiscard(ctx, topic, filter); err != nil {
			return err
		}
	}
	bar := a.newBar("letters", -1, false)
	result, err := topic.Discard(ctx, filter, who, func(done, total int64) {
		bar.resize(total)
		bar.set(done, fmt.Sprintf("%d of %d discarded", done, total))
	})
	bar.finish()
	return a.report(result, err, "discard")
}

// confirmDiscard shows which letters would be discarded and asks, where there is somebody to ask. Letters that
// are written meanwhile are left out of the filter that it returns.
func (a *app) confirmDiscard(ctx context.Context, topic deadletter.Topic, filter deadletter.Filter) (deadletter.Filter, error) {
	letters, err := topic.List(ctx, filter, nil)
	if err != nil {
		return filter, err
	}
	letters = slices.DeleteFunc(letters, func(l deadletter.Letter) bool { return l.State != deadletter.Open })
	if len(letters) == 0 {
		return filter.UpTo(nil), nil // which is then said; one that comes now was not shown
	}
	const examples = 20
	view := letterList{Counts: countLetters(letters), Letters: []letterView{}}
	for _, l := range letters {
		if len(view.Letters) < examples {
			view.Letters = append(view.Letters, viewLetter(l))
		}
	}
	view.More = len(letters) > len(view.Letters)
	filter = filter.UpTo(letters)
	var hits strings.Builder
	if err := a.printLetters(&hits, view); err != nil {
		return filter, err
	}
	if !a.interactive() {
		return filter, fmt.Errorf("%s\nwithout a terminal to ask, discard takes letters by their places, or --yes for all that are selected", hits.String())
	}
	a.note("%s", hits.String())
	return filter, a.confirm(ctx, fmt.Sprintf("discard %d letters?", len(letters)))
}

// report prints what came of a replay or a discard, and makes an error of what was left undone.
func (a *app) report(r deadletter.Result, err error, what string) error {
	interrupted := errors.Is(err, context.Canceled)
	if err != nil && !interrupted {
		return err
	}
	printed := a.print(r, func(out io.Writer) error { return printResult(out, r, what) })
	switch {
	case interrupted:
		err = fmt.Errorf("interrupted; %s the same letters again: nothing happens twice", what)
	case r.Refused+r.Failed > len(r.Refusals):
		err = fmt.Errorf("%d letters were left as they are; the first %d are told with the reason", r.Refused+r.Failed, len(r.Refusals))
	case r.Refused+r.Failed > 0:
		err = fmt.Errorf("%d letters were left as they are; each is told with the reason", r.Refused+r.Failed)
	}
	return errors.Join(err, printed)
}

func printResult(out io.Writer, r deadletter.Result, what string) error {
	if r.Letters == 0 {
		_, err := fmt.Fprintln(out, "no open dead letter is selected; nothing was done")
		return err
	}
	if r.Added > 0 {
		fmt.Fprintf(out, "what overflowed behind an order is replayed as a whole: %d more letters of %d orders (%s)\n", r.Added, len(r.Whole), shortened(strings.Join(r.Whole, ", "), 80))
	}
	var parts []string
	for _, part := range []struct {
		n    int
		text string
	}{
		{r.Sent, fmt.Sprintf("sent to %d orders", r.Orders)}, {r.InLedger, "applied already"}, {r.Discarded, "discarded"},
		{r.Settled, "discarded before"}, {r.Refused, "refused"}, {r.Failed, "failed"},
	} {
		if part.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", part.n, part.text))
		}
	}
	would := ""
	if r.DryRun {
		would = ", if it were done"
	}
	fmt.Fprintf(out, "%s of %d letters%s: %s\n", what, r.Letters, would, strings.Join(parts, ", "))
	for _, l := range r.Refusals {
		fmt.Fprintf(out, "  %s: %s\n", l.Place, oneLine(l.Why))
	}
	return nil
}
