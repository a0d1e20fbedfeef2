package topics

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"

	"ordersync/internal/devstack/devtest"
)

func TestMain(m *testing.M) { devtest.Main(m) }

const topic = "online"

var morning = time.Date(2026, 1, 2, 8, 0, 0, 0, time.UTC)

// at is n minutes after the morning.
func at(n int) time.Time { return morning.Add(time.Duration(n) * time.Minute) }

// fill makes a topic of three partitions, whose records are named by partition and offset, with
// timestamps in minutes.
func fill(t *testing.T, minutes map[int][]int) Reader {
	t.Helper()
	brokers := devtest.KafkaEmbedded(t).Brokers()
	transport := &kafka.Transport{MetadataTTL: 100 * time.Millisecond}
	t.Cleanup(transport.CloseIdleConnections)
	c := kafka.Client{Addr: kafka.TCP(brokers...), Transport: transport}
	made, err := c.CreateTopics(t.Context(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{Topic: topic, NumPartitions: 3, ReplicationFactor: 1}}})
	require.NoError(t, err)
	require.NoError(t, made.Errors[topic])
	for partition, times := range minutes {
		for offset, n := range times {
			answer, err := c.Produce(t.Context(), &kafka.ProduceRequest{
				Topic: topic, Partition: partition, RequiredAcks: kafka.RequireAll,
				Records: kafka.NewRecordReader(kafka.Record{Time: at(n), Value: kafka.NewBytes(fmt.Appendf(nil, "%d/%d", partition, offset))}),
			})
			require.NoError(t, err)
			require.NoError(t, answer.Error)
		}
	}
	return Reader{Brokers: brokers, Transport: transport}
}

func (r Reader) merged(t *testing.T, spans []Span) []string {
	t.Helper()
	var all []string
	require.NoError(t, r.Merge(t.Context(), spans, func(m kafka.Message) error {
		all = append(all, string(m.Value))
		return nil
	}))
	return all
}

func TestMergeGoesByTimestampAndKeepsThePartitionsOrder(t *testing.T) {
	r := fill(t, map[int][]int{0: {1, 4, 5}, 1: {2, 9, 3}})
	spans, err := r.Spans(t.Context(), topic, time.Time{})
	require.NoError(t, err)
	require.Len(t, spans, 3)
	require.Equal(t, []string{"0/0", "1/0", "0/1", "0/2", "1/1", "1/2"}, r.merged(t, spans))

	stop := errors.New("enough")
	taken := 0
	require.ErrorIs(t, r.Merge(t.Context(), spans, func(kafka.Message) error { taken++; return stop }), stop)
	require.Equal(t, 1, taken)

	ctx, cancel := context.WithCancel(t.Context())
	err = r.Merge(ctx, spans, func(kafka.Message) error { cancel(); return nil })
	require.ErrorIs(t, err, context.Canceled)
}

// Kafka takes -1 and -2 for the log's ends, and refuses what is below.
func TestSpansSinceBefore1970(t *testing.T) {
	r := fill(t, map[int][]int{0: {1}})
	for _, since := range []time.Time{time.Date(1960, 1, 1, 0, 0, 0, 0, time.UTC), time.UnixMilli(-1), time.UnixMilli(-2), time.UnixMilli(0)} {
		spans, err := r.Spans(t.Context(), topic, since)
		require.NoError(t, err)
		require.Equal(t, []string{"0/0"}, r.merged(t, spans))
	}
}

func TestSpansBeginAtATimestamp(t *testing.T) {
	r := fill(t, map[int][]int{0: {1, 4, 5}, 1: {2, 9, 3}})
	for since, want := range map[int][]string{
		0:  {"0/0", "1/0", "0/1", "0/2", "1/1", "1/2"},
		4:  {"0/1", "0/2", "1/1", "1/2"}, // a later record may be older
		9:  {"1/1", "1/2"},
		10: nil,
	} {
		spans, err := r.Spans(t.Context(), topic, at(since))
		require.NoError(t, err)
		require.Equal(t, want, r.merged(t, spans), "since %d", since)
		offsets := int64(0)
		for _, s := range spans {
			offsets += s.Len()
		}
		require.EqualValues(t, len(want), offsets)
	}
}

// What a partition cannot give is an error: the end of the others must not look like the end of all.
func TestMergeFailsWithAPartition(t *testing.T) {
	r := fill(t, map[int][]int{0: {1}})
	spans, err := r.Spans(t.Context(), topic, time.Time{})
	require.NoError(t, err)
	at := slices.IndexFunc(spans, func(s Span) bool { return s.Partition == 0 })
	spans[at].First = 7 // above the end
	spans[at].End = 9
	err = r.Merge(t.Context(), spans, func(kafka.Message) error { return nil })
	require.ErrorContains(t, err, "topic online, partition 0")
	_, err = r.Spans(t.Context(), "nonsense", time.Time{})
	require.ErrorContains(t, err, "topic nonsense does not exist; create it with `ordersync setup`")
}

// What a group has not committed is what is left of a span, also where its members have moved on or the
// topic was made anew between one question and the next.
func TestPassCommitted(t *testing.T) {
	r := fill(t, map[int][]int{0: {1, 4, 5}, 1: {2, 9, 3}, 2: {7, 8, 9}})
	c := kafka.Client{Addr: kafka.TCP(r.Brokers...), Transport: r.Transport}
	commit := func(offsets map[int]int64) {
		t.Helper()
		var commits []kafka.OffsetCommit
		for partition, offset := range offsets {
			commits = append(commits, kafka.OffsetCommit{Partition: partition, Offset: offset})
		}
		answer, err := c.OffsetCommit(t.Context(), &kafka.OffsetCommitRequest{GroupID: "group", GenerationID: -1, Topics: map[string][]kafka.OffsetCommit{topic: commits}})
		require.NoError(t, err)
		for _, p := range answer.Topics[topic] {
			require.NoError(t, p.Error)
		}
	}
	// left is what is left of spans that end below what has been published since.
	left := func(since time.Time, ends map[int]int64) map[int][2]int64 {
		t.Helper()
		spans, err := r.Spans(t.Context(), topic, since)
		require.NoError(t, err)
		for i, s := range spans {
			if end, ok := ends[s.Partition]; ok {
				spans[i].End = end
			}
		}
		require.NoError(t, r.PassCommitted(t.Context(), "group", spans))
		found := map[int][2]int64{}
		for _, s := range spans {
			found[s.Partition] = [2]int64{s.First, s.End}
		}
		return found
	}
	require.Equal(t, map[int][2]int64{0: {0, 3}, 1: {0, 3}, 2: {0, 3}}, left(time.Time{}, nil), "no such group")
	commit(map[int]int64{0: 1, 1: 3})
	require.Equal(t, map[int][2]int64{0: {1, 3}, 1: {3, 3}, 2: {0, 3}}, left(time.Time{}, nil))
	require.Equal(t, map[int][2]int64{0: {2, 3}, 1: {3, 3}, 2: {0, 3}}, left(at(5), nil), "a span that begins above the offset keeps its beginning")
	require.Equal(t, map[int][2]int64{0: {1, 3}, 1: {2, 2}, 2: {0, 3}}, left(time.Time{}, map[int]int64{1: 2}), "the group has gone past the end")
	commit(map[int]int64{2: 4})
	require.Equal(t, [2]int64{0, 3}, left(time.Time{}, nil)[2], "the topic was made anew")
}
