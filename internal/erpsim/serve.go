package erpsim

import (
	"compress/gzip"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"ordersync/internal/order"
	"ordersync/internal/simulate"
)

// maxLimit is the most entries of an answer; one without a limit has as many.
const maxLimit = 10_000

// ServeHTTP answers as docs/ERP.md says.
func (s *ERP) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !s.door.enter(w, r) {
		return
	}
	if s.token != "" && subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), []byte("Bearer "+s.token)) != 1 {
		http.Error(w, "who are you?", http.StatusUnauthorized)
		return
	}
	var answer func(url.Values) (any, error)
	switch {
	case r.Method != http.MethodGet:
		http.Error(w, "the ERP is read only", http.StatusMethodNotAllowed)
		return
	case r.URL.Path == "/events":
		answer = s.eventsAfter
	case r.URL.Path == "/orders":
		answer = s.ordersAfter
	default:
		http.Error(w, "there are /events and /orders", http.StatusNotFound)
		return
	}
	body, err := answer(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if !strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
		_ = write(w, body) // whoever asked is gone, if it fails
		return
	}
	w.Header().Set("Content-Encoding", "gzip")
	z, _ := gzip.NewWriterLevel(w, gzip.BestSpeed)
	_ = errors.Join(write(z, body), z.Close())
}

func write(w io.Writer, body any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(body)
}

// eventsPage is the answer of /events.
type eventsPage struct {
	Events []json.RawMessage `json:"events"`
	Next   string            `json:"next,omitempty"`
	More   bool              `json:"more"`
}

func (s *ERP) eventsAfter(q url.Values) (any, error) {
	limit, err := limitOf(q)
	if err != nil {
		return nil, err
	}
	var from told
	switch after, since := q.Get("after"), q.Get("since"); {
	case after != "":
		from, err = parseCursor(after)
	case since != "":
		from.at, err = time.Parse(time.RFC3339, since)
	}
	if err != nil {
		return nil, err
	}
	var until time.Time
	if text := q.Get("until"); text != "" {
		if until, err = time.Parse(time.RFC3339, text); err != nil {
			return nil, err
		}
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	s.grow()
	page := eventsPage{Events: []json.RawMessage{}, Next: q.Get("after")}
	i, found := slices.BinarySearchFunc(s.told, from, told.compare)
	if found {
		i++
	}
	end := len(s.told)
	if !until.IsZero() {
		end, _ = slices.BinarySearchFunc(s.told, told{at: until}, told.compare)
	}
	for ; i < end && len(page.Events) < limit; i++ {
		page.Events = append(page.Events, s.told[i].line())
		page.Next = s.told[i].cursor()
	}
	page.More = i < end
	return page, nil
}

// line is the change as it is told.
func (t told) line() []byte {
	return append(fmt.Appendf(nil, `{"changed_at":%q,`, t.at.Format(time.RFC3339Nano)), t.Line[1:]...)
}

// cursor is the place after the change.
func (t told) cursor() string { return fmt.Sprintf("%d-%d", t.at.UnixMicro(), t.id) }

func parseCursor(text string) (told, error) {
	at, id, _ := strings.Cut(text, "-")
	micros, err := strconv.ParseInt(at, 10, 64)
	if err != nil {
		return told{}, fmt.Errorf("after=%q is no place", text)
	}
	n, err := strconv.ParseInt(id, 10, 64)
	if err != nil {
		return told{}, fmt.Errorf("after=%q is no place", text)
	}
	return told{at: time.UnixMicro(micros), id: n}, nil
}

func limitOf(q url.Values) (int, error) {
	text := q.Get("limit")
	if text == "" {
		return maxLimit, nil
	}
	limit, err := strconv.Atoi(text)
	if err != nil || limit < 1 {
		return 0, fmt.Errorf("limit=%q: give a number from 1", text)
	}
	return min(limit, maxLimit), nil
}

// Order is an order as it stands.
type Order struct {
	SyncID    string          `json:"sync_id"`
	Channel   order.Channel   `json:"channel"`
	Version   int64           `json:"version,omitempty"`
	ChangedAt time.Time       `json:"changed_at"`
	Data      json.RawMessage `json:"data"`
}

// ordersPage is the answer of /orders.
type ordersPage struct {
	Orders []Order `json:"orders"`
	Next   string  `json:"next,omitempty"`
	More   bool    `json:"more"`
}

// standing are the orders as they stood when so many changes were told.
type standing struct {
	told  int
	ids   []string
	model simulate.Model
}

// stand looks what the orders have come to.
func (s *ERP) stand() standing {
	s.grow()
	if s.standing.told != len(s.told) {
		model := simulate.Expect(slices.Values(s.events))
		s.standing = standing{told: len(s.told), ids: slices.Sorted(maps.Keys(model.Orders)), model: model}
	}
	return s.standing
}

func (s *ERP) order(id string, row simulate.Row) Order {
	return Order{SyncID: id, Channel: row.Channel, Version: row.Version, ChangedAt: s.latest[id], Data: row.Data}
}

func (s *ERP) ordersAfter(q url.Values) (any, error) {
	limit, err := limitOf(q)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	all := s.stand()
	page := ordersPage{Orders: []Order{}}
	if ids := q["id"]; len(ids) > 0 {
		for _, id := range ids {
			if row, ok := all.model.Orders[id]; ok {
				page.Orders = append(page.Orders, s.order(id, row))
			}
		}
		return page, nil
	}
	after := q.Get("after")
	i, found := slices.BinarySearch(all.ids, after)
	if found {
		i++
	}
	for ; i < len(all.ids) && len(page.Orders) < limit; i++ {
		page.Orders = append(page.Orders, s.order(all.ids[i], all.model.Orders[all.ids[i]]))
		page.Next = all.ids[i]
	}
	page.More = i < len(all.ids)
	return page, nil
}
