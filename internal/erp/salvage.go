package erp

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// An answer with one bad byte in it is no JSON, and need not stop all others: its items end where their brackets do.

// broken is the error of an answer whose items cannot be told apart.
type broken struct {
	item   int // the first that is no JSON, from 0
	offset int // of what is wrong, in the answer
}

func (b *broken) Error() string {
	return fmt.Sprintf("item %d is no JSON at byte %d", b.item, b.offset)
}

// salvage takes an answer apart that is no JSON: the items of its list as they came, valid or not, and its other
// fields. Where a single item was asked for, that is all there is between the list's brackets, whatever it looks
// like. Its error is a *broken where the list was found.
func salvage(name string, body []byte, single bool) ([]json.RawMessage, map[string]json.RawMessage, error) {
	start, fields, err := listAt(name, body)
	if err != nil {
		return nil, nil, err
	}
	items, end := split(body[start:])
	if end >= 0 && (single && len(items) == 1 || !slices.ContainsFunc(items, several)) {
		if rest, err := restOf(body[start+end:]); err == nil {
			for field, value := range rest {
				fields[field] = value
			}
			return items, fields, nil
		}
	}
	if single {
		if item, rest := only(body[start:]); item != nil {
			for field, value := range rest {
				fields[field] = value
			}
			return []json.RawMessage{item}, fields, nil
		}
	}
	bad := &broken{offset: len(body)}
	at := start
	for i, item := range items {
		at += bytes.Index(body[at:], item)
		if bad.item = i; !json.Valid(item) {
			bad.offset = at + invalidAt(item)
			return nil, nil, bad
		}
		at += len(item)
	}
	bad.item, bad.offset = len(items), at+invalidAt(append([]byte{'['}, bytes.TrimLeft(body[at:], ", \t\r\n")...))
	return nil, nil, bad
}

// several returns whether an item is none by itself: quotes that do not match may have joined events, of which some are
// valid.
func several(item json.RawMessage) bool {
	return bytes.Count(item, []byte(`"sync_id"`)) > 1 && !json.Valid(item)
}

// listAt finds where the items of the list begin, and the fields before it.
func listAt(name string, body []byte) (int, map[string]json.RawMessage, error) {
	fields := map[string]json.RawMessage{}
	d := json.NewDecoder(bytes.NewReader(body))
	if token, err := d.Token(); err != nil || token != json.Delim('{') {
		return 0, nil, errors.New("no JSON object")
	}
	for {
		key, err := d.Token()
		if err != nil {
			return 0, nil, err
		}
		if key == name {
			break
		}
		field, ok := key.(string)
		var value json.RawMessage
		if err := d.Decode(&value); err != nil || !ok {
			return 0, nil, errors.New("no such list")
		}
		fields[field] = value
	}
	if token, err := d.Token(); err != nil || token != json.Delim('[') {
		return 0, nil, errors.New("no list")
	}
	return int(d.InputOffset()), fields, nil
}

// split takes the items of a list apart by their brackets and quotes. end is behind the list's own bracket, or -1
// where there is none.
func split(text []byte) (items []json.RawMessage, end int) {
	depth, from, quoted := 0, -1, false
	for i := 0; i < len(text); i++ {
		c := text[i]
		switch {
		case quoted && c == '\\':
			i++
			continue
		case c == '"':
			quoted = !quoted
		case quoted:
			continue
		case c == '{' || c == '[':
			depth++
		case c == ']' && depth == 0:
			if from >= 0 {
				items = append(items, bytes.TrimSpace(text[from:i]))
			}
			return items, i + 1
		case c == '}' || c == ']':
			depth--
		case c == ',' && depth == 0:
			if from >= 0 {
				items = append(items, bytes.TrimSpace(text[from:i]))
			}
			from = -1
			continue
		}
		if from < 0 && c != ' ' && c != '\n' && c != '\t' && c != '\r' {
			from = i
		}
		if depth < 0 {
			return items, -1
		}
	}
	if from >= 0 {
		items = append(items, text[from:])
	}
	return items, -1
}

// maxTails bounds the search for the end of a list.
const maxTails = 100

// only is the single item of a list whose brackets and quotes do not match, and the fields behind the list; nil
// where it may be several.
func only(text []byte) (json.RawMessage, map[string]json.RawMessage) {
	end := len(text)
	for range maxTails {
		if end = bytes.LastIndexByte(text[:end], ']'); end < 0 {
			return nil, nil
		}
		if rest, err := restOf(text[end+1:]); err == nil {
			item := bytes.TrimSpace(text[:end])
			if len(item) == 0 || bytes.Count(item, []byte(`"sync_id"`)) > 1 {
				return nil, nil
			}
			return item, rest
		}
	}
	return nil, nil
}

// restOf reads the fields behind the list.
func restOf(text []byte) (map[string]json.RawMessage, error) {
	var rest map[string]json.RawMessage
	trimmed, more := bytes.CutPrefix(bytes.TrimSpace(text), []byte{','})
	if !more && !bytes.HasPrefix(trimmed, []byte{'}'}) {
		return nil, errors.New("what stands after the list is no JSON")
	}
	err := json.Unmarshal(append([]byte{'{'}, trimmed...), &rest)
	return rest, err
}

// invalidAt is where a text stops to be JSON.
func invalidAt(text []byte) int {
	var value json.RawMessage
	syntax := new(json.SyntaxError)
	if err := json.Unmarshal(text, &value); errors.As(err, &syntax) {
		return max(0, int(syntax.Offset)-1)
	}
	return 0
}
