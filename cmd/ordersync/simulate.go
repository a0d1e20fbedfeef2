package main

import (
	"bufio"
	"errors"
	"fmt"
	"strconv"
	"syscall"

	"github.com/spf13/cobra"

	"ordersync/internal/simulate"
)

func (a *app) simulateCommand() *cobra.Command {
	var seed uint64
	var updates int
	c := &cobra.Command{
		Use:     "simulate N",
		GroupID: "events",
		Short:   "Print the events of N simulated orders",
		Long: `Prints the events of N orders of a shop as NDJSON, in the order in which they happen: creations,
0 to 4 updates each, invoices, orders overlapping in time. They are the same for the same seed; each
seed has sync_ids of its own. The lines are what load takes.`,
		Example: `  ordersync simulate 100 --seed 1 | ordersync load -
  ordersync simulate 3000 --seed 7 --updates 1 > orders.ndjson`,
		Args: oneArgument("the number of orders"),
		RunE: func(c *cobra.Command, args []string) error {
			n, err := strconv.Atoi(args[0])
			if err != nil || n < 1 || n > simulate.MaxOrders {
				return fmt.Errorf("%q is no number of orders: give one from 1 to %d", args[0], simulate.MaxOrders)
			}
			var o simulate.Options
			if c.Flags().Changed("updates") {
				if updates < 0 || updates > maxUpdates {
					return fmt.Errorf("--updates %d: give a number from 0 to %d", updates, maxUpdates)
				}
				o.Updates = &updates
			}
			out := bufio.NewWriterSize(a.stdout, 64<<10)
			for e := range simulate.Orders(seed, n, o) {
				if err := c.Context().Err(); err != nil {
					return err
				}
				line, err := simulate.Line(e)
				if err != nil {
					return err
				}
				if _, err := out.Write(line); err != nil {
					return closedPipe(err)
				}
			}
			return closedPipe(out.Flush())
		},
	}
	c.Flags().Uint64Var(&seed, "seed", 1, "which orders; the same seed gives the same ones")
	c.Flags().IntVar(&updates, "updates", 0, "exactly so many updates for every order; without it 0 to 4, drawn")
	return c
}

// maxUpdates keeps an order's events within what a person can mean.
const maxUpdates = 1000

// closedPipe makes no fuss where the reader has seen enough, as head does.
func closedPipe(err error) error {
	if errors.Is(err, syscall.EPIPE) {
		return nil
	}
	return err
}
