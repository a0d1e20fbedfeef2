package devstack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// The account of every embedded PostgreSQL server. Its password keeps nobody out and is not meant to.
const (
	postgresUser     = "ordersync"
	postgresPassword = "ordersync"
)

// PostgresOptions say where StartPostgres keeps its data and listens.
type PostgresOptions struct {
	// Dir must be reachable for the user that the server runs as: it refuses to run as root.
	Dir    string
	Port   int // 0 is a free one
	Logger *slog.Logger
}

// Postgres is a PostgreSQL server with a data directory of its own: an ERP's database, for tests.
type Postgres struct {
	child  *child
	port   int
	logger *slog.Logger
}

// StartPostgres starts the postgres of this machine, on a data directory that it makes the first time,
// and returns when the server answers. Of root's it becomes the process of another user.
func StartPostgres(ctx context.Context, options PostgresOptions) (*Postgres, error) {
	dir, err := filepath.Abs(options.Dir)
	if err != nil {
		return nil, err
	}
	programs, err := FindPostgres()
	if err != nil {
		return nil, err
	}
	if err := endLeftover(filepath.Join(dir, "postgres.pid"), dir); err != nil {
		return nil, err
	}
	port, err := choosePort(options.Port, "PostgresOptions.Port")
	if err != nil {
		return nil, err
	}
	server, err := postgresServerIn(dir, programs)
	if err != nil {
		return nil, err
	}
	data, err := server.initialise(ctx)
	if err != nil {
		return nil, err
	}
	p := &Postgres{port: port, logger: logger(options.Logger)}
	// What served the clients of a server that was killed ends a moment after it, and keeps the data
	// directory until then.
	for until := time.Now().Add(leftoverLimit); ; {
		err = p.start(ctx, dir, server.command(context.Background(), "postgres", "-D", data,
			"-c", "listen_addresses="+host,
			"-c", "port="+strconv.Itoa(port),
			"-c", "unix_socket_directories=", // a path of more than 107 bytes is no socket address
			"-c", "max_connections=200",
			"-c", "shared_buffers=64MB",
			// What is committed outlives the process, not the machine.
			"-c", "fsync=off",
			"-c", "full_page_writes=off",
		))
		if err == nil || !strings.Contains(err.Error(), "pre-existing shared memory block") || time.Now().After(until) {
			break
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), err)
		case <-time.After(100 * time.Millisecond):
		}
	}
	if err != nil {
		return nil, err
	}
	p.logger.Info("PostgreSQL is ready", "address", address(port))
	return p, nil
}

// leftoverLimit is how long the processes of a server that is gone may take to end.
const leftoverLimit = 10 * time.Second

// start runs the server until it answers.
func (p *Postgres) start(ctx context.Context, dir string, cmd *exec.Cmd) error {
	c, err := startChild(dir, "postgres", cmd)
	if err != nil {
		return err
	}
	c.end = syscall.SIGINT // after SIGTERM it would wait for its clients to go
	p.child = c
	if err := c.await(ctx, time.Minute, func(ctx context.Context) error { return p.exec(ctx, "SELECT 1") }); err != nil {
		c.kill()
		return err
	}
	return nil
}

// Port is where the server listens on 127.0.0.1.
func (p *Postgres) Port() int { return p.port }

// CreateDatabase creates a database, and is the URL to open it with.
func (p *Postgres) CreateDatabase(ctx context.Context, name string) (databaseURL string, err error) {
	return p.url(name), p.exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize())
}

// DropDatabase removes the database and all it holds; whoever is connected to it is cut off.
func (p *Postgres) DropDatabase(ctx context.Context, name string) error {
	return p.exec(ctx, "DROP DATABASE IF EXISTS "+pgx.Identifier{name}.Sanitize()+" WITH (FORCE)")
}

func (p *Postgres) url(database string) string {
	return (&url.URL{
		Scheme: "postgres", User: url.UserPassword(postgresUser, postgresPassword), Host: address(p.port), Path: "/" + database,
		RawQuery: "sslmode=disable",
	}).String()
}

func (p *Postgres) exec(ctx context.Context, statement string) (err error) {
	conn, err := pgx.Connect(ctx, p.url("postgres"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close(context.WithoutCancel(ctx))) }()
	_, err = conn.Exec(ctx, statement)
	return err
}

// Stop shuts the server down, within ten seconds.
func (p *Postgres) Stop(ctx context.Context) error {
	p.child.stop(ctx)
	return nil
}

// Kill ends the server as a crash would and returns when it is gone.
func (p *Postgres) Kill() { p.child.kill() }

// FindPostgres is the directory of the server's programs, or an error in whose chain is ErrMissing. It
// looks on the PATH and where packages keep them, which is on nobody's PATH: of several versions the newest.
func FindPostgres() (programs string, err error) {
	var candidates []string
	if program, err := exec.LookPath("postgres"); err == nil {
		if program, err = filepath.EvalSymlinks(program); err == nil {
			candidates = append(candidates, filepath.Dir(program))
		}
	}
	for _, pattern := range []string{
		"/usr/lib/postgresql/*/bin", "/usr/pgsql-*/bin", "/usr/libexec/postgresql*", "/opt/homebrew/opt/postgresql*/bin", "/usr/local/opt/postgresql*/bin",
	} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			return "", err
		}
		slices.Reverse(found)
		candidates = append(candidates, found...)
	}
	for _, dir := range candidates {
		_, noServer := os.Stat(filepath.Join(dir, "postgres"))
		_, noInit := os.Stat(filepath.Join(dir, "initdb"))
		if noServer == nil && noInit == nil {
			return dir, nil
		}
	}
	return "", missing("no postgres and initdb on the PATH or where packages put them; `go run ./internal/devstack/setup postgres` installs them")
}

// postgresServer is an installed server, and the user it runs as in a directory.
type postgresServer struct {
	programs   string
	home       string
	credential *syscall.Credential // nil for the user of this process
}

// postgresServerIn makes dir/postgres, which belongs to the user of the server.
func postgresServerIn(dir, programs string) (postgresServer, error) {
	s := postgresServer{programs: programs, home: filepath.Join(dir, "postgres")}
	if err := os.MkdirAll(s.home, 0o700); err != nil {
		return s, err
	}
	if os.Geteuid() != 0 {
		return s, nil
	}
	account, err := user.Lookup("postgres")
	if err != nil {
		if account, err = user.Lookup("nobody"); err != nil {
			return s, fmt.Errorf("PostgreSQL refuses to run as root, and there is no other user: %w", err)
		}
	}
	uid, err := strconv.ParseUint(account.Uid, 10, 32)
	if err != nil {
		return s, err
	}
	gid, err := strconv.ParseUint(account.Gid, 10, 32)
	if err != nil {
		return s, err
	}
	s.credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	// Others may pass through the directory above, and see nothing of it.
	info, err := os.Stat(dir)
	if err != nil {
		return s, err
	}
	return s, errors.Join(os.Chmod(dir, info.Mode()|0o011), os.Chown(s.home, int(uid), int(gid)))
}

// command runs a program of the server as its user. The end of ctx ends it.
func (s postgresServer) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(s.programs, program), args...)
	cmd.Dir = s.home
	cmd.Env = append(os.Environ(), "HOME="+s.home, "LC_ALL=C")
	if s.credential != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: s.credential}
	}
	return cmd
}

// initialise makes the data directory if there is none. It appears under its name only when it is
// complete.
func (s postgresServer) initialise(ctx context.Context) (data string, err error) {
	data = filepath.Join(s.home, "data")
	if _, err := os.Stat(data); err == nil {
		return data, nil
	}
	fresh := filepath.Join(s.home, "new")
	if err := os.RemoveAll(fresh); err != nil { // of a start that was killed
		return "", err
	}
	password := filepath.Join(s.home, "password")
	if err := writeFile(password, postgresPassword+"\n"); err != nil {
		return "", err
	}
	if s.credential != nil {
		if err := os.Chown(password, int(s.credential.Uid), int(s.credential.Gid)); err != nil {
			return "", err
		}
	}
	cmd := s.command(ctx, "initdb", "-D", fresh, "-U", postgresUser, "--pwfile="+password, "--auth=scram-sha-256",
		"--encoding=UTF8", "--locale=C", "--no-sync")
	cmd.WaitDelay = stopLimit
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("make a data directory with initdb: %w:\n%s", err, out)
	}
	return data, os.Rename(fresh, data)
}
