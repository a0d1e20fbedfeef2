package intake

import (
	"testing"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
)

// However well the records are compressed, and however many wait, about fetchMost comes out of a
// fetch once the ratio is known.
func TestFetchSizeFollowsTheCompression(t *testing.T) {
	for _, ratio := range []int{1, 4, 20, 100} {
		p := &partition{fetchBytes: fetchFirst}
		waiting := func() []kafka.Message { return []kafka.Message{{Value: make([]byte, p.fetchBytes*ratio)}} }
		for range 8 {
			p.fitFetch(waiting())
		}
		out := p.fetchBytes * ratio
		require.LessOrEqual(t, out, 2*fetchMost, "ratio %d", ratio)
		require.Greater(t, out, fetchMost/4, "ratio %d", ratio)
		size := p.fetchBytes
		p.fitFetch(nil)
		p.fitFetch([]kafka.Message{{Value: []byte("one small record")}})
		require.Equal(t, size, p.fetchBytes, "an idle topic does not make it grow")
	}
}
