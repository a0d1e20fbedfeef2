package main

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"time"

	"github.com/segmentio/kafka-go"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
	"golang.org/x/sync/errgroup"

	"ordersync/internal/order"
	"ordersync/internal/pod"
	"ordersync/internal/target"
)

// naive is a bridge as it is usually written: kafka-go's Reader in a consumer group, one
// signal-with-start for each event, a workflow that runs one regular activity for each signal.
// It uses ordersync's target, and so its ledger, and gets what makes such a bridge fast: many
// signals in flight, more pollers than the default, commits in the background.
//
// What it does not do, and ordersync does: it loses events when it is killed, because it commits an
// offset although an earlier one of the partition is in flight, and a Reader's commits are not held
// back in a rebalance; a signal that fails ends it; an event that is no event ends it; signals
// that come while a workflow completes are lost; a failing order retries in Temporal, but nobody
// sees it; nothing bounds what is in flight while MySQL is away.
type naive struct {
	backlog
	client client.Client
}

func newNaive(b *bench, t trial) system { return &naive{backlog: backlog{bench: b, trial: t}} }

const (
	// naiveSignals is how many signals are in flight, each of another order.
	naiveSignals = 64
	// naivePollers are those of workflow tasks and of activities. With the SDK's 2 it is a third slower.
	naivePollers = 16
	// naiveSignal is the name of the signal.
	naiveSignal = "event"
)

// naiveOrder applies events as they arrive, until the invoice.
func naiveOrder(ctx workflow.Context) error {
	ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: 30 * time.Second})
	var a *naiveActivities
	signals := workflow.GetSignalChannel(ctx, naiveSignal)
	for {
		var e order.Event
		signals.Receive(ctx, &e)
		if err := workflow.ExecuteActivity(ctx, a.Apply, e).Get(ctx, nil); err != nil {
			return err
		}
		if e.Kind == order.Invoice {
			return nil
		}
	}
}

type naiveActivities struct{ target *target.Target }

// Apply writes an event to MySQL.
func (a *naiveActivities) Apply(ctx context.Context, e order.Event) error {
	result, err := a.target.Apply(ctx, order.Step{Event: e})
	if err == nil && result.Outcome == order.Missing {
		err = errors.New("the order is not there yet")
	}
	return err
}

func (n *naive) prepare(ctx context.Context) (err error) {
	if err := n.backlog.prepare(ctx); err != nil {
		return err
	}
	n.client, err = n.dial(ctx)
	return err
}

func (n *naive) run(ctx context.Context) error {
	events, err := pod.OpenTarget(n.cfg, n.Log)
	if err != nil {
		return err
	}
	defer events.Close() //nolint:errcheck // nothing is open that could be lost
	w := worker.New(n.client, n.name, worker.Options{
		MaxConcurrentWorkflowTaskPollers: naivePollers,
		MaxConcurrentActivityTaskPollers: naivePollers,
	})
	w.RegisterWorkflow(naiveOrder)
	w.RegisterActivity(&naiveActivities{events})
	if err := w.Start(); err != nil {
		return err
	}
	defer w.Stop()

	reader := kafka.NewReader(kafka.ReaderConfig{
		Brokers: n.cfg.Kafka.Brokers, GroupID: n.name, GroupTopics: n.cfg.Kafka.Topics.Names(),
		StartOffset: kafka.FirstOffset, CommitInterval: time.Second,
	})
	defer reader.Close() //nolint:errcheck // it leaves the group, and nothing comes after it
	err = n.bridge(ctx, reader)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// bridge signals each event and then commits it. Events of one order go one after the other.
func (n *naive) bridge(ctx context.Context, reader *kafka.Reader) error {
	group, ctx := errgroup.WithContext(ctx)
	var queues [naiveSignals]chan kafka.Message
	for i := range queues {
		queues[i] = make(chan kafka.Message, 100)
		group.Go(func() error {
			for {
				select {
				case <-ctx.Done():
					return nil
				case m := <-queues[i]:
					if err := n.signal(ctx, m); err != nil {
						return err
					}
					if err := reader.CommitMessages(ctx, m); err != nil {
						return err
					}
				}
			}
		})
	}
	group.Go(func() error {
		for {
			m, err := reader.FetchMessage(ctx)
			if err != nil {
				return err
			}
			key := fnv.New32a()
			_, _ = key.Write(m.Key) // it has no error
			select {
			case <-ctx.Done():
				return nil
			case queues[key.Sum32()%naiveSignals] <- m:
			}
		}
	})
	return group.Wait()
}

func (n *naive) signal(ctx context.Context, m kafka.Message) error {
	e, err := order.Decode(order.Record{
		Topic: m.Topic, Partition: m.Partition, Offset: m.Offset, Timestamp: m.Time, Value: m.Value,
	}, n.cfg.Kafka.Topics[m.Topic])
	if err != nil {
		return err
	}
	_, err = n.client.SignalWithStartWorkflow(ctx, fmt.Sprintf("%s-%s", n.name, e.SyncID), naiveSignal, e,
		client.StartWorkflowOptions{TaskQueue: n.name}, naiveOrder)
	return err
}

func (n *naive) close() error {
	if n.client != nil {
		n.client.Close()
	}
	return n.backlog.close()
}
