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
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"text/tabwriter"
	"time"

	"ordersync/internal/devstack"
	"ordersync/internal/telemetry"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once
	if err := run(ctx, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintln(os.Stderr, "backfill:", err)
		os.Exit(1)
	}
}

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

func parse(args []string, stderr io.Writer) (options, error) {
	var o options
	flags := flag.NewFlagSet("backfill", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.IntVar(&o.orders, "orders", 20_000, "orders that the backfill brings")
	flags.Float64Var(&o.live, "live", 20, "new orders a second")
	flags.DurationVar(&o.warmUp, "warm-up", 15*time.Second, "how long the load goes on before the clock runs")
	flags.DurationVar(&o.length, "for", 2*time.Minute, "how long the clock runs")
	flags.IntVar(&o.rounds, "rounds", 3, "rounds; the table shows their medians")
	flags.IntVar(&o.rate, "rate", 0, "BACKFILL_RATE, events a second (default: the starter's own)")
	flags.Uint64Var(&o.seed, "seed", 1, "seed of the first round's orders; each further round takes the next")
	if err := flags.Parse(args); err != nil {
		return options{}, err
	}
	switch {
	case flags.NArg() > 0:
		return options{}, fmt.Errorf("unexpected argument %q: see backfill -help", flags.Arg(0))
	case o.orders < 1 || o.rounds < 1 || o.live <= 0 || o.length <= 0 || o.warmUp < 0 || o.rate < 0:
		return options{}, errors.New("-orders and -rounds must be at least 1, -live and -for above 0, -warm-up and -rate not below")
	}
	return o, nil
}

// run is the command without the process around it.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	o, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return err
	}
	dir, err := os.MkdirTemp("", "ordersync-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	log := telemetry.NewLogger(stderr, slog.LevelWarn)
	fmt.Fprintln(stderr, "starting Kafka, Temporal and MySQL")
	stack, err := devstack.Start(ctx, devstack.Options{Dir: dir, Logger: log})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stack.Stop(context.WithoutCancel(ctx))) }()

	results := map[string][]measurement{}
	for round := 1; round <= o.rounds; round++ {
		for i := range kinds {
			kind := kinds[(i+round)%len(kinds)] // who begins changes, as Temporal's database grows
			t := &trial{options: o, stack: stack, log: log, name: fmt.Sprintf("%s-%d", kind, round), beside: kind == with, seed: o.seed + uint64(round-1)}
			m, err := t.run(ctx)
			if err != nil {
				return fmt.Errorf("%s, round %d: %w", kind, round, err)
			}
			results[kind] = append(results[kind], m)
			fmt.Fprintf(stderr, "round %d of %d: %-7s p50 %v, p99 %v of %d events; %.1f events/s of the backfill\n",
				round, o.rounds, kind, m.p50, m.p99, m.events, m.backfilled)
		}
	}
	return report(stdout, o, results)
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
		all := sorted(rounds, p99)
		fmt.Fprintf(t, "%s\t%.1f\t%.0f ms\t%.0f ms\t%.0f ms\t%.0f ms\t%.1f\t\n", kind,
			median(rounds, func(m measurement) float64 { return float64(m.events) / o.length.Seconds() }),
			median(rounds, func(m measurement) float64 { return m.p50.Seconds() * 1000 }),
			median(rounds, p99), all[0], all[len(all)-1],
			median(rounds, func(m measurement) float64 { return m.backfilled }))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	p99 := func(kind string) float64 {
		return median(results[kind], func(m measurement) float64 { return m.p99.Seconds() })
	}
	_, err := fmt.Fprintf(out, "\nratio of p99 with backfill to without: %.2f\n", p99(with)/p99(without))
	return err
}

func sorted(rounds []measurement, figure func(measurement) float64) []float64 {
	var all []float64
	for _, m := range rounds {
		all = append(all, figure(m))
	}
	slices.Sort(all)
	return all
}

// median is the middle of one figure of all rounds, or the mean of the two in the middle.
func median(rounds []measurement, figure func(measurement) float64) float64 {
	all := sorted(rounds, figure)
	half := len(all) / 2
	if len(all)%2 == 1 {
		return all[half]
	}
	return (all[half-1] + all[half]) / 2
}
