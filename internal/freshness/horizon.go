package freshness

import (
	"context"
	"fmt"
	"time"

	"ordersync/internal/order"
)

// Horizons tells for each channel the time up to which everything that the ERP has changed is known
// to have reached Temporal. A difference between ERP and target in what was changed after it may be
// merely on its way. It is the zero time while nothing is known, as before the first poll is through.
//
// Changes are published in the order in which they became visible, so what is behind the head of a
// partition is at most the overlap older. An ERP that publishes by itself must not take longer than that
// either. The clocks of the ERP and of ordersync are taken to agree to within the overlap.
func (p *Probe) Horizons(ctx context.Context) (map[order.Channel]time.Time, error) {
	// The poll before Kafka: what a completed poll has read is in the logs whose ends are then asked
	// for. The other way round, a poll could publish in between.
	asked := time.Now().UTC()
	poll, polled, err := p.poll(ctx)
	if err != nil {
		return nil, err
	}
	backlogs, err := p.backlogs(ctx, p.Topics)
	if err != nil {
		return nil, err
	}
	until, overlap := asked, p.Overlap
	if polled {
		until, overlap = earlier(asked, poll.ReadUntil), poll.Overlap
	}
	horizons := map[order.Channel]time.Time{}
	for _, channel := range p.Topics {
		horizons[channel] = until
	}
	for _, b := range backlogs {
		if b.head != nil {
			channel := p.Topics[b.Topic]
			horizons[channel] = earlier(horizons[channel], b.head.at)
		}
	}
	for channel, at := range horizons {
		if !at.IsZero() {
			horizons[channel] = at.Add(-overlap).UTC()
		}
	}
	return horizons, nil
}

func (p *Probe) poll(ctx context.Context) (Poll, bool, error) {
	if p.Polled == nil {
		return Poll{}, false, nil
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	poll, polled, err := p.Polled(ctx)
	if err != nil {
		return Poll{}, false, fmt.Errorf("ask for the last poll: %w", err)
	}
	return poll, polled, nil
}

func earlier(x, y time.Time) time.Time {
	if y.Before(x) {
		return y
	}
	return x
}
