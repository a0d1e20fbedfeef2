package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"

	"ordersync/internal/config"
	"ordersync/internal/devstack"
	"ordersync/internal/load"
	"ordersync/internal/order"
	"ordersync/internal/pod"
	"ordersync/internal/publish"
	"ordersync/internal/simulate"
	"ordersync/internal/target"
)

// trial is one load under measurement, on topics, group, schema and task queue of its own.
type trial struct {
	options
	stack  *devstack.Stack
	log    *slog.Logger
	name   string
	beside bool // with a backfill
	seed   uint64

	cfg      config.Config
	target   *target.Target
	producer *publish.Producer
	waiting  int // events of the backfill
}

// measurement is what a trial saw while the clock ran.
type measurement struct {
	events     int // of new orders
	p50, p99   time.Duration
	backfilled float64 // events of the backfill a second
}

const (
	// simulatedPace is how many orders a second the simulation has.
	simulatedPace = 1.0 / 20
	// callRecords is the number of records that are published together.
	callRecords = 1000
	// lookEvery is how often the ledger is asked whether it has everything, and settleTime how long it
	// may take to have.
	lookEvery  = 200 * time.Millisecond
	settleTime = 2 * time.Minute
)

// otherSeeds keeps the backfill's orders apart from the new ones.
const otherSeeds = 1000

func (t *trial) run(ctx context.Context) (m measurement, err error) {
	if err := t.prepare(ctx); err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, t.target.Close(), t.producer.Close()) }()
	if t.beside {
		if err := t.backfill(ctx); err != nil {
			return m, err
		}
	}
	// The pipeline also stops where it fails, and the load with it.
	running, end := context.WithCancelCause(ctx)
	ready, ended := make(chan struct{}), make(chan error, 1)
	go func() {
		err := pod.RunBoth(running, t.cfg, t.log, pod.OnReady(func() { close(ready) }))
		end(errors.Join(errors.New("the pipeline has ended"), err))
		ended <- err
	}()
	defer func() {
		end(nil)
		err = errors.Join(err, <-ended)
	}()
	select {
	case <-ready:
	case <-running.Done():
		return m, context.Cause(running)
	}
	return t.measure(running)
}

func (t *trial) prepare(ctx context.Context) (err error) {
	dsn, err := t.stack.MySQL().CreateSchema(ctx, t.name)
	if err != nil {
		return err
	}
	var pairs []string
	for _, channel := range order.Channels {
		pairs = append(pairs, fmt.Sprintf("%s=%s.%s", channel, t.name, channel))
	}
	environ := map[string]string{
		"KAFKA_BROKERS":           strings.Join(t.stack.KafkaBrokers(), ","),
		"KAFKA_GROUP":             t.name,
		"KAFKA_TOPICS":            strings.Join(pairs, ","),
		"KAFKA_DEAD_LETTER_TOPIC": t.name + ".dead-letter",
		"TEMPORAL_ADDRESS":        t.stack.TemporalAddress(),
		"TEMPORAL_TASK_QUEUE":     t.name,
		"MYSQL_DSN":               dsn,
		"EAGER_START":             "true",
		"HTTP_ADDRESS":            config.NoServer,
	}
	if t.rate > 0 {
		environ["BACKFILL_RATE"] = strconv.Itoa(t.rate)
	}
	if t.cfg, err = config.Load(environ); err != nil {
		return err
	}
	if _, err := pod.Setup(ctx, t.cfg, t.log, pod.SetupOptions{}); err != nil {
		return err
	}
	if t.target, err = pod.OpenTarget(t.cfg, t.log); err != nil {
		return err
	}
	t.producer = pod.NewProducer(t.cfg, pod.KafkaTransport(t.cfg))
	return nil
}

// messages are events as records. Their orders are named after the trial, as all share the workflow
// ids of one Temporal, and some are open for long after their trial.
func (t *trial) messages(events []order.Event, topics map[order.Channel]string) ([]kafka.Message, error) {
	all := make([]kafka.Message, len(events))
	for i, e := range events {
		e.SyncID = strconv.Quote(t.name + "-" + e.SyncID)
		line, err := simulate.Line(e)
		if err != nil {
			return nil, err
		}
		if all[i], err = load.Message(line, topics, ""); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// backfill publishes the past.
func (t *trial) backfill(ctx context.Context) error {
	all, err := t.messages(slices.Collect(simulate.Orders(t.seed+otherSeeds, t.orders, simulate.Options{})), t.cfg.Kafka.BackfillTopics().ByChannel())
	if err != nil {
		return err
	}
	t.waiting = len(all)
	for page := range slices.Chunk(all, callRecords) {
		if err := t.producer.Publish(ctx, page...); err != nil {
			return err
		}
	}
	return nil
}

// measure publishes new orders as they happen and looks how long each of their events took.
func (t *trial) measure(ctx context.Context) (measurement, error) {
	began := time.Now()
	published, err := t.load(ctx, began)
	if err != nil {
		return measurement{}, err
	}
	if err := t.settle(ctx, published); err != nil {
		return measurement{}, err
	}
	from := began.Add(t.warmUp)
	return t.look(ctx, from, from.Add(t.length))
}

// load publishes from began on, for as long as is measured, and tells how many events that were.
func (t *trial) load(ctx context.Context, began time.Time) (published int, err error) {
	end := t.warmUp + t.length
	topics := t.cfg.Kafka.Topics.ByChannel()
	enough := int(2*t.live*end.Seconds()) + 1000 // orders; those that come after the end are not published
	next, stop := iter.Pull(simulate.Orders(t.seed, enough, simulate.Options{}))
	defer stop()
	e, _ := next()
	first := e.OccurredAt
	due := func() time.Duration {
		return time.Duration(float64(e.OccurredAt.Sub(first)) * simulatedPace / t.live)
	}
	for due() < end {
		var events []order.Event
		for ; due() <= time.Since(began); e, _ = next() {
			events = append(events, e)
		}
		records, err := t.messages(events, topics)
		if err != nil {
			return published, err
		}
		if err := t.producer.Publish(ctx, records...); err != nil {
			return published, err
		}
		published += len(records)
		select {
		case <-time.After(time.Until(began.Add(due()))):
		case <-ctx.Done():
			return published, context.Cause(ctx)
		}
	}
	return published, nil
}

// The ledger's rows of both kinds.
const (
	newOnes  = ` source_topic NOT LIKE '%.backfill' `
	pastOnes = ` source_topic LIKE '%.backfill' `
)

// settle waits until the ledger has all events of new orders.
func (t *trial) settle(ctx context.Context, published int) error {
	ctx, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		var n int
		err := t.target.DB().QueryRowContext(ctx, `SELECT COUNT(*) FROM order_events WHERE`+newOnes).Scan(&n)
		switch {
		case err != nil && ctx.Err() == nil:
			return err
		case err == nil && n == published:
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: the ledger has %d of %d events of new orders", context.Cause(ctx), n, published)
		}
	}
}

// look reads the measurement in the ledger.
func (t *trial) look(ctx context.Context, from, to time.Time) (m measurement, err error) {
	db := t.target.DB()
	rows, err := db.QueryContext(ctx, `SELECT TIMESTAMPDIFF(MICROSECOND, received_at, applied_at) FROM order_events WHERE`+newOnes+
		`AND received_at >= ? AND received_at < ?`, from.UTC(), to.UTC())
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	var all []time.Duration
	for rows.Next() {
		var micros int64
		if err := rows.Scan(&micros); err != nil {
			return m, err
		}
		all = append(all, time.Duration(micros)*time.Microsecond)
	}
	if err := rows.Err(); err != nil {
		return m, err
	}
	if len(all) == 0 {
		return m, errors.New("no event came while the clock ran")
	}
	slices.Sort(all)
	m.events, m.p50, m.p99 = len(all), percentile(all, 50), percentile(all, 99)

	var during, after int
	if err := db.QueryRowContext(ctx, `SELECT COUNT(*) FROM order_events WHERE`+pastOnes+`AND applied_at >= ? AND applied_at < ?`, from.UTC(), to.UTC()).
		Scan(&during); err != nil {
		return m, err
	}
	m.backfilled = float64(during) / t.length.Seconds()
	if !t.beside {
		return m, nil
	}
	if err := db.QueryRowContext(ctx, `SELECT COUNT(*) FROM order_events WHERE`+pastOnes).Scan(&after); err != nil {
		return m, err
	}
	if after >= t.waiting {
		return m, errors.New("the backfill came to its end while the clock ran: give it more -orders, or less time")
	}
	return m, nil
}

// percentile is the nearest-rank one of sorted values.
func percentile(sorted []time.Duration, p int) time.Duration {
	return sorted[max((len(sorted)*p+99)/100, 1)-1]
}
