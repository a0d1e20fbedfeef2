package load

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/segmentio/kafka-go"

	"ordersync/internal/order"
)

// Message is the record of a line: in the topic of its channel, keyed by its sync_id, its bytes as
// they are. channel, unless it is empty, goes before the line's own field.
func Message(text []byte, topics map[order.Channel]string, channel order.Channel) (kafka.Message, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(text, &fields); err != nil {
		return kafka.Message{}, fmt.Errorf("it is no JSON object: %w", err)
	}
	if fields == nil {
		return kafka.Message{}, errors.New("it is null, not a JSON object")
	}
	key, err := recordKey(fields["sync_id"])
	if err != nil {
		if list := onlyList(fields); list != "" && errors.Is(err, errNoSyncID) {
			return kafka.Message{}, fmt.Errorf("%w; if its field %s has the events, \"jq -c '.%[2]s[]'\" takes them out", err, list)
		}
		return kafka.Message{}, err
	}
	if channel == "" {
		if channel, err = channelOf(fields["channel"]); err != nil {
			return kafka.Message{}, err
		}
	}
	topic, ok := topics[channel]
	if !ok {
		return kafka.Message{}, fmt.Errorf("channel %q has no topic, those with one are %s", channel, names(topics))
	}
	return kafka.Message{Topic: topic, Key: []byte(key), Value: text}, nil
}

var errNoSyncID = errors.New("it has no sync_id")

// plainName is a field that jq takes without quotes.
var plainName = regexp.MustCompile(`^[A-Za-z_]\w*$`)

// onlyList is the field that holds a list of objects, as an API's answer has it; empty unless there is
// exactly one.
func onlyList(fields map[string]json.RawMessage) (name string) {
	for field, raw := range fields {
		rest, isList := bytes.CutPrefix(raw, []byte("["))
		if !isList || !bytes.HasPrefix(bytes.TrimSpace(rest), []byte("{")) || !plainName.MatchString(field) {
			continue
		}
		if name != "" {
			return ""
		}
		name = field
	}
	return name
}

// recordKey is the sync_id as the record's key: all spellings of one order give one key. It does
// not judge the id any further.
func recordKey(raw json.RawMessage) (string, error) {
	if raw == nil || string(raw) == "null" {
		return "", errNoSyncID
	}
	var text string
	if err := json.Unmarshal(raw, &text); err == nil {
		return strings.TrimSpace(text), nil
	}
	var number json.Number
	if err := json.Unmarshal(raw, &number); err == nil {
		return number.String(), nil
	}
	return "", fmt.Errorf("its sync_id is neither a number nor a string: %.80s", raw)
}

func channelOf(raw json.RawMessage) (order.Channel, error) {
	if raw == nil || string(raw) == "null" {
		return "", errors.New("it names no channel: add the field or give --channel")
	}
	var name string
	if err := json.Unmarshal(raw, &name); err != nil {
		return "", fmt.Errorf("its channel is no string: %.80s", raw)
	}
	return order.Channel(name), nil
}

func names(topics map[order.Channel]string) string {
	var known []string
	for channel := range topics {
		known = append(known, string(channel))
	}
	slices.Sort(known)
	return strings.Join(known, ", ")
}
