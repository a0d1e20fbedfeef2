package e2e

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"

	"ordersync/internal/deadletter"
	"ordersync/internal/devstack/devtest"
	"ordersync/internal/load"
	"ordersync/internal/order"
	"ordersync/internal/pod"
	"ordersync/internal/simulate"
	"ordersync/internal/target"
)

// backfill publishes events to the topics of backfills, in their order.
func (b *bundle) backfill(events []order.Event) {
	b.Helper()
	topics := b.cfg.Kafka.BackfillTopics().ByChannel()
	messages := make([]kafka.Message, len(events))
	for i, e := range events {
		line, err := simulate.Line(e)
		require.NoError(b, err)
		messages[i], err = load.Message(line, topics, "")
		require.NoError(b, err)
	}
	require.NoError(b, b.producer.Publish(b.Context(), messages...))
}

// atRate is the environment with a rate for backfills.
func (b *bundle) atRate(perSecond string) map[string]string {
	environ := maps.Clone(b.environ)
	environ["BACKFILL_RATE"] = perSecond
	return environ
}

// awaitEvents waits until the ledger has all of these.
func (b *bundle) awaitEvents(events []order.Event) {
	b.Helper()
	keys := make([]target.EventKey, len(events))
	for i, e := range events {
		keys[i] = target.KeyOf(e)
	}
	devtest.Eventually(b, 2*time.Minute, func() error {
		found, err := b.target.Outcomes(b.Context(), keys)
		if err == nil && len(found) < len(keys) {
			err = fmt.Errorf("%d of %d", len(found), len(keys))
		}
		return err
	}, "the ledger has the events")
}

// A backfill brings orders that nobody has seen, and of the others what they were: some events as they
// came, and states of the past under other ids, before, during and after the events that follow on
// them. New orders go on meanwhile, however slow it is, and at the end every order is as its highest
// version says.
func TestBackfillBesideNewOrders(t *testing.T) {
	s := seed(t)
	random := rand.New(rand.NewPCG(s, 2))
	b := setup(t)
	live, past := orders(s, sized(300)), orders(s+1, sized(300))
	events := slices.Concat(live, past)
	for _, e := range live {
		switch random.IntN(3) {
		case 0:
		case 1:
			if e.Kind == order.Invoice {
				continue // under another id it would be a second invoice
			}
			e.ID = uuid.NewSHA1(e.ID, []byte("backfill"))
			events = append(events, e)
		default:
			continue
		}
		past = slices.Insert(past, random.IntN(len(past)+1), e)
	}

	start(t, b.environ, "worker")
	slow := start(t, b.atRate("1"), "starter")
	b.backfill(past[:len(past)/2])
	b.load(ndjson(t, live))
	b.awaitEvents(live)
	require.Less(t, b.count(ledgerRows+" WHERE source_topic LIKE '%.backfill'"), len(past)/2, "the backfill is far from its end")
	slow.terminate(pod.ShutdownLimit)

	start(t, b.atRate("5000"), "starter")
	b.backfill(past[len(past)/2:])
	summary := b.settle(2 * time.Minute)
	require.Equal(t, len(live)+len(past), summary.Events)
	require.Zero(t, summary.DeadLetters)
	b.requireModel(events)
	b.requireCommitted()
	b.requireNoneRunning()
}

// A record of a backfill that is no event is repaired like any other: its dead letter is sent from where
// it stood, with its channel. Without the topics of backfills, as before an upgrade, all commands work.
func TestCommandsWithBackfillsAndWithout(t *testing.T) {
	b := setup(t)
	b.run()
	topic := b.cfg.Kafka.BackfillTopics().ByChannel()[order.Store]
	require.NoError(t, b.producer.Publish(t.Context(), kafka.Message{Topic: topic, Key: []byte("7"), Value: []byte(`{"sync_id":7,"data":{"n":1}`)}))
	broken := b.awaitOpen("7", 1)[0]
	require.Equal(t, topic, broken.Source.Topic)
	_, err := b.deadletter("replay", broken.Place.String(), "--value-file", b.valueFile(`{"sync_id":7,"event":"order_creation","version":1,"data":{"n":1}}`))
	require.NoError(t, err)
	b.awaitEntries("7", 1)
	require.Equal(t, 1, b.count("SELECT COUNT(*) FROM orders WHERE channel = 'store'"))
	require.EqualValues(t, 1, b.replayAgain("--since", "1h").Rejected)

	old := setup(t, "BACKFILL_RATE=0")
	old.run()
	old.load(ndjson(t, orders(seed(t), 5)))
	old.environ = maps.Clone(old.environ)
	delete(old.environ, "BACKFILL_RATE")
	_, err = old.command("wait", "--timeout", "1m")
	require.NoError(t, err)
	require.EqualValues(t, 15, old.replayAgain("--since", "1h").InLedger)
	require.Empty(t, old.list(deadletter.Filter{}))
}
