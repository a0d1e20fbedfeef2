package e2e

import (
	"runtime"
	"syscall"
)

// attributes give a process a group of its own, and have it end with this one.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// live is the process's life. The kernel sends the parent-death signal when the thread that forked
// ends, so this goroutine keeps its thread.
func (p *process) live(started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(p.ended)
	err := p.cmd.Start()
	started <- err
	if err == nil {
		_ = p.cmd.Wait() // ProcessState tells how it ended
	}
}
