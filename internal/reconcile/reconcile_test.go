package reconcile

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"

	"ordersync/internal/erp"
	"ordersync/internal/freshness"
	"ordersync/internal/order"
	"ordersync/internal/topics"
)

// An ERP without versions: those of its changes come from their times, and so do those of its list of orders.
func TestVersionsThatComeFromTimes(t *testing.T) {
	b := withKafka(setup(t))
	at := old.UnixMicro()
	put := func(id string, version int64, data string) {
		b.books.put(id, version, data)
		o := b.books.orders[id]
		o.Derived = true
		b.books.orders[id] = o
	}
	put("1", at, data(1))
	b.row("1", at, data(1))
	put("2", at, data(2))
	b.row("2", at-7, data(2)) // the creation's time, a little before that of the row
	put("3", at, data(3))
	b.row("3", at+7, data(3)) // the same data, all the same
	put("4", at, data(4))
	b.row("4", at-7, data(40))
	put("5", at, data(5))
	b.row("5", at+7, data(50))
	put("6", at, data(6))
	b.row("6", at, data(60))
	put("7", at, data(7)) // missing
	put("8", at, data(8))
	b.row("8", 0, data(80)) // written by a release before
	put("9", at, data(9))
	b.row("9", 3, data(90)) // the changes have versions, and the list of orders has none
	put("10", at, data(10))
	b.row("10", at-7, data(100)) // amended
	require.NoError(t, b.target.RecordAction(t.Context(), amend("10", data(10))))
	put("11", at, data(11))
	b.row("11", at-7, data(110)) // somebody skipped that version
	b.skip("11", at)

	w := walkOf(100)
	w.Found.Repair = true
	f := b.run(w)
	require.Equal(t, map[string]order.Drift{
		"4": order.DriftStale, "5": order.DriftDifferent, "6": order.DriftDifferent, "7": order.DriftMissing, "8": order.DriftDifferent, "9": order.DriftDifferent,
		"10": order.DriftAmended, "11": order.DriftAmended,
	}, classes(t, f))
	require.EqualValues(t, 6, f.Repaired)
	versions := map[string]int64{}
	for id, e := range b.published(6) {
		versions[id] = e.Version
		b.row(id, max(e.Version, 3), string(e.Data)) // as they are applied
	}
	// Where the target has no such version, one would make versions of the ERP's own stale.
	require.Equal(t, map[string]int64{"4": at, "5": at + 7, "6": at, "7": 0, "8": 0, "9": 0}, versions)
	require.Equal(t, map[string]order.Drift{"10": order.DriftAmended, "11": order.DriftAmended}, classes(t, b.run(walkOf(100))))
}

// Every class, in pages of every kind: smaller than what there is, just as large, larger.
func TestClasses(t *testing.T) {
	registry := prometheus.NewRegistry()
	stuck := "its workflow is blocked: CheckViolated"
	b := setup(t, func(o *Options) {
		o.Registerer = registry
		o.Horizons = func(context.Context) (map[order.Channel]time.Time, error) {
			return map[order.Channel]time.Time{order.Online: old.Add(time.Hour)}, nil
		}
		o.Waiting = func(_ context.Context, id string) (string, error) {
			if id == "11" {
				return stuck, nil
			}
			return "", nil
		}
	})
	b.both("1", 2, `{"a": 1.0, "b": [1e2, "é"]}`)
	b.row("1", 2, `{"b":[100,"\u00e9"],"a":1}`)
	b.both("2", 0, data(2))
	b.books.put("3", 1, data(3)) // missing
	b.both("4", 5, data(4))
	b.row("4", 4, data(4)) // stale, whatever its data
	b.both("5", 5, data(5))
	b.row("5", 5, data(50)) // different
	b.both("6", 0, data(6))
	b.row("6", 3, data(60)) // different: one side has no version
	b.both("7", 3, data(7))
	b.row("7", 0, data(70)) // and the other way round
	b.both("8", 3, data(8))
	b.row("8", 0, data(8)) // the same data, all the same
	b.both("9", 5, data(9))
	b.row("9", 5, data(90)) // amended
	require.NoError(t, b.target.RecordAction(t.Context(), amend("9", ` {"note":"order 9","total":9.0}`)))
	b.both("10", 5, data(10))
	b.row("10", 6, data(10)) // ahead
	b.both("11", 5, data(11))
	b.row("11", 4, data(11)) // stuck
	b.both("12", 5, data(12))
	b.row("12", 5, data(120)) // amended, but that is not what the ERP has now
	require.NoError(t, b.target.RecordAction(t.Context(), amend("12", data(13))))
	b.row("13", 2, data(13)) // extra
	b.books.put("14", 1, data(14))
	young := b.books.orders["14"]
	young.ChangedAt = old.Add(time.Hour)
	b.books.orders["14"] = young // changed just at the horizon
	b.books.orders["15"] = erp.Order{SyncID: "15", Rejected: &order.Rejection{Reason: order.MissingField, Detail: "no data"}}
	b.row("15", 1, data(15)) // the ERP has it, in a form nobody can read

	b.both("16", 5, data(16))
	b.row("16", 4, data(160)) // stale, because somebody skipped version 5
	b.skip("16", 5)
	b.both("17", 5, data(17))
	b.row("17", 4, data(170)) // stale: it is another version that was skipped
	b.skip("17", 3)

	want := map[string]order.Drift{
		"16": order.DriftAmended, "17": order.DriftStale, "3": order.DriftMissing, "4": order.DriftStale, "5": order.DriftDifferent, "6": order.DriftDifferent, "7": order.DriftDifferent,
		"9": order.DriftAmended, "10": order.DriftAhead, "11": order.OnItsWay, "12": order.DriftDifferent, "13": order.DriftExtra, "14": order.OnItsWay,
	}
	for _, size := range []int{1, 2, 5, 13, 14, 15, 100, 0} {
		f := b.run(walkOf(size))
		require.Equal(t, want, classes(t, f), "pages of %d", size)
		require.EqualValues(t, 15, f.TargetOrders)
		require.EqualValues(t, 15, f.ERPOrders)
		require.EqualValues(t, 3, f.Agreeing)
		require.EqualValues(t, 1, f.Rejected)
		require.Equal(t, `order "15": missing-field: no data`, f.FirstRejected)
		require.EqualValues(t, 9, f.Drifted())
		require.EqualValues(t, 9, f.Unrepaired())
		require.False(t, f.FinishedAt.Before(f.StartedAt))
	}
	f := b.run(walkOf(100))
	at := func(id string) order.Finding {
		i := slices.IndexFunc(f.Findings, func(f order.Finding) bool { return f.SyncID == id })
		return f.Findings[i]
	}
	require.Equal(t, order.Finding{SyncID: "4", Class: order.DriftStale, Channel: order.Online, ERPVersion: 5, TargetVersion: 4, ChangedAt: old}, at("4"))
	require.Equal(t, order.Finding{SyncID: "13", Class: order.DriftExtra, Channel: order.Online, TargetVersion: 2}, at("13"))
	require.Equal(t, stuck, at("11").Why)
	require.Contains(t, at("14").Why, "2026-01-02T04:04:05Z")

	require.NoError(t, testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP ordersync_reconcile_orders Orders by what the last reconciliation found: agreeing, missing, stale, different, amended, ahead, extra or on_its_way.
# TYPE ordersync_reconcile_orders gauge
ordersync_reconcile_orders{class="agreeing"} 3
ordersync_reconcile_orders{class="ahead"} 1
ordersync_reconcile_orders{class="amended"} 2
ordersync_reconcile_orders{class="different"} 4
ordersync_reconcile_orders{class="extra"} 1
ordersync_reconcile_orders{class="missing"} 1
ordersync_reconcile_orders{class="on_its_way"} 2
ordersync_reconcile_orders{class="stale"} 2
`), "ordersync_reconcile_orders"))
	require.InDelta(t, time.Now().Unix(), testutil.ToFloat64(b.metrics.finished), 60)
}

func TestBothEndsEmpty(t *testing.T) {
	b := setup(t)
	f := b.run(walkOf(10))
	require.Empty(t, classes(t, f))
	require.NotNil(t, f.Findings)
	require.Zero(t, f.Drifted())
}

// Before a poll is through, nobody can say what is on its way; and what a poll has never seen is not
// held against anybody.
func TestNoHorizonYet(t *testing.T) {
	b := setup(t, func(o *Options) {
		o.Horizons = func(context.Context) (map[order.Channel]time.Time, error) {
			return map[order.Channel]time.Time{order.Online: {}}, nil
		}
	})
	b.books.put("1", 1, data(1))
	f := b.run(walkOf(10))
	require.Equal(t, map[string]order.Drift{"1": order.OnItsWay}, classes(t, f))
	require.Equal(t, "no poll of the ERP is through yet", f.Findings[0].Why)
}

// What happens between the first look and the second.
func TestSecondLook(t *testing.T) {
	for name, tc := range map[string]struct {
		// meanwhile is called before the ERP is read the second time.
		meanwhile func(*bundle)
		want      order.Drift
	}{
		"nothing":                        {func(*bundle) {}, order.DriftStale},
		"it arrives":                     {func(b *bundle) { b.row("1", 5, data(1)) }, ""},
		"a part of it arrives":           {func(b *bundle) { b.row("1", 4, data(1)) }, order.OnItsWay},
		"a newer version arrives":        {func(b *bundle) { b.row("1", 6, data(6)) }, order.OnItsWay},
		"the ERP changes it":             {func(b *bundle) { b.books.put("1", 6, data(6)) }, order.OnItsWay},
		"the ERP changes it, it arrives": {func(b *bundle) { b.books.put("1", 6, data(6)); b.row("1", 6, data(6)) }, ""},
		"the ERP deletes it":             {func(b *bundle) { delete(b.books.orders, "1") }, order.OnItsWay},
		"the target deletes it":          {func(b *bundle) { b.exec("DELETE FROM orders") }, order.OnItsWay},
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			b.both("1", 5, data(1))
			b.row("1", 3, data(3))
			b.books.before = func(kind string, nth int) error {
				if kind == "orders" && nth == 2 {
					tc.meanwhile(b)
				}
				return nil
			}
			f := b.run(walkOf(10))
			if tc.want == "" {
				require.Empty(t, f.Findings)
				return
			}
			require.Equal(t, tc.want, f.Findings[0].Class) // what the ERP deleted is found again, as extra
		})
	}
}

// An order that is deleted at both ends during the walk is nothing extra.
func TestExtraIsAskedForTwice(t *testing.T) {
	for name, meanwhile := range map[string]func(*bundle){
		"the target deletes it": func(b *bundle) { b.exec("DELETE FROM orders") },
		"the ERP gets it":       func(b *bundle) { b.books.put("1", 1, data(1)) },
	} {
		t.Run(name, func(t *testing.T) {
			b := setup(t)
			b.row("1", 1, data(1))
			b.books.before = func(kind string, nth int) error {
				// The target is read between the two questions.
				if kind == "known" && nth == 2 && name == "the ERP gets it" {
					meanwhile(b)
				}
				if kind == "known" && nth == 1 && name != "the ERP gets it" {
					meanwhile(b)
				}
				return nil
			}
			require.Empty(t, classes(t, b.run(walkOf(10))))
		})
	}
}

// A walk that fails at any question goes on where it was, and comes to the same.
func TestGoesOnAfterAnError(t *testing.T) {
	b := setup(t)
	for i := range 250 {
		b.both(strconv.Itoa(i), 2, data(i))
	}
	for i := range 25 {
		b.row(strconv.Itoa(10*i), 1, data(i))
		b.exec("DELETE FROM orders WHERE sync_id = ?", strconv.Itoa(10*i+1))
		b.row(strconv.Itoa(1000+i), 1, data(i))
	}
	want := b.run(walkOf(20))
	require.EqualValues(t, 75, want.Drifted())

	down := erp.Unavailable{After: 7 * time.Second, Err: errDown}
	questions := 0
	b.books.before = func(string, int) error {
		if questions++; questions%3 == 0 { // a page that has drift asks two
			return &down
		}
		return nil
	}
	reached, attempts := walkOf(20), 0
	for {
		attempts++
		// What a heartbeat makes of it.
		text, err := json.Marshal(reached)
		require.NoError(t, err)
		reached = order.Walk{}
		require.NoError(t, json.Unmarshal(text, &reached))

		got, err := b.Reconcile(t.Context(), reached, func(w order.Walk) { reached = w })
		if err == nil {
			require.Equal(t, classes(t, want), classes(t, got))
			require.Equal(t, want.Agreeing, got.Agreeing)
			require.Equal(t, want.ERPOrders, got.ERPOrders)
			require.Equal(t, want.TargetOrders, got.TargetOrders)
			break
		}
		require.ErrorIs(t, err, errDown)
		var wait interface{ RetryAfter() time.Duration }
		require.ErrorAs(t, err, &wait)
		require.Equal(t, 7*time.Second, wait.RetryAfter())
		require.Less(t, attempts, 200)
	}
	require.Greater(t, attempts, 10)
}

func TestFindingsAreBounded(t *testing.T) {
	b := setup(t, func(o *Options) {
		o.Waiting = func(_ context.Context, id string) (string, error) {
			if n, _ := strconv.Atoi(id); n < 600 {
				return "its workflow is retrying: TargetUnavailable", nil
			}
			return "", nil
		}
	})
	for i := range 600 + order.MaxFindings {
		b.books.put(strconv.Itoa(i), 1, data(i))
	}
	f := b.run(walkOf(100))
	require.Len(t, f.Findings, order.MaxFindings)
	require.EqualValues(t, 600, f.Counts[order.OnItsWay])
	require.EqualValues(t, order.MaxFindings, f.Counts[order.DriftMissing])
	for _, finding := range f.Findings {
		require.Equal(t, order.DriftMissing, finding.Class, "drift goes before what is only on its way")
	}
}

func TestPagesAreAsLargeAsTheirData(t *testing.T) {
	require.Equal(t, 200, nextLimit(100, 100, 100*300))
	require.Equal(t, 4, nextLimit(100, 100, 100<<20))
	require.Equal(t, 1, nextLimit(4, 4, 40<<20))
	require.Equal(t, 2, nextLimit(1, 1, 300))
	require.Equal(t, 100, nextLimit(100, 0, 0))
}

// An ERP that says there is more without going on would be walked for ever.
func TestAnERPThatDoesNotGoOn(t *testing.T) {
	b := setup(t)
	b.erp = stuckERP{}
	_, err := b.Reconcile(t.Context(), walkOf(10), func(order.Walk) {})
	require.ErrorContains(t, err, "does not go on")
}

type stuckERP struct{ erp.Source }

func (stuckERP) Orders(context.Context, erp.Cursor, int) (erp.OrderPage, error) {
	return erp.OrderPage{More: true}, nil
}

func TestRepair(t *testing.T) {
	b := withKafka(setup(t))
	b.both("1", 1, data(1))
	b.books.put("2", 3, data(2)) // missing
	b.both("3", 5, data(3))
	b.row("3", 4, data(30)) // stale
	b.both("4", 5, data(4))
	b.row("4", 5, data(40)) // different
	b.both("5", 5, data(5))
	b.row("5", 6, data(5))         // ahead
	b.row("6", 1, data(6))         // extra
	b.books.put("7", 0, `"plain"`) // missing, without a version, and nobody knows when it was changed
	undated := b.books.orders["7"]
	undated.ChangedAt = time.Time{}
	b.books.orders["7"] = undated
	b.books.put("8", 1, `"`+strings.Repeat("x", order.MaxValue)+`"`) // too large for an event
	b.books.put("9", 1, `"`+noise(900_000)+`"`)                      // too large for the topic
	b.books.put("10", 1, data(10))
	elsewhere := b.books.orders["10"]
	elsewhere.Channel = order.International
	b.books.orders["10"] = elsewhere // of a channel that no topic is read for

	w := walkOf(100)
	w.Found.Repair = true
	var last order.Walk
	f, err := b.Reconcile(t.Context(), w, func(at order.Walk) { last = at })
	require.NoError(t, err)
	require.EqualValues(t, 4, f.Repaired)
	require.EqualValues(t, 9, f.Drifted())
	require.EqualValues(t, 5, f.Unrepaired())
	require.Equal(t, order.Walked, last.Stage)

	// The same run once more, as a retry does it.
	again := b.run(w)
	require.Equal(t, f.Findings, again.Findings)
	events := b.published(8)
	require.ElementsMatch(t, []string{"2", "3", "4", "7"}, slices.Collect(maps.Keys(events)))
	for id, kind := range map[string]order.Kind{"2": order.Creation, "3": order.Update, "4": order.Update, "7": order.Creation} {
		e, o := events[id], b.books.orders[id]
		require.Equal(t, kind, e.Kind)
		require.Equal(t, o.Version, e.Version)
		require.JSONEq(t, string(o.Data), string(e.Data))
		if id != "7" {
			require.Equal(t, old, e.OccurredAt)
		}
	}
	for _, finding := range f.Findings {
		e, repaired := events[finding.SyncID]
		if !repaired {
			require.Nil(t, finding.Repair, finding.SyncID)
			continue
		}
		require.Equal(t, e.ID, *finding.Repair)
		actions, err := b.target.Actions(t.Context(), finding.SyncID)
		require.NoError(t, err)
		require.Len(t, actions, 1, "the audit has it once")
		require.Equal(t, order.RepairAction, actions[0].Name)
		require.Equal(t, e.ID, *actions[0].EventID)
		require.Equal(t, "support@shop", actions[0].By)
		require.Equal(t, "reconcile "+w.Found.RunID, actions[0].Reason)
	}
	why := map[string]string{}
	for _, finding := range f.Findings {
		why[finding.SyncID] = finding.Why
	}
	require.Contains(t, why["8"], "not repaired: the event would have")
	require.Equal(t, "not repaired: topic online refuses an event of this size", why["9"])
	require.Equal(t, `not repaired: no topic is read for channel "international"`, why["10"])
	actions, err := b.target.Actions(t.Context(), "3")
	require.NoError(t, err)
	require.Equal(t, "publishes order_updation v5 as the ERP has it, to online", actions[0].Effect)
	require.Equal(t, "stale: version 4", actions[0].Before)

	// Another run is another repair.
	w = walkOf(100)
	w.Found.Repair = true
	other := b.run(w)
	second := slices.IndexFunc(f.Findings, func(f order.Finding) bool { return f.SyncID == "2" })
	require.NotEqual(t, f.Findings[second].Repair, other.Findings[second].Repair)
}

// What a repair publishes waits in Kafka for a while, and is as old as what it mends. The rest of the walk, and
// of the attempt after it, is repaired all the same.
func TestARepairDoesNotHideTheRest(t *testing.T) {
	for name, tc := range map[string]struct {
		fails int // at this question for orders
		// lost is the progress of the page that has published, as in a worker that is killed then.
		lost bool
	}{
		"in one attempt":         {},
		"in the next attempt":    {fails: 3},
		"of a page that is lost": {fails: 3, lost: true},
	} {
		t.Run(name, func(t *testing.T) {
			b := withKafka(setup(t))
			for i := range 30 {
				b.books.put(strconv.Itoa(i), 1, data(i))
				o := b.books.orders[strconv.Itoa(i)]
				o.ChangedAt = old.Add(time.Duration(i) * time.Hour)
				b.books.orders[o.SyncID] = o
			}
			b.books.before = func(kind string, nth int) error {
				if kind == "orders" && nth == tc.fails {
					return errDown
				}
				return nil
			}
			transport := &kafka.Transport{}
			t.Cleanup(transport.CloseIdleConnections)
			probe := &freshness.Probe{
				Reader: topics.Reader{Brokers: b.brokers, Transport: transport}, Group: "starters",
				Topics: map[string]order.Channel{"online": order.Online},
			}
			b.horizons, b.horizonAge = probe.Horizons, 0 // each page asks

			began := walkOf(10)
			began.Found.Repair = true
			beat := func(w order.Walk) []byte {
				text, err := json.Marshal(w)
				require.NoError(t, err)
				return text
			}
			reached := beat(began)
			attempt := func() (order.Reconciliation, error) {
				var at order.Walk
				require.NoError(t, json.Unmarshal(reached, &at))
				return b.Reconcile(t.Context(), at, func(w order.Walk) {
					if !tc.lost || w.Found.Repaired == 0 {
						reached = beat(w)
					}
				})
			}
			f, err := attempt()
			if tc.fails > 0 {
				require.ErrorIs(t, err, errDown)
				f, err = attempt()
			}
			require.NoError(t, err)
			require.EqualValues(t, 30, f.Repaired, "%v", f.Counts)
			require.Zero(t, f.Unrepaired())
		})
	}
}

// noise is text that hardly gets smaller by compression, n characters of it.
func noise(n int) string {
	raw := make([]byte, n)
	_, _ = rand.Read(raw) // never fails
	return base64.StdEncoding.EncodeToString(raw)[:n]
}

func TestWithoutRepairNothingIsPublished(t *testing.T) {
	b := setup(t) // without a producer
	b.books.put("1", 1, data(1))
	f := b.run(walkOf(10))
	require.EqualValues(t, 1, f.Unrepaired())
	actions, err := b.target.Actions(t.Context(), "1")
	require.NoError(t, err)
	require.Empty(t, actions)
}

// A broker that is away fails the attempt; nothing counts as repaired.
func TestRepairWithoutABroker(t *testing.T) {
	b := withKafka(setup(t))
	b.books.put("1", 1, data(1))
	w := walkOf(10)
	w.Found.Repair = true
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	b.topics[order.Online] = "nowhere"
	_, err := b.Reconcile(ctx, w, func(at order.Walk) { require.Zero(t, at.Found.Repaired) })
	require.Error(t, err)
	require.False(t, errors.Is(err, errDown))
}
