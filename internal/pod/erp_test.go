package pod_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"ordersync/internal/backfill"
	"ordersync/internal/devstack/devtest"
	"ordersync/internal/order"
	"ordersync/internal/pod"
	"ordersync/internal/schedule"
	"ordersync/workflows"
)

// An ERP's rows come to the target, also by way of a second process that goes on where the first one
// was stopped. A worker that does not know the ERP is in nobody's way.
func TestAnERPIsPolled(t *testing.T) {
	queries := t.TempDir()
	err := os.WriteFile(filepath.Join(queries, "changes.sql"), []byte(`SELECT id, changed_at, sync_id, event, version, channel, data FROM changes`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	erpDSN := devtest.MySQL(t)
	db, err := sql.Open("mysql", erpDSN)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	exec := func(statement string, args ...any) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), statement, args...); err != nil {
			t.Fatal(err)
		}
	}
	exec(`CREATE TABLE changes (id BIGINT PRIMARY KEY AUTO_INCREMENT, changed_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
		sync_id VARCHAR(64) NOT NULL, event VARCHAR(32) NOT NULL, version BIGINT, channel VARCHAR(16), data JSON NOT NULL, KEY (changed_at, id))`)
	add := func(from, to int) {
		t.Helper()
		for i := from; i < to; i++ {
			exec(`INSERT INTO changes (sync_id, event, version, channel, data) VALUES (?, ?, 1, ?, '{"total": 1}')`, fmt.Sprintf("erp-%d", i), string(order.Creation), string(order.Channels[i%3]))
		}
	}
	add(0, 50)

	without := environ(t)
	with := map[string]string{"ERP_SOURCE": "mysql", "ERP_URL": erpDSN, "ERP_QUERIES": queries}
	for name, value := range without {
		with[name] = value
	}
	cfg := load(t, with)
	log := slog.New(slog.DiscardHandler)
	if _, err := pod.Setup(t.Context(), cfg, log, pod.SetupOptions{Partitions: 2}); err != nil {
		t.Fatal(err)
	}
	temporal, err := pod.DialTemporal(t.Context(), cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(temporal.Close)
	start(t, pod.RunWorker, load(t, without)).awaitReady(t)
	first := start(t, pod.RunBoth, cfg)
	first.awaitReady(t)

	settings := schedule.Settings{
		TaskQueue: cfg.Temporal.TaskQueue, Every: time.Second,
		Poll: workflows.PollInput{Overlap: cfg.ERP.Overlap, PageSize: 20},
	}
	if _, err := schedule.Apply(t.Context(), temporal, settings); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx := context.Background() // the test's has ended
		_ = temporal.ScheduleClient().GetHandle(ctx, schedule.Poll).Delete(ctx)
	})
	shop, err := pod.OpenTarget(cfg, log)
	if err != nil {
		t.Fatal(err)
	}
	defer shop.Close()
	arrived := func(n int64) {
		t.Helper()
		devtest.Eventually(t, time.Minute, func() error {
			counts, err := shop.Counts(t.Context())
			if err == nil && (counts.Orders != n || counts.Events != n) {
				err = fmt.Errorf("%+v", counts)
			}
			return err
		}, fmt.Sprintf("%d orders arrive", n))
	}
	arrived(50)

	first.stop(t)
	add(50, 60)
	start(t, pod.RunBoth, cfg).awaitReady(t)
	arrived(60)

	// The past, which has arrived already.
	run, err := backfill.Start(t.Context(), temporal, cfg.Temporal.TaskQueue, workflows.BackfillInput{From: time.Now().Add(-time.Hour), PageSize: 20})
	if err != nil {
		t.Fatal(err)
	}
	state, err := backfill.Follow(t.Context(), temporal, run, func(schedule.Run) {})
	if err != nil || state.Known != 60 || state.Published != 0 {
		t.Errorf("%+v, %v", state, err)
	}

	// What the polls came to.
	devtest.Eventually(t, 30*time.Second, func() error {
		last, found, err := schedule.LastPoll(t.Context(), temporal)
		if err != nil || !found {
			return errors.Join(err, errors.New("no poll"))
		}
		if last.Published != 0 || last.Known != 60 || strings.TrimSpace(last.Cursor) == "" || time.Since(last.ReadUntil) > time.Minute {
			return fmt.Errorf("%+v", last)
		}
		return nil
	}, "a poll finds only what is known")
}
