package erp

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// However long a service has been polled, its trail is short, and goes back at least as far as asked.
func TestTrail(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	cursor := httpCursor{Kind: httpKind}
	reached := map[string]time.Time{}
	var last time.Time
	for i := range 20_000 {
		now = now.Add(time.Duration(r.IntN(30_000)) * time.Millisecond)
		next := fmt.Sprint("n", i)
		reached[next], last = now, now
		cursor.Began = now.UnixMicro()
		cursor = cursor.moved(next, now.UnixMicro())
		require.LessOrEqual(t, len(cursor.Trail), 100)
	}
	for _, overlap := range []time.Duration{time.Second, 10 * time.Second, time.Minute, 10 * time.Minute, time.Hour, 24 * time.Hour} {
		back := cursor.rewind(overlap)
		at, ok := reached[back.Next]
		require.True(t, ok, "%s: the trail ends before", overlap)
		require.GreaterOrEqual(t, last.Sub(at), overlap)
		require.LessOrEqual(t, last.Sub(at), overlap*3/2+2*time.Minute)
		require.Zero(t, back.Began)
	}
	require.Less(t, last.Sub(reached[cursor.Trail[0].Next]), 36*time.Hour, "what nobody can ask for is dropped")
	encoded, err := cursor.encode()
	require.NoError(t, err)
	require.Less(t, len(encoded), 4_000)
	again, err := parseHTTPCursor(encoded)
	require.NoError(t, err)
	require.Equal(t, cursor, again)
}

// What polling goes back from is when it began, not where it came to.
func TestRewind(t *testing.T) {
	const second = int64(1_000_000)
	at := func(p place, began int64) place {
		c := sqlCursor{Kind: sqlKind, Began: began, From: 10 * second, Queries: map[string]place{"q": p}}
		return c.rewind(1000*second, 60*time.Second).Queries["q"]
	}
	row := place{At: 500 * second, ID: []byte("7")}
	require.Equal(t, place{At: 440 * second, Reached: 500 * second}, at(row, 600*second))
	require.Equal(t, place{At: 340 * second, Reached: 500 * second}, at(row, 400*second), "a long poll")
	future := place{At: 700 * second, ID: []byte("7")}
	require.Equal(t, 540*second, at(future, 600*second).At, "the row was in the future when the poll began, and is not any more")
	require.Equal(t, 440*second, at(place{At: 440 * second, Reached: 500 * second}, 600*second).At, "a poll that read nothing goes back no further")
	require.Equal(t, 10*second, at(place{At: 30 * second}, 600*second).At, "never before From")
	require.Equal(t, 940*second, at(place{At: 5000 * second}, 0).At, "the clock was set back")

	c := sqlCursor{Kind: sqlKind, Queries: map[string]place{"q": row}}
	require.Equal(t, row, c.rewind(1000*second, 0).Queries["q"])
}

func TestBare(t *testing.T) {
	for text, want := range map[string]string{
		"SELECT 1":                              "SELECT 1",
		"\ufeff SELECT 1 ;\n":                   "SELECT 1",
		"SELECT 1;;  \n-- done; really\n":       "SELECT 1",
		"-- first\nSELECT ';--' AS x\n;\n\n--":  "-- first\nSELECT ';--' AS x",
		"-- nothing\n;":                         "",
		"SELECT 1 -- a comment without an end;": "SELECT 1 -- a comment without an end",
	} {
		require.Equal(t, want, bare(text))
	}
}
