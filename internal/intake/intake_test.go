package intake

import (
	"testing"

	"github.com/stretchr/testify/require"

	"ordersync/internal/order"
)

func TestEventsOfAnOrderReachItsWorkflow(t *testing.T) {
	b := setup(t)
	id := b.syncID(1)
	b.publish(
		message("online", id, order.Creation, 1),
		message("online", id, order.Update, 2),
		message("online", id, order.Invoice, 3),
	)
	m := b.run(b.options())
	b.awaitVersions(id, 1, 2, 3)
	b.awaitCommitted("online", home(id), 3)
	require.NoError(t, m.Ready())

	h, err := b.handed(id)
	require.NoError(t, err)
	require.Equal(t, 3, h.started, "what was published together is the input of one start")
	require.Zero(t, h.signals)
	require.Equal(t, "online order "+id, h.summary)

	b.publish(message("online", id, order.Update, 4))
	b.awaitVersions(id, 1, 2, 3, 4)
	b.awaitInFlight(m, 0)
	m.stop()
	require.Equal(t, int64(4), b.committed("online", home(id)), "the last commit is the generation's own")
}
