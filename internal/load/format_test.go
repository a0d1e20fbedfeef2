package load

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf16"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// three are three events as lines.
const three = `{"sync_id":1,"channel":"store","data":{"a":[1,{"b":2}]}}
{"sync_id":2,"channel":"store","data":"x\ny"}
{"sync_id":3,"channel":"store","data":1e400}
`

func utf16Text(order binary.AppendByteOrder, text string) []byte {
	var out []byte
	for _, unit := range utf16.Encode([]rune(text)) {
		out = order.AppendUint16(out, unit)
	}
	return out
}

func gzipped(t *testing.T, text string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := io.WriteString(w, text)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return out.Bytes()
}

func zstandard(t *testing.T, text string) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	require.NoError(t, err)
	return w.EncodeAll([]byte(text), nil)
}

func zipped(t *testing.T, text string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := zip.NewWriter(&out)
	file, err := w.Create("orders.ndjson")
	require.NoError(t, err)
	_, err = io.WriteString(file, text)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return out.Bytes()
}

// A file of another format is one error that names it, however many lines it has.
func TestAnotherFormatIsNamedOnce(t *testing.T) {
	many := strings.Repeat(three, 5000)
	for name, tc := range map[string]struct {
		file    []byte
		format  string
		convert string
	}{
		"gzip":                      {gzipped(t, many), "it is compressed with gzip", "gunzip -c"},
		"zstd":                      {zstandard(t, many), "it is compressed with zstd", "zstd -dc"},
		"zip":                       {zipped(t, many), "it is a zip archive", "unzip -p"},
		"bzip2":                     {[]byte("BZh91AY&SY\n\n"), "it is compressed with bzip2", "bunzip2 -c"},
		"xz":                        {[]byte("\xfd7zXZ\x00\x00"), "it is compressed with xz", "xz -dc"},
		"UTF-16, little end first":  {append([]byte{0xff, 0xfe}, utf16Text(binary.LittleEndian, many)...), "it is UTF-16", "iconv -f UTF-16 -t UTF-8"},
		"UTF-16, big end first":     {append([]byte{0xfe, 0xff}, utf16Text(binary.BigEndian, many)...), "it is UTF-16", "iconv -f UTF-16 -t UTF-8"},
		"UTF-16 LE without a mark":  {utf16Text(binary.LittleEndian, many), "it is UTF-16", "iconv -f UTF-16LE -t UTF-8"},
		"UTF-16 BE without a mark":  {utf16Text(binary.BigEndian, many), "it is UTF-16", "iconv -f UTF-16BE -t UTF-8"},
		"UTF-32":                    {[]byte("\xff\xfe\x00\x00{\x00\x00\x00"), "it is UTF-32", "iconv -f UTF-32 -t UTF-8"},
		"XML":                       {[]byte("\ufeff<?xml version=\"1.0\"?>\n" + strings.Repeat("<order/>\n", 5000)), "it is XML or HTML", ""},
		"CSV":                       {[]byte(strings.Repeat("1,order_creation,\"{}\"\n", 5000)), `it is a table (CSV with ',' between the columns)`, ""},
		"CSV with semicolons":       {[]byte("sync_id;event;data\n1;order_creation;7\n"), `CSV with ';' between`, ""},
		"a heading of columns only": {[]byte("sync_id\tevent\n"), `CSV with '\t' between`, ""},
		"text":                      {[]byte(strings.Repeat("the orders of today\n", 5000)), `it is text that holds no JSON object; it begins with "the orders of today"`, ""},
		"YAML":                      {[]byte("- sync_id: 1\n  event: order_creation\n"), `it begins with "- sync_id: 1"`, ""},
		"Parquet":                   {[]byte("PAR1\x15\x04\n\n"), "it is a Parquet file", ""},
		"Avro":                      {[]byte("Obj\x01\x04\n"), "it is an Avro file", ""},
		"a JSON text sequence":      {[]byte("\x1e{\"sync_id\":1}\n"), "it is a JSON text sequence", `sed "s/^$(printf '\036')//"`},
		"commas between objects":    {[]byte(strings.ReplaceAll(many, "}\n", "},\n")), "it is JSON objects with a comma behind each", `sed 's/,[[:space:]]*$//'`},
		"nothing":                   {nil, "it is empty", ""},
		"nothing but a mark":        {[]byte("\ufeff"), "it is empty", ""},
		"nothing but blanks":        {[]byte(strings.Repeat(" \r\n", 50_000)), "it is empty", ""},
		"an empty array":            {[]byte("[\n]\n"), "it is empty", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var b broker
			p, bad, err := run(t.Context(), bytes.NewReader(tc.file), &b, Options{})
			var format *FormatError
			require.ErrorAs(t, err, &format)
			require.ErrorContains(t, err, tc.format)
			assert.Equal(t, tc.convert, format.Convert)
			assert.Empty(t, bad)
			assert.Zero(t, p.Records())
			assert.Empty(t, b.calls)
		})
	}
}

// What holds the three events, in whatever layout, publishes the same three.
func TestEveryLayoutOfJSONIsRead(t *testing.T) {
	lines := strings.Split(strings.TrimSpace(three), "\n")
	pretty := `{
  "sync_id": 1,
  "channel": "store",
  "data": {"a": [1,
    {"b": 2}]}
}
{
  "sync_id": 2, "channel": "store",
  "data": "x\ny"
}

{"sync_id":3,
 "channel":"store","data":1e400}
`
	for name, tc := range map[string]struct {
		file  string
		lines int
	}{
		"NDJSON":                        {three, 3},
		"with a byte order mark":        {"\ufeff" + three, 3},
		"with CRLF":                     {strings.ReplaceAll(three, "\n", "\r\n"), 3},
		"with a mark, CRLF and blanks":  {"\ufeff\r\n" + strings.ReplaceAll(three, "\n", "\r\n\r\n"), 7},
		"without the last line end":     {strings.TrimSpace(three), 3},
		"pretty-printed":                {pretty, 13},
		"pretty-printed, mark and CRLF": {"\ufeff" + strings.ReplaceAll(pretty, "\n", "\r\n"), 13},
		"an array on one line":          {"[" + strings.Join(lines, ",") + "]", 1},
		"an array of lines":             {"[\n" + strings.Join(lines, ",\n") + "\n]\n", 5},
		"a pretty-printed array":        {"[" + strings.ReplaceAll(strings.TrimSpace(pretty), "\n}\n", "\n},\n") + "]", 0},
		"an array a line":               {"[" + lines[0] + "]\n[" + lines[1] + "," + lines[2] + "]\n", 2},
		"arrays and values":             {"[" + lines[0] + "]\n" + lines[1] + "[]\n" + lines[2], 3},
		"objects on one line":           {strings.Join(lines, ""), 1},
	} {
		if name == "a pretty-printed array" {
			tc.file = strings.Replace(tc.file, "},\n\n{", "},\n{", 1)
		}
		for _, slow := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, slow %v", name, slow), func(t *testing.T) {
				var in io.Reader = strings.NewReader(tc.file)
				if slow {
					if name == "objects on one line" {
						t.Skip("with its first bytes alone it looks like NDJSON")
					}
					in = iotest.OneByteReader(in)
				}
				var b broker
				p, bad, err := run(t.Context(), in, &b, Options{})
				require.NoError(t, err)
				require.Empty(t, bad)
				assert.Equal(t, 3, p.Published)
				assert.EqualValues(t, len(tc.file), p.Bytes)
				if tc.lines > 0 {
					assert.Equal(t, tc.lines, p.Lines)
				}
				got := b.values()
				require.Len(t, got, 3)
				for i, value := range got {
					assert.NotContains(t, value, "\n")
					if i < 2 { // the third's number fits into no float64
						assert.JSONEq(t, lines[i], value)
					}
				}
				assert.Contains(t, got[2], "1e400", "numbers are kept as they are")
			})
		}
	}
}

// In a stream as well, a value that is no event to address is named by its line, and the others go on.
func TestMalformedValuesOfAStream(t *testing.T) {
	in := "[\n  {\"sync_id\": 1,\n   \"channel\": \"store\"},\n  7,\n  {\"sync_id\": 2},\n  null,\n  [],\n  {\"sync_id\": 3, \"channel\": \"store\"}\n]\n"
	var b broker
	p, bad, err := run(t.Context(), strings.NewReader(in), &b, Options{})
	require.NoError(t, err)
	assert.Equal(t, Progress{Lines: 9, Bytes: int64(len(in)), Published: 2, Malformed: 4}, p)
	assert.Equal(t, `{"sync_id":1,"channel":"store"}`, b.values()[0])
	for line, want := range map[int]string{4: "no JSON object", 5: "names no channel", 6: "null", 7: "no JSON object"} {
		assert.Contains(t, bad[line], want)
	}
}

// Where a stream is broken nothing after it can be told apart: what came before is published.
func TestABrokenStream(t *testing.T) {
	element := `{"sync_id":1,"channel":"store"}`
	for name, tc := range map[string]struct{ file, want string }{
		"cut off in a value":   {"[\n" + element + ",\n{\"sync_id\":", "line 3: the file ends within a JSON value: is it complete?"},
		"cut off between":      {"[\n" + element + ",\n", "line 2: the file ends within a JSON value"},
		"no comma":             {"[\n" + element + "\n" + element + "]", "line 3: what follows is no JSON: "},
		"a bracket too many":   {"[" + element + "]\n]", "line 2: what follows is no JSON: "},
		"garbage":              {"[\n" + element + ",\nnonsense]", "line 3: what follows is no JSON: "},
		"a value too long":     {"[" + element + ",\n\"" + strings.Repeat("x", 2*MaxRecord) + "\"]", "line 2: the JSON value is longer than 16777216 bytes"},
		"blanks without end":   {"[" + element + ",\n" + strings.Repeat(" ", 2*MaxRecord) + "1]", "line 2: the JSON value is longer"},
		"a value in a value":   {"[" + element + ",\n" + strings.Repeat("[", 10_001), "line 2: what follows is no JSON: "},
		"in the second object": {"{\n\"sync_id\":1,\"channel\":\"store\"}\n{\"sync_id\":2,}\n", "line 3: what follows is no JSON: "},
	} {
		t.Run(name, func(t *testing.T) {
			var b broker
			p, bad, err := run(t.Context(), strings.NewReader(tc.file), &b, Options{})
			require.ErrorContains(t, err, "the first 1 records are dealt with, the next cannot be read: ")
			require.ErrorContains(t, err, tc.want)
			assert.Empty(t, bad)
			assert.Equal(t, 1, p.Published)
			assert.Len(t, b.values(), 1)
		})
	}
}

// A damaged line of NDJSON is named, also if it is the first, and stops none of the others.
func TestADamagedFirstLineIsNoOtherFormat(t *testing.T) {
	for _, first := range []string{`{"sync_id":1,"chan`, `{"sync_id":1,`, `{`, `nonsense`, `{"sync_id":1}}`, `a,b`} {
		var b broker
		p, bad, err := run(t.Context(), strings.NewReader(first+"\n"+three), &b, Options{})
		require.NoError(t, err, first)
		assert.Contains(t, bad[1], "no JSON object", first)
		assert.Equal(t, 3, p.Published, first)
	}
}

// An API's answer around the events.
func TestAnEnvelopeIsNamed(t *testing.T) {
	_, bad, err := run(t.Context(), strings.NewReader(`{"next": null, "orders": [ {"sync_id": 1} ]}`), &broker{}, Options{})
	require.NoError(t, err)
	assert.Equal(t, `it has no sync_id; if its field orders has the events, "jq -c '.orders[]'" takes them out`, bad[1])
}
