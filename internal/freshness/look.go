package freshness

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"time"

	"ordersync/internal/operator"
	"ordersync/internal/order"
	"ordersync/internal/target"
)

// rateWindow is what the rates are of.
const rateWindow = time.Minute

// findings are the parts of a look, each with its error.
type findings struct {
	poll    Poll
	polled  bool
	pollErr error

	backlogs []backlog
	kafkaErr error

	backfills   []backlog
	backfillErr error

	letters    int64
	lettersErr error

	queue    *TaskQueue
	queueErr error

	stuck    operator.Glance
	waiting  map[order.Channel][]Oldest // of stuck.Oldest
	stuckErr error

	paces     map[string]target.Pace
	targetErr error

	unwell    []target.UnwellCount
	runs      []order.UnwellRun // the longest unwell ones
	unwellErr error

	stalled    []Stalled
	stalledErr error
}

// unwellRuns is how many unwell runs are asked for to find the oldest event.
const unwellRuns = 1000

// Look looks once. The Status has what could be looked up, also where there is an error.
func (p *Probe) Look(ctx context.Context) (Status, error) {
	now := time.Now().UTC()
	var f findings
	var parts sync.WaitGroup
	parts.Go(func() { f.poll, f.polled, f.pollErr = p.poll(ctx) })
	parts.Go(func() { f.backlogs, f.kafkaErr = p.backlogs(ctx, p.Topics) })
	parts.Go(func() { f.backfills, f.backfillErr = p.backlogs(ctx, p.Backfill) })
	parts.Go(func() { f.letters, f.lettersErr = p.deadLetters(ctx) })
	parts.Go(func() {
		f.queue, f.queueErr = p.taskQueue(ctx)
		if f.stuck, f.stuckErr = p.stuckOrders(ctx, now); f.stuckErr == nil {
			f.waiting = p.waiting(ctx, f.stuck, f.queueErr == nil && f.queue.Pollers > 0)
		}
	})
	if p.Target != nil {
		parts.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, requestTimeout)
			defer cancel()
			f.paces, f.targetErr = p.Target.Recent(ctx, rateWindow)
		})
		parts.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, requestTimeout)
			defer cancel()
			if f.unwell, f.unwellErr = p.Target.CountUnwell(ctx); f.unwellErr == nil && len(f.unwell) > 0 {
				f.runs, f.unwellErr = p.Target.Unwell(ctx, unwellRuns)
			}
		})
	}
	parts.Wait()
	if f.kafkaErr == nil && f.stuckErr == nil {
		var retrying int64
		for _, n := range f.stuck.Retrying {
			retrying += n
		}
		f.stalled, f.stalledErr = p.stalled(ctx, f.backlogs, retrying)
	}

	s := p.status(f, now)
	errs := []error{f.pollErr, f.kafkaErr, f.backfillErr, f.lettersErr, f.queueErr, f.stuckErr, f.targetErr, f.unwellErr, f.stalledErr}
	for _, err := range errs {
		if err != nil {
			s.Problems = append(s.Problems, err.Error())
		}
	}
	return s, errors.Join(errs...)
}

func (p *Probe) deadLetters(ctx context.Context) (int64, error) {
	spans, err := p.Reader.Spans(ctx, p.DeadLetterTopic, time.Time{})
	if err != nil {
		return 0, err
	}
	var n int64
	for _, s := range spans {
		n += s.Len()
	}
	return n, nil
}

// status is what the findings come to at now.
func (p *Probe) status(f findings, now time.Time) Status {
	s := Status{At: now, Channels: []Channel{}, Backfills: []Backfill{}, TaskQueue: f.queue, Problems: []string{}, Stalled: f.stalled}
	if p.Target != nil && f.unwellErr == nil {
		s.Unwell = append([]target.UnwellCount{}, f.unwell...)
	}
	if f.lettersErr == nil {
		s.DeadLetters = &f.letters
	}
	if f.polled {
		f.poll.Late = f.poll.late(now)
		s.Poll = &f.poll
	}
	read := map[order.Channel]bool{} // they have a topic
	for _, channel := range p.Topics {
		read[channel] = true
	}
	for _, channel := range order.Channels {
		if read[channel] {
			s.Channels = append(s.Channels, p.channel(channel, f, now))
		}
		if n := lag(f.backfills, p.Backfill, channel); n != nil {
			b := Backfill{Channel: channel, Lag: *n}
			if p.Target != nil && f.targetErr == nil {
				b.EventsPerSecond, _ = pace(f.paces, p.Backfill, channel)
			}
			s.Backfills = append(s.Backfills, b)
		}
	}
	return s
}

func (p *Probe) channel(channel order.Channel, f findings, now time.Time) Channel {
	c := Channel{Channel: channel}
	c.Lag = lag(f.backlogs, p.Topics, channel)
	if f.stuckErr == nil {
		retrying, blocked := f.stuck.Retrying[string(channel)], f.stuck.Blocked[string(channel)]
		c.Retrying, c.Blocked = &retrying, &blocked
	}
	if p.Target != nil && f.targetErr == nil {
		var busiest target.Pace
		if c.EventsPerSecond, busiest = pace(f.paces, p.Topics, channel); busiest.Timed > 0 {
			p50, p99 := busiest.P50.Milliseconds(), busiest.P99.Milliseconds()
			c.P50, c.P99 = &p50, &p99
		}
	}
	if f.kafkaErr == nil && f.stuckErr == nil && f.queueErr == nil && f.pollErr == nil && f.unwellErr == nil {
		age, waiting := 0.0, 0.0
		for _, o := range p.unsynced(channel, f, now) {
			if c.Oldest == nil || o.At.Before(c.Oldest.At) {
				c.Oldest = &o
				age = secondsSince(o.At, now)
			}
			waiting = max(waiting, secondsSince(o.Since, now))
		}
		c.AgeSeconds, c.WaitingSeconds = &age, &waiting
	}
	return c
}

// unsynced are events of a channel that are not in the target: of each place where they may wait, the
// one that goes on next or has waited longest.
func (p *Probe) unsynced(channel order.Channel, f findings, now time.Time) []Oldest {
	unsynced := slices.Clone(f.waiting[channel])
	for _, b := range f.backlogs {
		if b.head != nil && p.Topics[b.Topic] == channel {
			unsynced = append(unsynced, Oldest{
				At: b.head.at, Where: InKafka, Since: b.head.since, SyncID: b.head.syncID,
				Record: fmt.Sprintf("%s/%d/%d", b.Topic, b.Partition, b.head.offset),
			})
		}
	}
	for _, u := range f.runs {
		if order.Channel(u.Channel) == channel {
			unsynced = append(unsynced, Oldest{At: u.Oldest(), Where: InRun, Since: u.Since, SyncID: u.SyncID, Stuck: string(u.Trouble)})
		}
	}
	if f.queue.OldestSeconds > 0 {
		since := now.Add(-time.Duration(f.queue.OldestSeconds * float64(time.Second)))
		unsynced = append(unsynced, Oldest{At: since, Where: InTaskQueue, Since: since})
	}
	if f.polled && f.poll.late(now) {
		unsynced = append(unsynced, Oldest{At: f.poll.since(), Where: InERP, Since: f.poll.since()})
	}
	return unsynced
}

// secondsSince is a number of seconds, to the millisecond.
func secondsSince(t, now time.Time) float64 {
	return max(0, now.Sub(t).Round(time.Millisecond).Seconds())
}

// pace is the rate of a channel's topics, and the pace of the busiest one.
func pace(paces map[string]target.Pace, channels map[string]order.Channel, channel order.Channel) (rate *float64, busiest target.Pace) {
	sum := 0.0
	for topic, pace := range paces {
		if channels[topic] != channel {
			continue
		}
		sum += pace.PerSecond()
		if pace.Events > busiest.Events {
			busiest = pace
		}
	}
	sum = math.Round(100*sum) / 100
	return &sum, busiest
}

// lag counts what is left of a channel's topics; nil if it has none.
func lag(backlogs []backlog, channels map[string]order.Channel, channel order.Channel) (n *int64) {
	for _, b := range backlogs {
		if channels[b.Topic] != channel {
			continue
		}
		if n == nil {
			n = new(int64)
		}
		*n += b.Len()
	}
	return n
}
