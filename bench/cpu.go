package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// usage is the CPU time of the processes; zero where the system does not tell.
type usage struct {
	self     time.Duration // this process: the measured system, and the embedded Kafka
	temporal time.Duration
	mysql    time.Duration
}

func (u usage) minus(v usage) usage {
	return usage{self: u.self - v.self, temporal: u.temporal - v.temporal, mysql: u.mysql - v.mysql}
}

func (b *bench) usage() usage {
	return usage{self: cpuTime(os.Getpid()), temporal: b.childTime("temporal"), mysql: b.childTime("mysql")}
}

// childTime asks for a server by its pid file.
func (b *bench) childTime(name string) time.Duration {
	text, err := os.ReadFile(filepath.Join(b.Dir, name+".pid"))
	if err != nil {
		return 0
	}
	var process struct {
		Pid int `json:"pid"`
	}
	if json.Unmarshal(text, &process) != nil {
		return 0
	}
	return cpuTime(process.Pid)
}

// tick is the unit of CPU times in /proc, on every Linux that Go runs on.
const tick = 10 * time.Millisecond

// cpuTime reads user and system time of a process in Linux's /proc (proc_pid_stat(5)).
func cpuTime(pid int) time.Duration {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The second field is the name in parentheses, which may contain anything.
	const user, system = 14 - 3, 15 - 3
	fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
	if len(fields) <= system {
		return 0
	}
	var ticks int64
	for _, field := range []int{user, system} {
		n, err := strconv.ParseInt(string(fields[field]), 10, 64)
		if err != nil {
			return 0
		}
		ticks += n
	}
	return time.Duration(ticks) * tick
}
