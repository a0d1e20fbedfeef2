// Package intake carries records from Kafka to Temporal: it is the starter.
//
//	Kafka partition ── fetch ── decode ─┬─ event ──> lane of its order ── call ──> Temporal
//	      ^                             └─ no event ──> dead letters ──> dead-letter topic
//	      │                                                   │ acknowledged
//	      └────────── commit ──── tracker of offsets <────────┴──────── a record is finished
//
// # What it holds to
//
//   - An offset is committed only when every fetched record below it is finished, that is, durably
//     in Temporal or in the dead-letter topic (tracker).
//   - Events of one order reach Temporal in the order in which they were fetched, one call at a time
//     (lane).
//   - An order that Temporal does not take delays no other, until a bound is reached (lanes).
//   - A backfill goes beside: its events pass a limit of their rate before they enter the lanes, have a
//     small share of the bounds, and are never started eagerly. What waits for the rate is lag in Kafka.
//   - No order has more outstanding in Temporal than its run can hold (credit). What is beyond waits in
//     Kafka, and with it its partition once the bounds are reached.
//   - Everything is bounded: offsets in flight per partition, lanes, bytes, calls. At a bound, and
//     while too many orders are retrying (brake), it stops fetching, so that what waits shows as lag
//     in Kafka.
//
// # How it fails
//
// Events are sent at least once: after a crash, a rebalance or a call that timed out they are sent
// again, and their ids make that harmless. So there is one thing to get right, which is never to
// commit too much, and that is why everything that can finish a record belongs to one generation of
// the consumer group: partitions, trackers, lanes and calls end with it. Calls are cancelled, not
// drained; what is finished is then committed while the coordinator still takes it. A goroutine that
// outlives its generation can only write to a tracker that nobody reads.
//
// Every error is tried again without end, except a single event that Temporal refuses for its size:
// that, and a record that is no event, becomes a dead letter. After half a minute of failing Ready
// says so.
//
// It does not use kafka-go's Reader: that keeps messages over a rebalance and commits offsets of
// partitions it has lost, hands out aborted records, and skips silently what retention has deleted.
package intake

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/segmentio/kafka-go"
	"go.temporal.io/sdk/client"
	"golang.org/x/time/rate"

	"ordersync/internal/order"
	"ordersync/workflows"
)

// Settings of the consumer group, tried against Kafka 4.3.
const (
	heartbeatInterval = time.Second
	sessionTimeout    = 10 * time.Second
	rebalanceTimeout  = 10 * time.Second
	joinBackoff       = 500 * time.Millisecond
	// groupTimeout bounds a request to the coordinator, commits included.
	groupTimeout = 3 * time.Second
	dialTimeout  = 3 * time.Second
	// watchInterval is how soon partitions that were added are read.
	watchInterval = 5 * time.Second
	// metadataTTL is how soon a partition's new leader is found; kafka-go's default is 6 s.
	metadataTTL = time.Second
	// closeTimeout bounds leaving the group: kafka-go cannot leave while it joins.
	closeTimeout = 5 * time.Second
)

// Options configure an Intake.
type Options struct {
	Brokers []string
	// Dialer connects to the group's coordinator; nil is a plain one.
	Dialer *kafka.Dialer
	// Transport connects to the brokers for everything else. It should have a MetadataTTL of about a
	// second and the topics as MetadataTopics; nil is one that has.
	Transport *kafka.Transport
	// Group is the consumer group. A new one begins at the start of the topics.
	Group string
	// Topics are read, each for its channel.
	Topics map[string]order.Channel
	// Backfill are the topics of backfills, which are read beside the others, by the same rules but at
	// a limited rate.
	Backfill map[string]order.Channel
	// BackfillRate is how many of their records are taken a second, at most, by this member of the
	// group; fewer while Temporal is busy. With 0 they are not read, and need not exist.
	BackfillRate int

	// Temporal is the client to call, made with workflows.DataConverter.
	Temporal  client.Client
	TaskQueue string
	// Eager lets a worker of the same client take the first task of an order along with the start.
	Eager bool
	// Settings travel in the input of every order.
	Settings workflows.Settings

	// DeadLetters takes the records that are no events. Its errors are retried without end.
	DeadLetters DeadLetters

	Limits     Limits
	Registerer prometheus.Registerer // nil keeps the metrics to itself; each Intake needs its own
	Logger     *slog.Logger          // nil is slog.Default
}

// DeadLetters is the dead-letter topic.
type DeadLetters interface {
	// DeadLetter returns when all letters are acknowledged.
	DeadLetter(ctx context.Context, letters ...order.DeadLetter) error
}

// Limits bound what is in flight. Zero is the default.
type Limits struct {
	// MaxInFlight bounds the offsets fetched above the committed one, per partition, and so what a
	// restart sends again. Default 10,000.
	MaxInFlight int
	// MaxRetrying is the number of retrying orders above which nothing is fetched. Default 1,000.
	MaxRetrying int
	// MaxLanes bounds the orders with work in flight. Each topic has an equal share. Default 6,000.
	MaxLanes int
	// MaxBytes bounds the records in flight, counted at about twice their size. Each topic has an
	// equal share, of which one record may be in flight whatever its size. Default 24 MiB.
	MaxBytes int
	// MaxCalls bounds the calls to Temporal at a time; more than 64 make the server slower.
	// Default 64.
	MaxCalls int
}

func (l Limits) withDefaults() Limits {
	for _, limit := range []struct {
		value *int
		usual int
	}{{&l.MaxInFlight, 10_000}, {&l.MaxRetrying, 1_000}, {&l.MaxLanes, 6_000}, {&l.MaxBytes, 24 << 20}, {&l.MaxCalls, 64}} {
		if *limit.value <= 0 {
			*limit.value = limit.usual
		}
	}
	return l
}

// Intake is a member of the consumer group.
type Intake struct {
	options   Options
	channels  map[string]order.Channel // of all topics that are read
	topics    []string                 // these, sorted
	transport *kafka.Transport
	client    *kafka.Client
	call      func(ctx context.Context, events []order.Event) error
	brake     *brake
	log       *slog.Logger
	metrics   *metrics
	troubles  *troubles
	pace      *pace
	// buried says which dead letters are logged: a flood of them is told by the metric.
	buried rate.Sometimes

	current atomic.Pointer[generation] // nil before the first
}

// New makes an Intake. It contacts no server; the error is about the options.
func New(o Options) (*Intake, error) {
	var problems []error
	need := func(ok bool, what string) {
		if !ok {
			problems = append(problems, errors.New("intake: "+what))
		}
	}
	need(len(o.Brokers) > 0, "Brokers are missing")
	need(o.Group != "", "Group is missing")
	need(len(o.Topics) > 0, "Topics are missing")
	need(o.Temporal != nil, "Temporal is missing")
	need(o.TaskQueue != "", "TaskQueue is missing")
	need(o.Settings.Rules != 0, "Settings.Rules is missing")
	need(o.DeadLetters != nil, "DeadLetters is missing")
	for topic := range o.Backfill {
		_, both := o.Topics[topic]
		need(!both, "topic "+topic+" is in Topics and in Backfill")
	}
	if len(problems) > 0 {
		return nil, errors.Join(problems...)
	}
	o.Limits = o.Limits.withDefaults()
	if o.BackfillRate <= 0 {
		o.Backfill = nil
	}
	channels := maps.Clone(o.Topics)
	maps.Copy(channels, o.Backfill)
	topics := slices.Sorted(maps.Keys(channels))
	if o.Dialer == nil {
		o.Dialer = &kafka.Dialer{Timeout: dialTimeout, DualStack: true}
	}
	if o.Transport == nil {
		o.Transport = &kafka.Transport{DialTimeout: dialTimeout, MetadataTTL: metadataTTL, MetadataTopics: topics}
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}

	i := &Intake{
		options:   o,
		channels:  channels,
		topics:    topics,
		transport: o.Transport,
		client:    &kafka.Client{Addr: kafka.TCP(o.Brokers...), Transport: o.Transport},
		log:       o.Logger,
		metrics:   newMetrics(o.Registerer),
		troubles:  newTroubles(),
		buried:    rate.Sometimes{First: 100, Interval: time.Second},
	}
	for _, topic := range topics {
		i.metrics.unreadTimes.WithLabelValues(topic) // from 0 on: an alert sees the first
	}
	i.pace = newPace(o.BackfillRate, i.metrics.backfillRate)
	c := &caller{client: o.Temporal, taskQueue: o.TaskQueue, eager: o.Eager, backfill: i.isBackfill, settings: o.Settings, metrics: i.metrics, credit: newCredit(o.Temporal)}
	i.call = c.call
	i.brake = &brake{
		count: i.countRetrying, maxRetrying: int64(o.Limits.MaxRetrying), changed: i.wake,
		log: i.log, metrics: i.metrics, troubles: i.troubles,
	}
	if o.Registerer != nil {
		o.Registerer.MustRegister(collector{i.current.Load})
	}
	return i, nil
}

// isBackfill tells whether a topic is one of a backfill.
func (i *Intake) isBackfill(topic string) bool {
	_, ok := i.options.Backfill[topic]
	return ok
}

// Run is a member of the group until ctx ends. It waits, as long as it takes, for brokers and
// topics. After ctx has ended it cancels the calls, commits what is finished, leaves the group and
// returns, within about 8 s. The error is about the options.
func (i *Intake) Run(ctx context.Context) error {
	working, stop := context.WithCancel(context.WithoutCancel(ctx))
	var background sync.WaitGroup
	defer background.Wait()
	defer stop()
	counted := make(chan struct{})
	background.Go(func() { i.brake.watch(working, func() { close(counted) }) })
	select {
	case <-counted:
	case <-ctx.Done():
		return nil
	}

	if _, err := i.awaitTopics(ctx); err != nil {
		return nil // ctx has ended
	}
	group, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID:                     i.options.Group,
		Brokers:                i.options.Brokers,
		Dialer:                 i.options.Dialer,
		Topics:                 i.topics,
		GroupBalancers:         []kafka.GroupBalancer{kafka.RoundRobinGroupBalancer{}},
		HeartbeatInterval:      heartbeatInterval,
		SessionTimeout:         sessionTimeout,
		RebalanceTimeout:       rebalanceTimeout,
		JoinGroupBackoff:       joinBackoff,
		Timeout:                groupTimeout,
		StartOffset:            kafka.FirstOffset,
		WatchPartitionChanges:  true,
		PartitionWatchInterval: watchInterval,
	})
	if err != nil {
		return fmt.Errorf("intake: consumer group: %w", err)
	}
	// The group closes before its generation ends, not after: a generation that ended by itself would
	// be followed by a join, and kafka-go cannot leave while it joins.
	closed := make(chan struct{})
	context.AfterFunc(ctx, func() {
		_ = group.Close() // it has no error
		close(closed)
	})
	i.follow(ctx, working, group)
	select {
	case <-closed:
	case <-time.After(closeTimeout):
		i.log.Warn("the group was not left in time; its other members take over when the session ends")
	}
	return nil
}

// follow takes part in generation after generation until ctx ends. A generation ends with the group,
// at the latest with working.
func (i *Intake) follow(ctx, working context.Context, group *kafka.ConsumerGroup) {
	const what = "joining the group"
	for {
		partitions, err := i.awaitTopics(ctx)
		if err != nil {
			return
		}
		assigned, err := group.Next(ctx)
		if ctx.Err() != nil || errors.Is(err, kafka.ErrGroupClosed) {
			return
		}
		if err != nil {
			// kafka-go tries again by itself, after joinBackoff.
			if i.troubles.begin(what, what, err) {
				i.log.Warn("the group was not joined, which is tried again", "error", err)
			}
			continue
		}
		i.troubles.over(what)
		i.serve(working, assigned, partitions)
		i.troubles.begin(what, what, errors.New("the last generation has ended, the next has not begun"))
	}
}

// serve runs one generation, inside kafka-go's account of it: only there are commits after its end
// still taken.
func (i *Intake) serve(working context.Context, assigned *kafka.Generation, partitions map[string][]int) {
	ended := make(chan struct{})
	assigned.Start(func(generationCtx context.Context) {
		defer close(ended)
		generationCtx, cancel := context.WithCancel(generationCtx)
		defer cancel()
		defer context.AfterFunc(working, cancel)()
		g := i.newGeneration(generationCtx, assigned, partitions)
		i.current.Store(g)
		i.metrics.generations.Inc()
		g.log.Info("a generation begins", "partitions", len(g.partitions))
		g.run(generationCtx)
		g.log.Info("the generation has ended")
	})
	<-ended
}

// wake lets the current generation look at its bounds again.
func (i *Intake) wake() {
	if g := i.current.Load(); g != nil {
		g.lanes.wake()
	}
}

// Ready is nil while the intake does its work: it is a member of the group, or about to be one
// again, and nothing has failed for longer than half a minute.
func (i *Intake) Ready() error {
	if i.current.Load() == nil {
		return errors.New("intake: waiting for Kafka: the group has not been joined yet")
	}
	if err := i.troubles.lasting(); err != nil {
		return fmt.Errorf("intake: %w", err)
	}
	return nil
}
