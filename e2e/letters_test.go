package e2e

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"

	"ordersync/internal/deadletter"
	"ordersync/internal/devstack/devtest"
	"ordersync/internal/operator"
	"ordersync/internal/order"
	"ordersync/internal/publish"
	"ordersync/internal/target"
	"ordersync/internal/topics"
	"ordersync/workflows"
)

// letters is the dead-letter topic as people see it.
func (b *bundle) letters() deadletter.Topic {
	return deadletter.Topic{
		Name: b.cfg.Kafka.DeadLetterTopic, Target: b.target, Reader: topics.Reader{Brokers: b.cfg.Kafka.Brokers, Transport: b.transport},
	}
}

// list reads the letters that a filter chooses.
func (b *bundle) list(f deadletter.Filter) []deadletter.Letter {
	b.Helper()
	all, err := b.letters().List(b.Context(), f, nil)
	require.NoError(b, err)
	return all
}

// send publishes values as they are to the online topic, keyed by an order.
func (b *bundle) send(key string, values ...string) {
	b.Helper()
	for _, value := range values {
		require.NoError(b, b.producer.Publish(b.Context(), kafka.Message{Topic: b.topics()[order.Online], Key: []byte(key), Value: []byte(value)}))
	}
}

// awaitOpen waits until n letters of an order's key are open, and returns them.
func (b *bundle) awaitOpen(key string, n int) []deadletter.Letter {
	b.Helper()
	var open []deadletter.Letter
	devtest.Eventually(b, 2*time.Minute, func() error {
		all, err := b.letters().List(b.Context(), deadletter.Filter{Orders: []string{key}}, nil)
		open = slices.DeleteFunc(all, func(l deadletter.Letter) bool { return l.State != deadletter.Open })
		if err == nil && len(open) != n {
			err = fmt.Errorf("%d letters", len(open))
		}
		return err
	}, fmt.Sprintf("%d open letters of %s", n, key))
	return open
}

// deadletter runs ordersync deadletter; what it prints is there also where it fails.
func (b *bundle) deadletter(args ...string) (deadletter.Result, error) {
	b.Helper()
	out, err := b.command(append([]string{"deadletter"}, append(args, "-o", "json")...)...)
	var result deadletter.Result
	if len(out) > 0 {
		require.NoError(b, json.Unmarshal(out, &result), "%s", out)
	}
	return result, err
}

// valueFile is a file with a corrected value.
func (b *bundle) valueFile(value string) string {
	b.Helper()
	path := filepath.Join(b.TempDir(), "value.json")
	require.NoError(b, os.WriteFile(path, []byte(value), 0o600))
	return path
}

// entries is an order's timeline.
func (b *bundle) entries(syncID string) []target.Entry {
	b.Helper()
	entries, err := b.target.Timeline(b.Context(), syncID)
	require.NoError(b, err)
	return entries
}

func (b *bundle) awaitEntries(syncID string, n int) []target.Entry {
	b.Helper()
	devtest.Eventually(b, time.Minute, func() error {
		if rows := len(b.entries(syncID)); rows != n {
			return fmt.Errorf("%d", rows)
		}
		return nil
	}, fmt.Sprintf("the ledger has %d events of order %s", n, syncID))
	return b.entries(syncID)
}

func (b *bundle) data(syncID string) string {
	b.Helper()
	row, found, err := b.target.Order(b.Context(), syncID)
	require.NoError(b, err)
	require.True(b, found)
	return string(row.Data)
}

// actions are the lines of the audit with a name.
func (b *bundle) actions(syncID, name string) []order.Action {
	b.Helper()
	all, err := b.target.Actions(b.Context(), syncID)
	require.NoError(b, err)
	return slices.DeleteFunc(all, func(a order.Action) bool { return a.Name != name })
}

// awaitAction waits for an action that is recorded by somebody who only looks now and then.
func (b *bundle) awaitAction(syncID, name string) (found order.Action) {
	b.Helper()
	devtest.Eventually(b, time.Minute, func() error {
		actions := b.actions(syncID, name)
		if len(actions) != 1 {
			return fmt.Errorf("%d actions", len(actions))
		}
		found = actions[0]
		return nil
	}, name+" of order "+syncID+" is in the audit")
	return found
}

// A record that is no event is sent with a corrected value, in the place where it stood: an event
// without an id and a version has the identity that its place gives it. However often it is sent, it
// is applied once.
func TestReplayOfACorrectedRecord(t *testing.T) {
	b := setup(t)
	b.run()
	b.send("7", `{"sync_id":7,"event":"order_creation","data":{"n":1}}`, `{"sync_id":7,"event":"order_updation","data":{"n":2}`, "garbage")
	broken := b.awaitOpen("7", 2)[0]
	b.awaitEntries("7", 1)
	require.Equal(t, order.MalformedJSON, broken.Reason)
	require.Empty(t, broken.SyncID, "what is no JSON does not tell its order")

	// As it is it cannot be sent, and the command says how it can.
	result, err := b.deadletter("replay", broken.Place.String())
	require.ErrorContains(t, err, "1 letters were left as they are")
	require.Equal(t, 1, result.Refused)
	require.Contains(t, result.Refusals[0].Why, "--value-file FILE")
	file := b.valueFile(`{"sync_id":7,"event":"order_updation","data":{"n":2}}` + "\n")
	_, err = b.deadletter("replay", "--reason", "malformed-json", "--value-file", file)
	require.ErrorContains(t, err, "for exactly one letter, 2 are selected")
	_, err = b.deadletter("replay", broken.Place.String(), "--value-file", b.valueFile(`{"sync_id":7}`))
	require.Error(t, err)
	result, err = b.deadletter("replay", broken.Place.String(), "--value-file", file, "--dry-run")
	require.NoError(t, err)
	require.Equal(t, 1, result.Sent)
	require.Len(t, b.awaitOpen("7", 2), 2, "a dry run does nothing")

	result, err = b.deadletter("replay", broken.Place.String(), "--value-file", file, "--by", "support@shop", "--why", "a lost brace")
	require.NoError(t, err)
	require.Equal(t, 1, result.Sent)
	entry := b.awaitEntries("7", 2)[1]
	want, err := order.Decode(order.Record{
		Topic: broken.Source.Topic, Partition: broken.Source.Partition, Offset: broken.Source.Offset, Timestamp: broken.Source.ReceivedAt,
		Value: []byte(`{"sync_id":7,"event":"order_updation","data":{"n":2}}`),
	}, order.Online)
	require.NoError(t, err)
	require.Equal(t, want.ID, entry.EventID, "the identity of the record's place")
	require.Equal(t, []any{want.Source.Topic, want.Source.Partition, want.Source.Offset}, []any{entry.SourceTopic, entry.SourcePartition, entry.SourceOffset})
	require.JSONEq(t, `{"n":2}`, b.data("7"))

	// Who did it, and what was there before, stands with the letter and with the order.
	for _, syncID := range []string{"", "7"} {
		actions := b.actions(syncID, "replay")
		require.Len(t, actions, 1)
		require.Equal(t, []string{"support@shop", "a lost brace", "open: malformed-json"}, []string{actions[0].By, actions[0].Reason, actions[0].Before})
		require.Equal(t, want.ID, *actions[0].EventID)
		require.Contains(t, actions[0].Effect, "dead letter "+broken.Place.String())
		require.JSONEq(t, `"{\"sync_id\":7,\"event\":\"order_updation\",\"data\":{\"n\":2}"`, string(actions[0].Original))
	}
	require.Len(t, b.awaitOpen("7", 1), 1, "the other one")

	// Again: nothing happens twice.
	result, err = b.deadletter("replay", broken.Place.String(), "--value-file", file)
	require.NoError(t, err)
	require.Equal(t, 1, result.InLedger)
	result, err = b.deadletter("replay", "--order", "7")
	require.Error(t, err, "garbage is left")
	require.Equal(t, deadletter.Result{Letters: 1, Refused: 1, Whole: []string{}, Refusals: result.Refusals}, result)
	require.Len(t, b.entries("7"), 2)
	require.Len(t, b.actions("7", "replay"), 1)
	b.requireAppliedOnce()

	// Another correction has other data and the same identity. It is refused: the event has been applied and stays.
	result, err = b.deadletter("replay", broken.Place.String(), "--value-file", b.valueFile(`{"sync_id":7,"event":"order_updation","data":{"n":3}}`))
	require.ErrorContains(t, err, "1 letters were left as they are")
	require.Equal(t, 1, result.Refused)
	require.Contains(t, result.Refusals[0].Why, "event_id")
	require.Len(t, b.actions("7", "replay"), 1)
	require.JSONEq(t, `{"n":2}`, b.data("7"))
}

// An event without a version goes by its arrival: after a later one it is refused, unless forced. One
// with a version finds its place by itself.
func TestReplayOfWhatWasOvertaken(t *testing.T) {
	b := setup(t)
	b.run()
	b.send("1", `{"sync_id":1,"event":"order_creation","data":{"n":1}}`, `{"sync_id":1,"event":"order_updation"}`, `{"sync_id":1,"event":"order_updation","data":{"n":3}}`)
	b.send("2", `{"sync_id":2,"event":"order_creation","version":1,"data":{"n":1}}`, `{"sync_id":2,"event":"order_updation","version":2}`, `{"sync_id":2,"event":"order_updation","version":3,"data":{"n":3}}`)
	b.awaitEntries("1", 2)
	b.awaitEntries("2", 2)

	l := b.awaitOpen("1", 1)[0]
	file := b.valueFile(`{"sync_id":1,"event":"order_updation","data":{"n":2}}`)
	result, err := b.deadletter("replay", "--order", "1", "--value-file", file)
	require.Error(t, err)
	require.Equal(t, 1, result.Refused)
	require.Contains(t, result.Refusals[0].Why, "has applied order_updation since, which arrived later")
	require.Contains(t, result.Refusals[0].Why, "--force")
	require.Equal(t, deadletter.Open, b.list(deadletter.Filter{Places: []deadletter.Place{l.Place}})[0].State)
	require.JSONEq(t, `{"n":3}`, b.data("1"))
	result, err = b.deadletter("replay", "--order", "1", "--value-file", file, "--force")
	require.NoError(t, err)
	require.Equal(t, 1, result.Sent)
	b.awaitEntries("1", 3)
	require.JSONEq(t, `{"n":2}`, b.data("1"), "as it was asked for")

	b.awaitOpen("2", 1)
	result, err = b.deadletter("replay", "--order", "2", "--value-file", b.valueFile(`{"sync_id":2,"event":"order_updation","version":2,"data":{"n":2}}`))
	require.NoError(t, err)
	require.Equal(t, 1, result.Sent)
	require.Equal(t, order.Stale, b.awaitEntries("2", 3)[2].Outcome)
	require.JSONEq(t, `{"n":3}`, b.data("2"))

	_, err = b.deadletter("replay", l.Place.String(), "--value-file", b.valueFile(`{"sync_id":2,"event":"order_updation","data":{"n":2}}`))
	require.ErrorContains(t, err, "left as they are", "it is another order's")
}

// What is no letter of ordersync's, a signal's input, and a value that was too large to keep.
func TestReplayOfWhatCannotBe(t *testing.T) {
	b := setup(t)
	b.run()
	source := order.Source{Topic: b.topics()[order.Online], Partition: 3, Offset: 1 << 40, ReceivedAt: time.Now().UTC().Truncate(time.Millisecond)}
	large := make([]byte, 17<<20)
	_, _ = rand.Read(large) // never fails
	require.NoError(t, b.producer.DeadLetter(t.Context(), order.DeadLetter{Source: source, Key: []byte("9"), Value: large, Reason: order.ValueTooLarge, Detail: "too large"}))
	signal := order.Source{Topic: "temporal-signal", ReceivedAt: source.ReceivedAt}
	require.NoError(t, b.producer.DeadLetter(t.Context(), order.DeadLetter{Source: signal, Key: []byte("9"), Value: []byte(`{}`), Reason: order.Undecodable}))
	require.NoError(t, b.producer.Publish(t.Context(), kafka.Message{Topic: b.cfg.Kafka.DeadLetterTopic, Key: []byte("9"), Value: []byte(`{"sync_id":9}`)}))
	gone := order.Source{Topic: "a-topic-of-before", ReceivedAt: source.ReceivedAt}
	require.NoError(t, b.producer.DeadLetter(t.Context(), order.DeadLetter{Source: gone, Key: []byte("9"), Value: []byte(`{"sync_id":9,"event":"order_creation","data":1}`), Reason: order.OrderBlocked}))

	result, err := b.deadletter("replay", "--all")
	require.Error(t, err)
	require.Equal(t, 4, result.Refused)
	for i, why := range []string{
		fmt.Sprintf("too large to keep (%d bytes, SHA-256 ", len(large)), "ordersync replay --order 9", "not written by ordersync", "not in KAFKA_TOPICS",
	} {
		require.Contains(t, result.Refusals[i].Why, why)
	}
	require.Contains(t, result.Refusals[0].Why, fmt.Sprintf("%s/3/%d", source.Topic, source.Offset), "where it stood")
	result, err = b.deadletter("replay", "0/0", "--value-file", b.valueFile(`{"sync_id":9,"event":"order_creation","data":{"n":9}}`))
	require.NoError(t, err)
	require.Equal(t, 1, result.Sent)
	entry := b.awaitEntries("9", 1)[0]
	require.Equal(t, source.Offset, entry.SourceOffset)
	_, err = b.deadletter("replay", "0/4")
	require.ErrorContains(t, err, "no letter at 0/4")
}

// Discarded letters are dealt with, once and by somebody; they can be taken back, replayed ones not.
func TestDiscard(t *testing.T) {
	b := setup(t)
	b.run()
	b.send("5", "one", "two", `{"sync_id":5,"event":"nonsense"}`)
	open := b.awaitOpen("5", 3)
	result, err := b.deadletter("discard", "--reason", "malformed-json", "--dry-run")
	require.NoError(t, err)
	require.Equal(t, 2, result.Discarded)
	b.awaitOpen("5", 3)
	for range 2 {
		result, err = b.deadletter("discard", open[0].Place.String(), open[2].Place.String(), "--why", "a test of theirs", "--by", "oncall")
		require.NoError(t, err)
		require.Equal(t, 2, result.Discarded+result.Settled)
	}
	require.Equal(t, 2, result.Settled)
	require.Equal(t, open[1].Place, b.awaitOpen("5", 1)[0].Place)
	require.Len(t, b.actions("", "discard"), 1)
	require.Len(t, b.actions("5", "discard"), 1, "the letter tells its order, though it is no event")
	l, err := b.letters().Get(t.Context(), open[2].Place)
	require.NoError(t, err)
	require.Equal(t, deadletter.Discarded, l.State)
	require.Equal(t, []string{"oncall", "a test of theirs"}, []string{l.Action.By, l.Action.Reason})
	require.JSONEq(t, `{"sync_id":5,"event":"nonsense"}`, string(l.Value))

	result, err = b.deadletter("replay", open[2].Place.String(), "--value-file", b.valueFile(`{"sync_id":5,"event":"order_creation","data":1}`))
	require.NoError(t, err)
	require.Equal(t, 1, result.Sent)
	b.awaitEntries("5", 1)
	result, err = b.deadletter("discard", open[2].Place.String())
	require.Error(t, err)
	require.Contains(t, result.Refusals[0].Why, "there is nothing to discard")

	// As people see them.
	out, err := b.command("deadletter", "list", "--all")
	require.NoError(t, err)
	require.Regexp(t, `malformed-json +1 +0 +1\n`, string(out))
	require.Regexp(t, `unknown-event +0 +1 +0\n`, string(out))
	require.Regexp(t, open[1].Place.String()+` .* malformed-json +\(5\) +\S+/\d/1 +open`, string(out))
	out, err = b.command("deadletter", "show", open[1].Place.String())
	require.NoError(t, err)
	require.Contains(t, string(out), "\ntwo\n")
	require.Contains(t, string(out), publish.HeaderReason)
	out, err = b.command("deadletter", "show", b.cfg.Kafka.DeadLetterTopic+"/"+open[1].Place.String(), "-o", "json")
	require.NoError(t, err)
	var shown map[string]any
	require.NoError(t, json.Unmarshal(out, &shown))
	require.Equal(t, []any{"two", "dHdv", "open"}, []any{shown["value_text"], shown["value_base64"], shown["state"]})
	_, err = b.command("deadletter", "show", "online/0/1")
	require.ErrorContains(t, err, "is no place in the dead-letter topic")
}

// An order is stuck, and far more arrives behind it than it may keep. What it keeps stays within the
// bounds, the rest lies in the dead-letter topic in order, other orders go on. Once the order is free,
// one of those letters brings all of them back, and all is as if nothing had been.
func TestOverflowBehindABlockedOrder(t *testing.T) {
	for name, tc := range map[string]struct {
		events    int
		short     int // with -short: still more than fits
		bytes     int // of an event's data, about
		versioned bool
		away      bool // the dead-letter topic, until the order's run is full
	}{
		"many, by arrival":                               {5000, 1200, 10, false, false},
		"large, by version":                              {1500, 600, 2000, true, false},
		"more than a run can hold":                       {20_000, 800, 4000, true, false},
		"more than a run can hold, letters wait as well": {20_000, 3000, 4000, true, true},
	} {
		t.Run(name, func(t *testing.T) {
			n := tc.events
			if testing.Short() || realKafka() || tc.away && os.Getenv("ORDERSYNC_E2E_LONG") == "" {
				n = tc.short
			}
			overflow(t, n, tc.bytes, tc.versioned, tc.away)
		})
	}
}

func overflow(t *testing.T, n, bytes int, versioned, away bool) {
	s := seed(t)
	b := setup(t)
	exec := func(statement string) {
		t.Helper()
		_, err := b.target.DB().ExecContext(t.Context(), statement)
		require.NoError(t, err)
	}
	exec("ALTER TABLE orders ADD CONSTRAINT team_check CHECK (sync_id <> '" + hot + "')")
	if away {
		b.dropDeadLetterTopic()
	}
	b.run()

	others := orders(s, 50)
	events := b.publishHot(n, bytes, versioned)
	b.load(ndjson(t, others))
	if away {
		b.awaitFull(hot)
		b.restoreDeadLetterTopic()
	}
	b.settle(5 * time.Minute)

	// Within the bounds, in order, and nobody else is harmed.
	var state workflows.State
	var letters []deadletter.Letter
	devtest.Eventually(t, 3*time.Minute, func() (err error) {
		if state, err = operator.State(t.Context(), b.temporal, hot); err != nil {
			return err
		}
		letters = b.list(deadletter.Filter{Reasons: []order.Reason{order.OrderBlocked}})
		if state.PendingCount+len(letters) != n {
			err = fmt.Errorf("%d pending, %d letters", state.PendingCount, len(letters))
		}
		return err
	}, "every event waits in the workflow or lies in the dead-letter topic")
	require.Equal(t, workflows.StateBlocked, state.Status)
	kept := state.PendingCount
	require.Less(t, kept, n)
	require.LessOrEqual(t, kept, 1000)
	require.LessOrEqual(t, kept*len(events[n-1].Data), 1<<20)
	b.requireLetters(events[kept:])
	b.requireModel(others)
	b.requireSmallRuns(hot)

	// While it is stuck they would only overflow again. A replay of the topics leaves them alone.
	middle := letters[len(letters)/2].Place.String()
	result, err := b.deadletter("replay", middle)
	require.ErrorContains(t, err, "left as they are")
	require.Equal(t, []int{len(letters), len(letters), len(letters) - 1}, []int{result.Letters, result.Refused, result.Added})
	require.Contains(t, result.Refusals[0].Why, "order hot is still blocked (CheckViolated)")
	found := b.replayAgain("--order", hot)
	require.EqualValues(t, len(letters), found.DeadLettered)
	require.EqualValues(t, kept, found.Missing, "what waits in the workflow, which drops it as known")

	exec("ALTER TABLE orders DROP CONSTRAINT team_check")
	_, err = b.command("retry", hot)
	require.NoError(t, err)
	devtest.Eventually(t, time.Minute, func() error {
		stuck, err := operator.Blocked(t.Context(), b.temporal)
		if err == nil && stuck[hot] {
			err = errors.New("it is stuck")
		}
		return err
	}, "the retry has freed the order")
	result, err = b.deadletter("replay", middle)
	require.NoError(t, err)
	require.Equal(t, deadletter.Result{
		Letters: len(letters), Sent: len(letters), Orders: 1, Whole: []string{hot}, Added: len(letters) - 1, Refusals: []deadletter.Refusal{},
	}, result)
	b.awaitLedger(n+len(others), 10*time.Minute)
	b.requireModel(append(others, events...))
	b.requireSmallRuns(hot)
	require.Zero(t, b.count(`SELECT COUNT(*) FROM order_events WHERE outcome <> 'applied'`))
	timeline := b.entries(hot)
	for i, e := range timeline {
		require.Equal(t, events[i].ID, e.EventID, "event %d was applied out of its order", i)
	}
	require.Len(t, b.list(deadletter.Filter{}), len(letters), "nothing overflowed again")

	// Once is enough.
	result, err = b.deadletter("replay", "--reason", "order-blocked")
	require.NoError(t, err)
	require.Zero(t, result.Letters)
	result, err = b.deadletter("replay", middle)
	require.NoError(t, err)
	require.Equal(t, 1, result.InLedger)
	b.requireModel(append(others, events...))
}

// What a workflow could not hold for other reasons than being stuck follows the same rules: one letter takes the others
// along, and all are refused while the order is stuck. So a later one never overtakes.
func TestReplayOfABacklogIsOfTheWholeOrder(t *testing.T) {
	b := setup(t)
	exec := func(statement string) {
		t.Helper()
		_, err := b.target.DB().ExecContext(t.Context(), statement)
		require.NoError(t, err)
	}
	exec("ALTER TABLE orders ADD CONSTRAINT team_check CHECK (sync_id <> '" + hot + "')")
	b.run()
	b.publishHot(1, 10, true)
	devtest.Eventually(t, 3*time.Minute, func() error {
		w, err := operator.Describe(t.Context(), b.temporal, hot)
		if err == nil && w.SyncStatus != workflows.StatusBlocked {
			err = fmt.Errorf("its status is %q", w.SyncStatus)
		}
		return err
	}, "the order is stuck")
	for version := range int64(3) {
		e := order.Event{SyncID: hot, Kind: order.Update, ID: uuid.New(), Version: 100 + version, Data: []byte(`{"n":1}`), OccurredAt: time.Now().UTC(), Channel: order.Online}
		value, err := e.Message()
		require.NoError(t, err)
		require.NoError(t, b.producer.DeadLetter(t.Context(), order.DeadLetter{
			Source: order.Source{Topic: b.topics()[order.Online], Partition: 1, Offset: 1<<40 + version, ReceivedAt: time.Now().UTC()},
			Key:    []byte(hot), Value: value, Reason: order.OrderBacklog,
		}))
	}
	letters := b.awaitOpen(hot, 3)
	result, err := b.deadletter("replay", letters[2].Place.String())
	require.ErrorContains(t, err, "left as they are")
	require.Equal(t, []int{3, 3, 2}, []int{result.Letters, result.Refused, result.Added})
	require.Contains(t, result.Refusals[0].Why, "order hot is still blocked (CheckViolated)")

	exec("ALTER TABLE orders DROP CONSTRAINT team_check")
	_, err = b.command("retry", hot)
	require.NoError(t, err)
	b.awaitEntries(hot, 1)
	result, err = b.deadletter("replay", letters[2].Place.String())
	require.NoError(t, err)
	require.Equal(t, []int{3, 3, 2}, []int{result.Letters, result.Sent, result.Added})
	for i, e := range b.awaitEntries(hot, 4)[1:] {
		require.EqualValues(t, 100+i, e.Version)
		require.Equal(t, order.Applied, e.Outcome)
	}
}

// requireLetters holds the values in the dead-letter topic against events, in their order.
func (b *bundle) requireLetters(events []order.Event) {
	b.Helper()
	letters := b.deadLetters()
	require.Len(b, letters, len(events))
	for i, l := range letters {
		require.Equal(b, string(order.OrderBlocked), l.reason)
		require.Contains(b, string(l.value), events[i].ID.String(), "letter %d", i)
	}
}

// Somebody interrupts a replay: what it had sent is noted, the rest is sent the next time.
func TestReplayOfLettersInterrupted(t *testing.T) {
	b := setup(t)
	b.run()
	const n = 1500
	for i := range n {
		e := order.Event{SyncID: fmt.Sprint(i % 30), Kind: order.Update, ID: uuid.New(), Version: int64(i + 1), Data: []byte(`{"n":1}`), OccurredAt: time.Now().UTC(), Channel: order.Online}
		if i < 30 {
			e.Kind = order.Creation
		}
		value, err := e.Message()
		require.NoError(t, err)
		require.NoError(t, b.producer.DeadLetter(t.Context(), order.DeadLetter{
			Source: order.Source{Topic: b.topics()[order.Online], Partition: 1, Offset: int64(i), ReceivedAt: time.Now().UTC()},
			Key:    []byte(e.SyncID), Value: value, Reason: order.OrderBlocked,
		}))
	}
	ctx, interrupt := context.WithCancel(t.Context())
	replay := b.letterReplay()
	replay.Progress = func(done, total int64) {
		require.EqualValues(t, n, total)
		interrupt()
	}
	result, err := replay.Run(ctx, deadletter.Filter{})
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, 1000, result.Sent)
	replay.Progress = nil
	result, err = replay.Run(t.Context(), deadletter.Filter{})
	require.NoError(t, err)
	require.Equal(t, n-1000, result.Sent)
	b.awaitLedger(n, time.Minute)
	b.requireAppliedOnce()
	b.requireInOrder()
	require.Equal(t, n, b.count("SELECT COUNT(*) FROM operator_actions WHERE action = 'replay'"))
}
