package erpsim

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	_ "github.com/go-sql-driver/mysql"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"ordersync/internal/devstack/devtest"
	"ordersync/internal/erp"
	"ordersync/internal/order"
	"ordersync/internal/simulate"
)

func TestMain(m *testing.M) { devtest.Main(m) }

// often are faults that hit enough of a few events.
var often = Faults{Late: 0.2, LateBy: 3 * time.Second, Twice: 0.1, Swapped: 0.2}

// serving is an ERP of n orders that listens.
func serving(t *testing.T, n int, o Options) *ERP {
	t.Helper()
	var err error
	o.Events, err = Orders(7, n, simulate.Options{})
	require.NoError(t, err)
	o.Seed = 7
	s, err := New(o)
	require.NoError(t, err)
	require.NoError(t, s.Listen("127.0.0.1:0"))
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func source(t *testing.T, o erp.Options) erp.Source {
	t.Helper()
	src, err := erp.Open(o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = src.Close() })
	return src
}

// pages reads to the end of a source, and gives what it read and where it is then.
func pages(t *testing.T, src erp.Source, after erp.Cursor) ([]order.Event, erp.Cursor) {
	t.Helper()
	var events []order.Event
	for {
		page, err := src.Page(t.Context(), erp.Request{After: after, Limit: 17})
		require.NoError(t, err)
		for _, row := range page.Rows {
			require.Nil(t, row.Rejected, "%s", row.Value)
			events = append(events, row.Event)
		}
		after = page.Next
		if !page.More {
			return events, after
		}
	}
}

// orders are all that a source lists, as rows of a target.
func orders(t *testing.T, src erp.Source) map[string]simulate.Row {
	t.Helper()
	rows := map[string]simulate.Row{}
	for after, more := erp.Cursor(""), true; more; {
		page, err := src.Orders(t.Context(), after, 17)
		require.NoError(t, err)
		for _, o := range page.Orders {
			require.Nil(t, o.Rejected)
			require.NotContains(t, rows, o.SyncID, "each order is listed once")
			require.False(t, o.ChangedAt.IsZero())
			rows[o.SyncID] = simulate.Row{Channel: o.Channel, Data: o.Data, Version: o.Version}
		}
		after, more = page.Next, page.More
	}
	return rows
}

// requireOrders compares them with the model, which knows of invoices too.
func requireOrders(t *testing.T, s *ERP, src erp.Source) {
	t.Helper()
	want, got := s.Model().Orders, orders(t, src)
	require.NotEmpty(t, want)
	require.Equal(t, slices.Sorted(maps.Keys(want)), slices.Sorted(maps.Keys(got)))
	for id, row := range got {
		require.Equal(t, want[id].Version, row.Version, id)
		require.Equal(t, want[id].Channel, row.Channel, id)
		require.True(t, simulate.SameJSON(want[id].Data, row.Data), id)
	}
}

// Through both kinds of source: who polls with an overlap gets everything, whatever the faults; who
// polls without one loses what is committed late.
func TestPolling(t *testing.T) {
	for kind, open := range map[string]func(*testing.T, *ERP) (erp.Source, func()){
		"http": func(t *testing.T, s *ERP) (erp.Source, func()) {
			return source(t, erp.Options{Kind: erp.HTTP, URL: s.URL(), Token: s.token}), func() {}
		},
		"mysql": func(t *testing.T, s *ERP) (erp.Source, func()) {
			dsn := devtest.MySQL(t)
			db, err := sql.Open("mysql", dsn)
			require.NoError(t, err)
			t.Cleanup(func() { db.Close() })
			mirror, err := s.NewMirror(t.Context(), db)
			require.NoError(t, err)
			queries, orders, err := WriteQueries(t.TempDir())
			require.NoError(t, err)
			return source(t, erp.Options{Kind: erp.MySQL, URL: dsn, QueriesDir: queries, OrdersQuery: orders}),
				func() { require.NoError(t, mirror.Update(t.Context())) }
		},
	} {
		t.Run(kind, func(t *testing.T) {
			s := serving(t, 60, Options{Faults: often, Token: "secret"})
			src, update := open(t, s)
			overlapped, bare := map[string]order.Event{}, map[string]order.Event{}
			var swapped, again int
			newest := map[string]int64{}
			var at, bareAt erp.Cursor
			for s.Progress().ToCome > 0 {
				s.Advance(40)
				update()
				from, err := src.Rewind(t.Context(), at, often.LateBy+time.Minute)
				require.NoError(t, err)
				var events []order.Event
				events, at = pages(t, src, from)
				for _, e := range events {
					overlapped[e.ID.String()] = e
				}
				events, bareAt = pages(t, src, bareAt)
				for _, e := range events {
					if _, ok := bare[e.ID.String()]; ok {
						again++
					}
					if e.Version < newest[e.SyncID] {
						swapped++
					}
					newest[e.SyncID] = max(newest[e.SyncID], e.Version)
					bare[e.ID.String()] = e
				}
			}
			model := s.Model()
			assert.Len(t, overlapped, len(model.Ledger))
			assert.Less(t, len(bare), len(model.Ledger), "nothing was late")
			assert.NotZero(t, again)
			assert.NotZero(t, swapped)
			// What was read comes to what the ERP says of itself.
			assert.Empty(t, simulate.Compare(model, simulate.Expect(maps.Values(overlapped))))
			requireOrders(t, s, src)
			known, err := src.Known(t.Context(), []string{overlapped[slices.Sorted(maps.Keys(overlapped))[0]].SyncID, "nobody's"})
			require.NoError(t, err)
			assert.Len(t, known, 1)
		})
	}
}

// The same seed plans the same, and each fault comes about as often as it is meant to.
func TestPlan(t *testing.T) {
	events, err := Orders(3, 2000, simulate.Options{})
	require.NoError(t, err)
	count := func(f Faults) (late, again, swapped int) {
		newest := map[string]int64{}
		for _, c := range plan(Options{Events: events, Seed: 5, Faults: f}) {
			if c.late > 0 {
				late++
				require.LessOrEqual(t, c.late, f.LateBy)
			}
			if c.again {
				again++
				continue
			}
			if c.Version < newest[c.SyncID] {
				swapped++
			}
			newest[c.SyncID] = max(newest[c.SyncID], c.Version)
		}
		return late, again, swapped
	}
	late, again, swapped := count(Usual)
	assert.InEpsilon(t, 0.05*float64(len(events)), late, 0.2)
	assert.InEpsilon(t, 0.03*float64(len(events)), again, 0.2)
	assert.Greater(t, swapped, 30)
	assert.Equal(t, plan(Options{Events: events, Seed: 5, Faults: Usual}), plan(Options{Events: events, Seed: 5, Faults: Usual}))

	late, again, swapped = count(Faults{})
	assert.Zero(t, late+again+swapped)
}

// Nothing but their order of arrival tells what comes of events without versions.
func TestPlanLeavesUnversionedEventsInOrder(t *testing.T) {
	var events []Event
	for i := range 200 {
		e := order.Event{SyncID: "1", ID: order.ParseEventID(fmt.Sprint(i)), Kind: order.Update, Channel: order.Online, Data: json.RawMessage(fmt.Sprint(i))}
		if i == 0 {
			e.Kind = order.Creation
		}
		events = append(events, Event{Event: e, Line: []byte("{}")})
	}
	var first []string
	for _, c := range plan(Options{Events: events, Faults: often}) {
		require.Zero(t, c.late)
		if !c.again {
			first = append(first, string(c.Data))
		}
	}
	for i := range events {
		require.Equal(t, fmt.Sprint(i), first[i])
	}
}

func TestGrow(t *testing.T) {
	s := serving(t, 20, Options{})
	src := source(t, erp.Options{Kind: erp.HTTP, URL: s.URL()})
	all := s.Progress().ToCome
	require.Error(t, s.Grow(0))
	require.NoError(t, s.Grow(200))
	var seen int
	devtest.Eventually(t, 10*time.Second, func() error {
		p := s.Progress()
		require.GreaterOrEqual(t, p.Told, seen)
		seen = p.Told
		if p.ToCome > 0 {
			return fmt.Errorf("%+v", p)
		}
		return nil
	}, "everything is told")
	p := s.Progress()
	require.Equal(t, all, p.Told)
	require.Equal(t, 20, p.Orders)
	events, _ := pages(t, src, "")
	require.Len(t, events, all)
	require.GreaterOrEqual(t, events[all-1].OccurredAt.Sub(events[0].OccurredAt), time.Duration(all-2)*5*time.Millisecond, "a change every 5 ms")
	require.Equal(t, p.At, events[all-1].OccurredAt, "it happened when it was told")
}

// A period of changes, as a backfill asks for it.
func TestSinceAndUntil(t *testing.T) {
	s := serving(t, 20, Options{})
	src := source(t, erp.Options{Kind: erp.HTTP, URL: s.URL()})
	s.Advance(10)
	devtest.Eventually(t, time.Second, func() error {
		if !now().After(s.Progress().At.Add(time.Millisecond)) {
			return errors.New("not yet")
		}
		return nil
	}, "a millisecond passes")
	s.Advance(10)
	all, _ := pages(t, src, "")
	require.Len(t, all, 20)
	from, err := src.From(all[10].OccurredAt)
	require.NoError(t, err)
	later, _ := pages(t, src, from)
	require.Equal(t, ids(all[10:]), ids(later))
	page, err := src.Page(t.Context(), erp.Request{Until: all[10].OccurredAt, Limit: 100})
	require.NoError(t, err)
	require.Len(t, page.Rows, 10)
	require.False(t, page.More)
}

func ids(events []order.Event) []string {
	var all []string
	for _, e := range events {
		all = append(all, e.ID.String())
	}
	return all
}

func TestOutages(t *testing.T) {
	s := serving(t, 20, Options{})
	s.Finish()
	src := source(t, erp.Options{Kind: erp.HTTP, URL: s.URL(), Timeout: time.Minute})
	ask := func(limit time.Duration) error {
		ctx, cancel := context.WithTimeout(t.Context(), limit)
		defer cancel()
		_, err := src.Page(ctx, erp.Request{Limit: 10})
		return err
	}
	require.NoError(t, ask(time.Minute))
	require.Error(t, s.Down(0))

	require.NoError(t, s.Down(Busy))
	var busy *erp.Unavailable
	require.ErrorAs(t, ask(time.Minute), &busy)
	require.Equal(t, retryAfter, busy.After)

	require.NoError(t, s.Down(Hanging))
	require.ErrorIs(t, ask(50*time.Millisecond), context.DeadlineExceeded)
	hanging := make(chan error)
	before := s.Progress().Refused
	go func() { hanging <- ask(time.Minute) }()
	devtest.Eventually(t, 10*time.Second, func() error {
		if s.Progress().Refused == before {
			return errors.New("not yet")
		}
		return nil
	}, "a request hangs")

	require.NoError(t, s.Down(Refusing))
	require.Error(t, <-hanging, "who hangs when an outage ends is let go")
	require.ErrorIs(t, ask(time.Minute), syscall.ECONNREFUSED)

	url := s.URL()
	require.NoError(t, s.Up())
	require.Equal(t, url, s.URL())
	require.NoError(t, ask(time.Minute))
	p := s.Progress()
	require.GreaterOrEqual(t, p.Refused, 3)
	require.GreaterOrEqual(t, p.Requests, p.Refused+2)
}

// Outages that come by themselves end by themselves.
func TestStruggle(t *testing.T) {
	s := serving(t, 1, Options{})
	src := source(t, erp.Options{Kind: erp.HTTP, URL: s.URL(), Timeout: time.Minute})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.Struggle(ctx, 1, 20*time.Millisecond, 20*time.Millisecond) }()
	var fine, failed int
	devtest.Eventually(t, 20*time.Second, func() error {
		if _, err := src.Page(t.Context(), erp.Request{Limit: 1}); err == nil {
			fine++
		} else {
			failed++
		}
		if fine < 20 || failed < 5 {
			return fmt.Errorf("%d requests were fine, %d failed", fine, failed)
		}
		return nil
	}, "outages come and go")
	cancel()
	require.NoError(t, <-ended)
	_, err := src.Page(t.Context(), erp.Request{Limit: 1})
	require.NoError(t, err, "it leaves none behind")
}

func TestRequestsThatMakeNoSense(t *testing.T) {
	s := serving(t, 1, Options{Token: "secret"})
	for path, status := range map[string]int{
		"/events?after=nonsense": http.StatusBadRequest, "/events?after=1-x": http.StatusBadRequest,
		"/events?since=yesterday": http.StatusBadRequest, "/events?until=soon": http.StatusBadRequest,
		"/events?limit=0": http.StatusBadRequest, "/orders?limit=x": http.StatusBadRequest,
		"/invoices": http.StatusNotFound, "/events": http.StatusOK, "/orders?id=nobody": http.StatusOK,
	} {
		for token, want := range map[string]int{"secret": status, "": http.StatusUnauthorized} {
			r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL()+path, nil)
			require.NoError(t, err)
			r.Header.Set("Authorization", "Bearer "+token)
			answer, err := http.DefaultClient.Do(r)
			require.NoError(t, err)
			require.NoError(t, answer.Body.Close())
			assert.Equal(t, want, answer.StatusCode, "%s with %q", path, token)
		}
	}
}

// The real orders, told in the words of their file.
func TestRead(t *testing.T) {
	text, err := os.ReadFile("../../e2e/testdata/retail-orders.ndjson")
	require.NoError(t, err)
	events, err := Read(bytes.NewReader(text))
	require.NoError(t, err)
	require.Len(t, events, 835)
	s, err := New(Options{Events: events, Faults: Usual})
	require.NoError(t, err)
	s.Finish()
	require.NoError(t, s.Listen("127.0.0.1:0"))
	defer s.Close()
	got, _ := pages(t, source(t, erp.Options{Kind: erp.HTTP, URL: s.URL()}), "")
	want := simulate.Expect(lines(t, text))
	require.Empty(t, simulate.Compare(want, s.Model()))
	require.Empty(t, simulate.Compare(want, simulate.Expect(slices.Values(got))))
	require.Equal(t, 2010, got[0].OccurredAt.Year(), "when it happened stands in the file")

	require.NoError(t, HappenNow(events))
	s, err = New(Options{Events: events})
	require.NoError(t, err)
	s.Finish()
	require.NoError(t, s.Listen("127.0.0.1:0"))
	defer s.Close()
	again, _ := pages(t, source(t, erp.Options{Kind: erp.HTTP, URL: s.URL()}), "")
	require.Empty(t, simulate.Compare(want, simulate.Expect(slices.Values(again))), "the same events")
	require.WithinDuration(t, time.Now(), again[0].OccurredAt, time.Minute)
}

func lines(t *testing.T, text []byte) iter.Seq[order.Event] {
	return func(yield func(order.Event) bool) {
		for line := range bytes.Lines(text) {
			e, err := simulate.Parse(line)
			require.NoError(t, err)
			if !yield(e) {
				return
			}
		}
	}
}

func TestReadRefuses(t *testing.T) {
	const good = `{"sync_id":1,"channel":"online","event":"order_creation","version":1,"data":1}` + "\n"
	for line, why := range map[string]string{
		`nonsense`: "line 2: ",
		`{"sync_id":1,"channel":"online","event":"order_creation","data":1}`:                              "line 2: it has neither event_id nor version",
		`{"sync_id":1,"channel":"fax","event":"order_creation","version":1,"data":1}`:                     `line 2: channel "fax" is none of`,
		`{"sync_id":1,"channel":"online","event":"order_creation","version":1,"data":1,"changed_at":"x"}`: "line 2: changed_at is for the ERP to tell",
		`{"sync_id":1,"channel":"online","event":"order_gone","version":1,"data":1}`:                      "line 2: ",
	} {
		_, err := Read(strings.NewReader(good + line))
		require.ErrorContains(t, err, why)
	}
	events, err := Read(strings.NewReader(good + `{"sync_id":1,"channel":"online","event":"order_updation","event_id":"x","data":1}`))
	require.NoError(t, err)
	_, err = New(Options{Events: events})
	require.ErrorContains(t, err, "order 1 has events with and without a version")
}
