package order

import (
	"encoding/json"
	"strings"
	"time"
)

// OccurredAt is the time in the field occurred_at, and whether there is one that can be read. An event without one has its
// record's timestamp.
//
// It is RFC 3339 with what that allows (lower case, a space for the T, leap seconds), or the same without a zone, which then
// is UTC. A leap second counts as the first of the next minute.
func (f Fields) OccurredAt() (at time.Time, ok bool) {
	raw := f["occurred_at"]
	if absent(raw) {
		return time.Time{}, false
	}
	var s string
	if json.Unmarshal(raw, &s) != nil {
		return time.Time{}, false
	}
	return parseTime(s)
}

// secondsAt is where the seconds stand in 2006-01-02T15:04:05.
const secondsAt = len("2006-01-02T15:04:")

func parseTime(s string) (time.Time, bool) {
	s = strings.ToUpper(s)
	if len(s) < secondsAt+2 {
		return time.Time{}, false
	}
	if s[10] == ' ' {
		s = s[:10] + "T" + s[11:]
	}
	leap := s[secondsAt:secondsAt+2] == "60"
	if leap {
		s = s[:secondsAt] + "59" + s[secondsAt+2:]
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		const withoutZone = "2006-01-02T15:04:05"
		if t, err = time.Parse(withoutZone, s); err != nil {
			return time.Time{}, false
		}
	}
	t = t.UTC()
	if leap {
		t = t.Truncate(time.Second).Add(time.Second)
	}
	t = t.Truncate(time.Microsecond)
	return t, t.Equal(ClampTime(t))
}
