package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"ordersync/internal/devstack/devtest"
	"ordersync/internal/order"
)

// paste types what was printed after a text into a shell, with what stands for a person's own words filled in.
func (d *devRun) paste(printed, after string, fill ...string) result {
	d.t.Helper()
	_, command, found := strings.Cut(printed, after)
	require.True(d.t, found, "%q in:\n%s", after, printed)
	command, _, _ = strings.Cut(command, "\n")
	words := typed(d.t, command)
	for i := range words {
		for j := 0; j < len(fill); j += 2 {
			if words[i] == fill[j] {
				words[i] = fill[j+1]
			}
		}
	}
	return call(d.t.Context(), nil, "", words...)
}

// show is what `ordersync order` prints.
func (d *devRun) show(id string) string {
	d.t.Helper()
	r := d.paste("see: "+(&app{program: "ordersync", dataDir: d.dir}).propose(order.ShowCommand(id)), "see: ")
	require.NoError(d.t, r.err)
	return r.stdout
}

// awaitStuck waits until an order is stuck on an event.
func (d *devRun) awaitStuck(id, event string) {
	d.t.Helper()
	devtest.Eventually(d.t, time.Minute, func() error {
		if text := d.show(id); !strings.Contains(text, "sync: blocked on "+event) {
			return errors.New(text)
		}
		return nil
	}, "order "+id+" is stuck on "+event)
}

// ledger is what became of an order's events, by version.
func (d *devRun) ledger(id string) map[int64]order.Outcome {
	d.t.Helper()
	entries, err := d.shop().Timeline(d.t.Context(), id)
	require.NoError(d.t, err)
	outcomes := map[int64]order.Outcome{}
	for _, e := range entries {
		outcomes[e.Version] = e.Outcome
	}
	return outcomes
}

func jsonLine(t *testing.T, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	require.NoError(t, err)
	return string(raw) + "\n"
}

// Every event from the second on is refused by a constraint, so what hits the next event is seen in it.
func TestARepeatedCommandNeverHitsTheNextEvent(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a whole stack")
	}
	d := startDev(t, filepath.Join(t.TempDir(), "a stack"))
	_, err := d.shop().DB().ExecContext(t.Context(), "ALTER TABLE orders ADD CONSTRAINT no_loss CHECK (JSON_VALUE(data, '$.total') >= 0)")
	require.NoError(t, err)
	publish := func(ids ...string) {
		var lines strings.Builder
		for _, id := range ids {
			for version, kind := range []order.Kind{order.Creation, order.Update, order.Update, order.Update} {
				total := version + 1
				if version > 0 {
					total = -total
				}
				lines.WriteString(jsonLine(t, map[string]any{"sync_id": id, "event": kind, "version": version + 1, "data": map[string]any{"total": total}}))
			}
		}
		require.NoError(t, d.ordersync(lines.String(), "load", "-", "--channel", "online").err)
		for _, id := range ids {
			d.awaitStuck(id, "order_updation v2")
		}
	}
	mended := filepath.Join(t.TempDir(), "mended.json")
	require.NoError(t, os.WriteFile(mended, []byte(`{"total":5}`), 0o600))

	t.Run("as order prints it, whatever the id", func(t *testing.T) {
		ids := []string{"1", "-1", "-rf", "--help", "it's", "$(x) *"}
		publish(ids...)
		for _, id := range ids {
			printed := d.show(id)
			r := d.paste(printed, "to send other data: ", "FILE", mended)
			require.NoError(t, r.err, r.stderr)
			d.awaitStuck(id, "order_updation v3")
			again := d.paste(printed, "to send other data: ", "FILE", mended)
			require.ErrorContains(t, again.err, "the amend did nothing: ignored: the order is stuck on order_updation v3")
			assert.Contains(t, d.show(id), "sync: blocked on order_updation v3")

			printed = d.show(id)
			require.NoError(t, d.paste(printed, "to give the event up: ", "WHY", "a test").err)
			d.awaitStuck(id, "order_updation v4")
			require.ErrorContains(t, d.paste(printed, "to give the event up: ", "WHY", "a test").err, "the skip did nothing: ignored")
			require.ErrorContains(t, d.paste(printed, "to try it again, once the database takes it: ").err, "the retry did nothing: ignored")
			assert.Equal(t, map[int64]order.Outcome{1: order.Applied, 2: order.Applied, 3: order.Skipped}, d.ledger(id), id)
			row, _, err := d.shop().Order(t.Context(), id)
			require.NoError(t, err)
			assert.JSONEq(t, `{"total":5}`, string(row.Data), "the mended data of v2, and not of v3")
		}
	})

	t.Run("as a refusal proposes it", func(t *testing.T) {
		publish("two")
		r := d.ordersync("", "skip", "two")
		require.ErrorContains(t, r.err, "order two is blocked since")
		require.ErrorContains(t, r.err, `data  {"total":-2}`)
		require.ErrorContains(t, r.err, "error CheckViolated")
		require.NoError(t, d.paste(r.err.Error(), "by name: ", "WHY", "a test").err)
		d.awaitStuck("two", "order_updation v3")
		require.ErrorContains(t, d.paste(r.err.Error(), "by name: ", "WHY", "a test").err, "did nothing")
		assert.Equal(t, map[int64]order.Outcome{1: order.Applied, 2: order.Skipped}, d.ledger("two"))
		require.ErrorContains(t, d.ordersync("", "skip", "two", "--event-id", d.stuckOn("two")[:6]).err, "give at least the first 8 digits")
		require.NoError(t, d.ordersync("", "skip", "two", "--yes").err)
		d.awaitStuck("two", "order_updation v4")
	})

	t.Run("in bulk", func(t *testing.T) {
		publish("many-1", "many-2")
		d.ordersync("", "skip", "many-1", "--yes") // on v3 now, later than the other
		d.awaitStuck("many-1", "order_updation v3")
		var v bulkView
		devtest.Eventually(t, time.Minute, func() error {
			v = bulkView{}
			d.ordersync("", "skip", "--error", "CheckViolated", "--dry-run", "-o", "json").decode(t, &v)
			since, err := time.Parse(time.RFC3339, sinceOf(d.show("many-1")))
			if err != nil || v.Survey.Newest.Before(since) {
				return errors.Join(err, fmt.Errorf("%s is not listed yet", since))
			}
			return nil
		}, "Temporal lists what is stuck")
		r := d.ordersync("", "skip", "--error", "CheckViolated")
		require.ErrorContains(t, r.err, "skip would hit")
		require.NotErrorIs(t, d.paste(r.err.Error(), "to these orders: ").err, context.DeadlineExceeded)
		d.awaitStuck("many-1", "order_updation v4")
		d.awaitStuck("many-2", "order_updation v3")
		again := d.paste(r.err.Error(), "to these orders: ")
		require.NoError(t, again.err)
		assert.Contains(t, again.stdout, "no stuck order is selected; nothing was done")
		d.awaitStuck("many-1", "order_updation v4")
		d.awaitStuck("many-2", "order_updation v3")
	})

	t.Run("at a terminal it asks", func(t *testing.T) {
		publish("asked")
		out, err := d.atTerminal("n", "skip", "asked")
		require.ErrorIs(t, err, errDeclined)
		assert.Contains(t, out, "order_updation v2")
		assert.Contains(t, out, "give this event up, for good? [y/N]")
		d.awaitStuck("asked", "order_updation v2")
		_, err = d.atTerminal("y", "skip", "asked")
		require.NoError(t, err)
		d.awaitStuck("asked", "order_updation v3")
	})

	t.Run("a pod does not know who types", func(t *testing.T) {
		publish("pod")
		pod := map[string]string{"KUBERNETES_SERVICE_HOST": "10.0.0.1", "USER": ""}
		r := call(t.Context(), pod, "", "retry", "pod", "--data-dir", d.dir)
		require.ErrorContains(t, r.err, "give --by NAME")
		_ = call(t.Context(), pod, "", "retry", "pod", "--by", "support@shop", "--data-dir", d.dir)
		devtest.Eventually(t, time.Minute, func() error {
			actions, err := d.shop().Actions(t.Context(), "pod")
			if err != nil || len(actions) != 1 || actions[0].By != "support@shop" {
				return errors.Join(err, fmt.Errorf("%v", actions))
			}
			return nil
		}, "the audit has the one that said who it was")
	})
}

var since = regexp.MustCompile(`sync: blocked on \S+ v\d since (\S+)`)

// sinceOf is the time since when an order is stuck, as it is shown.
func sinceOf(shown string) string {
	if m := since.FindStringSubmatch(shown); m != nil {
		return m[1]
	}
	return ""
}

// atTerminal runs a command at a terminal at which a person types an answer.
func (d *devRun) atTerminal(answer string, args ...string) (string, error) {
	d.t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	require.NoError(d.t, err)
	defer master.Close()
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	require.NoError(d.t, err)
	require.NoError(d.t, unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0))
	terminal, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(d.t, err)
	defer terminal.Close()
	_, err = master.WriteString(answer + "\n")
	require.NoError(d.t, err)
	var out, errs bytes.Buffer
	err = run(d.t.Context(), append(append([]string{"ordersync"}, args...), "--data-dir", d.dir), terminal, &out, &errs, map[string]string{"USER": "tester"})
	return out.String() + errs.String(), err
}

func TestWhoTypesIsTheUserWhereItIsOne(t *testing.T) {
	for name, tc := range map[string]struct {
		environ         map[string]string
		container, root bool
		account, want   string
	}{
		"an account":                {account: "ada", want: "ada"},
		"root of a machine":         {root: true, account: "root", want: "root"},
		"sudo":                      {environ: map[string]string{"SUDO_USER": "ada"}, root: true, account: "root", want: "ada"},
		"no account, but a name":    {environ: map[string]string{"USER": "ada"}, want: "ada"},
		"neither":                   {},
		"a pod":                     {container: true},
		"a pod with an account":     {container: true, account: "nonroot"},
		"a pod's root":              {container: true, root: true, account: "root", environ: map[string]string{"USER": "root"}},
		"a pod where USER was set":  {container: true, environ: map[string]string{"USER": "ada"}, want: "ada"},
		"a pod where LOGNAME is":    {container: true, environ: map[string]string{"LOGNAME": "ada"}, want: "ada"},
		"a machine's odd uid, sudo": {environ: map[string]string{"SUDO_USER": "ada"}, account: "bob", want: "bob"},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, tc.want, userName(tc.environ, tc.container, tc.root, tc.account))
		})
	}
}
