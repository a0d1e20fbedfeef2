package recordset

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"

	made "ordersync/internal/recordset/recordsettest"
)

var usual = Limits{MaxKey: 1 << 10, MaxValue: 1 << 20, MaxHeaders: 1 << 10}

// read reads a whole set.
func read(t *testing.T, set []byte, from int64, limits Limits) (records []Record, batches []Batch) {
	t.Helper()
	r := bytes.NewReader(set)
	for r.Len() > 0 {
		b, err := ReadHeader(r)
		require.NoError(t, err)
		batches = append(batches, b)
		payload := set[len(set)-r.Len():][:b.Size]
		sum := b.Checksum()
		_, err = sum.Write(payload)
		require.NoError(t, err)
		require.NoError(t, sum.Verify())
		require.NoError(t, b.Records(bytes.NewReader(payload), from, limits, func(r Record) bool { records = append(records, r); return true }))
		_, err = r.Seek(b.Size, io.SeekCurrent)
		require.NoError(t, err)
	}
	return records, batches
}

func offsets(records []Record) []int64 {
	var all []int64
	for _, r := range records {
		all = append(all, r.Offset)
	}
	return all
}

// What the log cleaner leaves: a batch keeps its last offset, whichever of its records it has lost.
func TestCompactedBatchesSpanTheirOffsets(t *testing.T) {
	set := made.Batch{First: 100, Last: 109, Records: []made.Record{{Offset: 100}, {Offset: 103}, {Offset: 105}}}.Bytes()
	set = append(set, made.Batch{First: 110, Last: 119}.Bytes()...)
	set = append(set, made.Batch{First: 120, Last: 120, Records: []made.Record{{Offset: 120}}}.Bytes()...)
	records, batches := read(t, set, 103, usual)
	require.Equal(t, []int64{103, 105, 120}, offsets(records))
	require.Equal(t, []int64{109, 119, 120}, []int64{batches[0].Last, batches[1].Last, batches[2].Last})
}

func TestEveryCompression(t *testing.T) {
	noise := make([]byte, 100<<10)
	for i := range noise {
		noise[i] = byte(rand.Uint32() >> 27)
	}
	want := []made.Record{
		{Offset: 5, At: 1_700_000_000_000, Key: []byte("42"), Value: noise},
		{Offset: 6, At: 1_700_000_000_001, Value: []byte("{}"), Headers: []kafka.Header{{Key: "h", Value: []byte("v")}, {Key: "null"}}},
		{Offset: 9, At: -1, Key: []byte{}, Value: nil},
	}
	for name, c := range made.Codecs {
		t.Run(name, func(t *testing.T) {
			set := made.Batch{First: 5, Last: 9, Attributes: c.Attributes, Records: want, Compress: c.Compress}.Bytes()
			got, _ := read(t, set, 0, usual)
			require.Len(t, got, len(want))
			for i, r := range got {
				require.Equal(t, want[i].Offset, r.Offset)
				require.Equal(t, want[i].At, r.Time.UnixMilli())
				require.Equal(t, want[i].Key, r.Key)
				require.Equal(t, want[i].Value, r.Value)
				require.Equal(t, want[i].Headers, r.Headers)
			}
		})
	}
}

// The messages of Kafka before 0.11, which a broker of today neither takes nor makes, but its old segments may hold.
func TestOldMessageFormats(t *testing.T) {
	inner := func(magic byte, offsets ...int64) []byte {
		var set []byte
		for i, offset := range offsets {
			set = append(set, made.Old(magic, 0, offset, int64(1000+i), []byte("k"), []byte("value"))...)
		}
		return set
	}
	for name, c := range map[string]struct {
		set     []byte
		from    int64
		offsets []int64
		times   []int64
		last    int64
	}{
		"magic 0":                {made.Old(0, 0, 7, 0, []byte("k"), []byte("v")), 0, []int64{7}, []int64{-1}, 7},
		"magic 1":                {made.Old(1, 0, 7, 1234, nil, []byte("v")), 0, []int64{7}, []int64{1234}, 7},
		"magic 1, append time":   {made.Old(1, appendTimeBit, 7, 1234, nil, nil), 0, []int64{7}, []int64{1234}, 7},
		"magic 0 compressed":     {made.Old(0, 1, 12, 0, nil, made.Codecs["gzip"].Compress(inner(0, 10, 11, 12))), 11, []int64{11, 12}, []int64{-1, -1}, 12},
		"magic 1 compressed":     {made.Old(1, 1, 12, 1234, nil, made.Codecs["gzip"].Compress(inner(1, 0, 1, 2))), 11, []int64{11, 12}, []int64{1001, 1002}, 12},
		"magic 1 with snappy":    {made.Old(1, 2, 12, 1234, nil, made.Codecs["snappy with frames"].Compress(inner(1, 0, 1, 2))), 10, []int64{10, 11, 12}, []int64{1000, 1001, 1002}, 12},
		"magic 1 with lz4":       {made.Old(1, 3, 12, 1234, nil, made.Codecs["lz4"].Compress(inner(1, 0, 1, 2))), 10, []int64{10, 11, 12}, []int64{1000, 1001, 1002}, 12},
		"compacted":              {made.Old(1, 1, 12, 1234, nil, made.Codecs["gzip"].Compress(inner(1, 0, 2))), 0, []int64{10, 12}, []int64{1000, 1001}, 12},
		"compressed append time": {made.Old(1, 1|appendTimeBit, 12, 1234, nil, made.Codecs["gzip"].Compress(inner(1, 0, 1))), 0, []int64{11, 12}, []int64{1234, 1234}, 12},
		"compressed, none left":  {made.Old(1, 1, 12, 1234, nil, nil), 0, nil, nil, 12},
	} {
		t.Run(name, func(t *testing.T) {
			set := slices.Concat(c.set, made.Batch{First: 20, Last: 29}.Bytes()) // a newer segment follows
			got, batches := read(t, set, c.from, usual)
			require.Equal(t, c.offsets, offsets(got))
			var times []int64
			for _, r := range got {
				times = append(times, r.Time.UnixMilli())
			}
			require.Equal(t, c.times, times)
			require.Equal(t, c.last, batches[0].Last)
			require.Equal(t, int64(29), batches[1].Last)
		})
	}
}

// On a topic with LogAppendTime the broker writes its time into the header and leaves the records as they came.
func TestLogAppendTimeIsTheBrokers(t *testing.T) {
	now := time.Now().UnixMilli()
	set := made.Batch{First: 1, Last: 2, Attributes: appendTimeBit, MaxTime: now, Records: []made.Record{{Offset: 1, At: 5}, {Offset: 2, At: -1}}}.Bytes()
	got, _ := read(t, set, 0, usual)
	require.Equal(t, []int64{now, now}, []int64{got[0].Time.UnixMilli(), got[1].Time.UnixMilli()})
}

func TestTransactionBits(t *testing.T) {
	_, batches := read(t, append(made.Batch{Attributes: transactionBit}.Bytes(), made.Batch{Attributes: transactionBit | controlBit}.Bytes()...), 0, usual)
	require.True(t, batches[0].Transactional() && !batches[0].Control())
	require.True(t, batches[1].Transactional() && batches[1].Control())
}

func TestWhatIsTooLargeIsDigested(t *testing.T) {
	long, limit := bytes.Repeat([]byte("k"), 11), Limits{MaxKey: 10, MaxValue: 10, MaxHeaders: 10}
	set := made.Batch{First: 1, Last: 3, Records: []made.Record{
		{Offset: 1, Key: long, Value: []byte("small")},
		{Offset: 2, Key: []byte("small"), Value: long, Headers: []kafka.Header{{Key: "a", Value: []byte("b")}}},
		{Offset: 3, Key: long[:10], Value: long[:10], Headers: []kafka.Header{{Key: "header", Value: long}}},
	}}.Bytes()
	got, _ := read(t, set, 0, limit)
	require.Len(t, got, 3)
	require.Nil(t, got[0].Key)
	require.EqualValues(t, 11, got[0].KeyDigest.Size)
	require.Equal(t, sha256.Sum256(long), got[0].KeyDigest.SHA256)
	require.Equal(t, "small", string(got[0].Value))
	require.Nil(t, got[1].Value)
	require.Equal(t, sha256.Sum256(long), got[1].ValueDigest.SHA256)
	require.Len(t, got[1].Headers, 1)
	require.Equal(t, long[:10], got[2].Value)
	require.Nil(t, got[2].KeyDigest)
	require.Nil(t, got[2].Headers)
}

func TestBlanksTakeNoMemory(t *testing.T) {
	const size = 300 << 20
	set := made.Blanks(1, size)
	require.Less(t, len(set), 1<<20, "a default topic takes it")
	var got []Record
	most := peak(t, func() { got, _ = read(t, set, 0, usual) })
	require.Len(t, got, 1)
	require.EqualValues(t, size, got[0].ValueDigest.Size)
	require.Less(t, most, 40<<20)
}

func TestWhatABatchComesToIsBounded(t *testing.T) {
	set := made.Blanks(1, maxPlain)
	r := bytes.NewReader(set)
	b, err := ReadHeader(r)
	require.NoError(t, err)
	require.ErrorContains(t, b.Records(r, 0, usual, func(Record) bool { return true }), fmt.Sprintf("more than %d bytes", maxPlain))
}

// peak is about how much the heap grows while f runs. What is garbage counts only as far as the collector leaves it.
func peak(t *testing.T, f func()) int {
	t.Helper()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	before, most := m.HeapAlloc, m.HeapAlloc
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-done:
				return
			case <-time.After(2 * time.Millisecond):
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				most = max(most, m.HeapAlloc)
			}
		}
	}()
	f()
	close(done)
	<-stopped
	return int(most - before)
}

func TestReadingStopsWhereItIsToldTo(t *testing.T) {
	var records []made.Record
	for i := range int64(1000) {
		records = append(records, made.Record{Offset: i, Value: []byte("value")})
	}
	set := made.Batch{Last: 999, Attributes: 4, Records: records, Compress: made.Codecs["zstd"].Compress}.Bytes()
	r := bytes.NewReader(set)
	b, err := ReadHeader(r)
	require.NoError(t, err)
	var got []Record
	require.NoError(t, b.Records(r, 500, usual, func(r Record) bool { got = append(got, r); return len(got) < 3 }))
	require.Equal(t, []int64{500, 501, 502}, offsets(got))
}

func TestBatchesThatCannotBeRead(t *testing.T) {
	good := made.Batch{First: 10, Last: 19, Records: []made.Record{{Offset: 10, Value: []byte("a")}, {Offset: 12, Value: []byte("b")}}}
	change := func(change func(*made.Batch)) []byte {
		b := good
		b.Records = append([]made.Record{}, good.Records...)
		change(&b)
		return b.Bytes()
	}
	for name, c := range map[string]struct {
		set  []byte
		says string
	}{
		"unknown compression":                   {change(func(b *made.Batch) { b.Attributes = 5 }), "unknown kind 5"},
		"not compressed":                        {change(func(b *made.Batch) { b.Attributes = 4 }), "zstd"},
		"not gzip":                              {change(func(b *made.Batch) { b.Attributes = 1 }), "gzip"},
		"not snappy":                            {change(func(b *made.Batch) { b.Attributes = 2 }), "snappy"},
		"not lz4":                               {change(func(b *made.Batch) { b.Attributes = 3 }), "lz4"},
		"offsets fall":                          {change(func(b *made.Batch) { b.Records[1].Offset = 10 }), "offset 10 after 10"},
		"offset above the last":                 {change(func(b *made.Batch) { b.Records[1].Offset = 20 }), "offset 20"},
		"fewer records than said":               {good.Wrap(good.Body(), 3), "ends within a record"},
		"a length that lies":                    {good.Wrap(append([]byte{60}, good.Body()[1:]...), 2), ""},
		"a compressed message of another magic": {made.Old(1, 1, 12, 0, nil, made.Codecs["gzip"].Compress(made.Old(0, 0, 0, 0, nil, nil))), "magic 0"},
		"zstd that refers back beyond 8 MiB":    {made.Batch{Last: 0, Attributes: 4, Compress: farBack, Records: []made.Record{{Value: farApart()}}}.Bytes(), "zstd"},
	} {
		t.Run(name, func(t *testing.T) {
			r := bytes.NewReader(c.set)
			b, err := ReadHeader(r)
			require.NoError(t, err)
			err = b.Records(r, 0, Limits{MaxValue: 64 << 20}, func(Record) bool { return true })
			var corrupt *CorruptError
			require.ErrorAs(t, err, &corrupt)
			require.ErrorContains(t, err, c.says)
			require.Equal(t, []int64{b.First, b.Last}, []int64{corrupt.First, corrupt.Last})
		})
	}
	damaged := good.Bytes()
	damaged[len(damaged)-1] ^= 1
	r := bytes.NewReader(damaged)
	b, err := ReadHeader(r)
	require.NoError(t, err)
	sum := b.Checksum()
	_, err = io.Copy(sum, r)
	require.NoError(t, err)
	require.ErrorContains(t, sum.Verify(), "checksum")
}

// farApart has the same noise twice, with 20 MiB of other noise between.
func farApart() []byte {
	source := rand.NewChaCha8([32]byte{1})
	out := make([]byte, 22<<20)
	_, _ = source.Read(out)
	copy(out[21<<20:], out[:1<<20])
	return out
}

func farBack(b []byte) []byte { return made.Codecs["zstd of a large window"].Compress(b) }

// An error of the connection is no fault of the batch.
func TestErrorOfThePayloadIsItself(t *testing.T) {
	reset := errors.New("connection reset")
	set := made.Batch{Last: 9, Attributes: 4, Records: []made.Record{{Value: []byte(strings.Repeat("x", 100))}}, Compress: made.Codecs["zstd"].Compress}.Bytes()
	r := bytes.NewReader(set)
	b, err := ReadHeader(r)
	require.NoError(t, err)
	err = b.Records(io.MultiReader(io.LimitReader(r, 20), failing{reset}), 0, usual, func(Record) bool { return true })
	require.Equal(t, reset, err)
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestAnswersEndWithinABatch(t *testing.T) {
	set := made.Batch{First: 10, Last: 19, Records: []made.Record{{Offset: 10}}}.Bytes()
	for n := range headerBytes {
		_, err := ReadHeader(bytes.NewReader(set[:n]))
		if n == 0 {
			require.Equal(t, io.EOF, err)
			continue
		}
		require.Equal(t, ErrPartial, err, n)
	}
}

// FuzzRecords looks for payloads that crash the decoder, or make it break its bounds.
func FuzzRecords(f *testing.F) {
	records := []made.Record{{Offset: 3, At: 1, Key: []byte("k"), Value: []byte("value")}, {Offset: 5, Headers: []kafka.Header{{Key: "a", Value: []byte("b")}}}}
	for _, c := range made.Codecs {
		f.Add(made.Batch{First: 3, Last: 9, Attributes: c.Attributes, Records: records, Compress: c.Compress}.Bytes(), int64(4))
	}
	f.Add(made.Old(1, 1, 12, 1234, nil, made.Codecs["gzip"].Compress(made.Old(1, 0, 0, 5, []byte("k"), []byte("v")))), int64(0))
	f.Add(made.Old(0, 0, 12, 0, []byte("k"), nil), int64(0))
	f.Add(made.Blanks(1, 64<<10), int64(0))
	f.Fuzz(func(t *testing.T, set []byte, from int64) {
		limits := Limits{MaxKey: 100, MaxValue: 1000, MaxHeaders: 100}
		r := bytes.NewReader(set)
		for {
			b, err := ReadHeader(r)
			if err != nil {
				return
			}
			payload := io.LimitReader(r, b.Size)
			previous := int64(-1)
			err = b.Records(payload, from, limits, func(record Record) bool {
				if record.Offset <= previous || record.Offset < from || record.Offset > b.Last {
					t.Fatalf("offset %d after %d, from %d, of a batch up to %d", record.Offset, previous, from, b.Last)
				}
				previous = record.Offset
				if len(record.Key) > limits.MaxKey || len(record.Value) > limits.MaxValue {
					t.Fatal("more is kept than allowed")
				}
				return true
			})
			var corrupt *CorruptError
			if err != nil && !errors.As(err, &corrupt) {
				t.Fatalf("an error of another type: %v", err)
			}
			if _, err := io.Copy(io.Discard, payload); err != nil {
				t.Fatal(err)
			}
		}
	})
}
