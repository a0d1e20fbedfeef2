package devstack_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"

	"ordersync/internal/devstack/devtest"
)

// A topic takes what Kafka's does: a batch of 1,048,588 bytes, or what its max.message.bytes says.
func TestMessageSizes(t *testing.T) {
	brokers := devtest.Kafka(t)
	c := &kafka.Client{Addr: kafka.TCP(brokers...)}
	usual, large := devtest.Name(t, "usual"), devtest.Name(t, "large")
	created, err := c.CreateTopics(t.Context(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{
		{Topic: usual, NumPartitions: 1, ReplicationFactor: 1},
		{Topic: large, NumPartitions: 1, ReplicationFactor: 1, ConfigEntries: []kafka.ConfigEntry{
			{ConfigName: "max.message.bytes", ConfigValue: strconv.Itoa(16 << 20)},
		}},
	}})
	require.NoError(t, err)
	require.NoError(t, created.Errors[usual])
	require.NoError(t, created.Errors[large])
	send := func(topic string, size int) error {
		answer, err := c.Produce(t.Context(), &kafka.ProduceRequest{
			Topic: topic, RequiredAcks: kafka.RequireAll,
			Records: kafka.NewRecordReader(kafka.Record{Value: kafka.NewBytes(make([]byte, size))}),
		})
		if err != nil {
			return err
		}
		return answer.Error
	}
	devtest.Eventually(t, 30*time.Second, func() error { return send(usual, 1_048_500) }, "a full record")
	require.ErrorIs(t, send(usual, 1_048_588), kafka.MessageSizeTooLarge)
	devtest.Eventually(t, 30*time.Second, func() error { return send(large, 15<<20) }, "a large record")
}

func TestTopicsAreNotMadeByAccident(t *testing.T) {
	c := &kafka.Client{Addr: kafka.TCP(devtest.Kafka(t)...)}
	topic := devtest.Name(t, "mistyped")
	for range 2 {
		answer, err := c.Metadata(t.Context(), &kafka.MetadataRequest{Topics: []string{topic}})
		require.NoError(t, err)
		require.ErrorIs(t, answer.Topics[0].Error, kafka.UnknownTopicOrPartition)
	}
}
