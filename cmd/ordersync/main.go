// Command ordersync is ordersync for people: it runs the whole pipeline on one machine, makes and
// publishes events, waits until they are in the shop's database, shows what became of an order, and
// gets a stuck one going.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"ordersync/internal/config"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second Ctrl-C ends the process at once
	err := run(ctx, os.Args, os.Stdin, os.Stdout, os.Stderr, config.Environ())
	if err != nil {
		fmt.Fprintln(os.Stderr, "ordersync:", err)
		os.Exit(exitCode(err))
	}
}

// exitStuck is what `ordersync wait` exits with when all has been done that happens by itself.
const exitStuck = 3

// exitError is an error with an exit code of its own. Every other error exits with 1.
type exitError struct {
	code int
	error
}

func exitCode(err error) int {
	if own := new(exitError); errors.As(err, &own) {
		return own.code
	}
	return 1
}

// run is the command without the process around it. args begin with the program's name.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, environ map[string]string) error {
	a := &app{program: args[0], stdin: stdin, stdout: stdout, stderr: stderr, environ: environ}
	root := a.root()
	root.SetArgs(args[1:])
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return root.ExecuteContext(ctx)
}
