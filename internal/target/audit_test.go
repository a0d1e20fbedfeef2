package target

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"ordersync/internal/order"
)

func TestTheAuditKeepsEachActionOnce(t *testing.T) {
	target := setup(t).Target
	event := uuid.New()
	amend := order.Action{
		ID: uuid.New(), SyncID: "1", Name: "amend", EventID: &event, By: "support@shop", Reason: "negative total", Before: "blocked: CheckViolated",
		Effect: "replaced", At: time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC), Original: json.RawMessage(`{"total":-1}`),
	}
	whole := order.Action{ID: uuid.New(), SyncID: "1", Name: "terminate", By: strings.Repeat("é", 400), At: amend.At.Add(time.Second)}
	for range 2 {
		require.NoError(t, target.RecordAction(t.Context(), amend))
		require.NoError(t, target.RecordAction(t.Context(), whole))
	}
	actions, err := target.Actions(t.Context(), "1")
	require.NoError(t, err)
	require.Len(t, actions, 2)
	require.JSONEq(t, string(amend.Original), string(actions[0].Original))
	actions[0].Original = amend.Original
	require.Equal(t, amend, actions[0])
	require.Nil(t, actions[1].EventID)
	require.Len(t, []rune(actions[1].By), 255)
	deep := order.Action{ID: uuid.New(), SyncID: "2", Name: "amend", At: amend.At, Original: json.RawMessage(strings.Repeat("[", 200) + strings.Repeat("]", 200))}
	require.NoError(t, target.RecordAction(t.Context(), deep), "what the server refused as JSON is what gets amended")
	none, err := target.Actions(t.Context(), "3")
	require.NoError(t, err)
	require.NotNil(t, none)
	require.Empty(t, none)
}

// Some more than a chunk, unknown ones among them, and actions of no order.
func TestActionsAreLookedUpByTheirKeys(t *testing.T) {
	target := setup(t).Target
	var keys []ActionKey
	for i := range lookUpChunk + 1 {
		a := order.Action{ID: uuid.New(), Name: "discard", By: "support@shop", Effect: "discarded", At: time.Now()}
		if i%2 == 1 {
			a.SyncID = "1"
		}
		require.NoError(t, target.RecordAction(t.Context(), a))
		keys = append(keys, ActionKey{a.SyncID, a.ID})
	}
	known := len(keys)
	keys = append(keys, ActionKey{"1", uuid.New()}, ActionKey{"2", keys[0].ID})
	found, err := target.Recorded(t.Context(), keys)
	require.NoError(t, err)
	require.Len(t, found, known)
	for _, key := range keys[:known] {
		require.Equal(t, "discard", found[key].Name)
		require.Equal(t, key, ActionKey{found[key].SyncID, found[key].ID})
	}
	none, err := target.Recorded(t.Context(), nil)
	require.NoError(t, err)
	require.Empty(t, none)
}
