// Command poll measures how fast an ERP's changes come to Kafka: a source is polled to its end into
// embedded Kafka, as a worker does it, with nothing else running on the machine.
//
//	publish    the baseline: the same records published page by page, with nobody reading them from anywhere
//	mysql      an ERP's table in MariaDB
//	postgres   the same table in PostgreSQL, if it is installed
//	http       an ERP that answers with JSON, in this process
//	… anew     the same without a cursor: the ledger, which is empty, is asked for every row
//
// The events are simulated orders of three events each. Everything shares the machine, the sources' servers
// as well, so the ratios to the baseline of the same run say more than the rates.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/segmentio/kafka-go"

	"ordersync/bench/rig"
	"ordersync/internal/devstack"
	"ordersync/internal/erp"
	"ordersync/internal/order"
	"ordersync/internal/poll"
	"ordersync/internal/publish"
	"ordersync/internal/simulate"
	"ordersync/internal/target"
)

func main() { rig.Main("poll", &options{}) }

// options are those of the command line.
type options struct {
	rows, pageSize, rounds int
	atLeast                float64
	only, cpuProfile       string
}

// Define implements rig.Benchmark.
func (o *options) Define(flags *flag.FlagSet) {
	flags.IntVar(&o.rows, "rows", 100_000, "rows of the ERP")
	flags.IntVar(&o.pageSize, "page-size", 1000, "rows of a page")
	flags.IntVar(&o.rounds, "rounds", 3, "rounds, in each of which all take turns; the table shows their medians")
	flags.Float64Var(&o.atLeast, "at-least", 0, "fail if a source with a cursor makes fewer rows/s")
	flags.StringVar(&o.only, "only", "", "measure only the systems whose name begins so, and the baseline")
	flags.StringVar(&o.cpuProfile, "cpuprofile", "", "write a CPU profile of the last round to this `file`")
}

// Check implements rig.Benchmark.
func (o *options) Check() error {
	if o.rows < 3 || o.pageSize < 1 || o.rounds < 1 {
		return errors.New("-rows must be at least 3, -page-size and -rounds at least 1")
	}
	return nil
}

// Run implements rig.Benchmark.
func (o *options) Run(ctx context.Context, r *rig.Run) (err error) {
	b := &bench{Run: r, options: *o}
	defer func() { err = errors.Join(err, b.close(context.WithoutCancel(ctx))) }()
	if err := b.prepare(ctx); err != nil {
		return err
	}
	rates, err := b.measureAll(ctx)
	if err != nil {
		return err
	}
	return b.report(rates)
}

// bench is the servers, and what they hold.
type bench struct {
	*rig.Run
	options

	kafka    *devstack.Kafka
	ledger   *target.Target
	events   []order.Event
	messages []kafka.Message // of the baseline, without their topics
	systems  []system
	closers  []func(context.Context) error
}

// system is something that is measured.
type system struct {
	name   string
	source erp.Source // nil for the baseline
	anew   bool
}

func (b *bench) later(undo func(context.Context) error) { b.closers = append(b.closers, undo) }

func (b *bench) close(ctx context.Context) error {
	var problems []error
	for _, undo := range slices.Backward(b.closers) {
		problems = append(problems, undo(ctx))
	}
	return errors.Join(problems...)
}

// prepare starts the servers and fills the sources.
func (b *bench) prepare(ctx context.Context) (err error) {
	b.Say("starting Kafka, MySQL and, if there is one, PostgreSQL")
	if b.kafka, err = devstack.StartKafka(ctx, devstack.KafkaOptions{Dir: b.Dir, Logger: b.Log}); err != nil {
		return err
	}
	b.later(b.kafka.Stop)
	updates := 1
	b.events = slices.Collect(simulate.Orders(1, (b.rows+2)/3, simulate.Options{Updates: &updates}))
	b.events = b.events[:min(b.rows, len(b.events))]
	for _, e := range b.events {
		value, err := e.Message()
		if err != nil {
			return err
		}
		b.messages = append(b.messages, kafka.Message{Key: []byte(e.SyncID), Value: value})
	}
	b.systems = []system{{name: "publish"}}
	for _, open := range []func(context.Context) (string, erp.Source, error){b.openMySQL, b.openPostgres, b.openHTTP} {
		name, source, err := open(ctx)
		if errors.Is(err, devstack.ErrMissing) {
			b.Say("left out: %v", err)
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		b.later(func(context.Context) error { return source.Close() })
		b.systems = append(b.systems, system{name: name, source: source}, system{name: name + " anew", source: source, anew: true})
	}
	b.systems = slices.DeleteFunc(b.systems, func(s system) bool { return s.source != nil && !strings.HasPrefix(s.name, b.only) })
	return nil
}

// measureAll gives the rows/s of each system in each round.
func (b *bench) measureAll(ctx context.Context) (map[string][]float64, error) {
	rates := map[string][]float64{}
	for round := range b.rounds + 1 { // the first one warms up
		if round == b.rounds && b.cpuProfile != "" {
			file, err := os.Create(b.cpuProfile)
			if err != nil {
				return nil, err
			}
			defer file.Close()
			if err := pprof.StartCPUProfile(file); err != nil {
				return nil, err
			}
			defer pprof.StopCPUProfile()
		}
		for i := range b.systems {
			s := b.systems[(i+round)%len(b.systems)]
			took, err := b.measure(ctx, s, fmt.Sprintf("%d-%d", round, i))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", s.name, err)
			}
			rate := float64(len(b.events)) / took.Seconds()
			if round > 0 {
				rates[s.name] = append(rates[s.name], rate)
				b.Say("round %d of %d: %-13s %8.0f rows/s", round, b.rounds, s.name, rate)
			}
		}
	}
	return rates, nil
}

// measure lets a system bring everything to topics of its own.
func (b *bench) measure(ctx context.Context, s system, name string) (time.Duration, error) {
	topics := map[order.Channel]string{}
	var wanted []kafka.TopicConfig
	for _, channel := range order.Channels {
		topics[channel] = name + "." + string(channel)
		wanted = append(wanted, kafka.TopicConfig{Topic: topics[channel], NumPartitions: 6, ReplicationFactor: 1})
	}
	client := &kafka.Client{Addr: kafka.TCP(b.kafka.Brokers()...)}
	if _, err := client.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: wanted}); err != nil {
		return 0, err
	}
	producer := publish.New(publish.Options{Brokers: b.kafka.Brokers(), DeadLetterTopic: "dead-letter"})
	defer func() {
		_ = producer.Close() // everything is acknowledged
		var names []string
		for _, topic := range topics {
			names = append(names, topic)
		}
		_, _ = client.DeleteTopics(ctx, &kafka.DeleteTopicsRequest{Topics: names}) // only to spare memory
	}()
	if s.source == nil {
		for i := range b.messages {
			b.messages[i].Topic = topics[b.events[i].Channel]
		}
		began := time.Now()
		for page := range slices.Chunk(b.messages, b.pageSize) {
			if err := producer.Publish(ctx, page...); err != nil {
				return 0, err
			}
		}
		return time.Since(began), nil
	}
	p := poll.New(poll.Options{Source: s.source, Producer: producer, Ledger: b.ledger, Topics: topics, Logger: b.Log, Stretch: time.Hour})
	task := order.PollTask{PageSize: b.pageSize, State: order.PollState{Anew: s.anew, StartedAt: time.Now()}}
	began := time.Now()
	state, err := p.Poll(ctx, task, func(order.PollState) bool { return true })
	took := time.Since(began)
	if err == nil && state.Published != int64(len(b.events)) {
		err = fmt.Errorf("of %d rows %d were published: %+v", len(b.events), state.Published, state)
	}
	return took, err
}

// report prints the medians, and fails if a source is too slow.
func (b *bench) report(rates map[string][]float64) error {
	median := func(name string) float64 {
		return rig.Median(rates[name], func(rate float64) float64 { return rate })
	}
	var slow error
	t := tabwriter.NewWriter(b.Result, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "\trows/s\tof publish\t\n")
	for _, s := range b.systems {
		rate := median(s.name)
		fmt.Fprintf(t, "%s\t%.0f\t%.2f\t\n", s.name, rate, rate/median("publish"))
		if s.source != nil && !s.anew && rate < b.atLeast {
			slow = errors.Join(slow, fmt.Errorf("%s: %.0f rows/s are fewer than %.0f", s.name, rate, b.atLeast))
		}
	}
	return errors.Join(t.Flush(), slow)
}

// queries writes the one query that an SQL source reads, and names its directory.
func (b *bench) queries() (string, error) {
	dir := filepath.Join(b.Dir, "queries")
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return "", err
	}
	const query = `SELECT id, changed_at, sync_id, event, version, event_id, channel, occurred_at, data FROM changes`
	return dir, os.WriteFile(filepath.Join(dir, "changes.sql"), []byte(query), 0o600)
}
