package publish

import (
	"testing"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"

	"ordersync/internal/order"
)

func TestReadLetterIsTheInverseOfDeadLetter(t *testing.T) {
	for name, tc := range map[string]struct {
		letter order.DeadLetter
		syncID string
	}{
		"an event":     {order.DeadLetter{Source: source, Key: []byte("k"), Value: []byte(`{"sync_id":42,"event":"order_creation","data":1}`), Reason: order.OrderBlocked, Detail: "full"}, "42"},
		"names itself": {order.DeadLetter{Source: source, Value: []byte(`{"sync_id":" 42 ","event":"nonsense"}`), Reason: order.UnknownEvent, Detail: "nonsense"}, "42"},
		"null":         {order.DeadLetter{Source: source, Key: []byte("42"), Reason: order.NullValue}, ""},
		"malformed":    {order.DeadLetter{Source: source, Value: []byte(`{"sync_id":42`), Reason: order.MalformedJSON}, ""},
		"no such id":   {order.DeadLetter{Source: source, Value: []byte(`{"sync_id":4.2}`), Reason: order.InvalidField}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := ReadLetter(kafka.Message{Key: tc.letter.Key, Value: tc.letter.Value, Headers: headers(tc.letter)})
			require.NoError(t, err)
			require.Equal(t, tc.letter, l.DeadLetter)
			require.Equal(t, tc.syncID, l.SyncID)
			require.True(t, l.Kept())
		})
	}
}

func TestReadLetterOfAValueThatWasNotKept(t *testing.T) {
	all := append(headers(order.DeadLetter{Source: source, Reason: order.ValueTooLarge}), header(HeaderSize, "17825792"), header(HeaderSHA256, "ab12"))
	l, err := ReadLetter(kafka.Message{Headers: all})
	require.NoError(t, err)
	require.False(t, l.Kept())
	require.Equal(t, 17<<20, l.Size)
	require.Equal(t, "ab12", l.SHA256)
}

func TestReadLetterOfSomebodyElse(t *testing.T) {
	l, err := ReadLetter(kafka.Message{Value: []byte("hello"), Headers: []kafka.Header{header(HeaderTopic, "online"), header(HeaderOffset, "x")}})
	require.ErrorContains(t, err, HeaderPartition)
	require.ErrorContains(t, err, HeaderOffset)
	require.ErrorContains(t, err, HeaderTimestamp)
	require.Equal(t, "online", l.Source.Topic)
	require.Equal(t, "hello", string(l.Value))
}
