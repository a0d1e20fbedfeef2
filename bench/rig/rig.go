// Package rig is what the benchmarks' commands share: flags, signals, a directory that goes with the
// run, and the middle of some rounds.
package rig

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"syscall"

	"ordersync/internal/telemetry"
)

// Benchmark is a command's own part. Its flags' values are its fields.
type Benchmark interface {
	// Define defines the flags.
	Define(flags *flag.FlagSet)
	// Check tells what is wrong with their values.
	Check() error
	// Run measures, and prints the result to r.Result.
	Run(ctx context.Context, r *Run) error
}

// Run is the surroundings of one run.
type Run struct {
	// Dir is for servers and files. It goes when the run ends.
	Dir    string
	Result io.Writer
	Log    *slog.Logger

	progress io.Writer
}

// Say tells whoever waits what is under way.
func (r *Run) Say(format string, args ...any) { fmt.Fprintf(r.progress, format+"\n", args...) }

// Main is the process of a benchmark. SIGINT and SIGTERM end it in order, a second one at once.
func Main(name string, b Benchmark) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)
	if err := Do(ctx, name, b, os.Args[1:], os.Stdout, os.Stderr); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
}

// Do is Main without the process around it.
func Do(ctx context.Context, name string, b Benchmark, args []string, result, progress io.Writer) (err error) {
	switch err := Parse(name, b, args, progress); {
	case errors.Is(err, flag.ErrHelp):
		return nil
	case err != nil:
		return err
	}
	r := &Run{Result: result, Log: telemetry.NewLogger(progress, slog.LevelWarn), progress: progress}
	if r.Dir, err = os.MkdirTemp("", "ordersync-bench-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(r.Dir)) }()
	return b.Run(ctx, r)
}

// Parse takes a benchmark's flags from its arguments. It fails with flag.ErrHelp where help was asked
// for, which has been printed to progress then.
func Parse(name string, b Benchmark, args []string, progress io.Writer) error {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(progress)
	b.Define(flags)
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("unexpected argument %q: see %s -help", flags.Arg(0), name)
	}
	return b.Check()
}

// Sorted are one figure of all rounds, the smallest first.
func Sorted[M any](rounds []M, figure func(M) float64) []float64 {
	var all []float64
	for _, m := range rounds {
		all = append(all, figure(m))
	}
	slices.Sort(all)
	return all
}

// Median is the middle of one figure of all rounds, or the mean of the two in the middle.
func Median[M any](rounds []M, figure func(M) float64) float64 {
	all := Sorted(rounds, figure)
	half := len(all) / 2
	if len(all)%2 == 1 {
		return all[half]
	}
	return (all[half-1] + all[half]) / 2
}
