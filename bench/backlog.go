package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/segmentio/kafka-go"

	"ordersync/internal/config"
	"ordersync/internal/load"
	"ordersync/internal/order"
	"ordersync/internal/pod"
	"ordersync/internal/simulate"
	"ordersync/internal/target"
)

// backlog is the servers' side of a system that reads Kafka and writes to MySQL: topics full of
// events, and an empty schema.
type backlog struct {
	*bench
	trial
	cfg    config.Config
	target *target.Target // to look at the result
}

// callRecords is the number of records that are published together.
const callRecords = 1000

func (l *backlog) prepare(ctx context.Context) error {
	dsn, err := l.stack.MySQL().CreateSchema(ctx, l.name)
	if err != nil {
		return err
	}
	topics := map[order.Channel]string{}
	var pairs []string
	for _, channel := range order.Channels {
		topics[channel] = l.name + "." + string(channel)
		pairs = append(pairs, string(channel)+"="+topics[channel])
	}
	l.cfg, err = config.Load(map[string]string{
		"KAFKA_BROKERS":           strings.Join(l.stack.KafkaBrokers(), ","),
		"KAFKA_GROUP":             l.name,
		"KAFKA_TOPICS":            strings.Join(pairs, ","),
		"KAFKA_DEAD_LETTER_TOPIC": l.name + ".dead-letter",
		"TEMPORAL_ADDRESS":        l.stack.TemporalAddress(),
		"TEMPORAL_TASK_QUEUE":     l.name,
		"MYSQL_DSN":               dsn,
		"EAGER_START":             "true",
		"HTTP_ADDRESS":            "127.0.0.1:0",
	})
	if err != nil {
		return err
	}
	if _, err := pod.Setup(ctx, l.cfg, l.Log, pod.SetupOptions{}); err != nil {
		return err
	}
	if l.target, err = pod.OpenTarget(l.cfg, l.Log); err != nil {
		return err
	}
	return l.publish(ctx, topics)
}

// publish fills the topics as `ordersync load` does.
func (l *backlog) publish(ctx context.Context, topics map[order.Channel]string) error {
	transport := pod.KafkaTransport(l.cfg)
	defer transport.CloseIdleConnections()
	producer := pod.NewProducer(l.cfg, transport)
	messages := make([]kafka.Message, len(l.events))
	for i, e := range l.events {
		line, err := simulate.Line(e)
		if err != nil {
			return err
		}
		if messages[i], err = load.Message(line, topics, ""); err != nil {
			return err
		}
	}
	var problems []error
	for chunk := range slices.Chunk(messages, callRecords) {
		if err := producer.Publish(ctx, chunk...); err != nil {
			problems = append(problems, err)
			break
		}
	}
	return errors.Join(append(problems, producer.Close())...)
}

// finished tells whether the ledger has all events.
func (l *backlog) finished(ctx context.Context) (bool, error) {
	var n int
	err := l.target.DB().QueryRowContext(ctx, "SELECT COUNT(*) FROM order_events").Scan(&n)
	return n == len(l.events), err
}

// check implements system.
func (l *backlog) check(ctx context.Context) error { return l.compare(ctx, l.events) }

// compare compares the target with what events must come to.
func (l *backlog) compare(ctx context.Context, events []order.Event) error {
	got, err := simulate.ReadTarget(ctx, l.target.DB())
	if err != nil {
		return err
	}
	if differences := simulate.Compare(simulate.Expect(slices.Values(events)), got); len(differences) > 0 {
		return fmt.Errorf("the target is not as it should be:\n\t%s", strings.Join(differences, "\n\t"))
	}
	return nil
}

func (l *backlog) close() error {
	if l.target == nil {
		return nil
	}
	return l.target.Close()
}
