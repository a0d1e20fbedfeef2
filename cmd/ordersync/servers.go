package main

import (
	"context"
	"errors"
	"fmt"
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
			return fmt.Errorf("%s in %s names a server that does not answer: %w\nis `ordersync dev` still running? start it again", name, path, err)
		}
		_ = conn.Close()
	}
	return nil
}
