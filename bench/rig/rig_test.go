package rig_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"ordersync/bench/rig"
)

func TestMedian(t *testing.T) {
	same := func(x float64) float64 { return x }
	require.InDelta(t, 4, rig.Median([]float64{8, 2, 4}, same), 1e-9)
	require.InDelta(t, 3, rig.Median([]float64{8, 1, 4, 2}, same), 1e-9, "the mean of the two in the middle")
}
