package devstack

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
)

// The account of every embedded server. Its password keeps nobody out and is not meant to.
const (
	mysqlUser     = "ordersync"
	mysqlPassword = "ordersync"
)

// MySQLOptions say where StartMySQL keeps its data and listens.
type MySQLOptions struct {
	Dir    string
	Port   int // 0 is a free one
	Logger *slog.Logger
}

// MySQL is a MariaDB or MySQL server with a data directory of its own.
type MySQL struct {
	child  *child
	port   int
	logger *slog.Logger
}

// StartMySQL starts the mariadbd or mysqld of this machine, on a data directory that it makes the
// first time, and returns when the server answers.
func StartMySQL(ctx context.Context, options MySQLOptions) (*MySQL, error) {
	dir, err := filepath.Abs(options.Dir)
	if err != nil {
		return nil, err
	}
	server, err := findMySQL()
	if err != nil {
		return nil, err
	}
	// Before the port is looked at: a leftover would be what listens there.
	if err := endLeftover(filepath.Join(dir, "mysql.pid"), dir); err != nil {
		return nil, err
	}
	port, err := choosePort(options.Port, "--mysql-port")
	if err != nil {
		return nil, err
	}
	data, err := server.initialise(ctx, dir)
	if err != nil {
		return nil, err
	}
	accounts := filepath.Join(dir, "mysql", "accounts.sql")
	if err := writeFile(accounts, accountsSQL); err != nil {
		return nil, err
	}
	args := append(server.base(data),
		"--init-file="+accounts,
		"--bind-address="+host,
		"--port="+strconv.Itoa(port),
		// Relative to the data directory: a path of more than 107 bytes is no socket address.
		"--socket=mysql.sock",
		"--pid-file="+filepath.Join(dir, "mysql", "server.pid"),
		"--skip-name-resolve",
		"--max-connections=500",
		"--max-allowed-packet=64M",
		"--character-set-server=utf8mb4",
		"--innodb-buffer-pool-size=256M",
		// Each commit is written to the page cache, not to the disk: it outlives the process, not
		// the machine.
		"--innodb-flush-log-at-trx-commit=2",
		// MySQL 8 has these on by default; they only cost here. MariaDB does not know the last.
		"--skip-log-bin",
		"--performance-schema=OFF",
		"--loose-mysqlx=OFF",
	)
	cmd := exec.Command(server.program, args...)
	cmd.Env = server.environment(dir)
	c, err := startChild(dir, "mysql", cmd)
	if err != nil {
		return nil, err
	}
	m := &MySQL{child: c, port: port, logger: logger(options.Logger)}
	if err := c.await(ctx, time.Minute, m.ping); err != nil {
		c.kill()
		return nil, err
	}
	m.logger.Info("MySQL is ready", "address", address(port))
	return m, nil
}

// accountsSQL runs at every start, before the server listens. One statement per line. The account is
// for any host: without name resolution, 'localhost' would not match a TCP connection.
const accountsSQL = "CREATE USER IF NOT EXISTS '" + mysqlUser + "'@'%' IDENTIFIED BY '" + mysqlPassword + "';\n" +
	"GRANT ALL PRIVILEGES ON *.* TO '" + mysqlUser + "'@'%' WITH GRANT OPTION;\n"

// Dir is the directory the server was started in, absolute.
func (m *MySQL) Dir() string { return m.child.dir }

// Port is where the server listens on 127.0.0.1.
func (m *MySQL) Port() int { return m.port }

// DSN creates the schema if there is none, and is the data source name to open it with. What keeps
// it from creating the schema is logged, and shows again to whoever opens it.
func (m *MySQL) DSN(schema string) string {
	ctx, cancel := context.WithTimeout(context.Background(), stopLimit)
	defer cancel()
	dsn, err := m.CreateSchema(ctx, schema)
	if err != nil {
		m.logger.Error("cannot create a schema", "error", err)
	}
	return dsn
}

// CreateSchema creates the schema if there is none. The data source name is good for a server that
// could not be reached, too.
func (m *MySQL) CreateSchema(ctx context.Context, schema string) (dsn string, err error) {
	return m.dsn(schema), m.exec(ctx, "CREATE DATABASE IF NOT EXISTS `"+schema+"` CHARACTER SET utf8mb4")
}

// DropSchema removes the schema and all it holds.
func (m *MySQL) DropSchema(ctx context.Context, schema string) error {
	return m.exec(ctx, "DROP DATABASE IF EXISTS `"+schema+"`")
}

func (m *MySQL) dsn(schema string) string {
	config := mysql.NewConfig()
	config.User, config.Passwd = mysqlUser, mysqlPassword
	config.Net, config.Addr = "tcp", address(m.port)
	config.DBName = schema
	return config.FormatDSN()
}

func (m *MySQL) exec(ctx context.Context, query string) (err error) {
	db, err := sql.Open("mysql", m.dsn(""))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	_, err = db.ExecContext(ctx, query)
	return err
}

// ping asks with a connection that must be new, and reports nothing to the driver's own log: that
// the server does not answer yet is what it waits for.
func (m *MySQL) ping(ctx context.Context) error {
	config, err := mysql.ParseDSN(m.dsn(""))
	if err != nil {
		return err
	}
	config.Logger = &mysql.NopLogger{}
	connector, err := mysql.NewConnector(config)
	if err != nil {
		return err
	}
	connection, err := connector.Connect(ctx)
	if err != nil {
		return err
	}
	return connection.Close()
}

// Stop shuts the server down, within ten seconds.
func (m *MySQL) Stop(ctx context.Context) error {
	m.child.stop(ctx)
	return nil
}

// Kill ends the server as a crash would and returns when it is gone.
func (m *MySQL) Kill() { m.child.kill() }

// mysqlServer is an installed server program.
type mysqlServer struct {
	program string
	mariaDB bool
}

// FindMySQL is the path of the server program StartMySQL runs, or an error in whose chain is
// ErrMissing.
func FindMySQL() (program string, err error) {
	server, err := findMySQL()
	return server.program, err
}

// findMySQL looks on the PATH and where Debian keeps servers, which is on root's PATH only.
func findMySQL() (mysqlServer, error) {
	for _, name := range []string{"mariadbd", "mysqld"} {
		program, err := exec.LookPath(name)
		if err != nil {
			if program, err = exec.LookPath("/usr/sbin/" + name); err != nil {
				continue
			}
		}
		version, err := exec.Command(program, "--no-defaults", "--version").CombinedOutput()
		if err != nil {
			return mysqlServer{}, fmt.Errorf("ask %s for its version: %w: %s", program, err, version)
		}
		return mysqlServer{program: program, mariaDB: strings.Contains(string(version), "MariaDB")}, nil
	}
	return mysqlServer{}, missing("no mariadbd or mysqld on the PATH or in /usr/sbin; `make setup` installs one")
}

// base are the arguments every run of the server begins with.
func (s mysqlServer) base(data string) []string {
	args := []string{"--no-defaults", "--datadir=" + data}
	if os.Geteuid() == 0 {
		args = append(args, "--user=root") // the server refuses root unless it is named
	}
	return args
}

// environment gives the server a directory of its own for temporary tables. In a shared one, /tmp, each
// server that starts removes the temporary tables of all that run.
func (s mysqlServer) environment(dir string) []string {
	return append(os.Environ(), "TMPDIR="+filepath.Join(dir, "mysql", "tmp"))
}

// initialise makes the data directory if there is none. It appears under its name only when it is
// complete, so a start that was killed leaves nothing half made in its place.
func (s mysqlServer) initialise(ctx context.Context, dir string) (data string, err error) {
	home := filepath.Join(dir, "mysql")
	if err := os.MkdirAll(filepath.Join(home, "tmp"), 0o750); err != nil {
		return "", err
	}
	data = filepath.Join(home, "data")
	if _, err := os.Stat(data); err == nil {
		return data, nil
	}
	unfinished, err := filepath.Glob(filepath.Join(home, "new-*"))
	if err != nil {
		return "", err
	}
	for _, old := range unfinished {
		_ = os.RemoveAll(old) // only takes space
	}
	fresh, err := os.MkdirTemp(home, "new-*")
	if err != nil {
		return "", err
	}
	program, args := s.program, append(s.base(fresh), "--initialize-insecure")
	if s.mariaDB {
		if program, err = exec.LookPath("mariadb-install-db"); err != nil {
			if program, err = exec.LookPath("mysql_install_db"); err != nil {
				return "", missing("no mariadb-install-db beside %s; `make setup` installs it", s.program)
			}
		}
		// No --user here: the script would hand the path to chown unquoted, and a server that only
		// makes its tables may be root.
		args = []string{"--no-defaults", "--datadir=" + fresh, "--auth-root-authentication-method=normal", "--skip-test-db"}
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = s.environment(dir)
	cmd.WaitDelay = stopLimit
	if out, err := cmd.CombinedOutput(); err != nil {
		// mariadb-install-db goes on with general advice, which only buries the reason.
		reason, _, _ := strings.Cut(string(out), "\nInstallation of system tables failed")
		return "", fmt.Errorf("make a data directory with %s: %w:\n%s", program, err, reason)
	}
	return data, os.Rename(fresh, data)
}
