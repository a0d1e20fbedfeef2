package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"ordersync/activities"
	"ordersync/internal/connect"
	"ordersync/internal/devstack/devtest"
	"ordersync/internal/erp"
	"ordersync/internal/order"
	"ordersync/internal/schedule"
	"ordersync/internal/telemetry"
	"ordersync/workflows"
)

func TestWrongPollingCommandLinesSayWhatToDo(t *testing.T) {
	for line, want := range map[string]string{
		"schedule nonsense":                                `takes no argument, not "nonsense"`,
		"schedule apply --every 10ms":                      "--every 10ms: give a duration of 1s or more",
		"schedule apply --overlap -1s":                     "--overlap -1s: give a duration such as 1m",
		"schedule apply --page-size 0":                     "--page-size 0: give a number from 1",
		"schedule apply --reconcile-every 1s":              "--reconcile-every 1s: give a duration of 1m or more",
		"schedule apply --repair":                          "--repair is about --reconcile-every D",
		"schedule apply --repair=false":                    "--repair is about --reconcile-every D",
		"schedule apply --from x":                          `"x" is no time`,
		"schedule pause everything":                        `there is no schedule "everything": give poll or reconcile`,
		"schedule pause poll reconcile":                    "takes the name of one schedule, not 2",
		"schedule list":                                    "TEMPORAL_ADDRESS is not set",
		"backfill":                                         "say from when: --from T",
		"backfill --from 2026-01-02 --to 2026-01-01":       "is not after --from",
		"backfill --cancel --from 2026-01-02":              "it takes no period",
		"backfill --from 2026-01-02 --page-size 100000000": "--page-size 100000000: give a number from 1",
	} {
		r := call(t.Context(), nil, "", append(strings.Fields(line), "--data-dir", "nowhere")...)
		assert.ErrorContains(t, r.err, want, line)
		assert.Empty(t, r.stdout, line)
	}
}

// pages is an ERP of a few rows, which may be away.
type pages struct {
	mu   sync.Mutex
	wait chan struct{} // a poll waits until it is closed
	err  error
}

func (p *pages) Poll(ctx context.Context, task order.PollTask, progress func(order.PollState) bool) (order.PollState, error) {
	p.mu.Lock()
	wait, err := p.wait, p.err
	p.mu.Unlock()
	if err != nil {
		return order.PollState{}, err
	}
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	state := order.PollState{
		Cursor: "there", From: task.State.From, ChangedUntil: at, ReadUntil: at.Add(time.Minute), StartedAt: at,
		PollCounts: order.PollCounts{Pages: 1, Read: 7, Published: 3, Known: 2, Rejected: 1},
	}
	if task.Backfill {
		state.Unversioned = 1
	}
	progress(state)
	select {
	case <-wait:
		return state, nil
	case <-ctx.Done():
		return order.PollState{}, ctx.Err()
	}
}

// pollingStack is a server with workers of a queue of their own.
func pollingStack(t *testing.T) (environ map[string]string, p *pages, temporal client.Client) {
	t.Helper()
	if testing.Short() {
		t.Skip("starts a Temporal server")
	}
	log := slog.New(slog.DiscardHandler)
	environ = map[string]string{"TEMPORAL_ADDRESS": devtest.Temporal(t), "TEMPORAL_TASK_QUEUE": devtest.Name(t, "queue"), "ERP_POLL_INTERVAL": "1h"}
	temporal, err := connect.Temporal(t.Context(), client.Options{
		HostPort: environ["TEMPORAL_ADDRESS"], DataConverter: workflows.DataConverter(), Logger: telemetry.SDKLogger(log),
	})
	require.NoError(t, err)
	t.Cleanup(temporal.Close)
	t.Cleanup(func() {
		for _, id := range schedule.Names {
			_ = temporal.ScheduleClient().GetHandle(context.Background(), id).Delete(context.Background())
		}
	})
	p = &pages{wait: make(chan struct{})}
	close(p.wait)
	return environ, p, temporal
}

// work starts the workers.
func work(t *testing.T, temporal client.Client, queue string, p *pages) {
	t.Helper()
	decides := worker.New(temporal, queue, worker.Options{})
	decides.RegisterWorkflowWithOptions(workflows.PollERP, workflow.RegisterOptions{Name: workflows.PollERPName})
	decides.RegisterWorkflowWithOptions(workflows.Backfill, workflow.RegisterOptions{Name: workflows.BackfillName})
	acts := worker.New(temporal, workflows.ERPTaskQueue(queue), worker.Options{MaxHeartbeatThrottleInterval: 100 * time.Millisecond})
	acts.RegisterActivity(activities.NewPolling(p, slog.New(slog.DiscardHandler)))
	for _, w := range []worker.Worker{decides, acts} {
		require.NoError(t, w.Start())
		t.Cleanup(w.Stop)
	}
}

// until runs a command until its output is as wanted.
func until(t *testing.T, want string, command func() result) result {
	t.Helper()
	var r result
	devtest.Eventually(t, 30*time.Second, func() error {
		r = command()
		if r.err != nil {
			return r.err
		}
		if !strings.Contains(r.stdout+r.stderr, want) {
			return fmt.Errorf("no %q in: %s%s", want, r.stdout, r.stderr)
		}
		return nil
	}, want)
	return r
}

// A first poll that is merely long shows how far it is, and a version that fell is shown for as long as it is known.
func TestSchedulesOfALongPoll(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	result := func(s order.PollState) json.RawMessage {
		raw, err := json.Marshal(s)
		require.NoError(t, err)
		return raw
	}
	state := order.PollState{
		Cursor: "there", Anew: true, More: true, StartedAt: at, ChangedUntil: at.AddDate(-1, 0, 0),
		PollCounts: order.PollCounts{Pages: 120, Read: 120_000, Published: 119_000, Known: 1_000},
	}
	poll := schedule.Schedule{ID: schedule.Poll, EverySeconds: 10, Running: &schedule.Run{StartedAt: at.Add(time.Hour), Attempt: 1, Result: result(state)}}
	var out strings.Builder
	require.NoError(t, printSchedules(&out, []schedule.Schedule{poll}))
	assert.Regexp(t, `under way +since 2026-03-01T12:00:00Z +everything from the beginning on is read: 120000 rows, 119000 published, 1000 known, changes up to 2025-03-01T12:00:00Z`, out.String())
	assert.NotContains(t, out.String(), "version fell")

	state.Fall = &order.VersionFall{SyncID: "it's 1", Version: 2, Before: 1767225600000000, SeenAt: at, Count: 3}
	poll.Running, poll.Last = nil, &schedule.Run{EndedAt: at, Status: "Completed", Result: result(state)}
	out.Reset()
	require.NoError(t, printSchedules(&out, []schedule.Schedule{poll}))
	assert.Regexp(t, `version fell +2026-03-01T12:00:00Z +order .*: version 2 after 1767225600000000, so the shop keeps what it has \(and 2 before it\); see docs/ERP.md, Versions that fall`, out.String())
}

func TestScheduleCommand(t *testing.T) {
	environ, p, temporal := pollingStack(t)
	schedules := func(args ...string) result {
		return call(t.Context(), environ, "", append([]string{"schedule"}, args...)...)
	}
	r := schedules("list")
	require.NoError(t, r.err)
	require.Contains(t, r.stderr, "there are no schedules yet: ordersync schedule apply")
	require.ErrorContains(t, schedules("trigger").err, "make it with ordersync schedule apply")
	require.ErrorContains(t, schedules("pause", "reconcile").err, "ordersync schedule apply --reconcile-every 24h")

	// Nobody reads the ERP yet, which is said.
	r = schedules("apply", "--reconcile-every", "24h")
	require.NoError(t, r.err)
	require.Regexp(t, `ordersync-poll +every 1h0m0s +overlap 1m0s, pages of 1000 rows +made\nordersync-reconcile +every 24h0m0s +reports +made\n`, r.stdout)
	require.Contains(t, r.stderr, "no worker reads the ERP now: set ERP_SOURCE")
	require.NoError(t, schedules("pause", "reconcile").err)

	work(t, temporal, environ["TEMPORAL_TASK_QUEUE"], p)
	r = until(t, "7 rows, 3 published, 2 known, 1 no events, changes up to 2026-03-01T12:00:00Z", func() result { return schedules("list") })
	require.Regexp(t, `ordersync-poll +active\n`, r.stdout)
	require.Regexp(t, `every +1h0m0s`, r.stdout)
	require.Contains(t, r.stdout, "\n  next run")
	require.Regexp(t, `ordersync-reconcile +paused +paused by .+`, r.stdout)
	require.Empty(t, r.stderr)

	r = schedules("apply", "--every", "2000h")
	require.NoError(t, r.err)
	require.Regexp(t, `ordersync-poll +every 2000h0m0s +overlap 1m0s, pages of 1000 rows +changed\n`, r.stdout)
	r = schedules("pause", "--by", "support@shop", "--why", "the ERP is migrated")
	require.NoError(t, r.err)
	require.Contains(t, r.stdout, "paused by support@shop: the ERP is migrated")

	// A poll of an ERP that is away, as JSON.
	p.mu.Lock()
	p.err = &order.Failure{Type: "ERPUnavailable", Err: &erp.Unavailable{After: 300 * time.Millisecond, Err: errors.New("connection refused")}}
	p.mu.Unlock()
	require.NoError(t, schedules("trigger").err)
	r = until(t, "connection refused", func() result { return schedules("list") })
	require.Regexp(t, `retrying +attempt \d+ +connection refused`, r.stdout)
	require.ErrorContains(t, schedules("trigger").err, "a run is under way")
	var list scheduleList
	schedules("list", "-o", "json").decode(t, &list)
	require.Len(t, list.Schedules, 2)
	require.True(t, list.Schedules[0].Paused)
	require.Equal(t, "connection refused", list.Schedules[0].Running.Error)
	require.Equal(t, "Completed", list.Schedules[0].Last.Status)
	p.mu.Lock()
	p.err = nil
	p.mu.Unlock()
	until(t, "last run", func() result {
		r := schedules("list")
		if strings.Contains(r.stdout, "under way") {
			r.stdout = ""
		}
		return r
	})
	r = schedules("resume", "--note", "it is back")
	require.NoError(t, r.err)
	require.Contains(t, r.stdout, ": it is back")

	r = schedules("apply", "--from", "2026-02-01")
	require.NoError(t, r.err)
	require.NotContains(t, r.stderr, "is not read")
	r = schedules("apply", "--from", "2026-05-01")
	require.NoError(t, r.err)
	require.Regexp(t, `from 2026-0\d-01T\d\d:00:00Z, up to which it was polled, to 2026-05-01T00:00:00Z is not read`, r.stderr)
}

// Whoever types the command next, with another environment, changes nothing but what they ask for.
func TestScheduleApplyKeepsWhatIsNotAskedFor(t *testing.T) {
	environ, _, _ := pollingStack(t)
	apply := func(args ...string) (all []schedule.Applied) {
		t.Helper()
		r := call(t.Context(), environ, "", append([]string{"schedule", "apply", "-o", "json"}, args...)...)
		require.NoError(t, r.err)
		var a applied
		r.decode(t, &a)
		for i := range a.Schedules {
			a.Schedules[i].Created = false
		}
		return a.Schedules
	}
	poll := func(every, overlap float64, pageSize int) schedule.Applied {
		return schedule.Applied{ID: schedule.Poll, EverySeconds: every, Poll: &schedule.AppliedPoll{OverlapSeconds: overlap, PageSize: pageSize}}
	}
	reconcile := func(every float64, repair bool) schedule.Applied {
		return schedule.Applied{ID: schedule.Reconcile, EverySeconds: every, Reconcile: &schedule.AppliedReconcile{Repair: repair}}
	}
	delete(environ, "ERP_POLL_INTERVAL")
	require.Equal(t, []schedule.Applied{poll(10, 60, 1000)}, apply(), "the defaults")
	require.Equal(t, []schedule.Applied{poll(3600, 0, 50)}, apply("--every", "1h", "--overlap", "0s", "--page-size", "50"))
	require.Equal(t, []schedule.Applied{poll(3600, 0, 50)}, apply("--from", "2026-01-01"), "flags that were given before")

	environ["ERP_OVERLAP"], environ["ERP_PAGE_SIZE"] = "15m", " "
	require.Equal(t, []schedule.Applied{poll(3600, 900, 50)}, apply(), "a variable that is set, and one that is empty")
	require.Equal(t, []schedule.Applied{poll(3600, 30, 50)}, apply("--overlap", "30s"), "a flag goes before its variable")
	delete(environ, "ERP_OVERLAP")
	environ["ERP_POLL_INTERVAL"] = "2h"
	require.Equal(t, []schedule.Applied{poll(7200, 30, 50)}, apply())

	require.Equal(t, reconcile(86400, true), apply("--reconcile-every", "24h", "--repair")[1])
	require.Equal(t, reconcile(3600, true), apply("--reconcile-every", "1h")[1], "it goes on to repair")
	require.Equal(t, reconcile(3600, false), apply("--reconcile-every", "1h", "--repair=false")[1])
}

func TestBackfillCommand(t *testing.T) {
	environ, p, temporal := pollingStack(t)
	backfilled := func(args ...string) result {
		return call(t.Context(), environ, "", append([]string{"backfill"}, args...)...)
	}
	march := []string{"--from", "2026-03-01", "--to", "2026-03-02"}
	require.ErrorContains(t, backfilled("--cancel").err, "no backfill is under way")

	// What starters would never read is not begun.
	environ["BACKFILL_RATE"] = "0"
	require.ErrorContains(t, backfilled(append(march, "--follow=false")...).err, "run ordersync setup with it above 0, then the starters")
	require.ErrorContains(t, backfilled("--cancel").err, "no backfill is under way")
	delete(environ, "BACKFILL_RATE")

	work(t, temporal, environ["TEMPORAL_TASK_QUEUE"], p)
	r := backfilled(march...)
	require.NoError(t, r.err, r.stderr)
	require.Regexp(t, `published +3 +to the topics of backfills`, r.stdout)
	require.Regexp(t, `no version +1 +left out`, r.stdout)
	require.Contains(t, r.stderr, "ordersync wait")

	// Interrupted, it goes on; the same command joins it, one of another period is refused.
	p.mu.Lock()
	p.wait = make(chan struct{})
	p.mu.Unlock()
	r = backfilled(append(march, "--follow=false", "-o", "json")...)
	var view backfillView
	r.decode(t, &view)
	require.Equal(t, "ordersync-backfill-20260301T000000Z-20260302T000000Z", view.WorkflowID)
	require.False(t, view.Joined)
	until(t, "joined the one that is under way", func() result { return backfilled(append(march, "--follow=false")...) })
	require.ErrorContains(t, backfilled("--from", "2026-03-02").err, "stop it: ordersync backfill --cancel")
	err := whenInterrupted(t, environ, "joined the one", append([]string{"backfill"}, march...)...)
	require.ErrorContains(t, err, "interrupted; the backfill goes on: ordersync backfill --from 2026-03-01T00:00:00Z --to 2026-03-02T00:00:00Z follows it again")

	cancelled := func(want string) {
		t.Helper()
		r = backfilled("--cancel")
		require.NoError(t, r.err)
		require.Contains(t, r.stdout, want)
		devtest.Eventually(t, 30*time.Second, func() error {
			if err := backfilled("--cancel").err; err == nil {
				return errors.New("it still runs")
			}
			return nil
		}, "the backfill is cancelled")
	}
	cancelled("cancelled ordersync-backfill-20260301T000000Z-20260302T000000Z")

	// How long ago is another time with every command: what follows it again names the time.
	err = whenInterrupted(t, environ, "it runs as workflow ordersync-backfill-", "backfill", "--from", "24h")
	require.Error(t, err)
	again := regexp.MustCompile(`backfill (--from) (\S+) follows it again`).FindStringSubmatch(err.Error())
	require.Len(t, again, 3, err)
	until(t, "joined the one that is under way", func() result { return backfilled(append(again[1:], "--follow=false")...) })
	cancelled("cancelled ordersync-backfill-")
	p.mu.Lock()
	close(p.wait)
	p.mu.Unlock()
	r = backfilled(march...)
	require.NoError(t, r.err)
	require.Regexp(t, `rows +7 +of the period`, r.stdout)
}
