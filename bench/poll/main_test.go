package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"ordersync/bench/rig/rigtest"
)

func TestPoll(t *testing.T) {
	out := rigtest.Run(t, "poll", &options{}, "-rows", "300", "-rounds", "1")
	require.Regexp(t, `(?m)^ +publish +\d+ +1\.00$`, out)
	require.Regexp(t, `(?m)^ +mysql anew +\d+ +\d+\.\d\d$`, out)
}
