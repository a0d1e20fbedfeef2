// Package rigtest runs benchmarks in tests, with little to do: that they measure right is up to them.
package rigtest

import (
	"bytes"
	"errors"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"ordersync/bench/rig"
	"ordersync/internal/devstack"
)

// Run gives what a benchmark prints as its result. With -short it skips the test, and without a server
// that the benchmark needs, which is an error with CI=true.
func Run(t *testing.T, name string, b rig.Benchmark, args ...string) string {
	t.Helper()
	if testing.Short() {
		t.Skip("starts servers")
	}
	var result, progress bytes.Buffer
	err := rig.Do(t.Context(), name, b, args, &result, &progress)
	if errors.Is(err, devstack.ErrMissing) && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	require.NoError(t, err, progress.String())
	return result.String()
}
