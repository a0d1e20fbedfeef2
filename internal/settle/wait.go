// Package settle tells when everything published is settled: in the ledger, in the dead-letter
// topic and not sent again from there as it was, or behind an order that is blocked. It ticks the events themselves off, by their identity;
// counts would agree by accident while one event is lost and another applied twice.
//
//	topics ──records──> Tally <──ledger rows── target
//	                      ^ ^──blocked orders── Temporal
//	                      └────dead letters──── dead-letter topic, audit
package settle

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"golang.org/x/sync/errgroup"

	"ordersync/internal/deadletter"
	"ordersync/internal/order"
	"ordersync/internal/target"
	"ordersync/internal/topics"
)

// Options of Wait.
type Options struct {
	Brokers   []string
	Transport kafka.RoundTripper
	// Topics are those events are published to, with their channels.
	Topics map[string]order.Channel
	// Backfill are the topics of backfills, if they are read. They need not exist. Their events count
	// as the others do, but for no latency: they wait for their turn.
	Backfill        map[string]order.Channel
	DeadLetterTopic string
	Target          *target.Target
	// Blocked are the sync_ids of the orders that are blocked now.
	Blocked func(context.Context) (map[string]bool, error)
	// Unwell are those of some orders with outstanding events of which these will not arrive by themselves, with the
	// trouble. It is asked about a limited number at a time; nil for none.
	Unwell func(ctx context.Context, syncIDs []string) (map[string]order.Trouble, error)
	// Progress is told how far it is, several times a second at most. May be nil.
	Progress func(Progress)
}

// Progress is how far a wait has come.
type Progress struct {
	// Reading tells that Kafka is still being read: Done of Total records are.
	Reading bool
	// Done counts what is settled of Total, Blocked, which is in it, what is behind a blocked order.
	Done, Total, Blocked int
}

// How the ledger is asked: often while it answers with news, else such that the asking takes a
// tenth of the time at most; the database has better things to do.
const (
	lookUp      = 1000 // events a look-up
	maxLookUps  = 20   // look-ups a round
	minPause    = 200 * time.Millisecond
	maxPause    = 5 * time.Second
	restFactor  = 9 // of the time a round took
	blockedAge  = 2 * time.Second
	scanWorkers = 3 // partitions read at once
)

// ErrReading tells that ctx ended while Kafka was still being read: the Summary lacks what came after.
var ErrReading = errors.New("not everything published was read")

// Wait returns once everything that had been published when it was called is settled. When ctx ends
// before, the error is its cause, and the Summary is that of the moment and names what is
// outstanding.
func Wait(ctx context.Context, o Options) (Summary, error) {
	w := &waiter{
		Options: o, reader: topics.Reader{Brokers: o.Brokers, Transport: o.Transport},
		tally: NewTally(slices.Collect(maps.Keys(o.Backfill))...), channels: maps.Clone(o.Topics), lettersRead: map[int]int64{},
		unwell: map[string]order.Trouble{}, asked: map[string]bool{},
	}
	maps.Copy(w.channels, o.Backfill)
	if err := w.scan(ctx); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("%w: %w", ErrReading, context.Cause(ctx))
		}
		return w.tally.Summary(nil, nil), err
	}
	// The first time the ledger is asked for everything: an event in it needs no dead letter.
	first := w.tally.Total()/lookUp + 1
	err := w.settle(ctx, first)
	return w.tally.Summary(w.blocked, w.unwell), err
}

type waiter struct {
	Options
	reader topics.Reader
	tally  *Tally

	channels    map[string]order.Channel // of all topics
	lettersRead map[int]int64            // next offset of each partition of the dead-letter topic
	blocked     map[string]bool
	blockedAt   time.Time
	unwell      map[string]order.Trouble
	asked       map[string]bool // of the orders that Unwell was asked about in this round of all of them
}

// unwellAtOnce bounds the orders that are asked about at a time.
const unwellAtOnce = 200

// hopeless are the orders whose outstanding events do not arrive by themselves.
func (w *waiter) hopeless() map[string]bool {
	all := maps.Clone(w.blocked)
	if all == nil {
		all = map[string]bool{}
	}
	for syncID := range w.unwell {
		all[syncID] = true
	}
	return all
}

// askUnwell asks about the next of the outstanding orders that are not blocked.
func (w *waiter) askUnwell(ctx context.Context) error {
	if w.Unwell == nil {
		return nil
	}
	next := w.tally.Orders(unwellAtOnce, func(syncID string) bool { return !w.blocked[syncID] && !w.asked[syncID] })
	if len(next) == 0 {
		clear(w.asked)
		next = w.tally.Orders(unwellAtOnce, func(syncID string) bool { return !w.blocked[syncID] })
	}
	found, err := w.Unwell(ctx, next)
	if err != nil {
		return err
	}
	for _, syncID := range next {
		w.asked[syncID] = true
		if trouble, ok := found[syncID]; ok {
			w.unwell[syncID] = trouble
			continue
		}
		delete(w.unwell, syncID)
	}
	return nil
}

// scan notes the identity of everything published.
func (w *waiter) scan(ctx context.Context) error {
	all, err := w.reader.SpansOf(ctx, w.channels, w.Backfill, time.Time{})
	if err != nil {
		return err
	}
	total := 0
	for _, s := range all {
		total += int(s.Len())
	}
	var mu sync.Mutex
	read := 0
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(scanWorkers)
	for _, s := range all {
		group.Go(func() error {
			return w.reader.Read(ctx, s, func(m kafka.Message) error {
				e, err := order.Decode(order.Record{
					Topic: m.Topic, Partition: m.Partition, Offset: m.Offset, Timestamp: m.Time, Value: m.Value,
				}, w.channels[m.Topic])
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					w.tally.Published(e)
				} else {
					w.tally.Rejected(order.Source{Topic: m.Topic, Partition: m.Partition, Offset: m.Offset, ReceivedAt: m.Time})
				}
				if read++; read%1000 == 0 {
					w.report(Progress{Reading: true, Done: read, Total: total})
				}
				return nil
			})
		})
	}
	return group.Wait()
}

func (w *waiter) report(p Progress) {
	if w.Progress != nil {
		w.Progress(p)
	}
}

// settle goes round what is outstanding until nothing is.
func (w *waiter) settle(ctx context.Context, lookUps int) error {
	for {
		began := time.Now()
		ticked, asked, err := w.askLedger(ctx, lookUps)
		if err != nil {
			return cause(ctx, err)
		}
		if err := w.readDeadLetters(ctx); err != nil {
			return cause(ctx, err)
		}
		if done, err := w.settled(ctx); done || err != nil {
			return cause(ctx, err)
		}
		lookUps = maxLookUps
		if 2*ticked > asked {
			continue
		}
		pause := min(maxPause, max(minPause, restFactor*time.Since(began)))
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
	}
}

// cause is why ctx ended, if it did: the error of whatever was under way then says less.
func cause(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// askLedger looks outstanding events up.
func (w *waiter) askLedger(ctx context.Context, lookUps int) (ticked, asked int, err error) {
	for rest := min(w.tally.Open(), lookUps*lookUp); asked < rest; {
		keys := w.tally.Next(min(lookUp, rest-asked))
		asked += len(keys)
		found, err := w.Target.Outcomes(ctx, keys)
		if err != nil {
			return ticked, asked, err
		}
		ticked += w.tally.Tick(found)
		w.progress()
	}
	return ticked, asked, nil
}

func (w *waiter) progress() {
	behind, _ := w.tally.Behind(w.hopeless())
	total := w.tally.Total()
	w.report(Progress{Done: total - w.tally.Outstanding() + behind, Total: total, Blocked: behind})
}

// settled tells whether what is outstanding is all behind blocked orders. It looks those up again
// before it says so: one may have got going since.
func (w *waiter) settled(ctx context.Context) (bool, error) {
	if w.tally.Outstanding() == 0 {
		w.progress()
		return true, nil
	}
	behind, _ := w.tally.Behind(w.hopeless())
	if fresh := time.Since(w.blockedAt) < blockedAge; fresh && behind < w.tally.Outstanding() {
		return false, nil
	}
	blocked, err := w.Blocked(ctx)
	if err != nil {
		return false, err
	}
	w.blocked, w.blockedAt = blocked, time.Now()
	if behind, _ = w.tally.Behind(w.blocked); behind < w.tally.Outstanding() {
		if err := w.askUnwell(ctx); err != nil {
			return false, err
		}
		behind, _ = w.tally.Behind(w.hopeless())
	}
	w.progress()
	return behind == w.tally.Outstanding(), nil
}

// readDeadLetters reads what the dead-letter topic has that is new.
func (w *waiter) readDeadLetters(ctx context.Context) error {
	letters := deadletter.Topic{Name: w.DeadLetterTopic, Reader: w.reader, Target: w.Target}
	if err := letters.Follow(ctx, w.lettersRead, w.deadLetter); err != nil {
		return err
	}
	w.tally.TickDeadLetters()
	w.progress()
	return nil
}

// deadLetter notes a dead letter by the place its headers name and the event its value holds. Passed over
// are one that somebody else wrote, without such headers, and one that was sent again as it was: its
// event is under way, and the ledger tells. What was sent again with a corrected value may be another event,
// so that the letter stays what became of its record.
func (w *waiter) deadLetter(l deadletter.Letter) error {
	if l.Problem != nil || l.SentAsItWas() {
		return nil
	}
	e, err := order.Decode(order.Record{
		Topic: l.Source.Topic, Partition: l.Source.Partition, Offset: l.Source.Offset, Timestamp: l.Source.ReceivedAt, Value: l.Value,
	}, w.channels[l.Source.Topic])
	if err != nil {
		w.tally.DeadLetter(l.WrittenAt, l.Source, nil)
		return nil
	}
	w.tally.DeadLetter(l.WrittenAt, l.Source, &e)
	return nil
}
