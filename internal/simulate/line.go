package simulate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"ordersync/internal/order"
)

// ndjson is an event on a line of a file: a record's value, and the channel that the record's
// topic would tell. The fields stand in the order of the sample data.
type ndjson struct {
	SyncID     json.RawMessage `json:"sync_id"`
	Channel    order.Channel   `json:"channel"`
	Kind       order.Kind      `json:"event"`
	Version    int64           `json:"version,omitempty"`
	EventID    string          `json:"event_id"`
	OccurredAt time.Time       `json:"occurred_at"`
	Data       json.RawMessage `json:"data"`
}

// Line is a simulated event as one line of NDJSON, newline included, in the form of the sample
// data: what `ordersync simulate` prints and `ordersync load` takes.
func Line(e order.Event) ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	err := enc.Encode(ndjson{
		SyncID: json.RawMessage(e.SyncID), Channel: e.Channel, Kind: e.Kind, Version: e.Version,
		EventID: e.ID.String(), OccurredAt: e.OccurredAt, Data: e.Data,
	})
	if err != nil {
		return nil, fmt.Errorf("event %s of order %s does not encode: %w", e.ID, e.SyncID, err)
	}
	return out.Bytes(), nil
}

// Parse is the event on a line of NDJSON, for the model. The line must name its event_id or its
// version: without both an event's identity depends on where it comes to stand in Kafka.
func Parse(text []byte) (order.Event, error) {
	var at struct {
		Channel order.Channel `json:"channel"`
	}
	if err := json.Unmarshal(text, &at); err != nil {
		return order.Event{}, err
	}
	return order.Decode(order.Record{Value: text}, at.Channel)
}
