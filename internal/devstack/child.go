package devstack

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// stopLimit is how long a child has after SIGTERM.
const stopLimit = 10 * time.Second

// child is a server that runs as a process of its own. It has its own process group, so that a
// Ctrl-C in the terminal reaches ordersync alone, which then ends the children in order. On Linux
// it dies with its parent; elsewhere, and should it survive, the next start ends it by its pid file.
type child struct {
	dir     string
	name    string
	cmd     *exec.Cmd
	log     string
	logFrom int64 // where this run begins in log
	pidFile string
	end     syscall.Signal // asks it to end; 0 is SIGTERM
	told    atomic.Bool    // it was asked to end
	done    chan struct{}  // closed when it has ended
}

// startChild runs cmd. dir appears on its command line: by that a later start knows it for its own.
func startChild(dir, name string, cmd *exec.Cmd) (*child, error) {
	c := &child{dir: dir, name: name, cmd: cmd, pidFile: filepath.Join(dir, name+".pid"), done: make(chan struct{})}
	if err := endLeftover(c.pidFile, dir); err != nil {
		return nil, err
	}
	log, err := logFile(dir, name)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	if c.logFrom, err = log.Seek(0, io.SeekEnd); err != nil {
		return nil, err
	}
	c.log = log.Name()
	cmd.Stdout, cmd.Stderr = log, log
	attributes := childAttributes()
	if given := cmd.SysProcAttr; given != nil {
		attributes.Credential = given.Credential
	}
	cmd.SysProcAttr = attributes

	started := make(chan error)
	go c.run(started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	return c, nil
}

// run is the child's life. The kernel sends the parent-death signal when the *thread* that forked
// ends, so this goroutine keeps its thread for as long as the child lives.
func (c *child) run(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := c.cmd.Start(); err != nil {
		started <- err
		return
	}
	defer close(c.done)
	err := c.writePidFile()
	if err != nil {
		_ = c.cmd.Process.Kill()
	}
	started <- err
	_ = c.cmd.Wait() // ProcessState tells how it ended
	_ = os.Remove(c.pidFile)
}

// await returns once ping answers without an error, or says why the server does not get ready.
func (c *child) await(ctx context.Context, limit time.Duration, ping func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not ready within %s", limit))
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	last := errors.New("not tried yet")
	for {
		select {
		case <-c.done:
			return c.failure("ended before it was ready")
		case <-ctx.Done():
			return fmt.Errorf("%w (last try: %w)", c.failure(context.Cause(ctx).Error()), last)
		case <-tick.C:
			if last = ping(ctx); last == nil {
				return nil
			}
		}
	}
}

// failure is an error that quotes the last lines of the child's log.
func (c *child) failure(what string) error {
	exit := ""
	select {
	case <-c.done:
		exit = fmt.Sprintf(" (%v)", c.cmd.ProcessState)
	default:
	}
	return fmt.Errorf("%s %s%s; the end of %s:\n%s", c.name, what, exit, c.log, tail(c.log, c.logFrom))
}

// tail is what a log says from an offset on, at most its last lines.
func tail(path string, from int64) string {
	const lines, bytes = 15, 8 << 10
	file, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer file.Close()
	if info, err := file.Stat(); err == nil {
		from = max(from, info.Size()-bytes)
	}
	text, err := io.ReadAll(io.NewSectionReader(file, from, bytes))
	if err != nil {
		return err.Error()
	}
	all := strings.Split(strings.TrimSpace(string(text)), "\n")
	return "\t" + strings.Join(all[max(0, len(all)-lines):], "\n\t")
}

// stop asks the child to end, and after stopLimit or with ctx ends it.
func (c *child) stop(ctx context.Context) {
	c.told.Store(true)
	ctx, cancel := context.WithTimeout(ctx, stopLimit)
	defer cancel()
	_ = c.cmd.Process.Signal(cmp.Or(c.end, syscall.SIGTERM)) // fails if it has ended, which done tells as well
	select {
	case <-c.done:
	case <-ctx.Done():
		c.kill()
	}
}

// kill ends the child at once and waits until it is gone.
func (c *child) kill() {
	c.told.Store(true)
	_ = c.cmd.Process.Kill()
	<-c.done
}

// leftover identifies a process beyond the reuse of its number.
type leftover struct {
	Pid     int    `json:"pid"`
	Started string `json:"started"` // as the system tells it; only ever compared
}

func (c *child) writePidFile() error {
	p, ok := lookUp(c.cmd.Process.Pid)
	if !ok {
		return nil // it has ended already, so nobody will have to end it
	}
	text, err := json.Marshal(leftover{Pid: c.cmd.Process.Pid, Started: p.started})
	if err != nil {
		return err
	}
	return writeFile(c.pidFile, string(text)+"\n")
}

// endLeftover ends the child of an earlier run in dir that outlived its parent. A process that
// merely has its number is left alone: start time and command line must fit too.
func endLeftover(pidFile, dir string) error {
	text, err := os.ReadFile(pidFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var l leftover
	if err := json.Unmarshal(text, &l); err != nil {
		return fmt.Errorf("read %s, which tells the process an earlier run left behind (end it if it runs, and remove the file): %w", pidFile, err)
	}
	ours := func() bool {
		p, ok := lookUp(l.Pid)
		return ok && p.started == l.Started && strings.Contains(p.command, dir)
	}
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if !ours() {
			return nil
		}
		if err := syscall.Kill(l.Pid, signal); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("end process %d, left behind by an earlier run: %w", l.Pid, err)
		}
		awaitGone(ours, stopLimit)
	}
	if ours() {
		return fmt.Errorf("process %d, left behind by an earlier run, does not end: end it by hand", l.Pid)
	}
	return nil
}

// awaitGone waits for a process that is no child of this one; such a process can only be asked for.
func awaitGone(there func() bool, limit time.Duration) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(limit); there() && time.Now().Before(end); {
		<-tick.C
	}
}
