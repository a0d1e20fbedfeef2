package freshness_test

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"ordersync/internal/connect"
	"ordersync/internal/devstack/devtest"
	"ordersync/internal/freshness"
	"ordersync/internal/order"
	"ordersync/internal/publish"
	"ordersync/internal/topics"
	"ordersync/workflows"
)

func TestMain(m *testing.M) { devtest.Main(m) }

// bundle is a probe over servers of the test's own.
type bundle struct {
	*freshness.Probe
	t        *testing.T
	kafka    *kafka.Client
	producer *publish.Producer
}

func setup(t *testing.T) *bundle {
	t.Helper()
	brokers := devtest.KafkaEmbedded(t).Brokers()
	transport := &kafka.Transport{MetadataTTL: 100 * time.Millisecond}
	b := &bundle{
		t: t, kafka: &kafka.Client{Addr: kafka.TCP(brokers...), Transport: transport},
		producer: publish.New(publish.Options{Brokers: brokers, Transport: transport, DeadLetterTopic: "dead"}),
	}
	t.Cleanup(func() { require.NoError(t, b.producer.Close()); transport.CloseIdleConnections() })
	temporal, err := connect.Temporal(t.Context(), client.Options{
		HostPort: devtest.Temporal(t), DataConverter: workflows.DataConverter(), Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	t.Cleanup(temporal.Close)
	b.Probe = &freshness.Probe{
		Reader: topics.Reader{Brokers: brokers, Transport: transport}, Group: "group",
		Topics:          map[string]order.Channel{"online": order.Online, "store": order.Store},
		Backfill:        map[string]order.Channel{"online.backfill": order.Online, "store.backfill": order.Store},
		DeadLetterTopic: "dead",
		Temporal:        temporal, TaskQueue: devtest.Name(t, "queue"),
	}
	for _, topic := range []string{"online", "store", "online.backfill", "dead"} {
		response, err := b.kafka.CreateTopics(t.Context(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{
			Topic: topic, NumPartitions: 2, ReplicationFactor: 1,
		}}})
		require.NoError(t, err)
		require.NoError(t, response.Errors[topic])
	}
	return b
}

// publish writes a value to a topic, keyed by an order.
func (b *bundle) publish(topic, key, value string) {
	b.t.Helper()
	require.NoError(b.t, b.producer.Publish(b.t.Context(), kafka.Message{Topic: topic, Key: []byte(key), Value: []byte(value)}))
}

// commit moves the group to the end of a topic.
func (b *bundle) commit(topic string) {
	b.t.Helper()
	spans, err := b.Reader.Spans(b.t.Context(), topic, time.Time{})
	require.NoError(b.t, err)
	var commits []kafka.OffsetCommit
	for _, s := range spans {
		commits = append(commits, kafka.OffsetCommit{Partition: s.Partition, Offset: s.End})
	}
	response, err := b.kafka.OffsetCommit(b.t.Context(), &kafka.OffsetCommitRequest{
		GroupID: b.Group, GenerationID: -1, Topics: map[string][]kafka.OffsetCommit{topic: commits},
	})
	require.NoError(b.t, err)
	for _, partition := range response.Topics[topic] {
		require.NoError(b.t, partition.Error)
	}
}

// polled has the probe see a poll.
func (b *bundle) polled(p freshness.Poll) {
	b.Polled = func(context.Context) (freshness.Poll, bool, error) { return p, true, nil }
}
