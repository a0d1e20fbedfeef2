package deadletter

import (
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/stretchr/testify/require"

	"ordersync/internal/order"
	"ordersync/internal/publish"
)

func TestParsePlace(t *testing.T) {
	for text, want := range map[string]Place{"0/17": {0, 17}, "dead/2/9223372036854775807": {2, 1<<63 - 1}} {
		p, err := ParsePlace(text, "dead")
		require.NoError(t, err)
		require.Equal(t, want, p)
		var again Place
		require.NoError(t, again.UnmarshalText([]byte(p.String())))
		require.Equal(t, p, again)
	}
	for text, why := range map[string]string{
		"online/0/17": "online/0/17 is no place in the dead-letter topic dead",
		"17":          "names no letter", "": "names no letter", "0/-1": "names no letter", "-1/0": "names no letter", "a/b": "names no letter", "0/1/2/3": "names no letter",
	} {
		_, err := ParsePlace(text, "dead")
		require.ErrorContains(t, err, why, text)
	}
}

var written = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func letter() Letter {
	return Letter{
		Place: Place{1, 2}, WrittenAt: written,
		Letter: publish.Letter{SyncID: "42", DeadLetter: order.DeadLetter{Source: order.Source{Topic: "online"}, Key: []byte("k"), Reason: order.MalformedJSON}},
	}
}

func TestFilter(t *testing.T) {
	require.True(t, Filter{}.matches(letter()))
	for name, tc := range map[string]struct {
		filter Filter
		want   bool
	}{
		"place":            {Filter{Places: []Place{{0, 0}, {1, 2}}}, true},
		"another place":    {Filter{Places: []Place{{2, 1}}}, false},
		"reason":           {Filter{Reasons: []order.Reason{order.NullValue, order.MalformedJSON}}, true},
		"another reason":   {Filter{Reasons: []order.Reason{order.NullValue}}, false},
		"order":            {Filter{Orders: []string{"42"}}, true},
		"another order":    {Filter{Orders: []string{"4"}}, false},
		"its record's key": {Filter{Orders: []string{"k"}}, false}, // it tells its order itself
		"topic":            {Filter{Topics: []string{"online"}}, true},
		"another topic":    {Filter{Topics: []string{"store"}}, false},
		"since":            {Filter{Since: written}, true},
		"since then":       {Filter{Since: written.Add(1)}, false},
		"until":            {Filter{Until: written.Add(1)}, true},
		"until then":       {Filter{Until: written}, false},
		"all at once":      {Filter{Orders: []string{"42"}, Topics: []string{"store"}}, false},
	} {
		require.Equal(t, tc.want, tc.filter.matches(letter()), name)
	}
	l := letter()
	l.SyncID = ""
	require.True(t, Filter{Orders: []string{"k"}}.matches(l), "the key stands in for an order that is not told")
}

// What is discarded is what was shown: no letter that came since, of the same millisecond or by a clock that is behind.
func TestFilterUpToWhatWasShown(t *testing.T) {
	at := func(partition int, offset int64, written time.Time) Letter {
		l := letter()
		l.Place, l.WrittenAt = Place{partition, offset}, written
		return l
	}
	shown := []Letter{at(0, 7, written), at(1, 3, written.Add(time.Hour)), at(0, 5, written)}
	f := Filter{Reasons: []order.Reason{order.MalformedJSON}}.UpTo(shown)
	for _, l := range shown {
		require.True(t, f.matches(l), l.Place)
	}
	for _, l := range []Letter{at(0, 8, written), at(0, 9, written.Add(-time.Hour)), at(1, 4, written), at(2, 0, written)} {
		require.False(t, f.matches(l), l.Place)
	}
	require.False(t, Filter{}.UpTo(nil).matches(letter()), "none was shown")
}

// An action on a letter has one id, which no other has: not the same place in another topic, nor in one
// made anew.
func TestActionIDs(t *testing.T) {
	l := letter()
	require.Equal(t, l.actionID("dead", actionReplay), letter().actionID("dead", actionReplay))
	seen := map[uuid.UUID]bool{}
	other := letter()
	other.Place.Offset++
	anew := letter()
	anew.WrittenAt = anew.WrittenAt.Add(time.Millisecond)
	for _, id := range []uuid.UUID{
		l.actionID("dead", actionReplay), l.actionID("dead", actionDiscard), l.actionID("dead", actionReplay, "x"), l.actionID("dead2", actionReplay),
		other.actionID("dead", actionReplay), anew.actionID("dead", actionReplay),
	} {
		require.False(t, seen[id])
		seen[id] = true
	}
}

func TestOriginalIsJSON(t *testing.T) {
	for value, want := range map[string]string{
		`{"a":1}`: `{"a":1}`, `{"a"`: `"{\"a\""`, "": `""`, "\xff": `"\ufffd"`, "\"\xff\"": `"\"\ufffd\""`,
		strings.Repeat("x", order.MaxValue+1): `"1048577 bytes"`,
	} {
		l := letter()
		l.Value, l.Bytes = []byte(value), len(value)
		require.JSONEq(t, want, string(original(l)))
	}
	l := letter()
	require.Equal(t, "null", string(original(l)))
	l.SHA256, l.Bytes = "ab", 17
	require.Equal(t, `"17 bytes"`, string(original(l)))
}

func TestWhatWasSelectedIsActedOn(t *testing.T) {
	chosen := func() []Letter {
		open, done := letter(), letter()
		done.Place, done.State, open.State = Place{1, 3}, Discarded, Open
		return []Letter{open, done}
	}
	all, err := toActOn(chosen(), Filter{}, "dead")
	require.NoError(t, err)
	require.Len(t, all, 1, "of those selected the open ones")
	all, err = toActOn(chosen(), Filter{Places: []Place{{1, 2}, {1, 3}}}, "dead")
	require.NoError(t, err)
	require.Len(t, all, 2, "of those named each")
	_, err = toActOn(chosen(), Filter{Places: []Place{{1, 4}}}, "dead")
	require.ErrorContains(t, err, "no letter at 1/4")
}
