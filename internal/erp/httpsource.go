package erp

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"time"

	"ordersync/internal/order"
)

// From is the place before the first change of t or later.
func (s *httpSource) From(t time.Time) (Cursor, error) {
	return httpCursor{Kind: httpKind, step: step{Since: t.UTC().Format(time.RFC3339Nano)}}.encode()
}

// Rewind goes back along the way that polls have come.
func (s *httpSource) Rewind(_ context.Context, at Cursor, overlap time.Duration) (Cursor, error) {
	cursor, err := parseHTTPCursor(at)
	if err != nil || at == "" {
		return at, err
	}
	return cursor.rewind(overlap).encode()
}

// Page asks for the events after a place.
func (s *httpSource) Page(ctx context.Context, r Request) (Page, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	cursor, err := parseHTTPCursor(r.After)
	if err != nil {
		return Page{}, err
	}
	parameters := url.Values{"limit": {strconv.Itoa(max(r.Limit, 1))}}
	switch {
	case cursor.Next != "":
		parameters.Set("after", cursor.Next)
	case cursor.Since != "":
		parameters.Set("since", cursor.Since)
	}
	if !r.Until.IsZero() {
		parameters.Set("until", r.Until.UTC().Format(time.RFC3339Nano))
	}
	answer, err := s.get(ctx, "events", parameters)
	if err != nil {
		return Page{}, err
	}
	l, err := s.parse("events", answer, r.Limit <= 1)
	if err == nil {
		err = s.follow(answer.where, l, cursor.Next)
	}
	if err == nil && len(l.items) > 0 && l.next == "" {
		err = fmt.Errorf("%s: the answer has no next, so its events would be read again for ever", answer.where)
	}
	if err == nil && l.more {
		if cursor.Walk, err = cursor.Walk.on(l); err != nil {
			err = fmt.Errorf("%s: %w", answer.where, err)
		}
	}
	if err != nil {
		return Page{}, err
	}

	if begun := cursor.begin(answer.at.UnixMicro()); len(begun.Trail) < len(cursor.Trail) {
		// What was asked for lies behind the place to begin at, and is read again from there.
		begun.Walk = walk{} // what was asked for comes again
		page := Page{More: true}
		page.Next, err = begun.encode()
		return page, err
	}
	m := maker{channel: s.channel, now: time.Now(), plain: cursor.Versioned}
	page := Page{Rows: m.items(l.items), Next: r.After, More: l.more}
	if !m.plain && slices.ContainsFunc(page.Rows, Row.ownVersion) {
		cursor.Versioned, m.plain = true, true
		if slices.ContainsFunc(page.Rows, Row.derived) {
			page.Rows = m.items(l.items)
		}
	}
	reached := answer.at.UnixMicro()
	if n := len(page.Rows); n > 0 && !page.Rows[n-1].ChangedAt.IsZero() {
		reached = min(reached, page.Rows[n-1].ChangedAt.UnixMicro())
	}
	if l.next == "" || l.next == cursor.Next && len(l.items) == 0 {
		return page, nil
	}
	page.Next, err = cursor.begin(answer.at.UnixMicro()).moved(l.next, reached).encode()
	return page, err
}

// share is how many events are worth a goroutine of their own.
const share = 100

// items makes rows of the events of a page, on all processors: reading their JSON takes longer than
// everything else on their way to Kafka.
func (m maker) items(raw []json.RawMessage) []Row {
	rows := make([]Row, len(raw))
	each := max(share, (len(raw)+runtime.GOMAXPROCS(0)-1)/runtime.GOMAXPROCS(0))
	var all sync.WaitGroup
	for from := 0; from < len(raw); from += each {
		all.Go(func() {
			for i := from; i < min(from+each, len(raw)); i++ {
				rows[i] = m.item(raw[i])
			}
		})
	}
	all.Wait()
	return rows
}

// item makes a row of an event as it was listed.
func (m maker) item(raw json.RawMessage) Row {
	asItCame := func() []byte { return slices.Clone(raw) }
	fields, err := order.ParseFields(raw)
	if err != nil {
		row := Row{Value: asItCame(), Rejected: rejection(err)}
		if loose := parseLoosely(raw); loose != nil {
			row.Event = order.Event{SyncID: loose.SyncID()}
			if channel, err := m.channelOf(loose.text("channel")); err == nil {
				row.Event.Channel = channel
			}
		}
		return row
	}
	c := change{fields: fields, channel: looseFields(fields).text("channel"), raw: asItCame}
	if !fields.Absent("channel") && c.channel == "" {
		c.channel = string(fields["channel"]) // of another form: the error quotes it
	}
	if c.changedAt, err = changedAt(fields); err != nil {
		c.broken = rejection(err)
	}
	// Releases before took no other form, and published the event as if it had no time.
	if former, err := time.Parse(time.RFC3339, looseFields(fields).text("changed_at")); err == nil {
		c.formerChangedAt = former.UTC()
	}
	// An invoice that tells its own time is the same one, whenever it was changed.
	if !c.changedAt.IsZero() && (c.fields.Absent("occurred_at") || looseFields(fields).text("event") != string(order.Invoice)) {
		c.place = strconv.FormatInt(c.changedAt.UnixMicro(), 10)
	}
	return m.row(c)
}

// changedAt is the time of a change; zero where it tells none. Its error is a *order.Rejection.
func changedAt(fields order.Fields) (time.Time, error) {
	if fields.Absent("changed_at") {
		return time.Time{}, nil
	}
	var text string
	if json.Unmarshal(fields["changed_at"], &text) != nil {
		return time.Time{}, invalid("changed_at must be a string such as 2010-12-01T08:26:00Z, not %s", clip(string(fields["changed_at"])))
	}
	at, err := readTime(text)
	if err != nil {
		return time.Time{}, invalid("changed_at %v", err)
	}
	return at, nil
}

// looseFields are those of an event that may be none.
type looseFields order.Fields

// looseField finds the fields that say where an event belongs, in a text that is no JSON.
var looseField = regexp.MustCompile(`"(sync_id|channel)"\s*:\s*("(?:[^"\\]|\\.)*"|-?[0-9]+)`)

// parseLoosely reads fields of what ParseFields rejects: an event that is too large, say, or one with a bad byte in
// it, of which these are the first of their names.
func parseLoosely(raw []byte) looseFields {
	var fields looseFields
	if json.Unmarshal(raw, &fields) == nil || !bytes.HasPrefix(raw, []byte{'{'}) {
		return fields
	}
	fields = looseFields{}
	for _, found := range looseField.FindAllSubmatch(raw, -1) {
		if name := string(found[1]); fields[name] == nil && json.Valid(found[2]) {
			fields[name] = slices.Clone(found[2])
		}
	}
	return fields
}

// SyncID is the order that the fields name; empty where they name none.
func (f looseFields) SyncID() string { return order.Fields(f).SyncID() }

func (f looseFields) text(name string) string {
	var text string
	if json.Unmarshal(f[name], &text) != nil {
		return ""
	}
	return text
}

// httpOrdersCursor is a service's own cursor of its orders.
type httpOrdersCursor struct {
	Kind string `json:"kind"`
	Next string `json:"next"`
	Walk walk   `json:"walk,omitzero"`
}

// Orders lists the orders as the service sorts them.
func (s *httpSource) Orders(ctx context.Context, after Cursor, limit int) (OrderPage, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	var cursor httpOrdersCursor
	if after != "" {
		if err := json.Unmarshal([]byte(after), &cursor); err != nil || cursor.Kind != httpKind {
			return OrderPage{}, fmt.Errorf("the cursor %q is %w", clip(string(after)), ErrCursor)
		}
	}
	parameters := url.Values{"limit": {strconv.Itoa(max(limit, 1))}}
	if cursor.Next != "" {
		parameters.Set("after", cursor.Next)
	}
	l, where, err := s.orders(ctx, parameters)
	if err == nil {
		err = s.follow(where, l, cursor.Next)
	}
	if err == nil && l.more {
		if cursor.Walk, err = cursor.Walk.on(l); err != nil {
			err = fmt.Errorf("%s: %w", where, err)
		}
	}
	if err != nil {
		return OrderPage{}, err
	}
	page := OrderPage{Orders: make([]Order, 0, len(l.items)), Next: after, More: l.more}
	m := maker{channel: s.channel}
	for _, item := range l.items {
		page.Orders = append(page.Orders, m.listed(item))
	}
	if l.next != "" {
		next, err := json.Marshal(httpOrdersCursor{Kind: httpKind, Next: l.next, Walk: cursor.Walk})
		if err != nil {
			return OrderPage{}, err
		}
		page.Next = Cursor(next)
	}
	return page, nil
}

func (s *httpSource) orders(ctx context.Context, parameters url.Values) (l list, where string, err error) {
	answer, err := s.get(ctx, "orders", parameters)
	if err != nil {
		return list{}, "", err
	}
	l, err = s.parse("orders", answer, parameters.Get("limit") == "1")
	return l, answer.where, err
}

func (m maker) listed(raw json.RawMessage) Order {
	var o Order
	fields, err := order.ParseFields(raw)
	if err != nil {
		o.SyncID, o.Rejected = parseLoosely(raw).SyncID(), rejection(err)
		return o
	}
	if o.ChangedAt, err = changedAt(fields); err != nil {
		o.SyncID, o.Rejected = fields.SyncID(), rejection(err)
		return o
	}
	m.order(&o, fields, looseFields(fields).text("channel"))
	return o
}

// knownIDs is the number of ids in a request, whose URL some servers limit to 8 KiB.
const knownIDs = 64

// Known tells which of the orders the service has.
func (s *httpSource) Known(ctx context.Context, syncIDs []string) (map[string]bool, error) {
	known := make(map[string]bool, len(syncIDs))
	for chunk := range slices.Chunk(syncIDs, knownIDs) {
		ctx, cancel := context.WithTimeout(ctx, s.timeout)
		l, _, err := s.orders(ctx, url.Values{"id": chunk})
		cancel()
		if err != nil {
			return nil, err
		}
		for _, item := range l.items {
			if id := parseLoosely(item).SyncID(); id != "" {
				known[id] = true
			}
		}
	}
	return known, nil
}
