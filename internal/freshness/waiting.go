package freshness

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"

	"ordersync/internal/order"
)

// Waiting are an order's records that no starter has finished. Those of other orders in their partition may have to
// be finished first.
type Waiting struct {
	// Records is how many there are among those read, and More tells that not all were.
	Records int  `json:"records"`
	More    bool `json:"more"`
	// First is the place of the first one (topic/partition/offset), and Since its timestamp.
	First string    `json:"first"`
	Since time.Time `json:"since"`
	// Stalled is set where the first one is the first of its partition and the starters do not get past it.
	Stalled *Stalled `json:"stalled,omitempty"`
}

// waitingRead bounds the records of a partition that are read for one order.
const waitingRead = 5000

var errEnough = errors.New("enough was read")

// Waiting looks for an order's records in the channels' topics that are not finished, in the partition of its key and
// among the first ones of every other; nil for none.
func (p *Probe) Waiting(ctx context.Context, syncID string) (*Waiting, error) {
	backlogs, err := p.backlogs(ctx, p.Topics)
	if err != nil {
		return nil, err
	}
	partitions := map[string][]int{}
	for _, b := range backlogs {
		partitions[b.Topic] = append(partitions[b.Topic], b.Partition)
	}
	var found Waiting
	for _, b := range backlogs {
		all := partitions[b.Topic]
		slices.Sort(all)
		own := kafka.Murmur2Balancer{}.Balance(kafka.Message{Key: []byte(syncID)}, all...) == b.Partition
		if b.Len() == 0 || !own && (b.head == nil || b.head.syncID != syncID) {
			continue
		}
		read := 0
		err := p.Reader.Read(ctx, b.Span, func(m kafka.Message) error {
			if read++; read > waitingRead {
				return errEnough
			}
			e, err := order.Decode(order.Record{Topic: m.Topic, Partition: m.Partition, Offset: m.Offset, Timestamp: m.Time, Value: m.Value}, p.Topics[m.Topic])
			if err != nil || e.SyncID != syncID {
				return nil
			}
			if found.Records++; found.Records == 1 {
				found.First, found.Since = fmt.Sprintf("%s/%d/%d", m.Topic, m.Partition, m.Offset), m.Time.UTC()
			}
			return nil
		})
		if errors.Is(err, errEnough) {
			found.More, err = true, nil
		}
		if err != nil {
			return nil, err
		}
	}
	if found.Records == 0 {
		return nil, nil
	}
	if p.Temporal == nil {
		return &found, nil
	}
	stalled, err := p.stalled(ctx, backlogs, 0)
	for _, s := range stalled {
		if s.SyncID == syncID && s.Record == found.First {
			found.Stalled = &s
		}
	}
	return &found, err
}
