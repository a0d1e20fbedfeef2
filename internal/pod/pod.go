// Package pod assembles the processes of ordersync from their configuration: the worker, which
// applies events, the starter, which brings them from Kafka to Temporal, and both in one, as
// ordersync dev and the benchmark run them. It also prepares the servers they need (Setup).
//
// A process lives like this:
//
//	open ─> wait for the servers ─> work ─> (SIGTERM) intake ends ─> worker stops ─> close
//
// Opening contacts nobody, so a process starts whatever is down, says what it waits for and is not
// ready until then. Ending takes at most ShutdownLimit; a kill at any moment loses nothing either,
// it only costs time-outs.
package pod

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"sync"
	"time"

	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"golang.org/x/sync/errgroup"

	"ordersync/internal/config"
	"ordersync/internal/erp"
	"ordersync/internal/freshness"
	"ordersync/internal/intake"
	"ordersync/internal/notice"
	"ordersync/internal/operator"
	"ordersync/internal/publish"
	"ordersync/internal/reconcile"
	"ordersync/internal/target"
	"ordersync/internal/telemetry"
)

// ShutdownLimit is the most that RunWorker, RunStarter and RunBoth take to return after their
// context has ended. Whoever sends SIGTERM should wait longer than this before SIGKILL.
const ShutdownLimit = 25 * time.Second

// starterMemory is a soft limit of the starter's memory, in bytes, where GOMEMLIMIT sets none: the
// collector then works harder while a long queue of well compressed records is read, instead of
// letting what it has not collected grow to twice of what is in use.
const starterMemory = 120 << 20

// role is what a process does.
type role struct {
	name            string
	worker, starter bool
}

// RunWorker works on orders until ctx ends. It waits for a Temporal server and a target with the
// right schema that are not up yet.
func RunWorker(ctx context.Context, cfg config.Config, log *slog.Logger, options ...Option) error {
	return run(ctx, cfg, log, role{name: "worker", worker: true}, options)
}

// RunStarter brings events to Temporal until ctx ends, and has no access to the target. It waits
// for servers and topics that are not there yet.
func RunStarter(ctx context.Context, cfg config.Config, log *slog.Logger, options ...Option) error {
	if os.Getenv("GOMEMLIMIT") == "" {
		debug.SetMemoryLimit(starterMemory)
	}
	return run(ctx, cfg, log, role{name: "starter", starter: true}, options)
}

// RunBoth is a worker and a starter over one Temporal client, which is what lets new orders start
// on the worker at once (with EAGER_START).
func RunBoth(ctx context.Context, cfg config.Config, log *slog.Logger, options ...Option) error {
	return run(ctx, cfg, log, role{name: "worker and starter", worker: true, starter: true}, options)
}

// Option adds to what a process does.
type Option func(*process)

// OnReady has f called once, when the process is ready for the first time.
func OnReady(f func()) Option { return func(p *process) { p.onReady = f } }

// OnListening has f called with the address of the health server.
func OnListening(f func(address string)) Option { return func(p *process) { p.onListening = f } }

// process is a worker, a starter or both.
type process struct {
	role
	cfg         config.Config
	log         *slog.Logger
	onReady     func()
	onListening func(string)

	metrics  *telemetry.Metrics
	health   *telemetry.Health
	server   *telemetry.Server // nil with HTTP_ADDRESS=none
	temporal client.Client
	letters  *publish.Producer
	target   *target.Target  // nil without a worker
	notices  *notice.Notices // nil without a worker
	watch    *operator.Watch // nil without a worker
	intake   *intake.Intake  // nil without a starter
	// What follows reads the ERP, and is nil without ERP_SOURCE or a worker. Each producer has one user, who
	// relies on the order in which it publishes.
	erp              erp.Source
	polled, repaired *publish.Producer
	reconciler       *reconcile.Reconciler
	// freshness is nil without a starter, which may read topics and its group's offsets.
	freshness *freshness.Exporter
	state     state

	// closers undo what open did, last first.
	closers []closer
}

type closer struct {
	what  string
	close func(context.Context) error
}

func run(ctx context.Context, cfg config.Config, log *slog.Logger, r role, options []Option) error {
	p := &process{role: r, cfg: cfg, log: log, health: &telemetry.Health{}, onReady: func() {}, onListening: func(string) {}}
	for _, option := range options {
		option(p)
	}
	ended := make(chan error, 1)
	go func() { ended <- p.live(ctx) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	limit := time.NewTimer(ShutdownLimit)
	defer limit.Stop()
	select {
	case err := <-ended:
		return err
	case <-limit.C:
		return fmt.Errorf("the shutdown was given up after %v: steps under way run again elsewhere after their time-outs", ShutdownLimit)
	}
}

// live opens the process, works until ctx ends or something fails for good, and closes it.
func (p *process) live(ctx context.Context) (err error) {
	p.log.Info("starting", "process", p.name, "version", Version(), "config", p.cfg)
	defer func() { err = errors.Join(err, p.close()) }()
	if err := p.open(); err != nil {
		return err
	}

	group, ctx := errgroup.WithContext(ctx)
	if p.server != nil {
		p.log.Info("serving health and metrics", "address", p.server.Addr().String())
		p.onListening(p.server.Addr().String())
		served := make(chan error, 1)
		go func() { served <- p.server.Serve() }() // until close
		group.Go(func() error {
			select {
			case err := <-served:
				return err
			case <-ctx.Done():
				return nil
			}
		})
	}
	group.Go(func() error { p.announceReady(ctx); return nil })
	group.Go(func() error { return p.work(ctx) })
	return group.Wait()
}

// work waits for the servers, then runs worker and starter until ctx ends. The starter ends first:
// an eager start of its last calls may still need the worker.
func (p *process) work(ctx context.Context) error {
	if p.waitForServers(ctx) != nil {
		return nil // ctx has ended
	}
	var stopped <-chan error
	if p.worker {
		var beside sync.WaitGroup
		besideCtx, stopBeside := context.WithCancel(context.WithoutCancel(ctx))
		beside.Go(func() { p.notices.Run(besideCtx) })
		beside.Go(func() { p.watch.Run(besideCtx) })
		defer beside.Wait()
		defer stopBeside()
		stop, fatal, err := p.startWorker()
		if err != nil {
			return err
		}
		stopped = fatal
		defer func() {
			p.log.Info("stopping the worker")
			stop()
		}()
	}
	p.state.set(working)
	group, ctx := errgroup.WithContext(ctx)
	context.AfterFunc(ctx, func() { p.state.set(stopping) })
	group.Go(func() error {
		select {
		case err := <-stopped: // never, without a worker
			return fmt.Errorf("the Temporal worker gave up: %w", err)
		case <-ctx.Done():
			return nil
		}
	})
	if p.starter {
		group.Go(func() error { p.freshness.Run(ctx); return nil })
		group.Go(func() error { return p.takeIn(ctx) })
	}
	return group.Wait()
}

// takeIn runs the intake until ctx ends.
func (p *process) takeIn(ctx context.Context) error {
	err := p.intake.Run(ctx)
	switch {
	case ctx.Err() == nil && err == nil:
		return errors.New("the intake ended by itself")
	case ctx.Err() == nil:
		return err
	case err != nil: // what was finished is committed; the rest is read again
		p.log.Warn("the intake did not end cleanly", "error", err)
	}
	p.log.Info("the intake has ended")
	return nil
}

func (p *process) waitForServers(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return waitFor(ctx, p.log, "Temporal", p.checkTemporal) })
	if p.worker {
		group.Go(func() error { return waitFor(ctx, p.log, "MySQL", p.target.CheckSchema) })
	}
	return group.Wait()
}

func (p *process) checkTemporal(ctx context.Context) error {
	return checkTemporal(ctx, p.temporal, p.cfg)
}

// announceReady says once that the process is ready; from then on /readyz tells.
func (p *process) announceReady(ctx context.Context) {
	const every = 100 * time.Millisecond
	tick := time.NewTicker(every)
	defer tick.Stop()
	for !p.health.Report(ctx).Ready {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
	p.log.Info("ready", "process", p.name)
	p.onReady()
}

// stickyCacheSize is how many orders' workflows a process keeps in memory between their tasks, at
// about 35 KiB for each. The SDK's own 10,000 would be 350 MB.
const stickyCacheSize = 2000

// startWorker starts the worker, and where an ERP is configured the one that reads it. It gives what stops
// them, and the channel on which one says that it cannot go on.
func (p *process) startWorker() (stop func(), stopped <-chan error, err error) {
	worker.SetStickyWorkflowCacheSize(stickyCacheSize)
	fatal := make(chan error, 2)
	workers := []worker.Worker{
		newWorker(p.temporal, p.cfg, p.target, p.letters, p.notices, p.log, func(err error) { fatal <- err }),
	}
	if p.erp != nil {
		workers = append(workers, p.erpWorker(func(err error) { fatal <- err }))
	}
	stop = func() {
		var all sync.WaitGroup
		for _, w := range workers {
			all.Go(w.Stop)
		}
		all.Wait()
	}
	for i, w := range workers {
		if err := w.Start(); err != nil {
			workers = workers[:i]
			stop()
			return nil, nil, fmt.Errorf("start the Temporal worker: %w", err)
		}
	}
	p.log.Info("the worker polls", "task_queue", p.cfg.Temporal.TaskQueue, "erp", p.cfg.ERP.Source)
	return stop, fatal, nil
}
