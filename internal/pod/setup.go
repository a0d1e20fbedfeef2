package pod

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"ordersync/internal/config"
)

// SetupOptions are what Setup takes besides the configuration. The zero value works.
type SetupOptions struct {
	// Partitions of each new topic of events; 0 means 6. They bound the number of starters that
	// share the work, and are hard to change: a key's partition depends on them.
	Partitions int
	// ReplicationFactor of new topics; 0 means the brokers' default.
	ReplicationFactor int
	// FixRetention has the dead-letter topic keep its letters without end, also where it exists.
	FixRetention bool
	// Wait is how long each server that is not up is waited for; 0 means a minute.
	Wait time.Duration
}

// SetupItem is one thing that Setup looked after.
type SetupItem struct {
	Kind string `json:"kind"` // topic, search_attribute, schema
	Name string `json:"name"`
	// Created tells that it was made or brought up to date; otherwise it was there already.
	Created bool `json:"created"`
	// Warning says what is not as it should be, and was left alone.
	Warning string `json:"warning,omitempty"`
}

// Setup makes what worker and starter need on the servers: topics, search attributes, tables. It
// can be repeated, and changes nothing that is there. What could not be made is in the error, after
// everything was tried; the items tell what there is now.
func Setup(ctx context.Context, cfg config.Config, log *slog.Logger, o SetupOptions) ([]SetupItem, error) {
	if o.Partitions == 0 {
		o.Partitions = 6
	}
	if o.Wait == 0 {
		o.Wait = time.Minute
	}
	parts := []func(context.Context, config.Config, *slog.Logger, SetupOptions) ([]SetupItem, error){
		setupTopics, setupSearchAttributes, setupSchema,
	}
	items, problems := make([][]SetupItem, len(parts)), make([]error, len(parts))
	var all sync.WaitGroup
	for i, part := range parts {
		all.Go(func() { items[i], problems[i] = part(ctx, cfg, log, o) })
	}
	all.Wait()
	for _, item := range slices.Concat(items...) {
		log.Info("set up", "kind", item.Kind, "name", item.Name, "created", item.Created)
		if item.Warning != "" {
			log.Warn("not as it should be", "kind", item.Kind, "name", item.Name, "reason", item.Warning)
		}
	}
	return slices.Concat(items...), errors.Join(problems...)
}

// awaitServer is waitFor with the limit of a set-up: somebody waits for it to end.
func awaitServer(ctx context.Context, log *slog.Logger, server string, limit time.Duration, check func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var last error
	err := waitFor(ctx, log, server, func(ctx context.Context) error {
		err := check(ctx)
		if err != nil && (last == nil || ctx.Err() == nil) {
			last = err // rather than one that only says that the time is over
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("%s was not ready within %v: %w", server, limit, errors.Join(err, last))
	}
	return nil
}

func setupSchema(ctx context.Context, cfg config.Config, log *slog.Logger, o SetupOptions) ([]SetupItem, error) {
	t, err := OpenTarget(cfg, log)
	if err != nil {
		return nil, err
	}
	defer t.Close() //nolint:errcheck // nothing is open that could be lost
	if err := awaitServer(ctx, log, "MySQL", o.Wait, t.DB().PingContext); err != nil {
		return nil, err
	}
	upToDate := t.CheckSchema(ctx) == nil
	if err := t.Migrate(ctx); err != nil {
		return nil, err
	}
	var schema string
	if err := t.DB().QueryRowContext(ctx, "SELECT DATABASE()").Scan(&schema); err != nil {
		return nil, fmt.Errorf("MySQL: %w", err)
	}
	return []SetupItem{{Kind: "schema", Name: schema, Created: !upToDate}}, nil
}
