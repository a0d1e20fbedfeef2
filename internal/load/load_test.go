package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"ordersync/internal/order"
	"ordersync/internal/publish"
)

var topics = map[order.Channel]string{order.Online: "erp.online", order.Store: "store"}

// broker records what is published, and fails as told.
type broker struct {
	mu    sync.Mutex
	calls [][]kafka.Message
	fail  func(m kafka.Message) error
}

func (b *broker) publish(ctx context.Context, msgs ...kafka.Message) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	failures, failed := make(publish.Errors, len(msgs)), false
	var written []kafka.Message
	for i, m := range msgs {
		if b.fail != nil {
			failures[i] = b.fail(m)
		}
		if failures[i] != nil {
			failed = true
			continue
		}
		written = append(written, m)
	}
	if err := ctx.Err(); err != nil {
		return err // as of a broker whose client was told to stop
	}
	b.calls = append(b.calls, written)
	if failed {
		return failures
	}
	return nil
}

func (b *broker) values() []string {
	var all []string
	for _, call := range b.calls {
		for _, m := range call {
			all = append(all, string(m.Value))
		}
	}
	return all
}

func run(ctx context.Context, in io.Reader, b *broker, o Options) (Progress, map[int]string, error) {
	bad := map[int]string{}
	o.Topics, o.Publish = topics, b.publish
	o.Malformed = func(line int, err error) { bad[line] = err.Error() }
	p, err := Lines(ctx, in, o)
	return p, bad, err
}

func TestMessage(t *testing.T) {
	for name, tc := range map[string]struct {
		line    string
		channel order.Channel
		topic   string
		key     string
		err     string
	}{
		"integer id":             {line: `{"sync_id":42,"channel":"online"}`, topic: "erp.online", key: "42"},
		"id beyond float64":      {line: `{"sync_id":9007199254740993,"channel":"online"}`, topic: "erp.online", key: "9007199254740993"},
		"text id is trimmed":     {line: `{"sync_id":" A-1 ","channel":"store"}`, topic: "store", key: "A-1"},
		"--channel goes first":   {line: `{"sync_id":42,"channel":"online"}`, channel: order.Store, topic: "store", key: "42"},
		"--channel for none":     {line: `{"sync_id":42}`, channel: order.Store, topic: "store", key: "42"},
		"a wrong event is Kafka": {line: `{"sync_id":42,"channel":"store","event":7}`, topic: "store", key: "42"},
		"no channel":             {line: `{"sync_id":42}`, err: "add the field or give --channel"},
		"unknown channel":        {line: `{"sync_id":42,"channel":"web"}`, err: `channel "web" has no topic, those with one are online, store`},
		"channel no string":      {line: `{"sync_id":42,"channel":3}`, err: "channel is no string"},
		"no sync_id":             {line: `{"channel":"online"}`, err: "no sync_id"},
		"null sync_id":           {line: `{"sync_id":null,"channel":"online"}`, err: "no sync_id"},
		"sync_id of another kind": {
			line: `{"sync_id":[1],"channel":"online"}`, err: "neither a number nor a string: [1]",
		},
		"no JSON": {line: `{"sync_id":`, err: "no JSON object"},
		"a list":  {line: `[1]`, err: "no JSON object"},
		"null":    {line: `null`, err: "null"},
	} {
		t.Run(name, func(t *testing.T) {
			m, err := Message([]byte(tc.line), topics, tc.channel)
			if tc.err != "" {
				require.ErrorContains(t, err, tc.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, tc.topic, m.Topic)
			assert.Equal(t, tc.key, string(m.Key))
			assert.Equal(t, tc.line, string(m.Value), "the bytes are kept")
		})
	}
}

func TestMalformedLinesAreNamedAndTheRestIsPublished(t *testing.T) {
	in := "\ufeff{\"sync_id\":1,\"channel\":\"store\"}\r\n" +
		"\n" +
		"not JSON\n" +
		"{\"sync_id\":2 , \"channel\":\"store\"}\n" +
		"{\"sync_id\":3}\n" +
		"  {\"sync_id\":4,\"channel\":\"store\"}" // no newline at the end
	var b broker
	p, bad, err := run(t.Context(), strings.NewReader(in), &b, Options{})
	require.NoError(t, err)
	assert.Equal(t, []string{
		`{"sync_id":1,"channel":"store"}`, `{"sync_id":2 , "channel":"store"}`, `{"sync_id":4,"channel":"store"}`,
	}, b.values())
	assert.Len(t, bad, 2)
	assert.Contains(t, bad[3], "no JSON object")
	assert.Contains(t, bad[5], "names no channel")
	assert.Equal(t, Progress{Lines: 6, Bytes: int64(len(in)), Published: 3, Malformed: 2}, p)
}

func numbered(n int) string {
	var in strings.Builder
	for i := range n {
		fmt.Fprintf(&in, `{"sync_id":%d,"channel":"online"}`+"\n", i)
	}
	return in.String()
}

func TestCallsAreBoundedAndKeepTheOrder(t *testing.T) {
	in := numbered(2500)
	var b broker
	var seen []int
	p, bad, err := run(t.Context(), strings.NewReader(in), &b, Options{Progress: func(p Progress) { seen = append(seen, p.Published) }})
	require.NoError(t, err)
	assert.Empty(t, bad)
	assert.Equal(t, 2500, p.Published)
	assert.Equal(t, []int{1000, 2000, 2500}, seen)
	assert.Equal(t, strings.TrimSpace(in), strings.Join(b.values(), "\n"))
}

func TestCallsAreBoundedInBytes(t *testing.T) {
	text := fmt.Sprintf(`{"sync_id":1,"channel":"online","data":%q}`, strings.Repeat("x", 1<<20))
	var b broker
	_, _, err := run(t.Context(), strings.NewReader(strings.Repeat(text+"\n", 10)), &b, Options{})
	require.NoError(t, err)
	for _, call := range b.calls {
		assert.LessOrEqual(t, len(call), 4)
	}
	assert.Len(t, b.values(), 10)
}

// A line no buffer should have to hold is passed over by its number.
func TestALineTooLong(t *testing.T) {
	long := strings.Repeat("x", MaxRecord+1)
	in := io.MultiReader(strings.NewReader(numbered(1)+long), strings.NewReader(long+"\n"), strings.NewReader(numbered(1)))
	var b broker
	p, bad, err := run(t.Context(), in, &b, Options{})
	require.NoError(t, err)
	assert.Equal(t, 2, p.Published)
	assert.Len(t, bad, 1)
	assert.Contains(t, bad[2], "longer than 16777216 bytes")
}

func TestALineTheBrokerRefusesForItsSizeIsNamed(t *testing.T) {
	for _, refusal := range []error{kafka.MessageSizeTooLarge, kafka.MessageTooLargeError{}} {
		b := broker{fail: func(m kafka.Message) error {
			if string(m.Key) == "1" {
				return refusal
			}
			return nil
		}}
		p, bad, err := run(t.Context(), strings.NewReader(numbered(3)), &b, Options{})
		require.NoError(t, err)
		assert.Equal(t, Progress{Lines: 3, Bytes: int64(len(numbered(3))), Published: 2, Malformed: 1}, p)
		assert.Contains(t, bad[2], "more than the broker takes")
	}
}

// After a failure nothing further is published: it could overtake what failed.
func TestAFailureStops(t *testing.T) {
	b := broker{fail: func(m kafka.Message) error {
		if string(m.Key) == "1500" {
			return kafka.NotEnoughReplicas
		}
		return nil
	}}
	p, _, err := run(t.Context(), strings.NewReader(numbered(5000)), &b, Options{})
	require.ErrorIs(t, err, kafka.NotEnoughReplicas)
	require.ErrorContains(t, err, "line 1501")
	assert.Equal(t, 1000, p.Lines)
	assert.Len(t, b.calls, 2)
}

func TestInterruptedItFinishesTheCallUnderWay(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	b := broker{fail: func(kafka.Message) error { cancel(); return nil }}
	p, _, err := run(ctx, strings.NewReader(numbered(5000)), &b, Options{})
	require.ErrorIs(t, err, context.Canceled)
	assert.Equal(t, 1000, p.Published)
	assert.Len(t, b.values(), 1000)
}

func TestAnUnreadableFileKeepsWhatCameBefore(t *testing.T) {
	broken := errors.New("the disk is gone")
	var b broker
	p, _, err := run(t.Context(), io.MultiReader(bytes.NewReader([]byte(numbered(3))), iotest.ErrReader(broken)), &b, Options{})
	require.ErrorIs(t, err, broken)
	assert.Equal(t, 3, p.Published)
	assert.Len(t, b.values(), 3)
}
