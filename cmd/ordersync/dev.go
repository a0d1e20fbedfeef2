package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/spf13/cobra"

	"ordersync/internal/config"
	"ordersync/internal/devstack"
	"ordersync/internal/envfile"
	"ordersync/internal/order"
	"ordersync/internal/pod"
	"ordersync/internal/telemetry"
)

func (a *app) devCommand() *cobra.Command {
	var d dev
	c := &cobra.Command{
		Use:     "dev",
		GroupID: "stack",
		Short:   "Run Kafka, Temporal, MySQL and ordersync on this machine",
		Long: `Runs everything on this machine, in one directory: an embedded Kafka, Temporal's development server, a
private MariaDB or MySQL, and in this process a starter and a worker. When all is ready it writes the
addresses to the file env in that directory, where the other commands find them.

The data stays in the directory: after a Ctrl-C, or a kill -9, a start with the same directory goes on
where it was. It needs "temporal" and mariadbd or mysqld, which make setup installs. It is no way
to run ordersync for real: it does not survive a power cut, and its passwords are public.

KAFKA_BROKERS, TEMPORAL_ADDRESS and MYSQL_DSN, where set, replace the embedded server with yours. Where a
shell has them from the file env of this directory, they name the embedded servers, which are started again
on their ports.

With --erp it starts at the ERP: a simulated one, whose orders grow as you look, and which is polled. It
commits some changes late, tells some twice and some in the wrong order, and with --erp-outages is away
now and then. What it tells happens now, whatever a file says. It lives in memory and begins anew with
each start; what the shop has already is not applied again.` + environment(),
		Example: `  ordersync dev
  ordersync dev --erp
  ordersync dev --erp --erp-file orders.ndjson --erp-rate 100
  ordersync dev --data-dir /tmp/orders --kafka-port 0 --temporal-port 0 --ui-port 0 --mysql-port 0`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			d.app = a
			if err := d.forgetOwn(c.Flags().Changed); err != nil {
				return err
			}
			if err := d.erp.check(d.app, c.Flags().Changed); err != nil {
				return err
			}
			return d.run(c.Context())
		},
	}
	port := func(p *int, name string, value int, what string) {
		c.Flags().IntVar(p, name, value, what+"; 0 is a free one")
	}
	port(&d.kafkaPort, "kafka-port", 9092, "port of Kafka")
	port(&d.temporalPort, "temporal-port", 7233, "port of Temporal")
	port(&d.uiPort, "ui-port", 8233, "port of Temporal's Web UI")
	port(&d.mysqlPort, "mysql-port", 3306, "port of MySQL")
	c.Flags().BoolVar(&d.noPipeline, "no-pipeline", false, "run the servers only, without starter and worker")
	d.erp.flags(c)
	return c
}

// dev is a stack for one person.
type dev struct {
	*app
	kafkaPort, temporalPort, uiPort, mysqlPort int
	noPipeline                                 bool
	erp                                        devERP

	dir    string // dataDir, absolute
	health string // address of the health server
}

// stopLimit bounds the stop of the servers.
const stopLimit = 45 * time.Second

func (d *dev) run(ctx context.Context) (err error) {
	for flag, port := range map[string]int{"kafka": d.kafkaPort, "temporal": d.temporalPort, "ui": d.uiPort, "mysql": d.mysqlPort} {
		if port < 0 || port > 65535 {
			return fmt.Errorf("--%s-port %d: give a port from 1 to 65535, or 0 for a free one", flag, port)
		}
	}
	if d.dir, err = filepath.Abs(d.dataDir); err != nil {
		return err
	}
	given, err := config.Load(d.devEnviron(nil))
	if err != nil {
		return err
	}
	if err := d.erp.prepare(); err != nil {
		return err
	}
	logs, err := openLog(filepath.Join(d.dir, "logs", "ordersync.log"))
	if err != nil {
		return err
	}
	defer logs.Close() //nolint:errcheck // nothing is buffered, and nobody is left to tell
	log := slog.New(slog.NewMultiHandler(telemetry.NewLogger(logs, given.LogLevel).Handler(), readable(d.stderr)))

	began := time.Now()
	d.announce()
	stack, err := devstack.Start(ctx, devstack.Options{
		Dir: d.dir, KafkaPort: d.kafkaPort, TemporalPort: d.temporalPort, UIPort: d.uiPort, MySQLPort: d.mysqlPort,
		KafkaBrokers: given.Kafka.Brokers, TemporalAddress: d.ownTemporal(given), MySQLDSN: string(given.MySQL.DSN),
		Logger: log,
	})
	if err != nil {
		return interrupted(ctx, err)
	}
	defer func() {
		d.note("stopping the servers …")
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopLimit)
		defer cancel()
		if err = errors.Join(err, stack.Stop(stopping)); err == nil {
			d.note("stopped; the data is in %s", d.dir)
		}
	}()

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case died := <-stack.Died():
			cancel(died)
		case <-ctx.Done():
		}
	}()
	if err := d.erp.open(); err != nil {
		return err
	}
	defer d.erp.close()
	err = d.pipeline(ctx, stack, log, func() {
		if err := stack.WriteEnv(d.erp.environ(d.app)); err != nil {
			cancel(err)
			return
		}
		d.note("ready after %.0f s", time.Since(began).Seconds())
		d.welcome(stack)
		if err := d.erp.grow(ctx, d.app); err != nil {
			cancel(err)
		}
	})
	if cause := context.Cause(ctx); ctx.Err() != nil && !errors.Is(cause, context.Canceled) {
		return errors.Join(cause, err) // a server died
	}
	return interrupted(ctx, err)
}

// forgetOwn takes out of the environment what a shell has from the directory's own stack, which has ended: as
// servers of a person's own they would be waited for in vain. The servers come back on the ports that the
// shell knows, unless a flag names others.
func (d *dev) forgetOwn(given func(flag string) bool) error {
	own, err := envfile.Read(devstack.OwnEnvFile(d.dataDir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	environ := maps.Clone(d.environ)
	var names []string
	for name, value := range own {
		if environ[name] == value {
			delete(environ, name)
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	for _, server := range []struct {
		flag, variable string
		port           *int
		address        func(string) string
	}{
		{"kafka-port", kafkaBrokers, &d.kafkaPort, func(value string) string { return value }},
		{"temporal-port", temporalAddress, &d.temporalPort, func(value string) string { return value }},
		{"mysql-port", mysqlDSN, &d.mysqlPort, func(value string) string {
			dsn, err := mysql.ParseDSN(value)
			if err != nil {
				return ""
			}
			return dsn.Addr
		}},
	} {
		if !slices.Contains(names, server.variable) || given(server.flag) {
			continue
		}
		_, port, err := net.SplitHostPort(server.address(own[server.variable]))
		if err != nil {
			continue // the file is not as a stack writes it: the usual port is as good
		}
		if n, err := strconv.Atoi(port); err == nil {
			*server.port = n
		}
	}
	slices.Sort(names)
	d.note("%s %s from an earlier stack in %s: its servers are started again", strings.Join(names, ", "), comes(len(names)), d.dataDir)
	a := *d.app
	a.environ = environ
	d.app = &a
	return nil
}

func comes(n int) string {
	if n == 1 {
		return "comes"
	}
	return "come"
}

// interrupted takes an error for what it is after a Ctrl-C: the end that was asked for.
func interrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// devEnviron is the environment of the pipeline: what is set, the servers, and what differs in dev.
func (d *dev) devEnviron(servers map[string]string) map[string]string {
	environ := map[string]string{
		"HTTP_ADDRESS": "127.0.0.1:0", // several stacks may run
	}
	if servers != nil {
		environ["EAGER_START"] = "true" // starter and worker are one process
	}
	maps.Copy(environ, d.environ)
	maps.Copy(environ, servers)
	if servers != nil {
		maps.Copy(environ, d.erp.environ(d.app))
	}
	return environ
}

// ownTemporal is the Temporal server that the environment names, empty if it names none.
func (d *dev) ownTemporal(cfg config.Config) string {
	if !d.given(temporalAddress) {
		return ""
	}
	return cfg.Temporal.Client.HostPort
}

// pipeline prepares the servers and runs starter and worker until ctx ends.
func (d *dev) pipeline(ctx context.Context, stack *devstack.Stack, log *slog.Logger, ready func()) error {
	cfg, err := config.Load(d.devEnviron(map[string]string{
		kafkaBrokers: strings.Join(stack.KafkaBrokers(), ","), temporalAddress: stack.TemporalAddress(), mysqlDSN: stack.MySQLDSN(),
	}))
	if err != nil {
		return err
	}
	if _, err := pod.Setup(ctx, cfg, log, pod.SetupOptions{}); err != nil {
		return err
	}
	if err := d.erp.schedule(ctx, cfg, log); err != nil {
		return err
	}
	if d.noPipeline {
		ready()
		<-ctx.Done()
		return nil
	}
	err = pod.RunBoth(ctx, cfg, log, pod.OnListening(func(address string) { d.health = address }), pod.OnReady(ready))
	if ctx.Err() != nil {
		d.note("starter and worker have stopped")
	}
	return err
}

// announce says what is started, and what is not because the environment names another.
func (d *dev) announce() {
	var own []string
	for _, server := range []struct{ name, variable string }{
		{"Kafka", kafkaBrokers}, {"Temporal", temporalAddress}, {"MySQL", mysqlDSN},
	} {
		if d.given(server.variable) {
			d.note("%s is set: that server is used, and no embedded %s started (to have one, unset it)", server.variable, server.name)
			continue
		}
		own = append(own, server.name)
	}
	if len(own) > 0 {
		d.note("starting %s in %s …", strings.Join(own, ", "), d.dir)
	}
}

// welcome says where everything is and what to do with it.
func (d *dev) welcome(stack *devstack.Stack) {
	out := d.stdout
	fmt.Fprintln(out)
	t := newTable(out)
	t.indent = "  "
	if ui := stack.UIAddress(); ui != "" {
		t.row("Temporal Web UI", ui)
	}
	t.row("Temporal", stack.TemporalAddress())
	t.row("Kafka", strings.Join(stack.KafkaBrokers(), ","))
	t.row("MySQL", shownDSN(stack))
	if line := clientLine(stack); line != "" {
		t.row("", line)
	}
	if d.health != "" {
		t.row("health, metrics", "http://"+d.health+"/readyz, http://"+d.health+"/metrics")
	}
	if d.erp.on {
		t.row("ERP", d.erp.sim.URL()+"/events", d.erp.describe())
	}
	t.row("logs", filepath.Join(d.dir, "logs"))
	t.row("for a shell", ". "+order.Typed(devstack.EnvFile(d.dir)))
	_ = t.flush() // the terminal is gone, if anything; the stack runs on
	fmt.Fprintf(out, "\nTry next, in another terminal:\n\n")
	if d.noPipeline {
		fmt.Fprintf(out, "  . %s; HTTP_ADDRESS=:8080 bin/worker & HTTP_ADDRESS=:8081 bin/starter &\n", devstack.EnvFile(d.dir))
	}
	next := []string{"wait", "order 10000001", "blocked"}
	if d.erp.on {
		next = []string{"status --watch", "schedule list", "order " + d.erp.example(), "reconcile"}
	} else {
		fmt.Fprintf(out, "  %s | %s\n", d.bare("simulate 100 --seed 1"), d.hint("load -"))
	}
	for _, next := range next {
		fmt.Fprintf(out, "  %s\n", d.hint(next))
	}
	fmt.Fprintf(out, "\nCtrl-C stops everything; the data stays.\n")
}

// shownDSN is the DSN, without the password of a server that is not the stack's own.
func shownDSN(stack *devstack.Stack) string {
	parsed, err := mysql.ParseDSN(stack.MySQLDSN())
	if err != nil {
		return mysqlDSN
	}
	if stack.MySQL() == nil && parsed.Passwd != "" {
		parsed.Passwd = "***"
	}
	return parsed.FormatDSN()
}

// clientLine is how to look into the database from a shell.
func clientLine(stack *devstack.Stack) string {
	parsed, err := mysql.ParseDSN(stack.MySQLDSN())
	if err != nil || parsed.Net != "tcp" {
		return ""
	}
	host, port, err := net.SplitHostPort(parsed.Addr)
	if err != nil {
		return ""
	}
	password := " -p"
	switch {
	case parsed.Passwd == "":
		password = ""
	case stack.MySQL() != nil:
		password += parsed.Passwd
	}
	return fmt.Sprintf("mariadb -h %s -P %s -u %s%s %s", host, port, parsed.User, password, parsed.DBName)
}
