package erp

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"testing"
	"time"

	"ordersync/internal/order"
)

// FuzzItem and FuzzColumns look for changes that are published as something else than what was read, and
// for bad rows that would be events once they are in a topic.
func FuzzItem(f *testing.F) {
	f.Add([]byte(`{"sync_id":1,"event":"order_creation","channel":"store","data":{"a":1}}`))
	f.Add([]byte(`{"sync_id":" é ","event":"order_updation","data":"x","version":2,"occurred_at":"2026-01-01T00:00:00.123456789Z","changed_at":"x"}`))
	f.Add([]byte(`{"sync_id":1,"event":"invoice_creation","data":null,"changed_at":"2026-01-01T00:00:00Z","event_id":"\u0000"}`))
	m := maker{channel: order.Online, now: time.Now()}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if !json.Valid(raw) {
			return // the answer that it stands in is malformed
		}
		holds(t, m.item(raw), m.item(raw))
	})
}

func FuzzColumns(f *testing.F) {
	f.Add([]byte("1"), []byte("order_creation"), []byte(`{"a":1}`), []byte("2026-01-01 00:00:00.5"), []byte("7"), []byte("3"), []byte("id"), true)
	f.Add([]byte("SO\"\\\x01-é"), []byte("order_updation"), []byte(`1,"sync_id":2`), []byte("2026-01-01T00:00:00Z"), []byte("x"), []byte("v"), []byte("\xff"), false)
	f.Fuzz(func(t *testing.T, syncID, event, data, changedAt, id, version, eventID []byte, number bool) {
		shape := &shape{
			columns: []string{"sync_id", "event", "data", "changed_at", "id", "version", "event_id"},
			number:  []bool{number && digits(string(syncID)), false, false, false, number, digits(string(version)), false},
			time:    make([]bool, 7),
			bytes:   []bool{6: number},
		}
		read := func() (Row, error) {
			r := newReader(shape, maker{channel: order.Store, now: time.Now()}, "q")
			for i, column := range [][]byte{syncID, event, data, changedAt, id, version, eventID} {
				if len(column) > 0 {
					r.columns[i] = sql.RawBytes(bytes.Clone(column))
				}
			}
			row, _, err := r.row()
			for _, column := range r.columns { // as the driver does
				clear(column)
			}
			return row, err
		}
		a, err := read()
		if err != nil {
			return
		}
		b, _ := read()
		holds(t, a, b)
	})
}

// holds checks what Row promises, of a row that was read twice.
func holds(t *testing.T, row, again Row) {
	if !bytes.Equal(row.Value, again.Value) || row.Event.ID != again.Event.ID {
		t.Fatalf("%s is %s the next time", row.Value, again.Value)
	}
	e, err := order.Decode(order.Record{Value: row.Value, Timestamp: time.Now()}, row.Event.Channel)
	if row.Rejected != nil {
		if err == nil && row.Event.Channel != "" {
			t.Fatalf("%s is rejected (%v), and would be an event once it is published", row.Value, row.Rejected)
		}
		return
	}
	if err != nil {
		t.Fatalf("%s is handed out, and no event: %v", row.Value, err)
	}
	if e.ID != row.Event.ID || e.SyncID != row.Event.SyncID || e.Kind != row.Event.Kind || e.Version != row.Event.Version || !bytes.Equal(e.Data, row.Event.Data) {
		t.Fatalf("%s is not the event %+v", row.Value, row.Event)
	}
	if err := row.Event.Check(row.Event.SyncID); err != nil {
		t.Fatal(err)
	}
}
