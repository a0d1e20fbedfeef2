package devstack

import (
	"bytes"
	"fmt"
	"os"
	"syscall"
)

func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// process is what the system tells of a process.
type process struct{ started, command string }

// lookUp tells of a running process; one that has ended and was not waited for is not running.
func lookUp(pid int) (process, bool) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return process{}, false
	}
	command, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return process{}, false
	}
	// proc_pid_stat(5): the second field is the name in parentheses and may contain anything; the
	// third, here the first, is the state, the 22nd the start time in clock ticks since boot.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	const state, started = 0, 22 - 3
	if len(fields) <= started || string(fields[state]) == "Z" {
		return process{}, false
	}
	return process{started: string(fields[started]), command: string(bytes.ReplaceAll(command, []byte{0}, []byte{' '}))}, true
}
