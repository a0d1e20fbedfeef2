package e2e

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ordersync/internal/devstack/devtest"
)

// perSecond is how many events are published meanwhile: about as many as a small machine takes.
const perSecond = 600

// eventTopics is how many a starter reads: of each channel one, and one for its backfills.
const eventTopics = 2 * 3

// A second starter joins under load, so that partitions move; later the first is killed together
// with the worker, and the second takes all of them over.
func TestTwoStartersAndARebalance(t *testing.T) {
	s := seed(t)
	b := setup(t)
	stop := b.stream(s, perSecond)
	worker := start(t, b.environ, "worker")
	worker.awaitReady()
	first := start(t, b.environ, "starter")
	first.awaitReady()
	b.awaitLedger(perSecond/2, time.Minute)

	second := start(t, b.environ, "starter")
	address := second.awaitReady()
	awaitPartitions(t, address, eventTopics*partitions/2)
	b.awaitLedger(b.count(ledgerRows)+perSecond/2, time.Minute)
	require.NoError(t, first.alive())
	require.NoError(t, worker.alive())
	b.awaitLag()
	first.kill()
	worker.kill()
	start(t, b.environ, "worker").awaitReady()
	awaitPartitions(t, address, eventTopics*partitions)

	events := stop()
	b.settle(2 * time.Minute)
	b.requireModel(events)
	b.requireInOrder()
	b.requireCommitted()
	b.requireNoneRunning()
	require.Empty(t, b.deadLetters())
}

// awaitLag is for a fault that means nothing to a starter without work.
func (b *bundle) awaitLag() {
	b.Helper()
	devtest.Eventually(b, time.Minute, func() error {
		lag, err := b.lag()
		if err == nil && lag == 0 {
			err = errors.New("nothing")
		}
		return err
	}, "something is left to do for the starter")
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
	stop := b.stream(s, perSecond)
	for range 2 {
		worker, starter := start(t, b.environ, "worker"), start(t, b.environ, "starter")
		worker.awaitReady()
		starter.awaitReady()
		b.awaitLedger(b.count(ledgerRows)+perSecond/2, time.Minute)
		b.awaitLag()
		took := starter.terminate(limit)
		t.Logf("the starter ended in %s", took.Round(time.Millisecond))
		took = worker.terminate(limit)
		t.Logf("the worker ended in %s", took.Round(time.Millisecond))
	}
	start(t, b.environ, "worker")
	start(t, b.environ, "starter")
	events := stop()
	b.settle(2 * time.Minute)
	b.requireModel(events)
	b.requireInOrder()
	b.requireCommitted()
	b.requireNoneRunning()
	require.Empty(t, b.deadLetters())
}
