package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"go.temporal.io/sdk/client"

	"ordersync/internal/config"
	"ordersync/internal/devstack"
	"ordersync/internal/envfile"
	"ordersync/internal/pod"
	"ordersync/internal/target"
)

// The variables that name the servers.
const (
	kafkaBrokers    = "KAFKA_BROKERS"
	temporalAddress = "TEMPORAL_ADDRESS"
	mysqlDSN        = "MYSQL_DSN"
)

// config is the configuration of a command that needs the named servers: from the environment, else
// from the file that a running stack has written.
func (a *app) config(ctx context.Context, needed ...string) (config.Config, error) {
	environ, err := a.servers(ctx, needed)
	if err != nil {
		return config.Config{}, err
	}
	return config.Load(environ, needed...)
}

// dial is config, and a connection to the Temporal server it names, for the caller to close.
func (a *app) dial(ctx context.Context, needed ...string) (config.Config, client.Client, error) {
	cfg, err := a.config(ctx, append(needed, temporalAddress)...)
	if err != nil {
		return cfg, nil, err
	}
	temporal, err := pod.DialTemporal(ctx, cfg, a.warnings())
	return cfg, temporal, err
}

// looking is what a command needs that shows what it can: each server may be away.
type looking struct {
	cfg      config.Config
	temporal client.Client  // nil where Temporal does not answer
	shop     *target.Target // never nil; its reads fail where it does not answer
	// problems say what could not be read, and what to do.
	problems []string
	close    func()
}

// look connects to every server, and goes on without those that do not answer.
func (a *app) look(ctx context.Context) (*looking, error) {
	environ, err := a.servers(ctx, []string{kafkaBrokers, temporalAddress, mysqlDSN})
	var silent *silentError
	if err != nil && !errors.As(err, &silent) {
		return nil, err
	}
	l := &looking{close: func() {}}
	if l.cfg, err = config.Load(environ, kafkaBrokers, temporalAddress, mysqlDSN); err != nil {
		return nil, err
	}
	if l.shop, err = pod.OpenTarget(l.cfg, a.warnings()); err != nil {
		return nil, err
	}
	if l.temporal, err = pod.DialTemporal(ctx, l.cfg, a.warnings()); err != nil {
		if silent != nil && l.shop.DB().PingContext(ctx) != nil {
			return nil, errors.Join(silent, l.shop.Close()) // the stack is gone as a whole
		}
		l.temporal = nil
		l.missing("Temporal", err)
	}
	l.close = func() {
		if l.temporal != nil {
			l.temporal.Close()
		}
		_ = l.shop.Close() // it was read only
	}
	return l, nil
}

// missing notes what could not be read.
func (l *looking) missing(what string, err error) {
	if err != nil {
		l.problems = append(l.problems, what+": "+oneLine(err.Error()))
	}
}

// errIncomplete is the error of a command that has shown what it could.
var errIncomplete = errors.New("not everything could be read; what is missing stands above")

// printMissing says what could not be read.
func printMissing(out io.Writer, problems []string) {
	for _, problem := range problems {
		fmt.Fprintf(out, "\nnot known: %s\n", shortened(problem, 500))
	}
}

// openShop is the shop's database, with the tables that this build knows, for the caller to close.
func (a *app) openShop(ctx context.Context, cfg config.Config) (*target.Target, error) {
	shop, err := pod.OpenTarget(cfg, a.warnings())
	if err != nil {
		return nil, err
	}
	if err := shop.CheckSchema(ctx); err != nil {
		return nil, errors.Join(err, shop.Close())
	}
	return shop, nil
}

// servers completes the environment by what is needed and missing.
func (a *app) servers(ctx context.Context, needed []string) (map[string]string, error) {
	var missing []string
	for _, name := range needed {
		if !a.given(name) {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		return a.environ, nil
	}
	path := devstack.EnvFile(a.dataDir)
	written, err := envfile.Read(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("no servers: %s not set, and there is no %s\n"+
			"start a stack of your own with `ordersync dev` (in this directory, or name its directory with --data-dir),\n"+
			"or set %s", areOrIs(missing), path, strings.Join(needed, ", "))
	case err != nil:
		return nil, err
	}
	environ := maps.Clone(a.environ)
	if environ == nil {
		environ = map[string]string{}
	}
	for _, name := range missing {
		if written[name] == "" {
			return nil, fmt.Errorf("%s is not set, and %s does not name it: set it, or start `ordersync dev` again", name, path)
		}
		environ[name] = written[name]
	}
	// One server of one's own and another of the stack's is hardly meant: events would be published
	// here and looked for there.
	for _, name := range []string{kafkaBrokers, temporalAddress, mysqlDSN} {
		if own := strings.TrimSpace(a.environ[name]); own != "" && written[name] != "" && own != written[name] {
			return nil, fmt.Errorf("%s is set to another server than %s names, and %s not set: set all of them, or none",
				name, path, areOrIs(missing))
		}
	}
	return environ, answering(ctx, path, environ, missing)
}

// silentError is of a server that a stack's file names and that does not answer.
type silentError struct{ error }

// given tells whether the environment has a variable. Temporal's server may be in a profile of its own.
func (a *app) given(name string) bool {
	if strings.TrimSpace(a.environ[name]) != "" {
		return true
	}
	return name == temporalAddress && (a.environ["TEMPORAL_PROFILE"] != "" || a.environ["TEMPORAL_CONFIG_FILE"] != "")
}

func areOrIs(names []string) string {
	if len(names) == 1 {
		return names[0] + " is"
	}
	return strings.Join(names, ", ") + " are"
}

// answering makes sure that the stack which has written the file still runs: a killed one leaves
// the file behind.
func answering(ctx context.Context, path string, environ map[string]string, names []string) error {
	const enough = 2 * time.Second
	dialer := net.Dialer{Timeout: enough}
	for _, name := range names {
		address := environ[name]
		switch name {
		case kafkaBrokers:
			address, _, _ = strings.Cut(address, ",")
		case mysqlDSN:
			dsn, err := mysql.ParseDSN(address)
			if err != nil || dsn.Net != "tcp" {
				continue // config.Load explains the first; the second cannot be asked in this way
			}
			address = dsn.Addr
		}
		conn, err := dialer.DialContext(ctx, "tcp", address)
		if err != nil {
			return &silentError{fmt.Errorf("%s in %s names a server that does not answer: %w\nis `ordersync dev` still running? start it again", name, path, err)}
		}
		_ = conn.Close()
	}
	return nil
}
