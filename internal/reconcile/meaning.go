package reconcile

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"math"
	"slices"
	"strconv"
)

// meaning is a digest of what JSON data means. It is the same for all that MySQL's JSON type makes of
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
type meaning [sha256.Size]byte

// meaningOf digests data, whose memory may be used again afterwards. What is no JSON, which only
// somebody else can have put into the target, means its bytes.
func meaningOf(data []byte) meaning {
	if !json.Valid(data) {
		return sha256.Sum256(append([]byte{tagInvalid}, data...))
	}
	var r reader
	r.data = data
	return sha256.Sum256(r.value(nil))
}

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
}

// value appends the next value to out.
func (r *reader) value(out []byte) []byte {
	switch c := r.peek(); c {
	case '{':
		return r.object(out)
	case '[':
		return r.array(out)
	case '"':
		return appendSized(append(out, tagString), r.text())
	case 'n', 't', 'f':
		r.at += len("true")
		if c == 'f' {
			r.at++
		}
		return append(out, tagLiteral, c)
	default:
		return r.number(out)
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

func (r *reader) array(out []byte) []byte {
	var content []byte
	for r.at++; r.peek() != ']'; {
		content = r.value(content)
		if r.peek() == ',' {
			r.at++
		}
	}
	r.at++
	sum := sha256.Sum256(content)
	return append(append(out, tagArray), sum[:]...)
}

// member is a key of an object, and where its value lies among the values.
type member struct {
	key        []byte
	start, end int
}

func (r *reader) object(out []byte) []byte {
	var members []member
	var values []byte
	for r.at++; r.peek() != '}'; {
		m := member{key: r.text()}
		r.peek()
		r.at++ // the colon
		m.start = len(values)
		values = r.value(values)
		m.end = len(values)
		members = append(members, m)
		if r.peek() == ',' {
			r.at++
		}
	}
	r.at++
	slices.SortStableFunc(members, func(x, y member) int { return bytes.Compare(x.key, y.key) })
	content := make([]byte, 0, len(values)+len(members)*16)
	for i, m := range members {
		if i+1 < len(members) && bytes.Equal(m.key, members[i+1].key) {
			continue // a later one counts
		}
		content = append(appendSized(content, m.key), values[m.start:m.end]...)
	}
	sum := sha256.Sum256(content)
	return append(append(out, tagObject), sum[:]...)
}

// text reads a string. Without escapes it is a part of the data.
func (r *reader) text() []byte {
	r.peek()
	start := r.at
	escaped := false
	for r.at++; r.data[r.at] != '"'; r.at++ {
		if r.data[r.at] == '\\' {
			escaped = true
			r.at++
		}
	}
	r.at++
	raw := r.data[start:r.at]
	if !escaped {
		return raw[1 : len(raw)-1]
	}
	var text string
	if err := json.Unmarshal(raw, &text); err != nil { // it cannot fail: the data is valid
		return raw
	}
	return []byte(text)
}

func (r *reader) number(out []byte) []byte {
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
			return appendInteger(out, negative, magnitude)
		}
	}
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil { // too large
		return appendSized(append(out, tagNumber), text)
	}
	var room [32]byte
	rounded := strconv.AppendFloat(room[:0], f, 'e', floatDigits-1, 64)
	// It may have become whole, or as large as infinity, which is no integer either.
	f, _ = strconv.ParseFloat(string(rounded), 64)
	if f == math.Trunc(f) && f >= math.MinInt64 && f < 1<<64 {
		return appendInteger(out, f < 0, uint64(math.Abs(f)))
	}
	return appendSized(append(out, tagFloat), rounded)
}

// floatDigits are the significant digits of a number that is no integer.
const floatDigits = 15

func appendInteger(out []byte, negative bool, magnitude uint64) []byte {
	sign := byte('+')
	if negative && magnitude > 0 {
		sign = '-'
	}
	return binary.BigEndian.AppendUint64(append(out, tagInteger, sign), magnitude)
}

func appendSized(out, text []byte) []byte {
	return append(binary.AppendUvarint(out, uint64(len(text))), text...)
}
