package devstack_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"ordersync/internal/connect"
	"ordersync/internal/devstack"
	"ordersync/internal/devstack/devtest"
)

// helperDir makes the test binary run a stack in that directory until it is told to stop, in place
// of the tests: what `ordersync dev` does, in a process that a test can kill.
const helperDir = "DEVSTACK_TEST_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(helperDir); dir != "" {
		if err := helper(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	devtest.Main(m)
}

func helper(dir string) error {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	stack, err := devstack.Start(ctx, devstack.Options{Dir: dir})
	if err != nil {
		return err
	}
	if err := stack.WriteEnv(nil); err != nil {
		return err
	}
	<-ctx.Done()
	return stack.Stop(context.Background())
}

// startHelper returns when the helper's stack is ready.
func startHelper(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	requireServers(t)
	stale, _ := os.ReadFile(devstack.EnvFile(dir)) // of a killed run: it must go before the new one comes
	var said strings.Builder
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), helperDir+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Stderr = &said
	require.NoError(t, cmd.Start())
	ended := make(chan struct{})
	go func() { _ = cmd.Wait(); close(ended) }()
	t.Cleanup(func() { _ = cmd.Process.Kill(); <-ended })
	devtest.Eventually(t, 3*time.Minute, func() error {
		select {
		case <-ended:
			t.Fatalf("the helper ended: %s", said.String())
		default:
		}
		text, err := os.ReadFile(devstack.EnvFile(dir))
		if err == nil && bytes.Equal(text, stale) {
			return errors.New("the file of the run before is still there")
		}
		return err
	}, "the helper's stack is ready")
	return cmd
}

// requireServers skips where a server is missing, as devtest does for those that ask it.
func requireServers(t *testing.T) {
	t.Helper()
	devtest.MySQL(t)
	devtest.Temporal(t)
}

// env reads DIR/env as a shell does.
func env(t *testing.T, dir string) map[string]string {
	t.Helper()
	values := map[string]string{}
	for _, name := range []string{"KAFKA_BROKERS", "TEMPORAL_ADDRESS", "MYSQL_DSN"} {
		out, err := exec.Command("sh", "-c", `. "$1" && printenv "$2"`, "sh", devstack.EnvFile(dir), name).Output()
		require.NoError(t, err)
		values[name] = strings.TrimSpace(string(out))
	}
	return values
}

func TestKillLosesNothing(t *testing.T) {
	dir := t.TempDir()
	const records = 500
	for round := range 3 {
		cmd := startHelper(t, dir)
		servers := env(t, dir)
		children := pids(t, dir)
		require.Len(t, children, 2)

		db, err := sql.Open("mysql", servers["MYSQL_DSN"])
		require.NoError(t, err)
		temporal, err := connect.Temporal(t.Context(), client.Options{HostPort: servers["TEMPORAL_ADDRESS"]})
		require.NoError(t, err)
		broker := kafka.TCP(servers["KAFKA_BROKERS"])
		if round == 0 {
			createTopic(t, broker, "online", 6)
			_, err = db.ExecContext(t.Context(), "CREATE TABLE kept (id INT PRIMARY KEY)")
			require.NoError(t, err)
		}
		require.Equal(t, round*records, countRecords(t, broker, "online", 6))
		var rows int
		require.NoError(t, db.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM kept").Scan(&rows))
		require.Equal(t, round, rows)
		for before := range round {
			_, err := temporal.DescribeWorkflowExecution(t.Context(), fmt.Sprintf("kept-%d", before), "")
			require.NoError(t, err)
		}
		if round == 2 {
			require.NoError(t, cmd.Process.Signal(syscall.SIGTERM))
			devtest.Eventually(t, 30*time.Second, gone(cmd.Process.Pid), "the helper stops")
			require.NoFileExists(t, devstack.EnvFile(dir), "a stopped stack is not offered")
			require.Empty(t, pids(t, dir))
			return
		}

		produce(t, broker, "online", records)
		_, err = db.ExecContext(t.Context(), "INSERT INTO kept VALUES (?)", round)
		require.NoError(t, err)
		_, err = temporal.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{
			ID: fmt.Sprintf("kept-%d", round), TaskQueue: "nobody-polls",
		}, "Kept")
		require.NoError(t, err)
		// Nothing between the acknowledgements and the kill.
		require.NoError(t, syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL))
		for _, pid := range children {
			devtest.Eventually(t, 10*time.Second, gone(pid), "the children die with their parent")
		}
		temporal.Close()
		_ = db.Close() // its server is gone
	}
}

func gone(pid int) func() error {
	return func() error {
		if err := syscall.Kill(pid, 0); err == nil {
			return fmt.Errorf("process %d runs", pid)
		}
		return nil
	}
}

// pids are the processes in the directory's pid files.
func pids(t *testing.T, dir string) (all []int) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.pid"))
	require.NoError(t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		require.NoError(t, err)
		var pid int
		_, err = fmt.Sscanf(string(text), `{"pid":%d`, &pid)
		require.NoError(t, err, "%s: %s", file, text)
		all = append(all, pid)
	}
	return all
}

func createTopic(t *testing.T, broker net.Addr, topic string, partitions int) {
	t.Helper()
	c := &kafka.Client{Addr: broker}
	created, err := c.CreateTopics(t.Context(), &kafka.CreateTopicsRequest{
		Topics: []kafka.TopicConfig{{Topic: topic, NumPartitions: partitions, ReplicationFactor: 1}},
	})
	require.NoError(t, err)
	require.NoError(t, created.Errors[topic])
}

func produce(t *testing.T, broker net.Addr, topic string, n int) {
	t.Helper()
	w := &kafka.Writer{Addr: broker, Topic: topic, RequiredAcks: kafka.RequireAll, BatchTimeout: 5 * time.Millisecond}
	messages := make([]kafka.Message, n)
	for i := range messages {
		messages[i] = kafka.Message{Key: []byte(strconv.Itoa(i)), Value: []byte(strings.Repeat("x", 1000))}
	}
	require.NoError(t, w.WriteMessages(t.Context(), messages...))
	require.NoError(t, w.Close())
}

func countRecords(t *testing.T, broker net.Addr, topic string, partitions int) int {
	t.Helper()
	n, err := records(t.Context(), broker, topic, partitions)
	require.NoError(t, err)
	return n
}

func records(ctx context.Context, broker net.Addr, topic string, partitions int) (n int, err error) {
	var ask []kafka.OffsetRequest
	for p := range partitions {
		ask = append(ask, kafka.FirstOffsetOf(p), kafka.LastOffsetOf(p))
	}
	listed, err := (&kafka.Client{Addr: broker}).ListOffsets(ctx, &kafka.ListOffsetsRequest{
		Topics: map[string][]kafka.OffsetRequest{topic: ask},
	})
	if err != nil {
		return 0, err
	}
	for _, p := range listed.Topics[topic] {
		if p.Error != nil {
			return 0, p.Error
		}
		n += int(p.LastOffset - p.FirstOffset)
	}
	return n, nil
}

func TestSecondStackIsRefused(t *testing.T) {
	dir := t.TempDir()
	cmd := startHelper(t, dir)
	_, err := devstack.Start(t.Context(), devstack.Options{Dir: dir})
	require.ErrorContains(t, err, dir)
	require.ErrorContains(t, err, fmt.Sprintf("process %d", cmd.Process.Pid))
	require.FileExists(t, devstack.EnvFile(dir), "the first stack's file is left alone")
}

func TestBusyPortNamesItsFlag(t *testing.T) {
	requireServers(t)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer listener.Close()
	busy := listener.Addr().(*net.TCPAddr).Port
	for flag, options := range map[string]devstack.Options{
		"--kafka-port":    {KafkaPort: busy},
		"--temporal-port": {TemporalPort: busy},
		"--ui-port":       {UIPort: busy},
		"--mysql-port":    {MySQLPort: busy},
	} {
		t.Run(flag, func(t *testing.T) {
			options.Dir = t.TempDir()
			_, err := devstack.Start(t.Context(), options)
			require.ErrorContains(t, err, flag)
			require.ErrorContains(t, err, fmt.Sprintf("port %d is in use", busy))
			require.Empty(t, pids(t, options.Dir), "nothing is left running")
			again, err := devstack.Start(t.Context(), devstack.Options{
				Dir: options.Dir, KafkaBrokers: []string{"k:1"}, TemporalAddress: "t:1", MySQLDSN: "dsn",
			})
			require.NoError(t, err, "the directory is free again")
			require.NoError(t, again.Stop(t.Context()))
		})
	}
}

func TestNamedServersAreNotStarted(t *testing.T) {
	dir := t.TempDir()
	stack, err := devstack.Start(t.Context(), devstack.Options{
		Dir: dir, KafkaBrokers: []string{"k1:9092", "k2:9092"}, TemporalAddress: "t:7233", MySQLDSN: "u:it's@tcp(m:3306)/shop",
	})
	require.NoError(t, err)
	defer func() { require.NoError(t, stack.Stop(context.Background())) }()
	require.Nil(t, stack.Kafka())
	require.Nil(t, stack.Temporal())
	require.Nil(t, stack.MySQL())
	require.NoError(t, stack.WriteEnv(nil))
	require.Equal(t, map[string]string{
		"KAFKA_BROKERS": "k1:9092,k2:9092", "TEMPORAL_ADDRESS": "t:7233", "MYSQL_DSN": "u:it's@tcp(m:3306)/shop",
	}, env(t, dir))
}

func TestDeadEngineIsReported(t *testing.T) {
	requireServers(t)
	stack, err := devstack.Start(t.Context(), devstack.Options{
		Dir: t.TempDir(), KafkaBrokers: []string{"k:1"}, TemporalAddress: "t:1",
	})
	require.NoError(t, err)
	defer func() { require.NoError(t, stack.Stop(context.Background())) }()
	for _, pid := range pids(t, stack.Dir()) {
		require.NoError(t, syscall.Kill(pid, syscall.SIGKILL))
	}
	select {
	case err := <-stack.Died():
		require.ErrorContains(t, err, "mysql ended by itself (signal: killed)")
	case <-time.After(10 * time.Second):
		t.Fatal("the end of the server is not reported")
	}
}

func TestFailedStartQuotesTheLog(t *testing.T) {
	requireServers(t)
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "mysql", "data"), 0o750)) // no tables in it
	_, err := devstack.StartMySQL(t.Context(), devstack.MySQLOptions{Dir: dir})
	require.ErrorContains(t, err, filepath.Join(dir, "logs", "mysql.log"))
	require.ErrorContains(t, err, "ERROR")
}

// A path of more than 107 bytes is no address of a unix socket, and scripts trip over spaces.
func TestOddDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("d", 100), strings.Repeat("e", 100), "with a space")
	m := devtest.MySQLPrivate(t, devstack.MySQLOptions{Dir: dir})
	db, err := sql.Open("mysql", m.DSN("a-b"))
	require.NoError(t, err)
	defer db.Close()
	var temporary string
	require.NoError(t, db.QueryRowContext(t.Context(), "SELECT @@tmpdir").Scan(&temporary))
	require.Equal(t, filepath.Join(dir, "mysql", "tmp"), temporary, "servers remove what they find in their directory for temporary tables")
}

// A server that was killed while it made its tables has a database file it can never start with.
func TestUnfinishedTemporalDatabaseIsMadeAnew(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "temporal"), 0o750))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "temporal", "temporal.db"), nil, 0o640))
	devtest.TemporalPrivate(t, devstack.TemporalOptions{Dir: dir})
}

func TestStoppedServersStartAgain(t *testing.T) {
	m := devtest.MySQLPrivate(t, devstack.MySQLOptions{Dir: t.TempDir()})
	require.NoError(t, m.Stop(t.Context()))
	again := devtest.MySQLPrivate(t, devstack.MySQLOptions{Dir: m.Dir(), Port: m.Port()})
	require.Equal(t, m.Port(), again.Port())

	s := devtest.TemporalPrivate(t, devstack.TemporalOptions{Dir: t.TempDir()})
	s.Kill()
	restarted := devtest.TemporalPrivate(t, devstack.TemporalOptions{Dir: s.Dir(), Port: s.Port()})
	require.Equal(t, s.Address(), restarted.Address())
}

func TestSetupBuildsTheTemporalThatIsLookedFor(t *testing.T) {
	text, err := os.ReadFile(filepath.Join("..", "..", "tools", "go.mod"))
	require.NoError(t, err)
	require.Regexp(t, `github\.com/temporalio/cli `+devstack.TemporalCLI+`\s`, string(text))
}
