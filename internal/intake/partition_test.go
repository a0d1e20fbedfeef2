package intake

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// However well the records are compressed, and however many wait, about fetchMost comes out of a
// fetch once the ratio is known.
func TestFetchSizeFollowsTheCompression(t *testing.T) {
	for _, ratio := range []int{1, 4, 20, 100} {
		p := &partition{fetchBytes: fetchFirst}
		for range 8 {
			p.fitFetch(p.fetchBytes * ratio)
		}
		out := p.fetchBytes * ratio
		require.LessOrEqual(t, out, 2*fetchMost, "ratio %d", ratio)
		require.Greater(t, out, fetchMost/4, "ratio %d", ratio)
		size := p.fetchBytes
		p.fitFetch(0)
		p.fitFetch(len("one small record"))
		require.Equal(t, size, p.fetchBytes, "an idle topic does not make it grow")
	}
}
