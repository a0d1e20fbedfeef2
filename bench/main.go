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
	"slices"
	"strings"

	"ordersync/bench/rig"
)

func main() { rig.Main("bench", &options{}) }

// options are those of the command line.
type options struct {
	orders     int
	rounds     int
	warmUp     int
	seed       uint64
	only       selection
	cpuProfile string
}

// selection are names of systems, of a flag with commas between them.
type selection []string

func (s *selection) String() string { return strings.Join(*s, ",") }

func (s *selection) Set(value string) error {
	*s = strings.Split(value, ",")
	for _, name := range *s {
		if !slices.Contains(names(), name) {
			return fmt.Errorf("there is no system %q; give one or more of %s", name, strings.Join(names(), ","))
		}
	}
	return nil
}

// Define implements rig.Benchmark.
func (o *options) Define(flags *flag.FlagSet) {
	flags.IntVar(&o.orders, "orders", 3000, "simulated orders of each system in each round, of 3 events each")
	flags.IntVar(&o.rounds, "rounds", 3, "rounds; the table shows their medians")
	flags.IntVar(&o.warmUp, "warm-up", 200, "orders of each system before the first round, which count for nothing")
	flags.Uint64Var(&o.seed, "seed", 1, "seed of the first round's orders; each further round takes the next")
	o.only = selection{ordersyncName, naiveName, floorName}
	flags.Var(&o.only, "only", "the systems to measure, separated by commas: "+strings.Join(names(), ", "))
	flags.StringVar(&o.cpuProfile, "cpuprofile", "", "write a CPU profile of this process during ordersync's last round to this `file`")
}

// Check implements rig.Benchmark.
func (o *options) Check() error {
	switch {
	case o.orders < 1 || o.rounds < 1 || o.warmUp < 0:
		return errors.New("-orders and -rounds must be at least 1, -warm-up at least 0")
	case o.cpuProfile != "" && !slices.Contains(o.only, ordersyncName):
		return errors.New("-cpuprofile is about ordersync, which -only leaves out")
	}
	return nil
}

// Run implements rig.Benchmark.
func (o *options) Run(ctx context.Context, r *rig.Run) error {
	b, err := start(ctx, *o, r)
	if err != nil {
		return err
	}
	found, err := b.rounds(ctx)
	if err = errors.Join(err, b.stop(context.WithoutCancel(ctx))); err != nil {
		return err
	}
	return found.write(r.Result, *o)
}
