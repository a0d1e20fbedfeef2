package pod

import (
	"context"
	"errors"
	"time"

	"github.com/segmentio/kafka-go"
	"go.temporal.io/sdk/client"

	"ordersync/internal/config"
	"ordersync/internal/freshness"
	"ordersync/internal/schedule"
	"ordersync/internal/target"
	"ordersync/internal/topics"
)

// NewProbe tells how far a deployment is behind. Without a target it tells no rates.
func NewProbe(cfg config.Config, transport kafka.RoundTripper, temporal client.Client, target *target.Target) *freshness.Probe {
	return &freshness.Probe{
		Reader: topics.Reader{Brokers: cfg.Kafka.Brokers, Transport: transport}, Group: cfg.Kafka.Group,
		Topics: cfg.Kafka.Topics, Backfill: cfg.Kafka.BackfillTopics(), DeadLetterTopic: cfg.Kafka.DeadLetterTopic,
		Temporal: temporal, Namespace: cfg.Temporal.Client.Namespace, TaskQueue: cfg.Temporal.TaskQueue,
		Target:  target,
		Polled:  func(ctx context.Context) (freshness.Poll, bool, error) { return polled(ctx, temporal) },
		Overlap: cfg.ERP.Overlap, MaxRetrying: cfg.MaxRetrying,
	}
}

// polled is how far the schedule of polls has come; false where there is none.
func polled(ctx context.Context, temporal client.Client) (freshness.Poll, bool, error) {
	s, err := schedule.Describe(ctx, temporal, schedule.Poll)
	if errors.Is(err, schedule.ErrMissing) {
		return freshness.Poll{}, false, nil
	}
	if err != nil {
		return freshness.Poll{}, false, err
	}
	reached, err := s.Reached(ctx, temporal)
	if err != nil {
		return freshness.Poll{}, false, err
	}
	p := freshness.Poll{
		ReadUntil: reached.ReadUntil, BegunAt: reached.BegunAt,
		Every: time.Duration(s.EverySeconds * float64(time.Second)), Overlap: s.Overlap, Paused: s.Paused,
	}
	if s.Running != nil && s.Running.Attempt > 1 {
		p.Attempt, p.Error = s.Running.Attempt, s.Running.Error
	}
	if state, ok := s.Running.Poll(); ok {
		p.UnderWay = &freshness.Progress{StartedAt: state.StartedAt, Rows: state.Read, Published: state.Published, ChangedUntil: state.ChangedUntil}
	}
	return p, true, nil
}
