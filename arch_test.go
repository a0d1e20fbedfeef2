package ordersync_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What a package must not reach through any number of imports. The linter sees direct imports only.
func TestImportsPointOneWay(t *testing.T) {
	servers := []string{"github.com/go-sql-driver/mysql", "database/sql", "github.com/segmentio/kafka-go"}
	for from, never := range map[string][]string{
		"./workflows/...": append(servers, "go.temporal.io/sdk/client", "go.temporal.io/sdk/worker"),
		"./activities":    append(servers, "go.temporal.io/sdk/client", "go.temporal.io/sdk/worker", "ordersync/workflows"),
		// The pods carry none of the servers that dev and tests embed.
		"./worker":  {"github.com/twmb/franz-go", "ordersync/internal/devstack"},
		"./starter": {"github.com/twmb/franz-go", "ordersync/internal/devstack"},
	} {
		t.Run(from, func(t *testing.T) {
			out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", from).Output()
			require.NoError(t, err)
			reached := strings.Fields(string(out))
			require.NotEmpty(t, reached)
			for _, pkg := range reached {
				for _, not := range never {
					require.False(t, pkg == not || strings.HasPrefix(pkg, not+"/") && not != "database/sql", "%s reaches %s", from, pkg)
				}
			}
		})
	}
}

// A client that the SDK makes by itself cannot call the server about every sync_id.
func TestTemporalClientsAreMadeInOnePlace(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "git", "grep", "-lE", `client\.(Dial|DialContext|NewClient|NewLazyClient)\(`, "--", "*.go", ":!*_test.go").Output()
	require.NoError(t, err)
	require.Equal(t, []string{"internal/connect/connect.go"}, strings.Fields(string(out)))
}
