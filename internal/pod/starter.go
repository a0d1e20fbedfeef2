package pod

import (
	"github.com/segmentio/kafka-go"

	"ordersync/internal/config"
	"ordersync/internal/intake"
	"ordersync/workflows"
)

// Settings are what the starter puts into every run's input.
func Settings(cfg config.Config) workflows.Settings {
	return workflows.Settings{Rules: workflows.Rules, HoldWindow: cfg.HoldWindow, IdleTimeout: cfg.IdleTimeout}
}

func newIntake(p *process, transport *kafka.Transport) (*intake.Intake, error) {
	return intake.New(intake.Options{
		Brokers:      p.cfg.Kafka.Brokers,
		Dialer:       KafkaDialer(p.cfg),
		Transport:    transport,
		Group:        p.cfg.Kafka.Group,
		Topics:       p.cfg.Kafka.Topics,
		Backfill:     p.cfg.Kafka.BackfillTopics(),
		BackfillRate: p.cfg.BackfillRate,
		Temporal:     p.temporal,
		TaskQueue:    p.cfg.Temporal.TaskQueue,
		Eager:        p.cfg.EagerStart && p.worker,
		Settings:     Settings(p.cfg),
		DeadLetters:  p.letters,
		Limits:       intake.Limits{MaxInFlight: p.cfg.MaxInFlight, MaxRetrying: p.cfg.MaxRetrying},
		Registerer:   p.metrics.Registry,
		Logger:       p.log,
	})
}
