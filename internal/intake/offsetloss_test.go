package intake

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"ordersync/internal/order"
)

// deleteRecords is what retention does.
func (b *bundle) deleteRecords(topic string, partition int, before int64) {
	b.t.Helper()
	request := kmsg.NewDeleteRecordsRequest()
	p := kmsg.NewDeleteRecordsRequestTopicPartition()
	p.Partition, p.Offset = int32(partition), before
	request.Topics = []kmsg.DeleteRecordsRequestTopic{{Topic: topic, Partitions: []kmsg.DeleteRecordsRequestTopicPartition{p}}}
	response, err := request.RequestWith(b.t.Context(), b.kgo())
	require.NoError(b.t, err)
	require.NoError(b.t, kerr.ErrorForCode(response.Topics[0].Partitions[0].ErrorCode))
}

func (b *bundle) deleteTopic(topic string) {
	b.t.Helper()
	response, err := b.kafka.DeleteTopics(b.t.Context(), &kafka.DeleteTopicsRequest{Topics: []string{topic}})
	require.NoError(b.t, err)
	require.NoError(b.t, response.Errors[topic])
}

func TestRetentionLossIsCountedAndPassed(t *testing.T) {
	b := setup(t)
	id := b.syncID(1)
	p := home(id)
	b.publish(message("online", id, order.Creation, 1), message("online", id, order.Update, 2))
	m := b.run(b.options())
	b.awaitCommitted("online", p, 2)
	m.stop()

	for version := 3; version <= 8; version++ { // 2 to 7
		b.publish(message("online", id, order.Update, version))
	}
	b.deleteRecords("online", p, 6)
	o := b.options()
	registry := prometheus.NewRegistry()
	o.Registerer = registry
	b.run(o)
	b.awaitVersions(id, 1, 2, 7, 8)
	b.awaitCommitted("online", p, 8)
	require.Equal(t, 4.0, value(t, registry, "offsets_lost_total", "online"))
}

func TestRetentionLossWhileReading(t *testing.T) {
	for name, loss := range map[string]struct {
		start    int64
		versions []int64
	}{
		"something is left": {5, []int64{1, 2, 6}},
		"nothing is left":   {6, []int64{1, 2}},
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			id := b.syncID(1)
			p := home(id)
			o := b.options()
			o.Limits.MaxInFlight = 2
			hold := make(chan struct{})
			m := b.run(o, b.holding(hold))
			b.publish(message("online", id, order.Update, 1), message("online", id, order.Update, 2))
			b.awaitInFlight(m, 2) // which fills the window: no other fetch begins
			for version := 3; version <= 6; version++ {
				b.publish(message("online", id, order.Update, version))
			}
			b.deleteRecords("online", p, loss.start)
			close(hold)
			b.awaitVersions(id, loss.versions...)
			b.awaitCommitted("online", p, 6)
			require.Equal(t, float64(loss.start-2), counted(t, m.metrics.lost.WithLabelValues("online")))
		})
	}
}

func TestTopicMadeAnew(t *testing.T) {
	for _, while := range []string{"stopped", "running"} {
		t.Run(while, func(t *testing.T) {
			b := setup(t)
			id := b.syncID(1)
			p := home(id)
			for version := 1; version <= 3; version++ {
				b.publish(message("online", id, order.Update, version))
			}
			m := b.run(b.options())
			b.awaitCommitted("online", p, 3)
			if while == "stopped" {
				m.stop()
			}
			b.deleteTopic("online")
			b.createTopic("online", testPartitions)
			b.publish(message("online", id, order.Update, 9))
			if while == "stopped" {
				b.run(b.options())
			}
			b.awaitVersions(id, 1, 2, 3, 9)
			b.awaitCommitted("online", p, 1)
		})
	}
}
