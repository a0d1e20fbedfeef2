// Command setup installs what ordersync's development stack needs and this machine lacks, and says
// what it does:
//
//	setup          a MariaDB server and client, curl and kcat, with the platform's package manager; the
//	               temporal CLI, built from source, with a link to it in the checkout's bin
//	setup race     a C compiler, which the race detector needs
//	setup kafka    the jars of Apache Kafka, with Maven
//	setup chromium a browser, for the test that looks at the Web UI
//	setup postgres a PostgreSQL server, for the tests that poll one
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"ordersync/internal/devstack"
)

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "setup:", err)
		os.Exit(1)
	}
}

func run(args []string, out io.Writer) error {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	switch strings.Join(args, " ") {
	case "":
		if err := database(ctx, out); err != nil {
			return err
		}
		if err := clients(ctx, out); err != nil {
			return err
		}
		return temporal(ctx, out)
	case "race":
		return compiler(ctx, out)
	case "kafka":
		return devstack.FetchRealKafka(ctx, out)
	case "chromium":
		return chromium(ctx, out)
	case "postgres":
		return postgres(ctx, out)
	default:
		return fmt.Errorf("unknown arguments %q; known are none, race, kafka, chromium and postgres", args)
	}
}

func database(ctx context.Context, out io.Writer) error {
	_, err := devstack.FindMySQL()
	if !errors.Is(err, devstack.ErrMissing) {
		return err
	}
	fmt.Fprintln(out, "setup: there is no mariadbd or mysqld; installing MariaDB (the programs alone, no service)")
	if err := install(ctx, out, map[string][]string{
		"apt-get": {"mariadb-server-core", "mariadb-client-core"},
		"dnf":     {"mariadb-server"},
		"apk":     {"mariadb", "mariadb-client"},
		"brew":    {"mariadb"},
	}); err != nil {
		return err
	}
	_, err = devstack.FindMySQL()
	return err
}

// clients are the programs that README.md and docs/RUNBOOK.md tell people to type, and their tests type.
func clients(ctx context.Context, out io.Writer) error {
	for _, client := range []struct {
		names    []string
		packages map[string][]string
		optional bool // not every platform has a package of it
	}{
		{names: []string{"mariadb", "mysql"}, packages: map[string][]string{
			"apt-get": {"mariadb-client-core"}, "dnf": {"mariadb"}, "apk": {"mariadb-client"}, "brew": {"mariadb"},
		}},
		{names: []string{"curl"}, packages: map[string][]string{
			"apt-get": {"curl"}, "dnf": {"curl"}, "apk": {"curl"}, "brew": {"curl"},
		}},
		{names: []string{"kcat"}, packages: map[string][]string{
			"apt-get": {"kcat"}, "dnf": {"kcat"}, "apk": {"kcat"}, "brew": {"kcat"},
		}, optional: true},
	} {
		if onPath(client.names...) {
			continue
		}
		fmt.Fprintf(out, "setup: there is no %s, which README and runbook use; installing it\n", client.names[0])
		err := install(ctx, out, client.packages)
		if err != nil && client.optional && os.Getenv("CI") != "true" {
			fmt.Fprintf(out, "setup: going on without %s: %v\n", client.names[0], err)
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// onPath tells whether one of several programs is there.
func onPath(names ...string) bool {
	return slices.ContainsFunc(names, func(name string) bool {
		_, err := exec.LookPath(name)
		return err == nil
	})
}

func compiler(ctx context.Context, out io.Writer) error {
	if onPath("gcc", "clang") {
		return nil
	}
	fmt.Fprintln(out, "setup: there is no C compiler, which Go's race detector needs; installing gcc")
	return install(ctx, out, map[string][]string{
		"apt-get": {"gcc", "libc6-dev"},
		"dnf":     {"gcc", "glibc-devel"},
		"apk":     {"gcc", "musl-dev"},
		"brew":    {"gcc"},
	})
}

func chromium(ctx context.Context, out io.Writer) error {
	if onPath("chromium", "chromium-browser", "google-chrome", "headless-shell") {
		return nil
	}
	fmt.Fprintln(out, "setup: there is no Chromium, in which the Web UI is tested; installing one")
	return install(ctx, out, map[string][]string{
		"apt-get": {"chromium"},
		"dnf":     {"chromium"},
		"apk":     {"chromium"},
		"brew":    {"--cask", "chromium"},
	})
}

// postgres is for tests alone: without it they are skipped, by name, except in CI.
func postgres(ctx context.Context, out io.Writer) error {
	_, err := devstack.FindPostgres()
	if !errors.Is(err, devstack.ErrMissing) {
		return err
	}
	fmt.Fprintln(out, "setup: there is no postgres, which an ERP is polled through in tests; installing PostgreSQL")
	if err := install(ctx, out, map[string][]string{
		"apt-get": {"postgresql"},
		"dnf":     {"postgresql-server"},
		"apk":     {"postgresql"},
		"brew":    {"postgresql"},
	}); err != nil {
		if errors.Is(err, errNoManager) && os.Getenv("CI") != "true" {
			fmt.Fprintln(out, "setup: PostgreSQL cannot be installed here, so the tests that poll one will be skipped:", err)
			return nil
		}
		return err
	}
	_, err = devstack.FindPostgres()
	return err
}

// errNoManager is the error of a machine that nothing can be installed on.
var errNoManager = errors.New("none of apt-get, dnf, apk and brew is here; install it by hand (for the database: mariadbd and mariadb-install-db, or mysqld; for PostgreSQL: postgres and initdb)")

// managers are the package managers in the order they are looked for, with their commands.
var managers = []struct {
	name     string
	commands [][]string // the last gets the packages
	root     bool
}{
	{"apt-get", [][]string{{"update", "-q"}, {"install", "-qy", "--no-install-recommends"}}, true},
	{"dnf", [][]string{{"install", "-qy"}}, true},
	{"apk", [][]string{{"add", "--no-cache"}}, true},
	{"brew", [][]string{{"install"}}, false},
}

// install installs packages, by the name they have with each package manager.
func install(ctx context.Context, out io.Writer, packages map[string][]string) error {
	for _, m := range managers {
		if _, err := exec.LookPath(m.name); err != nil {
			continue
		}
		for i, command := range m.commands {
			command = append([]string{m.name}, command...)
			if i == len(m.commands)-1 {
				command = append(command, packages[m.name]...)
			}
			if m.root && os.Geteuid() != 0 {
				command = append([]string{"sudo"}, command...)
			}
			fmt.Fprintln(out, "setup:", strings.Join(command, " "))
			cmd := exec.CommandContext(ctx, command[0], command[1:]...)
			cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
			cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, out, os.Stderr
			if err := cmd.Run(); err != nil {
				return fmt.Errorf("%s: %w", strings.Join(command, " "), err)
			}
		}
		return nil
	}
	return errNoManager
}

// temporal builds the Temporal CLI at the version of tools/go.mod, unless there is one, and links it into the
// checkout's bin, beside ordersync.
func temporal(ctx context.Context, out io.Writer) error {
	mod, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return fmt.Errorf("find the module: go env GOMOD: %w", err)
	}
	checkout := filepath.Dir(strings.TrimSpace(string(mod)))
	program, err := devstack.FindTemporal(ctx)
	if errors.Is(err, devstack.ErrMissing) {
		if err := buildTemporal(ctx, out, checkout); err != nil {
			return err
		}
		program, err = devstack.FindTemporal(ctx)
	}
	if err != nil {
		return err
	}
	return link(program, filepath.Join(checkout, "bin", "temporal"))
}

// link makes name a link to program, unless it is the program itself.
func link(program, name string) error {
	program, err := filepath.EvalSymlinks(program) // the link itself, where bin is on the PATH
	if err != nil {
		return err
	}
	if there, err := filepath.EvalSymlinks(name); err == nil && there == program {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o750); err != nil {
		return err
	}
	fresh := fmt.Sprintf("%s.new-%d", name, os.Getpid())
	if err := os.Symlink(program, fresh); err != nil {
		return err
	}
	return os.Rename(fresh, name)
}

func buildTemporal(ctx context.Context, out io.Writer, checkout string) error {
	target := devstack.BuiltTemporal()
	if err := os.MkdirAll(filepath.Dir(target), 0o750); err != nil {
		return err
	}
	fmt.Fprintf(out, "setup: building the temporal CLI %s from source, once: about 3 minutes on 2 cores the first time\n", devstack.TemporalCLI)
	fresh := fmt.Sprintf("%s.new-%d", target, os.Getpid())
	build := exec.CommandContext(ctx, "go", "build", "-C", filepath.Join(checkout, "tools"),
		"-ldflags", "-s -w -X github.com/temporalio/cli/temporalcli.Version="+strings.TrimPrefix(devstack.TemporalCLI, "v"),
		"-o", fresh, "github.com/temporalio/cli/cmd/temporal")
	build.Stdout, build.Stderr = out, os.Stderr
	if err := withProgress(out, build.Run); err != nil {
		return fmt.Errorf("build the temporal CLI: %w", errors.Join(err, os.RemoveAll(fresh)))
	}
	if err := os.Rename(fresh, target); err != nil {
		return err
	}
	fmt.Fprintln(out, "setup: built", target)
	return nil
}

// withProgress says every 15 seconds that work is still going on.
func withProgress(out io.Writer, work func() error) error {
	done := make(chan error, 1)
	go func() { done <- work() }()
	begin := time.Now()
	tick := time.NewTicker(15 * time.Second)
	defer tick.Stop()
	for {
		select {
		case err := <-done:
			return err
		case <-tick.C:
			fmt.Fprintf(out, "setup: still building, %s so far\n", time.Since(begin).Round(time.Second))
		}
	}
}
