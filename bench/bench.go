package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/pprof"
	"slices"
	"time"

	"go.temporal.io/sdk/client"

	"ordersync/bench/rig"
	"ordersync/internal/connect"
	"ordersync/internal/devstack"
	"ordersync/internal/order"
	"ordersync/internal/simulate"
	"ordersync/internal/telemetry"
)

// pollEvery is how often a system is asked whether it is done. It has no part in the result: that
// goes by the times Temporal noted.
const pollEvery = 200 * time.Millisecond

// limit bounds one measurement: a system that does one order a second is not worth the wait.
func limit(orders int) time.Duration { return time.Minute + time.Duration(orders)*time.Second }

// trial is one measurement: what a system gets to work on, and the names that are its own.
type trial struct {
	system string
	name   string // of this system and round
	orders int
	events []order.Event // of all orders, as they happened
	// refused are the orders that the target does not take while the clock runs.
	refused map[string]bool
}

// system is one of those that are compared. Its life is prepare, run, close.
type system interface {
	// prepare makes everything that the clock does not count, and puts the orders where run finds them.
	prepare(context.Context) error
	// run works on the orders until ctx ends. An earlier end is an error.
	run(context.Context) error
	// finished tells whether every event is where it belongs. Workflows may be about to close.
	finished(context.Context) (bool, error)
	// healthy is how many orders come to their end while the clock runs.
	healthy() int
	// check compares the result with what the orders must come to. run is still under way.
	check(context.Context) error
	// close undoes prepare.
	close() error
}

// systems are in the order of the report.
var systems = []struct {
	name string
	make func(*bench, trial) system
}{
	{ordersyncName, newOrdersync},
	{naiveName, newNaive},
	{floorName, newFloor},
	{refusingName, newRefusing},
}

const ordersyncName, naiveName, floorName, refusingName = "ordersync", "naive", "floor", "refusing"

func names() []string {
	var all []string
	for _, s := range systems {
		all = append(all, s.name)
	}
	return all
}

// bench is the servers and what is common to all measurements.
type bench struct {
	*rig.Run
	options  options
	stack    *devstack.Stack
	temporal client.Client // for looking, not for the systems
}

func start(ctx context.Context, o options, r *rig.Run) (_ *bench, err error) {
	b := &bench{Run: r, options: o}
	b.Say("starting Kafka, Temporal and MySQL")
	if b.stack, err = devstack.Start(ctx, devstack.Options{Dir: b.Dir, Logger: b.Log}); err != nil {
		return nil, err
	}
	if b.temporal, err = b.dial(ctx); err != nil {
		return nil, errors.Join(err, b.stop(context.WithoutCancel(ctx)))
	}
	return b, nil
}

// dial connects to Temporal with the SDK's defaults.
func (b *bench) dial(ctx context.Context) (client.Client, error) {
	return connect.Temporal(ctx, client.Options{HostPort: b.stack.TemporalAddress(), Logger: telemetry.SDKLogger(b.Log)})
}

func (b *bench) stop(ctx context.Context) error {
	if b.temporal != nil {
		b.temporal.Close()
	}
	return b.stack.Stop(ctx)
}

// rounds measures everything that was asked for.
func (b *bench) rounds(ctx context.Context) (report, error) {
	r := make(report)
	if b.options.warmUp > 0 {
		b.Say("warming up")
		for _, system := range b.options.only {
			if _, err := b.measure(ctx, system, 0, b.options.warmUp, nil); err != nil {
				return nil, err
			}
		}
	}
	for round := 1; round <= b.options.rounds; round++ {
		for i := range b.options.only {
			system := b.options.only[(i+round-1)%len(b.options.only)]
			var profile io.Writer
			if system == ordersyncName && round == b.options.rounds && b.options.cpuProfile != "" {
				file, err := os.Create(b.options.cpuProfile)
				if err != nil {
					return nil, err
				}
				defer file.Close()
				profile = file
			}
			m, err := b.measure(ctx, system, round, b.options.orders, profile)
			if err != nil {
				return nil, err
			}
			r[system] = append(r[system], m)
			b.Say("round %d of %d: %-9s %6.1f orders/s", round, b.options.rounds, system, m.rate())
		}
	}
	return r, nil
}

// measure runs one system once. profile may be nil.
func (b *bench) measure(ctx context.Context, name string, round, orders int, profile io.Writer) (m measurement, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s, round %d: %w", name, round, err)
		}
	}()
	ctx, cancel := context.WithTimeoutCause(ctx, limit(orders), fmt.Errorf("not done within %v", limit(orders)))
	defer cancel()

	updates := 1
	t := trial{
		system: name, name: fmt.Sprintf("%s-%d", name, round), orders: orders,
		// Round 0 warms up, with orders of its own.
		events: slices.Collect(simulate.Orders(b.options.seed+uint64(round), orders, simulate.Options{Updates: &updates})),
	}
	s := systems[slices.Index(names(), name)].make(b, t)
	defer func() { err = errors.Join(err, s.close()) }()
	if err := s.prepare(ctx); err != nil {
		return measurement{}, err
	}

	if profile != nil {
		if err := pprof.StartCPUProfile(profile); err != nil {
			return measurement{}, err
		}
	}
	before := b.usage()
	running, end := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- s.run(running) }()
	err = b.await(ctx, s, t, ended)
	used := b.usage().minus(before)
	pprof.StopCPUProfile()
	if err == nil {
		m = measurement{orders: s.healthy(), events: s.healthy() * len(t.events) / orders, cpu: used}
		m.span, err = b.span(ctx, t.name, s.healthy())
	}
	if err == nil {
		err = s.check(ctx)
	}
	end()
	return m, errors.Join(err, <-ended)
}

func (t trial) healthy() int { return t.orders - len(t.refused) }

// await returns when the system has finished and all its workflows are closed. An early end of its
// run is an error.
func (b *bench) await(ctx context.Context, s system, t trial, ended chan error) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	finished := false
	for {
		select {
		case err := <-ended:
			ended <- nil
			return errors.Join(errors.New("it ended before its work was done"), err)
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		var err error
		if !finished {
			finished, err = s.finished(ctx)
		}
		if finished && err == nil {
			var closed bool
			if closed, err = b.allClosed(ctx, t.name, s.healthy()); closed {
				return nil
			}
		}
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
}
