package erpsim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"ordersync/internal/load"
	"ordersync/internal/order"
	"ordersync/internal/simulate"
)

// Orders are the events of n simulated orders. They happen when the ERP tells them.
func Orders(seed uint64, n int, o simulate.Options) ([]Event, error) {
	var events []Event
	for e := range simulate.Orders(seed, n, o) {
		events = append(events, Event{Event: e})
	}
	return events, HappenNow(events)
}

// HappenNow lets events happen when the ERP tells them, whatever they say: they tell no occurred_at, and
// nothing that is not an event's.
func HappenNow(events []Event) error {
	for i := range events {
		e := &events[i]
		line, err := json.Marshal(struct {
			SyncID  string          `json:"sync_id"`
			Channel order.Channel   `json:"channel"`
			Kind    order.Kind      `json:"event"`
			Version int64           `json:"version,omitempty"`
			ID      string          `json:"event_id"`
			Data    json.RawMessage `json:"data"`
		}{e.SyncID, e.Channel, e.Kind, e.Version, e.ID.String(), e.Data})
		if err != nil {
			return fmt.Errorf("event %s of order %s does not encode: %w", e.ID, e.SyncID, err)
		}
		e.Line, e.OccurredAt = line, time.Time{}
	}
	return nil
}

// Read reads events in the forms that `ordersync load` takes. Each must name its channel, and its event_id or
// version: without both it is another event each time it is told.
func Read(r io.Reader) ([]Event, error) {
	var events []Event
	for records := load.NewReader(r); ; {
		text, line, err := records.Next()
		var format *load.FormatError
		switch {
		case errors.Is(err, io.EOF):
			return events, nil
		case errors.As(err, &format):
			return nil, err
		case load.TooLong(err):
			return nil, fmt.Errorf("line %d: %w", line, err)
		case err != nil:
			return nil, fmt.Errorf("after %d events: %w", len(events), err)
		}
		e, err := parse(text)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		events = append(events, e)
	}
}

func parse(line []byte) (Event, error) {
	e, err := simulate.Parse(line)
	if err != nil {
		return Event{}, err
	}
	fields, err := order.ParseFields(line)
	switch {
	case err != nil:
		return Event{}, err
	case !slices.Contains(order.Channels, e.Channel):
		return Event{}, fmt.Errorf("channel %q is none of %v", e.Channel, order.Channels)
	case fields.Absent("event_id") && fields.Absent("version"):
		return Event{}, errors.New("it has neither event_id nor version")
	case !fields.Absent("changed_at"):
		return Event{}, errors.New("changed_at is for the ERP to tell")
	}
	return Event{Event: e, Line: slices.Clone(line)}, nil
}
