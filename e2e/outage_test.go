package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ordersync/internal/devstack"
	"ordersync/internal/devstack/devtest"
)

// The database is away while events keep coming. What the starter has taken in retries, the rest
// stays in Kafka as lag, and when the database is back all of it heals by itself.
func TestTargetAway(t *testing.T) {
	const limit = 50      // MAX_RETRYING
	const perSecond = 300 // events that are published
	away := 20 * time.Second
	if os.Getenv("ORDERSYNC_E2E_LONG") != "" {
		away = time.Minute
	}
	s := seed(t)
	options := devstack.MySQLOptions{Dir: t.TempDir()}
	server := devtest.MySQLPrivate(t, options)
	options.Port = server.Port()
	dsn, err := server.CreateSchema(t.Context(), "shop")
	require.NoError(t, err)
	b := setup(t, "MYSQL_DSN="+dsn, fmt.Sprintf("MAX_RETRYING=%d", limit))
	worker, starter := start(t, b.environ, "worker"), start(t, b.environ, "starter")
	worker.awaitReady()
	metrics := starter.awaitReady()

	stop := b.stream(s, perSecond)
	b.awaitLedger(perSecond/2, time.Minute)
	server.Kill()
	began := time.Now()

	devtest.Eventually(t, 30*time.Second, func() error {
		braked, err := metric(metrics, "ordersync_intake_braked")
		if err == nil && braked == 0 {
			err = errors.New("it does not")
		}
		return err
	}, "the starter stops fetching")
	braked := time.Since(began)
	// From here on only the calls that had begun still reach Temporal, at most so many.
	const calls = 64
	inFlight, err := b.workflows(running)
	require.NoError(t, err)
	var peak, open int
	devtest.Eventually(t, 2*away, func() error {
		retrying, err := b.workflows(`SyncStatus="retrying" AND ` + running)
		if err != nil {
			return err
		}
		peak = max(peak, retrying)
		if open, err = b.workflows(running); err != nil {
			return err
		}
		if time.Since(began) < away {
			return fmt.Errorf("away for %s, %d orders retry", time.Since(began), retrying)
		}
		return nil
	}, "the outage is over")
	events := stop()
	lag, err := b.lag()
	require.NoError(t, err)
	t.Logf("away for %s: the starter stopped fetching after %s with %d orders open in Temporal, %d at the end; at most %d retried; %d of %d events were lag in Kafka",
		time.Since(began).Round(time.Second), braked.Round(100*time.Millisecond), inFlight, open, peak, lag, len(events))
	require.Greater(t, peak, limit, "the bound was not reached: the test has shown nothing")
	require.LessOrEqual(t, peak, inFlight+calls, "more than what was in flight")
	require.LessOrEqual(t, open, inFlight+calls, "orders were begun while too many retried")
	require.Greater(t, lag, len(events)/4, "the outage does not show as lag")

	server, err = devstack.StartMySQL(t.Context(), options)
	require.NoError(t, err)
	t.Cleanup(func() { _ = server.Stop(context.Background()) })
	back := time.Now()
	b.settle(4 * time.Minute)
	t.Logf("all was applied %s after the database was back", time.Since(back).Round(time.Second))
	b.requireModel(events)
	b.requireInOrder()
	b.requireCommitted()
	b.requireNoneRunning()
	require.Empty(t, b.deadLetters())
}
