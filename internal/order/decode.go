package order

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/google/uuid"
)

// Limits of a record, in bytes.
const (
	// MaxValue is the largest value of a record that is decoded; a larger one is rejected.
	MaxValue = 1 << 20
	// MaxSyncID is the longest sync_id after trimming.
	MaxSyncID = 64
	// MaxEventID is the longest event_id that is no UUID.
	MaxEventID = 128
)

// Reason says in one word why a record is no event. It is a header of the dead letter and a
// label of the metric.
type Reason string

// The reasons for which a record becomes a dead letter.
const (
	NullValue     Reason = "null-value"
	ValueTooLarge Reason = "too-large"
	InvalidUTF8   Reason = "invalid-utf8"
	MalformedJSON Reason = "malformed-json"
	MissingField  Reason = "missing-field"
	InvalidField  Reason = "invalid-field"
	UnknownEvent  Reason = "unknown-event"
	// TooDeep is data that is nested more than MaxDepth levels deep.
	TooDeep Reason = "too-deep"
	// OrderBlocked is an event that arrived behind a stuck order whose queue was full.
	OrderBlocked Reason = "order-blocked"
	// OrderBacklog is an event that its order's workflow could not hold, stuck or not.
	OrderBacklog Reason = "order-backlog"
	// CorruptBatch is a batch of records that cannot be read: its bytes are damaged, or its compression is unknown.
	CorruptBatch Reason = "corrupt-batch"
	// Undecodable is a signal to an order's workflow that holds no events.
	Undecodable Reason = "undecodable-signal"
	// IdentityConflict is an event with the event_id of another event of its order.
	IdentityConflict Reason = "identity-conflict"
)

// Overflowed returns whether the event left its order's workflow because that had no room for it. Such events follow one
// another, so they are replayed together and not while the order is stuck.
func (r Reason) Overflowed() bool { return r == OrderBlocked || r == OrderBacklog }

// Rejection is the error of a record that is no event.
type Rejection struct {
	Reason Reason
	Detail string // for people: which field, what was expected
}

func (r *Rejection) Error() string { return string(r.Reason) + ": " + r.Detail }

func reject(reason Reason, format string, args ...any) error {
	return &Rejection{Reason: reason, Detail: fmt.Sprintf(format, args...)}
}

// Record is a Kafka record as far as an event depends on it.
type Record struct {
	Topic     string
	Partition int
	Offset    int64
	Timestamp time.Time
	Value     []byte // nil where Kafka's value is null
}

// Decode makes an event of a record read from channel's topic. Every error is a *Rejection.
//
// Field names are matched exactly (encoding/json alone would let "Data" overwrite "data"),
// unknown fields are ignored, and an optional field that is null counts as absent.
func Decode(rec Record, channel Channel) (Event, error) {
	fields, err := ParseFields(rec.Value)
	if err != nil {
		return Event{}, err
	}
	return fields.Event(rec, channel)
}

// Fields are what a value has at its top level, each as the JSON it came as.
type Fields map[string]json.RawMessage

// ParseFields takes a record's value apart. Every error is a *Rejection.
func ParseFields(value []byte) (Fields, error) {
	switch {
	case value == nil:
		return nil, reject(NullValue, "the record has no value (a tombstone); an event is a JSON object")
	case len(value) > MaxValue:
		return nil, reject(ValueTooLarge, "the value has %d bytes, the limit is %d", len(value), MaxValue)
	}
	if err := foreign(value); err != nil {
		return nil, err
	}
	if !utf8.Valid(value) {
		return nil, reject(InvalidUTF8, "the value is not valid UTF-8")
	}
	var fields Fields
	if err := json.Unmarshal(value, &fields); err != nil {
		return nil, notAnObject(value, err)
	}
	if fields == nil {
		return nil, reject(MalformedJSON, "the value is null, an event is a JSON object")
	}
	return fields, nil
}

// Absent tells whether there is no such field, or it is null.
func (f Fields) Absent(name string) bool { return absent(f[name]) }

// SyncID is the order that the fields name, also where they make no event; empty where they name none.
func (f Fields) SyncID() string {
	id, _ := syncID(f["sync_id"])
	return id
}

// Event is the event that the fields make. Of rec it takes the place, not the value. Every error is
// a *Rejection.
func (f Fields) Event(rec Record, channel Channel) (Event, error) {
	received := ClampTime(rec.Timestamp)
	e := Event{
		Channel: channel,
		Source:  Source{Topic: rec.Topic, Partition: rec.Partition, Offset: rec.Offset, ReceivedAt: received},
	}
	if f.Absent("sync_id") {
		if err := f.envelope(); err != nil {
			return Event{}, err
		}
	}
	var err error
	if e.SyncID, err = syncID(f["sync_id"]); err != nil {
		return Event{}, err
	}
	if e.Kind, err = kind(f["event"]); err != nil {
		return Event{}, err
	}
	if e.Data, err = ParseData(f["data"]); err != nil {
		return Event{}, err
	}
	if e.Version, err = version(f["version"]); err != nil {
		return Event{}, err
	}
	if !e.Versioned() || e.Kind == Invoice {
		e.Digest = meaningOfValid(e.Data).Digest()
	}
	if at, ok := f.OccurredAt(); ok {
		e.OccurredAt = at
	} else {
		e.OccurredAt = received
	}
	if e.ID, err = eventID(f["event_id"], e); err != nil {
		return Event{}, err
	}
	return e, nil
}

func absent(raw json.RawMessage) bool { return raw == nil || string(raw) == "null" }

// integer matches a JSON number without fraction and exponent. An id or a version is read by
// its digits: as a float64, 2^53+1 would become another order.
var integer = regexp.MustCompile(`^-?[0-9]+$`)

// syncID also refuses control characters: the id becomes part of a workflow id and is typed
// and read by people.
func syncID(raw json.RawMessage) (string, error) {
	if absent(raw) {
		return "", reject(MissingField, "sync_id is missing")
	}
	var id string
	switch {
	case raw[0] == '"':
		if err := json.Unmarshal(raw, &id); err != nil {
			return "", reject(InvalidField, "sync_id: %v", err)
		}
		if err := refuseHalfPairs("sync_id", raw); err != nil {
			return "", err
		}
		id = strings.TrimSpace(id)
	case string(raw) == "-0":
		id = "0"
	case integer.Match(raw):
		id = string(raw)
	default:
		return "", reject(InvalidField, "sync_id must be an integer or a string, not %s", clip(raw))
	}
	switch {
	case id == "":
		return "", reject(InvalidField, "sync_id is empty")
	case len(id) > MaxSyncID:
		return "", reject(InvalidField, "sync_id has %d bytes, the limit is %d", len(id), MaxSyncID)
	case strings.ContainsFunc(id, unicode.IsControl):
		return "", reject(InvalidField, "sync_id %q contains a control character", id)
	}
	return id, nil
}

// refuseHalfPairs rejects an id with half of a surrogate pair, such as "\ud83d". It is no text, and encoding/json makes
// the same character of all of them: two ids would be one.
func refuseHalfPairs(field string, raw json.RawMessage) error {
	if _, lone := unescape(nil, raw[1:len(raw)-1]); lone {
		return reject(InvalidField, "%s %s has half of a surrogate pair, which is no character", field, clip(raw))
	}
	return nil
}

func kind(raw json.RawMessage) (Kind, error) {
	if absent(raw) {
		return "", reject(MissingField, "event is missing")
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return "", reject(InvalidField, "event must be a string, not %s", clip(raw))
	}
	for _, k := range Kinds {
		if Kind(s) == k {
			return k, nil
		}
	}
	return "", reject(UnknownEvent, "event %s is none of %s, %s, %s", clip(raw), Creation, Update, Invoice)
}

func version(raw json.RawMessage) (int64, error) {
	if absent(raw) {
		return 0, nil
	}
	v, err := strconv.ParseInt(string(raw), 10, 64)
	if err != nil || v < 1 {
		return 0, reject(InvalidField, "version must be an integer of 1 or more within 64 bits, not %s", clip(raw))
	}
	return v, nil
}

// The range of a MySQL DATETIME (https://dev.mysql.com/doc/refman/8.4/en/datetime.html).
var (
	firstTime = time.Date(1000, 1, 1, 0, 0, 0, 0, time.UTC)
	lastTime  = time.Date(9999, 12, 31, 23, 59, 59, 999_000_000, time.UTC)
)

// ClampTime brings a time into the range a MySQL DATETIME can hold. A record's timestamp is
// whatever its producer wrote, and must not be able to stop the event.
func ClampTime(t time.Time) time.Time {
	switch t = t.UTC(); {
	case t.Before(firstTime):
		return firstTime
	case t.After(lastTime):
		return lastTime
	default:
		return t
	}
}

// Plausible returns whether a record's timestamp may be when it was written, as seen at now. Producers also write -1 and 0
// (none), seconds or microseconds for milliseconds, and what a clock says that is far ahead.
func Plausible(timestamp, now time.Time) bool {
	return !timestamp.Before(firstPlausible) && timestamp.Before(now.Add(clockSkew))
}

// Seconds that are taken for milliseconds come to 1970. No clock that is right is a day ahead.
var firstPlausible = time.Date(1971, 1, 1, 0, 0, 0, 0, time.UTC)

const clockSkew = 24 * time.Hour

// namespace is the UUIDv5 namespace of every event id that ordersync derives. It is part of
// the ledger's meaning: with another one, re-read events would be new ones.
var namespace = uuid.MustParse("5d6ff5b3-5a4c-5d0e-9e0b-3b1c1b4e7a52")

func eventID(raw json.RawMessage, e Event) (uuid.UUID, error) {
	if absent(raw) {
		return derivedID(e), nil
	}
	var s string
	if err := json.Unmarshal(raw, &s); err != nil {
		return uuid.Nil, reject(InvalidField, "event_id must be a string, not %s", clip(raw))
	}
	if err := refuseHalfPairs("event_id", raw); err != nil {
		return uuid.Nil, err
	}
	switch {
	case s == "":
		return uuid.Nil, reject(InvalidField, "event_id is empty; leave it out to have one derived")
	case len(s) > MaxEventID:
		return uuid.Nil, reject(InvalidField, "event_id has %d bytes, the limit is %d", len(s), MaxEventID)
	}
	id := ParseEventID(s)
	if id == uuid.Nil {
		// What a producer sends that has none (.NET's Guid.Empty): all its events would be one.
		return uuid.Nil, reject(InvalidField, "event_id is the nil UUID; leave it out to have one derived")
	}
	return id, nil
}

// ParseEventID is the id that stands for an ERP's event_id: itself where it is a UUID in its
// usual form of 36 characters, else the UUIDv5 of the string.
func ParseEventID(s string) uuid.UUID {
	const canonical = len("00000000-0000-0000-0000-000000000000")
	if len(s) == canonical {
		if id, err := uuid.Parse(s); err == nil {
			return id
		}
	}
	return derive("event_id", s)
}

// derivedID identifies an event whose producer gave it no id: by order, kind and version, an invoice also by
// its data, as an order may have several of one version; or without a version by where and when it stands in
// Kafka. The timestamp distinguishes a topic that was made again from the old one.
func derivedID(e Event) uuid.UUID {
	switch {
	case e.Versioned() && e.Kind == Invoice:
		return invoiceID(e, e.Digest)
	case e.Versioned():
		return versionID(e)
	default:
		return derive("record", e.Source.Topic, strconv.Itoa(e.Source.Partition),
			strconv.FormatInt(e.Source.Offset, 10), strconv.FormatInt(e.Source.ReceivedAt.UnixMilli(), 10))
	}
}

func versionID(e Event) uuid.UUID {
	return derive("version", e.SyncID, string(e.Kind), strconv.FormatInt(e.Version, 10))
}

func invoiceID(e Event, digest string) uuid.UUID {
	return derive("version", e.SyncID, string(e.Kind), strconv.FormatInt(e.Version, 10), digest)
}

// Alias is a second id under which the ledger may have an event.
type Alias struct {
	// ID is the nil UUID where there is none.
	ID uuid.UUID
	// Digest is that of the data which the event called ID must have to be the same one. It is empty where
	// the id stands for this data alone.
	Digest string
}

// Alias returns the second id that the ledger may have the event under. An invoice with a version and no
// event_id was once identified by its version alone, and such an event may stand in the ledger, in Kafka, in a
// workflow or in a dead letter for as long as these are kept. Each form is the alias of the other. Without it,
// an invoice that is read again after the change would be a second row.
func (e Event) Alias() Alias {
	if e.Kind != Invoice || !e.Versioned() {
		return Alias{}
	}
	digest := e.Digest
	if digest == "" {
		digest = MeaningOf(e.Data).Digest()
	}
	switch former, id := versionID(e), invoiceID(e, digest); e.ID {
	case id:
		return Alias{ID: former, Digest: digest}
	case former:
		return Alias{ID: id}
	default:
		return Alias{}
	}
}

// RowID identifies an event that was polled and has neither event_id nor version, so that it is the
// same event whenever it is polled again: by its place in the ERP, which is empty where the ERP tells
// none, and by its value without an id.
func RowID(place string, value []byte) uuid.UUID {
	name := append(make([]byte, 0, len(place)+len(value)+8), "row\x00"...)
	name = append(append(name, place...), 0)
	return uuid.NewSHA1(namespace, append(name, value...))
}

// derive joins its parts by NUL, which none of them can contain except an event_id, the last
// and only part of its rule.
func derive(rule string, parts ...string) uuid.UUID {
	return uuid.NewSHA1(namespace, []byte(rule+"\x00"+strings.Join(parts, "\x00")))
}

// clip shortens raw input for an error message.
func clip(raw []byte) string {
	const most = 80
	return Clip(raw, most)
}
