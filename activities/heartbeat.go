package activities

import (
	"context"
	"errors"
	"reflect"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
)

// reachedBefore is where the attempt before this one got to, by its heartbeats; nil where they say nothing.
// Empty details count as nothing: a person may have recorded them by hand, and an attempt that went on from
// them would begin again.
func reachedBefore[T any](ctx context.Context) (*T, error) {
	if !activity.HasHeartbeatDetails(ctx) {
		return nil, nil
	}
	var reached *T
	if err := activity.GetHeartbeatDetails(ctx, &reached); err != nil {
		return nil, err
	}
	if reached == nil || reflect.ValueOf(*reached).IsZero() {
		return nil, nil
	}
	return reached, nil
}

// heartbeats tell the server at an interval that an activity lives, and where it has got to: also while a
// page takes long, as that of an ERP that does not answer does.
type heartbeats[T any] struct {
	ctx     context.Context
	stopped chan struct{}
	all     sync.WaitGroup

	mu      sync.Mutex
	reached *T
}

// startHeartbeats begins with what is reached already, so that a heartbeat before the first page does not
// lose it; nil if that is nothing.
func startHeartbeats[T any](ctx context.Context, every time.Duration, reached *T) *heartbeats[T] {
	h := &heartbeats[T]{ctx: ctx, stopped: make(chan struct{}), reached: reached}
	h.all.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-h.stopped:
				return
			case <-tick.C:
				h.beat()
			}
		}
	})
	return h
}

// note takes in where the activity is, for the next heartbeat.
func (h *heartbeats[T]) note(reached T) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reached = &reached
}

// beat sends a heartbeat now.
func (h *heartbeats[T]) beat() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.reached == nil {
		activity.RecordHeartbeat(h.ctx)
		return
	}
	activity.RecordHeartbeat(h.ctx, *h.reached)
}

func (h *heartbeats[T]) stop() {
	close(h.stopped)
	h.all.Wait()
}

// retryWhen has the next attempt wait as long as the error asks for, if it does.
func retryWhen(err error) temporal.ApplicationErrorOptions {
	var wait interface{ RetryAfter() time.Duration }
	if errors.As(err, &wait) {
		return temporal.ApplicationErrorOptions{NextRetryDelay: wait.RetryAfter()}
	}
	return temporal.ApplicationErrorOptions{}
}
