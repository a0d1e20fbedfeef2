package pod

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"
	"go.temporal.io/sdk/worker"

	"ordersync/activities"
	"ordersync/internal/config"
	"ordersync/internal/erp"
	"ordersync/internal/order"
	"ordersync/internal/poll"
	"ordersync/internal/publish"
	"ordersync/internal/reconcile"
	"ordersync/workflows"
)

// OpenERP opens the source that is configured, without contacting it.
func OpenERP(cfg config.Config, log *slog.Logger) (erp.Source, error) {
	e := cfg.ERP
	return erp.Open(erp.Options{
		Kind: e.Source, URL: string(e.URL), Token: string(e.Token), User: e.User, Password: string(e.UserPassword),
		QueriesDir: e.Queries, OrdersQuery: e.Orders, Timeout: e.Timeout, Channel: onlyChannel(cfg.Kafka.Topics), Logger: log,
	})
}

// onlyChannel is the one of all topics, to which what the ERP lists without a channel belongs; empty where
// there are several.
func onlyChannel(topics config.Topics) order.Channel {
	var only order.Channel
	for _, channel := range topics {
		if only != "" && channel != only {
			return ""
		}
		only = channel
	}
	return only
}

// erpActivities are the activities under way at the same time that read the ERP: a poll, a backfill and
// a comparison, and one to spare.
const erpActivities = 4

// heartbeats is the time between two heartbeats that reach the server, each an action, at least.
const heartbeats = 3 * time.Second

// openERP opens what reading the ERP needs; without ERP_SOURCE nothing, and other workers do, if any.
func (p *process) openERP(transport kafka.RoundTripper) (err error) {
	if p.cfg.ERP.Source == "" {
		return nil
	}
	if p.erp, err = OpenERP(p.cfg, p.log); err != nil {
		return err
	}
	p.closeLater("ERP source", func(context.Context) error { return p.erp.Close() })
	p.polled, p.repaired = NewProducer(p.cfg, transport), NewProducer(p.cfg, transport)
	p.closeLater("producers", func(context.Context) error { return errors.Join(p.polled.Close(), p.repaired.Close()) })
	p.reconciler = reconcile.New(reconcile.Options{
		ERP: p.erp, Target: p.target, Producer: p.repaired, Topics: p.cfg.Kafka.Topics,
		Horizons: NewProbe(p.cfg, transport, p.temporal, p.target).Horizons, Waiting: reconcile.WorkflowWaiting(p.temporal),
		Registerer: p.metrics.Registry, Logger: p.log,
	})
	return nil
}

// erpWorker takes the activities that read the ERP.
func (p *process) erpWorker(fatal func(error)) worker.Worker {
	w := worker.New(p.temporal, workflows.ERPTaskQueue(p.cfg.Temporal.TaskQueue), worker.Options{
		DisableWorkflowWorker:              true,
		MaxConcurrentActivityExecutionSize: erpActivities,
		// People look at the progress, which comes with the heartbeats.
		MaxHeartbeatThrottleInterval: heartbeats,
		WorkerStopTimeout:            p.cfg.WorkerStopTimeout,
		OnFatalError:                 fatal,
	})
	w.RegisterActivity(activities.NewPolling(NewPoller(p.cfg, p.erp, p.polled, p.target, p.metrics.Registry, p.log), p.log))
	w.RegisterActivity(activities.NewReconciliation(p.reconciler))
	return w
}

// NewPoller polls the source into the topics of the channels. The producer is its own.
func NewPoller(cfg config.Config, source erp.Source, producer *publish.Producer, ledger poll.Ledger, metrics prometheus.Registerer, log *slog.Logger) *poll.Poller {
	return poll.New(poll.Options{
		Source: source, Producer: producer, Ledger: ledger, Registerer: metrics, Logger: log,
		Topics: cfg.Kafka.Topics.ByChannel(), BackfillTopics: cfg.Kafka.BackfillTopics().ByChannel(),
	})
}
