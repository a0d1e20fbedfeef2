package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"ordersync/internal/config"
	"ordersync/internal/devstack"
	"ordersync/internal/devstack/devtest"
	"ordersync/internal/order"
)

func TestMain(m *testing.M) { devtest.Main(m) }

var update = flag.Bool("update", false, "rewrite the golden files")

// result is what a command left behind.
type result struct {
	stdout, stderr string
	err            error
}

// call runs the command as a shell would, with an environment of its own, in which the person has a name.
func call(ctx context.Context, environ map[string]string, stdin string, args ...string) result {
	var out, errs bytes.Buffer
	err := run(ctx, append([]string{"ordersync"}, args...), strings.NewReader(stdin), &out, &errs, named(environ))
	return result{out.String(), errs.String(), err}
}

// named is an environment in which the person has a name, where it says nothing of it: a container has none.
func named(environ map[string]string) map[string]string {
	named := map[string]string{"USER": "tester"}
	maps.Copy(named, environ)
	return named
}

// whenInterrupted runs a command until it says something on standard error, and gives its error when it is
// interrupted then.
func whenInterrupted(t *testing.T, environ map[string]string, says string, args ...string) error {
	t.Helper()
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	var errs syncBuffer
	ended := make(chan error, 1)
	go func() {
		ended <- run(ctx, append([]string{"ordersync"}, args...), strings.NewReader(""), io.Discard, &errs, named(environ))
	}()
	devtest.Eventually(t, 30*time.Second, func() error {
		if text := errs.String(); !strings.Contains(text, says) {
			return errors.New(text)
		}
		return nil
	}, says)
	interrupt()
	return <-ended
}

func (r result) decode(t *testing.T, into any) {
	t.Helper()
	require.NoError(t, r.err, r.stderr)
	dec := json.NewDecoder(strings.NewReader(r.stdout))
	dec.DisallowUnknownFields()
	require.NoError(t, dec.Decode(into), r.stdout)
}

// decodeAnyway reads what a command wrote before it failed.
func (r result) decodeAnyway(t *testing.T, into any) {
	t.Helper()
	r.err = nil
	r.decode(t, into)
}

// The help is the manual: read its changes as a diff. go test ./cmd/ordersync -run Help -update
func TestHelp(t *testing.T) {
	var text strings.Builder
	var show func(c *cobra.Command, line ...string)
	show = func(c *cobra.Command, line ...string) {
		assert.NotEmpty(t, c.Example, "%s has an example", c.Name())
		assert.NotEmpty(t, c.Long, "%s is explained", c.Name())
		args := slices.Concat(line, []string{"--help"})
		r := call(t.Context(), nil, "", args...)
		require.NoError(t, r.err)
		text.WriteString("$ ordersync " + strings.Join(args, " ") + "\n")
		text.WriteString(strings.Replace(r.stdout, strings.TrimRight(config.Usage(), "\n"), "  (the variables)", 1) + "\n")
		for _, below := range c.Commands() {
			if name := below.Name(); name != "help" && name != "completion" { // cobra's own
				show(below, append(slices.Clone(line), name)...)
			}
		}
	}
	show((&app{}).root())
	golden := filepath.Join("testdata", "help.txt")
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o750))
		require.NoError(t, os.WriteFile(golden, []byte(text.String()), 0o640))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err, "write it with -update")
	assert.Equal(t, string(want), text.String())
	for line := range strings.Lines(text.String()) {
		assert.LessOrEqual(t, len([]rune(line)), 121, "a terminal's width: %s", line)
	}
}

func TestWrongCommandLinesSayWhatToDo(t *testing.T) {
	for line, want := range map[string]string{
		"nonsense":                     `there is no command "nonsense"; see ordersync --help`,
		"reconcile --last --repair":    "--last shows what the last reconcile has found",
		"reconcile --limit 1001":       "--limit 1001: give a number from 0 to 1000",
		"reconcile --page-size -1":     "--page-size -1: give a number",
		"wait now":                     `ordersync wait takes no argument, not "now"`,
		"wait --nonsense":              "unknown flag: --nonsense; see ordersync wait --help",
		"wait -o yaml":                 "-o yaml: the output is text or json",
		"wait --timeout -5s":           "--timeout -5s: give a duration",
		"order":                        "takes one argument, a sync_id, not 0",
		"order " + longID:              "is no sync_id: that has 1 to 64 bytes",
		"simulate many":                `"many" is no number of orders`,
		"simulate 0":                   `"0" is no number of orders`,
		"simulate 1 --updates -1":      "--updates -1: give a number from 0",
		"load x --channel web":         "--channel web: the channels are online, store, international",
		"blocked --limit 0":            "--limit 0: give a number from 1",
		"amend 1":                      "either by --data JSON or by --data-file FILE",
		"amend 1 --data {":             "the new data is not usable",
		"amend 1 --data null":          "the new data is not usable",
		"setup --partitions 0":         "--partitions 0: give a number from 1 on",
		"dev --mysql-port 70000":       "--mysql-port 70000: give a port",
		"deadletter nonsense":          `ordersync deadletter takes no argument, not "nonsense"`,
		"deadletter replay":            "ordersync deadletter replay needs letters",
		"deadletter discard 0/1 --all": "--all takes all open letters",
		"deadletter list --limit 0":    "--limit 0: give a number from 1",
		"deadletter list --since x":    `"x" is no time: give one such as 2026-01-02T15:04:05Z`,
		"deadletter show":              "ordersync deadletter show takes one argument, the place of a letter, not 0",
		"replay":                       "say what to replay: --order ID, or --since T",
		"replay --since 1h --until 2h": "is not after --since",
		"load no-such-file":            "no servers: KAFKA_BROKERS is not set",
		"retry 1":                      "TEMPORAL_ADDRESS is not set, and there is no nowhere/env",
		"simulate 1 --data-dir a -o":   "unknown shorthand flag",
	} {
		r := call(t.Context(), nil, "", append(strings.Fields(line), "--data-dir", "nowhere")...)
		assert.ErrorContains(t, r.err, want, line)
		assert.Empty(t, r.stdout, line)
	}
}

// A script's variable is empty, and without the flag the command would act on more.
func TestAnEmptyFlagIsRefused(t *testing.T) {
	for _, line := range [][]string{
		{"skip", "1", "--yes", "--event-id", ""}, {"retry", "1", "--event-id", ""}, {"amend", "1", "--data", "{}", "--yes", "--event-id", " "},
		{"skip", "--channel", "store", "--yes", "--error", ""}, {"retry", "--all", "--channel", ""},
		{"deadletter", "discard", "--topic", "erp", "--yes", "--order", ""}, {"deadletter", "discard", "--topic", "erp", "--yes", "--reason", ""},
		{"deadletter", "replay", "0/1", "--value-file", ""}, {"replay", "--since", "2h", "--order", ""},
	} {
		r := call(t.Context(), nil, "", append([]string{"--data-dir", "nowhere"}, line...)...)
		flag := line[len(line)-2]
		assert.ErrorContains(t, r.err, flag+" is empty: give a value, or leave the flag out", "%q", line)
	}
}

var longID = strings.Repeat("x", 65)

func TestSimulateIsTheSameForASeed(t *testing.T) {
	first := call(t.Context(), nil, "", "simulate", "20", "--seed", "7", "--updates", "1")
	require.NoError(t, first.err)
	assert.Equal(t, 60, strings.Count(first.stdout, "\n"))
	assert.Equal(t, first.stdout, call(t.Context(), nil, "", "simulate", "20", "--seed", "7", "--updates", "1").stdout)
	assert.NotEqual(t, first.stdout, call(t.Context(), nil, "", "simulate", "20", "--seed", "8", "--updates", "1").stdout)
}

// stackAt writes the file that a stack leaves, with a server that answers at every address.
func stackAt(t *testing.T, answers bool) (dir, address string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	address = listener.Addr().String()
	if !answers {
		require.NoError(t, listener.Close())
	}
	dir = t.TempDir()
	text := "export KAFKA_BROKERS='" + address + "'\nexport TEMPORAL_ADDRESS='" + address + "'\nexport MYSQL_DSN='u:p@tcp(" + address + ")/s'\n"
	require.NoError(t, os.WriteFile(devstack.EnvFile(dir), []byte(text), 0o600))
	return dir, address
}

func TestServersComeFromTheEnvironmentElseTheStack(t *testing.T) {
	dir, address := stackAt(t, true)
	dead, _ := stackAt(t, false)
	all := []string{kafkaBrokers, temporalAddress, mysqlDSN}
	for name, tc := range map[string]struct {
		environ map[string]string
		dir     string
		needed  []string
		kafka   string // what KAFKA_BROKERS comes to
		err     string
	}{
		"the stack":                          {dir: dir, needed: all, kafka: address},
		"the environment goes first":         {environ: map[string]string{kafkaBrokers: "k:1"}, dir: dir, needed: []string{kafkaBrokers}, kafka: "k:1"},
		"the environment alone":              {environ: map[string]string{kafkaBrokers: "k:1", temporalAddress: "t:1", mysqlDSN: "u@tcp(m:1)/s"}, dir: "nowhere", needed: all, kafka: "k:1"},
		"the same server twice":              {environ: map[string]string{kafkaBrokers: address}, dir: dir, needed: all, kafka: address},
		"an empty variable is none":          {environ: map[string]string{kafkaBrokers: " "}, dir: dir, needed: all, kafka: address},
		"Temporal in a profile":              {environ: map[string]string{kafkaBrokers: "k:1", "TEMPORAL_PROFILE": "prod"}, dir: "nowhere", needed: []string{kafkaBrokers, temporalAddress}, kafka: "k:1"},
		"one's own Kafka, the stack's MySQL": {environ: map[string]string{kafkaBrokers: "k:1"}, dir: dir, needed: all, err: "KAFKA_BROKERS is set to another server"},
		"neither":                            {dir: "nowhere", needed: all, err: "start a stack of your own with `ordersync dev`"},
		"a stack that was killed":            {dir: dead, needed: all, err: "is `ordersync dev` still running?"},
	} {
		t.Run(name, func(t *testing.T) {
			a := &app{environ: tc.environ, dataDir: tc.dir}
			environ, err := a.servers(t.Context(), tc.needed)
			if tc.err != "" {
				require.ErrorContains(t, err, tc.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tc.kafka, environ[kafkaBrokers])
		})
	}
}

func TestHintsReachTheSameStack(t *testing.T) {
	assert.Equal(t, "ordersync wait", (&app{program: "ordersync", dataDir: defaultDir}).hint("wait"))
	assert.Equal(t, "bin/ordersync --data-dir x wait", (&app{program: "bin/ordersync", dataDir: "x"}).hint("wait"))
	assert.Equal(t, "'my bin/ordersync' --data-dir 'a b' order -- -1", (&app{program: "my bin/ordersync", dataDir: "a b"}).propose(order.ShowCommand("-1")))
}

// A log that is written to for weeks stays bounded, and loses no line but old ones.
func TestLogFileIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "logs", "x.log")
	l, err := openLog(path)
	require.NoError(t, err)
	_, err = l.Write(bytes.Repeat([]byte("x"), maxLog+1))
	require.NoError(t, err)
	_, err = l.Write([]byte("new\n"))
	require.NoError(t, err)
	require.NoError(t, l.Close())
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, "new\n", string(text))
	old, err := os.Stat(path + ".old")
	require.NoError(t, err)
	assert.EqualValues(t, maxLog+1, old.Size())
}

func TestShortened(t *testing.T) {
	assert.Equal(t, "a b", shortened("a\n\tb", 10))
	assert.Equal(t, "日本…", shortened("日本語です", 3))
}

func TestMoments(t *testing.T) {
	for text, want := range map[string]string{
		"2026-01-02T15:04:05Z": "2026-01-02T15:04:05Z", "2026-01-02T15:04:05+02:00": "2026-01-02T13:04:05Z", "2026-01-02": "2026-01-02T00:00:00Z",
	} {
		var m moment
		require.NoError(t, m.Set(text))
		assert.Equal(t, want, m.String())
	}
	var m moment
	require.NoError(t, m.Set("90m"))
	assert.WithinDuration(t, time.Now().Add(-90*time.Minute), m.Time, time.Minute)
	for _, text := range []string{"", "-90m", "yesterday", "2026-13-01"} {
		assert.Error(t, m.Set(text), text)
	}
}
