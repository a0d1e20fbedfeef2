package pod

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestWaitFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		up := time.Now().Add(65 * time.Second)
		err := waitFor(t.Context(), slog.New(slog.NewTextHandler(&out, nil)), "MySQL", func(ctx context.Context) error {
			if time.Now().After(up) {
				return nil
			}
			return errors.New("connection refused")
		})
		if err != nil {
			t.Error(err)
		}
		if said := strings.Count(out.String(), "connection refused"); said != 3 { // at 0, 30 and 60 s
			t.Errorf("the log said it %d times in 65 s: %s", said, out.String())
		}
		if late := time.Since(up); late > askEvery+time.Second {
			t.Errorf("noticed after %v", late)
		}
	})
}

func TestWaitForGivesUpWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cause := errors.New("told to stop")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(2500*time.Millisecond, func() { cancel(cause) })
		// A check that hangs is given askTimeout, and less when ctx ends.
		err := waitFor(ctx, slog.New(slog.DiscardHandler), "MySQL", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		if !errors.Is(err, cause) {
			t.Errorf("got %v", err)
		}
	})
}
