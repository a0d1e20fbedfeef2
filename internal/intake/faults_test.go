package intake

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"ordersync/internal/devstack/devtest"
	"ordersync/internal/order"
	"ordersync/workflows"
)

// holding lets no call begin before the channel is closed.
func (b *bundle) holding(until <-chan struct{}) func(*Intake) {
	return func(i *Intake) {
		call := i.call
		i.call = func(ctx context.Context, events []order.Event) error {
			select {
			case <-until:
				return call(ctx, events)
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

func (m *member) inFlight() int {
	g := m.current.Load()
	if g == nil {
		return 0
	}
	n := 0
	for _, p := range g.partitions {
		if t := p.tracker.Load(); t != nil {
			n += t.standing().unfinished
		}
	}
	return n
}

func (b *bundle) awaitInFlight(m *member, want int) {
	b.t.Helper()
	devtest.Eventually(b.t, 30*time.Second, func() error {
		if n := m.inFlight(); n != want {
			return fmt.Errorf("%d are in flight", n)
		}
		return nil
	}, fmt.Sprintf("%d records in flight", want))
}

func TestWaitsForItsTopics(t *testing.T) {
	b := setup(t, "online", "store")
	id := b.syncID(1)
	b.publish(message("online", id, order.Creation, 1))
	m := b.run(b.options())
	require.ErrorContains(t, m.awaitTrouble(t, "look-up of topics"), "topics are missing: international")
	require.Error(t, m.Ready())
	b.createTopic("international", 1)
	b.awaitVersions(id, 1)
	require.NoError(t, m.Ready())
}

func TestStopsPromptlyWithCallsUnderWay(t *testing.T) {
	b := setup(t)
	id := b.syncID(1)
	b.publish(message("online", id, order.Creation, 1))
	m := b.run(b.options(), b.holding(nil))
	b.awaitInFlight(m, 1)
	began := time.Now()
	m.stop()
	require.Less(t, time.Since(began), 5*time.Second)
	require.Zero(t, b.committed("online", home(id)), "it is unfinished")

	b.run(b.options())
	b.awaitVersions(id, 1)
}

func TestStopsPromptlyWhileNothingIsThere(t *testing.T) {
	b := setup(t, "online")
	m := b.run(b.options())
	began := time.Now()
	m.stop()
	require.Less(t, time.Since(began), 8*time.Second)
}

// A dead letter that is not acknowledged holds its own offset back and nothing else.
func TestDeadLetterTopicAway(t *testing.T) {
	b := setup(t)
	one, other := b.syncID(1), b.syncID(2)
	for n := 3; home(other) == home(one); n++ {
		other = b.syncID(n)
	}
	var away atomic.Bool
	away.Store(true)
	b.publish(
		kafka.Message{Topic: "online", Key: []byte(one), Value: []byte("bad")},
		message("online", one, order.Creation, 1),
		message("online", other, order.Creation, 1),
	)
	b.cluster.ControlKey(int16(kmsg.Produce), func(request kmsg.Request) (kmsg.Response, error, bool) {
		b.cluster.KeepControl()
		if !away.Load() {
			return nil, nil, false
		}
		return nil, errors.New("the connection is cut"), true
	})
	b.run(b.options())
	b.awaitVersions(one, 1)
	b.awaitVersions(other, 1)
	b.awaitCommitted("online", home(other), 1)
	b.awaitCommitted("online", home(one), 0)
	away.Store(false)
	b.awaitCommitted("online", home(one), 2)
	require.Len(t, slices.DeleteFunc(b.buried(), func(m kafka.Message) bool { return string(m.Value) != "bad" }), 1)
}

// refuse answers the next n requests of a kind with an error of Kafka's.
func (b *bundle) refuse(key kmsg.Key, n int, answer func(kmsg.Request) kmsg.Response) *atomic.Int64 {
	var left atomic.Int64
	left.Store(int64(n))
	b.cluster.ControlKey(int16(key), func(request kmsg.Request) (kmsg.Response, error, bool) {
		b.cluster.KeepControl()
		if left.Add(-1) < 0 {
			return nil, nil, false
		}
		if response := answer(request); response != nil {
			return response, nil, true
		}
		return nil, errors.New("the connection is cut"), true
	})
	return &left
}

func TestBrokerFaultsPass(t *testing.T) {
	b := setup(t)
	b.refuse(kmsg.Fetch, 20, func(request kmsg.Request) kmsg.Response {
		r := request.(*kmsg.FetchRequest)
		response := r.ResponseKind().(*kmsg.FetchResponse)
		for _, topic := range r.Topics {
			answer := kmsg.NewFetchResponseTopic()
			answer.Topic, answer.TopicID = topic.Topic, topic.TopicID
			for _, p := range topic.Partitions {
				one := kmsg.NewFetchResponseTopicPartition()
				one.Partition, one.ErrorCode = p.Partition, kerr.NotLeaderForPartition.Code
				answer.Partitions = append(answer.Partitions, one)
			}
			response.Topics = append(response.Topics, answer)
		}
		return response
	})
	cut := func(kmsg.Request) kmsg.Response { return nil }
	b.refuse(kmsg.ListOffsets, 5, cut)
	b.refuse(kmsg.OffsetFetch, 1, cut)
	b.refuse(kmsg.FindCoordinator, 2, cut)
	b.refuse(kmsg.OffsetCommit, 3, cut)
	w := b.witness()

	var all []kafka.Message
	for n := range 60 {
		all = append(all, message("store", b.syncID(n), order.Creation, 1))
	}
	b.publish(all...)
	b.run(b.options(), w.watch)
	ends := make(map[int]int64)
	for n := range 60 {
		b.awaitOnce(b.syncID(n), 1) // what was not committed is sent again
		ends[home(b.syncID(n))]++
	}
	for p, end := range ends {
		b.awaitCommitted("store", p, end)
	}
	w.check()
}

func TestFetchOutOfRangeOfAnOffsetThatIsThere(t *testing.T) {
	b := setup(t)
	b.refuse(kmsg.Fetch, 30, func(request kmsg.Request) kmsg.Response {
		r := request.(*kmsg.FetchRequest)
		response := r.ResponseKind().(*kmsg.FetchResponse)
		for _, topic := range r.Topics {
			answer := kmsg.NewFetchResponseTopic()
			answer.Topic, answer.TopicID = topic.Topic, topic.TopicID
			for _, p := range topic.Partitions {
				one := kmsg.NewFetchResponseTopicPartition()
				one.Partition, one.ErrorCode = p.Partition, kerr.OffsetOutOfRange.Code
				answer.Partitions = append(answer.Partitions, one)
			}
			response.Topics = append(response.Topics, answer)
		}
		return response
	})
	id := b.syncID(1)
	b.publish(message("store", id, order.Update, 1), message("store", id, order.Update, 2))
	m := b.run(b.options())
	b.awaitVersions(id, 1, 2)
	require.Zero(t, counted(t, m.metrics.lost.WithLabelValues("store")), "nothing was lost, and nothing was read twice")
}

// Two members come and go while events arrive. Nothing may be lost, whoever has the partition.
func TestRebalanceUnderLoad(t *testing.T) {
	b := setup(t)
	w := b.witness()
	const orders, versions = 120, 5
	first := b.run(b.options(), w.watch)
	var load sync.WaitGroup
	load.Go(func() {
		for version := 1; version <= versions; version++ {
			for n := range orders {
				kind := order.Update
				if version == 1 {
					kind = order.Creation
				}
				topic := []string{"online", "store", "international"}[n%3]
				if err := b.producer.Publish(context.Background(), message(topic, b.syncID(n), kind, version)); err != nil {
					t.Error(err)
				}
			}
		}
	})
	joined := func(m *member, partitions int) {
		t.Helper()
		devtest.Eventually(t, 60*time.Second, func() error {
			g := m.current.Load()
			if g == nil || len(g.partitions) != partitions {
				return errors.New("it has not")
			}
			return nil
		}, fmt.Sprintf("the member has %d partitions", partitions))
	}
	joined(first, 18)
	second := b.run(b.options(), w.watch)
	joined(second, 9)
	joined(first, 9)
	first.stop()
	joined(second, 18)
	third := b.run(b.options(), w.watch)
	joined(third, 9)
	load.Wait()
	devtest.Eventually(t, 60*time.Second, func() error {
		if n := w.seen(); n != orders*versions {
			return fmt.Errorf("%d of %d events", n, orders*versions)
		}
		return nil
	}, "every event handed over")
	second.stop()
	third.stop()

	total := int64(0)
	for topic := range testTopics {
		for p := range testPartitions {
			total += max(0, b.committed(topic, p))
		}
	}
	require.Equal(t, int64(orders*versions), total, "all is committed")
	w.check()
	for n := range orders {
		b.awaitOnce(b.syncID(n), 1, 2, 3, 4, 5)
	}
}

func TestBrakeStopsFetchingWhileTooManyOrdersAreRetrying(t *testing.T) {
	b := setup(t)
	var stuck []client.WorkflowRun
	for n := range 2 {
		run, err := b.temporal.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{
			ID: workflows.WorkflowID(b.syncID(100 + n)), TaskQueue: "nobody",
			TypedSearchAttributes: temporal.NewSearchAttributes(workflows.SyncStatus.ValueSet(workflows.StatusRetrying)),
		}, workflows.OrderSyncName)
		require.NoError(t, err)
		stuck = append(stuck, run)
	}
	heal := sync.OnceFunc(func() {
		for _, run := range stuck {
			require.NoError(t, b.temporal.TerminateWorkflow(context.Background(), run.GetID(), run.GetRunID(), "the target is back"))
		}
	})
	t.Cleanup(heal)
	o := b.options()
	o.Limits.MaxRetrying = 1
	devtest.Eventually(t, 30*time.Second, func() error {
		i, err := New(o)
		require.NoError(t, err)
		if n, err := i.countRetrying(t.Context()); err != nil || n != 2 {
			return fmt.Errorf("%d, %w", n, err)
		}
		return nil
	}, "both are counted")

	id := b.syncID(1)
	b.publish(message("online", id, order.Creation, 1))
	m := b.run(o)
	b.awaitCommitted("online", home(id), 0) // it has joined, and found its place
	require.True(t, m.brake.on(false))
	require.Zero(t, m.inFlight(), "it waits in Kafka")
	heal()
	b.awaitVersions(id, 1)
}

func TestBrakeKeepsTheLastAnswerWhileTheCountFails(t *testing.T) {
	var answer int64
	var failure error
	changes := 0
	br := &brake{
		count: func(context.Context) (int64, error) { return answer, failure }, maxRetrying: 10, changed: func() { changes++ },
		log: quiet(), metrics: newMetrics(nil), troubles: newTroubles(),
	}
	const none, backfills, all = "none", "backfills", "all"
	look := func(n int64, err error) string {
		answer, failure = n, err
		br.look(t.Context())
		switch {
		case br.on(false):
			return all
		case br.on(true):
			return backfills
		default:
			return none
		}
	}
	away := errors.New("away")
	for n, step := range []struct {
		retrying int64
		err      error
		braked   string
		changes  int
	}{
		{0, away, none, 0},
		{5, nil, none, 0},
		{6, nil, backfills, 1},
		{10, nil, backfills, 1},
		{11, nil, all, 2},
		{0, away, all, 2},
		{10, nil, backfills, 3},
		{0, away, backfills, 3},
		{5, nil, none, 4},
	} {
		require.Equal(t, step.braked, look(step.retrying, step.err), "step %d", n)
		require.Equal(t, step.changes, changes, "step %d", n)
	}
}
