package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"ordersync/internal/load"
	"ordersync/internal/order"
	"ordersync/internal/pod"
)

func (a *app) loadCommand() *cobra.Command {
	var channel string
	c := &cobra.Command{
		Use:     "load FILE|-",
		GroupID: "events",
		Short:   "Publish events from a file, one JSON object a line",
		Long: `Publishes events to Kafka, one JSON object a line, each to the topic of its channel and keyed by
its sync_id; the line is the record's value as it is. The channel is --channel, or the line's own
field "channel". - reads standard input.

A line is looked at only as far as it must be addressed; whether it is an event is for the pipeline
to say, which puts what is none into the dead-letter topic. A line that is no JSON object, or
has no sync_id or no known channel, is named by its number; the others are published all the same,
and the command fails in the end.

The same file may be loaded again: events that name their event_id or version are applied once.`,
		Example: `  ordersync load orders.ndjson
  ordersync simulate 100 --seed 1 | ordersync load -
  echo '{"sync_id":1,"event":"order_creation","data":{"total":9.5}}' | ordersync load - --channel online`,
		Args: oneArgument("a file, or - for standard input"),
		RunE: func(c *cobra.Command, args []string) error {
			if channel != "" && !slices.Contains(order.Channels, order.Channel(channel)) {
				return fmt.Errorf("--channel %s: the channels are %s", channel, channels())
			}
			return a.load(c.Context(), args[0], order.Channel(channel))
		},
	}
	c.Flags().StringVar(&channel, "channel", "", "publish every line to this channel: "+channels())
	_ = c.RegisterFlagCompletionFunc("channel", cobra.FixedCompletions(strings.Split(channels(), ", "), cobra.ShellCompDirectiveNoFileComp))
	return a.withOutput(c)
}

func channels() string {
	var names []string
	for _, channel := range order.Channels {
		names = append(names, string(channel))
	}
	return strings.Join(names, ", ")
}

// loaded is the outcome of a load.
type loaded struct {
	Lines            int         `json:"lines"`
	Published        int         `json:"published"`
	Malformed        []malformed `json:"malformed"` // the first of them
	MalformedCount   int         `json:"malformed_count"`
	Seconds          float64     `json:"seconds"`
	RecordsPerSecond float64     `json:"records_per_second"`
}

type malformed struct {
	Line  int    `json:"line"`
	Error string `json:"error"`
}

// maxNamed is how many malformed lines are named one by one.
const maxNamed = 100

func (a *app) load(ctx context.Context, path string, channel order.Channel) error {
	cfg, err := a.config(ctx, kafkaBrokers)
	if err != nil {
		return err
	}
	in, size, err := a.open(path)
	if err != nil {
		return err
	}
	defer in.Close()

	transport := pod.KafkaTransport(cfg)
	defer transport.CloseIdleConnections()
	producer := pod.NewProducer(cfg, transport)
	bar := a.newBar("published", size, true)
	began := time.Now()
	result := loaded{Malformed: []malformed{}}
	progress, err := load.Lines(ctx, in, load.Options{
		Topics: cfg.Kafka.Topics.ByChannel(), Channel: channel, Publish: producer.Publish,
		Malformed: func(line int, problem error) {
			if len(result.Malformed) < maxNamed {
				result.Malformed = append(result.Malformed, malformed{line, problem.Error()})
				bar.clear()
				a.note("%s, line %d: %v", path, line, problem)
			}
		},
		Progress: func(p load.Progress) { bar.set(p.Bytes, fmt.Sprintf("%d records", p.Published)) },
	})
	bar.finish()
	err = errors.Join(err, producer.Close())
	result.Lines, result.Published, result.MalformedCount = progress.Lines, progress.Published, progress.Malformed
	result.Seconds = rounded(time.Since(began).Seconds())
	result.RecordsPerSecond = rounded(float64(progress.Published) / max(time.Since(began).Seconds(), 1e-3))
	printed := a.print(result, func(out io.Writer) error {
		_, err := fmt.Fprintf(out, "published %d of %d lines in %.1f s, %.0f records/s\n", result.Published, result.Lines, result.Seconds, result.RecordsPerSecond)
		return err
	})
	switch {
	case errors.Is(err, context.Canceled):
		err = fmt.Errorf("interrupted after line %d; load the whole file again: events with an event_id or a version are applied once", progress.Lines)
	case err != nil:
		err = fmt.Errorf("%s: %w\nload the file again when Kafka is well: events with an event_id or a version are applied once", path, err)
	case progress.Malformed > len(result.Malformed):
		err = fmt.Errorf("%s: %d lines were not published, the first %d are named above", path, progress.Malformed, len(result.Malformed))
	case progress.Malformed > 0:
		err = fmt.Errorf("%s: %d of %d lines were not published; mend and load them by themselves", path, progress.Malformed, progress.Lines)
	}
	return errors.Join(err, printed)
}

// open opens a file, or standard input; size is -1 where nobody knows it.
func (a *app) open(path string) (in io.ReadCloser, size int64, err error) {
	if path == "-" {
		return io.NopCloser(a.stdin), -1, nil
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	info, err := file.Stat()
	if err == nil && info.IsDir() {
		err = fmt.Errorf("%s is a directory: name a file of NDJSON, or - for standard input", path)
	}
	if err != nil {
		return nil, 0, errors.Join(err, file.Close())
	}
	if !info.Mode().IsRegular() {
		return file, -1, nil
	}
	return file, info.Size(), nil
}
