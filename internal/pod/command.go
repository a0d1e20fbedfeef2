package pod

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"

	"ordersync/internal/config"
	"ordersync/internal/telemetry"
)

// Command is what the mains of worker and starter have in common: help, version, configuration and
// log.
type Command struct {
	Name    string
	About   string // what it does, for --help
	Example string // a command line
	// Required are variables without a default that it cannot do without.
	Required []string
	Run      func(context.Context, config.Config, *slog.Logger) error
}

const help = `%s
It ends within %v of a SIGTERM.

Example:

  %s

Flags:

  --help     this text
  --version  which build it is

Environment:

%s`

// Main runs the command until ctx ends. args are those after the program's name. Help and log go
// to out.
func (c Command) Main(ctx context.Context, args []string, environ map[string]string, out io.Writer) error {
	flags := flag.NewFlagSet(c.Name, flag.ContinueOnError)
	flags.SetOutput(io.Discard) // the error and the usage are printed once, by us
	version := flags.Bool("version", false, "")
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		_, err = fmt.Fprintf(out, help, c.About, ShutdownLimit, c.Example, config.Usage())
		return err
	case err != nil:
		return fmt.Errorf("%w; see %s --help", err, c.Name)
	case flags.NArg() > 0:
		return fmt.Errorf("unexpected argument %q: %s is configured by environment variables; see %s --help", flags.Arg(0), c.Name, c.Name)
	case *version:
		_, err = fmt.Fprintf(out, "%s %s\n", c.Name, Version())
		return err
	}
	cfg, err := config.Load(environ, c.Required...)
	if err != nil {
		return fmt.Errorf("%w\nsee %s --help", err, c.Name)
	}
	return c.Run(ctx, cfg, telemetry.NewLogger(out, cfg.LogLevel))
}
