package main

import (
	"context"

	"ordersync/internal/pod"
)

// pipeline is ordersync itself, assembled as in `ordersync dev`.
type pipeline struct{ backlog }

func newOrdersync(b *bench, t trial) system { return &pipeline{backlog{bench: b, trial: t}} }

func (p *pipeline) run(ctx context.Context) error { return pod.RunBoth(ctx, p.cfg, p.Log) }
