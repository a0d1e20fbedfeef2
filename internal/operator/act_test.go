package operator

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"ordersync/internal/order"
	"ordersync/workflows"
)

// An ERP's own event_id may happen to be the beginning of the id that is made of it.
func TestAnERPsOwnShortEventIDNamesItsEvent(t *testing.T) {
	const own = "6e7"
	id := order.ParseEventID(own).String()
	require.True(t, order.TooShort(own, id), id)
	stuck := Stuck{SyncID: "1", State: &workflows.State{StuckOn: id, Rules: workflows.RulesCredit}}
	for _, given := range []string{own, id, id[:order.ShortID]} {
		pin, err := stuck.Named(given)
		require.NoError(t, err)
		assert.Equal(t, Pin{EventID: id}, pin, given)
	}
	_, err := stuck.Named(id[:4])
	require.ErrorContains(t, err, "give at least the first 8 digits")
}
