package intake

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"ordersync/internal/order"
)

// lanes are the orders with work in flight in one generation, whatever partition their records
// came from, and the bounds they share. They end with their generation: calls are cancelled, not
// drained.
//
// Topics take turns for the calls, and each has its own share of lanes and bytes, so that a channel
// with a backlog, or one whose orders fail, leaves the others theirs. The topics of backfills have
// one small share together.
type lanes struct {
	ctx      context.Context // ends with the generation, and with it every call
	call     func(ctx context.Context, events []order.Event) error
	called   func(took time.Duration) // told of every call
	bury     func(r *record, reason order.Reason, detail string)
	braked   func(backfill bool) bool // while it says so, no call begins and nothing is fetched
	limits   Limits
	log      *slog.Logger
	metrics  *metrics
	troubles *troubles

	mu      sync.Mutex
	fullLog rate.Sometimes
	room    *sync.Cond // signalled when a bound may have been left
	byOrder map[string]*lane
	shares  map[string]*share // by topic
	// backfill is the share of all backfills' topics; nil if there are none.
	backfill *share
	turns    []*share // the shares, in the order in which they take turns
	turn     int
	calls    int
	waiting  int // lanes that wait for a full run
	closed   bool
	running  sync.WaitGroup
}

// share is what one topic may use of the bounds, and what it does use.
type share struct {
	name                         string
	maxLanes, maxBytes, maxCalls int

	lanes int
	bytes int
	calls int
	ready []*lane
}

const (
	// backfillPart is the part of lanes, bytes and calls that backfills may use: one in so many. Their
	// rate is what bounds them. This bounds what they take along when calls hang.
	backfillPart = 8
	// backfillShare is the name of their share. No topic can have it.
	backfillShare = "*.backfill"
	// laneShare is the part of its topic's bytes that one order may use: one in so many.
	laneShare = 4
)

func newLanes(ctx context.Context, l *lanes, topics, backfills []string) *lanes {
	l.ctx = ctx
	l.fullLog = rate.Sometimes{First: 10, Interval: logInterval}
	l.room = sync.NewCond(&l.mu)
	l.byOrder = make(map[string]*lane)
	l.shares = make(map[string]*share, len(topics)+len(backfills))
	left := l.limits
	if len(backfills) > 0 {
		l.backfill = &share{
			name:     backfillShare,
			maxLanes: max(1, left.MaxLanes/backfillPart), maxBytes: left.MaxBytes / backfillPart, maxCalls: max(1, left.MaxCalls/backfillPart),
		}
		left.MaxLanes -= l.backfill.maxLanes
		left.MaxBytes -= l.backfill.maxBytes
		l.turns = append(l.turns, l.backfill)
	}
	for _, topic := range backfills {
		l.shares[topic] = l.backfill
	}
	for _, topic := range topics {
		s := &share{name: topic, maxLanes: max(1, left.MaxLanes/len(topics)), maxBytes: left.MaxBytes / len(topics), maxCalls: left.MaxCalls}
		l.shares[topic] = s
		l.turns = append(l.turns, s)
	}
	return l
}

// awaitRoom returns when another fetch of p is due: within all bounds, and not braked. It returns
// false when the generation has ended.
func (l *lanes) awaitRoom(p *partition) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.closed && (l.braked(p.backfill) || l.full(p)) {
		l.room.Wait()
	}
	return !l.closed
}

func (l *lanes) full(p *partition) bool {
	s, at := l.shares[p.topic], p.tracker.Load().standing()
	return s.lanes >= s.maxLanes ||
		s.bytes >= s.maxBytes ||
		at.next-at.committed >= int64(l.limits.MaxInFlight)
}

// take puts records of one fetch into the lanes of their orders. Calls begin only when all that fit
// are in: events of an order that came together go together. At a bound it waits for room. It
// returns false when the generation has ended.
func (l *lanes) take(records []*record) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(records) > 0 {
		r := records[0]
		// What lies between the last record and this one is no record. Without saying so, a gap wider
		// than the window would never close.
		r.tracker.passed(r.message.Offset)
		if l.closed {
			return false
		}
		if !l.fits(r) {
			l.dispatch()
			l.room.Wait()
			continue
		}
		l.add(r)
		records = records[1:]
	}
	l.dispatch()
	return true
}

func (l *lanes) fits(r *record) bool {
	s := l.shares[r.message.Topic]
	if r.tracker.window(r.message.Offset) > int64(l.limits.MaxInFlight) {
		return false
	}
	if s.bytes > 0 && s.bytes+r.size() > s.maxBytes {
		return false
	}
	if r.rejection != nil {
		return true
	}
	if n := l.byOrder[r.event.SyncID]; n != nil {
		// One order with a long queue stops its partition, and must not use up its topic's bytes.
		return n.bytes+r.size() <= s.maxBytes/laneShare || len(n.pending) == 0
	}
	return s.lanes < s.maxLanes
}

func (l *lanes) add(r *record) {
	s := l.shares[r.message.Topic]
	s.bytes += r.size()
	r.tracker.fetched(r.message.Offset, r.since())
	if r.rejection != nil {
		l.bury(r, r.rejection.Reason, r.rejection.Detail)
		return
	}
	n, ok := l.byOrder[r.event.SyncID]
	if !ok {
		n = &lane{syncID: r.event.SyncID, share: s}
		l.byOrder[n.syncID] = n
		s.lanes++
		n.put(r)
		l.rested(n)
		return
	}
	n.put(r)
	if n.share == l.backfill && s != l.backfill {
		l.hurry(n, s)
	}
}

// hurry moves a lane that a backfill has begun to the share of a topic whose event has come to it,
// which would else wait for the turn of backfills. Their place in the lane the events keep.
func (l *lanes) hurry(n *lane, s *share) {
	if i := slices.Index(n.share.ready, n); i >= 0 {
		n.share.ready = slices.Delete(n.share.ready, i, i+1)
		s.ready = append(s.ready, n)
	}
	n.share.lanes--
	s.lanes++
	n.share = s
	l.room.Broadcast()
}

// dispatch begins calls while there are ready lanes and the bound of calls allows.
func (l *lanes) dispatch() {
	for !l.closed && l.calls < l.limits.MaxCalls {
		n := l.nextReady()
		if n == nil {
			return
		}
		s, batch := n.share, n.batch()
		l.calls++
		s.calls++
		l.running.Go(func() { l.send(n, s, batch) })
	}
}

// nextReady takes the lane that has been ready longest of the share whose turn it is.
func (l *lanes) nextReady() *lane {
	for range l.turns {
		s := l.turns[l.turn]
		l.turn = (l.turn + 1) % len(l.turns)
		if len(s.ready) > 0 && s.calls < s.maxCalls && !l.braked(s == l.backfill) {
			n := s.ready[0]
			s.ready[0] = nil
			s.ready = s.ready[1:]
			return n
		}
	}
	return nil
}

// send makes one call, on the account of a share, and decides what it means for the lane.
func (l *lanes) send(n *lane, s *share, batch []*record) {
	ctx, cancel := context.WithTimeout(l.ctx, callTimeout)
	began := time.Now()
	err := l.call(ctx, events(batch))
	cancel()
	l.called(time.Since(began))

	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls--
	s.calls--
	switch {
	case err == nil:
		l.handedOver(n, batch)
		l.rest(n, time.Until(began.Add(callInterval)))
	case l.ctx.Err() != nil:
		return // the next owner of the partition sends them again
	case errors.As(err, new(*RunFullError)):
		l.waits(n, err)
	case refusedForSize(err) && len(batch) > 1:
		n.atMost = len(batch) / 2
		l.rest(n, 0)
	case refusedForSize(err):
		l.bury(batch[0], order.ValueTooLarge, err.Error())
		n.drop(1)
		l.recovered(n)
		l.rest(n, time.Until(began.Add(callInterval)))
	default:
		l.failed(n, batch, err)
	}
	l.dispatch()
}

func (l *lanes) handedOver(n *lane, batch []*record) {
	l.metrics.coalesced.Add(float64(len(batch) - 1))
	for _, r := range batch {
		l.finishLocked(r)
	}
	n.drop(len(batch))
	l.recovered(n)
}

// waits lets the lane ask again after a while whether its order's run has room. The order is not failing:
// it has more to do than fits into a run.
func (l *lanes) waits(n *lane, full error) {
	if n.full == nil {
		l.waiting++
		l.fullLog.Do(func() {
			l.log.Warn("an order's events wait in Kafka until its run has worked off what it has", "order", n.syncID, "error", full)
		})
	}
	if n.attempts > 0 { // an earlier call failed, and this one did not
		l.troubles.over(n.trouble())
		n.attempts, n.backoff = 0, nil
	}
	l.rest(n, n.waits())
}

func (l *lanes) recovered(n *lane) {
	if n.full != nil {
		l.waiting--
	}
	if n.attempts > 0 {
		l.troubles.over(n.trouble())
	}
	n.succeeded()
}

// failed lets the lane try again after a while, for ever: whatever refused the call passes, or is
// about the set-up. Only a refusal for size is about the events.
func (l *lanes) failed(n *lane, batch []*record, err error) {
	wait := max(callInterval, n.failed()) // the server may have taken the call all the same
	code := errorCode(err).String()
	l.metrics.retries.WithLabelValues(code).Inc()
	if l.troubles.begin(n.trouble(), code, err) {
		l.log.Error("Temporal did not take an order's events; they are sent again until it does",
			"order", n.syncID, "events", len(batch), "attempt", n.attempts, "error", err)
	}
	l.rest(n, wait)
}

// rest makes the lane ready again after d.
func (l *lanes) rest(n *lane, d time.Duration) {
	if d <= 0 {
		l.rested(n)
		return
	}
	n.timer = time.AfterFunc(d, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.rested(n)
		l.dispatch()
	})
}

// rested makes the lane ready, or ends it if nothing came.
func (l *lanes) rested(n *lane) {
	if len(n.pending) > 0 {
		n.share.ready = append(n.share.ready, n)
		return
	}
	delete(l.byOrder, n.syncID)
	n.share.lanes--
	l.room.Broadcast()
}

// finish notes that a record needs nothing more.
func (l *lanes) finish(r *record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.finishLocked(r)
}

func (l *lanes) finishLocked(r *record) {
	r.tracker.finish(r.message.Offset)
	s := l.shares[r.message.Topic]
	s.bytes -= r.size()
	l.room.Broadcast()
}

// wake looks at the bounds again after something outside of the lanes has changed: a commit, the
// brake.
func (l *lanes) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dispatch()
	l.room.Broadcast()
}

// close ends all lanes. Calls under way are left to the context that ends them.
func (l *lanes) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for _, n := range l.byOrder {
		if n.timer != nil {
			n.timer.Stop()
		}
		l.troubles.over(n.trouble()) // they are the next owner's
	}
	l.room.Broadcast()
}

// usage is what the lanes use of their bounds, by the names of the shares, and how many of them wait for
// a full run.
func (l *lanes) usage() (calls, full int, shares map[string]share) {
	l.mu.Lock()
	defer l.mu.Unlock()
	shares = make(map[string]share, len(l.shares))
	for _, s := range l.turns {
		shares[s.name] = share{lanes: s.lanes, bytes: s.bytes}
	}
	return l.calls, l.waiting, shares
}
