package main

import (
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"ordersync/bench/rig"
	"ordersync/bench/rig/rigtest"
)

// A run with few orders: all three systems work, are checked against the model, and are compared.
func TestBench(t *testing.T) {
	out := rigtest.Run(t, "bench", &options{}, "-orders", "20", "-rounds", "1", "-warm-up", "0")
	require.Regexp(t, `(?m)^ *ordersync( +\d+\.\d+){7}`, out)
	require.Regexp(t, `(?m)^ratio to naive: \d+\.\d\d\nratio to floor: \d+\.\d\d$`, out)
}

func TestArguments(t *testing.T) {
	for _, args := range [][]string{
		{"-only", "other"}, {"-rounds", "0"}, {"-orders", "-1"}, {"now"}, {"-only", "floor", "-cpuprofile", "x"},
	} {
		require.Error(t, rig.Parse("bench", &options{}, args, io.Discard), "%v", args)
	}
	var o options
	require.NoError(t, rig.Parse("bench", &o, []string{"-only", "floor,ordersync"}, io.Discard))
	require.Equal(t, selection{"floor", "ordersync"}, o.only)
}
