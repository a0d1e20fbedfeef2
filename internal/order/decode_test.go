package order_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"ordersync/internal/order"
)

var received = time.Date(2026, 1, 2, 3, 4, 5, 6_000_000, time.UTC)

func record(value string) order.Record {
	return order.Record{Topic: "online", Partition: 3, Offset: 42, Timestamp: received, Value: []byte(value)}
}

func decode(t *testing.T, value string) order.Event {
	t.Helper()
	e, err := order.Decode(record(value), order.Online)
	require.NoError(t, err)
	return e
}

func TestDecodeMinimal(t *testing.T) {
	e := decode(t, `{"sync_id":1,"data":"this data should sync to MySQL db","event":"order_creation"}`)
	require.Equal(t, "1", e.SyncID)
	require.Equal(t, order.Creation, e.Kind)
	require.JSONEq(t, `"this data should sync to MySQL db"`, string(e.Data))
	require.False(t, e.Versioned())
	require.Equal(t, received, e.OccurredAt)
	require.Equal(t, order.Source{Topic: "online", Partition: 3, Offset: 42, ReceivedAt: received}, e.Source)
	require.Equal(t, order.Online, e.Channel)
}

func TestDecodeFull(t *testing.T) {
	e := decode(t, `{"sync_id":" A-7 ","event":"order_updation","data":{"a": [1, 2]},"event_id":"2D7A3288-75c9-5ad5-ab72-0a95a812163c",
		"version":9007199254740993,"occurred_at":"2010-12-01T10:26:00+02:00","channel":"store","Data":1,"unknown":{}}`)
	require.Equal(t, "A-7", e.SyncID)
	require.Equal(t, `{"a":[1,2]}`, string(e.Data))
	require.Equal(t, "2d7a3288-75c9-5ad5-ab72-0a95a812163c", e.ID.String())
	require.Equal(t, int64(9007199254740993), e.Version, "by its digits")
	require.Equal(t, time.Date(2010, 12, 1, 8, 26, 0, 0, time.UTC), e.OccurredAt)
	require.Equal(t, "order_updation v9007199254740993", e.Name())
}

func TestDecodeSyncID(t *testing.T) {
	id := func(raw string) string {
		return decode(t, `{"event":"order_creation","data":1,"sync_id":`+raw+`}`).SyncID
	}
	require.Equal(t, id(`1`), id(`"1"`), "1 and \"1\" are one order")
	require.NotEqual(t, id(`"ABC"`), id(`"abc"`))
	require.Equal(t, "9007199254740993", id(`9007199254740993`), "no float")
	require.Equal(t, "12345678901234567890", id(`12345678901234567890`), "beyond 64 bits")
	require.Equal(t, id(`0`), id(`-0`), "they are one number")
	require.NotEqual(t, id(`1`), id(`"01"`))
	require.NotEqual(t, id(`"\u00e9"`), id(`"e\u0301"`), "what Unicode calls equivalent are two orders")
	require.Equal(t, "Müller 1", id(`"\u3000Müller 1\u00a0 "`), "all white space around it goes, none within it")
	require.Equal(t, "😀", id(`"\ud83d\ude00"`))
	require.Equal(t, "\uFFFD", id(`"\ufffd"`), "the replacement character itself is a character")
	require.Equal(t, `\ud83d`, id(`"\\ud83d"`), "an escaped backslash")
	require.Equal(t, strings.Repeat("9", 64), id(strings.Repeat("9", 64)))
}

func TestDecodeRejects(t *testing.T) {
	const rest = `,"event":"order_creation","data":1`
	for name, c := range map[string]struct {
		value  string
		reason order.Reason
	}{
		"empty":                   {``, order.MalformedJSON},
		"malformed":               {`{"sync_id":1,`, order.MalformedJSON},
		"trailing":                {`{"sync_id":1` + rest + `} x`, order.MalformedJSON},
		"array":                   {`[]`, order.MalformedJSON},
		"null":                    {`null`, order.MalformedJSON},
		"invalid UTF-8":           {"{\"sync_id\":\"\xff\"" + rest + "}", order.InvalidUTF8},
		"too large":               {`{"sync_id":1` + rest + `,"x":"` + strings.Repeat("x", order.MaxValue) + `"}`, order.ValueTooLarge},
		"no sync_id":              {`{"event":"order_creation","data":1}`, order.MissingField},
		"wrong case":              {`{"Sync_ID":1` + rest + `}`, order.MissingField},
		"null sync_id":            {`{"sync_id":null` + rest + `}`, order.MissingField},
		"empty sync_id":           {`{"sync_id":"  "` + rest + `}`, order.InvalidField},
		"float sync_id":           {`{"sync_id":1.0` + rest + `}`, order.InvalidField},
		"exponent":                {`{"sync_id":1e3` + rest + `}`, order.InvalidField},
		"bool sync_id":            {`{"sync_id":true` + rest + `}`, order.InvalidField},
		"object sync_id":          {`{"sync_id":{}` + rest + `}`, order.InvalidField},
		"long sync_id":            {`{"sync_id":"` + strings.Repeat("é", 33) + `"` + rest + `}`, order.InvalidField},
		"control character":       {`{"sync_id":"a\u0000b"` + rest + `}`, order.InvalidField},
		"no event":                {`{"sync_id":1,"data":1}`, order.MissingField},
		"number event":            {`{"sync_id":1,"data":1,"event":7}`, order.InvalidField},
		"unknown event":           {`{"sync_id":1,"data":1,"event":"order_deletion"}`, order.UnknownEvent},
		"event in another case":   {`{"sync_id":1,"data":1,"event":"Order_Creation"}`, order.UnknownEvent},
		"no data":                 {`{"sync_id":1,"event":"order_creation"}`, order.MissingField},
		"null data":               {`{"sync_id":1,"event":"order_creation","data":null}`, order.MissingField},
		"string version":          {`{"sync_id":1` + rest + `,"version":"1"}`, order.InvalidField},
		"version 0":               {`{"sync_id":1` + rest + `,"version":0}`, order.InvalidField},
		"float version":           {`{"sync_id":1` + rest + `,"version":1.5}`, order.InvalidField},
		"version over 64 bits":    {`{"sync_id":1` + rest + `,"version":9223372036854775808}`, order.InvalidField},
		"number event_id":         {`{"sync_id":1` + rest + `,"event_id":5}`, order.InvalidField},
		"empty event_id":          {`{"sync_id":1` + rest + `,"event_id":""}`, order.InvalidField},
		"nil UUID as event_id":    {`{"sync_id":1` + rest + `,"event_id":"00000000-0000-0000-0000-000000000000"}`, order.InvalidField},
		"long event_id":           {`{"sync_id":1` + rest + `,"event_id":"` + strings.Repeat("x", 129) + `"}`, order.InvalidField},
		"half a pair in sync_id":  {`{"sync_id":"\ud83d"` + rest + `}`, order.InvalidField},
		"the other half":          {`{"sync_id":"a\uDE00\ud83d"` + rest + `}`, order.InvalidField},
		"half a pair in event_id": {`{"sync_id":1` + rest + `,"event_id":"x\ud83e"}`, order.InvalidField},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := order.Decode(record(c.value), order.Online)
			var r *order.Rejection
			require.ErrorAs(t, err, &r)
			require.Equal(t, c.reason, r.Reason, r.Detail)
			require.NotEmpty(t, r.Detail)
			require.Less(t, len(r.Detail), 400)
		})
	}
	_, err := order.Decode(order.Record{}, order.Online)
	var r *order.Rejection
	require.ErrorAs(t, err, &r)
	require.Equal(t, order.NullValue, r.Reason)
}

func TestOptionalNullIsAbsent(t *testing.T) {
	e := decode(t, `{"sync_id":1,"event":"order_creation","data":1,"version":null,"event_id":null,"occurred_at":null}`)
	require.False(t, e.Versioned())
	require.Equal(t, received, e.OccurredAt)
}

func TestIdentity(t *testing.T) {
	id := func(value string) uuid.UUID { return decode(t, value).ID }
	const versioned = `{"sync_id":1,"event":"order_creation","data":1,"version":1}`
	at := func(change func(*order.Record)) uuid.UUID {
		r := record(`{"sync_id":1,"event":"order_creation","data":1}`)
		change(&r)
		e, err := order.Decode(r, order.Online)
		require.NoError(t, err)
		return e.ID
	}
	here := at(func(*order.Record) {})
	require.Equal(t, here, at(func(*order.Record) {}), "a redelivered record is the same event")
	require.NotEqual(t, here, at(func(r *order.Record) { r.Offset++ }))
	require.NotEqual(t, here, at(func(r *order.Record) { r.Partition++ }))
	require.NotEqual(t, here, at(func(r *order.Record) { r.Topic = "store" }))
	require.NotEqual(t, here, at(func(r *order.Record) { r.Timestamp = r.Timestamp.Add(time.Millisecond) }), "a topic made anew")

	e, err := order.Decode(order.Record{Topic: "other", Value: []byte(versioned)}, order.Store)
	require.NoError(t, err)
	require.Equal(t, id(versioned), e.ID, "with a version the place does not matter")
	require.NotEqual(t, id(versioned), id(strings.Replace(versioned, "creation", "updation", 1)))
	require.NotEqual(t, id(versioned), id(strings.Replace(versioned, `"version":1`, `"version":2`, 1)))

	named := `{"sync_id":1,"event":"order_creation","data":1,"event_id":"` + strings.Repeat("x", 36) + `"}`
	require.Equal(t, order.ParseEventID(strings.Repeat("x", 36)), id(named))

	// The derivation is part of what stands in ledgers: it never changes.
	require.Equal(t, "f6189316-e429-54b5-99c5-037ff4b9e080", id(versioned).String())
}

func TestTimestampsOfRecordsNeverStopAnEvent(t *testing.T) {
	for _, ms := range []int64{-1 << 62, -1, 0, 1 << 62} {
		r := record(`{"sync_id":1,"event":"order_creation","data":1}`)
		r.Timestamp = time.UnixMilli(ms)
		e, err := order.Decode(r, order.Online)
		require.NoError(t, err)
		require.GreaterOrEqual(t, e.Source.ReceivedAt.Year(), 1000)
		require.LessOrEqual(t, e.Source.ReceivedAt.Year(), 9999)
		require.NoError(t, e.Check("1"))
	}
}

func TestPlausibleTimestamps(t *testing.T) {
	now := time.Date(2026, 11, 28, 5, 0, 0, 0, time.UTC)
	for ms, want := range map[int64]bool{
		-1 << 62: false, -1: false, 0: false, now.Unix(): false, now.UnixMicro(): false, now.UnixNano(): false, 1 << 62: false,
		now.UnixMilli(): true, now.Add(time.Hour).UnixMilli(): true, now.Add(48 * time.Hour).UnixMilli(): false,
		time.Date(2010, 12, 1, 8, 26, 0, 0, time.UTC).UnixMilli(): true,
	} {
		require.Equal(t, want, order.Plausible(order.ClampTime(time.UnixMilli(ms)), now), ms)
	}
}

func TestMessageKeepsTheIdentity(t *testing.T) {
	first := decode(t, `{"sync_id":"<1>","event":"order_updation","data":{"a":"<b>"}}`)
	value, err := first.Message()
	require.NoError(t, err)
	again, err := order.Decode(order.Record{Topic: "elsewhere", Value: value, Timestamp: time.Now()}, order.Online)
	require.NoError(t, err)
	require.Equal(t, first.ID, again.ID)
	require.Equal(t, first.Data, again.Data)
	require.Equal(t, first.OccurredAt, again.OccurredAt)
}

// FuzzDecode looks for values that crash the decoder, and for events that break what every other
// package relies on.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"sync_id":1,"data":"x","event":"order_creation"}`))
	f.Add([]byte(`{"sync_id":" a ","event":"invoice_creation","data":[1, {"b":null}],"version":3,"event_id":"e","occurred_at":"2010-12-01T08:26:00.123456789Z"}`))
	f.Add([]byte(`{"sync_id":true,"sync_id":-0,"event":"order_updation","data":{}}`))
	f.Fuzz(func(t *testing.T, value []byte) {
		e, err := order.Decode(order.Record{Topic: "online", Value: value, Timestamp: received}, order.Online)
		var r *order.Rejection
		switch {
		case errors.As(err, &r):
			return
		case err != nil:
			t.Fatalf("an error of another type: %v", err)
		}
		if err := e.Check(e.SyncID); err != nil {
			t.Fatal(err)
		}
		if n := len(e.SyncID); n < 1 || n > order.MaxSyncID || !utf8.ValidString(e.SyncID) {
			t.Fatalf("sync_id %q", e.SyncID)
		}
		raw, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		var back order.Event
		if err := json.Unmarshal(raw, &back); err != nil || back.ID != e.ID || back.OccurredAt != e.OccurredAt {
			t.Fatalf("%s does not come back from its payload: %v", raw, err)
		}
		message, err := e.Message()
		if err != nil {
			t.Fatal(err)
		}
		again, err := order.Decode(order.Record{Topic: "x", Value: message}, order.Online)
		if err != nil && len(message) <= order.MaxValue || err == nil && again.ID != e.ID {
			t.Fatalf("%s is not the same event: %v", message, err)
		}
	})
}
