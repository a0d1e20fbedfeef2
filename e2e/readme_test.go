package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/require"

	"ordersync/internal/devstack"
	"ordersync/internal/devstack/devtest"
	"ordersync/internal/envfile"
)

// README's commands are typed, as they stand in it, into a shell beside the stack that `make dev ERP=1` starts.
// What differs from a person's terminal is listed here, and nothing else does.
const readmeFile = "../README.md"

// notTyped are the commands that this test does not type, with the reason.
var notTyped = []struct{ command, why string }{
	{`^make test\b`, "it is what runs this test"},
	{`^make demo\b`, "TestDemo runs its script"},
	{`^make dev$`, "the stack that it starts runs already, on free ports"},
	{`^docker `, "there is no image builder here; the test of deployments/ holds the Dockerfile against the programs"},
	{`^kubectl `, "there is no cluster here; the test of deployments/ renders the manifests and holds README's names and labels against them"},
}

// readmeStack is the stack, and the shell in its directory.
type readmeStack struct {
	*testing.T
	home string
	// environ is what the shell has beyond PATH and HOME.
	environ map[string]string
	// replaced are addresses that stand for a stack on the usual ports, and what they are on this one.
	replaced *strings.Replacer
	stops    int // kinds of stops that the database has been taught
}

func startREADME(t *testing.T) *readmeStack {
	t.Helper()
	r := &readmeStack{T: t, home: t.TempDir(), environ: map[string]string{"USER": "alex"}}
	temporal, err := devstack.FindTemporal(t.Context())
	require.NoError(t, err)
	for name, path := range map[string]string{
		"bin/ordersync": binary(t, "ordersync"), "bin/worker": binary(t, "worker"), "bin/starter": binary(t, "starter"), "bin/temporal": temporal,
		"path/mariadb": tool(t, "mariadb", "mysql"), "path/kcat": tool(t, "kcat"), "path/script": tool(t, "script"),
	} {
		link := filepath.Join(r.home, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(link), 0o750))
		require.NoError(t, os.Symlink(path, link))
	}
	dir := filepath.Join(r.home, ".ordersync")
	dev := start(t, map[string]string{"HOLD_WINDOW": "1s"}, "ordersync", "dev", "--data-dir", dir,
		"--kafka-port", "0", "--temporal-port", "0", "--ui-port", "0", "--mysql-port", "0",
		"--erp", "--erp-orders", "5", "--erp-seed", "7", "--erp-rate", "100")
	devtest.Eventually(t, 3*time.Minute, func() error {
		if err := dev.alive(); err != nil {
			t.Fatal(err)
		}
		_, err := os.Stat(devstack.EnvFile(dir))
		return err
	}, "the stack is ready")
	env, err := envfile.Read(devstack.EnvFile(dir))
	require.NoError(t, err)
	database, err := mysql.ParseDSN(env["MYSQL_DSN"])
	require.NoError(t, err)
	require.NoError(t, writeClientOptions(r.home, database, database.DBName))
	r.replaced = strings.NewReplacer("localhost:9092", env["KAFKA_BROKERS"])
	r.environ["TEMPORAL_ADDRESS"] = env["TEMPORAL_ADDRESS"] // the command temporal takes the usual port
	return r
}

func (r *readmeStack) shell(ctx context.Context, command string) *exec.Cmd {
	shell := exec.CommandContext(ctx, "sh", "-c", command)
	shell.Dir = r.home
	shell.Env = []string{"HOME=" + r.home, "PATH=" + filepath.Join(r.home, "path") + ":" + os.Getenv("PATH")}
	for name, value := range r.environ {
		shell.Env = append(shell.Env, name+"="+value)
	}
	return shell
}

// enter types a command and gives what it prints.
func (r *readmeStack) enter(command string) (string, error) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), 3*time.Minute)
	defer cancel()
	out, err := r.shell(ctx, r.replaced.Replace(command)).CombinedOutput()
	return string(out), err
}

func (r *readmeStack) must(command string) string {
	r.Helper()
	out, err := r.enter(command)
	r.Logf("$ %s\n%s", command, out)
	require.NoError(r, err, "%s\n%s", command, out)
	return out
}

// asked are the commands that ask before they act.
var asked = regexp.MustCompile(`^bin/ordersync (amend|skip) `)

// answer types a command at a terminal and answers its question with yes.
func (r *readmeStack) answer(command string) {
	r.Helper()
	r.must(fmt.Sprintf("echo y | script --quiet --return --command %s /dev/null", quoted(command)))
}

func quoted(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }

// watch types a command that ends with a Ctrl-C, as a person does who has seen something.
func (r *readmeStack) watch(command string) {
	r.Helper()
	file, err := os.Create(filepath.Join(r.home, "watched"))
	require.NoError(r, err)
	defer file.Close()
	shell := r.shell(r.Context(), "exec "+command)
	shell.Stdout, shell.Stderr = file, file
	require.NoError(r, shell.Start())
	devtest.Eventually(r, time.Minute, func() error {
		text, err := os.ReadFile(file.Name())
		if err == nil && len(text) == 0 {
			err = errors.New("it has printed nothing")
		}
		return err
	}, command)
	require.NoError(r, shell.Process.Signal(syscall.SIGINT))
	require.NoError(r, shell.Wait(), command)
}

// start types a command with & at its end, and waits until it is ready. On the port that the test gives it
// instead of the README's, it fights with nothing else on this machine.
func (r *readmeStack) start(command string) *process {
	r.Helper()
	line, ok := strings.CutSuffix(command, "&")
	require.True(r, ok, command)
	line = regexp.MustCompile(`HTTP_ADDRESS=\S+`).ReplaceAllString(line, "HTTP_ADDRESS=127.0.0.1:0")
	log, err := os.CreateTemp(r.TempDir(), "log")
	require.NoError(r, err)
	defer log.Close()
	p := &process{t: r.T, name: command, ended: make(chan struct{}), log: log.Name(), cmd: r.shell(context.Background(), "exec env "+line)}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = attributes()
	started := make(chan error)
	go p.live(started)
	require.NoError(r, <-started)
	r.Cleanup(func() {
		p.kill()
		if r.Failed() {
			r.Logf("the end of what %s said:\n%s", command, p.tail(20))
		}
	})
	p.awaitReady()
	return p
}

func TestREADME(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a whole stack")
	}
	all := sectionsOf(t, readmeFile)
	r := startREADME(t)
	typed := map[string]bool{}
	for _, s := range all {
		ok := t.Run(s.title, func(t *testing.T) {
			sub := *r
			sub.T = t
			sub.try(s, typed)
			r.stops = sub.stops
		})
		if !ok {
			t.FailNow()
		}
	}
	for _, n := range notTyped {
		require.True(t, typed[n.command], "README has no command %s any more", n.command)
	}
	for _, situation := range readmeSituations {
		require.True(t, typed[situation.command], "README has no command %s any more", situation.command)
	}
}

// readmeSituations are what a command needs to be there, and what its output shows; by the beginning of the
// command.
var readmeSituations = []struct {
	command string
	before  func(*readmeStack)
	shows   string
}{
	{command: "bin/ordersync order 10000001", shows: `(?m)^order 10000001: `},
	{command: "bin/temporal workflow list", shows: `order-`},
	{command: "bin/ordersync wait && bin/ordersync order 42", shows: `(?m)^order 42: open, online`},
	{command: "export ERP_SOURCE=", before: (*readmeStack).keepTheERPsOrders},
	{command: "bin/ordersync reconcile", shows: `(?m)^5 +agreeing$`},
	{command: "export KAFKA_BROKERS=", before: (*readmeStack).knowServers},
	{command: "bin/ordersync blocked", before: (*readmeStack).getStuck, shows: `536365`},
	{command: "bin/ordersync order 536365", shows: `blocked`},
	{command: "bin/ordersync retry 536365", before: (*readmeStack).mendDatabase},
	{command: "bin/ordersync amend 536365", before: func(r *readmeStack) { r.getStuck(); r.write("mended.json", `{"total":139.12}`) }},
	{command: "bin/ordersync skip 536365", before: (*readmeStack).getStuck},
	{command: "bin/ordersync retry --error", before: func(r *readmeStack) { r.getStuck(); r.mendDatabase() }},
	{command: "bin/ordersync deadletter list", before: (*readmeStack).publishNonsense, shows: `0/0`},
	{command: "bin/ordersync deadletter replay 0/0", before: func(r *readmeStack) {
		r.write("event.json", `{"sync_id":536399,"event":"order_creation","version":1,"data":{"total":1}}`)
	}},
}

func (r *readmeStack) try(s section, typed map[string]bool) {
	r.Helper()
	var servers []*process
	addresses := map[string]string{}
	for _, command := range s.commands {
		if i := slices.IndexFunc(notTyped, func(n struct{ command, why string }) bool { return regexp.MustCompile(n.command).MatchString(command) }); i >= 0 {
			typed[notTyped[i].command] = true
			r.Logf("not typed: %s: %s", command, notTyped[i].why)
			continue
		}
		shows := ""
		for _, situation := range readmeSituations {
			if strings.HasPrefix(command, situation.command) {
				typed[situation.command], shows = true, situation.shows
				if situation.before != nil {
					situation.before(r)
				}
			}
		}
		program, _, _ := strings.Cut(command, " #") // what follows is a comment, and may hold an &
		program = strings.TrimSpace(program)
		switch {
		case strings.HasSuffix(program, "&"):
			address := regexp.MustCompile(`HTTP_ADDRESS=(\S+)`).FindString(command)
			require.Empty(r, addresses[address], "%s listens where %s does", command, addresses[address])
			addresses[address] = command
			servers = append(servers, r.start(program))
		case strings.Contains(program, " --watch"):
			r.watch(program)
		case asked.MatchString(program):
			r.answer(program)
		default:
			out := r.must(command)
			if shows != "" {
				require.Regexp(r, shows, out, command)
			}
		}
	}
	for _, server := range servers {
		server.terminate(40 * time.Second)
	}
}

// keepTheERPsOrders takes out of the shop what did not come from the ERP: reconcile is not well with that.
func (r *readmeStack) keepTheERPsOrders() {
	for _, table := range []string{"orders", "invoices", "order_events"} {
		r.sql("DELETE FROM %s WHERE sync_id NOT LIKE '7000000_'", table)
	}
}

// knowServers gives the shell the addresses that the exports of this section stand for.
func (r *readmeStack) knowServers() {
	env, err := envfile.Read(devstack.EnvFile(filepath.Join(r.home, ".ordersync")))
	require.NoError(r, err)
	maps.Copy(r.environ, env)
}

// getStuck has the database refuse the next event of order 536365.
func (r *readmeStack) getStuck() {
	r.stops++
	r.sql("ALTER TABLE orders ADD CONSTRAINT stop%d CHECK (COALESCE(JSON_VALUE(data, '$.stop'), 0) <> %[1]d)", r.stops)
	r.must(fmt.Sprintf(`echo '{"sync_id":536365,"event":"order_updation","version":%d,"data":{"stop":%[1]d}}' | bin/ordersync load - --channel online`, r.stops))
	devtest.Eventually(r, time.Minute, func() error {
		out, err := r.enter("bin/ordersync order 536365")
		if err == nil && !strings.Contains(out, "blocked on order_updation v"+fmt.Sprint(r.stops)) {
			err = errors.New(out)
		}
		return err
	}, "the order is blocked")
}

func (r *readmeStack) mendDatabase() { r.sql("ALTER TABLE orders DROP CONSTRAINT stop%d", r.stops) }

// publishNonsense makes the first dead letter.
func (r *readmeStack) publishNonsense() {
	r.must(`echo '{"sync_id":536399,"event":"order_gone","data":1}' | bin/ordersync load - --channel store`)
	devtest.Eventually(r, time.Minute, func() error {
		out, err := r.enter("bin/ordersync deadletter list")
		if err == nil && !strings.Contains(out, "0/0") {
			err = errors.New(out)
		}
		return err
	}, "the dead letter is there")
}

func (r *readmeStack) sql(format string, args ...any) {
	r.must("mariadb <<'END'\n" + fmt.Sprintf(format, args...) + ";\nEND")
}

func (r *readmeStack) write(name, text string) {
	require.NoError(r, os.WriteFile(filepath.Join(r.home, name), []byte(text), 0o600))
}

// What README types in its prose stands in a block as well, where the test types it.
func TestREADMENames(t *testing.T) {
	text, err := os.ReadFile(readmeFile)
	require.NoError(t, err)
	var commands []string
	for _, s := range sectionsOf(t, readmeFile) {
		commands = append(commands, s.commands...)
	}
	for _, code := range span.FindAllStringSubmatch(fence.ReplaceAllString(string(text), "\n"), -1) {
		typed := strings.Join(strings.Fields(code[1]), " ")
		if strings.HasPrefix(typed, "bin/") && !slices.ContainsFunc(commands, func(c string) bool { return strings.HasPrefix(c, typed) }) {
			t.Errorf("no test runs `%s`: it is in no block", typed)
		}
	}
	for _, link := range regexp.MustCompile(`\]\(([^)#]+)\)`).FindAllStringSubmatch(string(text), -1) {
		require.FileExists(t, filepath.Join(filepath.Dir(readmeFile), link[1]))
	}
}

// demoSays are lines of the demo. The ERP's faults are drawn from a seed; how many records there are is a
// matter of when polls come.
var demoSays = []string{
	`(?m)^ +835  events happened in the ERP$`,
	`(?m)^ +859  changes were told by it: 24 of the events twice$`,
	`(?m)^ +\d+  records are in Kafka: `,
	`(?m)^ +\d+  of these are duplicates: `,
	`(?m)^ +835  events were applied, each once$`,
	`(?m)^order 536395: invoiced`,
	`(?m)^314 +agreeing$`,
}

// The demo, as `make demo` runs it, beside a build of the test's own: each number that it prints says what it
// counts, and those of one kind agree.
func TestDemo(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a whole stack")
	}
	if _, err := devstack.FindTemporal(t.Context()); err != nil {
		tool(t, "temporal")
	}
	checkout := t.TempDir()
	require.NoError(t, os.Mkdir(filepath.Join(checkout, "bin"), 0o750))
	require.NoError(t, os.Symlink(binary(t, "ordersync"), filepath.Join(checkout, "bin", "ordersync")))
	top, err := filepath.Abs("..")
	require.NoError(t, err)
	require.NoError(t, os.Symlink(filepath.Join(top, "e2e"), filepath.Join(checkout, "e2e")))
	require.NoError(t, os.Mkdir(filepath.Join(checkout, "scripts"), 0o750))
	script, err := os.ReadFile(filepath.Join(top, "scripts", "demo.sh"))
	require.NoError(t, err)
	path := filepath.Join(checkout, "scripts", "demo.sh")
	require.NoError(t, os.WriteFile(path, script, 0o700)) //nolint:gosec // it is a program

	cmd := exec.CommandContext(t.Context(), "bash", path)
	cmd.Env = environment(nil)
	cmd.SysProcAttr = attributes()
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	t.Logf("%s", out)
	for _, want := range demoSays {
		require.Regexp(t, want, string(out))
	}
}
