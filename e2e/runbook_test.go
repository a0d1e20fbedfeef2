package e2e

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"ordersync/internal/config"
	"ordersync/internal/devstack"
	"ordersync/internal/devstack/devtest"
	"ordersync/internal/erpsim"
	"ordersync/internal/freshness"
	"ordersync/internal/intake"
	"ordersync/internal/notice"
	"ordersync/internal/operator"
	"ordersync/internal/order"
	"ordersync/internal/poll"
	"ordersync/internal/publish"
	"ordersync/internal/reconcile"
	"ordersync/internal/target"
	"ordersync/workflows"
	"ordersync/workflows/inbox"
)

// The runbook's commands are typed, as they stand in it, into a shell beside a real pipeline whose
// orders are in the state that the section is about. Each section is a subtest of its name and has a
// situation of its name in runbook_situations_test.go; a section or a command without one fails.
const runbookFile = "../docs/RUNBOOK.md"

// situation is what a section of the runbook is about.
type situation struct {
	// arise brings it about.
	arise func(*runbook)
	// mend is what somebody does before a command, by the command: what the runbook asks for in
	// prose, or what takes its time.
	mend map[string]func(*runbook)
	// fails are commands that must end with an error.
	fails []string
	// shows is what a command's output must match.
	shows map[string]string
	// heals checks what the section promises, after its last command.
	heals func(*runbook)
	// unseen are log lines of the section that this situation does not bring about.
	unseen []string
}

// section is a part of a document under a heading.
type section struct {
	title    string
	text     string
	commands []string
}

var fence = regexp.MustCompile("(?s)\n```(\\S*)\n(.*?)```")

// sections reads the runbook.
func sections(t *testing.T) []section {
	t.Helper()
	return sectionsOf(t, runbookFile)
}

// sectionsOf reads a document. Every fenced block must be of commands, one a line, or of SQL, which is one
// command. A line goes on with the next after a backslash or a pipe.
func sectionsOf(t *testing.T, path string) []section {
	t.Helper()
	file, err := os.ReadFile(path)
	require.NoError(t, err)
	var all []section
	for i, part := range strings.Split(string(file), "\n## ") {
		if i == 0 {
			require.NotContains(t, part, "```", "commands before the first heading")
			continue
		}
		title, text, _ := strings.Cut(part, "\n")
		s := section{title: title, text: text}
		for _, block := range fence.FindAllStringSubmatch(text, -1) {
			switch block[1] {
			case "sh":
				lines := strings.NewReplacer("\\\n", " ", "|\n", "| ").Replace(block[2])
				for line := range strings.Lines(lines) {
					if line = strings.TrimSpace(line); line != "" {
						s.commands = append(s.commands, line)
					}
				}
			case "sql":
				s.commands = append(s.commands, "mariadb <<'END'\n"+block[2]+"END")
			default:
				require.Fail(t, "neither sh nor sql", "a block in %q: %q", title, block[1])
			}
		}
		require.Equal(t, 2*len(fence.FindAllString(text, -1)), strings.Count("\n"+text, "\n```"), "fences in %q", title)
		all = append(all, s)
	}
	require.NotEmpty(t, all)
	return all
}

// runbook is the pipeline that the commands are typed beside, and a shell.
type runbook struct {
	*bundle
	root *testing.T // of all sections: processes live beyond one

	mysqlOptions    devstack.MySQLOptions
	mysql           *devstack.MySQL
	temporalOptions devstack.TemporalOptions
	server          *devstack.Temporal
	kafkaOptions    devstack.KafkaOptions
	broker          *devstack.Kafka

	erp             *erpsim.ERP
	worker, starter *process
	logs            map[string][]string // the log files of each kind of pod, oldest first
	before          map[string]int      // the length of each kind's logs when the section began
	home            string              // the shell's directory
}

const orderSchema = "orders"

func openRunbook(t *testing.T) *runbook {
	t.Helper()
	dir := t.TempDir()
	r := &runbook{
		root: t, home: t.TempDir(), logs: map[string][]string{},
		mysqlOptions:    devstack.MySQLOptions{Dir: dir},
		temporalOptions: devstack.TemporalOptions{Dir: dir, Headless: true, SearchAttributes: devtest.SearchAttributes},
		kafkaOptions:    devstack.KafkaOptions{Dir: dir},
	}
	r.mysql = devtest.MySQLPrivate(t, r.mysqlOptions)
	r.mysqlOptions.Port = r.mysql.Port()
	admin, err := r.mysql.CreateSchema(t.Context(), orderSchema)
	require.NoError(t, err)
	r.server = devtest.TemporalPrivate(t, r.temporalOptions)
	r.temporalOptions.Port = r.server.Port()
	r.broker, err = devstack.StartKafka(t.Context(), r.kafkaOptions)
	require.NoError(t, err)
	t.Cleanup(func() { _ = r.broker.Stop(context.Background()) })
	address, err := net.ResolveTCPAddr("tcp", r.broker.Brokers()[0])
	require.NoError(t, err)
	r.kafkaOptions.Port = address.Port

	config, err := mysql.ParseDSN(admin)
	require.NoError(t, err)
	r.install(t, config)
	db, err := sql.Open("mysql", admin)
	require.NoError(t, err)
	defer db.Close()
	config.User, config.Passwd = "sync", "sync"
	for _, statement := range []string{"CREATE USER 'sync'@'%' IDENTIFIED BY 'sync'", "GRANT ALL PRIVILEGES ON " + orderSchema + ".* TO 'sync'@'%'"} {
		_, err := db.ExecContext(t.Context(), statement)
		require.NoError(t, err)
	}
	r.erp = sourceOf(t, `
		{"sync_id":536420,"channel":"store","event":"order_creation","version":1,"data":{"total":1}}
		{"sync_id":536421,"channel":"store","event":"order_creation","version":1,"data":{"total":1}}
		{"sync_id":536420,"channel":"store","event":"order_updation","version":2,"data":{"total":2}}`)
	r.bundle = setup(t,
		"ERP_SOURCE=http", "ERP_URL="+r.erp.URL(), "ERP_OVERLAP=0s",
		"KAFKA_BROKERS="+r.broker.Brokers()[0], "KAFKA_GROUP=ordersync", "KAFKA_TOPICS=online=online,store=store,international=international",
		"KAFKA_DEAD_LETTER_TOPIC=order-events.dead-letter", "TEMPORAL_ADDRESS="+r.server.Address(), "MYSQL_DSN="+config.FormatDSN(),
		"HOLD_WINDOW=1s",
	)
	r.startWorker()
	r.startStarter()
	r.starter.awaitReady()
	return r
}

// sourceOf is an ERP to poll, which has told nothing yet.
func sourceOf(t *testing.T, lines string) *erpsim.ERP {
	t.Helper()
	events, err := erpsim.Read(strings.NewReader(lines))
	require.NoError(t, err)
	source, err := erpsim.New(erpsim.Options{Events: events})
	require.NoError(t, err)
	require.NoError(t, source.Listen("127.0.0.1:0"))
	t.Cleanup(func() { _ = source.Close() })
	return source
}

// in is the runbook for a subtest.
func (r *runbook) in(t *testing.T) *runbook {
	b, sub := *r.bundle, *r
	b.T, sub.bundle = t, &b
	return &sub
}

func (r *runbook) startWorker() {
	r.worker = start(r.root, r.environ, "worker")
	r.logs["worker"] = append(r.logs["worker"], r.worker.log)
	r.worker.awaitReady()
}

func (r *runbook) startStarter() {
	r.starter = start(r.root, r.environ, "starter")
	r.logs["starter"] = append(r.logs["starter"], r.starter.log)
	devtest.Eventually(r, time.Minute, func() error {
		if r.starter.address() == "" {
			return errors.New("it has not said where it listens")
		}
		return nil
	}, "the starter serves")
}

// logged tells whether a pod of a kind has logged a line since the section began.
func (r *runbook) logged(pod, line string) bool {
	return strings.Contains(r.said(pod)[r.before[pod]:], line)
}

// said is what all pods of a kind have logged.
func (r *runbook) said(pod string) string {
	var all strings.Builder
	for _, file := range r.logs[pod] {
		text, err := os.ReadFile(file)
		require.NoError(r, err)
		all.Write(text)
	}
	return all.String()
}

// install puts the commands on the shell's PATH, and where the database is into its home.
func (r *runbook) install(t *testing.T, database *mysql.Config) {
	t.Helper()
	temporal, err := devstack.FindTemporal(t.Context())
	require.NoError(t, err)
	tools := map[string]string{
		"ordersync": binary(t, "ordersync"), "temporal": temporal,
		"mariadb": tool(t, "mariadb", "mysql"), "curl": tool(t, "curl"),
	}
	bin := filepath.Join(r.home, "bin")
	require.NoError(t, os.Mkdir(bin, 0o750))
	require.NoError(t, os.WriteFile(filepath.Join(bin, "tctl"), []byte(tctl), 0o750)) //nolint:gosec // a command
	for name, path := range tools {
		require.NoError(t, os.Symlink(path, filepath.Join(bin, name)))
	}
	require.NoError(t, writeClientOptions(r.home, database, orderSchema))
}

// writeClientOptions has the client of MySQL find the database without being told.
func writeClientOptions(home string, database *mysql.Config, schema string) error {
	host, port, err := net.SplitHostPort(database.Addr)
	if err != nil {
		return err
	}
	options := fmt.Sprintf("[client]\nhost=%s\nport=%s\nprotocol=tcp\nuser=%s\npassword=%s\n[mysql]\ndatabase=%s\n",
		host, port, database.User, database.Passwd, schema)
	return os.WriteFile(filepath.Join(home, ".my.cnf"), []byte(options), 0o600)
}

// tctl stands for Temporal's older command, which can no longer be installed as a module. What its signals are on
// the wire equals what `temporal` sends.
const tctl = `#!/bin/sh
[ "$1 $2 $3 $5 $7" = "workflow signal -w -n -i" ] || { echo "not known here: $*" >&2; exit 1; }
exec temporal workflow signal --workflow-id "$4" --name "$6" --input "$8"
`

// tool is the path of the first of names; without any the test is skipped, except in CI.
func tool(t *testing.T, names ...string) string {
	t.Helper()
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("there is no %s", names[0])
	}
	t.Skipf("there is no %s, which README or runbook use: `make setup` installs it", names[0])
	return ""
}

// enter types a command into the shell.
func (r *runbook) enter(command string) (out string, err error) {
	r.Helper()
	ctx, cancel := context.WithTimeout(r.Context(), 2*time.Minute)
	defer cancel()
	shell := exec.CommandContext(ctx, "sh", "-c", command)
	shell.Dir = r.home
	for name, value := range r.environ {
		shell.Env = append(shell.Env, name+"="+value)
	}
	shell.Env = append(shell.Env, "HOME="+r.home, "PATH="+filepath.Join(r.home, "bin")+":"+os.Getenv("PATH"),
		"STARTER="+r.starter.address(), "WORKER="+r.worker.address())
	text, err := shell.CombinedOutput()
	return string(text), err
}

func TestRunbook(t *testing.T) {
	all := sections(t)
	for _, s := range all {
		if _, ok := situations[s.title]; !ok {
			t.Errorf("section %q has no situation to be tried in", s.title)
		}
	}
	for title := range situations {
		if !slices.ContainsFunc(all, func(s section) bool { return s.title == title }) {
			t.Errorf("the runbook has no section %q", title)
		}
	}
	if t.Failed() {
		t.FailNow()
	}
	r := openRunbook(t)
	for _, s := range all {
		ok := t.Run(s.title, func(t *testing.T) {
			sub := r.in(t)
			defer func() {
				r.worker, r.starter, r.mysql, r.server, r.broker = sub.worker, sub.starter, sub.mysql, sub.server, sub.broker
			}()
			sub.try(s, situations[s.title])
		})
		if !ok {
			t.FailNow() // what follows would run beside a broken pipeline
		}
	}
	r.requireAppliedOnce()
}

// try brings a situation about and types the section's commands, one after the other.
func (r *runbook) try(s section, at situation) {
	r.Helper()
	r.before = map[string]int{"worker": len(r.said("worker")), "starter": len(r.said("starter"))}
	if at.arise != nil {
		at.arise(r)
	}
	keys := map[string]bool{}
	times := map[string]int{}
	for _, command := range s.commands {
		key := command
		if times[command]++; times[command] > 1 {
			key = fmt.Sprintf("%s (%d)", command, times[command])
		}
		keys[key] = true
		if mend := at.mend[key]; mend != nil {
			mend(r)
		}
		out, err := r.enter(command)
		r.Logf("$ %s\n%s", command, out)
		if slices.Contains(at.fails, key) {
			require.Error(r, err, "%s\n%s", command, out)
		} else {
			require.NoError(r, err, "%s\n%s", command, out)
		}
		if want := at.shows[key]; want != "" {
			require.Regexp(r, want, out, command)
		}
	}
	for _, key := range slices.Concat(slices.Collect(maps.Keys(at.mend)), slices.Collect(maps.Keys(at.shows)), at.fails) {
		require.True(r, keys[key], "the section has no command %q", key)
	}
	if at.heals != nil {
		at.heals(r)
	}
	for pod, lines := range s.logLines() {
		for _, line := range lines {
			if !slices.Contains(at.unseen, line) {
				require.True(r, r.logged(pod, line), "the %s has not logged %q", pod, line)
			}
		}
	}
}

var (
	logs = regexp.MustCompile(`(?ms)^Log \((worker|starter)\): (.*?)(?:\n\n|\z)`)
	span = regexp.MustCompile("(?s)`([^`]+)`")
)

// logLines are the log lines by which a section says that its trouble shows, by pod. Keys, commands and
// metrics are single words.
func (s section) logLines() map[string][]string {
	lines := map[string][]string{}
	for _, paragraph := range logs.FindAllStringSubmatch(s.text, -1) {
		for _, code := range span.FindAllStringSubmatch(paragraph[2], -1) {
			if line := strings.Join(strings.Fields(code[1]), " "); strings.Contains(line, " ") {
				lines[paragraph[1]] = append(lines[paragraph[1]], line)
			}
		}
	}
	return lines
}

// What the runbook says in prose is held against the code as well: a name that has changed would send
// somebody looking for nothing.
func TestRunbookNames(t *testing.T) {
	all := sections(t)
	file, err := os.ReadFile(runbookFile)
	require.NoError(t, err)
	text := string(file)
	source := goSource(t)

	t.Run("commands in prose", func(t *testing.T) {
		var commands []string
		for _, s := range all {
			commands = append(commands, s.commands...)
		}
		program := regexp.MustCompile(`^(ordersync|temporal|mariadb|tctl|curl|kubectl|kcat|kafka-\S+|mysql) `)
		for _, code := range span.FindAllStringSubmatch(fence.ReplaceAllString(text, "\n"), -1) {
			typed := strings.Join(strings.Fields(code[1]), " ")
			if program.MatchString(typed) && !slices.ContainsFunc(commands, func(c string) bool { return strings.HasPrefix(c, typed) }) {
				t.Errorf("no test runs `%s`: it is in no sh block", typed)
			}
		}
	})
	t.Run("metrics", func(t *testing.T) {
		known := &described{}
		notice.New(notice.Options{Registerer: known})
		freshness.NewExporter(nil, known, nil)
		reconcile.New(reconcile.Options{Registerer: known})
		poll.New(poll.Options{Registerer: known})
		operator.NewWatch(operator.WatchOptions{Registerer: known})
		_, err := intake.New(intake.Options{
			Brokers: []string{"localhost:1"}, Group: "g", Topics: map[string]order.Channel{"online": order.Online}, TaskQueue: "q", Settings: workflows.Settings{Rules: workflows.Rules},
			Temporal: lazyTemporal(t), DeadLetters: publish.New(publish.Options{Brokers: []string{"localhost:1"}, DeadLetterTopic: "d"}), Registerer: known,
		})
		require.NoError(t, err)
		found := regexp.MustCompile("`(ordersync_[a-z_]+)`").FindAllStringSubmatch(text, -1)
		require.NotEmpty(t, found)
		for _, name := range found {
			require.True(t, strings.Contains(known.names, `fqName: "`+name[1]+`"`), "there is no metric %s", name[1])
		}
	})
	t.Run("log lines", func(t *testing.T) {
		// Those that the situations bring about TestRunbook finds in the pods' logs.
		for _, s := range all {
			lines := slices.Concat(slices.Collect(maps.Values(s.logLines()))...)
			for _, line := range situations[s.title].unseen {
				require.Contains(t, lines, line, "section %q", s.title)
				require.True(t, strings.Contains(source, line), "section %q: no source has %q", s.title, line)
			}
		}
	})
	t.Run("reasons", func(t *testing.T) {
		explained := func(word string) bool {
			return strings.Contains(text, "`"+word+"`") || strings.Contains(text, `SyncError="`+word+`"`)
		}
		for number := range uint16(5000) {
			if f := target.Classify(&mysql.MySQLError{Number: number}); f.Permanent || f.Operator || !strings.HasPrefix(f.Type, "MySQL") {
				require.True(t, explained(f.Type), "SyncError %s of error %d", f.Type, number)
			}
		}
		for _, reason := range []string{inbox.UnknownOrder, workflows.UndecodableSignal} {
			require.True(t, explained(reason), reason)
		}
		for _, reason := range []order.Reason{
			order.NullValue, order.ValueTooLarge, order.InvalidUTF8, order.MalformedJSON, order.MissingField,
			order.InvalidField, order.UnknownEvent, order.OrderBlocked, order.Undecodable,
			order.IdentityConflict,
		} {
			require.True(t, explained(string(reason)), reason)
		}
	})
	t.Run("variables", func(t *testing.T) {
		usage := config.Usage()
		for _, name := range regexp.MustCompile("`([A-Z]+_[A-Z_]+)`").FindAllStringSubmatch(text, -1) {
			require.Contains(t, usage, name[1])
		}
	})
	t.Run("links", func(t *testing.T) {
		for _, link := range regexp.MustCompile(`\]\(([^)]+)\)`).FindAllStringSubmatch(text, -1) {
			if heading, ok := strings.CutPrefix(link[1], "#"); ok {
				require.True(t, slices.ContainsFunc(all, func(s section) bool {
					return strings.ReplaceAll(strings.ToLower(s.title), " ", "-") == heading
				}), link[1])
				continue
			}
			name, heading, _ := strings.Cut(link[1], "#")
			file := filepath.Join(filepath.Dir(runbookFile), name)
			require.FileExists(t, file)
			if heading != "" {
				other, err := os.ReadFile(file)
				require.NoError(t, err)
				require.Contains(t, strings.ReplaceAll(strings.ToLower(string(other)), " ", "-"), "#-"+heading+"\n", link[1])
			}
		}
	})
}

// described is a registry that keeps the descriptions of metrics, those that have no value yet too.
type described struct{ names string }

func (d *described) Register(c prometheus.Collector) error { d.MustRegister(c); return nil }
func (d *described) Unregister(prometheus.Collector) bool  { return false }

func (d *described) MustRegister(all ...prometheus.Collector) {
	for _, c := range all {
		descriptions := make(chan *prometheus.Desc)
		go func() { c.Describe(descriptions); close(descriptions) }()
		for description := range descriptions {
			d.names += description.String() + "\n"
		}
	}
}

func lazyTemporal(t *testing.T) client.Client {
	t.Helper()
	c, err := client.NewLazyClient(client.Options{Logger: errorLog()})
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// goSource is the program's source.
func goSource(t *testing.T) string {
	t.Helper()
	var all strings.Builder
	for _, dir := range []string{"../internal", "../workflows", "../activities"} {
		require.NoError(t, filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
			if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			all.Write(text)
			return err
		}))
	}
	return all.String()
}
