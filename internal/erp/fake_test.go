package erp_test

import (
	"compress/gzip"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// service is an ERP that speaks HTTP as docs/ERP.md says: its changes by (changed_at, id), its cursor
// the two of the last one listed.
type service struct {
	*httptest.Server
	mu     sync.Mutex
	events []serviceEvent
	skew   time.Duration // of its clock
	plain  bool          // events have no changed_at
	pages  int
}

type serviceEvent struct {
	at     time.Time
	id     int64
	fields map[string]any
}

func newService(t *testing.T) *service {
	s := &service{}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

func (s *service) now() time.Time { return time.Now().UTC().Add(s.skew) }

// put adds a change, or takes the place of the one with its id.
func (s *service) put(at time.Time, id int64, fields map[string]any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = slices.DeleteFunc(s.events, func(e serviceEvent) bool { return e.id == id })
	e := serviceEvent{at.UTC().Truncate(time.Microsecond), id, fields}
	i, _ := slices.BinarySearchFunc(s.events, e, serviceEvent.compare)
	s.events = slices.Insert(s.events, i, e)
}

func (e serviceEvent) compare(other serviceEvent) int {
	if c := e.at.Compare(other.at); c != 0 {
		return c
	}
	return int(e.id - other.id)
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pages++
	q := r.URL.Query()
	limit, err := strconv.Atoi(q.Get("limit"))
	if err != nil {
		http.Error(w, "no limit", http.StatusBadRequest)
		return
	}
	from := serviceEvent{id: -1 << 62}
	if after := q.Get("after"); after != "" {
		at, id, _ := strings.Cut(after, "/")
		from.at, _ = time.Parse(time.RFC3339Nano, at)
		from.id, _ = strconv.ParseInt(id, 10, 64)
	} else if since := q.Get("since"); since != "" {
		from.at, _ = time.Parse(time.RFC3339Nano, since)
	}
	until, _ := time.Parse(time.RFC3339Nano, q.Get("until"))
	answer := struct {
		Events []map[string]any `json:"events"`
		Next   string           `json:"next,omitempty"`
		More   bool             `json:"more"`
	}{Events: []map[string]any{}, Next: q.Get("after")}
	for _, e := range s.events {
		if e.compare(from) <= 0 || !until.IsZero() && !e.at.Before(until) {
			continue
		}
		if len(answer.Events) == limit {
			answer.More = true
			break
		}
		if !s.plain {
			e.fields["changed_at"] = e.at.Format(time.RFC3339Nano)
		}
		answer.Events = append(answer.Events, e.fields)
		answer.Next = fmt.Sprintf("%s/%d", e.at.Format(time.RFC3339Nano), e.id)
	}
	w.Header().Set("Date", s.now().Format(http.TimeFormat))
	w.Header().Set("Content-Type", "application/json")
	if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		defer z.Close()
		_ = json.NewEncoder(z).Encode(answer)
		return
	}
	_ = json.NewEncoder(w).Encode(answer)
}
