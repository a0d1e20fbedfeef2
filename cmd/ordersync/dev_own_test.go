package main

import (
	"context"
	"errors"
	"io"
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
)

// A shell that has read DIR/env starts the stack of that directory again after it has ended, where the shell
// expects it.
func TestDevFromAShellThatKnowsTheStack(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a stack twice")
	}
	dir := filepath.Join(t.TempDir(), "stack")
	d := startDev(t, dir, "--erp", "--erp-orders", "3", "--erp-rate", "100")
	sourced, err := envfile.Read(devstack.EnvFile(dir))
	require.NoError(t, err)
	require.NoError(t, d.end())

	sourced["PATH"] = os.Getenv("PATH")
	ctx, cancel := context.WithCancel(t.Context())
	var out, errs syncBuffer
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, []string{"ordersync", "dev", "--data-dir", dir, "--ui-port", "0", "--erp", "--erp-orders", "3", "--erp-rate", "100"}, strings.NewReader(""), &out, &errs, sourced)
	}()
	stop := func() error { cancel(); err := <-ended; ended <- err; return err }
	t.Cleanup(func() { _ = stop() })
	devtest.Eventually(t, 2*time.Minute, func() error {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("dev ended: %v\n%s", err, errs.String())
		default:
		}
		if !strings.Contains(errs.String(), "polled everything") {
			return errors.New(errs.String())
		}
		return nil
	}, "the stack is up again, and its own ERP is polled")
	assert.Contains(t, errs.String(), "KAFKA_BROKERS, MYSQL_DSN, TEMPORAL_ADDRESS come from an earlier stack in "+dir+": its servers are started again")
	assert.NotContains(t, errs.String(), "is set: that server is used")

	// The shell's addresses hold.
	var s settle.Summary
	call(t.Context(), sourced, "", "wait", "--timeout", "2m", "-o", "json", "--data-dir", "nowhere").decode(t, &s)
	assert.Equal(t, 3, s.Orders)
	require.NoError(t, stop())
}

func TestForgetOwn(t *testing.T) {
	dir := t.TempDir()
	own := "export KAFKA_BROKERS='127.0.0.1:19092'\nexport TEMPORAL_ADDRESS='127.0.0.1:17233'\nexport MYSQL_DSN='u:p@tcp(127.0.0.1:13306)/s'\nexport ERP_SOURCE='http'\nexport ERP_URL='http://127.0.0.1:1'\n"
	require.NoError(t, os.WriteFile(devstack.OwnEnvFile(dir), []byte(own), 0o600))
	sourced := func(changes ...string) map[string]string {
		environ, err := envfile.Parse(strings.NewReader(own + strings.Join(changes, "\n")))
		require.NoError(t, err)
		environ["HOLD_WINDOW"] = "1s"
		return environ
	}
	for name, tc := range map[string]struct {
		environ map[string]string
		dir     string
		flag    string
		want    map[string]string
		ports   [3]int
		says    string
	}{
		"all of them":            {environ: sourced(), want: map[string]string{"HOLD_WINDOW": "1s"}, ports: [3]int{19092, 17233, 13306}, says: "ERP_SOURCE, ERP_URL, KAFKA_BROKERS, MYSQL_DSN, TEMPORAL_ADDRESS come from"},
		"a port that is given":   {environ: sourced(), flag: "mysql-port", want: map[string]string{"HOLD_WINDOW": "1s"}, ports: [3]int{19092, 17233, 3306}, says: "come from"},
		"one's own Kafka":        {environ: sourced("KAFKA_BROKERS=k:1"), want: map[string]string{"HOLD_WINDOW": "1s", kafkaBrokers: "k:1"}, ports: [3]int{9092, 17233, 13306}, says: "ERP_SOURCE, ERP_URL, MYSQL_DSN, TEMPORAL_ADDRESS come from"},
		"one of them":            {environ: map[string]string{kafkaBrokers: "127.0.0.1:19092"}, want: map[string]string{}, ports: [3]int{19092, 7233, 3306}, says: "KAFKA_BROKERS comes from"},
		"none":                   {environ: map[string]string{kafkaBrokers: "k:1"}, want: map[string]string{kafkaBrokers: "k:1"}, ports: [3]int{9092, 7233, 3306}},
		"of another directory":   {environ: sourced(), dir: t.TempDir(), want: sourced(), ports: [3]int{9092, 7233, 3306}},
		"without an environment": {want: nil, ports: [3]int{9092, 7233, 3306}},
	} {
		t.Run(name, func(t *testing.T) {
			var errs syncBuffer
			a := &app{environ: tc.environ, dataDir: dir, stderr: &errs, stdout: io.Discard}
			if tc.dir != "" {
				a.dataDir = tc.dir
			}
			d := &dev{app: a, kafkaPort: 9092, temporalPort: 7233, mysqlPort: 3306}
			require.NoError(t, d.forgetOwn(func(flag string) bool { return flag == tc.flag }))
			assert.Equal(t, tc.want, d.environ)
			assert.Equal(t, tc.ports, [3]int{d.kafkaPort, d.temporalPort, d.mysqlPort})
			assert.Contains(t, errs.String(), tc.says)
			if tc.says == "" {
				assert.Empty(t, errs.String())
			}
		})
	}
}
