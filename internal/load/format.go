package load

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"
)

// FormatError is the error of a file that holds no JSON as it is, none of which is published.
type FormatError struct {
	// Format names what the file is, as in "it is …".
	Format string
	// Convert is a shell command that writes the file, its last argument, as JSON or nearer to it; empty
	// if there is none.
	Convert string
	// Advice is what to do where no command does it.
	Advice string
}

func (e *FormatError) Error() string { return "it is " + e.Format }

// utf8Mark is the byte order mark of UTF-8.
var utf8Mark = []byte("\xef\xbb\xbf")

const asNDJSON = "write each event as one JSON object on a line of its own, as `ordersync simulate 1` prints them"

// signatures are the first bytes of formats. The longer one of two that begin alike comes first.
var signatures = []struct {
	prefix string
	FormatError
}{
	{"\x1f\x8b", FormatError{Format: "compressed with gzip", Convert: "gunzip -c"}},
	{"\x28\xb5\x2f\xfd", FormatError{Format: "compressed with zstd", Convert: "zstd -dc"}},
	{"BZh", FormatError{Format: "compressed with bzip2", Convert: "bunzip2 -c"}},
	{"\xfd7zXZ", FormatError{Format: "compressed with xz", Convert: "xz -dc"}},
	{"\x04\x22\x4d\x18", FormatError{Format: "compressed with lz4", Convert: "lz4 -dc"}},
	{"PK\x03\x04", FormatError{Format: "a zip archive (or a spreadsheet)", Convert: "unzip -p"}},
	{"PAR1", FormatError{Format: "a Parquet file", Advice: asNDJSON}},
	{"Obj\x01", FormatError{Format: "an Avro file", Advice: asNDJSON}},
	{"%PDF", FormatError{Format: "a PDF", Advice: asNDJSON}},
	{"\x1e", FormatError{Format: "a JSON text sequence (RFC 7464)", Convert: `sed "s/^$(printf '\036')//"`}},
	{"\xff\xfe\x00\x00", FormatError{Format: "UTF-32 text", Convert: "iconv -f UTF-32 -t UTF-8"}},
	{"\x00\x00\xfe\xff", FormatError{Format: "UTF-32 text", Convert: "iconv -f UTF-32 -t UTF-8"}},
	{"\xff\xfe", FormatError{Format: "UTF-16 text", Convert: "iconv -f UTF-16 -t UTF-8"}},
	{"\xfe\xff", FormatError{Format: "UTF-16 text", Convert: "iconv -f UTF-16 -t UTF-8"}},
}

// foreign is what a file is whose beginning shows that it holds no JSON in UTF-8; nil if it may.
func foreign(head []byte) *FormatError {
	for _, s := range signatures {
		if bytes.HasPrefix(head, []byte(s.prefix)) {
			return &s.FormatError
		}
	}
	// UTF-16 without a mark: JSON begins with a character of ASCII.
	if len(head) >= 4 {
		switch a, b := binary.BigEndian.Uint16(head), binary.BigEndian.Uint16(head[2:]); {
		case a < utf8.RuneSelf && b < utf8.RuneSelf && a > 0:
			return &FormatError{Format: "UTF-16 text", Convert: "iconv -f UTF-16BE -t UTF-8"}
		case a&0xff == 0 && b&0xff == 0 && a > 0:
			return &FormatError{Format: "UTF-16 text", Convert: "iconv -f UTF-16LE -t UTF-8"}
		}
	}
	text := bytes.TrimSpace(bytes.TrimPrefix(head, utf8Mark))
	if len(text) == 0 {
		return nil // what is behind the blanks is not known yet
	}
	switch text[0] {
	case '{':
		first, rest := firstValue(firstLine(text))
		if first && string(rest) == "," {
			return &FormatError{Format: "JSON objects with a comma behind each", Convert: `sed 's/,[[:space:]]*$//'`}
		}
		return nil
	case '[':
		return nil
	case '<':
		return &FormatError{Format: "XML or HTML", Advice: asNDJSON}
	case 0:
		return &FormatError{Format: "binary", Advice: asNDJSON}
	}
	for line := range bytes.Lines(text) {
		if line[0] == '{' {
			return nil // NDJSON with something else before it, which is named by its line
		}
	}
	if separator := columns(text); separator != 0 {
		return &FormatError{Format: fmt.Sprintf("a table (CSV with %q between the columns)", separator), Advice: asNDJSON}
	}
	return &FormatError{Format: fmt.Sprintf("text that holds no JSON object; it begins with %q", clipped(firstLine(text))), Advice: asNDJSON}
}

// isStream reports whether a file is a stream of JSON values, and not NDJSON.
func isStream(head []byte) bool {
	text := bytes.TrimLeft(head, " \t\r\n")
	if len(text) == 0 || text[0] != '{' {
		return len(text) > 0 && text[0] == '['
	}
	if first, rest := firstValue(firstLine(text)); first {
		return len(rest) > 0 && rest[0] == '{'
	}
	if !bytes.ContainsRune(text, '\n') {
		return false // one long line, as far as it is known
	}
	// A first line that ends within its value: either the next lines go on with it, or it is damaged.
	var value json.RawMessage
	err := json.NewDecoder(bytes.NewReader(text)).Decode(&value)
	return err == nil || errors.Is(err, io.ErrUnexpectedEOF)
}

// firstValue reports whether a line begins with a whole JSON value, and gives what follows it.
func firstValue(line []byte) (whole bool, rest []byte) {
	d := json.NewDecoder(bytes.NewReader(line))
	var value json.RawMessage
	if d.Decode(&value) != nil {
		return false, nil
	}
	return true, bytes.TrimSpace(line[d.InputOffset():])
}

func firstLine(text []byte) []byte {
	line, _, _ := bytes.Cut(text, []byte("\n"))
	return bytes.TrimSpace(line)
}

// columns is the character that separates the columns of a table: the first two lines have the same number
// of it. It is 0 where there is none.
func columns(text []byte) rune {
	first, rest, two := bytes.Cut(text, []byte("\n"))
	second := firstLine(rest)
	for _, separator := range ",;\t|" {
		n := bytes.Count(first, []byte(string(separator)))
		if n > 0 && (!two || len(second) == 0 || bytes.Count(second, []byte(string(separator))) == n) {
			return separator
		}
	}
	return 0
}

// clipped is the beginning of a line, for a message.
func clipped(line []byte) string {
	const enough = 40
	if len(line) <= enough {
		return string(line)
	}
	return string(line[:enough]) + "…"
}
