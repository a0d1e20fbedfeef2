package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"ordersync/internal/operator"
	"ordersync/internal/order"
	"ordersync/workflows"
)

// signalFlags are those that every operator signal takes.
type signalFlags struct {
	eventID, reason, by string
	yes                 bool
}

func (f *signalFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.eventID, "event-id", "", fmt.Sprintf("only if the order is stuck on this event: its id, or the first %d digits of it", order.ShortID))
	c.Flags().StringVar(&f.reason, "reason", "", "why, for those who look at the order later")
	c.Flags().StringVar(&f.by, "by", "", "who does it, for the audit (default: user@host)")
}

// addYes is for what cannot be undone.
func (f *signalFlags) addYes(c *cobra.Command) {
	c.Flags().BoolVar(&f.yes, "yes", false, "do not ask, whatever it hits")
}

func (a *app) retryCommand() *cobra.Command {
	var f signalFlags
	var many bulkFlags
	c := &cobra.Command{
		Use:     "retry (ID | --all | --error TYPE | --channel CHANNEL | --older-than D)",
		GroupID: "operate",
		Short:   "Try the event an order is stuck on again, at once; or those of many orders",
		Long: `Tries the event an order is stuck on again, at once: after the shop's database was mended, or to
hurry a retry. If the order is not stuck, nothing happens and the command fails. It hits the event that the order is
stuck on as the command begins, and never the next one.

Without an ID, all stuck orders that the flags select are tried, as a batch operation of Temporal: it
goes on if this command is interrupted. It may be repeated.`,
		Example: `  ordersync retry 536365
  ordersync retry 536365 --reason 'constraint dropped'
  ordersync retry --error CheckViolated --dry-run
  ordersync retry --all --rate 50/s --reason 'constraint dropped'`,
		Args: oneOrMany(&many),
		RunE: func(c *cobra.Command, args []string) error {
			input := func(by string, p operator.Pin) any {
				return workflows.Retry{EventID: p.EventID, StuckBefore: p.StuckBefore, Reason: f.reason, By: by}
			}
			if len(args) == 1 {
				return a.act(c.Context(), args[0], workflows.SignalRetry, f, input)
			}
			return a.bulk(c.Context(), f, many, workflows.SignalRetry, "", input)
		},
	}
	f.add(c)
	many.add(c)
	return a.withOutput(c)
}

func (a *app) skipCommand() *cobra.Command {
	var f signalFlags
	var many bulkFlags
	c := &cobra.Command{
		Use:     "skip (ID | --all | --error TYPE | --channel CHANNEL | --older-than D)",
		GroupID: "operate",
		Short:   "Give up the event an order is stuck on, for good; or those of many orders",
		Long: `Gives up the event an order is stuck on and goes on with the next. The event stands in the ledger as
skipped, which is final: to undo it, publish the event again under a new event_id.

With --event-id it hits that event or nothing, and may be repeated. Without it the command shows what it
would hit and asks; where there is no terminal it does nothing, unless --yes is given.

Without an ID, the event of every blocked order that the flags select is given up, as a batch operation
of Temporal: it goes on if this command is interrupted. Orders that are retrying are left to heal.
Each order loses the event it is stuck on now; if its next one gets stuck as well, that is another
skip. --stuck-before keeps a command that is repeated from those; --dry-run prints it.`,
		Example: `  ordersync skip 536365 --reason 'cancelled by the customer'
  ordersync skip --event-id 13a01de0 --reason 'cancelled by the customer' 536365
  ordersync skip --error CheckViolated --channel store --older-than 1h --dry-run`,
		Args: oneOrMany(&many),
		RunE: func(c *cobra.Command, args []string) error {
			input := func(by string, p operator.Pin) any {
				return workflows.Skip{EventID: p.EventID, StuckBefore: p.StuckBefore, Reason: f.reason, By: by}
			}
			if len(args) == 1 {
				return a.act(c.Context(), args[0], workflows.SignalSkip, f, input)
			}
			return a.bulk(c.Context(), f, many, workflows.SignalSkip, workflows.StatusBlocked, input)
		},
	}
	f.add(c)
	f.addYes(c)
	many.add(c)
	return a.withOutput(c)
}

func (a *app) amendCommand() *cobra.Command {
	var f signalFlags
	var data, file string
	c := &cobra.Command{
		Use:     "amend ID (--data JSON | --data-file FILE)",
		GroupID: "operate",
		Short:   "Replace the data of the event an order is stuck on, and try it",
		Long: `Replaces the data of the event an order is stuck on, all of it, and tries the event with that. Its
kind, version and identity stay.

With --event-id it hits that event or nothing, and may be repeated. Without it the command shows what it
would hit and asks; where there is no terminal it does nothing, unless --yes is given.`,
		Example: `  ordersync amend 536365 --data '{"total":139.12}'
  ordersync amend --event-id 13a01de0 --data-file mended.json --reason 'negative total' 536365
  jq .data event.json | ordersync amend --event-id 13a01de0 --data-file - 536365`,
		Args: oneArgument("a sync_id"),
		RunE: func(c *cobra.Command, args []string) error {
			raw, err := a.amendment(c, data, file)
			if err != nil {
				return err
			}
			return a.act(c.Context(), args[0], workflows.SignalAmend, f, func(by string, p operator.Pin) any {
				return workflows.Amend{EventID: p.EventID, StuckBefore: p.StuckBefore, Reason: f.reason, By: by, Data: raw}
			})
		},
	}
	f.add(c)
	f.addYes(c)
	c.Flags().StringVar(&data, "data", "", "the new data, a JSON value")
	c.Flags().StringVar(&file, "data-file", "", "the file that has it; - is standard input")
	return a.withOutput(c)
}

// amendment reads the new data and makes sure that it is some.
func (a *app) amendment(c *cobra.Command, data, file string) (json.RawMessage, error) {
	inline, fromFile := c.Flags().Changed("data"), c.Flags().Changed("data-file")
	if inline == fromFile {
		return nil, errors.New("give the new data either by --data JSON or by --data-file FILE")
	}
	raw := []byte(data)
	if fromFile {
		in, _, err := a.open(file)
		if err != nil {
			return nil, err
		}
		defer in.Close()
		if raw, err = io.ReadAll(io.LimitReader(in, order.MaxValue+1)); err != nil {
			return nil, err
		}
	}
	if len(raw) > order.MaxValue {
		return nil, fmt.Errorf("the data has more than %d bytes, which no event may have", order.MaxValue)
	}
	parsed, err := order.ParseData(raw)
	if err != nil {
		return nil, fmt.Errorf("the new data is not usable: %w", err)
	}
	return parsed, nil
}

// act sends an operator's signal and shows what came of it. The signal is about one event, that of
// --event-id or the one that the order is stuck on now: typed again, it does nothing to the next.
func (a *app) act(ctx context.Context, arg, signal string, f signalFlags, input func(by string, p operator.Pin) any) error {
	id, err := syncID(arg)
	if err != nil {
		return err
	}
	_, temporal, err := a.dial(ctx)
	if err != nil {
		return err
	}
	defer temporal.Close()

	by, err := a.person(ctx, f.by)
	if err != nil {
		return err
	}
	before, err := operator.FindStuck(ctx, temporal, id)
	if errors.Is(err, operator.ErrNoWorkflow) {
		return a.noWorkflow(id)
	}
	if err != nil {
		return err
	}
	pin, err := a.pin(ctx, id, signal, f, before)
	if err != nil {
		return err
	}
	effect, err := operator.Act(ctx, temporal, before, signal, input(by, pin))
	switch {
	case errors.Is(err, operator.ErrNoWorkflow):
		return a.noWorkflow(id)
	case errors.Is(err, operator.ErrNoWorker):
		return fmt.Errorf("the %s is with Temporal and takes effect as soon as a worker runs; %w", signal, err)
	case err != nil:
		return err
	}
	return a.printEffect(id, signal, effect)
}

func (a *app) noWorkflow(id string) error {
	return fmt.Errorf("order %s has no running workflow, so it is not stuck on anything; see %s", id, a.propose(order.ShowCommand(id)))
}

// pin is what the signal is about. A skip or an amend that names no event has to be confirmed.
func (a *app) pin(ctx context.Context, id, signal string, f signalFlags, at operator.Stuck) (operator.Pin, error) {
	named, err := at.Named(f.eventID)
	switch {
	case err != nil:
		return operator.Pin{}, err
	case f.eventID != "":
		return named, nil
	case !at.Is():
		return operator.Pin{}, fmt.Errorf("order %s is not stuck, so there is nothing to %s; see %s", id, signal, a.propose(order.ShowCommand(id)))
	case signal == workflows.SignalRetry:
		return at.Pin(), nil
	case at.State == nil:
		return operator.Pin{}, fmt.Errorf("what order %s is stuck on is not known: %w\nname the event, and the %s takes effect on it as soon as a worker runs: %s",
			id, operator.ErrNoWorker, signal, a.propose(proposal(signal, id, "EVENT_ID")))
	case f.yes:
		return at.Pin(), nil
	}
	hits := stuckOn(id, *at.State)
	if !a.interactive() {
		return operator.Pin{}, fmt.Errorf("%s\nwithout a terminal to ask, %s takes the event by name: %s\nor --yes, whatever the order is stuck on by then",
			hits, signal, a.propose(proposal(signal, id, at.Proposed())))
	}
	a.note("%s", hits)
	question := "give this event up, for good?"
	if signal == workflows.SignalAmend {
		question = "replace the data of this event?"
	}
	return at.Pin(), a.confirm(ctx, question)
}

// proposal is the command for a signal about an event.
func proposal(signal, id, eventID string) order.Command {
	if signal == workflows.SignalAmend {
		return order.AmendCommand(id, eventID)
	}
	return order.SkipCommand(id, eventID)
}

// stuckOn is what an order is stuck on, in a few lines.
func stuckOn(id string, s workflows.State) string {
	var text strings.Builder
	fmt.Fprintf(&text, "order %s is %s", id, s.Status)
	if s.StuckSince != nil {
		fmt.Fprintf(&text, " since %s", stamp(*s.StuckSince))
	}
	if s.Step == nil {
		text.WriteString(" on an events signal that could not be read")
	} else {
		fmt.Fprintf(&text, " on %s, event id %s\n  of    %s", order.NameOf(s.Step.Kind, s.Step.Version), s.Step.EventID, stamp(s.Step.OccurredAt))
	}
	if s.DataExcerpt != "" {
		fmt.Fprintf(&text, "\n  data  %s", shortened(s.DataExcerpt, 300))
	}
	if s.Reason != "" {
		fmt.Fprintf(&text, "\n  error %s: %s", s.Reason, shortened(s.LastError, 300))
	}
	return text.String()
}

func (a *app) printEffect(id, signal string, effect operator.Effect) error {
	err := a.print(effect, func(out io.Writer) error {
		if _, err := fmt.Fprintf(out, "order %s: %s\n", id, effect.Action.Effect); err != nil {
			return err
		}
		_, err := fmt.Fprintf(out, "now %s: %s\n", effect.State.Status, cmp.Or(effect.State.Happens, effect.State.NextStep))
		for _, r := range effect.State.Remedies {
			fmt.Fprintf(out, "  to %s: %s\n", r.To, a.propose(r.Command))
		}
		return err
	})
	switch s := effect.State; {
	case err != nil:
		return err
	case !effect.Done():
		return fmt.Errorf("the %s did nothing: %s", signal, effect.Action.Effect)
	case s.Status != workflows.StateBlocked && s.Status != workflows.StateRetrying:
		return nil
	case s.Step == nil || s.Step.EventID.String() == effect.Action.EventID:
		return fmt.Errorf("order %s is still %s, on %s; see %s", id, s.Status, s.Reason, a.propose(order.ShowCommand(id)))
	default:
		a.note("order %s is %s on its next event, %s: %s", id, s.Status, order.NameOf(s.Step.Kind, s.Step.Version), s.Reason)
		return nil
	}
}
