package main

import (
	"context"
	"fmt"
	"time"
)

// watchEvery is how often --watch looks.
const watchEvery = 2 * time.Second

// show looks and prints what was found: once, or to watch it again and again until Ctrl-C, on a terminal
// always in the same place. It ends with the first error.
func (a *app) show(ctx context.Context, watch bool, look func(context.Context) (show func() error, err error)) error {
	for {
		found, err := look(ctx)
		if watch && ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if watch && terminal(a.stdout) {
			fmt.Fprint(a.stdout, "\x1b[H\x1b[2J") // home, and clear
		}
		if err := found(); err != nil || !watch {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(watchEvery):
		}
	}
}
