package intake

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The model is the set of fetched, unfinished offsets: nothing at or above the least of them may be
// committed, and everything below it is to be.
func TestTrackerNeverCommitsPastAnUnfinishedRecord(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range 200 {
		start := random.Int64N(1000)
		tr := newTracker(start, random.IntN(2) == 0)
		next, committed := start, start
		var unfinished []int64
		least := func() int64 {
			position := next
			for _, offset := range unfinished {
				position = min(position, offset)
			}
			return position
		}
		for range 300 {
			switch n := len(unfinished); random.IntN(5) {
			case 0, 1: // a record, often behind a gap
				next += max(0, random.Int64N(8)-4)
				tr.fetched(next, time.UnixMilli(next))
				unfinished = append(unfinished, next)
				next++
			case 2: // only markers and aborted records
				next += random.Int64N(5)
				tr.passed(next)
			case 3:
				if n > 0 {
					i := random.IntN(n)
					tr.finish(unfinished[i])
					unfinished = append(unfinished[:i], unfinished[i+1:]...)
				}
			case 4:
				offset, news := tr.uncommitted()
				require.Equal(t, least(), offset)
				require.GreaterOrEqual(t, offset, committed, "a commit went back")
				if news {
					tr.commit(offset)
					committed = offset
				}
			}
			at := tr.standing()
			require.Equal(t, least(), tr.position())
			require.Equal(t, len(unfinished), at.unfinished)
			require.Equal(t, next, at.next)
			require.Equal(t, next-committed, tr.window(next-1), "the window counts gaps too")
			if len(unfinished) > 0 {
				require.Equal(t, least(), at.oldest.UnixMilli())
			}
		}
	}
}

func TestTrackerCommitsAPositionThatKafkaDoesNotKnow(t *testing.T) {
	tr := newTracker(40, false)
	offset, news := tr.uncommitted()
	require.True(t, news, "without a committed offset a later loss to retention could not be told")
	require.Equal(t, int64(40), offset)
	tr.commit(40)
	_, news = tr.uncommitted()
	require.False(t, news)
}

func TestTrackerIgnoresWhatItDoesNotHold(t *testing.T) {
	tr := newTracker(0, true)
	tr.fetched(3, time.Time{})
	tr.fetched(5, time.Time{})
	tr.finish(4) // a gap
	tr.finish(5)
	tr.finish(5) // twice
	require.Equal(t, int64(3), tr.position())
	require.Equal(t, 1, tr.standing().unfinished)
	tr.finish(3)
	require.Equal(t, int64(6), tr.position())
}
