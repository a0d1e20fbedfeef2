package intake

import (
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"

	"ordersync/internal/order"
)

// A generation's function must end within 5 s of the generation, or this member holds up the group:
// a commit has groupTimeout, and what was cancelled before it has stopTimeout to stop.
const (
	commitInterval = time.Second
	stopTimeout    = 1500 * time.Millisecond
)

// generation is one term in the group: the partitions it was given, the lanes of their orders, and
// the right to commit. Nothing of it lives on in the next one.
type generation struct {
	id         int32
	partitions []*partition
	starts     []int64 // by partition, the committed offset
	lanes      *lanes
	log        *slog.Logger
	metrics    *metrics
	// commit is Generation.CommitOffsets, which the coordinator refuses once another generation has
	// begun.
	commit func(offsets map[string]map[int]int64) error
}

// newGeneration prepares what kafka-go assigned. ctx ends every call to Temporal.
func (i *Intake) newGeneration(ctx context.Context, assigned *kafka.Generation, partitions map[string][]int) *generation {
	log := i.log.With("generation", assigned.ID)
	g := &generation{
		id:      assigned.ID,
		log:     log,
		metrics: i.metrics,
		commit:  assigned.CommitOffsets,
		lanes: newLanes(ctx, &lanes{
			call:     i.call,
			called:   i.pace.called,
			bury:     func(r *record, reason order.Reason, detail string) { r.partition.bury(r, reason, detail) },
			braked:   i.brake.on,
			limits:   i.options.Limits,
			log:      log,
			metrics:  i.metrics,
			troubles: i.troubles,
		}, slices.Sorted(maps.Keys(i.options.Topics)), slices.Sorted(maps.Keys(i.options.Backfill))),
	}
	for _, topic := range i.topics {
		for _, a := range assigned.Assignments[topic] {
			p := &partition{
				intake: i, lanes: g.lanes, topic: topic, id: a.ID,
				channel: i.channels[topic], backfill: i.isBackfill(topic), all: partitions[topic],
				log:     log.With("topic", topic, "partition", a.ID),
				letters: newLetters(), fetchBytes: fetchFirst,
			}
			g.partitions = append(g.partitions, p)
			g.starts = append(g.starts, a.Offset)
		}
	}
	return g
}

// run is the generation from its begin to its last commit. It returns within 5 s after ctx has ended.
func (g *generation) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var workers sync.WaitGroup
	for n, p := range g.partitions {
		workers.Go(func() { p.run(ctx, g.starts[n]) })
		workers.Go(func() { p.writeDeadLetters(ctx) })
	}

	healthy := true
	ticker := time.NewTicker(commitInterval)
	defer ticker.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-ticker.C:
			healthy = g.commitFinished()
		}
	}

	g.lanes.close()
	stopped := make(chan struct{})
	go func() {
		workers.Wait()
		g.lanes.running.Wait()
		close(stopped)
	}()
	select {
	case <-stopped:
	case <-time.After(stopTimeout):
		g.log.Warn("calls did not end with their generation; what they finish is sent again")
	}
	if healthy { // else the coordinator does not answer, and there is no time to wait for it again
		g.commitFinished()
	}
}

// commitFinished commits, for every partition, all below its first unfinished record. A failure is
// made good by the next commit, or by sending again.
func (g *generation) commitFinished() bool {
	offsets := make(map[string]map[int]int64)
	var then []func()
	for _, p := range g.partitions {
		t := p.tracker.Load()
		if t == nil {
			continue // its start is not found yet
		}
		offset, news := t.uncommitted()
		if !news {
			continue
		}
		if offsets[p.topic] == nil {
			offsets[p.topic] = make(map[int]int64)
		}
		offsets[p.topic][p.id] = offset
		then = append(then, func() { t.commit(offset) })
	}
	if len(offsets) == 0 {
		return true
	}
	if err := g.commit(offsets); err != nil {
		g.metrics.commitFailures.Inc()
		g.log.Warn("offsets were not committed; what is finished may be sent again, which changes nothing", "error", err)
		return false
	}
	for _, done := range then {
		done()
	}
	g.lanes.wake()
	return true
}
