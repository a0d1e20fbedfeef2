package recordset

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
)

// What the log cleaner leaves: a batch keeps its last offset, whichever of its records it has lost.
func TestCompactedBatchesSpanTheirOffsets(t *testing.T) {
	set := batch{first: 100, last: 109, records: []plain{{offset: 100}, {offset: 103}, {offset: 105}}}.bytes()
	set = append(set, batch{first: 110, last: 119}.bytes()...)
	set = append(set, batch{first: 120, last: 120, records: []plain{{offset: 120}}}.bytes()...)
	records, batches := read(t, set, 103, usual)
	require.Equal(t, []int64{103, 105, 120}, offsets(records))
	require.Equal(t, []int64{109, 119, 120}, []int64{batches[0].Last, batches[1].Last, batches[2].Last})
}

func TestEveryCompression(t *testing.T) {
	noise := make([]byte, 100<<10)
	for i := range noise {
		noise[i] = byte(rand.Uint32() >> 27)
	}
	want := []plain{
		{offset: 5, at: 1_700_000_000_000, key: []byte("42"), value: noise},
		{offset: 6, at: 1_700_000_000_001, value: []byte("{}"), headers: []kafka.Header{{Key: "h", Value: []byte("v")}, {Key: "null"}}},
		{offset: 9, at: -1, key: []byte{}, value: nil},
	}
	for name, c := range codecs {
		t.Run(name, func(t *testing.T) {
			set := batch{first: 5, last: 9, attributes: c.attributes, records: want, compress: c.compress}.bytes()
			got, _ := read(t, set, 0, usual)
			require.Len(t, got, len(want))
			for i, r := range got {
				require.Equal(t, want[i].offset, r.Offset)
				require.Equal(t, want[i].at, r.Time.UnixMilli())
				require.Equal(t, want[i].key, r.Key)
				require.Equal(t, want[i].value, r.Value)
				require.Equal(t, want[i].headers, r.Headers)
			}
		})
	}
}

// The messages of Kafka before 0.11, which a broker of today neither takes nor makes, but its old segments may hold.
func TestOldMessageFormats(t *testing.T) {
	inner := func(magic byte, offsets ...int64) []byte {
		var set []byte
		for i, offset := range offsets {
			set = append(set, old(magic, 0, offset, int64(1000+i), []byte("k"), []byte("value"))...)
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
		"magic 0":                {old(0, 0, 7, 0, []byte("k"), []byte("v")), 0, []int64{7}, []int64{-1}, 7},
		"magic 1":                {old(1, 0, 7, 1234, nil, []byte("v")), 0, []int64{7}, []int64{1234}, 7},
		"magic 1, append time":   {old(1, appendTimeBit, 7, 1234, nil, nil), 0, []int64{7}, []int64{1234}, 7},
		"magic 0 compressed":     {old(0, 1, 12, 0, nil, codecs["gzip"].compress(inner(0, 10, 11, 12))), 11, []int64{11, 12}, []int64{-1, -1}, 12},
		"magic 1 compressed":     {old(1, 1, 12, 1234, nil, codecs["gzip"].compress(inner(1, 0, 1, 2))), 11, []int64{11, 12}, []int64{1001, 1002}, 12},
		"magic 1 with snappy":    {old(1, 2, 12, 1234, nil, codecs["snappy with frames"].compress(inner(1, 0, 1, 2))), 10, []int64{10, 11, 12}, []int64{1000, 1001, 1002}, 12},
		"magic 1 with lz4":       {old(1, 3, 12, 1234, nil, codecs["lz4"].compress(inner(1, 0, 1, 2))), 10, []int64{10, 11, 12}, []int64{1000, 1001, 1002}, 12},
		"compacted":              {old(1, 1, 12, 1234, nil, codecs["gzip"].compress(inner(1, 0, 2))), 0, []int64{10, 12}, []int64{1000, 1001}, 12},
		"compressed append time": {old(1, 1|appendTimeBit, 12, 1234, nil, codecs["gzip"].compress(inner(1, 0, 1))), 0, []int64{11, 12}, []int64{1234, 1234}, 12},
		"compressed, none left":  {old(1, 1, 12, 1234, nil, nil), 0, nil, nil, 12},
	} {
		t.Run(name, func(t *testing.T) {
			set := append(c.set, batch{first: 20, last: 29}.bytes()...) // a newer segment follows
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
	set := batch{first: 1, last: 2, attributes: appendTimeBit, maxTime: now, records: []plain{{offset: 1, at: 5}, {offset: 2, at: -1}}}.bytes()
	got, _ := read(t, set, 0, usual)
	require.Equal(t, []int64{now, now}, []int64{got[0].Time.UnixMilli(), got[1].Time.UnixMilli()})
}

func TestTransactionBits(t *testing.T) {
	_, batches := read(t, append(batch{attributes: transactionBit}.bytes(), batch{attributes: transactionBit | controlBit}.bytes()...), 0, usual)
	require.True(t, batches[0].Transactional() && !batches[0].Control())
	require.True(t, batches[1].Transactional() && batches[1].Control())
}

func TestWhatIsTooLargeIsDigested(t *testing.T) {
	long, limit := bytes.Repeat([]byte("k"), 11), Limits{MaxKey: 10, MaxValue: 10, MaxHeaders: 10}
	set := batch{first: 1, last: 3, records: []plain{
		{offset: 1, key: long, value: []byte("small")},
		{offset: 2, key: []byte("small"), value: long, headers: []kafka.Header{{Key: "a", Value: []byte("b")}}},
		{offset: 3, key: long[:10], value: long[:10], headers: []kafka.Header{{Key: "header", Value: long}}},
	}}.bytes()
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

// blanks are a batch whose one record has so many bytes of value that they fill memory, if they are held.
func blanks(size int, c func(io.Writer) io.WriteCloser, attributes int16) []byte {
	b := batch{first: 1, last: 1, attributes: attributes}
	var head []byte
	head = append(head, 0, 0, 0)
	head = varint(head, -1)
	head = varint(head, size)
	var body bytes.Buffer
	w := c(&body)
	if _, err := w.Write(append(varint(nil, len(head)+size+1), head...)); err != nil {
		panic(err)
	}
	block := bytes.Repeat([]byte(" "), 1<<20)
	for left := size; left > 0; left -= len(block) {
		if _, err := w.Write(block[:min(left, len(block))]); err != nil {
			panic(err)
		}
	}
	mustWrite(w, []byte{0})
	return b.wrap(body.Bytes(), 1)
}

func TestBlanksTakeNoMemory(t *testing.T) {
	const size = 300 << 20
	set := blanks(size, codecOf(4).NewWriter, 4)
	require.Less(t, len(set), 1<<20, "a default topic takes it")
	var got []Record
	most := peak(t, func() { got, _ = read(t, set, 0, usual) })
	require.Len(t, got, 1)
	require.EqualValues(t, size, got[0].ValueDigest.Size)
	require.Less(t, most, 40<<20)
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
	var records []plain
	for i := range int64(1000) {
		records = append(records, plain{offset: i, value: []byte("value")})
	}
	set := batch{last: 999, attributes: 4, records: records, compress: codecs["zstd"].compress}.bytes()
	r := bytes.NewReader(set)
	b, err := ReadHeader(r)
	require.NoError(t, err)
	var got []Record
	require.NoError(t, b.Records(r, 500, usual, func(r Record) bool { got = append(got, r); return len(got) < 3 }))
	require.Equal(t, []int64{500, 501, 502}, offsets(got))
}

func TestBatchesThatCannotBeRead(t *testing.T) {
	good := batch{first: 10, last: 19, records: []plain{{offset: 10, value: []byte("a")}, {offset: 12, value: []byte("b")}}}
	change := func(change func(*batch)) []byte {
		b := good
		b.records = append([]plain{}, good.records...)
		change(&b)
		return b.bytes()
	}
	for name, c := range map[string]struct {
		set  []byte
		says string
	}{
		"unknown compression":                   {change(func(b *batch) { b.attributes = 5 }), "unknown kind 5"},
		"not compressed":                        {change(func(b *batch) { b.attributes = 4 }), "zstd"},
		"not gzip":                              {change(func(b *batch) { b.attributes = 1 }), "gzip"},
		"not snappy":                            {change(func(b *batch) { b.attributes = 2 }), "snappy"},
		"not lz4":                               {change(func(b *batch) { b.attributes = 3 }), "lz4"},
		"offsets fall":                          {change(func(b *batch) { b.records[1].offset = 10 }), "offset 10 after 10"},
		"offset above the last":                 {change(func(b *batch) { b.records[1].offset = 20 }), "offset 20"},
		"fewer records than said":               {good.wrap(good.body(), 3), "ends within a record"},
		"a length that lies":                    {good.wrap(append([]byte{60}, good.body()[1:]...), 2), ""},
		"a compressed message of another magic": {old(1, 1, 12, 0, nil, codecs["gzip"].compress(old(0, 0, 0, 0, nil, nil))), "magic 0"},
		"zstd that refers back beyond 8 MiB":    {batch{last: 0, attributes: 4, compress: farBack, records: []plain{{value: farApart()}}}.bytes(), "zstd"},
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
	damaged := good.bytes()
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

func farBack(b []byte) []byte { return codecs["zstd of a large window"].compress(b) }

// An error of the connection is no fault of the batch.
func TestErrorOfThePayloadIsItself(t *testing.T) {
	reset := errors.New("connection reset")
	set := batch{last: 9, attributes: 4, records: []plain{{value: []byte(strings.Repeat("x", 100))}}, compress: codecs["zstd"].compress}.bytes()
	r := bytes.NewReader(set)
	b, err := ReadHeader(r)
	require.NoError(t, err)
	err = b.Records(io.MultiReader(io.LimitReader(r, 20), failing{reset}), 0, usual, func(Record) bool { return true })
	require.Equal(t, reset, err)
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestAnswersEndWithinABatch(t *testing.T) {
	set := batch{first: 10, last: 19, records: []plain{{offset: 10}}}.bytes()
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
	records := []plain{{offset: 3, at: 1, key: []byte("k"), value: []byte("value")}, {offset: 5, headers: []kafka.Header{{Key: "a", Value: []byte("b")}}}}
	for _, c := range codecs {
		f.Add(batch{first: 3, last: 9, attributes: c.attributes, records: records, compress: c.compress}.bytes(), int64(4))
	}
	f.Add(old(1, 1, 12, 1234, nil, codecs["gzip"].compress(old(1, 0, 0, 5, []byte("k"), []byte("v")))), int64(0))
	f.Add(old(0, 0, 12, 0, []byte("k"), nil), int64(0))
	f.Add(blanks(4<<20, codecOf(4).NewWriter, 4), int64(0))
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
