package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ordersync/internal/devstack/devtest"
)

// A second starter joins under load, so that partitions move; later the first is killed, and the
// second takes all of them over.
func TestTwoStartersAndARebalance(t *testing.T) {
	s := seed(t)
	b := setup(t)
	events := orders(s, sized(2000))
	start(t, b.environ, "worker").awaitReady()
	first := start(t, b.environ, "starter")
	b.load(ndjson(t, events[:len(events)/2]))
	first.awaitReady()
	b.awaitLedger(len(events)/20, time.Minute)

	second := start(t, b.environ, "starter")
	address := second.awaitReady()
	awaitPartitions(t, address, 3*partitions/2)
	b.load(ndjson(t, events[len(events)/2:]))
	b.awaitLedger(b.count(ledgerRows)+len(events)/20, time.Minute)
	require.NoError(t, first.alive())
	first.kill()
	require.Less(t, b.count(ledgerRows), len(events), "all was done before the kill: the test has shown nothing")
	awaitPartitions(t, address, 3*partitions)

	b.settle(2 * time.Minute)
	b.requireModel(events)
	b.requireInOrder()
	b.requireCommitted()
	b.requireNoneRunning()
	require.Empty(t, b.deadLetters())
}

// awaitPartitions waits until a starter owns n partitions.
func awaitPartitions(t *testing.T, address string, n int) {
	t.Helper()
	devtest.Eventually(t, 30*time.Second, func() error {
		owned, err := samples(address, "ordersync_intake_committed_offset")
		if err == nil && len(owned) != n {
			err = fmt.Errorf("it owns %d", len(owned))
		}
		return err
	}, fmt.Sprintf("the starter owns %d partitions", n))
}

// Starter and worker are told to end in the middle of their work. They do so in time and without
// an error, and others go on.
func TestGracefulStop(t *testing.T) {
	const limit = 30 * time.Second // that of a pod's termination
	s := seed(t)
	b := setup(t)
	events := orders(s, sized(2000))
	worker, starter := start(t, b.environ, "worker"), start(t, b.environ, "starter")
	b.load(ndjson(t, events))
	for range 2 {
		worker.awaitReady()
		starter.awaitReady()
		b.awaitLedger(b.count(ledgerRows)+len(events)/10, time.Minute)
		took := worker.terminate(limit)
		t.Logf("the worker ended in %s", took)
		next := start(t, b.environ, "worker")
		b.awaitLedger(b.count(ledgerRows)+len(events)/20, time.Minute)
		took = starter.terminate(limit)
		t.Logf("the starter ended in %s", took)
		worker, starter = next, start(t, b.environ, "starter")
	}
	require.Less(t, b.count(ledgerRows), len(events), "all was done before the stops: the test has shown nothing")
	b.settle(2 * time.Minute)
	b.requireModel(events)
	b.requireInOrder()
	b.requireCommitted()
	b.requireNoneRunning()
	require.Empty(t, b.deadLetters())
}
