//go:build unix && !linux

package devstack

import (
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// There is no parent-death signal here: the next start ends what survived.
func childAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// process is what the system tells of a process.
type process struct{ started, command string }

func lookUp(pid int) (process, bool) {
	ask := func(column string) string {
		out, err := exec.Command("ps", "-ww", "-o", column+"=", "-p", strconv.Itoa(pid)).Output()
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(out))
	}
	p := process{started: ask("lstart"), command: ask("command")}
	return p, p.started != "" && !strings.HasPrefix(ask("state"), "Z")
}
