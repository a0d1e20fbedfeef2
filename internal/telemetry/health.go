package telemetry

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"sync"
	"time"
)

// Limits of readiness checks.
const (
	// checkTimeout bounds one check.
	checkTimeout = 2 * time.Second
	// reportTTL is how long a report is good for, so that whoever asks often does not load the
	// servers that are checked.
	reportTTL = time.Second
)

// Report is the answer of /readyz.
type Report struct {
	Ready  bool    `json:"ready"`
	Checks []Check `json:"checks"`
}

// Check is one thing a process needs.
type Check struct {
	Name  string `json:"name"`
	Ready bool   `json:"ready"`
	// Reason says what is not ready and what to do about it.
	Reason string `json:"reason,omitempty"`
}

// Health knows what a process needs to do its work. It is safe for concurrent use.
type Health struct {
	mu     sync.Mutex
	names  []string
	checks []func(context.Context) error

	asking sync.Mutex // one round of checks at a time
	last   Report
	asked  time.Time
}

// Add names something the process needs. The check's error says what is wrong and what to do; its
// context ends after two seconds.
func (h *Health) Add(name string, check func(context.Context) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.names = append(h.names, name)
	h.checks = append(h.checks, check)
}

// Report runs all checks at the same time, or answers what they said within the last second.
func (h *Health) Report(ctx context.Context) Report {
	h.asking.Lock()
	defer h.asking.Unlock()
	if time.Since(h.asked) < reportTTL {
		return h.last
	}
	h.mu.Lock()
	names, checks := h.names, h.checks
	h.mu.Unlock()

	// The answer is also the next asker's, so it must not depend on this one going away.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), checkTimeout)
	defer cancel()
	report := Report{Ready: true, Checks: make([]Check, len(checks))}
	var round sync.WaitGroup
	for i, check := range checks {
		round.Go(func() { report.Checks[i] = run(ctx, names[i], check) })
	}
	round.Wait()
	for _, check := range report.Checks {
		report.Ready = report.Ready && check.Ready
	}
	h.last, h.asked = report, time.Now()
	return report
}

func run(ctx context.Context, name string, check func(context.Context) error) Check {
	err := check(ctx)
	switch {
	case err == nil:
		return Check{Name: name, Ready: true}
	case errors.Is(err, context.DeadlineExceeded):
		return Check{Name: name, Reason: "no answer within " + checkTimeout.String() + ": " + err.Error()}
	default:
		return Check{Name: name, Reason: err.Error()}
	}
}

func (h *Health) readyz(w http.ResponseWriter, r *http.Request) {
	report := h.Report(r.Context())
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if !report.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(report) // whoever asked is gone
}
