package erp

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// timeForms are the forms of a time in an ERP's answer: RFC 3339, and the same without a zone, which is UTC, as it is
// for a database's column without one. A fraction is read with each of them.
var timeForms = []string{
	time.RFC3339, "2006-01-02T15:04:05Z0700", "2006-01-02T15:04:05Z07", "2006-01-02T15:04:05", "2006-01-02T15:04",
}

// readTime reads a time in an ERP's answer. It is the zero time, without an error, for the dates with which
// programs say that they have none: 0000-00-00, and all before the year 1000, such as 0001-01-01.
func readTime(text string) (time.Time, error) {
	form := strings.ToUpper(strings.TrimSpace(text))
	if len(form) > len("2006-01-02") && form[len("2006-01-02")] == ' ' {
		form = strings.Replace(form, " ", "T", 1)
	}
	if strings.HasPrefix(form, "0000-00-00") {
		return time.Time{}, nil
	}
	leap := time.Duration(0)
	if minute := len("2006-01-02T15:04"); strings.HasPrefix(form[min(minute, len(form)):], ":60") {
		form, leap = form[:minute]+":59"+form[minute+len(":60"):], time.Second
	}
	for _, layout := range timeForms {
		t, err := time.Parse(layout, form)
		if err != nil {
			continue
		}
		if t = t.UTC().Add(leap); t.Year() < 1000 {
			return time.Time{}, nil
		}
		if !representable(t) {
			return time.Time{}, fmt.Errorf("%q lies after the year 9999", clip(text))
		}
		return t, nil
	}
	return time.Time{}, fmt.Errorf("%q is no time such as 2010-12-01T08:26:00Z", clip(text))
}

// occurredAt reads a field that is a time, and reports whether an event can have it.
func occurredAt(field json.RawMessage) (time.Time, bool) {
	var text string
	if json.Unmarshal(field, &text) != nil {
		return time.Time{}, false
	}
	t, err := readTime(text)
	return t, err == nil && !t.IsZero()
}
