package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"ordersync/internal/devstack"
	"ordersync/internal/devstack/devtest"
	"ordersync/internal/envfile"
	"ordersync/internal/settle"
	"ordersync/internal/simulate"
	"ordersync/workflows"
)

// A stack that starts at the ERP: it is polled from the first moment, says when everything is in Kafka,
// and both ends agree.
func TestDevERP(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a whole stack")
	}
	file := filepath.Join(t.TempDir(), "orders.ndjson")
	simulated := call(t.Context(), nil, "", "simulate", "30", "--seed", "3")
	require.NoError(t, os.WriteFile(file, []byte(simulated.stdout), 0o600))
	d := startDev(t, filepath.Join(t.TempDir(), "stack"), "--erp", "--erp-file", file, "--erp-rate", "100", "--erp-outages")
	for _, next := range []string{"status --watch", "schedule list", "order 30000001", "reconcile"} {
		assert.Contains(t, d.stdout.String(), "ordersync --data-dir "+d.dir+" "+next)
	}
	environ, err := envfile.Read(devstack.EnvFile(d.dir))
	require.NoError(t, err)
	assert.Equal(t, "http", environ["ERP_SOURCE"])
	assert.Contains(t, d.stdout.String(), environ["ERP_URL"]+"/events")

	devtest.Eventually(t, 2*time.Minute, func() error {
		if !strings.Contains(d.stderr.String(), "polled everything: ") {
			return fmt.Errorf("%s", d.stderr)
		}
		return nil
	}, "everything is polled")
	var s settle.Summary
	d.ordersync("", "wait", "--timeout", "2m", "-o", "json").decode(t, &s)
	assert.Equal(t, 30, s.Orders)
	want, err := simulate.ReadTarget(t.Context(), d.shop().DB())
	require.NoError(t, err)
	assert.Len(t, want.Orders, 30)
	var report workflows.ReconcileReport
	d.ordersync("", "reconcile", "-o", "json").decode(t, &report)
	assert.EqualValues(t, 30, report.Agreeing)
	assert.EqualValues(t, 30, report.ERPOrders)
	assert.Zero(t, report.Drifted())
	require.NoError(t, d.end())
}

func TestDevERPRefusals(t *testing.T) {
	bad := filepath.Join(t.TempDir(), "bad.ndjson")
	require.NoError(t, os.WriteFile(bad, []byte("{}\n"), 0o600))
	empty := filepath.Join(t.TempDir(), "empty.ndjson")
	require.NoError(t, os.WriteFile(empty, nil, 0o600))
	for line, want := range map[string]string{
		"--erp-orders 5":                       "--erp-orders is about the ERP of --erp, which is missing",
		"--erp --erp-orders 0":                 "--erp-orders 0: give a number from 1",
		"--erp --erp-rate 0":                   "--erp-rate 0: give a number above 0",
		"--erp --erp-rate NaN":                 "--erp-rate NaN: give a number above 0",
		"--erp --erp-file x --erp-orders 5":    "--erp-file and --erp-orders: ",
		"--erp --erp-file no-such-file":        "no-such-file: no such file",
		"--erp --erp-file " + bad:              "bad.ndjson: line 1: ",
		"--erp --erp-file " + empty:            "empty.ndjson: it is empty",
		"--erp --erp-rate 1 --erp-file " + bad: "line 1: missing-field",
	} {
		dir := filepath.Join(t.TempDir(), "nowhere")
		r := call(t.Context(), nil, "", append(strings.Fields("dev "+line), "--data-dir", dir)...)
		assert.ErrorContains(t, r.err, want, line)
		assert.NoDirExists(t, dir, "%s: nothing is begun", line)
	}
	r := call(t.Context(), map[string]string{"ERP_SOURCE": "http", "ERP_URL": "http://erp"}, "", "dev", "--erp", "--data-dir", t.TempDir())
	assert.ErrorContains(t, r.err, "--erp is another ERP than that of ERP_SOURCE")
}
