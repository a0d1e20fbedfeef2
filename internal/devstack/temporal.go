package devstack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// TemporalOptions say where StartTemporal keeps its data and listens.
type TemporalOptions struct {
	Dir    string
	Port   int // 0 is a free one
	UIPort int // 0 is a free one
	// Headless leaves the Web UI out.
	Headless bool
	// InMemory keeps the workflows in memory; Dir then holds the log only.
	InMemory bool
	// SearchAttributes are to be registered in the namespace default.
	SearchAttributes map[string]enumspb.IndexedValueType
	Logger           *slog.Logger
}

// Temporal is a development server with its database in a file, or in memory.
type Temporal struct {
	child  *child
	port   int
	uiPort int // 0 without a Web UI
}

// pragmas trade the machine's crash for speed: a killed server loses nothing, a power cut may lose
// the last transactions. The defaults give a tenth of the throughput.
var pragmas = []string{
	"journal_mode=wal", "synchronous=off", "cache_size=-65536", "temp_store=memory", "wal_autocheckpoint=10000",
}

// StartTemporal starts Temporal's development server with the namespace default, and returns when
// it answers and knows the search attributes.
func StartTemporal(ctx context.Context, options TemporalOptions) (_ *Temporal, err error) {
	dir, err := filepath.Abs(options.Dir)
	if err != nil {
		return nil, err
	}
	program, err := FindTemporal(ctx)
	if err != nil {
		return nil, err
	}
	// Before the ports are looked at: a leftover would be what listens there.
	if err := endLeftover(filepath.Join(dir, "temporal.pid"), dir); err != nil {
		return nil, err
	}
	t := &Temporal{}
	if t.port, err = choosePort(options.Port, "--temporal-port"); err != nil {
		return nil, err
	}
	args := []string{
		"server", "start-dev", "--ip", host, "--port", strconv.Itoa(t.port), "--log-level", "warn",
		// Whatever Temporal the person is logged in to, this one is ours.
		"--disable-config-env", "--disable-config-file", "--env-file", filepath.Join(dir, "temporal", "no-env.yaml"),
	}
	if options.Headless {
		args = append(args, "--headless")
	} else {
		if t.uiPort, err = choosePort(options.UIPort, "--ui-port"); err != nil {
			return nil, err
		}
		args = append(args, "--ui-port", strconv.Itoa(t.uiPort))
	}
	database := temporalDatabase{filepath.Join(dir, "temporal")}
	if !options.InMemory {
		if err := database.prepare(); err != nil {
			return nil, err
		}
		args = append(args, "--db-filename", database.file())
		for _, p := range pragmas {
			args = append(args, "--sqlite-pragma", p)
		}
	}
	c, err := startChild(dir, "temporal", exec.Command(program, args...))
	if err != nil {
		return nil, err
	}
	t.child = c
	defer func() {
		if err != nil {
			c.kill()
		}
	}()
	connection, err := grpc.NewClient(t.Address(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, connection.Close()) }()
	if err := c.await(ctx, time.Minute, func(ctx context.Context) error {
		_, err := workflowservice.NewWorkflowServiceClient(connection).DescribeNamespace(ctx,
			&workflowservice.DescribeNamespaceRequest{Namespace: "default"})
		return err
	}); err != nil {
		return nil, err
	}
	if err := register(ctx, c, connection, options.SearchAttributes); err != nil {
		return nil, err
	}
	if !options.InMemory {
		if err := database.complete(); err != nil {
			return nil, err
		}
	}
	logger(options.Logger).Info("Temporal is ready", "address", t.Address(), "ui", t.UIAddress())
	return t, nil
}

// register adds search attributes and waits until the server lists them.
func register(ctx context.Context, c *child, connection grpc.ClientConnInterface, attributes map[string]enumspb.IndexedValueType) error {
	if len(attributes) == 0 {
		return nil
	}
	operator := operatorservice.NewOperatorServiceClient(connection)
	return c.await(ctx, 30*time.Second, func(ctx context.Context) error {
		known, err := operator.ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: "default"})
		if err != nil {
			return err
		}
		add := map[string]enumspb.IndexedValueType{}
		for name, kind := range attributes {
			if _, ok := known.GetCustomAttributes()[name]; !ok {
				add[name] = kind
			}
		}
		if len(add) == 0 {
			return nil
		}
		if _, err := operator.AddSearchAttributes(ctx, &operatorservice.AddSearchAttributesRequest{
			Namespace: "default", SearchAttributes: add,
		}); err != nil {
			return err
		}
		return fmt.Errorf("search attributes %v are not listed yet", add)
	})
}

// Address is the host and port of the frontend.
func (t *Temporal) Address() string { return address(t.port) }

// UIAddress is the URL of the Web UI, empty without one.
func (t *Temporal) UIAddress() string {
	if t.uiPort == 0 {
		return ""
	}
	return "http://" + address(t.uiPort)
}

// Dir is the directory the server was started in, absolute.
func (t *Temporal) Dir() string { return t.child.dir }

// Port is where the frontend listens on 127.0.0.1.
func (t *Temporal) Port() int { return t.port }

// Stop shuts the server down, within ten seconds.
func (t *Temporal) Stop(ctx context.Context) error {
	t.child.stop(ctx)
	return nil
}

// Kill ends the server as a crash would and returns when it is gone.
func (t *Temporal) Kill() { t.child.kill() }

// temporalDatabase is the folder of the server's database. The server makes the tables only when
// the file is missing, so one that was killed while it made them would never start again: a
// database counts only once the marker beside it says that the server was ready with it.
type temporalDatabase struct{ dir string }

func (d temporalDatabase) file() string   { return filepath.Join(d.dir, "temporal.db") }
func (d temporalDatabase) marker() string { return filepath.Join(d.dir, "complete") }

// prepare removes a database that never was complete.
func (d temporalDatabase) prepare() error {
	if err := os.MkdirAll(d.dir, 0o750); err != nil {
		return err
	}
	if _, err := os.Stat(d.marker()); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(d.file() + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func (d temporalDatabase) complete() error { return writeFile(d.marker(), "") }

// TemporalCLI is the version of the Temporal CLI that `make setup` builds; its server is 1.29.1.
const TemporalCLI = "v1.5.1"

// temporalServerMin is the oldest server that a `temporal` on the PATH may have.
const temporalServerMin = "1.29"

// BuiltTemporal is where `make setup` puts the program it builds.
func BuiltTemporal() string { return filepath.Join(CacheDir(), "temporal-"+TemporalCLI) }

// FindTemporal is the path of the program StartTemporal runs: the `temporal` on the PATH if it is new
// enough, else the one `make setup` built, else an error in whose chain is ErrMissing.
func FindTemporal(ctx context.Context) (program string, err error) {
	var unfit string
	for _, candidate := range []string{"temporal", BuiltTemporal()} {
		program, err := exec.LookPath(candidate)
		if err != nil {
			continue
		}
		out, err := exec.CommandContext(ctx, program, "--version").CombinedOutput()
		if err != nil {
			unfit = fmt.Sprintf("; %s does not tell its version: %v", program, err)
			continue
		}
		if server := serverVersion.FindStringSubmatch(string(out)); len(server) == 2 && !older(server[1], temporalServerMin) {
			return program, nil
		}
		unfit = fmt.Sprintf("; %s is %q, which is older than server %s", program, strings.TrimSpace(string(out)), temporalServerMin)
	}
	return "", missing("no temporal on the PATH or in %s%s; `make setup` builds one", CacheDir(), unfit)
}

// serverVersion finds the server's version in "temporal version 1.5.1 (Server 1.29.1, UI 2.42.1)".
var serverVersion = regexp.MustCompile(`Server ([0-9.]+)`)

// older compares versions of dot-separated numbers.
func older(a, b string) bool {
	numbers := func(version string) (all []int) {
		for part := range strings.SplitSeq(version, ".") {
			n, _ := strconv.Atoi(part)
			all = append(all, n)
		}
		return all
	}
	return slices.Compare(numbers(a), numbers(b)) < 0
}

// CacheDir is where programs are kept that are fetched or built once for this user:
// $XDG_CACHE_HOME/ordersync, by default ~/.cache/ordersync.
func CacheDir() string {
	cache := os.Getenv("XDG_CACHE_HOME")
	if cache == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			home = os.TempDir()
		}
		cache = filepath.Join(home, ".cache")
	}
	return filepath.Join(cache, "ordersync")
}
