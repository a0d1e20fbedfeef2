package order

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// Meaning is a digest of what JSON data means. It is the same for all that MySQL's JSON type makes of
// data when it stores it: white space, the order of an object's keys, a key that comes twice (the last
// one counts), escapes in strings, and the form of numbers. MariaDB keeps the text as it came.
//
// Numbers are equal by value. An integer is exact as far as MySQL keeps one exactly, to 64 bits. Every
// other number is a float64 there, but not always the one next to it: MySQL 8 parses without RapidJSON's
// full precision and keeps 964.1500000000001 as 964.15 (https://bugs.mysql.com/bug.php?id=112904, and 116160).
// So such a number counts to 15 significant digits, DBL_DIG, and what was written with no more than those means
// itself: the float64s next to the nearest one still round to the same. What has more digits is as a rule the
// noise of an ERP's arithmetic with decimals, as in the example, and lies next to a short one as well. A
// number that truly needs 16 or 17, a ratio say, may lie so near the border between two roundings that its
// neighbour falls on the other side; where MySQL keeps that one, its order differs for good.
//
// Meanings stand in the ledger and in derived event ids. So what a text means never changes.
type Meaning [sha256.Size]byte

// MeaningOf digests data, whose memory may be used again afterwards. What is no JSON, which only
// somebody else can have put into the target, means its bytes.
func MeaningOf(data []byte) Meaning {
	if !json.Valid(data) {
		return sha256.Sum256(append([]byte{tagInvalid}, data...))
	}
	return meaningOfValid(data)
}

// meaningOfValid digests data that is known to be JSON.
func meaningOfValid(data []byte) Meaning {
	r := reader{data: data, out: make([]byte, 0, len(data)+len(data)/4+64)}
	r.value()
	return sha256.Sum256(r.out)
}

// digestBytes is how much of a meaning a digest holds. Two events of one identity are compared by it, and
// nothing else is, so that 128 bits are plenty.
const digestBytes = 16

// Digest is the short form of a meaning that events carry and the ledger keeps: 32 hex digits.
func (m Meaning) Digest() string { return hex.EncodeToString(m[:digestBytes]) }

// Every value is written as a tag and what follows from it, so that no two of them look alike: a
// length before what varies in length, and a digest of fixed length for what holds others. By the
// digest each byte of the data is looked at once, however deep it lies.
const (
	tagInvalid = '?'
	tagLiteral = 'l' // the first letter of null, true, false
	tagString  = '"'
	tagInteger = 'i' // sign, and the magnitude in 8 bytes
	tagFloat   = 'f' // a float64's rounded text
	tagNumber  = 'n' // beyond a float64: its text
	tagArray   = '['
	tagObject  = '{'
)

// reader goes through JSON that is known to be valid, of at most the nesting that encoding/json takes.
type reader struct {
	data []byte
	at   int
	// out ends with what is written of the value that is being read. The content of an array or an object
	// is replaced by its digest once it is complete.
	out []byte
	// members are those of all objects that are being read, the innermost object's last.
	members []member
	// sorted is room for the content of an object whose keys came in another order.
	sorted []byte
	// unescaped is room for a string.
	unescaped []byte
}

// value appends the next value to out.
func (r *reader) value() {
	switch c := r.peek(); c {
	case '{':
		r.object()
	case '[':
		r.array()
	case '"':
		r.out = append(r.out, tagString)
		r.text()
	case 'n', 't', 'f':
		r.at += len("true")
		if c == 'f' {
			r.at++
		}
		r.out = append(r.out, tagLiteral, c)
	default:
		r.number()
	}
}

// peek is the next byte that is no white space.
func (r *reader) peek() byte {
	for {
		switch c := r.data[r.at]; c {
		case ' ', '\t', '\n', '\r':
			r.at++
		default:
			return c
		}
	}
}

func (r *reader) array() {
	start := len(r.out)
	for r.at++; r.peek() != ']'; {
		r.value()
		if r.peek() == ',' {
			r.at++
		}
	}
	r.at++
	r.replace(start, tagArray, r.out[start:])
}

// replace puts the digest of content into the place of what was written since start.
func (r *reader) replace(start int, tag byte, content []byte) {
	sum := sha256.Sum256(content)
	r.out = append(append(r.out[:start], tag), sum[:]...)
}

// member is where a member of an object lies in out: its key with the size before, then its value.
type member struct {
	start, key, value, end int
}

func (r *reader) object() {
	start, first := len(r.out), len(r.members)
	inOrder := true
	for r.at++; r.peek() != '}'; {
		m := member{start: len(r.out)}
		m.key = r.text()
		m.value = len(r.out)
		if last := len(r.members) - 1; last >= first && inOrder {
			inOrder = bytes.Compare(r.key(r.members[last]), r.key(m)) < 0
		}
		r.peek()
		r.at++ // the colon
		r.value()
		m.end = len(r.out)
		r.members = append(r.members, m)
		if r.peek() == ',' {
			r.at++
		}
	}
	r.at++
	content := r.out[start:]
	if !inOrder {
		content = r.sort(r.members[first:])
	}
	r.members = r.members[:first]
	r.replace(start, tagObject, content)
}

func (r *reader) key(m member) []byte { return r.out[m.key:m.value] }

// sort is the content of an object in the order of its keys. Of members of the same key the last counts.
func (r *reader) sort(members []member) []byte {
	slices.SortStableFunc(members, func(x, y member) int { return bytes.Compare(r.key(x), r.key(y)) })
	r.sorted = r.sorted[:0]
	for i, m := range members {
		if i+1 < len(members) && bytes.Equal(r.key(m), r.key(members[i+1])) {
			continue
		}
		r.sorted = append(r.sorted, r.out[m.start:m.end]...)
	}
	return r.sorted
}

// text appends the next string to out, its size before it, and returns where the string then begins.
func (r *reader) text() int {
	r.peek()
	r.at++
	start := r.at
	escaped := false
	for ; r.data[r.at] != '"'; r.at++ {
		if r.data[r.at] == '\\' {
			escaped = true
			r.at++
		}
	}
	text := r.data[start:r.at]
	r.at++
	if escaped {
		r.unescaped, _ = unescape(r.unescaped[:0], text)
		text = r.unescaped
	}
	r.out = binary.AppendUvarint(r.out, uint64(len(text)))
	at := len(r.out)
	r.out = append(r.out, text...)
	return at
}

// unescape appends the characters of a valid JSON string, given without its quotes, to out. It also returns
// whether the string has a surrogate that is one half of no pair, such as \ud83d alone. No text has one.
// encoding/json turns them all into the same character, here each stays its own, in the three bytes that
// UTF-8 would have for it.
func unescape(out, text []byte) (_ []byte, lone bool) {
	for {
		escape := bytes.IndexByte(text, '\\')
		if escape < 0 {
			return append(out, text...), lone
		}
		out = append(out, text[:escape]...)
		c := text[escape+1]
		text = text[escape+2:]
		switch c {
		case 'b':
			out = append(out, '\b')
		case 'f':
			out = append(out, '\f')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 't':
			out = append(out, '\t')
		case 'u':
			unit := codeUnit(text)
			text = text[hexDigits:]
			switch {
			case !utf16.IsSurrogate(unit):
				out = utf8.AppendRune(out, unit)
				continue
			case bytes.HasPrefix(text, []byte(`\u`)):
				if pair := utf16.DecodeRune(unit, codeUnit(text[2:])); pair != utf8.RuneError {
					out, text = utf8.AppendRune(out, pair), text[2+hexDigits:]
					continue
				}
			}
			lone = true
			out = append(out, 0xE0|byte(unit>>12), 0x80|byte(unit>>6)&0x3F, 0x80|byte(unit)&0x3F)
		default: // a quote, a backslash or a slash
			out = append(out, c)
		}
	}
}

// hexDigits are those of an escape \uXXXX.
const hexDigits = 4

// codeUnit is the UTF-16 code unit that a text begins with in hex digits, as in a valid JSON string.
func codeUnit(text []byte) rune {
	var unit rune
	for _, c := range text[:hexDigits] {
		switch {
		case c <= '9':
			c -= '0'
		default:
			c = c&^0x20 - 'A' + 10
		}
		unit = unit<<4 | rune(c)
	}
	return unit
}

func (r *reader) number() {
	r.peek()
	start := r.at
	integer := true
	for ; r.at < len(r.data); r.at++ {
		switch c := r.data[r.at]; {
		case c >= '0' && c <= '9', c == '-' && r.at == start:
			continue
		case c == '.', c == 'e', c == 'E', c == '+', c == '-':
			integer = false
			continue
		}
		break
	}
	text := r.data[start:r.at]
	digits, negative := bytes.CutPrefix(text, []byte("-"))
	if integer {
		magnitude, err := strconv.ParseUint(string(digits), 10, 64)
		if err == nil && (!negative || magnitude <= -math.MinInt64) {
			r.integer(negative, magnitude)
			return
		}
	}
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil { // too large
		r.sized(tagNumber, text)
		return
	}
	var room [32]byte
	rounded := strconv.AppendFloat(room[:0], f, 'e', floatDigits-1, 64)
	// It may have become whole, or as large as infinity, which is no integer either.
	f, _ = strconv.ParseFloat(string(rounded), 64)
	if f == math.Trunc(f) && f >= math.MinInt64 && f < 1<<64 {
		r.integer(f < 0, uint64(math.Abs(f)))
		return
	}
	r.sized(tagFloat, rounded)
}

// floatDigits are the significant digits of a number that is no integer.
const floatDigits = 15

func (r *reader) integer(negative bool, magnitude uint64) {
	sign := byte('+')
	if negative && magnitude > 0 {
		sign = '-'
	}
	r.out = binary.BigEndian.AppendUint64(append(r.out, tagInteger, sign), magnitude)
}

func (r *reader) sized(tag byte, text []byte) {
	r.out = append(r.out, tag)
	r.out = append(binary.AppendUvarint(r.out, uint64(len(text))), text...)
}
