// Package poll brings the changes of an ERP to Kafka, page by page:
//
//	source ──page──> sift: bad rows, what was read before ──> topics of the channels ──> cursor moves
//	  next page is read meanwhile            │ ledger                │ too large, no channel
//	                                                                 └──> dead-letter topic
//
// The cursor moves when everything of a page is acknowledged, never before. So a page may be published
// twice, and never not at all. A poll begins some way before the cursor, as a change may become visible
// late; what it reads again there has the same event id as before, which makes it harmless, and is left
// out where it is known to have arrived, which makes it cheap.
package poll

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"ordersync/internal/erp"
	"ordersync/internal/order"
	"ordersync/internal/publish"
	"ordersync/internal/target"
)

// Ledger is what knows the events that have arrived.
type Ledger interface {
	// Outcomes looks events up. One that is not there is not in the answer.
	Outcomes(context.Context, []target.EventKey) (map[target.EventKey]target.Entry, error)
	// Versions looks up the versions of orders. One that has none is not in the answer.
	Versions(ctx context.Context, syncIDs []string) (map[string]int64, error)
}

// Options of a Poller.
type Options struct {
	Source erp.Source
	// Producer is the Poller's own: publish.Producer keeps the order of an order's events as long as
	// nobody else publishes with it.
	Producer *publish.Producer
	Ledger   Ledger
	// Topics and BackfillTopics have the topic of each channel; what is of another channel becomes a
	// dead letter.
	Topics, BackfillTopics map[order.Channel]string
	Logger                 *slog.Logger
	// Registerer gets the metrics; nil for none.
	Registerer prometheus.Registerer
	// Stretch is how long a call of Poll goes on to the next page; 0 means a minute.
	Stretch time.Duration
}

// Poller polls one source. It may be used by several goroutines at once.
type Poller struct {
	Options
	polling, backfilling way
	versions             versions
	falls                prometheus.Counter
}

// way is how the rows of polls, or of backfills, which have topics of their own, get to Kafka.
type way struct {
	// turn is for a page at a time: an attempt that Temporal has given up may still be at one.
	turn sync.Mutex
	// recent are the rows that went here. What a backfill has published waits at its rate, also where it is so
	// young that no poll has read it.
	recent recent
}

// New makes a Poller. It contacts nobody.
func New(o Options) *Poller {
	if o.Stretch == 0 {
		o.Stretch = time.Minute
	}
	return &Poller{Options: o, falls: newFalls(o.Registerer)}
}

// Poll does a stretch of a poll: it reads and publishes pages until the end of the source, or until the
// stretch has taken long enough, when the state says that there is more. progress is told the state whenever
// it has changed, and whether to go on is its answer. The error is an *order.Failure; what progress was told
// stays true.
//
// A cursor that is none of the source's counts as lost: polling begins anew. That takes time, and is
// harmless; waiting for somebody to say so would stop polling.
func (p *Poller) Poll(ctx context.Context, task order.PollTask, progress func(order.PollState) bool) (order.PollState, error) {
	state, err := p.poll(ctx, task, progress)
	if errors.Is(err, erp.ErrCursor) && task.State.Cursor != "" {
		p.Logger.ErrorContext(ctx, "the cursor is none of this ERP's: polling begins anew. Was ERP_SOURCE changed, or its queries?", "from", task.State.From, "error", err)
		task.Begin, task.State.Cursor = true, ""
		return p.poll(ctx, task, progress)
	}
	return state, err
}

func (p *Poller) poll(ctx context.Context, task order.PollTask, progress func(order.PollState) bool) (order.PollState, error) {
	until := time.Now().Add(p.Stretch)
	s := &stretch{Poller: p, task: task, state: task.State}
	s.succeed()
	s.task.State = s.state
	if task.Begin {
		if err := s.begin(ctx); err != nil {
			return task.State, err
		}
		// Attempts that get no further began with this one: that bounds how long the ledger is waited for.
		if !progress(s.state) {
			return s.state, nil
		}
	}
	reading, stop := context.WithCancel(ctx)
	pages := make(chan fetched)
	var reader sync.WaitGroup
	reader.Go(func() { s.read(reading, pages) })
	defer reader.Wait()
	defer stop()
	for page := range pages {
		if page.err != nil {
			return s.state, unavailable("read a page of the ERP's changes", page.err)
		}
		if !page.tooMuch {
			if err := s.publish(ctx, page); err != nil {
				progress(s.state) // which has the letters that are written, and not the page
				return s.state, err
			}
		}
		s.state.PageSize = 0
		if page.limit < s.task.PageSize {
			s.state.PageSize = page.limit
		}
		if !progress(s.state) || !s.state.More || time.Now().After(until) {
			break
		}
	}
	if ctx.Err() != nil {
		return s.state, unavailable("poll", ctx.Err())
	}
	return s.state, nil
}

// stretch is one call of Poll.
type stretch struct {
	*Poller
	task  order.PollTask
	state order.PollState
	// blind tells that the ledger did not answer, and is not asked any more.
	blind bool
}

func (s *stretch) way() *way {
	if s.task.Backfill {
		return &s.backfilling
	}
	return &s.polling
}

// succeed takes over from a release that published rows without a version as they were. What that one has read
// stays as it was published: another identity would make a second event of it, an invoice twice say, and another
// version under the same identity a dead letter.
func (s *stretch) succeed() {
	if s.state.Derives {
		return
	}
	s.state.Derives = true
	if s.state.Cursor != "" && !s.task.Backfill {
		if s.state.FormerUntil = s.state.ChangedUntil; s.state.FormerUntil.IsZero() {
			s.state.FormerUntil = s.state.ReadUntil
		}
		// That release may have read times that it did not understand, or have polled between two polls of this one.
		s.state.AskAll = true
	}
}

// begin finds the place where a poll begins.
func (s *stretch) begin(ctx context.Context) error {
	last := s.task.State
	s.state = order.PollState{
		PageSize: 2 * last.PageSize,
		Cursor:   last.Cursor, From: last.From, ReadUntil: last.ReadUntil,
		ChangedUntil: last.ChangedUntil, KnownUntil: last.ChangedUntil, BadBefore: last.Bad,
		Derives: last.Derives, FormerUntil: last.FormerUntil, AskAll: last.AskAll, Fall: remembered(last.Fall),
		StartedAt: time.Now().UTC(), More: true, Anew: last.Cursor == "",
	}
	if s.state.Anew {
		// Without a version, what is read again from long ago would take orders back. The ledger knows either identity.
		s.state.FormerUntil = time.Time{}
	}
	var cursor erp.Cursor
	var err error
	switch {
	case !s.state.Anew:
		s.state.BadBeforeUntil = last.BadUntil
		if cursor, err = s.Source.Rewind(ctx, erp.Cursor(last.Cursor), s.task.Overlap); err != nil {
			return unavailable("go back by the overlap", err)
		}
	case !last.From.IsZero():
		if cursor, err = s.Source.From(last.From); err != nil {
			return unavailable("begin at "+last.From.UTC().Format(time.RFC3339), err)
		}
	}
	s.state.Cursor = string(cursor)
	return nil
}

// fetched is a page, and when it was asked for.
type fetched struct {
	erp.Page
	asked time.Time
	limit int // the rows that it may have
	// tooMuch tells that there is no page, as one of more than limit rows was too much for the source.
	tooMuch bool
	err     error
}

// morePages is how many smaller pages are read before one of twice as many rows is tried: seldom enough
// where that is too much again, and often enough where an outage only looked like that.
const morePages = 10

// read reads page after page. It is one page ahead of who takes them, and ends with the source's last
// page, an error or ctx. Where a page is too much for the source, it goes on with half as many rows; the
// state takes that along, so that an attempt after this one does not begin with what takes too long.
func (s *stretch) read(ctx context.Context, pages chan<- fetched) {
	defer close(pages)
	request := erp.Request{After: erp.Cursor(s.state.Cursor), Until: s.task.Until, Limit: s.task.PageSize}
	if s.state.PageSize != 0 {
		request.Limit = min(request.Limit, s.state.PageSize)
	}
	smaller := 0
	for {
		next := fetched{asked: time.Now().UTC()}
		next.Page, next.err = s.Source.Page(ctx, request)
		switch {
		case errors.Is(next.err, erp.ErrTooMuch) && request.Limit > 1 && ctx.Err() == nil:
			s.Logger.WarnContext(ctx, "the ERP is asked for a smaller page", "rows", request.Limit/2, "error", next.err)
			next.tooMuch, next.err = true, nil
			request.Limit, smaller = request.Limit/2, 0
		case next.err == nil && next.More && next.Next == request.After:
			// It would be read for ever.
			next.err = fmt.Errorf("the ERP says that there is more after %q, and that it is read from there", request.After)
		}
		next.limit = request.Limit
		select {
		case pages <- next:
		case <-ctx.Done():
			return
		}
		switch {
		case next.tooMuch:
			continue
		case next.err != nil || !next.More:
			return
		}
		request.After = next.Next
		if smaller++; smaller == morePages {
			request.Limit, smaller = min(2*request.Limit, s.task.PageSize), 0
		}
	}
}

// farAhead is how far a row's time may be ahead of this machine's before it is taken for wrong. Such a row
// says nothing about how far the source has been read.
const farAhead = time.Hour
