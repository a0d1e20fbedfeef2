package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"ordersync/bench/rig/rigtest"
)

func TestReconcile(t *testing.T) {
	out := rigtest.Run(t, "reconcile", &options{}, "-orders", "400", "-tampered", "40")
	require.Regexp(t, `(?m)^all 40 that were tampered with were found, and no other: `, out)
}
