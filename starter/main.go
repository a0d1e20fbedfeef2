// Command starter brings events from Kafka to the Temporal workflows of their orders.
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
		fmt.Fprintln(os.Stderr, "starter:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, environ map[string]string, out io.Writer) error {
	return pod.Command{
		Name: "starter",
		About: `starter reads order events from Kafka and hands each to the Temporal workflow of its order. Starters
share the partitions of the topics as one consumer group. An offset is committed when everything up
to it is safely in Temporal or in the dead-letter topic, so a starter can be killed at any time.
With EAGER_START=true it is a worker as well.`,
		Example:  "KAFKA_BROKERS=localhost:9092 TEMPORAL_ADDRESS=localhost:7233 starter",
		Required: []string{"KAFKA_BROKERS"},
		Run: func(ctx context.Context, cfg config.Config, log *slog.Logger) error {
			if cfg.EagerStart {
				return pod.RunBoth(ctx, cfg, log)
			}
			return pod.RunStarter(ctx, cfg, log)
		},
	}.Main(ctx, args, environ, out)
}
