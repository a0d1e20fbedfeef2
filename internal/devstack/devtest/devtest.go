// Package devtest gives tests real servers. They are started when the first test of a binary asks,
// shared by its tests, and stopped by Main:
//
//	func TestMain(m *testing.M) { devtest.Main(m) }
//
// A binary that ends in another way (a panic, a time-out) takes them with it on Linux. Where a server
// is not installed the test is skipped, naming what to run; with CI=true that is a failure.
package devtest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	enumspb "go.temporal.io/api/enums/v1"

	"ordersync/internal/devstack"
)

// SearchAttributes are those that Temporal knows: those of the package workflows, which devtest does
// not import so that it can be used in that package's own tests.
var SearchAttributes = map[string]enumspb.IndexedValueType{
	"OrderID": enumspb.INDEXED_VALUE_TYPE_KEYWORD, "Channel": enumspb.INDEXED_VALUE_TYPE_KEYWORD,
	"SyncStatus": enumspb.INDEXED_VALUE_TYPE_KEYWORD, "SyncError": enumspb.INDEXED_VALUE_TYPE_KEYWORD,
	"StuckSince": enumspb.INDEXED_VALUE_TYPE_DATETIME,
}

// KafkaVariable names the environment variable that makes Kafka use another broker than the
// embedded one: "real" starts an Apache Kafka for the test binary, host:port is one that runs.
const KafkaVariable = "ORDERSYNC_TEST_KAFKA"

// shared is a server that all tests of a binary use.
type shared[T interface{ Stop(context.Context) error }] struct {
	mu     sync.Mutex
	tried  bool
	server T
	err    error
}

func (s *shared[T]) get(start func(context.Context) (T, error)) (T, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.tried {
		s.tried = true
		s.server, s.err = start(context.Background())
	}
	return s.server, s.err
}

func (s *shared[T]) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tried && s.err == nil {
		if err := s.server.Stop(context.Background()); err != nil {
			fmt.Fprintln(os.Stderr, "devtest:", err)
		}
	}
}

var (
	mysql    shared[*devstack.MySQL]
	postgres shared[*devstack.Postgres]
	temporal shared[*devstack.Temporal]
	apache   shared[*devstack.RealKafka]

	// dir is one directory for the binary's shared servers.
	dir = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "ordersync-test-") })

	names atomic.Int64
)

// Main runs the tests, stops the shared servers and exits.
func Main(m *testing.M) {
	code := m.Run()
	temporal.stop()
	mysql.stop()
	postgres.stop()
	apache.stop()
	if path, err := dir(); err == nil {
		_ = os.RemoveAll(path)
	}
	os.Exit(code)
}

// Dir is a directory that the tests of a binary share, for what is made once for all of them. Main
// removes it.
func Dir(t testing.TB) string {
	t.Helper()
	path, err := dir()
	require(t, err)
	return path
}

// Name is a name no other test on this machine has, fit for schemas, topics, groups and task queues.
func Name(t testing.TB, prefix string) string {
	t.Helper()
	return fmt.Sprintf("%s_%d_%d_%d", prefix, os.Getpid(), time.Now().UnixNano(), names.Add(1))
}

// MySQL is the data source name of a fresh schema, dropped when the test ends.
func MySQL(t testing.TB) (dsn string) {
	t.Helper()
	server, err := mysql.get(func(ctx context.Context) (*devstack.MySQL, error) {
		path, err := dir()
		if err != nil {
			return nil, err
		}
		return devstack.StartMySQL(ctx, devstack.MySQLOptions{Dir: path, Logger: errorLog()})
	})
	require(t, err)
	schema := Name(t, "test")
	dsn, err = server.CreateSchema(t.Context(), schema)
	require(t, err)
	t.Cleanup(func() {
		if err := server.DropSchema(context.Background(), schema); err != nil {
			t.Errorf("drop the test's schema: %v", err)
		}
	})
	return dsn
}

// Postgres is the URL of a fresh database in PostgreSQL, dropped when the test ends.
func Postgres(t testing.TB) (url string) {
	t.Helper()
	server, err := postgres.get(func(ctx context.Context) (*devstack.Postgres, error) {
		path, err := dir()
		if err != nil {
			return nil, err
		}
		return devstack.StartPostgres(ctx, devstack.PostgresOptions{Dir: path, Logger: errorLog()})
	})
	require(t, err)
	database := Name(t, "test")
	url, err = server.CreateDatabase(t.Context(), database)
	require(t, err)
	t.Cleanup(func() {
		if err := server.DropDatabase(context.Background(), database); err != nil {
			t.Errorf("drop the test's database: %v", err)
		}
	})
	return url
}

// MySQLPrivate is a server of the test's own, to be stopped and killed. A restart on the same
// directory and port is StartMySQL with the same options.
func MySQLPrivate(t testing.TB, options devstack.MySQLOptions) *devstack.MySQL {
	t.Helper()
	if options.Dir == "" {
		options.Dir = t.TempDir()
	}
	server, err := devstack.StartMySQL(t.Context(), options)
	require(t, err)
	t.Cleanup(func() { stop(t, server) })
	return server
}

// Temporal is the address of a server in memory that knows SearchAttributes. Tests share its namespace
// default: give task queues and workflows names of their own.
func Temporal(t testing.TB) (address string) {
	t.Helper()
	server, err := temporal.get(func(ctx context.Context) (*devstack.Temporal, error) {
		path, err := dir()
		if err != nil {
			return nil, err
		}
		return devstack.StartTemporal(ctx, devstack.TemporalOptions{
			Dir: path, Headless: true, InMemory: true, SearchAttributes: SearchAttributes, Logger: errorLog(),
		})
	})
	require(t, err)
	return server.Address()
}

// TemporalPrivate is a server of the test's own with its database in a file, to be stopped and
// killed. A restart on the same directory and port is StartTemporal with the same options.
func TemporalPrivate(t testing.TB, options devstack.TemporalOptions) *devstack.Temporal {
	t.Helper()
	if options.Dir == "" {
		options.Dir = t.TempDir()
	}
	options.Headless, options.SearchAttributes = true, SearchAttributes
	server, err := devstack.StartTemporal(t.Context(), options)
	require(t, err)
	t.Cleanup(func() { stop(t, server) })
	return server
}

// Kafka is the brokers of an embedded cluster of the test's own, in memory and without topics. What
// KafkaVariable names instead is shared by all tests: give topics and groups names of their own.
func Kafka(t testing.TB) (brokers []string) {
	t.Helper()
	switch broker := os.Getenv(KafkaVariable); broker {
	case "":
		return KafkaEmbedded(t).Brokers()
	case "real":
		server, err := apache.get(func(ctx context.Context) (*devstack.RealKafka, error) {
			path, err := dir()
			if err != nil {
				return nil, err
			}
			return devstack.StartRealKafka(ctx, devstack.RealKafkaOptions{Dir: path, Logger: errorLog()})
		})
		require(t, err)
		return server.Brokers()
	default:
		return strings.Split(broker, ",")
	}
}

// KafkaEmbedded is an embedded cluster of the test's own whatever the environment says, for tests
// that inject faults.
func KafkaEmbedded(t testing.TB) *devstack.Kafka {
	t.Helper()
	server, err := devstack.StartKafka(t.Context(), devstack.KafkaOptions{})
	require(t, err)
	t.Cleanup(func() { stop(t, server) })
	return server
}

// Eventually waits until check returns nil, and fails the test with check's last error if that does
// not happen within the limit.
func Eventually(t testing.TB, limit time.Duration, check func() error, what string) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	end := time.NewTimer(limit)
	defer end.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-t.Context().Done():
			t.Fatalf("%s: the test ended; the last state: %v", what, err)
		case <-end.C:
			t.Fatalf("%s: not within %s; the last state: %v", what, limit, err)
		}
	}
}

func stop(t testing.TB, server interface{ Stop(context.Context) error }) {
	if err := server.Stop(context.Background()); err != nil {
		t.Errorf("stop a server: %v", err)
	}
}

// require ends the test on an error: as skipped where a server is not installed, except in CI.
func require(t testing.TB, err error) {
	t.Helper()
	switch {
	case err == nil:
	case errors.Is(err, devstack.ErrMissing) && os.Getenv("CI") != "true":
		t.Skip(err)
	default:
		t.Fatal(err)
	}
}

func errorLog() *slog.Logger {
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
}
