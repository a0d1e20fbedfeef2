package intake

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ordersync/internal/recordset"
	"ordersync/internal/recordset/recordsettest"
)

// answerOf is an answer that holds a record set, to a fetch from offset next on.
func answerOf(t *testing.T, set []byte, next int64) *fetched {
	t.Helper()
	f := &fetched{topic: "online", maxValue: 1 << 20, aborting: map[int64]bool{}, next: next}
	r := bytes.NewReader(set)
	require.NoError(t, f.readSet(&io.LimitedReader{R: r, N: int64(len(set))}, &io.LimitedReader{R: r, N: int64(len(set))}))
	return f
}

// tens are batches of ten records each.
func tens(batches int64) []byte {
	var set []byte
	for first := int64(0); first < 10*batches; first += 10 {
		b := recordsettest.Batch{First: first, Last: first + 9}
		for n := range int64(10) {
			b.Records = append(b.Records, recordsettest.Record{Offset: first + n, Value: []byte(`{}`)})
		}
		set = append(set, b.Bytes()...)
	}
	return set
}

// Each part decompresses its batch from the beginning, so there are few of them, and none takes much memory.
func TestPartsOfACompressedBatchGrow(t *testing.T) {
	const count = 20_000
	b := recordsettest.Batch{Last: count - 1, Attributes: 4, Compress: recordsettest.Codecs["zstd"].Compress}
	for n := range int64(count) {
		b.Records = append(b.Records, recordsettest.Record{Offset: n, Value: fmt.Appendf(nil, `{"n":%d,"data":%q}`, n, strings.Repeat("text ", 200))})
	}
	for name, most := range map[string]int{"live": partMost, "of a backfill": fetchFirst} {
		t.Run(name, func(t *testing.T) {
			f := answerOf(t, b.Bytes(), 0)
			parts, got := 0, int64(0)
			for {
				messages, err := f.more(t.Context(), most)
				require.NoError(t, err)
				if len(messages) == 0 {
					break
				}
				size := 0
				for _, m := range messages {
					require.Equal(t, got, m.Offset)
					got++
					size += len(m.Value) + recordBytes
				}
				require.Less(t, size, partLargest+4<<10)
				parts++
			}
			require.EqualValues(t, count, got)
			require.Less(t, parts, 30)
		})
	}
}

func TestDecodingEndsWithItsContext(t *testing.T) {
	f := answerOf(t, recordsettest.Blanks(0, 64<<20), 0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := f.more(ctx, partMost)
	require.ErrorIs(t, err, context.Canceled)
}

func TestDamagedHeaderHidesNoBatchBeforeIt(t *testing.T) {
	for name, at := range map[string]int{"magic": 16, "last offset": 23, "length": 8} {
		t.Run(name, func(t *testing.T) {
			set := tens(3)
			second := len(set) / 3
			set[second+at] |= 0x80
			f := answerOf(t, set, 0)
			messages, err := f.more(t.Context(), partMost)
			require.NoError(t, err)
			require.Len(t, messages, 10)
			require.EqualValues(t, 10, f.next)

			r := bytes.NewReader(set[second:])
			whole := &io.LimitedReader{R: r, N: r.Size()}
			require.ErrorContains(t, (&fetched{next: 10}).readSet(whole, whole), "impossible header", "at the head of an answer")
		})
	}
}

// A bit of the last offset is damaged: the broker, too, takes the batch for one of the offsets 0 to 73.
func TestDamagedLastOffsetPassesNothingOver(t *testing.T) {
	set := tens(10)
	size := len(set) / 10
	binary.BigEndian.PutUint32(set[23:], 9|64)
	f := answerOf(t, set, 0)
	_, err := f.more(t.Context(), partMost)
	var corrupt *recordset.CorruptError
	require.ErrorAs(t, err, &corrupt)
	require.EqualValues(t, 9, corrupt.Last)
	require.EqualValues(t, 0, f.unreadable(corrupt).Offset)
	require.EqualValues(t, 10, f.next)

	f = answerOf(t, set, 10)
	messages, err := f.more(t.Context(), partMost)
	require.NoError(t, err)
	require.Len(t, messages, 90)
	require.EqualValues(t, 10, messages[0].Offset)

	for name, set := range map[string][]byte{"none follows": set[:size], "no progress": set[:2*size]} {
		f = answerOf(t, set, 20)
		messages, err = f.more(t.Context(), partMost)
		require.ErrorAs(t, err, &corrupt, name)
		require.Empty(t, messages, name)
		f.unreadable(corrupt)
		require.EqualValues(t, 74, f.next, name)
	}
}
