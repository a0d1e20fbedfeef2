// Command worker applies the events of orders to the target, as Temporal hands them out.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"ordersync/internal/config"
	"ordersync/internal/pod"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal kills
	if err := run(ctx, os.Args[1:], config.Environ(), os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "worker:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, environ map[string]string, out io.Writer) error {
	return pod.Command{
		Name: "worker",
		About: `worker applies the events of orders to MySQL. It runs the Temporal workflow of every order and the
steps of it; as many workers as you like share the work. It keeps nothing of its own: it can be
killed at any time, but SIGTERM spares the orders it is in the wait for time-outs.`,
		Example:  "KAFKA_BROKERS=localhost:9092 TEMPORAL_ADDRESS=localhost:7233 MYSQL_DSN='user:password@tcp(localhost:3306)/ordersync' worker",
		Required: []string{"KAFKA_BROKERS", "MYSQL_DSN"},
		Run: func(ctx context.Context, cfg config.Config, log *slog.Logger) error {
			return pod.RunWorker(ctx, cfg, log)
		},
	}.Main(ctx, args, environ, out)
}
