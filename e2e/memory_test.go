package e2e

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ordersync/internal/devstack/devtest"
	"ordersync/internal/simulate"
)

// A long queue in Kafka costs starter and worker no memory: it stays there until they come to it.
func TestMemoryBehindALongQueue(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("reads /proc")
	}
	const limit = 150 << 20
	waiting, drained := sized(100_000), sized(15_000)
	s := seed(t)
	b := setup(t)
	var text bytes.Buffer
	published := 0
	for e := range simulate.Orders(s, waiting, simulate.Options{}) {
		line, err := simulate.Line(e)
		require.NoError(t, err)
		text.Write(line)
		if published++; published%2000 == 0 {
			b.load(text.Bytes())
			text.Reset()
		}
		if published == waiting {
			break
		}
	}
	lag, err := b.lag()
	require.NoError(t, err)
	require.Equal(t, waiting, lag)

	worker, starter := start(t, b.environ, "worker"), start(t, b.environ, "starter")
	worker.awaitReady()
	starter.awaitReady()
	began := time.Now()
	devtest.Eventually(t, 2*time.Minute, func() error {
		n, err := b.tryCount(ledgerRows)
		if err == nil && n < drained && time.Since(began) < time.Minute {
			err = fmt.Errorf("%d applied", n)
		}
		return err
	}, "a good part of the queue is applied")
	applied := b.count(ledgerRows)
	require.Greater(t, applied, drained/10)
	for _, p := range []*process{worker, starter} {
		peak := p.peakMemory()
		t.Logf("%s: at most %.1f MiB resident; %d of %d events applied in %s", p.name, float64(peak)/(1<<20), applied, waiting, time.Since(began).Round(time.Second))
		require.Less(t, peak, limit, "%s: bytes resident", p.name)
	}
	b.requireAppliedOnce()
	b.requireInOrder()
}

// peakMemory is the most the process has had resident, in bytes.
func (p *process) peakMemory() int {
	p.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	require.NoError(p.t, err)
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")))
			require.NoError(p.t, err)
			return kib << 10
		}
	}
	p.t.Fatal("the system does not tell the memory of a process")
	return 0
}
