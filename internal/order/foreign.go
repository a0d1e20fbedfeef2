package order

import (
	"bytes"
	"encoding/json"
)

// The reasons for records that other tools have written in their own form, and that hold no event as they are.
const (
	// SchemaRegistryFrame is a value that a serializer of a schema registry wrote: a byte 0 and the schema's id before it.
	SchemaRegistryFrame Reason = "schema-registry-frame"
	// DebeziumEnvelope is a change of a table, as Debezium writes it.
	DebeziumEnvelope Reason = "debezium-envelope"
	// CloudEventsEnvelope is an event in the structured mode of CloudEvents.
	CloudEventsEnvelope Reason = "cloudevents-envelope"
	// ForeignFormat is any other form that is known; the detail names it.
	ForeignFormat Reason = "foreign-format"
)

// beginnings are the first bytes of forms that are no JSON. The longer come first.
var beginnings = []struct{ first, what string }{
	{"Obj\x01", "an Avro object container file; send JSON"},
	{"\xEF\xBB\xBF", "JSON after a byte order mark (UTF-8 BOM); send it without"},
	{"\xFF\xFE", "text in UTF-16 (little endian); send UTF-8"},
	{"\xFE\xFF", "text in UTF-16 (big endian); send UTF-8"},
	{"{\x00", "text in UTF-16 (little endian, without a byte order mark); send UTF-8"},
	{"\x00{", "text in UTF-16 (big endian, without a byte order mark); send UTF-8"},
	{"\x1F\x8B", "compressed by gzip as a value; send it plain, and let the producer compress (compression.type)"},
	{"\x28\xB5\x2F\xFD", "compressed by zstd as a value; send it plain, and let the producer compress (compression.type)"},
	{"\x04\x22\x4D\x18", "compressed by lz4 as a value; send it plain, and let the producer compress (compression.type)"},
	{"\x82SNAPPY\x00", "compressed by snappy as a value; send it plain, and let the producer compress (compression.type)"},
	{"PK\x03\x04", "a zip archive; send JSON"},
	{"\xC3\x01", "Avro's single-object encoding; send JSON"},
	{"\xAC\xED\x00\x05", "a serialized Java object; send JSON (value.serializer)"},
	{"\x03\x00", "a frame of AWS Glue Schema Registry; send the JSON without it"},
	{"\x03\x05", "a compressed frame of AWS Glue Schema Registry; send the JSON without it"},
	{"<", "XML or HTML; send JSON"},
}

// registryFrame is the length of what a schema registry's serializer writes before a value.
const registryFrame = 1 + 4

// foreign names the form of a value that is no JSON object by its first bytes; nil for one that is not known.
func foreign(value []byte) error {
	if len(value) > registryFrame && value[0] == 0 && value[1] != '{' {
		id := int(value[1])<<24 | int(value[2])<<16 | int(value[3])<<8 | int(value[4])
		form := "Avro or Protobuf"
		if c := bytes.TrimLeft(value[registryFrame:], " \t\r\n"); len(c) > 0 && c[0] == '{' && json.Valid(c) {
			form = "JSON"
		}
		return reject(SchemaRegistryFrame, "the value is %s in the frame of a schema registry (a byte 0 and the schema id %d); use a plain JSON serializer (value.serializer, value.converter)", form, id)
	}
	for _, b := range beginnings {
		if bytes.HasPrefix(value, []byte(b.first)) {
			return reject(ForeignFormat, "the value is %s", b.what)
		}
	}
	return nil
}

// notAnObject says what JSON is that is no object, or why it is no JSON.
func notAnObject(value []byte, err error) error {
	trimmed := bytes.TrimLeft(value, " \t\r\n")
	switch {
	case len(trimmed) == 0:
		return reject(MalformedJSON, "the value is empty, an event is a JSON object")
	case tooDeep(value):
		return reject(TooDeep, "the value is nested more than %d levels deep, and data may be %d", jsonDepth, MaxDepth)
	case !json.Valid(value):
		if rest, ok := several(value); ok {
			return reject(MalformedJSON, "the value is more than one JSON value, the second begins with %s; a record is one event", clip(rest))
		}
		return reject(MalformedJSON, "the value is no JSON object: %v", err)
	case trimmed[0] == '[':
		return reject(MalformedJSON, "the value is a JSON array; a record is one event, a JSON object")
	case trimmed[0] == '"':
		return reject(MalformedJSON, "the value is a JSON string; an event is a JSON object, and this may be one that was encoded twice")
	default:
		return reject(MalformedJSON, "the value is %s, an event is a JSON object", clip(trimmed))
	}
}

// several returns what follows the first of several JSON values.
func several(value []byte) (rest []byte, ok bool) {
	d := json.NewDecoder(bytes.NewReader(value))
	var first json.RawMessage
	if d.Decode(&first) != nil || first[0] != '{' {
		return nil, false
	}
	rest = bytes.TrimLeft(value[d.InputOffset():], " \t\r\n")
	return rest, len(rest) > 0 && rest[0] == '{'
}

// envelope names the form of an object without a sync_id, where it is the envelope of another tool; nil for one that is not
// known.
func (f Fields) envelope() error {
	has := func(fields Fields, names ...string) bool {
		for _, name := range names {
			if _, ok := fields[name]; !ok {
				return false
			}
		}
		return true
	}
	debezium := func(fields Fields) bool {
		return has(fields, "op", "source") && (has(fields, "before") || has(fields, "after"))
	}
	var payload Fields
	inPayload := json.Unmarshal(f["payload"], &payload) == nil && payload != nil
	switch {
	case debezium(f), inPayload && debezium(payload):
		return reject(DebeziumEnvelope, "the value is a change in Debezium's envelope (before, after, op); an event has sync_id, event and data at its top (see the transform ExtractNewRecordState)")
	case has(f, "specversion", "id", "source", "type"):
		return reject(CloudEventsEnvelope, "the value is in the structured mode of CloudEvents, and its data would be the event; send the event itself (CloudEvents' binary mode does)")
	case has(f, "schema", "payload"):
		return reject(ForeignFormat, "the value is JSON with Kafka Connect's schema (schema, payload); set value.converter.schemas.enable=false")
	default:
		return nil
	}
}
