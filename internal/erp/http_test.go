package erp_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ordersync/internal/erp"
	"ordersync/internal/order"
)

// answering is a service that always does the same.
func answering(t testing.TB, handler http.HandlerFunc) string {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return server.URL
}

func text(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body) }
}

func httpSource(t *testing.T, url string) erp.Source {
	t.Helper()
	return openSource(t, erp.Options{Kind: erp.HTTP, URL: url, Timeout: time.Minute})
}

func pageError(t *testing.T, url string) error {
	t.Helper()
	_, err := httpSource(t, url).Page(t.Context(), erp.Request{Limit: 10})
	require.Error(t, err)
	require.Less(t, len(err.Error()), 800)
	return err
}

const anEvent = `{"sync_id":1,"event":"order_creation","channel":"store","data":{"a":1}}`

func TestRequests(t *testing.T) {
	var asked []*http.Request
	base := answering(t, func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r)
		fmt.Fprintf(w, `{"events":[%s],"next":"a b&c","more":false}`, anEvent)
	})
	source := openSource(t, erp.Options{Kind: erp.HTTP, URL: base + "/api/v2/?tenant=7", Token: "hunter2"})
	page, err := source.Page(t.Context(), erp.Request{Limit: 10, Until: time.Date(2026, 1, 1, 0, 0, 0, 0, time.FixedZone("", 3600))})
	require.NoError(t, err)
	_, err = source.Page(t.Context(), erp.Request{Limit: 10, After: page.Next})
	require.NoError(t, err)
	from, err := source.From(time.Date(2026, 1, 1, 0, 0, 0, 1000, time.UTC))
	require.NoError(t, err)
	_, err = source.Page(t.Context(), erp.Request{Limit: 10, After: from})
	require.NoError(t, err)
	require.Equal(t, "/api/v2/events", asked[0].URL.Path)
	require.Equal(t, url.Values{"limit": {"10"}, "until": {"2025-12-31T23:00:00Z"}, "tenant": {"7"}}, asked[0].URL.Query())
	require.Equal(t, url.Values{"limit": {"10"}, "after": {"a b&c"}, "tenant": {"7"}}, asked[1].URL.Query())
	require.Equal(t, url.Values{"limit": {"10"}, "since": {"2026-01-01T00:00:00.000001Z"}, "tenant": {"7"}}, asked[2].URL.Query())
	require.Equal(t, "Bearer hunter2", asked[0].Header.Get("Authorization"))

	for _, o := range []erp.Options{
		{URL: base, User: "sync", Password: "hunter2"},
		{URL: strings.Replace(base, "http://", "http://sync:hunter2@", 1)},
	} {
		o.Kind = erp.HTTP
		_, err = openSource(t, o).Page(t.Context(), erp.Request{Limit: 10})
		require.NoError(t, err)
		user, password, _ := asked[len(asked)-1].BasicAuth()
		require.Equal(t, "sync hunter2", user+" "+password)
	}
	for _, o := range []erp.Options{{URL: "hunter2"}, {URL: "https://sync:hunter2@host:x"}, {URL: base, Token: "hunter2", User: "sync"}, {URL: base, Token: "hunter2\n"}} {
		o.Kind = erp.HTTP
		_, err := erp.Open(o)
		require.Error(t, err)
		require.NotContains(t, err.Error(), "hunter2")
	}
}

func TestStatuses(t *testing.T) {
	date := time.Now().UTC().Add(-time.Hour) // the ERP's clock is an hour behind
	for name, c := range map[string]struct {
		status int
		retry  string
		after  time.Duration // -1 for no *Unavailable
	}{
		"seconds":       {503, "7", 7 * time.Second},
		"no wait":       {429, "0", 0},
		"date":          {429, date.Add(90 * time.Second).Format(http.TimeFormat), 90 * time.Second},
		"past date":     {500, date.Add(-time.Minute).Format(http.TimeFormat), 0},
		"a year":        {503, "31536000", time.Hour},
		"past counting": {503, "99999999999999999999", -1},
		"nothing":       {503, "", -1},
		"nonsense":      {503, "soon", -1},
		"decimals":      {503, "2.0", 2 * time.Second},
		"half a second": {429, " 2.5 ", 2500 * time.Millisecond},
		"a long one":    {503, "99999999.", time.Hour},
		"no number":     {503, "NaN", -1},
		"exponent":      {503, "1e3", -1},
		"negative":      {503, "-2.0", -1},
		"client error":  {404, "7", -1},
		"no content":    {204, "", -1},
		"partial":       {206, "", -1},
	} {
		t.Run(name, func(t *testing.T) {
			err := pageError(t, answering(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Date", date.Format(http.TimeFormat))
				if c.retry != "" {
					w.Header().Set("Retry-After", c.retry)
				}
				w.WriteHeader(c.status)
				if c.status != 204 {
					fmt.Fprint(w, "the reason\n\tis "+strings.Repeat("long ", 1000))
				}
			}))
			require.ErrorContains(t, err, fmt.Sprint("the ERP answers ", c.status))
			if c.status != 204 {
				require.ErrorContains(t, err, ": the reason is long long")
			}
			var unavailable *erp.Unavailable
			if c.after < 0 {
				require.False(t, errors.As(err, &unavailable))
				return
			}
			require.ErrorAs(t, err, &unavailable)
			require.InDelta(t, c.after.Seconds(), unavailable.After.Seconds(), 1)
		})
	}
}

// A date counts from the answer's own Date, also where the ERP's clock is ahead.
func TestRetryAfterByAClockAhead(t *testing.T) {
	ahead := time.Now().UTC().Add(10 * time.Minute)
	err := pageError(t, answering(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Date", ahead.Format(http.TimeFormat))
		w.Header().Set("Retry-After", ahead.Add(37*time.Second).Format(http.TimeFormat))
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	var unavailable *erp.Unavailable
	require.ErrorAs(t, err, &unavailable)
	require.Equal(t, 37*time.Second, unavailable.After)
}

// Every error says which address was asked, and none a parameter of it.
func TestErrorsNameThePath(t *testing.T) {
	status := 200
	base := answering(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		fmt.Fprint(w, `{"error":"no tenant 7"}`)
	})
	source := openSource(t, erp.Options{Kind: erp.HTTP, URL: base + "/api/hunter2/v2/?tenant=7&key=hunter2"})
	for _, status = range []int{200, 404} {
		_, err := source.Page(t.Context(), erp.Request{Limit: 1})
		require.ErrorContains(t, err, "GET "+base+"/api/***/v2/events: ")
		require.ErrorContains(t, err, "no tenant 7", "what is too short for a secret is no secret")
		_, err = source.Orders(t.Context(), "", 1)
		require.ErrorContains(t, err, "GET "+base+"/api/***/v2/orders: ")
	}
}

// Whatever an ERP says, what it is asked with is not quoted.
func TestErrorsQuoteNoCredentials(t *testing.T) {
	echo := answering(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusForbidden)
		fmt.Fprintf(w, "not with %s at %s", r.Header.Get("Authorization"), r.URL)
	})
	broken := answering(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "{%q", r.Header.Get("Authorization")) })
	for _, base := range []string{echo, broken, "http://127.0.0.1:1", "http://sync:hunter2@127.0.0.1:1"} {
		for _, o := range []erp.Options{{Token: "hunter2"}, {User: "sync", Password: "hunter2"}, {}} {
			if o.Token != "" && strings.Contains(base, "@") {
				continue
			}
			o.Kind, o.URL = erp.HTTP, base+"/?key=hunter2"
			_, err := openSource(t, o).Page(t.Context(), erp.Request{Limit: 1})
			require.Error(t, err)
			require.NotContains(t, err.Error(), "hunter2")
			require.NotContains(t, err.Error(), base64.StdEncoding.EncodeToString([]byte("sync:hunter2")))
		}
	}
}

func TestRedirects(t *testing.T) {
	var leaked []string
	elsewhere := answering(t, func(w http.ResponseWriter, r *http.Request) {
		leaked = append(leaked, r.Header.Get("Authorization"))
		fmt.Fprint(w, `{"events":[]}`)
	})
	away := openSource(t, erp.Options{Kind: erp.HTTP, Token: "hunter2", URL: answering(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere+"/events?token=hunter2", http.StatusTemporaryRedirect)
	})})
	_, err := away.Page(t.Context(), erp.Request{Limit: 1})
	require.ErrorContains(t, err, "redirects to "+elsewhere)
	require.NotContains(t, err.Error(), "hunter2")
	require.Empty(t, leaked)

	within := openSource(t, erp.Options{Kind: erp.HTTP, Token: "hunter2", URL: answering(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/events" {
			http.Redirect(w, r, "/v2/events", http.StatusFound)
			return
		}
		fmt.Fprintf(w, `{"events":[],"next":%q}`, r.Header.Get("Authorization"))
	})})
	page, err := within.Page(t.Context(), erp.Request{Limit: 1})
	require.NoError(t, err)
	require.Contains(t, page.Next, "Bearer hunter2", "on the same host it is authorized")

	require.ErrorContains(t, pageError(t, answering(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, r.URL.Path, http.StatusFound)
	})), "redirects more than 5 times")
}

func TestMalformedAnswers(t *testing.T) {
	for body, want := range map[string]string{
		``:                                  "no JSON object",
		`<html>maintenance`:                 "no JSON object",
		`[]`:                                "no JSON object",
		`null`:                              `no field "events"`,
		`{"error":"database is down"}`:      `no field "events"; the answer begins: {"error":"database is down"}`,
		`{"events":{}}`:                     `"events" is no list`,
		`{"events":[],"more":"yes"}`:        `"more" is neither true nor false`,
		`{"events":[],"next":{}}`:           `"next" is neither a string nor an integer`,
		`{"events":[],"next":1.5}`:          `"next" is neither a string nor an integer`,
		`{"events":[],"next":"x"} trailing`: "no JSON object",
		`{"events":[` + anEvent:             "no JSON object",
		`{"events":[` + anEvent + `]}`:      "has no next",
		`{"events":[],"more":true}`:         "its next \"\" has not moved",
		`{"events":[],"next":"` + strings.Repeat("x", 2000) + `"}`: "the limit is 1024",
	} {
		require.ErrorContains(t, pageError(t, answering(t, text(body))), want, body)
	}
	// An answer that breaks off.
	require.ErrorContains(t, pageError(t, answering(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "1000")
		fmt.Fprint(w, `{"events":[]`)
	})), "read the answer")
}

// A byte order mark before the answer is none of it; an answer in another encoding is named.
func TestByteOrderMarks(t *testing.T) {
	rows, _ := poll(t, httpSource(t, answering(t, text("\xef\xbb\xbf"+`{"events":[`+anEvent+`],"next":"x"}`))), "", 10)
	require.Len(t, rows, 1)
	require.ErrorContains(t, pageError(t, answering(t, text("\xff\xfe{\x00}\x00"))), "the answer is UTF-16")
}

// One bad byte in a page: its event becomes a dead letter, and the others are published.
func TestABadByteInAPage(t *testing.T) {
	good := func(n int) string {
		return fmt.Sprintf(`{"sync_id":%d,"event":"order_creation","channel":"store","data":{"lines":[{"n":"]},{"},{}],"x":"\\"}}`, n)
	}
	for name, bad := range map[string]string{
		"a control character": "{\"sync_id\": 77,\"channel\":\"store\",\"event\":\"order_creation\",\"data\":{\"note\":\"a\x01b\"}}",
		"a line's end":        "{\"sync_id\": 77,\"channel\":\"store\",\"event\":\"order_creation\",\"data\":\"a\nb\"}",
		"NaN":                 `{"sync_id": 77,"channel":"store","event":"order_creation","data":{"total":NaN}}`,
		"a comma too many":    `{"sync_id": 77,"channel":"store","event":"order_creation","data":{"total":1,}}`,
		"an escape":           `{"sync_id": 77,"channel":"store","event":"order_creation","data":"\x41"}`,
		"quotes in a text":    `{"sync_id": 77,"channel":"store","event":"order_creation","data":"the "big" one"}`,
		"no value":            `{"sync_id": 77,"channel":"store","event":"order_creation","data":}`,
	} {
		for _, place := range []string{"first", "middle", "last"} {
			t.Run(name+" "+place, func(t *testing.T) {
				items := []string{good(1), good(2), good(3)}
				at := map[string]int{"first": 0, "middle": 1, "last": 3}[place]
				items = append(items[:at:at], append([]string{bad}, items[at:]...)...)
				body := `{"more":false, "events":[` + strings.Join(items, ",\n ") + `] ,"next":"x"}`
				rows, next := poll(t, httpSource(t, answering(t, text(body))), "", 10)
				require.Len(t, rows, 4)
				require.NotEmpty(t, next)
				for i, row := range rows {
					if i != at {
						require.Nil(t, row.Rejected)
						continue
					}
					require.Equal(t, order.MalformedJSON, row.Rejected.Reason)
					require.Equal(t, bad, string(row.Value), "as it came")
					require.Equal(t, "77", row.Event.SyncID)
					require.Equal(t, order.Store, row.Event.Channel)
				}
			})
		}
	}

	// Two events whose quotes do not match join everything between them.
	plain := func(n int, data string) string {
		return fmt.Sprintf(`{"sync_id":%d,"event":"order_creation","channel":"store","data":%s}`, n, data)
	}
	joined := []string{plain(1, `"x`), plain(2, `"y"`), plain(3, `z"`), plain(4, `"w"`)}
	_, err := httpSource(t, answering(t, text(`{"events":[`+strings.Join(joined, ",")+`],"next":"x"}`))).Page(t.Context(), erp.Request{Limit: 10})
	require.ErrorIs(t, err, erp.ErrTooMuch, "a smaller page has the valid one")

	// One quote too many makes other texts of all that follow. The place is named, and a smaller page asked for, down
	// to that event alone.
	bad := `{"sync_id":77,"channel":"store","event":"order_creation","data":"15" monitor"}`
	all := []string{good(1), good(2), bad, good(4)}
	base := answering(t, func(w http.ResponseWriter, r *http.Request) {
		from, _ := strconv.Atoi(r.URL.Query().Get("after"))
		limit, err := strconv.Atoi(r.URL.Query().Get("limit"))
		require.NoError(t, err)
		to := min(from+limit, len(all))
		fmt.Fprintf(w, `{"events":[%s],"next":"%d","more":%t}`, strings.Join(all[from:to], ","), to, to < len(all))
	})
	_, err = httpSource(t, base+"/api").Page(t.Context(), erp.Request{Limit: 10})
	require.ErrorIs(t, err, erp.ErrTooMuch)
	require.ErrorContains(t, err, `in item 2 of "events", at byte `)
	require.ErrorContains(t, err, `"data":"15" monitor`)
	require.Less(t, len(err.Error()), 500)
	rows, _ := poll(t, httpSource(t, base), "", 1)
	require.Len(t, rows, 4)
	require.Equal(t, order.MalformedJSON, rows[2].Rejected.Reason)
	require.Equal(t, bad, string(rows[2].Value))
	require.Equal(t, "77", rows[2].Event.SyncID)
}

// A place that does not move, and places that lead back to one another.
func TestNextThatLeadsNowhere(t *testing.T) {
	source := httpSource(t, answering(t, text(`{"events":[`+anEvent+`],"next":"a","more":true}`)))
	page, err := source.Page(t.Context(), erp.Request{Limit: 1})
	require.NoError(t, err)
	_, err = source.Page(t.Context(), erp.Request{Limit: 1, After: page.Next})
	require.ErrorContains(t, err, `its next "a" has not moved`)

	following := map[string]string{"": "a", "a": "b", "b": "c", "c": "a"}
	source = httpSource(t, answering(t, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"events":[],"next":%q,"more":true}`, following[r.URL.Query().Get("after")])
	}))
	var after erp.Cursor
	for range 10 {
		page, err = source.Page(t.Context(), erp.Request{Limit: 1, After: after})
		if err != nil {
			break
		}
		after = page.Next
	}
	require.ErrorContains(t, err, "round in circles")

	// Circles of any length, also after a way that leads into it, and however often the process changes.
	for _, c := range []struct{ way, circle int }{{0, 2}, {2, 4}, {1, 2}, {0, 50}, {300, 7}, {7, 300}} {
		walks(t, c.way+c.circle, 4*(c.way+c.circle)+20, "round in circles", func(n int) (string, string) {
			event := strings.Replace(anEvent, `"a":1`, fmt.Sprintf(`"a":%d`, n), 1)
			if n++; n >= c.way+c.circle {
				n = c.way + (n-c.way)%c.circle
			}
			return event, strconv.Itoa(n)
		})
	}
	// The next moves and the events do not: the last page again and again, or all of them.
	for _, circle := range []int{1, 3, 40, 250} {
		walks(t, circle, 6*circle+400, "brought nothing new", func(n int) (string, string) {
			return strings.Replace(anEvent, `"a":1`, fmt.Sprintf(`"a":%d`, n%circle), 1), strconv.Itoa(n + 1)
		})
	}
	walks(t, 0, 1001, "the list has no end", func(n int) (string, string) { return "", strconv.Itoa(n + 1) })

	// What looks alike and is none: long ways through what a service leaves out, and pages of equal events.
	source = httpSource(t, answering(t, func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.URL.Query().Get("after"))
		event := ""
		if n%900 == 899 || n%7 == 0 && n < 70 {
			event = anEvent
		}
		fmt.Fprintf(w, `{"events":[%s],"next":"%d","more":%t}`, event, n+1, n < 2000)
	}))
	rows, _ := poll(t, source, "", 1)
	require.Len(t, rows, 12)

	// At the end a service may leave next out, or repeat it.
	for _, end := range []string{`{"events":[]}`, `{"events":[],"next":null,"more":false}`, `{"events":null,"next":"","more":null}`, `{"events":[],"next":"12"}`} {
		source = httpSource(t, answering(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Query().Get("after") == "" {
				fmt.Fprintf(w, `{"events":[%s],"next":12,"more":true}`, anEvent)
				return
			}
			fmt.Fprint(w, end)
		}))
		rows, place := poll(t, source, "", 1)
		require.Len(t, rows, 1)
		page, err := source.Page(t.Context(), erp.Request{Limit: 1, After: place})
		require.NoError(t, err)
		require.Equal(t, place, page.Next)
	}
}

// walks follows a list without an end to its error, which comes after least pages and within most. Both lists of a
// service have the same guard.
func walks(t *testing.T, least, most int, want string, at func(n int) (event, next string)) {
	t.Helper()
	pages := 0
	base := answering(t, func(w http.ResponseWriter, r *http.Request) {
		pages++
		n, _ := strconv.Atoi(r.URL.Query().Get("after"))
		event, next := at(n)
		fmt.Fprintf(w, `{%q:[%s],"next":%q,"more":true}`, strings.TrimPrefix(r.URL.Path, "/"), event, next)
	})
	for list, read := range map[string]func(erp.Source, erp.Cursor) (erp.Cursor, error){
		"events": func(s erp.Source, after erp.Cursor) (erp.Cursor, error) {
			page, err := s.Page(t.Context(), erp.Request{Limit: 1, After: after})
			return page.Next, err
		},
		"orders": func(s erp.Source, after erp.Cursor) (erp.Cursor, error) {
			page, err := s.Orders(t.Context(), after, 1)
			return page.Next, err
		},
	} {
		pages = 0
		source := httpSource(t, base)
		var after erp.Cursor
		var err error
		for pages <= most && err == nil {
			after, err = read(source, after)
		}
		require.ErrorContains(t, err, want, "%s after %d pages", list, pages)
		require.Greater(t, pages, least)
	}
}

func TestAnswersAreBounded(t *testing.T) {
	var bomb bytes.Buffer
	z := gzip.NewWriter(&bomb)
	_, err := z.Write([]byte(`{"events":[],"next":"`))
	require.NoError(t, err)
	blank := bytes.Repeat([]byte(" "), 1<<20)
	for range 200 {
		_, err = z.Write(blank)
		require.NoError(t, err)
	}
	require.NoError(t, z.Close())
	require.Less(t, bomb.Len(), 1<<20)
	err = pageError(t, answering(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = w.Write(bomb.Bytes())
	}))
	require.ErrorContains(t, err, "more than 64 MiB")
	require.ErrorIs(t, err, erp.ErrTooMuch)

	// One that goes on for ever is left at the limit.
	require.ErrorContains(t, pageError(t, answering(t, func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write(blank); err != nil {
				return
			}
		}
	})), "more than 64 MiB")

	// A service that never ends its answer, and one that never begins it.
	for _, start := range []string{`{"events":[`, ""} {
		ended := make(chan struct{})
		base := answering(t, func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, start)
			if start != "" {
				w.(http.Flusher).Flush()
			}
			select {
			case <-r.Context().Done():
			case <-ended:
			}
		})
		t.Cleanup(func() { close(ended) })
		source := openSource(t, erp.Options{Kind: erp.HTTP, URL: base, Timeout: 200 * time.Millisecond})
		_, err := source.Page(t.Context(), erp.Request{Limit: 1})
		require.ErrorIs(t, err, erp.ErrTooMuch)
		require.ErrorContains(t, err, "longer than ERP_TIMEOUT")
	}
}

// What an event in a list may look like, and what becomes of it.
func TestEventsInAList(t *testing.T) {
	read := func(t *testing.T, event string) erp.Row {
		rows, _ := poll(t, httpSource(t, answering(t, text(`{"events":[`+event+`],"next":"x"}`))), "", 10)
		require.Len(t, rows, 1)
		return rows[0]
	}
	row := read(t, `{"sync_id":9007199254740993,"event":"order_updation","channel":"store","version":7,"data":{"n": 1e400, "d":12345678901234567890.10},
		"changed_at":"2026-01-01T13:00:00.1234567+01:00","other":{}}`)
	require.Equal(t, "9007199254740993", row.Event.SyncID)
	require.Equal(t, order.Store, row.Event.Channel)
	require.Equal(t, `{"n":1e400,"d":12345678901234567890.10}`, string(row.Event.Data))
	require.Equal(t, time.Date(2026, 1, 1, 12, 0, 0, 123_456_000, time.UTC), row.Event.OccurredAt)
	require.Equal(t, `{"sync_id":"9007199254740993","event":"order_updation","event_id":"`+row.Event.ID.String()+
		`","version":7,"occurred_at":"2026-01-01T12:00:00.123456Z","data":{"n":1e400,"d":12345678901234567890.10}}`, string(row.Value))

	// Times without a zone are UTC, as those of a database; what cannot be read makes a dead letter.
	at := func(text string) erp.Row {
		return read(t, strings.Replace(anEvent, `"data"`, `"changed_at":`+text+`,"data"`, 1))
	}
	for text, want := range map[string]time.Time{
		`"2026-01-01T13:00:00.5+01:00"`: time.Date(2026, 1, 1, 12, 0, 0, 500_000_000, time.UTC),
		`"2026-01-01T12:00:00"`:         time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC),
		`"2026-01-01 12:00:00.25"`:      time.Date(2026, 1, 1, 12, 0, 0, 250_000_000, time.UTC),
		`"2026-01-01t12:00:00z"`:        time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC),
		`"2026-01-01T12:00:00+0130"`:    time.Date(2026, 1, 1, 10, 30, 0, 0, time.UTC),
		`"2026-06-30T23:59:60Z"`:        time.Date(2026, 7, 1, 0, 0, 0, 0, time.UTC),
		`"0001-01-01T00:00:00"`:         {}, `"0000-00-00 00:00:00"`: {}, `null`: {},
	} {
		row := at(text)
		require.Nil(t, row.Rejected, text)
		require.Equal(t, want, row.ChangedAt, text)
		if !want.IsZero() {
			require.Equal(t, want.UnixMicro(), row.Event.Version, text)
			require.Equal(t, want, row.Event.OccurredAt, text)
		} else {
			require.Zero(t, row.Event.Version, text)
		}
	}
	for _, text := range []string{`"/Date(1767268800000)/"`, `"yesterday"`, `1767268800`, `""`, `"2026-01-01"`, `"2026-02-30T00:00:00Z"`, `"01.01.2026 12:00"`, `{}`, `true`} {
		row := at(text)
		require.NotNil(t, row.Rejected, text)
		require.Equal(t, order.InvalidField, row.Rejected.Reason)
		require.Contains(t, row.Rejected.Detail, "changed_at")
		require.True(t, row.Eventlike, "in a topic it would be an event")
		require.Equal(t, "1", row.Event.SyncID)
	}
	// So A, B, A are three, and so are two equal invoices.
	require.NotEqual(t, at(`"2026-01-01T12:00:00"`).Event.ID, at(`"2026-01-01T12:00:01"`).Event.ID)

	a, b := read(t, anEvent).Event.ID, read(t, anEvent).Event.ID
	require.Equal(t, a, b, "the same content is the same event")
	require.NotEqual(t, a, read(t, strings.Replace(anEvent, `"a":1`, `"a":2`, 1)).Event.ID)
	require.NotEqual(t, a, read(t, strings.Replace(anEvent, `"data"`, `"changed_at":"2026-01-01T00:00:00Z","data"`, 1)).Event.ID)

	for name, c := range map[string]struct {
		event   string
		reason  order.Reason
		syncID  string
		channel order.Channel
	}{
		"number":          {`5`, order.MalformedJSON, "", ""},
		"null":            {`null`, order.MalformedJSON, "", ""},
		"no data":         {`{"sync_id":1,"event":"order_creation","channel":"store"}`, order.MissingField, "1", order.Store},
		"no sync_id":      {`{"event":"order_creation","channel":"store","data":1}`, order.MissingField, "", order.Store},
		"no channel":      {`{"sync_id":1,"event":"order_creation","data":1}`, order.MissingField, "1", ""},
		"unknown channel": {`{"sync_id":1,"event":"order_creation","channel":"fax","data":1}`, order.InvalidField, "1", ""},
		"channel 5":       {`{"sync_id":1,"event":"order_creation","channel":5,"data":1}`, order.InvalidField, "1", ""},
		"too large":       {`{"sync_id":1,"event":"order_creation","channel":"store","data":"` + strings.Repeat("x", order.MaxValue) + `"}`, order.ValueTooLarge, "1", order.Store},
		"grown too large": {`{"sync_id":1,"event":"order_creation","channel":"store","data":"` + strings.Repeat("x", order.MaxValue-80) + `"}`, order.ValueTooLarge, "1", order.Store},
		"no UTF-8":        {`{"sync_id":1,"event":"order_creation","channel":"store","data":"` + "\xff" + `"}`, order.InvalidUTF8, "1", order.Store},
		"no UTF-8 in id":  {`{"sync_id":"` + "\xff" + `","event":"order_creation","channel":"store","data":1}`, order.InvalidUTF8, "\ufffd", order.Store},
		"float version":   {`{"sync_id":1,"event":"order_creation","channel":"store","data":1,"version":1.5}`, order.InvalidField, "1", order.Store},
	} {
		t.Run(name, func(t *testing.T) {
			row := read(t, c.event)
			require.NotNil(t, row.Rejected)
			require.Equal(t, c.reason, row.Rejected.Reason, row.Rejected.Detail)
			require.Equal(t, c.syncID, row.Event.SyncID)
			require.Equal(t, c.channel, row.Event.Channel)
			if name != "grown too large" {
				require.Equal(t, c.event, string(row.Value), "as it came")
			}
		})
	}
}

// An ERP touches an event and changes nothing else. What is read again is the same event, or another one with an
// identity of its own: two versions under one identity would make a dead letter.
func TestTouchedEventsOfAList(t *testing.T) {
	read := func(day int, fields string) order.Event {
		event := fmt.Sprintf(`{"sync_id":1,"channel":"store","changed_at":"2026-03-%02dT00:00:00Z","data":{"a":1},%s}`, day, fields)
		rows, _ := poll(t, httpSource(t, answering(t, text(`{"events":[`+event+`],"next":"x"}`))), "", 10)
		require.Len(t, rows, 1)
		require.Nil(t, rows[0].Rejected)
		return rows[0].Event
	}
	for name, c := range map[string]struct {
		fields string
		same   bool
	}{
		"its own event_id":            {`"event":"order_updation","event_id":"e1"`, true},
		"its own time":                {`"event":"order_updation","occurred_at":"2026-01-01T00:00:00Z"`, false},
		"a time that is none":         {`"event":"order_updation","occurred_at":"yesterday"`, false},
		"no time":                     {`"event":"order_updation"`, false},
		"an invoice with its time":    {`"event":"invoice_creation","occurred_at":"2026-01-01T00:00:00Z"`, true},
		"an invoice with an event_id": {`"event":"invoice_creation","event_id":"e1"`, true},
	} {
		t.Run(name, func(t *testing.T) {
			first, second := read(1, c.fields), read(2, c.fields)
			require.Equal(t, c.same, first.ID == second.ID)
			if c.same {
				require.True(t, second.SameAs(first.Kind, first.Version, first.Digest))
			} else {
				require.Greater(t, second.Version, first.Version)
			}
		})
	}
}

// Some events have a version and others do not. A version of microseconds would make those with a small one stale.
func TestAListWithAndWithoutVersions(t *testing.T) {
	event := func(day int, kind order.Kind, fields string) string {
		return fmt.Sprintf(`{"sync_id":1,"channel":"store","event":%q,"changed_at":"2026-03-%02dT00:00:00Z","data":{"a":%d}%s}`, kind, day, day, fields)
	}
	all := []string{event(1, order.Creation, ""), event(2, order.Update, `,"version":2`), event(3, order.Update, ""), event(4, order.Update, "")}
	source := httpSource(t, answering(t, func(w http.ResponseWriter, r *http.Request) {
		from, _ := strconv.Atoi(r.URL.Query().Get("after"))
		to := min(from+2, len(all))
		fmt.Fprintf(w, `{"events":[%s],"next":"%d","more":%t}`, strings.Join(all[from:to], ","), to, to < len(all))
	}))
	rows, next := poll(t, source, "", 2)
	var versions []int64
	for _, row := range rows {
		versions = append(versions, row.Event.Version)
	}
	require.Equal(t, []int64{0, 2, 0, 0}, versions)
	all = append(all, event(5, order.Update, ""))
	rows, _ = again(t, source, next, time.Hour, 2) // the next poll knows
	require.NotEmpty(t, rows)
	require.Zero(t, rows[len(rows)-1].Event.Version)
}

func TestHTTPOrders(t *testing.T) {
	var asked []url.Values
	base := answering(t, func(w http.ResponseWriter, r *http.Request) {
		require.Equal(t, "/orders", r.URL.Path)
		q := r.URL.Query()
		asked = append(asked, q)
		switch {
		case q.Has("id"):
			var list []string
			for _, id := range q["id"] {
				if strings.HasSuffix(id, "7") {
					list = append(list, fmt.Sprintf(`{"sync_id":%q,"channel":"store","data":1}`, id))
				}
			}
			fmt.Fprintf(w, `{"orders":[%s]}`, strings.Join(list, ","))
		case q.Get("after") == "":
			fmt.Fprint(w, `{"orders":[{"sync_id":1,"channel":"store","version":3,"data":{"a": 1},"changed_at":"2026-01-01T00:00:00Z"},{"sync_id":2,"data":1}],"next":2,"more":true}`)
		default:
			fmt.Fprint(w, `{"orders":[{"sync_id":"é","channel":"online","data":"x"}]}`+strings.Repeat(" ", 10))
		}
	})
	source := httpSource(t, base)
	page, err := source.Orders(t.Context(), "", 2)
	require.NoError(t, err)
	require.True(t, page.More)
	require.Equal(t, erp.Order{
		SyncID: "1", Channel: order.Store, Version: 3, Data: []byte(`{"a":1}`), ChangedAt: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
	}, page.Orders[0])
	require.Equal(t, "2", page.Orders[1].SyncID)
	require.Equal(t, order.MissingField, page.Orders[1].Rejected.Reason)
	page, err = source.Orders(t.Context(), page.Next, 2)
	require.NoError(t, err)
	require.False(t, page.More)
	require.Equal(t, "é", page.Orders[0].SyncID)
	require.Equal(t, "2", asked[1].Get("after"))

	var ids []string
	for i := range 200 {
		ids = append(ids, fmt.Sprint("order ", i))
	}
	known, err := source.Known(t.Context(), ids)
	require.NoError(t, err)
	require.Len(t, known, 20)
	require.True(t, known["order 197"])
	_, err = source.Orders(t.Context(), "x", 2)
	require.ErrorIs(t, err, erp.ErrCursor)
}
