package order

import (
	"bytes"
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"unicode/utf8"
)

// MaxDepth is how many arrays and objects may lie in one another in data: MySQL's own limit
// (https://dev.mysql.com/doc/refman/8.4/en/json.html, JSON_DOCUMENT_MAX_DEPTH).
const MaxDepth = 100

// ParseData takes an order's data: any JSON value but null, compacted. Of members of an object with the same key only the
// last stays, as MySQL's JSON type has it; MariaDB keeps the text, and its functions would find the first. Every error is
// a *Rejection.
func ParseData(raw json.RawMessage) (json.RawMessage, error) {
	compact, err := CompactData(raw)
	if err != nil {
		return nil, err
	}
	data, ok := lastOnly(compact)
	if !ok {
		return nil, reject(TooDeep, "data is nested more than %d levels deep", MaxDepth)
	}
	return data, nil
}

// CompactData is ParseData as it was: without the bound of MaxDepth, and with all members. Runs of workflows that began
// then keep to it.
func CompactData(raw json.RawMessage) (json.RawMessage, error) {
	switch {
	case absent(raw):
		return nil, reject(MissingField, "data is missing or null")
	case len(raw) > MaxValue:
		return nil, reject(ValueTooLarge, "data has %d bytes, the limit is %d", len(raw), MaxValue)
	case !utf8.Valid(raw):
		return nil, reject(InvalidUTF8, "data is not valid UTF-8")
	}
	var compact bytes.Buffer
	compact.Grow(len(raw))
	if err := json.Compact(&compact, raw); err != nil {
		if tooDeep(raw) {
			return nil, reject(TooDeep, "data is nested more than %d levels deep", MaxDepth)
		}
		return nil, reject(MalformedJSON, "data: %v", err)
	}
	return compact.Bytes(), nil
}

// jsonDepth is the nesting that encoding/json takes.
const jsonDepth = 10_000

// tooDeep returns whether text that is no JSON for encoding/json is nested deeper than that takes.
func tooDeep(text []byte) bool {
	depth, inString := 0, false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case inString && c == '\\':
			i++
		case c == '"':
			inString = !inString
		case inString:
		case c == '{', c == '[':
			if depth++; depth > jsonDepth {
				return true
			}
		case c == '}', c == ']':
			depth--
		}
	}
	return false
}

// level is an array or object that is open.
type level struct {
	object bool
	first  int // of its keys
	// known has the keys of a large object; nil for others.
	known map[string]int
}

type memberKey struct {
	hash uint32
	// start is where the member starts in the data, at the key's quote, and end where the key ends.
	start, end int
}

func (k memberKey) text(data []byte) []byte { return keyText(data[k.start+1 : k.end-1]) }

// cut is a part of the data to be left out.
type cut struct{ start, end int }

// fewKeys is up to how many keys each is compared with all others.
const fewKeys = 16

// lastOnly returns compact JSON without the members that come again later in the same object, and false where it is nested
// more than MaxDepth levels deep. Without such members it returns data itself.
func lastOnly(data []byte) ([]byte, bool) {
	// keys are those of the objects that are open, the outermost first. Most data needs no more room than there is here,
	// and so nothing of the heap.
	var keyRoom [48]memberKey
	var openRoom [16]level
	keys, open := keyRoom[:0], openRoom[:0]
	var cuts []cut
	key := false // a key comes next
	for i := 0; i < len(data); i++ {
		switch data[i] {
		case '{', '[':
			if len(open) == MaxDepth {
				return nil, false
			}
			object := data[i] == '{'
			open = append(open, level{object: object, first: len(keys)})
			key = object && data[i+1] == '"'
		case '}', ']':
			keys = keys[:open[len(open)-1].first]
			open = open[:len(open)-1]
		case ',':
			key = len(open) > 0 && open[len(open)-1].object
		case '"':
			start := i
			for i++; data[i] != '"'; i++ {
				if data[i] == '\\' {
					i++
				}
			}
			if !key {
				continue
			}
			key = false
			keys = append(keys, memberKey{start: start, end: i + 1})
			if earlier := open[len(open)-1].earlier(data, keys); earlier >= 0 {
				cuts = append(cuts, cut{keys[earlier].start, keys[earlier+1].start})
			}
		}
	}
	if len(cuts) == 0 {
		return data, true
	}
	return without(data, cuts), true
}

// earlier finds the member whose key is that of the last of keys; -1 if there is none.
func (l *level) earlier(data []byte, keys []memberKey) int {
	at := len(keys) - 1
	last := &keys[at]
	text := last.text(data)
	if l.known == nil && at-l.first < fewKeys {
		last.hash = 2166136261 // FNV-1a
		for _, c := range text {
			last.hash = (last.hash ^ uint32(c)) * 16777619
		}
		for i := at - 1; i >= l.first; i-- {
			if keys[i].hash == last.hash && bytes.Equal(keys[i].text(data), text) {
				return i
			}
		}
		return -1
	}
	if l.known == nil {
		l.known = make(map[string]int, 4*fewKeys)
		for i := l.first; i < at; i++ {
			l.known[string(keys[i].text(data))] = i
		}
	}
	i, ok := l.known[string(text)]
	l.known[string(text)] = at
	if !ok {
		return -1
	}
	return i
}

// keyText is what a key means: \u0061 is a. A lone surrogate means itself.
func keyText(key []byte) []byte {
	if bytes.IndexByte(key, '\\') < 0 {
		return key
	}
	out := make([]byte, 0, len(key))
	for i := 0; i < len(key); i++ {
		if key[i] != '\\' {
			out = append(out, key[i])
			continue
		}
		i++
		if short := strings.IndexByte(`"\/bfnrt`, key[i]); short >= 0 {
			out = append(out, "\"\\/\b\f\n\r\t"[short])
			continue
		}
		unit := hex4(key[i+1:])
		i += 4
		if unit>>10 == 0xD800>>10 && i+6 < len(key) && key[i+1] == '\\' && key[i+2] == 'u' {
			if low := hex4(key[i+3:]); low>>10 == 0xDC00>>10 {
				out = utf8.AppendRune(out, 0x10000+(unit-0xD800)<<10+(low-0xDC00))
				i += 6
				continue
			}
		}
		if unit>>11 == 0xD800>>11 { // no rune, and not U+FFFD either, as UTF-8 would have it
			out = append(out, 0xE0|byte(unit>>12), 0x80|byte(unit>>6)&0xBF, 0x80|byte(unit)&0xBF)
			continue
		}
		out = utf8.AppendRune(out, unit)
	}
	return out
}

// hex4 reads the four digits of an escape, which are known to be ones.
func hex4(digits []byte) (unit rune) {
	for _, d := range digits[:4] {
		switch {
		case d >= 'a':
			d -= 'a' - 10
		case d >= 'A':
			d -= 'A' - 10
		default:
			d -= '0'
		}
		unit = unit<<4 | rune(d)
	}
	return unit
}

// without is data without the cuts, of which one may hold others.
func without(data []byte, cuts []cut) []byte {
	slices.SortFunc(cuts, func(a, b cut) int { return cmp.Compare(a.start, b.start) })
	out, at := make([]byte, 0, len(data)), 0
	for _, c := range cuts {
		if c.start >= at {
			out = append(out, data[at:c.start]...)
		}
		at = max(at, c.end)
	}
	return append(out, data[at:]...)
}
