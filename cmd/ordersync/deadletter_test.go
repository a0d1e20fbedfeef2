package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"ordersync/internal/deadletter"
	"ordersync/internal/order"
	"ordersync/internal/publish"
)

func deadLetter(value []byte, state deadletter.State) deadletter.Letter {
	return deadletter.Letter{
		Place: deadletter.Place{Partition: 0, Offset: 17}, WrittenAt: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), State: state, Bytes: len(value),
		Letter: publish.Letter{DeadLetter: order.DeadLetter{
			Source: order.Source{Topic: "online", Partition: 3, Offset: 42}, Key: []byte("536365"), Value: value,
			Reason: order.MalformedJSON, Detail: "the value is\nno JSON object",
		}},
		Headers: []kafka.Header{{Key: publish.HeaderReason, Value: []byte("malformed-json")}},
	}
}

func TestALetterIsShownAsWhatItHolds(t *testing.T) {
	for name, tc := range map[string]struct {
		value []byte
		want  string
	}{
		"JSON is laid out":         {[]byte(`{"a":{"b":1}}`), "{\n  \"a\": {\n    \"b\": 1\n  }\n}\n"},
		"text as it is":            {[]byte(`{"a": `), "\n{\"a\": \n"},
		"bytes in hexadecimal":     {[]byte{0xff, 0x00, 'x'}, "3 bytes:\n00000000  ff 00 78 "},
		"what harms a terminal":    {[]byte("\x1b[2J"), "00000000  1b 5b 32 4a "},
		"an excerpt of many bytes": {bytes.Repeat([]byte{0xff}, maxHex+5), "… and 5 more bytes"},
		"an excerpt of a long one": {bytes.Repeat([]byte("x"), maxText+7), "… and 7 more bytes"},
		"null":                     {nil, "the value is null"},
		"nothing":                  {[]byte{}, "the value is empty"},
	} {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			require.NoError(t, (&app{dataDir: defaultDir}).printLetter(&out, deadLetter(tc.value, deadletter.Open)))
			text := out.String()
			assert.Contains(t, text, tc.want)
			assert.Contains(t, text, "dead letter 0/17: malformed-json, open")
			assert.Contains(t, text, "detail: the value is no JSON object")
			assert.Regexp(t, `order +\(536365\)`, text, "the key, since the value does not tell")
			assert.Regexp(t, `record +online/3/42`, text)
			assert.Regexp(t, `header ordersync-reason +malformed-json`, text)
			assert.Contains(t, text, "ordersync deadletter replay 0/17 --value-file FILE")
		})
	}
	l := deadLetter(nil, deadletter.Discarded)
	l.Size, l.SHA256, l.Action = 17<<20, "ab12", &order.Action{By: "oncall", Reason: "a test", Effect: "discarded"}
	var out strings.Builder
	require.NoError(t, (&app{dataDir: defaultDir}).printLetter(&out, l))
	assert.Contains(t, out.String(), "the value was too large to keep: 17825792 bytes, SHA-256 ab12; it stood at online/3/42")
	assert.Contains(t, out.String(), "by oncall")
	assert.NotContains(t, out.String(), "send it again")
	assert.Nil(t, detailLetter(l).ValueBase64)
	assert.False(t, detailLetter(l).Kept)
}

func TestLettersAreCountedByReasonAndState(t *testing.T) {
	letters := []deadletter.Letter{deadLetter(nil, deadletter.Open), deadLetter(nil, deadletter.Replayed), deadLetter(nil, deadletter.Discarded), deadLetter(nil, deadletter.Open)}
	letters[3].Reason = order.InvalidField
	assert.Equal(t, []letterCount{{order.InvalidField, 1, 0, 0}, {order.MalformedJSON, 1, 1, 1}}, countLetters(letters))
	assert.Equal(t, []letterCount{}, countLetters(nil))
}
