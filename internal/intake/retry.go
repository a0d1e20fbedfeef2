package intake

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/time/rate"
)

// Retries go on for ever, between these bounds: an event is never given up because a server is away.
const (
	retryFirst = 100 * time.Millisecond
	retryMost  = 10 * time.Second
	// tolerance is how long something may fail before Ready reports it.
	tolerance = 30 * time.Second
	// logInterval is the time between two log lines about failures of the same kind.
	logInterval = 10 * time.Second
)

func newBackoff() *backoff.ExponentialBackOff {
	return &backoff.ExponentialBackOff{InitialInterval: retryFirst, Multiplier: 2, RandomizationFactor: 0.5, MaxInterval: retryMost}
}

// troubles are the things that fail and are tried again: one for every order, partition or query
// that does, so their number is bounded by that of lanes and partitions.
type troubles struct {
	mu      sync.Mutex
	ongoing map[string]trouble
	logged  map[string]*rate.Sometimes // by kind
}

type trouble struct {
	since time.Time
	err   error
}

func newTroubles() *troubles {
	return &troubles{ongoing: make(map[string]trouble), logged: make(map[string]*rate.Sometimes)}
}

// begin notes a failure, and says whether it is to be logged: the first few of its kind are, later
// ones now and then. kind is one of few words.
func (t *troubles) begin(what, kind string, err error) (log bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	since := time.Now()
	if known, ok := t.ongoing[what]; ok {
		since = known.since
	}
	t.ongoing[what] = trouble{since: since, err: err}
	if t.logged[kind] == nil {
		t.logged[kind] = &rate.Sometimes{First: 3, Interval: logInterval}
	}
	t.logged[kind].Do(func() { log = true })
	return log
}

// over notes that it works.
func (t *troubles) over(what string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.ongoing, what)
}

// lasting is an error about what has failed for longest, if that is longer than tolerated.
func (t *troubles) lasting() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	var oldest trouble
	var name string
	for what, one := range t.ongoing {
		if name == "" || one.since.Before(oldest.since) {
			name, oldest = what, one
		}
	}
	if name == "" || time.Since(oldest.since) < tolerance {
		return nil
	}
	return fmt.Errorf("%s has failed for %v (%d such): %w", name, time.Since(oldest.since).Round(time.Second), len(t.ongoing), oldest.err)
}

// persist does do until it succeeds or ctx ends, and returns an error only then. kind is a word for
// what it does, of which what is one.
func (t *troubles) persist(ctx context.Context, log *slog.Logger, kind, what string, do func(context.Context) error) error {
	attempt := 0
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		attempt++
		return struct{}{}, do(ctx)
	}, backoff.WithBackOff(newBackoff()), backoff.WithMaxElapsedTime(0), backoff.WithNotify(func(err error, _ time.Duration) {
		if t.begin(what, kind, err) {
			log.Error(kind+" failed and is tried again", "attempt", attempt, "error", err)
		}
	}))
	t.over(what)
	return err
}

// pause waits for d. It returns an error if ctx ends before.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
