package pod

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"ordersync/internal/config"
	"ordersync/internal/freshness"
	"ordersync/internal/notice"
	"ordersync/internal/operator"
	"ordersync/internal/telemetry"
)

// closeLimit bounds the closing of one thing.
const closeLimit = 6 * time.Second

// open makes everything the process needs, without contacting a server.
func (p *process) open() (err error) {
	if p.metrics, err = telemetry.NewMetrics(p.log); err != nil {
		return err
	}
	p.closeLater("metrics", p.metrics.Close)

	// Its address is taken first and given up last: a probe always has an answer.
	if p.cfg.HTTPAddress != config.NoServer {
		if p.server, err = telemetry.Listen(p.cfg.HTTPAddress, p.health, p.metrics.Registry, p.log); err != nil {
			return err
		}
		p.closeLater("health server", p.server.Close)
	}
	p.health.Add("process", func(context.Context) error { return p.state.err() })

	var interceptors []grpc.UnaryClientInterceptor
	tasks := operator.NewTasks()
	if p.worker {
		interceptors = append(interceptors, tasks.Intercept)
		p.health.Add("rules", func(context.Context) error { return tasks.Ready() })
	}
	if p.temporal, err = NewTemporal(p.cfg, p.log, p.metrics.SDK, interceptors...); err != nil {
		return err
	}
	p.closeLater("Temporal client", func(context.Context) error { p.temporal.Close(); return nil })
	p.health.Add("temporal", p.checkTemporal)

	transport := KafkaTransport(p.cfg)
	p.closeLater("Kafka transport", func(context.Context) error { transport.CloseIdleConnections(); return nil })
	p.letters = NewProducer(p.cfg, transport)
	p.closeLater("dead-letter producer", func(context.Context) error { return p.letters.Close() })

	if p.worker {
		if p.target, err = OpenTarget(p.cfg, p.log); err != nil {
			return err
		}
		p.closeLater("MySQL connections", func(context.Context) error { return p.target.Close() })
		p.health.Add("mysql", p.target.CheckSchema)
		p.watch = operator.NewWatch(operator.WatchOptions{
			Temporal: p.temporal, TaskQueue: p.cfg.Temporal.TaskQueue, Target: p.target, Tasks: tasks, Registerer: p.metrics.Registry, Logger: p.log,
		})
		p.notices = notice.New(notice.Options{
			WebhookURL: string(p.cfg.AlertWebhook), Registerer: p.metrics.Registry, Logger: p.log,
		})
		if err := p.openERP(transport); err != nil {
			return err
		}
	}
	if p.starter {
		if p.intake, err = newIntake(p, transport); err != nil {
			return err
		}
		p.health.Add("kafka", func(context.Context) error { return p.intake.Ready() })
		p.freshness = freshness.NewExporter(NewProbe(p.cfg, transport, p.temporal, nil), p.metrics.Registry, p.log)
	}
	return nil
}

func (p *process) closeLater(what string, undo func(context.Context) error) {
	p.closers = append(p.closers, closer{what, undo})
}

// close undoes open, also one that failed half-way.
func (p *process) close() error {
	var problems []error
	for i := len(p.closers) - 1; i >= 0; i-- {
		ctx, cancel := context.WithTimeout(context.Background(), closeLimit)
		if err := p.closers[i].close(ctx); err != nil {
			problems = append(problems, fmt.Errorf("close the %s: %w", p.closers[i].what, err))
		}
		cancel()
	}
	return errors.Join(problems...)
}

// state is where the process stands, for /readyz.
type state struct{ stage atomic.Int32 }

const (
	waiting int32 = iota
	working
	stopping
)

func (s *state) set(stage int32) { s.stage.Store(stage) }

func (s *state) err() error {
	switch s.stage.Load() {
	case waiting:
		return errors.New("waits for its servers to start working: see the other checks")
	case stopping:
		return errors.New("is shutting down")
	default:
		return nil
	}
}
