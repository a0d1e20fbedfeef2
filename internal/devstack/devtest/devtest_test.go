package devtest_test

import (
	"database/sql"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"ordersync/internal/connect"
	"ordersync/internal/devstack/devtest"
)

func TestMain(m *testing.M) { devtest.Main(m) }

func TestEachTestHasASchemaOfItsOwn(t *testing.T) {
	var dsns []string
	for range 2 {
		t.Run("one", func(t *testing.T) {
			dsn := devtest.MySQL(t)
			dsns = append(dsns, dsn)
			db, err := sql.Open("mysql", dsn)
			require.NoError(t, err)
			defer db.Close()
			_, err = db.ExecContext(t.Context(), "CREATE TABLE orders (id INT PRIMARY KEY)")
			require.NoError(t, err)
		})
	}
	require.Len(t, dsns, 2)
	require.NotEqual(t, dsns[0], dsns[1])
	db, err := sql.Open("mysql", dsns[0])
	require.NoError(t, err)
	defer db.Close()
	require.ErrorContains(t, db.PingContext(t.Context()), "Unknown database", "it is dropped with its test")
}

func TestTemporalKnowsTheSearchAttributes(t *testing.T) {
	c, err := connect.Temporal(t.Context(), client.Options{HostPort: devtest.Temporal(t)})
	require.NoError(t, err)
	defer c.Close()
	_, err = c.CountWorkflow(t.Context(), &workflowservice.CountWorkflowExecutionsRequest{
		Namespace: "default",
		Query:     `OrderID = "1" AND Channel = "online" AND SyncStatus IN ("retrying", "blocked") AND SyncError = "x"`,
	})
	require.NoError(t, err)
}
