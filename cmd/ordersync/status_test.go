package main

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"ordersync/internal/freshness"
	"ordersync/internal/operator"
	"ordersync/internal/order"
	"ordersync/internal/target"
)

func TestStatusSaysWhatToDo(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	one, seconds := int64(1), 5400.0
	since := at.Add(-15 * time.Minute)
	channel := func(o *freshness.Oldest) freshness.Channel {
		return freshness.Channel{Channel: order.Online, AgeSeconds: &seconds, Oldest: o, Lag: new(int64), Retrying: new(int64), Blocked: &one}
	}
	for name, tc := range map[string]struct {
		status freshness.Status
		want   []string
	}{
		"a stuck order with an odd id": {
			freshness.Status{Channels: []freshness.Channel{channel(&freshness.Oldest{Where: freshness.InOrder, Since: since, SyncID: "it's 1", Stuck: "blocked"})}},
			[]string{"online   1h30m0s  order it's 1, blocked  15m0s  0 ", `ordersync order 'it'\''s 1'`, "all that are stuck: ordersync blocked"},
		},
		"in Kafka": {
			freshness.Status{Channels: []freshness.Channel{channel(&freshness.Oldest{Where: freshness.InKafka, Since: since, Record: "online/3/42"})}},
			[]string{"Kafka, online/3/42  15m0s"},
		},
		"nobody works": {
			freshness.Status{TaskQueue: &freshness.TaskQueue{Name: "q", Tasks: 7, OldestSeconds: 61}},
			[]string{"0 on task queue q; about 7 tasks wait, the first for 1m1s", "is one running?"},
		},
		"a full run, which is no fault": {
			freshness.Status{Stalled: []freshness.Stalled{{Trouble: order.RunFull, SyncID: "hot", Record: "online/3/42", HistoryEvents: 8100, HistoryBytes: 9 << 20}}},
			[]string{"online/3/42, order hot: its run is full: 8100 events, 9.0 MiB of history; the rest waits in Kafka and goes on by itself"},
		},
		"a record that is no event": {
			freshness.Status{Stalled: []freshness.Stalled{{Trouble: order.NoLetter, Record: "online/3/42"}}},
			[]string{"online/3/42, record: no event, and its dead letter is not written", "ordersync blocked"},
		},
		"a run that failed": {
			freshness.Status{
				Channels: []freshness.Channel{channel(&freshness.Oldest{Where: freshness.InRun, Since: since, SyncID: "7", Stuck: string(order.RunFailed)})},
				Unwell:   []target.UnwellCount{{Trouble: order.RunFailed, Channel: "online", Count: 3, Oldest: since}},
			},
			[]string{"order 7, its run failed  15m0s", "3 orders of online: its run failed, the first since", "ordersync order 7\n", "ordersync blocked"},
		},
		"a paused step": {
			freshness.Status{Channels: []freshness.Channel{channel(&freshness.Oldest{Where: freshness.InOrder, Since: since, SyncID: "7", Stuck: "retrying", Paused: true})}},
			[]string{"order 7, retrying but paused"},
		},
		"a paused poll": {
			freshness.Status{Poll: &freshness.Poll{ReadUntil: at.Add(-time.Hour), Late: true, Paused: true}},
			[]string{"the ERP was read to its end 1h0m0s ago, at 2026-01-02T02:04:05Z, which is late; the schedule is paused", "ordersync schedule resume"},
		},
		"an ERP that is away": {
			freshness.Status{Poll: &freshness.Poll{Attempt: 7, Error: "connection refused"}},
			[]string{"has not come through yet; attempt 7 is under way: connection refused", "ordersync schedule list"},
		},
		"a poll that never came through": {
			freshness.Status{Poll: &freshness.Poll{BegunAt: at.Add(-time.Hour), Late: true}},
			[]string{"none that Temporal still knows has come through; the last began 1h0m0s ago, at 2026-01-02T02:04:05Z, which is late", "ordersync schedule list"},
		},
		"a first poll that is long": {
			freshness.Status{Poll: &freshness.Poll{BegunAt: at.Add(-time.Hour), Late: true, UnderWay: &freshness.Progress{
				StartedAt: at.Add(-time.Hour), Rows: 120_000, Published: 119_000, ChangedUntil: at.Add(-24 * time.Hour),
			}}},
			[]string{"; one is under way since 2026-01-02T02:04:05Z, with 120000 rows read, 119000 published, changes up to 2026-01-01T03:04:05Z"},
		},
		"a backfill":           {freshness.Status{Backfills: []freshness.Backfill{{Channel: order.Store, Lag: 12}}}, []string{"store: 12 records to be read, ? events/s"}},
		"nothing can be asked": {freshness.Status{Channels: []freshness.Channel{{Channel: order.Store}}, Problems: []string{"Kafka\nis away"}}, []string{"store    ?                      ?    ?         ?        ?", "not known: Kafka is away"}},
	} {
		t.Run(name, func(t *testing.T) {
			tc.status.At = at
			var out strings.Builder
			require.NoError(t, (&app{dataDir: defaultDir}).printStatus(&out, tc.status, "dead"))
			for _, want := range tc.want {
				assert.Contains(t, out.String(), want)
			}
		})
	}
}

// What an ERP may put into an id does no harm in the shell that a proposed command is pasted into.
func TestProposedCommandsQuoteOddIds(t *testing.T) {
	stuck := blockedView{Survey: operator.Survey{Total: 1, Orders: []operator.StuckOrder{{SyncID: "$(reboot)"}}}}
	var out strings.Builder
	require.NoError(t, (&app{dataDir: defaultDir}).printStuck(&out, stuck))
	assert.Contains(t, out.String(), "ordersync order '$(reboot)'\n")
}

func TestSpell(t *testing.T) {
	assert.Equal(t, "0s", spell(0.4))
	assert.Equal(t, "47h59m59s", spell(48*3600-1))
	assert.Equal(t, "5836d13h", spell((5836*24+13)*3600+59))
}
