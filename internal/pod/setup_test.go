package pod_test

import (
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"ordersync/internal/devstack"
	"ordersync/internal/pod"
)

func TestSetupCanBeRepeated(t *testing.T) {
	// A server that knows no search attributes yet.
	temporal, err := devstack.StartTemporal(t.Context(), devstack.TemporalOptions{Dir: t.TempDir(), Headless: true, InMemory: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(temporal.Kill)
	cfg := load(t, environ(t, "TEMPORAL_ADDRESS="+temporal.Address()))
	log := slog.New(slog.DiscardHandler)

	for _, created := range []bool{true, false} {
		items, err := pod.Setup(t.Context(), cfg, log, pod.SetupOptions{Partitions: 3})
		if err != nil {
			t.Fatal(err)
		}
		kinds := map[string]int{}
		for _, item := range items {
			kinds[item.Kind]++
			if item.Created != created {
				t.Errorf("%+v, want created %v", item, created)
			}
			if item.Warning != "" {
				t.Errorf("%+v", item)
			}
		}
		if kinds["topic"] != 7 || kinds["search_attribute"] < 4 || kinds["schema"] != 1 || len(kinds) != 3 {
			t.Errorf("%v", kinds)
		}
	}

	transport := pod.KafkaTransport(cfg)
	defer transport.CloseIdleConnections()
	kafkas := &kafka.Client{Addr: kafka.TCP(cfg.Kafka.Brokers...), Transport: transport}
	answer, err := kafkas.Metadata(t.Context(), &kafka.MetadataRequest{Topics: cfg.Kafka.AllTopics().Names()})
	if err != nil {
		t.Fatal(err)
	}
	if len(answer.Topics) != 6 {
		t.Errorf("%d topics of events, want those of 3 channels and of their backfills", len(answer.Topics))
	}
	for _, topic := range answer.Topics {
		if len(topic.Partitions) != 3 {
			t.Errorf("topic %s has %d partitions", topic.Name, len(topic.Partitions))
		}
	}
}

func TestSetupLeavesTopicsAlone(t *testing.T) {
	cfg := load(t, environ(t))
	transport := pod.KafkaTransport(cfg)
	defer transport.CloseIdleConnections()
	kafkas := &kafka.Client{Addr: kafka.TCP(cfg.Kafka.Brokers...), Transport: transport}
	if _, err := kafkas.CreateTopics(t.Context(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{
		{Topic: cfg.Kafka.DeadLetterTopic, NumPartitions: 2, ReplicationFactor: 1},
	}}); err != nil {
		t.Fatal(err)
	}
	items, err := pod.Setup(t.Context(), cfg, slog.New(slog.DiscardHandler), pod.SetupOptions{})
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(items, func(i pod.SetupItem) bool { return i.Name == cfg.Kafka.DeadLetterTopic })
	if i < 0 || items[i].Created || !strings.Contains(items[i].Warning, "raise it to 16777216") {
		t.Errorf("%+v", items)
	}
}

// Letters may be the only copy of their events: a topic that deletes them is told of, and changed where that is asked for.
func TestSetupWarnsOfALimitedRetention(t *testing.T) {
	for name, entry := range map[string]kafka.ConfigEntry{
		"the brokers' default": {ConfigName: "max.message.bytes", ConfigValue: "16777216"},
		"a time":               {ConfigName: "retention.ms", ConfigValue: "604800000"},
		"a size":               {ConfigName: "retention.bytes", ConfigValue: "1000000"},
		"compaction":           {ConfigName: "cleanup.policy", ConfigValue: "compact"},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := load(t, environ(t))
			transport := pod.KafkaTransport(cfg)
			defer transport.CloseIdleConnections()
			kafkas := &kafka.Client{Addr: kafka.TCP(cfg.Kafka.Brokers...), Transport: transport}
			if _, err := kafkas.CreateTopics(t.Context(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{
				{Topic: cfg.Kafka.DeadLetterTopic, NumPartitions: 1, ReplicationFactor: 1, ConfigEntries: []kafka.ConfigEntry{
					{ConfigName: "max.message.bytes", ConfigValue: "16777216"}, entry,
				}},
			}}); err != nil {
				t.Fatal(err)
			}
			warning := func(o pod.SetupOptions) string {
				items, err := pod.Setup(t.Context(), cfg, slog.New(slog.DiscardHandler), o)
				if err != nil {
					t.Fatal(err)
				}
				return items[slices.IndexFunc(items, func(i pod.SetupItem) bool { return i.Name == cfg.Kafka.DeadLetterTopic })].Warning
			}
			if got := warning(pod.SetupOptions{}); !strings.Contains(got, "--fix-retention") || strings.Contains(got, "raise it") {
				t.Errorf("got %q", got)
			}
			for _, fix := range []bool{true, false} {
				if got := warning(pod.SetupOptions{FixRetention: fix}); got != "" {
					t.Errorf("fixed: %q", got)
				}
			}
		})
	}
}

// One server that is down must not keep the others from being set up.
func TestSetupGoesOn(t *testing.T) {
	cfg := load(t, environ(t, "KAFKA_BROKERS=127.0.0.1:1"))
	items, err := pod.Setup(t.Context(), cfg, slog.New(slog.DiscardHandler), pod.SetupOptions{Wait: 2 * time.Second})
	if err == nil || !strings.Contains(err.Error(), "Kafka was not ready within 2s") || !strings.Contains(err.Error(), "KAFKA_BROKERS") {
		t.Errorf("got %v", err)
	}
	if !slices.ContainsFunc(items, func(i pod.SetupItem) bool { return i.Kind == "schema" }) {
		t.Errorf("the schema was not set up: %+v", items)
	}
}
