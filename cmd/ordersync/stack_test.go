package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"ordersync/internal/devstack"
	"ordersync/internal/devstack/devtest"
	"ordersync/internal/envfile"
	"ordersync/internal/freshness"
	"ordersync/internal/order"
	"ordersync/internal/settle"
	"ordersync/internal/simulate"
	"ordersync/internal/target"
	"ordersync/workflows"
)

// devRun is an `ordersync dev` under way.
type devRun struct {
	t      *testing.T
	dir    string
	stop   context.CancelFunc
	ended  chan error
	stdout *syncBuffer
	stderr *syncBuffer
}

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

func startDev(t *testing.T, dir string, flags ...string) *devRun {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	d := &devRun{t: t, dir: dir, stop: cancel, ended: make(chan error, 1), stdout: &syncBuffer{}, stderr: &syncBuffer{}}
	args := append([]string{"ordersync", "dev", "--data-dir", dir, "--kafka-port", "0", "--temporal-port", "0", "--ui-port", "0", "--mysql-port", "0"}, flags...)
	environ := map[string]string{"PATH": os.Getenv("PATH"), "HOLD_WINDOW": "1s"}
	go func() { d.ended <- run(ctx, args, strings.NewReader(""), d.stdout, d.stderr, environ) }()
	t.Cleanup(func() { _ = d.end() }) // a test that gets so far checks it itself
	devtest.Eventually(t, 2*time.Minute, func() error {
		select {
		case err := <-d.ended:
			d.ended <- err
			if errors.Is(err, devstack.ErrMissing) && os.Getenv("CI") != "true" {
				t.Skip(err)
			}
			t.Fatalf("dev ended: %v\n%s", err, d.stderr)
		default:
		}
		if !strings.Contains(d.stdout.String(), "Ctrl-C stops everything") {
			return errors.New(d.stderr.String())
		}
		return nil
	}, "dev gets ready")
	return d
}

// end is a Ctrl-C, and what dev ended with.
func (d *devRun) end() error {
	d.stop()
	err := <-d.ended
	d.ended <- err
	return err
}

// ordersync runs a command against the stack.
func (d *devRun) ordersync(stdin string, args ...string) result {
	d.t.Helper()
	return call(d.t.Context(), nil, stdin, append(args, "--data-dir", d.dir)...)
}

// stuckOn is what proposed commands name the event by that an order is stuck on.
func (d *devRun) stuckOn(id string) string {
	d.t.Helper()
	var view orderView
	d.ordersync("", "order", id, "-o", "json").decode(d.t, &view)
	require.NotNil(d.t, view.Step)
	return view.Step.EventID.String()[:order.ShortID]
}

func (d *devRun) shop() *target.Target {
	d.t.Helper()
	env, err := envfile.Read(devstack.EnvFile(d.dir))
	require.NoError(d.t, err)
	shop, err := target.Open(env[mysqlDSN], target.Options{})
	require.NoError(d.t, err)
	d.t.Cleanup(func() { _ = shop.Close() })
	return shop
}

// The commands, one after the other, as their reader would use them: publish, wait, look, repair.
func TestCommandsOnAStack(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a whole stack")
	}
	dir := filepath.Join(t.TempDir(), "stack")
	d := startDev(t, dir)
	assert.Contains(t, d.stdout.String(), "mariadb -h 127.0.0.1 -P ")
	assert.Contains(t, d.stdout.String(), "ordersync --data-dir "+dir+" wait")

	r := d.ordersync("", "dev", "--kafka-port", "0")
	require.ErrorContains(t, r.err, "is in use by process")

	// Publish and wait: the shop has what the events come to.
	file := filepath.Join(t.TempDir(), "orders.ndjson")
	simulated := call(t.Context(), nil, "", "simulate", "40", "--seed", "3")
	require.NoError(t, os.WriteFile(file, []byte(simulated.stdout), 0o600))
	events := slices.Collect(simulate.Orders(3, 40, simulate.Options{}))
	var published loaded
	d.ordersync("", "load", file, "-o", "json").decode(t, &published)
	assert.Equal(t, len(events), published.Published)
	require.NoError(t, d.ordersync(simulated.stdout, "load", "-").err, "the same again")
	var s settle.Summary
	d.ordersync("", "wait", "--timeout", "2m", "-o", "json").decode(t, &s)
	assert.Equal(t, 2*len(events), s.Events)
	assert.Equal(t, len(events), s.Duplicates)
	assert.Equal(t, len(events), s.Applied)
	assert.Equal(t, 40, s.Orders)
	assert.Equal(t, 40, s.Invoices)
	assert.Positive(t, s.EventsPerSecond)
	shop := d.shop()
	got, err := simulate.ReadTarget(t.Context(), shop.DB())
	require.NoError(t, err)
	assert.Empty(t, simulate.Compare(simulate.Expect(slices.Values(events)), got))

	// An order of it.
	id := events[0].SyncID
	var view orderView
	devtest.Eventually(t, time.Minute, func() error {
		view = orderView{}
		d.ordersync("", "order", id, "-o", "json").decode(t, &view)
		var s freshness.Status
		d.ordersync("", "status", "-o", "json").decode(t, &s)
		lag := int64(0)
		for _, channel := range s.Channels {
			lag += *channel.Lag
		}
		if view.Sync != syncDone || lag > 0 { // a duplicate that comes late has it run once more
			return fmt.Errorf("%s, lag %d", view.Sync, lag)
		}
		return nil
	}, "the order is done with all that was published")
	assert.EqualValues(t, "invoiced", view.Row.Status)
	assert.GreaterOrEqual(t, len(view.Timeline), 2)
	assert.NotNil(t, view.Pending, "a list is never null")
	r = d.ordersync("", "order", id)
	require.NoError(t, r.err)
	assert.Contains(t, r.stdout, "order "+id+": invoiced")
	assert.Regexp(t, `order_creation v1 +(online|store|international)/\d+/\d+ +applied`, r.stdout)
	require.ErrorContains(t, d.ordersync("", "order", "unheard-of").err, "order unheard-of is unknown")
	require.ErrorContains(t, d.ordersync("", "retry", id).err, "has no running workflow")

	// A file with lines that are none, and an event that is none.
	r = d.ordersync("garbage\n"+`{"sync_id":"bad","channel":"store","event":"nonsense","data":1}`+"\n{\"sync_id\":1}\n", "load", "-", "-o", "json")
	require.ErrorContains(t, r.err, "2 of 3 records were not published")
	assert.Contains(t, r.stderr, "-, line 1: it is no JSON object")
	assert.Contains(t, r.stderr, "-, line 3: it names no channel")
	d.ordersync("", "wait", "--timeout", "1m", "-o", "json").decode(t, &s)
	assert.Equal(t, 1, s.DeadLetters)

	// The team's constraint refuses some events: those orders are blocked, and got going one by one.
	_, err = shop.DB().ExecContext(t.Context(), "ALTER TABLE orders ADD CONSTRAINT no_loss CHECK (JSON_VALUE(data, '$.total') IS NULL OR JSON_VALUE(data, '$.total') >= 0)")
	require.NoError(t, err)
	var refused strings.Builder
	for _, id := range []string{"A", "B", "C"} {
		fmt.Fprintf(&refused, `{"sync_id":%q,"event":"order_creation","version":1,"data":{"total":-1}}`+"\n", id)
		fmt.Fprintf(&refused, `{"sync_id":%q,"event":"invoice_creation","version":2,"data":{"n":1}}`+"\n", id)
	}
	require.NoError(t, d.ordersync(refused.String(), "load", "-", "--channel", "store").err)
	r = d.ordersync("", "wait", "--timeout", "1m", "-o", "json")
	require.Equal(t, exitStuck, exitCode(r.err))
	require.ErrorContains(t, r.err, "3 orders are blocked, with 6 events")
	r.decodeAnyway(t, &s)
	assert.Equal(t, 6, s.Blocked)
	assert.Equal(t, 3, s.BlockedOrders)

	// How far the shop is behind: Kafka has no lag, and yet there is something that waits.
	// The starter commits what Temporal has about once a second, and until then it is lag.
	var status freshness.Status
	devtest.Eventually(t, 30*time.Second, func() error {
		d.ordersync("", "status", "-o", "json").decode(t, &status)
		require.Len(t, status.Channels, 3)
		if lag := *status.Channels[1].Lag; lag != 0 {
			return fmt.Errorf("%d records", lag)
		}
		return nil
	}, "the starter has committed")
	online, store := status.Channels[0], status.Channels[1]
	assert.Zero(t, *online.AgeSeconds)
	assert.Nil(t, online.Oldest)
	assert.Positive(t, *online.P99)
	assert.Positive(t, *store.AgeSeconds)
	assert.Zero(t, *store.Lag)
	assert.EqualValues(t, 3, *store.Blocked)
	assert.Equal(t, freshness.InOrder, store.Oldest.Where)
	assert.EqualValues(t, 1, *status.DeadLetters)
	assert.Equal(t, 1, status.TaskQueue.Pollers)
	assert.Empty(t, status.Problems)
	r = d.ordersync("", "status")
	require.NoError(t, r.err)
	assert.Regexp(t, `(?m)^online +0s +0 +0 +0 +\d+\.\d +\d+ ms +\d+ ms$`, r.stdout)
	assert.Regexp(t, `(?m)^store +[\dms]+ +order [ABC], blocked +[\dms]+ +0 +0 +3 `, r.stdout)
	assert.Regexp(t, `(?m)^workers +1 on task queue ordersync; no task waits$`, r.stdout)
	assert.Regexp(t, `(?m)^dead letters +1 in order-events.dead-letter`, r.stdout)
	assert.Regexp(t, `what the oldest of store waits for: ordersync --data-dir \S+ order [ABC]`, r.stdout)
	watching, stopWatching := context.WithCancel(t.Context())
	var watched, errs syncBuffer
	watchEnded := make(chan error, 1)
	go func() {
		watchEnded <- run(watching, []string{"ordersync", "status", "--watch", "--data-dir", dir}, strings.NewReader(""), &watched, &errs, nil)
	}()
	devtest.Eventually(t, 30*time.Second, func() error {
		if text := watched.String(); strings.Count(text, " store oldest ") < 2 || !strings.Contains(text, " blocked 3 events/s ") {
			return errors.New(text + errs.String())
		}
		return nil
	}, "who watches sees it twice")
	stopWatching()
	require.NoError(t, <-watchEnded)
	assert.NotContains(t, watched.String(), "\x1b", "a log is no terminal")

	var stuck blockedView
	d.ordersync("", "blocked", "-o", "json").decode(t, &stuck)
	require.Len(t, stuck.Orders, 3)
	for _, o := range stuck.Orders {
		assert.Equal(t, workflows.StatusBlocked, o.Status)
		assert.NotEmpty(t, o.Reason)
		assert.NotNil(t, o.Since)
	}
	assert.Contains(t, d.ordersync("", "blocked", "--limit", "1").stdout, "… and 2 more")
	r = d.ordersync("", "order", "A")
	require.NoError(t, r.err)
	assert.Contains(t, r.stdout, "order A: not in the shop's database")
	assert.Contains(t, r.stdout, "blocked on order_creation v1 since")
	assert.Regexp(t, `ordersync --data-dir \S+ retry --event-id [0-9a-f-]+ A\n`, r.stdout)
	require.ErrorContains(t, d.ordersync("", "retry", "A", "--event-id", "another").err, "the retry did nothing: ignored")
	require.ErrorContains(t, d.ordersync("", "retry", "A").err, "order A is still blocked")
	r = d.ordersync("", "amend", "A", "--data", `{"total":1}`, "--reason", "sign")
	require.ErrorContains(t, r.err, "order A is blocked since")
	require.ErrorContains(t, r.err, "without a terminal to ask, amend takes the event by name")
	r = d.ordersync("", "amend", "A", "--event-id", d.stuckOn("A"), "--data", `{"total":1}`, "--reason", "sign")
	require.NoError(t, r.err)
	assert.Contains(t, r.stdout, "replaced the data of order_creation v1")
	r = d.ordersync(`{"total":2}`, "amend", "B", "--data-file", "-", "--yes")
	require.NoError(t, r.err)

	until(t, "skip would hit 1 orders", func() result {
		return d.ordersync("", "skip", "--error", "CheckViolated", "--channel", "store", "--dry-run")
	})
	require.ErrorContains(t, d.ordersync("", "retry", "--all", "--rate", "100/s").err, "not all orders got going")
	require.NoError(t, d.ordersync("", "skip", "--older-than", "24h").err, "none is as old")
	require.ErrorContains(t, d.ordersync("", "retry").err, "needs a sync_id, or --all")
	require.ErrorContains(t, d.ordersync("", "retry", "A", "--all").err, "not both")

	stuckOnC := d.stuckOn("C")

	// Without a worker: what is known is shown, and a signal is not lost.
	require.NoError(t, d.end())
	assert.NoFileExists(t, devstack.EnvFile(dir))
	require.ErrorContains(t, d.ordersync("", "blocked").err, "start a stack of your own with `ordersync dev`")
	d = startDev(t, dir, "--no-pipeline")
	r = d.ordersync("", "order", "C")
	require.NoError(t, r.err)
	assert.Contains(t, r.stdout, "what waits is not known: no worker answers")
	assert.Contains(t, r.stdout, "sync: blocked")
	r = d.ordersync("", "status")
	require.NoError(t, r.err)
	assert.Contains(t, r.stdout, "no worker polls the task queue: is one running?")
	assert.Contains(t, r.stdout, "order C, blocked")
	stuck = blockedView{}
	d.ordersync("", "blocked", "-o", "json").decode(t, &stuck)
	require.Len(t, stuck.Orders, 1)
	assert.NotNil(t, stuck.Orders[0].Since)
	assert.Nil(t, stuck.Orders[0].Step)
	require.ErrorContains(t, d.ordersync("", "skip", "C", "--reason", "test", "--yes").err, "what order C is stuck on is not known")
	require.ErrorContains(t, d.ordersync("", "skip", "C", "--reason", "test", "--event-id", stuckOnC).err, "takes effect as soon as a worker runs")
	require.ErrorContains(t, d.ordersync("", "skip", "C", "--reason", "test", "--event-id", stuckOnC).err, "takes effect as soon as a worker runs")
	require.ErrorContains(t, d.ordersync("", "retry", "C").err, "takes effect as soon as a worker runs")
	r = d.ordersync("", "setup", "-o", "json")
	var made setupView
	r.decode(t, &made)
	assert.NotEmpty(t, made.Items)
	for _, item := range made.Items {
		assert.False(t, item.Created, "%s %s was there", item.Kind, item.Name)
	}
	require.NoError(t, d.ordersync(`{"sync_id":"D","event":"order_creation","data":1}`, "load", "-", "--channel", "online").err)
	r = d.ordersync("", "wait", "--timeout", "5s", "-o", "json")
	require.ErrorContains(t, r.err, "not all was settled within 5s: 1 events are outstanding")
	require.ErrorContains(t, r.err, "order D, order_creation")
	require.ErrorContains(t, r.err, "order D")
	require.NoError(t, d.end())

	// On the same directory everything goes on; nothing was applied twice.
	d = startDev(t, dir)
	devtest.Eventually(t, time.Minute, func() error {
		r := d.ordersync("", "wait", "--timeout", "1m", "-o", "json")
		r.decodeAnyway(t, &s)
		if s.Skipped != 1 {
			return fmt.Errorf("%d skipped", s.Skipped)
		}
		return nil
	}, "the skip that waited takes effect")
	assert.Equal(t, len(events)+6, s.Applied+s.Blocked, "of C the creation was skipped, its invoice is left; D came")
	assert.Zero(t, s.Outstanding)
	view = orderView{}
	d.ordersync("", "order", "A", "-o", "json").decode(t, &view)
	assert.EqualValues(t, "invoiced", view.Row.Status)
	assert.JSONEq(t, `{"total":1}`, string(view.Row.Data))
	require.NoError(t, d.end())
	assert.Contains(t, d.stderr.String(), "stopped; the data is in "+dir)
}

// A server of one's own takes the place of the embedded one.
func TestDevWithAKafkaOfOnesOwn(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a stack")
	}
	brokers := devtest.KafkaEmbedded(t).Brokers()
	dir := filepath.Join(t.TempDir(), "stack")
	var out, errs syncBuffer
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	environ := map[string]string{"PATH": os.Getenv("PATH"), kafkaBrokers: strings.Join(brokers, ",")}
	args := []string{"ordersync", "dev", "--no-pipeline", "--data-dir", dir, "--temporal-port", "0", "--ui-port", "0", "--mysql-port", "0"}
	go func() { ended <- run(ctx, args, strings.NewReader(""), &out, &errs, environ) }()
	devtest.Eventually(t, 2*time.Minute, func() error {
		select {
		case err := <-ended:
			if errors.Is(err, devstack.ErrMissing) && os.Getenv("CI") != "true" {
				t.Skip(err)
			}
			t.Fatalf("dev ended: %v", err)
		default:
		}
		_, err := os.Stat(devstack.EnvFile(dir))
		return err
	}, "dev gets ready")
	env, err := envfile.Read(devstack.EnvFile(dir))
	require.NoError(t, err)
	assert.Equal(t, environ[kafkaBrokers], env[kafkaBrokers])
	assert.Contains(t, errs.String(), "KAFKA_BROKERS is set: that server is used, and no embedded Kafka started")
	cancel()
	require.NoError(t, <-ended)
}
