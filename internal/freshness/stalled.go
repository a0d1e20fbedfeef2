package freshness

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"

	"ordersync/internal/intake"
	"ordersync/internal/operator"
	"ordersync/internal/order"
	"ordersync/internal/topics"
	"ordersync/workflows"
)

const (
	// stallAge is how old the first unfinished record of a partition must be before it is looked at more closely.
	// A starter says no sooner that it is not ready.
	stallAge = 30 * time.Second
	// stallPause is for how long the record must not have moved. Starters commit about once a second.
	stallPause = 3 * time.Second
)

// Stalled is the first unfinished record of a partition, if the starters do not get past it while they work.
type Stalled struct {
	// Trouble is NotTaken, NoLetter or RunFull.
	Trouble order.Trouble `json:"trouble"`
	// SyncID is the record's order, empty for what is no event.
	SyncID  string        `json:"sync_id,omitempty"`
	Channel order.Channel `json:"channel"`
	// Record is its place in Kafka (topic/partition/offset), and Since its timestamp.
	Record string    `json:"record"`
	Since  time.Time `json:"since"`
	// HistoryEvents and HistoryBytes are the size of the order's run; 0 where it has none.
	HistoryEvents int64 `json:"history_events,omitempty"`
	HistoryBytes  int64 `json:"history_bytes,omitempty"`
}

// heads remembers which records were the first unfinished ones, and since when.
type heads struct {
	mu   sync.Mutex
	seen map[place]sighting
}

type place struct {
	topic     string
	partition int
}

type sighting struct {
	offset int64
	first  time.Time
}

// stalled finds the stalled records among the heads of backlogs. A head that was not seen before is looked at
// again after a moment.
func (p *Probe) stalled(ctx context.Context, backlogs []backlog, retrying int64) ([]Stalled, error) {
	var old []backlog
	for _, b := range backlogs {
		if b.head != nil && time.Since(b.head.since) > stallAge {
			old = append(old, b)
		}
	}
	old, unsure := p.heads.note(old)
	if len(unsure) > 0 {
		still, err := p.unmoved(ctx, unsure)
		if err != nil {
			return nil, err
		}
		old = append(old, still...)
	}
	// What nobody reads stalls for another reason, as does what nobody fetches on purpose.
	if len(old) == 0 || p.MaxRetrying > 0 && retrying > int64(p.MaxRetrying) {
		return nil, nil
	}
	if working, err := p.startersWork(ctx); err != nil || !working {
		return nil, err
	}
	var all []Stalled
	for _, b := range old {
		s, err := p.whyStalled(ctx, b)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// note keeps the heads that were seen, and divides them by whether they were the same for a while.
func (h *heads) note(all []backlog) (unmoved, unsure []backlog) {
	h.mu.Lock()
	defer h.mu.Unlock()
	now := time.Now()
	seen := map[place]sighting{}
	for _, b := range all {
		at := place{b.Topic, b.Partition}
		before, ok := h.seen[at]
		if !ok || before.offset != b.head.offset {
			before = sighting{b.head.offset, now}
		}
		seen[at] = before
		if now.Sub(before.first) >= stallPause {
			unmoved = append(unmoved, b)
			continue
		}
		unsure = append(unsure, b)
	}
	h.seen = seen
	return unmoved, unsure
}

// unmoved are those whose group's offset is the same after a moment.
func (p *Probe) unmoved(ctx context.Context, all []backlog) (still []backlog, err error) {
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-time.After(stallPause):
	}
	spans := make([]topics.Span, len(all))
	for i, b := range all {
		spans[i] = b.Span
	}
	if err := p.Reader.PassCommitted(ctx, p.Group, spans); err != nil {
		return nil, err
	}
	for i, b := range all {
		if spans[i].First == b.First {
			still = append(still, b)
		}
	}
	return still, nil
}

// startersWork returns whether the starters' group has members and is at rest.
func (p *Probe) startersWork(ctx context.Context) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	client := kafka.Client{Addr: kafka.TCP(p.Reader.Brokers...), Transport: p.Reader.Transport}
	answer, err := client.DescribeGroups(ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{p.Group}})
	if err != nil {
		return false, fmt.Errorf("ask Kafka for the group %s: %w", p.Group, err)
	}
	const stable = "Stable"
	return len(answer.Groups) == 1 && answer.Groups[0].Error == nil && answer.Groups[0].GroupState == stable && len(answer.Groups[0].Members) > 0, nil
}

func (p *Probe) whyStalled(ctx context.Context, b backlog) (Stalled, error) {
	s := Stalled{
		Trouble: order.NotTaken, SyncID: b.head.syncID, Channel: p.Topics[b.Topic], Since: b.head.since,
		Record: fmt.Sprintf("%s/%d/%d", b.Topic, b.Partition, b.head.offset),
	}
	if s.SyncID == "" {
		s.Trouble = order.NoLetter
		return s, nil
	}
	w, err := operator.Describe(ctx, p.Temporal, s.SyncID)
	switch {
	case errors.Is(err, operator.ErrNoWorkflow):
	case err != nil:
		return s, err
	case w.Running():
		s.HistoryEvents, s.HistoryBytes = w.HistoryEvents, w.HistoryBytes
		if intake.RunIsFull(w.HistoryEvents, w.HistoryBytes) {
			s.Trouble = order.RunFull
		}
	}
	return s, nil
}

// Stalled looks for the stalled records of the channels' topics.
func (p *Probe) Stalled(ctx context.Context) ([]Stalled, error) {
	backlogs, err := p.backlogs(ctx, p.Topics)
	if err != nil {
		return nil, err
	}
	retrying, err := operator.Selection{Status: workflows.StatusRetrying, TaskQueue: p.TaskQueue}.Count(ctx, p.Temporal)
	if err != nil {
		return nil, err
	}
	return p.stalled(ctx, backlogs, retrying)
}
