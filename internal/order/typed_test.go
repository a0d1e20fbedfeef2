package order_test

import (
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"ordersync/internal/order"
)

func TestTypedIsOneWordOfAShell(t *testing.T) {
	require.Equal(t, "536365", order.Typed("536365"))
	require.Equal(t, "SO-2026/17", order.Typed("SO-2026/17"))
	for _, id := range []string{"536365", "C536379", "A B", "$(touch x)", "it's", `a"b\c`, "日本", "*", "~", "a;b", "-", "a\nb"} {
		out, err := exec.CommandContext(t.Context(), "sh", "-c", "printf %s "+order.Typed(id)).Output()
		require.NoError(t, err)
		require.Equal(t, id, string(out))
	}
}
