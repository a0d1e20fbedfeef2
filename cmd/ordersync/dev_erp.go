package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"go.temporal.io/sdk/client"

	"ordersync/internal/config"
	"ordersync/internal/erpsim"
	"ordersync/internal/order"
	"ordersync/internal/pod"
	"ordersync/internal/schedule"
	"ordersync/internal/simulate"
	"ordersync/workflows"
)

// devERP is the simulated ERP of a stack; without --erp there is none.
type devERP struct {
	on      bool
	file    string
	orders  int
	seed    uint64
	rate    float64
	outages bool

	sim      *erpsim.ERP
	first    string // the sync_id of its first order
	temporal client.Client
	stop     context.CancelFunc
	running  sync.WaitGroup
}

// Outages of --erp-outages, in the mean.
const (
	outageEvery = 30 * time.Second
	outageLasts = 5 * time.Second
)

// devPolling are for a person who watches; in production polls are farther apart, and go back farther.
var devPolling = map[string]string{"ERP_POLL_INTERVAL": "2s", "ERP_OVERLAP": "10s"}

func (e *devERP) flags(c *cobra.Command) {
	c.Flags().BoolVar(&e.on, "erp", false, "poll a simulated ERP")
	c.Flags().StringVar(&e.file, "erp-file", "", "its orders, a file as load takes it, in the order of the file (default: simulated orders)")
	c.Flags().IntVar(&e.orders, "erp-orders", 1000, "the number of simulated orders")
	c.Flags().Uint64Var(&e.seed, "erp-seed", 1, "the same number makes the same orders and faults")
	c.Flags().Float64Var(&e.rate, "erp-rate", 20, "changes a second")
	c.Flags().BoolVar(&e.outages, "erp-outages", false, "have the ERP be away for some seconds about twice a minute")
}

// check refuses what makes no sense.
func (e *devERP) check(a *app, given func(flag string) bool) error {
	for _, flag := range []string{"erp-file", "erp-orders", "erp-seed", "erp-rate", "erp-outages"} {
		if given(flag) && !e.on {
			return fmt.Errorf("--%s is about the ERP of --erp, which is missing", flag)
		}
	}
	switch {
	case !e.on:
		return nil
	case given("erp-file") && given("erp-orders"):
		return errors.New("--erp-file and --erp-orders: the orders come from the file, or are simulated")
	case e.orders < 1 || e.orders > maxERPOrders:
		return fmt.Errorf("--erp-orders %d: give a number from 1 to %d", e.orders, maxERPOrders)
	case !(e.rate > 0 && e.rate <= maxERPRate):
		return fmt.Errorf("--erp-rate %v: give a number above 0, %d at most", e.rate, maxERPRate)
	case strings.TrimSpace(a.environ["ERP_SOURCE"]) != "" || strings.TrimSpace(a.environ["ERP_URL"]) != "":
		return errors.New("--erp is another ERP than that of ERP_SOURCE and ERP_URL, which are set: unset them, or leave out --erp")
	}
	return nil
}

// The simulated ERP lives in memory.
const (
	maxERPOrders = 200_000
	maxERPRate   = 10_000
)

// prepare makes the ERP. It does so first of all, as the file may not be good.
func (e *devERP) prepare() error {
	if !e.on {
		return nil
	}
	events, err := e.events()
	if err != nil {
		return err
	}
	e.first = events[0].SyncID
	e.sim, err = erpsim.New(erpsim.Options{Events: events, Seed: e.seed, Faults: erpsim.Usual})
	return err
}

func (e *devERP) events() ([]erpsim.Event, error) {
	if e.file == "" {
		return erpsim.Orders(e.seed, e.orders, simulate.Options{})
	}
	file, err := os.Open(e.file)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	events, err := erpsim.Read(file)
	if err == nil {
		// With the times of the file, status would tell how old the file is.
		err = erpsim.HappenNow(events)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e.file, err)
	}
	return events, nil
}

// open has the ERP answer requests.
func (e *devERP) open() error {
	if !e.on {
		return nil
	}
	return e.sim.Listen("127.0.0.1:0")
}

// environ is what a worker needs to poll the ERP.
func (e *devERP) environ(a *app) map[string]string {
	if !e.on {
		return nil
	}
	environ := maps.Clone(devPolling)
	for name := range environ {
		if own := strings.TrimSpace(a.environ[name]); own != "" {
			environ[name] = own
		}
	}
	environ["ERP_SOURCE"], environ["ERP_URL"] = "http", e.sim.URL()
	return environ
}

// schedule has the ERP polled.
func (e *devERP) schedule(ctx context.Context, cfg config.Config, log *slog.Logger) (err error) {
	if !e.on {
		return nil
	}
	if e.temporal, err = pod.DialTemporal(ctx, cfg, log); err != nil {
		return err
	}
	_, err = schedule.Apply(ctx, e.temporal, schedule.Settings{
		TaskQueue: cfg.Temporal.TaskQueue, Every: cfg.ERP.Interval,
		Poll: workflows.PollInput{Overlap: cfg.ERP.Overlap, PageSize: cfg.ERP.PageSize},
	})
	return err
}

// grow lets orders come, and says when all have been polled.
func (e *devERP) grow(ctx context.Context, a *app) error {
	if !e.on {
		return nil
	}
	ctx, e.stop = context.WithCancel(ctx)
	if e.outages {
		e.running.Go(func() {
			if err := e.sim.Struggle(ctx, e.seed, outageEvery, outageLasts); err != nil {
				a.note("the ERP's outages have ended: %v", err)
			}
		})
	}
	e.running.Go(func() {
		if p, ok := e.awaitPolled(ctx); ok {
			a.note("polled everything: %d changes of %d orders in the ERP are in Kafka; what became of them: %s", p.Told, p.Orders, a.hint("wait"))
		}
	})
	return e.sim.Grow(e.rate)
}

// awaitPolled waits until the ERP has told all it has and a poll has seen the end of that. It gives up with
// ctx.
func (e *devERP) awaitPolled(ctx context.Context) (erpsim.Progress, bool) {
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return erpsim.Progress{}, false
		case <-tick.C:
		}
		p := e.sim.Progress()
		if p.ToCome > 0 {
			continue
		}
		// Temporal may be busy for a moment: the next look is as good.
		if last, ok, err := schedule.LastPoll(ctx, e.temporal); err == nil && ok && last.ReadUntil.After(p.At) {
			return p, true
		}
	}
}

func (e *devERP) close() {
	if !e.on {
		return
	}
	if e.stop != nil {
		e.stop()
		e.running.Wait()
	}
	if e.temporal != nil {
		e.temporal.Close()
	}
	_ = e.sim.Close() // its requests end with the process
}

// describe is the ERP for the welcome.
func (e *devERP) describe() string {
	p := e.sim.Progress()
	return fmt.Sprintf("%d changes to come, %g a second", p.Told+p.ToCome, e.rate)
}

// example is an order to look at, as it is typed.
func (e *devERP) example() string { return order.Typed(e.first) }
