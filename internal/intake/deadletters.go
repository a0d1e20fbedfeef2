package intake

import (
	"context"
	"sync"
	"time"

	"ordersync/internal/order"
)

// deadLetterTimeout bounds one attempt to write a dead letter.
const deadLetterTimeout = 10 * time.Second

// letters are a partition's records on their way to the dead-letter topic: written one after the
// other, so that those of an order stay in order, and beside the fetching, so that a dead-letter
// topic that is away stops the partition only at its bounds.
type letters struct {
	mu    sync.Mutex
	queue []letter
	some  chan struct{} // holds a token while the queue may have something
}

type letter struct {
	record *record
	reason order.Reason
	detail string
}

func newLetters() letters { return letters{some: make(chan struct{}, 1)} }

// bury queues a record for the dead-letter topic. It does not wait; the queue is within the bounds
// of what is in flight.
func (p *partition) bury(r *record, reason order.Reason, detail string) {
	p.letters.mu.Lock()
	defer p.letters.mu.Unlock()
	p.letters.queue = append(p.letters.queue, letter{r, reason, detail})
	select {
	case p.letters.some <- struct{}{}:
	default:
	}
}

func (p *partition) takeLetters() []letter {
	p.letters.mu.Lock()
	defer p.letters.mu.Unlock()
	queue := p.letters.queue
	p.letters.queue = nil
	return queue
}

// writeDeadLetters writes what is buried until ctx ends. A record is finished when the topic has
// acknowledged it, however many attempts that takes.
func (p *partition) writeDeadLetters(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.letters.some:
		}
		for _, l := range p.takeLetters() {
			if err := p.writeDeadLetter(ctx, l); err != nil {
				return
			}
		}
	}
}

func (p *partition) writeDeadLetter(ctx context.Context, l letter) error {
	err := p.intake.troubles.persist(ctx, p.log, "dead letter", "dead letter of "+p.name(), func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, deadLetterTimeout)
		defer cancel()
		return p.intake.options.DeadLetters.DeadLetter(ctx, l.record.deadLetter(l.reason, l.detail))
	})
	if err != nil {
		return err
	}
	p.intake.metrics.deadLetters.WithLabelValues(p.topic, string(l.reason)).Inc()
	p.intake.buried.Do(func() {
		p.log.Warn("a record went to the dead-letter topic", "offset", l.record.message.Offset, "reason", l.reason, "detail", l.detail)
	})
	p.lanes.finish(l.record)
	return nil
}
