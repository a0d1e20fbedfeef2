package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"ordersync/bench/rig/rigtest"
)

func TestBackfill(t *testing.T) {
	out := rigtest.Run(t, "backfill", &options{}, "-orders", "300", "-for", "3s", "-warm-up", "1s", "-rounds", "1")
	require.Regexp(t, `(?m)^ratio of p99 with backfill to without: \d+\.\d\d$`, out)
}
