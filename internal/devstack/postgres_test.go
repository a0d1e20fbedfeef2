package devstack_test

import (
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ordersync/internal/devstack"
	"ordersync/internal/devstack/devtest"
)

// What a private PostgreSQL has committed outlives a kill, and the start after it.
func TestPostgresKilled(t *testing.T) {
	if _, err := devstack.FindPostgres(); errors.Is(err, devstack.ErrMissing) && os.Getenv("CI") != "true" {
		t.Skip(err)
	}
	// Not t.TempDir, which lies in a directory that the server's user may not enter.
	dir, err := os.MkdirTemp("", "ordersync-postgres-") //nolint:usetesting // see above
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	options := devstack.PostgresOptions{Dir: dir}
	server, err := devstack.StartPostgres(t.Context(), options)
	require.NoError(t, err)
	url, err := server.CreateDatabase(t.Context(), "erp")
	require.NoError(t, err)
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), "CREATE TABLE orders AS SELECT 7 AS id")
	require.NoError(t, err)
	// What is computing for a client outlives the server, which the next one must await.
	busy, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	go func() {
		for err := error(nil); err == nil; {
			_, err = busy.Exec(context.Background(), "DO $$ BEGIN WHILE clock_timestamp() < now() + interval '1 second' LOOP END LOOP; END $$")
		}
	}()
	devtest.Eventually(t, 10*time.Second, func() error {
		var n int
		err := conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'DO%'").Scan(&n)
		if err == nil && n == 0 {
			err = errors.New("it does not")
		}
		return err
	}, "it computes")
	server.Kill()

	options.Port = server.Port()
	server, err = devstack.StartPostgres(t.Context(), options)
	require.NoError(t, err)
	defer func() { require.NoError(t, server.Stop(context.Background())) }()
	conn, err = pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer conn.Close(context.Background())
	var id int
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT id FROM orders").Scan(&id))
	require.Equal(t, 7, id)
}
