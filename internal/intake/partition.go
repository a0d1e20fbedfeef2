package intake

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"

	"ordersync/internal/order"
	"ordersync/internal/recordset"
)

const (
	// fetchWait is how long a fetch waits for the first record. A record that comes ends the wait.
	fetchWait = time.Second
	// A fetch is bounded in bytes as they are stored, but what takes memory is what comes out of the
	// compression. So the bound follows the ratio, between these, for about fetchMost to come out. A
	// batch is never split; a larger one comes all the same.
	fetchMost  = 128 << 10
	fetchFirst = 16 << 10
	fetchLeast = 1 << 10
	// requestTimeout bounds every other request to a broker, and a fetch beyond its wait.
	requestTimeout = 5 * time.Second
	// anewChecks and anewInterval are how often and how far apart a committed offset must be found
	// above the end before the topic counts as made anew: a new leader may know a lower end at first.
	anewChecks   = 3
	anewInterval = time.Second
	// outsideInterval is the time between two fetches of an offset that the broker refuses although
	// its log holds it.
	outsideInterval = 100 * time.Millisecond
	// doubtChecks and doubtInterval are how often and how far apart a batch that cannot be read is fetched before it becomes
	// a dead letter.
	doubtChecks   = 3
	doubtInterval = time.Second
)

// partition is one assigned partition in one generation.
type partition struct {
	intake  *Intake
	lanes   *lanes
	log     *slog.Logger
	topic   string
	id      int
	channel order.Channel
	// backfill tells that the topic is one of a backfill, which is read at a limited rate.
	backfill bool
	all      []int // the ids of the topic's partitions

	// tracker is replaced when the topic turns out to have been made anew; records keep theirs.
	tracker       atomic.Pointer[tracker]
	highWatermark atomic.Int64
	letters       letters
	// The goroutine that fetches has the rest to itself.
	fetchBytes int // of the next fetch
	doubt      doubt
}

// doubt is about a batch that could not be read, by its first offset, and how often in a row.
type doubt struct {
	first int64
	times int
}

// fitFetch chooses the size of the next fetch by the bytes that came out of the last: it shrinks at once, and
// grows by doubling while answers are about full.
func (p *partition) fitFetch(bytes int) {
	most := fetchMost
	if p.backfill {
		most = fetchFirst // it waits in memory for its turn
	}
	switch {
	case bytes > most:
		p.fetchBytes = max(fetchLeast, p.fetchBytes*most/bytes)
	case bytes > p.fetchBytes/2:
		p.fetchBytes = min(most, 2*p.fetchBytes)
	}
}

// most is about how many bytes of records are decoded at a time.
func (p *partition) most() int {
	if p.backfill {
		return fetchFirst
	}
	return partMost
}

func (p *partition) name() string { return fmt.Sprintf("%s/%d", p.topic, p.id) }

// run fetches from the committed offset on, kafka.FirstOffset where there is none, until ctx ends.
func (p *partition) run(ctx context.Context, committed int64) {
	offset, err := p.locate(ctx, committed)
	for err == nil {
		if !p.lanes.awaitRoom(p) {
			return
		}
		offset, err = p.step(ctx, offset)
	}
}

// step makes one fetch, puts what came into the lanes, and returns where to go on. It returns an
// error only when the generation has ended.
func (p *partition) step(ctx context.Context, offset int64) (int64, error) {
	var got *fetched
	var messages []incoming
	var corrupt *recordset.CorruptError
	outside, size := false, p.fetchBytes
	if p.doubt.times > 0 {
		size = doubtBytes
	}
	err := p.intake.troubles.persist(ctx, p.log, "fetch", "fetch of "+p.name(), func(ctx context.Context) error {
		var err error
		got, err = fetch(ctx, p.intake.transport, p.intake.options.Brokers, p.topic, p.id, offset, size, order.MaxValue, fetchWait)
		if outside = errors.Is(err, kafka.OffsetOutOfRange); outside {
			return nil
		}
		if err != nil {
			return err
		}
		messages, err = got.more(ctx, p.most())
		if errors.As(err, &corrupt) || len(messages) > 0 {
			return nil // another error comes again with the next fetch
		}
		return err
	})
	switch {
	case err != nil:
		return offset, err
	case outside:
		next, err := p.locate(ctx, offset)
		if err == nil && next == offset {
			err = pause(ctx, outsideInterval) // the broker contradicts itself, as in a change of leaders
		}
		return next, err
	}
	p.highWatermark.Store(got.highWatermark)
	tracker := p.tracker.Load()
	bytes := 0
	for {
		if corrupt != nil {
			m, ok := p.giveUp(got, corrupt)
			if ok {
				messages = append(messages, m)
			}
		}
		records := make([]*record, len(messages))
		for i, m := range messages {
			records[i] = p.decode(m, tracker)
			bytes += len(m.Key) + len(m.Value)
		}
		p.intake.metrics.fetched.WithLabelValues(p.topic).Add(float64(len(records)))
		if err := p.hand(ctx, records); err != nil {
			return offset, err
		}
		tracker.passed(got.next)
		if corrupt != nil {
			// The rest of the answer is fetched again, after a while if the batch is not given up yet.
			if p.doubt.times > 0 {
				return got.next, pause(ctx, doubtInterval)
			}
			return got.next, nil
		}
		messages, err = got.more(ctx, p.most())
		if !errors.As(err, &corrupt) && len(messages) == 0 {
			break // an error comes again with the next fetch
		}
	}
	if size == p.fetchBytes {
		p.fitFetch(bytes)
	}
	p.doubt = doubt{}
	return got.next, nil
}

// giveUp returns what takes the place of a batch that cannot be read, once it was fetched doubtChecks times in a row:
// another replica may have it undamaged, or it was damaged on its way.
func (p *partition) giveUp(got *fetched, corrupt *recordset.CorruptError) (incoming, bool) {
	if p.doubt.times == 0 || p.doubt.first != corrupt.First {
		p.doubt = doubt{first: corrupt.First}
	}
	if p.doubt.times++; p.doubt.times < doubtChecks {
		p.log.Warn("a batch of records cannot be read; it is fetched again", "first", corrupt.First, "last", corrupt.Last, "error", corrupt.Err)
		return incoming{}, false
	}
	p.doubt = doubt{}
	p.log.Error("a batch of records cannot be read and becomes one dead letter; publish its events again",
		"first", corrupt.First, "last", corrupt.Last, "error", corrupt.Err)
	return got.unreadable(corrupt), true
}

// hand puts records into the lanes: at once, or those of a backfill as its rate allows, one by one or
// in small parts. It returns an error only when the generation has ended.
//
// What waits for the rate is in no lane and counts against no bound: it is as if not fetched yet.
// While there is no room, or the brake is on, nothing is taken of the rate either.
func (p *partition) hand(ctx context.Context, records []*record) error {
	if !p.backfill {
		if !p.lanes.take(records) {
			return context.Cause(ctx)
		}
		return nil
	}
	pace := p.intake.pace
	for part := range slices.Chunk(records, pace.Burst()) {
		if !p.lanes.awaitRoom(p) {
			return context.Cause(ctx)
		}
		if err := pace.WaitN(ctx, len(part)); err != nil {
			return err
		}
		if !p.lanes.take(part) {
			return context.Cause(ctx)
		}
	}
	return nil
}

// decode reads the event in a record, or why there is none. The body alone decides which order it
// is; a key or a partition that does not follow from it is counted, as two events of an order in
// two partitions have no order of arrival.
func (p *partition) decode(m incoming, t *tracker) *record {
	r := &record{message: m.Message, keyDigest: m.keyDigest, valueDigest: m.valueDigest, partition: p, tracker: t}
	e, unreadTime, err := m.event(p.channel)
	if err != nil {
		if !errors.As(err, &r.rejection) {
			r.rejection = &order.Rejection{Reason: order.MalformedJSON, Detail: err.Error()}
		}
		return r
	}
	r.event = e
	if unreadTime {
		p.intake.metrics.unreadTimes.WithLabelValues(p.topic).Inc()
	}
	if string(m.Key) != e.SyncID {
		p.intake.metrics.foreignKey.WithLabelValues(p.topic).Inc()
	}
	home := kafka.Murmur2Balancer{Consistent: true}.Balance(kafka.Message{Key: []byte(e.SyncID)}, p.all...)
	if home != p.id {
		p.intake.metrics.foreignPartition.WithLabelValues(p.topic).Inc()
	}
	return r
}

// locate finds where to begin, or to go on after the broker has refused the offset: at offset if
// the log holds it, and else at the log's start. It sets the tracker, and returns an error only when
// the generation has ended.
func (p *partition) locate(ctx context.Context, offset int64) (int64, error) {
	above := 0
	var first, end int64
	err := p.intake.troubles.persist(ctx, p.log, "look-up of offsets", "look-up of offsets of "+p.name(), func(ctx context.Context) error {
		for {
			var err error
			if first, end, err = p.bounds(ctx); err != nil || offset <= end {
				return err
			}
			if above++; above == anewChecks {
				return nil
			}
			if err := pause(ctx, anewInterval); err != nil {
				return err
			}
		}
	})
	if err != nil {
		return offset, err
	}
	p.highWatermark.Store(end)
	current := p.tracker.Load()
	switch {
	case offset == kafka.FirstOffset:
		p.tracker.Store(newTracker(first, false))
		return first, nil
	case offset > end:
		// What is in flight of the old topic stays so, and counts no more.
		p.log.Error("the topic was made anew: the offset is above its end; reading goes on at its start",
			"offset", offset, "end", end, "start", first)
		p.intake.metrics.reset.WithLabelValues(p.topic).Inc()
		p.intake.metrics.lost.WithLabelValues(p.topic).Add(float64(first))
		p.tracker.Store(newTracker(first, false))
		return first, nil
	case offset < first:
		p.log.Error("records were deleted by Kafka's retention before they were read; reading goes on at the log's start",
			"offset", offset, "start", first, "lost", first-offset)
		p.intake.metrics.lost.WithLabelValues(p.topic).Add(float64(first - offset))
		if current == nil {
			p.tracker.Store(newTracker(first, false))
		}
		return first, nil // the next fetch tells the tracker that the gap is passed
	default:
		if current == nil {
			p.tracker.Store(newTracker(offset, true))
		}
		return offset, nil
	}
}

// bounds are the log's first offset and the one after its last.
func (p *partition) bounds(ctx context.Context) (first, end int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	response, err := p.intake.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{
		Topics: map[string][]kafka.OffsetRequest{p.topic: {kafka.FirstOffsetOf(p.id), kafka.LastOffsetOf(p.id)}},
	})
	if err != nil {
		return 0, 0, err
	}
	for _, found := range response.Topics[p.topic] {
		if found.Partition == p.id {
			return found.FirstOffset, found.LastOffset, found.Error
		}
	}
	return 0, 0, fmt.Errorf("the broker's answer lacks partition %s", p.name())
}
