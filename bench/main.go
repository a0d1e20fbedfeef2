// Command bench measures ordersync against two other systems, on the same servers and orders:
//
//	ordersync  the pipeline as `ordersync dev` runs it: starter and worker in one process, eager start
//	naive      a bridge as it is usually written: one signal and one regular activity for each event
//	refusing   ordersync, with a target that refuses one order in a hundred until they are retried
//	floor      the engine alone: a workflow per order that does nothing, started eagerly; no Kafka, no MySQL
//
// It starts embedded servers in a directory of its own (internal/devstack). In each round the three
// take turns, each with topics, group, schema and task queue of its own, and with the same
// simulated orders of three events: creation, update, invoice. Who begins changes from round to
// round, as Temporal's database grows.
//
// What is measured is a backlog: the events are in Kafka before the pipeline starts. The clock is
// Temporal's, and runs from the start of the first workflow to the close of the last; by then
// every event is in the ledger, and the target is compared with what the orders must come to. So
// the time to join the consumer group is left out, of ordersync as of naive.
//
// Everything shares one machine, so only the ratios mean something, and they are printed last.
// The CPU of each process per order says who uses up the machine.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// options are those of the command line.
type options struct {
	orders     int
	rounds     int
	warmUp     int
	seed       uint64
	only       []string
	cpuProfile string
}

// run is the command without the process around it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	o, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return err
	}
	b, err := start(ctx, o, stderr)
	if err != nil {
		return err
	}
	r, err := b.rounds(ctx)
	if err = errors.Join(err, b.stop(context.WithoutCancel(ctx))); err != nil {
		return err
	}
	return r.write(stdout, o)
}

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("bench", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&o.orders, "orders", 3000, "simulated orders of each system in each round, of 3 events each")
	flags.IntVar(&o.rounds, "rounds", 3, "rounds; the table shows their medians")
	flags.IntVar(&o.warmUp, "warm-up", 200, "orders of each system before the first round, which count for nothing")
	flags.Uint64Var(&o.seed, "seed", 1, "seed of the first round's orders; each further round takes the next")
	only := flags.String("only", "", "the systems to measure, separated by commas: "+strings.Join(names(), ", ")+" (default ordersync,naive,floor)")
	flags.StringVar(&o.cpuProfile, "cpuprofile", "", "write a CPU profile of this process during ordersync's last round to this `file`")
	if err := flags.Parse(args); err != nil {
		return options{}, err
	}
	o.only = []string{ordersyncName, naiveName, floorName}
	if *only != "" {
		o.only = strings.Split(*only, ",")
	}
	for _, name := range o.only {
		if !slices.Contains(names(), name) {
			return options{}, fmt.Errorf("-only: there is no system %q; give one or more of %s", name, strings.Join(names(), ","))
		}
	}
	switch {
	case flags.NArg() > 0:
		return options{}, fmt.Errorf("unexpected argument %q: see bench -help", flags.Arg(0))
	case o.orders < 1 || o.rounds < 1 || o.warmUp < 0:
		return options{}, errors.New("-orders and -rounds must be at least 1, -warm-up at least 0")
	case o.cpuProfile != "" && !slices.Contains(o.only, ordersyncName):
		return options{}, errors.New("-cpuprofile is about ordersync, which -only leaves out")
	}
	return o, nil
}
