package order_test

import (
	"encoding/binary"
	"testing"
	"unicode/utf16"

	"github.com/stretchr/testify/require"

	"ordersync/internal/order"
)

func inUTF16(bom bool, bytes binary.AppendByteOrder, text string) string {
	var out []byte
	if bom {
		out = bytes.AppendUint16(out, 0xFEFF)
	}
	for _, unit := range utf16.Encode([]rune(text)) {
		out = bytes.AppendUint16(out, unit)
	}
	return string(out)
}

// What other tools write is named, so that the one who reads the letter knows what to set where.
func TestForeignFormsAreNamed(t *testing.T) {
	const event = `{"sync_id":1,"event":"order_creation","data":1}`
	for name, c := range map[string]struct {
		value  string
		reason order.Reason
		says   string
	}{
		"registry, JSON":            {"\x00\x00\x00\x00\x01" + event, order.SchemaRegistryFrame, "JSON in the frame of a schema registry (a byte 0 and the schema id 1)"},
		"registry, Avro":            {"\x00\x00\x00\x01\x02\x02\x0e1234567", order.SchemaRegistryFrame, "Avro or Protobuf in the frame of a schema registry (a byte 0 and the schema id 258)"},
		"registry, Protobuf":        {"\x00\x00\x00\x00\x07\x00\x0a\x0242", order.SchemaRegistryFrame, "schema id 7"},
		"Debezium":                  {`{"before":null,"after":{"sync_id":1},"source":{"db":"erp"},"op":"c","ts_ms":1}`, order.DebeziumEnvelope, "Debezium"},
		"Debezium with its schema":  {`{"schema":{"type":"struct"},"payload":{"before":{},"after":null,"source":{},"op":"d"}}`, order.DebeziumEnvelope, "Debezium"},
		"CloudEvents":               {`{"specversion":"1.0","id":"1","source":"/erp","type":"order.created","data":` + event + `}`, order.CloudEventsEnvelope, "CloudEvents"},
		"Kafka Connect":             {`{"schema":{"type":"string"},"payload":"x"}`, order.ForeignFormat, "schemas.enable=false"},
		"UTF-8 with a BOM":          {"\xEF\xBB\xBF" + event, order.ForeignFormat, "byte order mark"},
		"UTF-16 LE":                 {inUTF16(true, binary.LittleEndian, event), order.ForeignFormat, "UTF-16 (little endian)"},
		"UTF-16 BE":                 {inUTF16(true, binary.BigEndian, event), order.ForeignFormat, "UTF-16 (big endian)"},
		"UTF-16 LE without a BOM":   {inUTF16(false, binary.LittleEndian, event), order.ForeignFormat, "UTF-16 (little endian"},
		"UTF-16 BE without a BOM":   {inUTF16(false, binary.BigEndian, event), order.ForeignFormat, "UTF-16 (big endian"},
		"gzip":                      {"\x1f\x8b\x08\x00\x00\x00\x00\x00", order.ForeignFormat, "gzip"},
		"zstd":                      {"\x28\xb5\x2f\xfd\x04", order.ForeignFormat, "zstd"},
		"Avro container":            {"Obj\x01\x04\x14avro.codec", order.ForeignFormat, "Avro object container"},
		"Avro single object":        {"\xc3\x01\x01\x02\x03\x04\x05\x06\x07\x08", order.ForeignFormat, "single-object"},
		"Java":                      {"\xac\xed\x00\x05t\x00\x01x", order.ForeignFormat, "Java"},
		"Glue":                      {"\x03\x000123456789abcdef" + event, order.ForeignFormat, "Glue"},
		"XML":                       {"<?xml version=\"1.0\"?><order/>", order.ForeignFormat, "XML"},
		"array":                     {"[" + event + "]", order.MalformedJSON, "JSON array"},
		"encoded twice":             {`"{\"sync_id\":1}"`, order.MalformedJSON, "encoded twice"},
		"lines":                     {event + "\n" + event, order.MalformedJSON, "more than one JSON value"},
		"number":                    {"17", order.MalformedJSON, "17"},
		"a DELETE of no other tool": {`{"op":"d"}`, order.MissingField, "sync_id"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := order.Decode(record(c.value), order.Online)
			var r *order.Rejection
			require.ErrorAs(t, err, &r)
			require.Equal(t, c.reason, r.Reason, r.Detail)
			require.Contains(t, r.Detail, c.says)
			require.Less(t, len(r.Detail), 400)
		})
	}
	// An event whose fields look like an envelope's is an event.
	require.Equal(t, "1", decode(t, `{"sync_id":1,"event":"order_creation","data":1,"specversion":"1.0","id":"1","source":"s","type":"t","op":"c","after":1}`).SyncID)
}
