package intake

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/segmentio/kafka-go"
)

// awaitTopics returns the partitions of every topic, once all exist. While one is missing kafka-go
// would assign no partition of any, and form generation after generation.
func (i *Intake) awaitTopics(ctx context.Context) (map[string][]int, error) {
	var partitions map[string][]int
	err := i.troubles.persist(ctx, i.log, "look-up of topics", "look-up of topics", func(ctx context.Context) error {
		var err error
		partitions, err = i.partitions(ctx)
		return err
	})
	return partitions, err
}

func (i *Intake) partitions(ctx context.Context) (map[string][]int, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	response, err := i.client.Metadata(ctx, &kafka.MetadataRequest{Topics: i.topics})
	if err != nil {
		return nil, fmt.Errorf("ask brokers %s for topics: %w", strings.Join(i.options.Brokers, ","), err)
	}
	found := make(map[string][]int)
	var problems []error
	for _, t := range response.Topics {
		if t.Error != nil && !errors.Is(t.Error, kafka.UnknownTopicOrPartition) {
			problems = append(problems, fmt.Errorf("topic %s: %w", t.Name, t.Error))
			continue
		}
		for _, p := range t.Partitions {
			found[t.Name] = append(found[t.Name], p.ID)
		}
		slices.Sort(found[t.Name])
	}
	var missing []string
	for _, topic := range i.topics {
		if len(found[topic]) == 0 {
			missing = append(missing, topic)
		}
	}
	switch {
	case len(problems) > 0:
		return nil, errors.Join(problems...)
	case len(missing) > 0:
		hint := ""
		if slices.ContainsFunc(missing, i.isBackfill) {
			hint = "; with BACKFILL_RATE=0 those of backfills are not needed"
		}
		return nil, fmt.Errorf("topics are missing: %s; create them (ordersync setup does), nothing is read before all exist%s", strings.Join(missing, ", "), hint)
	default:
		return found, nil
	}
}
