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
		Short:   "Publish events from a file of JSON objects",
		Long: `Publishes events to Kafka, each to the topic of its channel and keyed by its sync_id. The channel is
--channel, or the event's own field "channel". - reads standard input.

The file is NDJSON, one JSON object a line, and the line is the record's value as it is. A JSON array of
objects, or objects that take several lines each, are read as well; there the white space is left out.
Compressed files, UTF-16, CSV and XML are refused as a whole, with what to do.

An object is looked at only as far as it must be addressed; whether it is an event is for the pipeline
to say, which puts what is none into the dead-letter topic. What is no JSON object, or
has no sync_id or no known channel, is named by its line; the others are published all the same,
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
	c.Flags().StringVar(&channel, "channel", "", "publish every event to this channel: "+channels())
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

// How many malformed records are named one by one.
const (
	maxNamed = 100 // in JSON
	maxNoted = 10  // at the terminal
)

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
			}
			if len(result.Malformed) <= maxNoted {
				bar.clear()
				a.note("%s, line %d: %v", path, line, problem)
			}
		},
		Progress: func(p load.Progress) { bar.set(p.Bytes, fmt.Sprintf("%d records", p.Published)) },
	})
	bar.finish()
	err = errors.Join(err, producer.Close())
	var format *load.FormatError
	if errors.As(err, &format) {
		return otherFormat(path, format)
	}
	result.Lines, result.Published, result.MalformedCount = progress.Lines, progress.Published, progress.Malformed
	result.Seconds = rounded(time.Since(began).Seconds())
	result.RecordsPerSecond = rounded(float64(progress.Published) / max(time.Since(began).Seconds(), 1e-3))
	printed := a.print(result, func(out io.Writer) error {
		_, err := fmt.Fprintf(out, "published %d of %d records in %.1f s, %.0f records/s\n", result.Published, progress.Records(), result.Seconds, result.RecordsPerSecond)
		return err
	})
	const again = "events with an event_id or a version are applied once"
	switch {
	case errors.Is(err, context.Canceled):
		err = fmt.Errorf("interrupted after %d records; load the whole file again: %s", progress.Records(), again)
	case errors.Is(err, load.ErrUnreadable):
		err = fmt.Errorf("%s: %w\nmend the file and load the whole of it again: %s", path, err, again)
	case err != nil:
		err = fmt.Errorf("%s: %w\nload the file again when Kafka is well: %s", path, err, again)
	case progress.Malformed > 0:
		named := "mend and load them by themselves"
		if progress.Malformed > maxNoted {
			named = fmt.Sprintf("the first %d are named above", maxNoted)
		}
		err = fmt.Errorf("%s: %d of %d records were not published; %s", path, progress.Malformed, progress.Records(), named)
	}
	return errors.Join(err, printed)
}

// otherFormat is the error of a file that holds no JSON as it is: what it is, and what to do.
func otherFormat(path string, f *load.FormatError) error {
	switch {
	case f.Convert != "" && path == "-":
		return fmt.Errorf("standard input: %w; nothing was published. Put a command in between: … | %s | ordersync load -", f, f.Convert)
	case f.Convert != "":
		return fmt.Errorf("%s: %w; nothing was published. Try: %s %s | ordersync load -", path, f, f.Convert, order.Typed(path))
	case f.Advice != "":
		return fmt.Errorf("%s: %w; nothing was published. Please %s", path, f, f.Advice)
	default:
		return fmt.Errorf("%s: %w; nothing was published", path, f)
	}
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
