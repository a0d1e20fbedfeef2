package pod

import (
	"context"
	"log/slog"
	"time"
)

// How a server that is not up is waited for.
const (
	askEvery   = time.Second
	askTimeout = 5 * time.Second
	// sayEvery is how often the log repeats what is waited for.
	sayEvery = 30 * time.Second
)

// waitFor returns when check passes, or with the cause of ctx's end. What it waits for is logged at
// once and then now and again.
func waitFor(ctx context.Context, log *slog.Logger, server string, check func(context.Context) error) error {
	began := time.Now()
	var said time.Time
	for attempt := 1; ; attempt++ {
		err := try(ctx, check)
		switch {
		case err == nil:
			if !said.IsZero() {
				log.Info("the wait for a server is over", "server", server, "waited", time.Since(began).Round(time.Second).String())
			}
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case time.Since(said) >= sayEvery:
			log.Warn("waiting for a server", "server", server, "attempt", attempt, "error", err)
			said = time.Now()
		}
		select {
		case <-time.After(askEvery):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func try(ctx context.Context, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return check(ctx)
}
