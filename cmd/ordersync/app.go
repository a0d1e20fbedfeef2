package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"ordersync/internal/config"
	"ordersync/internal/order"
	"ordersync/internal/pod"
)

// defaultDir is where a checkout's own stack lives.
const defaultDir = ".ordersync"

// app is what the commands share.
type app struct {
	program string
	stdin   io.Reader
	stdout  io.Writer
	stderr  io.Writer
	environ map[string]string

	dataDir string
	output  string

	answers *bufio.Reader // of stdin, from the first question on
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "ordersync",
		Short: "Brings orders from Kafka to the shop's database, one Temporal workflow per order",
		Long: `ordersync brings a retailer's orders from Kafka to the shop's MySQL database: the events of an
order strictly one after the other, thousands of orders side by side.

This command runs the whole of it on one machine (dev), publishes events (simulate, load), tells
when they have arrived (wait), shows an order (order), gets stuck ones going (blocked, retry, skip,
amend), brings back what could not be applied (deadletter) or was lost on the way (replay), and compares
the version and data of every order with the ERP's (reconcile). Except for dev, commands take their servers
from KAFKA_BROKERS, TEMPORAL_ADDRESS and MYSQL_DSN, and where those are not set from the file env in the
directory of a running "ordersync dev" (--data-dir).`,
		Example: `  ordersync dev
  ordersync simulate 100 --seed 1 | ordersync load -
  ordersync wait`,
		Version:       pod.Version(),
		Args:          noArguments,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
		SilenceErrors: true,
		SilenceUsage:  true,

		PersistentPreRunE: refuseEmptyFlags,
	}
	root.PersistentFlags().StringVar(&a.dataDir, "data-dir", defaultDir, "the directory of ordersync dev")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fmt.Errorf("%w; see %s --help; an id that begins with a dash goes last, after --", err, c.CommandPath())
	})
	root.AddGroup(
		&cobra.Group{ID: "stack", Title: "Run it:"},
		&cobra.Group{ID: "events", Title: "Publish events and follow them:"},
		&cobra.Group{ID: "operate", Title: "Look after orders:"},
	)
	root.SetHelpCommandGroupID("stack")
	root.SetCompletionCommandGroupID("stack")
	root.AddCommand(
		a.devCommand(), a.setupCommand(),
		a.simulateCommand(), a.loadCommand(), a.waitCommand(), a.scheduleCommand(), a.backfillCommand(),
		a.statusCommand(), a.orderCommand(), a.blockedCommand(), a.retryCommand(), a.skipCommand(), a.amendCommand(),
		a.deadletterCommand(), a.replayCommand(), a.reconcileCommand(),
	)
	return root
}

// refuseEmptyFlags refuses a flag that was given without a value, as by a script whose variable is empty. A command
// acts on more without --event-id or --channel, and a person who gives them does not mean that.
func refuseEmptyFlags(c *cobra.Command, _ []string) error {
	var err error
	c.Flags().Visit(func(f *pflag.Flag) {
		values := []string{f.Value.String()}
		if many, ok := f.Value.(pflag.SliceValue); ok {
			values = many.GetSlice()
		}
		if len(values) == 0 || slices.ContainsFunc(values, func(v string) bool { return strings.TrimSpace(v) == "" }) {
			err = fmt.Errorf("--%s is empty: give a value, or leave the flag out", f.Name)
		}
	})
	return err
}

// The values of --output.
const (
	asText = "text"
	asJSON = "json"
)

// withOutput gives a command the flag --output.
func (a *app) withOutput(c *cobra.Command) *cobra.Command {
	c.Flags().StringVarP(&a.output, "output", "o", asText, "text or json")
	// The directive keeps a shell from offering files.
	_ = c.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{asText, asJSON}, cobra.ShellCompDirectiveNoFileComp))
	work := c.RunE
	c.RunE = func(c *cobra.Command, args []string) error {
		if a.output != asText && a.output != asJSON {
			return fmt.Errorf("-o %s: the output is text or json", a.output)
		}
		return work(c, args)
	}
	return c
}

// print writes v as JSON where that is asked for, else as text does.
func (a *app) print(v any, text func(io.Writer) error) error {
	if a.output != asJSON {
		return text(a.stdout)
	}
	enc := json.NewEncoder(a.stdout)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// hint is a command line to type, with the flag that reaches the same stack. The flag stands first: after
// "--" it would be an argument.
func (a *app) hint(args string) string {
	if a.dataDir != defaultDir {
		args = "--data-dir " + order.Typed(a.dataDir) + " " + args
	}
	return a.bare(args)
}

// propose is the hint of a command about an order, an event or a letter.
func (a *app) propose(c order.Command) string { return a.hint(c.Words()) }

// bare is a command line to type for a command that needs no servers.
func (a *app) bare(args string) string {
	name := "ordersync"
	if strings.ContainsRune(a.program, filepath.Separator) {
		name = order.Typed(a.program)
	}
	return name + " " + args
}

// note writes a line for the person at the terminal, beside the output.
func (a *app) note(format string, args ...any) {
	fmt.Fprintf(a.stderr, format+"\n", args...)
}

// warnings is a log of what the person at the terminal should know.
func (a *app) warnings() *slog.Logger { return slog.New(readable(a.stderr)) }

// readable writes warnings and errors without what a log needs and a person does not.
func readable(out io.Writer) slog.Handler {
	return slog.NewTextHandler(out, &slog.HandlerOptions{
		Level: slog.LevelWarn,
		ReplaceAttr: func(groups []string, attr slog.Attr) slog.Attr {
			switch {
			case len(groups) > 0:
			case attr.Key == slog.TimeKey:
				return slog.String(attr.Key, attr.Value.Time().UTC().Format("15:04:05Z"))
			case slices.Contains(forMachines, attr.Key):
				return slog.Attr{}
			}
			return attr
		},
	})
}

// forMachines are what the Temporal SDK adds to every line.
var forMachines = []string{
	"component", "Namespace", "TaskQueue", "WorkerID", "WorkflowType", "WorkflowID", "RunID", "ActivityID", "Attempt",
}

// terminal tells whether somebody watches what is written to w.
func terminal(w io.Writer) bool {
	file, ok := w.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

func noArguments(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if !c.HasParent() {
		return fmt.Errorf("there is no command %q; see %s --help", args[0], c.CommandPath())
	}
	return fmt.Errorf("%s takes no argument, not %q; see %s --help", c.CommandPath(), args[0], c.CommandPath())
}

// oneArgument is for commands that take exactly one, called name in the help.
func oneArgument(name string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != 1 {
			return fmt.Errorf("%s takes one argument, %s, not %d; see %s --help", c.CommandPath(), name, len(args), c.CommandPath())
		}
		return nil
	}
}

// syncID reads an order's id as a person types it.
func syncID(arg string) (string, error) {
	id := strings.TrimSpace(arg)
	if id == "" || len(id) > order.MaxSyncID {
		return "", fmt.Errorf("%q is no sync_id: that has 1 to %d bytes", arg, order.MaxSyncID)
	}
	return id, nil
}

// environment is what --help says of the variables.
func environment() string { return "\n\nEnvironment:\n\n" + strings.TrimRight(config.Usage(), "\n") }
