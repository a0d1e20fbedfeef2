// Command backfill measures what new orders notice of a backfill: the time from broker to target of
// a steady load of them, alone and with a backfill waiting beside it.
//
// It starts embedded servers in a directory of its own (internal/devstack) and runs the pipeline as
// `ordersync dev` does. In each round both take turns, each with topics, group, schema and task queue
// of its own and with the same new orders: simulated ones of a creation, some updates and an invoice,
// which come one by one and overlap as they do in a shop, only faster. The backfill is published
// before: other simulated orders, with versions, in the topics for backfills. So much of it waits
// that it does not come to its end while the clock runs; the command fails if it does.
//
// Only the ratio means something, as everything shares one machine. It is printed last.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"ordersync/bench/rig"
	"ordersync/internal/devstack"
)

func main() { rig.Main("backfill", &options{}) }

// options are those of the command line.
type options struct {
	orders int
	live   float64
	warmUp time.Duration
	length time.Duration
	rounds int
	rate   int
	seed   uint64
}

// Define implements rig.Benchmark.
func (o *options) Define(flags *flag.FlagSet) {
	flags.IntVar(&o.orders, "orders", 20_000, "orders that the backfill brings")
	flags.Float64Var(&o.live, "live", 20, "new orders a second")
	flags.DurationVar(&o.warmUp, "warm-up", 15*time.Second, "how long the load goes on before the clock runs")
	flags.DurationVar(&o.length, "for", 2*time.Minute, "how long the clock runs")
	flags.IntVar(&o.rounds, "rounds", 3, "rounds; the table shows their medians")
	flags.IntVar(&o.rate, "rate", 0, "BACKFILL_RATE, events a second (default: the starter's own)")
	flags.Uint64Var(&o.seed, "seed", 1, "seed of the first round's orders; each further round takes the next")
}

// Check implements rig.Benchmark.
func (o *options) Check() error {
	if o.orders < 1 || o.rounds < 1 || o.live <= 0 || o.length <= 0 || o.warmUp < 0 || o.rate < 0 {
		return errors.New("-orders and -rounds must be at least 1, -live and -for above 0, -warm-up and -rate not below")
	}
	return nil
}

// Run implements rig.Benchmark.
func (o *options) Run(ctx context.Context, r *rig.Run) (err error) {
	r.Say("starting Kafka, Temporal and MySQL")
	stack, err := devstack.Start(ctx, devstack.Options{Dir: r.Dir, Logger: r.Log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stack.Stop(context.WithoutCancel(ctx))) }()

	results := map[string][]measurement{}
	for round := 1; round <= o.rounds; round++ {
		for i := range kinds {
			kind := kinds[(i+round)%len(kinds)] // who begins changes, as Temporal's database grows
			t := &trial{options: *o, stack: stack, log: r.Log, name: fmt.Sprintf("%s-%d", kind, round), beside: kind == with, seed: o.seed + uint64(round-1)}
			m, err := t.run(ctx)
			if err != nil {
				return fmt.Errorf("%s, round %d: %w", kind, round, err)
			}
			results[kind] = append(results[kind], m)
			r.Say("round %d of %d: %-7s p50 %v, p99 %v of %d events; %.1f events/s of the backfill",
				round, o.rounds, kind, m.p50, m.p99, m.events, m.backfilled)
		}
	}
	return report(r.Result, *o, results)
}

// kinds are the two loads that are compared.
var kinds = []string{with, without}

const with, without = "with", "without"

func report(out io.Writer, o options, results map[string][]measurement) error {
	fmt.Fprintf(out, "\n%g new orders/s for %v, with a backfill of %d orders and without; medians of %d rounds\n\n", o.live, o.length, o.orders, o.rounds)
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "backfill\tevents/s\tp50\tp99\tmin p99\tmax p99\tits events/s\t")
	for _, kind := range kinds {
		rounds := results[kind]
		p99 := func(m measurement) float64 { return m.p99.Seconds() * 1000 }
		all := rig.Sorted(rounds, p99)
		fmt.Fprintf(t, "%s\t%.1f\t%.0f ms\t%.0f ms\t%.0f ms\t%.0f ms\t%.1f\t\n", kind,
			rig.Median(rounds, func(m measurement) float64 { return float64(m.events) / o.length.Seconds() }),
			rig.Median(rounds, func(m measurement) float64 { return m.p50.Seconds() * 1000 }),
			rig.Median(rounds, p99), all[0], all[len(all)-1],
			rig.Median(rounds, func(m measurement) float64 { return m.backfilled }))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	p99 := func(kind string) float64 {
		return rig.Median(results[kind], func(m measurement) float64 { return m.p99.Seconds() })
	}
	_, err := fmt.Fprintf(out, "\nratio of p99 with backfill to without: %.2f\n", p99(with)/p99(without))
	return err
}
