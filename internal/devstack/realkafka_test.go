package devstack_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"

	"ordersync/internal/devstack"
	"ordersync/internal/devstack/devtest"
)

func TestRealKafkaSurvivesAKill(t *testing.T) {
	if os.Getenv(devtest.KafkaVariable) != "real" {
		t.Skip("needs Apache Kafka: run `make test-real`")
	}
	dir := t.TempDir()
	first, err := devstack.StartRealKafka(t.Context(), devstack.RealKafkaOptions{Dir: dir})
	require.NoError(t, err)
	createTopic(t, kafka.TCP(first.Brokers()...), "kept", 3)
	produce(t, kafka.TCP(first.Brokers()...), "kept", 200)
	first.Kill()

	again, err := devstack.StartRealKafka(t.Context(), devstack.RealKafkaOptions{Dir: dir})
	require.NoError(t, err)
	defer func() { require.NoError(t, again.Stop(t.Context())) }()
	devtest.Eventually(t, 30*time.Second, func() error {
		n, err := records(t.Context(), kafka.TCP(again.Brokers()...), "kept", 3)
		if err == nil && n != 200 {
			err = fmt.Errorf("%d records", n)
		}
		return err
	}, "all 200 records are there")
}
