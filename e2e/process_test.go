package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ordersync/internal/devstack/devtest"
	"ordersync/internal/pod"
	"ordersync/internal/telemetry"
)

// run has starter and worker work in this process, with eager starts, until the test ends.
func (b *bundle) run() {
	b.Helper()
	cfg := b.cfg
	cfg.EagerStart = true
	ctx, cancel := context.WithCancel(context.Background())
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() { ended <- pod.RunBoth(ctx, cfg, errorLog(), pod.OnReady(func() { close(ready) })) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			b.Errorf("starter and worker ended with %v", err)
		}
	})
	b.Cleanup(stop)
	select {
	case <-ready:
	case err := <-ended:
		ended <- nil
		b.Fatalf("starter and worker ended: %v", err)
	case <-time.After(time.Minute):
		b.Fatal("starter and worker are not ready within a minute")
	}
}

// binaries are the commands, built once, by name.
var binaries struct {
	sync.Mutex
	dir string
}

// binary is the path of a built command: ordersync, starter or worker.
func binary(t *testing.T, name string) string {
	t.Helper()
	binaries.Lock()
	defer binaries.Unlock()
	if binaries.dir == "" {
		dir := filepath.Join(devtest.Dir(t), "bin")
		require.NoError(t, os.MkdirAll(dir, 0o750))
		build := exec.CommandContext(t.Context(), "go", "build", "-o", dir, "ordersync/cmd/ordersync", "ordersync/starter", "ordersync/worker")
		out, err := build.CombinedOutput()
		require.NoError(t, err, "%s", out)
		binaries.dir = dir
	}
	return filepath.Join(binaries.dir, name)
}

// process is a command that runs as a process of its own, in its own process group.
type process struct {
	t     *testing.T
	name  string
	cmd   *exec.Cmd
	log   string
	ended chan struct{} // closed when it has
}

// start runs a built command. Its output goes to a file, the end of which a failed test shows.
func start(t *testing.T, environ map[string]string, name string, args ...string) *process {
	t.Helper()
	p := &process{t: t, name: name, ended: make(chan struct{})}
	log, err := os.CreateTemp(t.TempDir(), name+"-*.log")
	require.NoError(t, err)
	defer log.Close()
	p.log = log.Name()
	p.cmd = exec.Command(binary(t, name), args...)
	p.cmd.Env = environment(environ)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = attributes()
	started := make(chan error)
	go p.live(started)
	require.NoError(t, <-started)
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("the end of what %s said:\n%s", name, p.tail(30))
		}
	})
	return p
}

// environment is what a command gets: that of the test's servers, and of this process only what a
// program needs to run.
func environment(values map[string]string) []string {
	var all []string
	for _, name := range []string{"PATH", "HOME", "TMPDIR", "XDG_CACHE_HOME"} {
		if value, ok := os.LookupEnv(name); ok {
			all = append(all, name+"="+value)
		}
	}
	for name, value := range values {
		all = append(all, name+"="+value)
	}
	return all
}

// kill ends the process group with SIGKILL and returns when the process is gone.
func (p *process) kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // fails if it has ended
	<-p.ended
}

// terminate ends the process with SIGTERM. It must do so within the limit, and without an error.
func (p *process) terminate(limit time.Duration) time.Duration {
	p.t.Helper()
	began := time.Now()
	require.NoError(p.t, p.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case <-p.ended:
	case <-time.After(limit):
		p.t.Fatalf("%s has not ended %s after SIGTERM", p.name, limit)
	}
	require.Zero(p.t, p.cmd.ProcessState.ExitCode(), "%s: %s", p.name, p.cmd.ProcessState)
	return time.Since(began)
}

func (p *process) tail(lines int) string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// alive is an error once the process has ended.
func (p *process) alive() error {
	select {
	case <-p.ended:
		return fmt.Errorf("%s has ended: %s", p.name, p.cmd.ProcessState)
	default:
		return nil
	}
}

// awaitReady waits until a starter or worker says so, and gives the address of its metrics.
func (p *process) awaitReady() (address string) {
	p.t.Helper()
	devtest.Eventually(p.t, time.Minute, func() error {
		if err := p.alive(); err != nil {
			p.t.Fatal(err)
		}
		address = p.address()
		if address == "" {
			return errors.New("it has not said where it listens")
		}
		answer, err := http.Get("http://" + address + telemetry.ReadyPath)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			text, _ := io.ReadAll(answer.Body)
			return fmt.Errorf("%s %s", answer.Status, text)
		}
		return nil
	}, p.name+" is ready")
	return address
}

// address is where the process serves health and metrics, from its log; empty if not known yet.
func (p *process) address() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return ""
	}
	for line := range bytes.Lines(text) {
		var said struct{ Address string }
		if json.Unmarshal(line, &said) == nil && said.Address != "" && bytes.Contains(line, []byte("serving health")) {
			return said.Address
		}
	}
	return ""
}

// metric adds up a metric's samples.
func metric(address, name string) (sum float64, err error) {
	values, err := samples(address, name)
	if err == nil && len(values) == 0 {
		err = fmt.Errorf("no metric %s", name)
	}
	for _, value := range values {
		sum += value
	}
	return sum, err
}

// samples are a metric's values, one for each of its label sets.
func samples(address, name string) ([]float64, error) {
	answer, err := http.Get("http://" + address + telemetry.MetricsPath)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	var values []float64
	lines := bufio.NewScanner(answer.Body)
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), name)
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		value, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
		if err != nil {
			return nil, err
		}
		values = append(values, value)
	}
	return values, lines.Err()
}

// command runs ordersync to its end and gives what it printed.
func (b *bundle) command(args ...string) ([]byte, error) {
	return command(b.T, b.environ, args...)
}

func command(t *testing.T, environ map[string]string, args ...string) ([]byte, error) {
	t.Helper()
	var said bytes.Buffer
	cmd := exec.CommandContext(t.Context(), binary(t, "ordersync"), args...)
	cmd.Env = environment(environ)
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("ordersync %s: %w: %s", strings.Join(args, " "), err, said.String())
	}
	return out, err
}
