package settle

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"

	"ordersync/internal/connect"
	"ordersync/internal/deadletter"
	"ordersync/internal/devstack/devtest"
	"ordersync/internal/intake"
	"ordersync/internal/order"
	"ordersync/internal/publish"
	"ordersync/internal/target"
	"ordersync/internal/topics"
	"ordersync/workflows"
)

func TestMain(m *testing.M) { devtest.Main(m) }

// bench is a broker and a target, and the test in the place of the pipeline between them.
type bench struct {
	t        *testing.T
	topic    string
	producer *publish.Producer
	target   *target.Target
	options  Options
	blocked  map[string]bool
}

func setup(t *testing.T) *bench {
	t.Helper()
	brokers := devtest.Kafka(t)
	b := &bench{t: t, topic: devtest.Name(t, "events"), blocked: map[string]bool{}}
	letters := b.topic + ".dead-letter"
	kafkaClient := kafka.Client{Addr: kafka.TCP(brokers...)}
	created, err := kafkaClient.CreateTopics(t.Context(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{
		{Topic: b.topic, NumPartitions: 3, ReplicationFactor: 1}, {Topic: letters, NumPartitions: 2, ReplicationFactor: 1},
	}})
	require.NoError(t, err)
	require.NoError(t, errors.Join(slices.Collect(maps.Values(created.Errors))...))

	transport := &kafka.Transport{MetadataTTL: time.Second, MetadataTopics: []string{b.topic, letters}}
	t.Cleanup(transport.CloseIdleConnections)
	b.producer = publish.New(publish.Options{Brokers: brokers, Transport: transport, DeadLetterTopic: letters})
	t.Cleanup(func() { assert.NoError(t, b.producer.Close()) })
	b.target, err = target.Open(devtest.MySQL(t), target.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, b.target.Close()) })
	require.NoError(t, b.target.Migrate(t.Context()))
	b.options = Options{
		Brokers: brokers, Transport: transport, Topics: map[string]order.Channel{b.topic: order.Online},
		DeadLetterTopic: letters, Target: b.target,
		Blocked: func(context.Context) (map[string]bool, error) { return b.blocked, nil },
	}
	return b
}

// publish writes values, and gives the records as they stand in Kafka.
func (b *bench) publish(keysAndValues ...[2]string) []kafka.Message {
	b.t.Helper()
	var messages []kafka.Message
	for _, kv := range keysAndValues {
		messages = append(messages, kafka.Message{Topic: b.topic, Key: []byte(kv[0]), Value: []byte(kv[1])})
	}
	require.NoError(b.t, b.producer.Publish(b.t.Context(), messages...))
	var records []kafka.Message
	r := topics.Reader{Brokers: b.options.Brokers, Transport: b.options.Transport}
	spans, err := r.Spans(b.t.Context(), b.topic, time.Time{})
	require.NoError(b.t, err)
	for _, s := range spans {
		require.NoError(b.t, r.Read(b.t.Context(), s, func(m kafka.Message) error { records = append(records, m); return nil }))
	}
	return records
}

func (b *bench) decode(m kafka.Message) (order.Event, error) {
	return order.Decode(order.Record{Topic: m.Topic, Partition: m.Partition, Offset: m.Offset, Timestamp: m.Time, Value: m.Value}, order.Online)
}

// wait is Wait, given up when it should long have ended.
func (b *bench) wait() (Summary, error) {
	ctx, cancel := context.WithTimeout(b.t.Context(), 30*time.Second)
	defer cancel()
	return Wait(ctx, b.options)
}

func (b *bench) letter(m kafka.Message) {
	b.t.Helper()
	require.NoError(b.t, b.producer.DeadLetter(b.t.Context(), order.DeadLetter{
		Source: order.Source{Topic: m.Topic, Partition: m.Partition, Offset: m.Offset, ReceivedAt: m.Time},
		Key:    m.Key, Value: m.Value, Reason: order.MalformedJSON, Detail: "test",
	}))
}

func creation(id int) [2]string {
	return [2]string{fmt.Sprint(id), fmt.Sprintf(`{"sync_id":%d,"event":"order_creation","version":1,"data":{"n":%d}}`, id, id)}
}

// Everything published is settled in one of the three ways, and Wait says how much in which.
func TestWait(t *testing.T) {
	b := setup(t)
	var all [][2]string
	for id := range 20 {
		all = append(all, creation(id))
	}
	all = append(all, creation(7), [2]string{"x", "not JSON"}, [2]string{"8", `{"sync_id":8,"event":"invoice_creation","version":2,"data":1}`})
	var stuck, bad kafka.Message
	for _, m := range b.publish(all...) {
		e, err := b.decode(m)
		switch {
		case err != nil:
			bad = m
		case e.SyncID == "3":
			stuck = m
		default:
			_, err := b.target.Apply(t.Context(), order.Step{Event: e})
			require.NoError(t, err)
		}
	}

	// One event is missing, one record has no dead letter.
	given, giveUp := context.WithCancelCause(t.Context())
	defer giveUp(nil)
	b.options.Progress = func(p Progress) {
		if !p.Reading && p.Done == 20 {
			giveUp(errors.New("the time is up"))
		}
	}
	s, err := Wait(given, b.options)
	require.EqualError(t, err, "the time is up")
	require.Len(t, s.Waiting, 2)
	assert.Equal(t, 2, s.Outstanding)
	assert.ElementsMatch(t, []string{"3", ""}, []string{s.Waiting[0].SyncID, s.Waiting[1].SyncID})

	// While Wait runs, the order turns out to be blocked and the dead letter comes.
	var most Progress
	b.options.Progress = func(p Progress) { most = p }
	done := make(chan struct{})
	go func() {
		defer close(done)
		s, err = b.wait()
	}()
	b.letter(bad)
	e, decodeErr := b.decode(stuck)
	require.NoError(t, decodeErr)
	_, applyErr := b.target.Apply(t.Context(), order.Step{Event: e})
	require.NoError(t, applyErr)
	<-done
	require.NoError(t, err)
	assert.Equal(t, Progress{Done: 22, Total: 22}, most)
	assert.Equal(t, 23, s.Events)
	assert.Equal(t, 1, s.Duplicates)
	assert.Equal(t, 21, s.Applied)
	assert.Equal(t, 1, s.DeadLetters)
	assert.Equal(t, 20, s.Orders)
	assert.Equal(t, 1, s.Invoices)
	assert.Zero(t, s.Outstanding)
}

func TestWaitStopsAtBlockedOrders(t *testing.T) {
	b := setup(t)
	b.publish(creation(1), creation(2))
	b.blocked["1"] = true
	b.options.Blocked = func(context.Context) (map[string]bool, error) {
		// The second order gets blocked while Wait waits for it.
		defer func() { b.blocked["2"] = true }()
		return maps.Clone(b.blocked), nil
	}
	s, err := b.wait()
	require.NoError(t, err)
	assert.Equal(t, 2, s.Blocked)
	assert.Equal(t, 2, s.BlockedOrders)
	assert.Empty(t, s.Waiting)
}

func TestWaitGivenUpWhileReading(t *testing.T) {
	b := setup(t)
	b.publish(creation(1))
	given, giveUp := context.WithCancelCause(t.Context())
	giveUp(errors.New("the time is up"))
	_, err := Wait(given, b.options)
	require.ErrorIs(t, err, ErrReading)
	require.ErrorContains(t, err, "the time is up")
}

func TestWaitOfNothing(t *testing.T) {
	b := setup(t)
	s, err := b.wait()
	require.NoError(t, err)
	assert.Equal(t, Summary{Waiting: []Waiting{}, UnwellOrders: []UnwellOrder{}}, s)
}

// What a backfill has published counts too, and its dead letters; how long it took says nothing.
func TestWaitCountsBackfills(t *testing.T) {
	b := setup(t)
	b.options.Backfill = map[string]order.Channel{b.topic: order.Store, b.topic + ".missing": order.Online}
	b.options.Topics = map[string]order.Channel{}
	var bad kafka.Message
	for _, m := range b.publish(creation(1), creation(2), [2]string{"x", "not JSON"}) {
		if _, err := b.decode(m); err != nil {
			bad = m
		}
	}
	given, giveUp := context.WithCancelCause(t.Context())
	defer giveUp(nil)
	b.options.Progress = func(p Progress) {
		if !p.Reading {
			giveUp(errors.New("the time is up"))
		}
	}
	s, err := Wait(given, b.options)
	require.EqualError(t, err, "the time is up")
	require.Equal(t, 3, s.Outstanding)

	b.letter(bad)
	for _, m := range b.publish() {
		if e, err := b.decode(m); err == nil {
			_, err = b.target.Apply(t.Context(), order.Step{Event: e})
			require.NoError(t, err)
		}
	}
	b.options.Progress = nil
	s, err = b.wait()
	require.NoError(t, err)
	assert.Equal(t, 2, s.Applied)
	assert.Equal(t, 1, s.DeadLetters)
	assert.Zero(t, s.P99)
}

// A letter settles what it stands for until it is sent again as it was: then its event is under way. What was
// sent with a corrected value is another event.
func TestWaitForReplayedLetters(t *testing.T) {
	b := setup(t)
	temporal, err := connect.Temporal(t.Context(), client.Options{
		HostPort: devtest.Temporal(t), DataConverter: workflows.DataConverter(), Logger: slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	t.Cleanup(temporal.Close)
	var replayed order.Event
	for _, m := range b.publish(creation(1), creation(2), creation(3)) {
		b.letter(m)
		if e, err := b.decode(m); assert.NoError(t, err) && e.SyncID == "2" {
			replayed = e
		}
	}
	letters := deadletter.Topic{
		Name: b.options.DeadLetterTopic, Target: b.target,
		Reader: topics.Reader{Brokers: b.options.Brokers, Transport: b.options.Transport},
	}
	replay := deadletter.Replay{
		Topic: letters, Channels: b.options.Topics, Temporal: temporal,
		// No worker takes from this queue.
		Sender: intake.NewSender(temporal, devtest.Name(t, "queue"), workflows.Settings{Rules: workflows.Rules, HoldWindow: time.Minute, IdleTimeout: time.Hour}),
	}
	of := func(syncID string) deadletter.Filter { return deadletter.Filter{Orders: []string{syncID}} }
	discarded, err := letters.Discard(t.Context(), of("1"), replay.Who, nil)
	require.NoError(t, err)
	require.Equal(t, 1, discarded.Discarded)
	sent, err := replay.Run(t.Context(), of("2"))
	require.NoError(t, err)
	require.Equal(t, 1, sent.Sent)
	replay.Value = []byte(`{"sync_id":3,"event":"order_creation","version":2,"data":{}}`)
	sent, err = replay.Run(t.Context(), of("3"))
	require.NoError(t, err)
	require.Equal(t, 1, sent.Sent)

	given, giveUp := context.WithCancelCause(t.Context())
	defer giveUp(nil)
	b.options.Progress = func(p Progress) {
		if !p.Reading && p.Done == 2 {
			giveUp(errors.New("the time is up"))
		}
	}
	s, err := Wait(given, b.options)
	require.EqualError(t, err, "the time is up")
	assert.Equal(t, 2, s.DeadLetters)
	require.Len(t, s.Waiting, 1)
	assert.Equal(t, "2", s.Waiting[0].SyncID)

	_, err = b.target.Apply(t.Context(), order.Step{Event: replayed})
	require.NoError(t, err)
	b.options.Progress = nil
	s, err = b.wait()
	require.NoError(t, err)
	assert.Equal(t, 1, s.Applied)
	assert.Equal(t, 2, s.DeadLetters)
}

func TestWaitSaysWhichTopicIsMissing(t *testing.T) {
	b := setup(t)
	b.options.Topics["nowhere"] = order.Store
	_, err := b.wait()
	require.ErrorContains(t, err, "topic nowhere does not exist; create it with `ordersync setup`")
}

// Two events of one event_id are not settled by one row, but by the row of the one and the letter of the other.
func TestWaitForAnIdentityConflict(t *testing.T) {
	b := setup(t)
	var refused kafka.Message
	for _, m := range b.publish(
		[2]string{"1", `{"sync_id":1,"event_id":"guid","event":"order_creation","version":1,"data":{}}`},
		[2]string{"1", `{"sync_id":1,"event_id":"guid","event":"order_updation","version":2,"data":{}}`},
	) {
		e, err := b.decode(m)
		require.NoError(t, err)
		result, err := b.target.Apply(t.Context(), order.Step{Event: e})
		require.NoError(t, err)
		if result.Outcome == order.Conflict {
			refused = m
		}
	}
	require.NotNil(t, refused.Value)
	given, giveUp := context.WithCancelCause(t.Context())
	defer giveUp(nil)
	b.options.Progress = func(p Progress) {
		if !p.Reading && p.Done == 1 {
			giveUp(errors.New("the time is up"))
		}
	}
	s, err := Wait(given, b.options)
	require.EqualError(t, err, "the time is up")
	require.Len(t, s.Waiting, 1)
	assert.Equal(t, order.Update, s.Waiting[0].Kind)

	b.letter(refused)
	b.options.Progress = nil
	s, err = b.wait()
	require.NoError(t, err)
	assert.Equal(t, 1, s.Applied)
	assert.Equal(t, 1, s.DeadLetters)
	assert.Zero(t, s.Duplicates)
}

// An invoice that was applied when its id came from its version alone is in the ledger under that id.
func TestWaitForAnInvoiceOfAFormerID(t *testing.T) {
	b := setup(t)
	for _, m := range b.publish(creation(1), [2]string{"1", `{"sync_id":1,"event":"invoice_creation","version":2,"data":{"number":"R1"}}`}) {
		e, err := b.decode(m)
		require.NoError(t, err)
		if e.Kind == order.Invoice {
			e.ID, e.Digest = e.Alias().ID, ""
		}
		_, err = b.target.Apply(t.Context(), order.Step{Event: e})
		require.NoError(t, err)
	}
	s, err := b.wait()
	require.NoError(t, err)
	assert.Equal(t, 2, s.Applied)
}
