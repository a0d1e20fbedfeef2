package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ordersync/internal/devstack"
	"ordersync/internal/devstack/devtest"
	"ordersync/internal/envfile"
	"ordersync/internal/settle"
)

// The whole stack of `ordersync dev` is killed three times in the middle of its work, once more
// while events are published, and goes on from where it was.
func TestEmbeddedStackKilled(t *testing.T) {
	if os.Getenv(devtest.KafkaVariable) != "" {
		t.Skip("kills the embedded Kafka together with everything else; without " + devtest.KafkaVariable + " it runs")
	}
	s := seed(t)
	devtest.MySQL(t) // skips where a server is not installed
	devtest.Temporal(t)
	events := orders(s, 3000)
	parts := slices.Collect(slices.Chunk(events, len(events)/4))
	file := filepath.Join(t.TempDir(), "orders.ndjson")
	require.NoError(t, os.WriteFile(file, ndjson(t, parts[0]), 0o600))
	random := rand.New(rand.NewPCG(s, 0))

	dir := t.TempDir()
	stack := startDev(t, dir)
	b := stack.bundle()
	b.countWrites()

	// Killed while it is published to: the load fails, or does not, and is made again.
	devtest.Eventually(t, time.Minute, stack.loading(file), "the events are being published")
	stack.kill()

	stack = startDev(t, dir)
	b = stack.bundle()
	_, err := command(t, nil, "load", file, "--data-dir", dir)
	require.NoError(t, err)

	published := len(parts[0])
	for _, part := range parts[1:] {
		b.load(ndjson(t, part)) // so that something is left to do, on however fast a machine
		published += len(part)
		before := b.count(ledgerRows)
		b.awaitLedger(before+1+random.IntN(max(1, (published-before)/2)), 2*time.Minute)
		at := b.count(ledgerRows)
		stack.kill()
		t.Logf("the ledger had %d rows when %d events were published, and %d when all was killed", before, published, at)
		require.Less(t, at, published, "all was done before: the test would show nothing")
		stack = startDev(t, dir)
		b = stack.bundle()
	}
	out, err := command(t, nil, "wait", "--timeout", "5m", "-o", "json", "--data-dir", dir)
	require.NoError(t, err)
	var summary settle.Summary
	require.NoError(t, json.Unmarshal(out, &summary))
	t.Logf("%s", bytes.TrimSpace(out))
	require.Equal(t, len(events), summary.Applied+summary.Stale)
	b.requireModel(events)
	b.requireCommitted()
	b.requireNoneRunning()
	require.Empty(t, b.deadLetters())
	require.Zero(t, b.count(ledgerRows+" WHERE outcome = 'skipped'"))
}

// devProcess is `ordersync dev` with a directory and ports of its own.
type devProcess struct {
	*process
	dir     string
	servers map[string]string
}

func startDev(t *testing.T, dir string) *devProcess {
	t.Helper()
	stale, _ := os.ReadFile(devstack.EnvFile(dir)) // that of a killed run goes before the new one comes
	p := &devProcess{dir: dir, process: start(t, nil, "ordersync", "dev", "--data-dir", dir,
		"--kafka-port", "0", "--temporal-port", "0", "--ui-port", "0", "--mysql-port", "0")}
	devtest.Eventually(t, 2*time.Minute, func() error {
		if err := p.alive(); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(devstack.EnvFile(dir))
		if err == nil && bytes.Equal(text, stale) {
			err = errors.New("the file of the run before is still there")
		}
		return err
	}, "the stack is ready")
	var err error
	p.servers, err = envfile.Read(devstack.EnvFile(dir))
	require.NoError(t, err)
	return p
}

// bundle connects to the stack's servers.
func (p *devProcess) bundle() *bundle {
	p.t.Helper()
	return connect(p.t, p.servers)
}

// loading begins to publish a file, and is nil once some of it is in Kafka.
func (p *devProcess) loading(file string) func() error {
	p.t.Helper()
	load := exec.Command(binary(p.t, "ordersync"), "load", file, "--data-dir", p.dir)
	load.Env = environment(nil)
	load.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(p.t, load.Start())
	p.t.Cleanup(func() {
		_ = load.Process.Kill()
		_ = load.Wait()
	})
	b := p.bundle()
	return func() error {
		if lag, err := b.lag(); err != nil || lag > 0 {
			return err
		}
		if n, err := b.tryCount(ledgerRows); err != nil || n > 0 {
			return err
		}
		return errors.New("nothing is published")
	}
}

// kill ends the process group, and waits until the servers it started are gone with it.
func (p *devProcess) kill() {
	p.t.Helper()
	pids, err := filepath.Glob(filepath.Join(p.dir, "*.pid"))
	require.NoError(p.t, err)
	require.Len(p.t, pids, 2, "Temporal and MySQL run as children")
	var children []int
	for _, path := range pids {
		text, err := os.ReadFile(path)
		require.NoError(p.t, err)
		var child struct{ Pid int }
		require.NoError(p.t, json.Unmarshal(text, &child))
		children = append(children, child.Pid)
	}
	p.process.kill()
	devtest.Eventually(p.t, 10*time.Second, func() error {
		for _, pid := range children {
			// The signal of the parent's death kills them as well; this one is for other systems.
			if err := syscall.Kill(pid, syscall.SIGKILL); !errors.Is(err, syscall.ESRCH) {
				return fmt.Errorf("process %d is still there", pid)
			}
		}
		return nil
	}, "the children are gone")
}
