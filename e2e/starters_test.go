package e2e

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ordersync/internal/devstack/devtest"
)

// eventTopics is how many a starter reads: of each channel one, and one for its backfills.
const eventTopics = 2 * 3

// A second starter joins under load, so that partitions move; later the first is killed together
// with the worker, and the second takes all of them over.
func TestTwoStartersAndARebalance(t *testing.T) {
	s := seed(t)
	b := setup(t)
	events := orders(s, sized(2000))
	worker := start(t, b.environ, "worker")
	worker.awaitReady()
	first := start(t, b.environ, "starter")
	b.load(ndjson(t, events[:len(events)/2]))
	first.awaitReady()
	b.awaitLedger(len(events)/20, time.Minute)

	second := start(t, b.environ, "starter")
	address := second.awaitReady()
	awaitPartitions(t, address, eventTopics*partitions/2)
	b.load(ndjson(t, events[len(events)/2:]))
	b.awaitLedger(b.count(ledgerRows)+len(events)/20, time.Minute)
	require.NoError(t, first.alive())
	require.NoError(t, worker.alive())
	b.requireLag()
	first.kill()
	worker.kill()
	start(t, b.environ, "worker").awaitReady()
	awaitPartitions(t, address, eventTopics*partitions)

	b.settle(2 * time.Minute)
	b.requireModel(events)
	b.requireInOrder()
	b.requireCommitted()
	b.requireNoneRunning()
	require.Empty(t, b.deadLetters())
}

// requireLag is for a fault that means nothing to a starter without work.
func (b *bundle) requireLag() {
	b.Helper()
	lag, err := b.lag()
	require.NoError(b, err)
	require.NotZero(b, lag, "all is with Temporal already: the test would show nothing")
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
	for half := range slices.Chunk(events, len(events)/2) {
		worker, starter := start(t, b.environ, "worker"), start(t, b.environ, "starter")
		worker.awaitReady()
		starter.awaitReady()
		before := b.count(ledgerRows)
		b.load(ndjson(t, half))
		b.awaitLedger(before+len(half)/20, time.Minute)
		b.requireLag()
		took := starter.terminate(limit)
		t.Logf("the starter ended in %s", took.Round(time.Millisecond))
		require.Less(t, b.count(ledgerRows), before+len(half), "all was done already: the test would show nothing")
		took = worker.terminate(limit)
		t.Logf("the worker ended in %s", took.Round(time.Millisecond))
	}
	start(t, b.environ, "worker")
	start(t, b.environ, "starter")
	b.settle(2 * time.Minute)
	b.requireModel(events)
	b.requireInOrder()
	b.requireCommitted()
	b.requireNoneRunning()
	require.Empty(t, b.deadLetters())
}
