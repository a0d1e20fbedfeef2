package pod_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"testing"

	"ordersync/internal/config"
	"ordersync/internal/pod"
)

func TestCommand(t *testing.T) {
	var ran config.Config
	command := pod.Command{
		Name: "worker", About: "worker applies events.", Example: "MYSQL_DSN=… worker",
		Required: []string{"KAFKA_BROKERS", "MYSQL_DSN"},
		Run: func(_ context.Context, cfg config.Config, log *slog.Logger) error {
			ran = cfg
			log.Info("at info")
			log.Warn("at warn")
			return nil
		},
	}
	environ := map[string]string{"KAFKA_BROKERS": "k:9092", "MYSQL_DSN": "u:p@tcp(db)/shop", "LOG_LEVEL": "warn"}
	for _, c := range []struct {
		name    string
		args    []string
		environ map[string]string
		out     []string // parts of it
		err     []string
	}{
		{name: "help", args: []string{"--help"}, out: []string{"worker applies events.", "MYSQL_DSN=… worker", "  HOLD_WINDOW ", "(default 1m)"}},
		{name: "version", args: []string{"--version"}, out: []string{"worker "}},
		{name: "unknown flag", args: []string{"--verbose"}, err: []string{"-verbose", "see worker --help"}},
		{name: "argument", args: []string{"now"}, err: []string{`unexpected argument "now"`, "environment"}},
		{name: "no configuration", err: []string{"KAFKA_BROKERS: is not set", "MYSQL_DSN: is not set", "see worker --help"}},
		{name: "runs", environ: environ, out: []string{`"msg":"at warn"`}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			err := command.Main(t.Context(), c.args, c.environ, &out)
			for _, part := range c.out {
				if !strings.Contains(out.String(), part) {
					t.Errorf("the output lacks %q: %s", part, out.String())
				}
			}
			if (err != nil) != (c.err != nil) {
				t.Fatalf("got %v", err)
			}
			for _, part := range c.err {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("the error lacks %q: %v", part, err)
				}
			}
			if strings.Contains(out.String(), "at info") {
				t.Error("LOG_LEVEL=warn is ignored")
			}
		})
	}
	if ran.MySQL.DSN == "" {
		t.Error("the command did not run with the configuration")
	}
}
