package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ordersync/internal/devstack"
)

// A run with few orders: all three systems work, are checked against the model, and are compared.
func TestBench(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a stack and three systems")
	}
	var out bytes.Buffer
	err := run(t.Context(), []string{"-orders", "20", "-rounds", "1", "-warm-up", "0"}, &out, io.Discard)
	if errors.Is(err, devstack.ErrMissing) && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	require.NoError(t, err)
	require.Regexp(t, `(?m)^ *ordersync( +\d+\.\d+){7}`, out.String())
	require.Regexp(t, `(?m)^ratio to naive: \d+\.\d\d\nratio to floor: \d+\.\d\d$`, out.String())
}

func TestArguments(t *testing.T) {
	for _, args := range [][]string{
		{"-only", "other"}, {"-rounds", "0"}, {"-orders", "-1"}, {"now"}, {"-only", "floor", "-cpuprofile", "x"},
	} {
		_, err := parse(args, io.Discard)
		require.Error(t, err, "%v", args)
	}
	o, err := parse([]string{"-only", "floor,ordersync"}, io.Discard)
	require.NoError(t, err)
	require.Equal(t, []string{"floor", "ordersync"}, o.only)
}

func TestMedian(t *testing.T) {
	r := report{}
	for _, seconds := range []time.Duration{4, 1, 2} {
		r["x"] = append(r["x"], measurement{orders: 8, span: seconds * time.Second})
	}
	require.InDelta(t, 4, r.median("x", measurement.rate), 1e-9)
	r["x"] = append(r["x"], measurement{orders: 8, span: 8 * time.Second})
	require.InDelta(t, 3, r.median("x", measurement.rate), 1e-9, "the mean of the two in the middle")
}
