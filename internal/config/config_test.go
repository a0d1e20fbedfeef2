package config_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"ordersync/internal/config"
	"ordersync/internal/order"
)

var minimal = map[string]string{
	"KAFKA_BROKERS": "kafka-0:9092, kafka-1:9092",
	"MYSQL_DSN":     "sync:hunter2@tcp(db:3306)/shop",
}

// with is the minimal environment and name=value pairs.
func with(pairs ...string) map[string]string {
	environ := maps.Clone(minimal)
	for _, pair := range pairs {
		name, value, _ := strings.Cut(pair, "=")
		environ[name] = value
	}
	return environ
}

func load(t *testing.T, environ map[string]string) config.Config {
	t.Helper()
	c, err := config.Load(environ, "KAFKA_BROKERS", "MYSQL_DSN")
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func problems(t *testing.T, environ map[string]string, required ...string) []string {
	t.Helper()
	_, err := config.Load(environ, required...)
	var all *config.Error
	if !errors.As(err, &all) {
		t.Fatalf("want a *config.Error, got %v", err)
	}
	return all.Problems
}

func TestDefaults(t *testing.T) {
	c := load(t, minimal)
	if c.Temporal.TaskQueue != "ordersync" || c.Temporal.Client.HostPort != "localhost:7233" || c.Temporal.Client.Namespace != "default" {
		t.Errorf("temporal: %+v", c.Temporal)
	}
	if !slices.Equal(c.Kafka.Brokers, []string{"kafka-0:9092", "kafka-1:9092"}) || c.Kafka.Group != "ordersync" {
		t.Errorf("kafka: %v %v", c.Kafka.Brokers, c.Kafka.Group)
	}
	want := config.Topics{"online": order.Online, "store": order.Store, "international": order.International}
	if !maps.Equal(c.Kafka.Topics, want) {
		t.Errorf("topics: %v", c.Kafka.Topics)
	}
	if c.BackfillRate != 30 {
		t.Errorf("BackfillRate %d", c.BackfillRate)
	}
	if c.HoldWindow != time.Minute || c.IdleTimeout != 720*time.Hour || c.MaxRetrying != 1000 || c.MaxInFlight != 10_000 {
		t.Errorf("limits: %v %v %v %v", c.HoldWindow, c.IdleTimeout, c.MaxRetrying, c.MaxInFlight)
	}
	if c.EagerStart || c.LogLevel != slog.LevelInfo || c.HTTPAddress != ":8080" || c.Kafka.TLS != nil || c.Kafka.SASL != nil {
		t.Errorf("%v", c)
	}
}

func TestBackfillTopics(t *testing.T) {
	c := load(t, with("KAFKA_TOPICS=online=web,online=app,store=till"))
	backfill := config.Topics{"web.backfill": order.Online, "app.backfill": order.Online, "till.backfill": order.Store}
	if got := c.Kafka.BackfillTopics(); !maps.Equal(got, backfill) {
		t.Errorf("topics of backfills: %v", got)
	}
	if got := c.Kafka.AllTopics().Names(); !slices.Equal(got, []string{"app", "app.backfill", "till", "till.backfill", "web", "web.backfill"}) {
		t.Errorf("all topics: %v", got)
	}
	if len(c.Kafka.Topics) != 3 {
		t.Errorf("the topics changed: %v", c.Kafka.Topics)
	}
	if got := c.Kafka.BackfillTopics().ByChannel(); !maps.Equal(got, map[order.Channel]string{order.Online: "app.backfill", order.Store: "till.backfill"}) {
		t.Errorf("by channel: %v", got)
	}
	load(t, with("KAFKA_TOPICS=online="+strings.Repeat("a", 240)))
}

func TestEmptyVariablesAreUnset(t *testing.T) {
	c := load(t, with("HOLD_WINDOW=", "TEMPORAL_TLS_SERVER_NAME=", "KAFKA_SASL_USERNAME="))
	if c.HoldWindow != time.Minute {
		t.Errorf("HoldWindow %v", c.HoldWindow)
	}
	if c.Temporal.Client.ConnectionOptions.TLS != nil {
		t.Error("an empty TEMPORAL_TLS_SERVER_NAME switched TLS on")
	}
}

func TestAllProblemsAtOnce(t *testing.T) {
	got := problems(t, map[string]string{
		"MAX_RETRYING":         "many",
		"HOLD_WINDOW":          "1 minute",
		"IDLE_TIMEOUT":         "-1s",
		"MAX_IN_FLIGHT":        "0",
		"EAGER_START":          "perhaps",
		"LOG_LEVEL":            "LOUD",
		"HTTP_ADDRESS":         "8080",
		"KAFKA_TOPICS":         "online=a,offline=b,store=a,international",
		"KAFKA_SASL_MECHANISM": "gssapi",
		"KAFKA_TLS_CA_FILE":    "/ca.pem",
		"MYSQL_DSN":            "sync:hunter2@tcp(db:3306)",
		"TEMPORAL_ADDRESS":     "temporal",
	}, "KAFKA_BROKERS", "MYSQL_DSN")
	for _, want := range []string{
		`MAX_RETRYING: "many" is no whole number, such as 1000`,
		`HOLD_WINDOW: "1 minute" is no duration, such as 1m`,
		`IDLE_TIMEOUT: -1s is not within 0s and 87600h`,
		`MAX_IN_FLIGHT: 0 is not within 1 and 1000000`,
		`EAGER_START: "perhaps" is neither true nor false`,
		`LOG_LEVEL: `,
		`HTTP_ADDRESS: "8080" is neither`,
		`KAFKA_TOPICS: unknown channel "offline", the channels are online, store, international`,
		`KAFKA_TOPICS: topic "a" is given to both online and store`,
		`KAFKA_TOPICS: "international" is not channel=topic`,
		`KAFKA_SASL_MECHANISM: "gssapi" is none of`,
		`KAFKA_TLS_*: files are named, but KAFKA_TLS_ENABLED is not true`,
		`KAFKA_BROKERS: is not set: bootstrap servers`,
		`MYSQL_DSN: is not user:password@tcp(host:port)/schema`,
		`TEMPORAL_ADDRESS: "temporal" is not host:port`,
	} {
		if !slices.ContainsFunc(got, func(line string) bool { return strings.HasPrefix(line, want) }) {
			t.Errorf("no line %q", want)
		}
	}
	if len(got) != 15 {
		t.Errorf("%d problems, want 15", len(got))
	}
	if t.Failed() {
		t.Log(strings.Join(got, "\n"))
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct{ variable, want string }{
		{"MYSQL_DSN=sync:hunter2@tcp(db:3306)/", "MYSQL_DSN: names no schema"},
		{"KAFKA_BROKERS=kafka", `KAFKA_BROKERS: "kafka" is not host:port`},
		{"KAFKA_BROKERS=kafka:9092,", `KAFKA_BROKERS: "" is not host:port`},
		{"KAFKA_BROKERS=kafka:99999", `KAFKA_BROKERS: "kafka:99999" does not end in a port`},
		{"KAFKA_TOPICS=online=a b", `KAFKA_TOPICS: "a b" is no name of a topic`},
		{"KAFKA_DEAD_LETTER_TOPIC=online", "KAFKA_DEAD_LETTER_TOPIC: \"online\" is also a topic of online"},
		{"KAFKA_DEAD_LETTER_TOPIC=online.backfill", "KAFKA_DEAD_LETTER_TOPIC: \"online.backfill\" is also a topic of online"},
		{"KAFKA_TOPICS=online=a,online=a.backfill", `KAFKA_TOPICS: "a.backfill" is the topic of backfills to "a"`},
		{"KAFKA_TOPICS=online=" + strings.Repeat("a", 241), `KAFKA_TOPICS: topic "aaa`},
		{"BACKFILL_RATE=-1", "BACKFILL_RATE: -1 is not within 0 and 100000"},
		{"KAFKA_SASL_USERNAME=sync", "KAFKA_SASL_MECHANISM: is not set"},
		{"KAFKA_SASL_MECHANISM=plain", "KAFKA_SASL_MECHANISM: plain needs"},
		{"MYSQL_MAX_CONNS=0", "MYSQL_MAX_CONNS: 0 is not within 1 and 1000"},
		{"WORKER_STOP_TIMEOUT=1m", "WORKER_STOP_TIMEOUT: 1m0s is not within"},
		{"TEMPORAL_PROFILE=absent", "TEMPORAL_*: unable to find profile"},
		{"TEMPORAL_TLS_CLIENT_CERT_PATH=/absent.pem", "TEMPORAL_*: invalid TLS config"},
	} {
		t.Run(c.variable, func(t *testing.T) {
			got := problems(t, with(c.variable))
			if len(got) != 1 || !strings.HasPrefix(got[0], c.want) {
				t.Errorf("got %q, want one line %q", got, c.want)
			}
		})
	}
	t.Run("EAGER_START without a target", func(t *testing.T) {
		got := problems(t, map[string]string{"EAGER_START": "true"})
		if len(got) != 1 || !strings.Contains(got[0], "MYSQL_DSN") {
			t.Errorf("got %q", got)
		}
	})
}

// secrets are given in every way that one can be given.
var secrets = with(
	"KAFKA_SASL_MECHANISM=scram-sha-512", "KAFKA_SASL_USERNAME=sync", "KAFKA_SASL_PASSWORD=hunter2",
	"TEMPORAL_API_KEY=hunter2", "TEMPORAL_GRPC_META_AUTHORIZATION=hunter2", "TEMPORAL_UNKNOWN=hunter2",
)

func TestSecretsAreMasked(t *testing.T) {
	c := load(t, secrets)
	var out bytes.Buffer
	logger := slog.New(slog.NewJSONHandler(&out, nil))
	logger.Info("start", "config", c, "dsn", c.MySQL.DSN)
	slog.New(slog.NewTextHandler(&out, nil)).Info("start", "config", c, "dsn", c.MySQL.DSN)
	fmt.Fprintf(&out, "%v %+v %#v %s\n", c, c, c, c)
	fmt.Fprintf(&out, "%v %+v %#v %s %q\n", c.MySQL, c.MySQL, c.MySQL, c.MySQL.DSN, c.Kafka.Password)
	if strings.Contains(out.String(), "hunter2") {
		t.Errorf("a secret is printed: %s", out.String())
	}
	for _, want := range []string{
		`"MYSQL_DSN":"sync:***@tcp(db:3306)/shop"`, `"KAFKA_SASL_PASSWORD":"***"`, `"TEMPORAL_API_KEY":"***"`,
		`"TEMPORAL_GRPC_META_AUTHORIZATION":"***"`, `"KAFKA_BROKERS":"kafka-0:9092,kafka-1:9092"`,
		`"KAFKA_TOPICS":"international=international,online=online,store=store"`, `"HOLD_WINDOW":"1m0s"`,
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the log lacks %s: %s", want, out.String())
		}
	}
}

func TestErrorsQuoteNoSecret(t *testing.T) {
	for _, dsn := range []string{"sync:hunter2@tcp(db:3306", "sync:hunter2@tcp(db)/shop?parseTime=hunter2", "hunter2", "sync:hunter2@/shop?x=%zz"} {
		if _, err := config.Load(with("MYSQL_DSN=" + dsn)); err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error quotes it: %v", dsn, err)
		}
	}
}

func TestTemporalByTheSDK(t *testing.T) {
	c := load(t, with("TEMPORAL_ADDRESS=cloud:7233", "TEMPORAL_NAMESPACE=shop", "TEMPORAL_API_KEY=key"))
	options := c.Temporal.Client
	if options.HostPort != "cloud:7233" || options.Namespace != "shop" || options.Credentials == nil || options.ConnectionOptions.TLS == nil {
		t.Errorf("%+v", options)
	}

	file := filepath.Join(t.TempDir(), "temporal.toml")
	if err := os.WriteFile(file, []byte("[profile.default]\naddress = \"from-file:7233\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c := load(t, with("TEMPORAL_CONFIG_FILE="+file)); c.Temporal.Client.HostPort != "from-file:7233" {
		t.Errorf("address %s", c.Temporal.Client.HostPort)
	}
}

// A developer's own temporal.toml names a cloud, and DIR/env or a pod names a plain address.
func TestTemporalFileOnlyOnRequest(t *testing.T) {
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", home)
	dir := filepath.Join(home, "temporalio")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "temporal.toml"), []byte("[profile.default]\napi_key = \"x\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c := load(t, with("TEMPORAL_ADDRESS=127.0.0.1:7233")); c.Temporal.Client.ConnectionOptions.TLS != nil {
		t.Error("the default file was read")
	}
}

func TestSASL(t *testing.T) {
	for mechanism, name := range map[string]string{"plain": "PLAIN", "SCRAM-SHA-256": "SCRAM-SHA-256", "scram-sha-512": "SCRAM-SHA-512"} {
		c := load(t, with("KAFKA_SASL_MECHANISM="+mechanism, "KAFKA_SASL_USERNAME=sync", "KAFKA_SASL_PASSWORD=pw"))
		if c.Kafka.SASL == nil || c.Kafka.SASL.Name() != name {
			t.Errorf("%s: %v", mechanism, c.Kafka.SASL)
		}
	}
}

// The tags are read at run time, so their mistakes are found here.
func TestTags(t *testing.T) {
	seen := map[string]bool{}
	for _, v := range config.Variables() {
		if v.Usage == "" || seen[v.Name] || (v.Min == "") != (v.Max == "") {
			t.Errorf("%+v: no usage, listed twice or half a range", v)
		}
		seen[v.Name] = true
		if !config.Known(v.Name) {
			t.Errorf("%s is not known", v.Name)
		}
	}
	if config.Known("MYSQL_DNS") {
		t.Error("MYSQL_DNS is known")
	}

	fields := map[string]bool{}
	var walk func(reflect.Type)
	walk = func(s reflect.Type) {
		for i := range s.NumField() {
			f := s.Field(i)
			_, nested := f.Tag.Lookup("envPrefix")
			name := f.Tag.Get("env")
			switch {
			case nested:
				walk(f.Type)
			case name != "" && name != "-":
				if fields[f.Name] {
					t.Errorf("two fields are named %s: a parse error could not be told apart", f.Name)
				}
				fields[f.Name] = true
			}
		}
	}
	walk(reflect.TypeFor[config.Config]())
	for _, name := range []string{"MYSQL_DSN", "KAFKA_BROKERS", "TEMPORAL_ADDRESS", "HOLD_WINDOW", "(default 1m)"} {
		if !strings.Contains(config.Usage(), name) {
			t.Errorf("usage lacks %s", name)
		}
	}
}
