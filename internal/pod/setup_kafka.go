package pod

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"

	"github.com/segmentio/kafka-go"

	"ordersync/internal/config"
)

const (
	// deadLetterBytes is the largest message of the dead-letter topic: what is refused as an event
	// for its size, above 1 MiB, should fit here as it came.
	deadLetterBytes = 16 << 20
	maxMessageBytes = "max.message.bytes"
	retentionTime   = "retention.ms"
	retentionBytes  = "retention.bytes"
	cleanupPolicy   = "cleanup.policy"
	// brokerDefault lets the brokers choose the number of replicas (KIP-464).
	brokerDefault = -1
)

func setupTopics(ctx context.Context, cfg config.Config, log *slog.Logger, o SetupOptions) ([]SetupItem, error) {
	transport := KafkaTransport(cfg)
	defer transport.CloseIdleConnections()
	kafkas := &kafka.Client{Addr: kafka.TCP(cfg.Kafka.Brokers...), Transport: transport}

	var present map[string]bool
	if err := awaitServer(ctx, log, "Kafka", o.Wait, func(ctx context.Context) (err error) {
		present, err = presentTopics(ctx, kafkas, cfg)
		return err
	}); err != nil {
		return nil, err
	}
	var items []SetupItem
	var problems []error
	for _, topic := range wantedTopics(cfg, o) {
		created := false
		if !present[topic.Topic] {
			var err error
			if created, err = createTopic(ctx, kafkas, topic); err != nil {
				problems = append(problems, err)
				continue
			}
		}
		items = append(items, SetupItem{Kind: "topic", Name: topic.Topic, Created: created})
	}
	if len(problems) > 0 {
		return items, errors.Join(problems...)
	}
	// A topic can be used once its partitions have leaders.
	if err := awaitServer(ctx, log, "Kafka", o.Wait, func(ctx context.Context) error {
		present, err := presentTopics(ctx, kafkas, cfg)
		for _, item := range items {
			if err == nil && !present[item.Name] {
				err = fmt.Errorf("topic %s has no leader yet", item.Name)
			}
		}
		return err
	}); err != nil {
		return items, err
	}
	letters := slices.IndexFunc(items, func(i SetupItem) bool { return i.Name == cfg.Kafka.DeadLetterTopic })
	if o.FixRetention {
		if err := keepAllLetters(ctx, kafkas, cfg.Kafka.DeadLetterTopic); err != nil {
			return items, err
		}
	}
	items[letters].Warning = checkDeadLetterTopic(ctx, kafkas, cfg.Kafka.DeadLetterTopic)
	return items, nil
}

func wantedTopics(cfg config.Config, o SetupOptions) []kafka.TopicConfig {
	replicas := o.ReplicationFactor
	if replicas == 0 {
		replicas = brokerDefault
	}
	var topics []kafka.TopicConfig
	for _, name := range eventTopics(cfg).Names() {
		topics = append(topics, kafka.TopicConfig{Topic: name, NumPartitions: o.Partitions, ReplicationFactor: replicas})
	}
	return append(topics, kafka.TopicConfig{
		Topic: cfg.Kafka.DeadLetterTopic, NumPartitions: 1, ReplicationFactor: replicas,
		ConfigEntries: append([]kafka.ConfigEntry{{ConfigName: maxMessageBytes, ConfigValue: strconv.Itoa(deadLetterBytes)}}, keepLetters...),
	})
}

// keepLetters keeps every dead letter: it may be the only copy of its event when somebody comes to look.
var keepLetters = []kafka.ConfigEntry{
	{ConfigName: retentionTime, ConfigValue: "-1"},
	{ConfigName: retentionBytes, ConfigValue: "-1"},
	{ConfigName: cleanupPolicy, ConfigValue: "delete"},
}

// eventTopics are those that starters read: without backfills nobody needs their topics.
func eventTopics(cfg config.Config) config.Topics {
	if cfg.BackfillRate == 0 {
		return cfg.Kafka.Topics
	}
	return cfg.Kafka.AllTopics()
}

// presentTopics are those that exist and whose partitions all have a leader.
func presentTopics(ctx context.Context, kafkas *kafka.Client, cfg config.Config) (map[string]bool, error) {
	answer, err := kafkas.Metadata(ctx, &kafka.MetadataRequest{Topics: append(eventTopics(cfg).Names(), cfg.Kafka.DeadLetterTopic)})
	if err != nil {
		return nil, fmt.Errorf("Kafka at %s does not answer; is it up, are KAFKA_BROKERS, KAFKA_TLS_* and KAFKA_SASL_* right?: %w", cfg.Kafka.Brokers, err)
	}
	present := map[string]bool{}
	for _, topic := range answer.Topics {
		switch {
		case errors.Is(topic.Error, kafka.UnknownTopicOrPartition), errors.Is(topic.Error, kafka.LeaderNotAvailable):
			continue
		case topic.Error != nil:
			return nil, fmt.Errorf("topic %s: %w", topic.Name, topic.Error)
		}
		present[topic.Name] = len(topic.Partitions) > 0 && !slices.ContainsFunc(topic.Partitions, func(p kafka.Partition) bool { return p.Error != nil })
	}
	return present, nil
}

// createTopic tells whether it was this call that created the topic.
func createTopic(ctx context.Context, kafkas *kafka.Client, topic kafka.TopicConfig) (bool, error) {
	answer, err := kafkas.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{topic}})
	if err == nil {
		err = answer.Errors[topic.Topic]
	}
	switch {
	case errors.Is(err, kafka.TopicAlreadyExists):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("create topic %s (or have it created with %d partitions): %w", topic.Topic, topic.NumPartitions, err)
	}
	return true, nil
}

// keepAllLetters has the dead-letter topic keep its letters without end. Other settings of the topic stay.
func keepAllLetters(ctx context.Context, kafkas *kafka.Client, name string) error {
	resource := kafka.IncrementalAlterConfigsRequestResource{ResourceType: kafka.ResourceTypeTopic, ResourceName: name}
	for _, entry := range keepLetters {
		resource.Configs = append(resource.Configs, kafka.IncrementalAlterConfigsRequestConfig{
			Name: entry.ConfigName, Value: entry.ConfigValue, ConfigOperation: kafka.ConfigOperationSet,
		})
	}
	answer, err := kafkas.IncrementalAlterConfigs(ctx, &kafka.IncrementalAlterConfigsRequest{
		Resources: []kafka.IncrementalAlterConfigsRequestResource{resource},
	})
	for i := 0; err == nil && i < len(answer.Resources); i++ {
		err = answer.Resources[i].Error
	}
	if err != nil {
		return fmt.Errorf("set the retention of topic %s; do it by yourself: %s: %w", name, alterCommand(name, keepLetters), err)
	}
	return nil
}

// checkDeadLetterTopic says what is wrong with the topic as it is, empty if nothing. A topic that
// was there is somebody's decision, so it is not changed.
func checkDeadLetterTopic(ctx context.Context, kafkas *kafka.Client, name string) string {
	names := []string{maxMessageBytes, retentionTime, retentionBytes, cleanupPolicy}
	answer, err := kafkas.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{Resources: []kafka.DescribeConfigRequestResource{
		{ResourceType: kafka.ResourceTypeTopic, ResourceName: name, ConfigNames: names},
	}})
	if err != nil {
		return fmt.Sprintf("its settings cannot be read: %v", err)
	}
	settings := map[string]string{}
	for _, resource := range answer.Resources {
		if resource.Error != nil {
			return fmt.Sprintf("its settings cannot be read: %v", resource.Error)
		}
		for _, entry := range resource.ConfigEntries {
			settings[entry.ConfigName] = strings.TrimSpace(entry.ConfigValue)
		}
	}
	var wrong []string
	if n, err := strconv.Atoi(settings[maxMessageBytes]); err == nil && n < deadLetterBytes {
		raised := []kafka.ConfigEntry{{ConfigName: maxMessageBytes, ConfigValue: strconv.Itoa(deadLetterBytes)}}
		wrong = append(wrong, fmt.Sprintf("%s is %d: larger records become dead letters without their value; raise it to %d (%s)",
			maxMessageBytes, n, deadLetterBytes, alterCommand(name, raised)))
	}
	var limits []string
	for _, entry := range keepLetters {
		if is, known := settings[entry.ConfigName]; known && is != entry.ConfigValue {
			limits = append(limits, fmt.Sprintf("%s is %s", entry.ConfigName, is))
		}
	}
	if len(limits) > 0 {
		wrong = append(wrong, fmt.Sprintf("%s: the brokers delete dead letters, which may be the only copy of their events; keep them (ordersync setup --fix-retention)",
			strings.Join(limits, ", ")))
	}
	return strings.Join(wrong, "; ")
}

// alterCommand is what Kafka's own tools take to set entries of a topic.
func alterCommand(topic string, entries []kafka.ConfigEntry) string {
	var sets []string
	for _, entry := range entries {
		sets = append(sets, entry.ConfigName+"="+entry.ConfigValue)
	}
	return fmt.Sprintf("kafka-configs.sh --alter --entity-type topics --entity-name %s --add-config %s", topic, strings.Join(sets, ","))
}
