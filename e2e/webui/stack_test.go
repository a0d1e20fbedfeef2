package webui

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql" // the target's driver
	"github.com/stretchr/testify/require"
)

// stack is an `ordersync dev` of the test's own.
type stack struct {
	*testing.T
	program, dir string
	ui           string // the Web UI's URL
	db           *sql.DB
}

// missing ends the test for something that this machine lacks: as skipped, except in CI.
func missing(t *testing.T, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(what)
	}
	t.Skip(what)
}

// syncBuffer is what a process has written so far.
type syncBuffer struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

var (
	uiLine  = regexp.MustCompile(`Temporal Web UI +(\S+)`)
	dsnLine = regexp.MustCompile(`MYSQL_DSN='([^']+)'`)
)

// startStack builds the program and runs it until the test ends.
func startStack(t *testing.T) *stack {
	t.Helper()
	s := &stack{T: t, program: filepath.Join(t.TempDir(), "ordersync"), dir: filepath.Join(t.TempDir(), "stack")}
	build := exec.CommandContext(t.Context(), "go", "build", "-C", "../..", "-o", s.program, "./cmd/ordersync")
	out, err := build.CombinedOutput()
	require.NoError(t, err, "%s", out)

	said := &syncBuffer{}
	dev := exec.Command(s.program, "dev", "--data-dir", s.dir, "--kafka-port", "0", "--temporal-port", "0", "--ui-port", "0", "--mysql-port", "0")
	dev.Stdout, dev.Stderr = said, said
	require.NoError(t, dev.Start())
	ended := make(chan error, 1)
	go func() { ended <- dev.Wait() }()
	t.Cleanup(func() {
		_ = dev.Process.Signal(syscall.SIGTERM) // fails if it has ended
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("the stack ended with %v", err)
			}
		case <-time.After(time.Minute):
			_ = dev.Process.Kill()
			t.Error("the stack does not stop")
		}
	})
	s.eventually(2*time.Minute, "the stack is ready", func() error {
		select {
		case err := <-ended:
			ended <- nil
			if strings.Contains(said.String(), "make setup") {
				missing(t, said.String())
			}
			t.Fatalf("ordersync dev: %v\n%s", err, said)
		default:
		}
		if !strings.Contains(said.String(), "Ctrl-C stops everything") {
			return errors.New(said.String())
		}
		return nil
	})
	s.ui = uiLine.FindStringSubmatch(said.String())[1]
	env, err := os.ReadFile(filepath.Join(s.dir, "env"))
	require.NoError(t, err)
	s.db, err = sql.Open("mysql", dsnLine.FindStringSubmatch(string(env))[1])
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.db.Close() })
	return s
}

// ordersync runs a command to its end.
func (s *stack) ordersync(stdin string, args ...string) (string, error) {
	var problems bytes.Buffer
	cmd := exec.CommandContext(s.Context(), s.program, append(args, "--data-dir", s.dir)...)
	cmd.Stdin, cmd.Stderr = strings.NewReader(stdin), &problems
	out, err := cmd.Output()
	if err != nil {
		err = errors.Join(err, errors.New(problems.String()))
	}
	return string(out), err
}

func (s *stack) sql(statement string) {
	s.Helper()
	_, err := s.db.ExecContext(s.Context(), statement)
	require.NoError(s, err, statement)
}

// eventually waits until check has no error any more.
func (s *stack) eventually(limit time.Duration, what string, check func() error) {
	s.Helper()
	ctx, cancel := context.WithTimeout(s.Context(), limit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			s.Fatalf("%s: not within %s: %v", what, limit, err)
		}
	}
}
