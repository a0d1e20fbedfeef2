package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"

	"github.com/spf13/cobra"

	"ordersync/internal/operator"
	"ordersync/internal/order"
	"ordersync/workflows"
)

// signalFlags are those that every operator signal takes.
type signalFlags struct{ eventID, reason, by string }

func (f *signalFlags) add(c *cobra.Command) {
	c.Flags().StringVar(&f.eventID, "event-id", "", "only if the order is stuck on this event")
	c.Flags().StringVar(&f.reason, "reason", "", "why, for those who look at the order later")
	c.Flags().StringVar(&f.by, "by", "", "who does it, for the audit (default: user@host)")
}

func (f *signalFlags) who() string { return person(f.by) }

// person is who the audit names: the one given, or the user of this machine.
func person(given string) string {
	if given != "" {
		return given
	}
	name := "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	host, err := os.Hostname()
	if err != nil {
		return name
	}
	return name + "@" + host
}

func (a *app) retryCommand() *cobra.Command {
	var f signalFlags
	var many bulkFlags
	c := &cobra.Command{
		Use:     "retry (ID | --all | --error TYPE | --channel CHANNEL | --older-than D)",
		GroupID: "operate",
		Short:   "Try the event an order is stuck on again, at once; or those of many orders",
		Long: `Tries the event an order is stuck on again, at once: after the shop's database was mended, or to
hurry a retry. If the order is not stuck, nothing happens and the command fails.

Without an ID, all stuck orders that the flags select are tried, as a batch operation of Temporal: it
goes on if this command is interrupted. It may be repeated.`,
		Example: `  ordersync retry 536365
  ordersync retry 536365 --reason 'constraint dropped'
  ordersync retry --error CheckViolated --dry-run
  ordersync retry --all --rate 50/s --reason 'constraint dropped'`,
		Args: oneOrMany(&many),
		RunE: func(c *cobra.Command, args []string) error {
			in := workflows.Retry{EventID: f.eventID, Reason: f.reason, By: f.who()}
			if len(args) == 1 {
				return a.act(c.Context(), args[0], workflows.SignalRetry, in)
			}
			return a.bulk(c.Context(), f, many, workflows.SignalRetry, "", func(s operator.Selection) any {
				in.StuckBefore = s.StuckBefore
				return in
			})
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

Without an ID, the event of every blocked order that the flags select is given up, as a batch operation
of Temporal: it goes on if this command is interrupted. Orders that are retrying are left to heal.
Each order loses the event it is stuck on now; if its next one gets stuck as well, that is another
skip.`,
		Example: `  ordersync skip 536365 --reason 'cancelled by the customer'
  ordersync skip 536365 --event-id 13a01de0-c9da-593a-8997-9372804d022b
  ordersync skip --error CheckViolated --channel store --older-than 1h --dry-run`,
		Args: oneOrMany(&many),
		RunE: func(c *cobra.Command, args []string) error {
			in := workflows.Skip{EventID: f.eventID, Reason: f.reason, By: f.who()}
			if len(args) == 1 {
				return a.act(c.Context(), args[0], workflows.SignalSkip, in)
			}
			return a.bulk(c.Context(), f, many, workflows.SignalSkip, workflows.StatusBlocked, func(s operator.Selection) any {
				in.StuckBefore = s.StuckBefore
				return in
			})
		},
	}
	f.add(c)
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
kind, version and identity stay.`,
		Example: `  ordersync amend 536365 --data '{"total":139.12}'
  ordersync amend 536365 --data-file mended.json --reason 'negative total'
  jq .data event.json | ordersync amend 536365 --data-file -`,
		Args: oneArgument("a sync_id"),
		RunE: func(c *cobra.Command, args []string) error {
			raw, err := a.amendment(c, data, file)
			if err != nil {
				return err
			}
			return a.act(c.Context(), args[0], workflows.SignalAmend, workflows.Amend{EventID: f.eventID, Reason: f.reason, By: f.who(), Data: raw})
		},
	}
	f.add(c)
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

// act sends an operator's signal and shows what came of it.
func (a *app) act(ctx context.Context, arg, signal string, input any) error {
	id, err := syncID(arg)
	if err != nil {
		return err
	}
	_, temporal, err := a.dial(ctx)
	if err != nil {
		return err
	}
	defer temporal.Close()

	effect, err := operator.Act(ctx, temporal, id, signal, input)
	switch {
	case errors.Is(err, operator.ErrNoWorkflow):
		return fmt.Errorf("order %s has no running workflow, so it is not stuck on anything; see %s", id, a.propose(order.ShowCommand(id)))
	case errors.Is(err, operator.ErrNoWorker):
		return fmt.Errorf("the %s is with Temporal and takes effect as soon as a worker runs; %w", signal, err)
	case err != nil:
		return err
	}
	err = a.print(effect, func(out io.Writer) error {
		if _, err := fmt.Fprintf(out, "order %s: %s\n", id, effect.Action.Effect); err != nil {
			return err
		}
		_, err := fmt.Fprintf(out, "now %s: %s\n", effect.State.Status, effect.State.NextStep)
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
		a.note("order %s is %s on its next event, %s: %s", id, s.Status, eventName(s.Step.Kind, s.Step.Version), s.Reason)
		return nil
	}
}
