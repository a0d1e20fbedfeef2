package recordset

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/compress"
	"github.com/stretchr/testify/require"
)

// plain is a record to be written; key and value may be null.
type plain struct {
	offset     int64
	at         int64
	key, value []byte
	headers    []kafka.Header
}

// batch writes a batch of magic 2.
type batch struct {
	first, last int64
	attributes  int16
	maxTime     int64
	producer    int64
	records     []plain
	compress    func([]byte) []byte
}

func varint(out []byte, n int) []byte { return binary.AppendVarint(out, int64(n)) }

func nullable(out, b []byte) []byte {
	if b == nil {
		return varint(out, -1)
	}
	return append(varint(out, len(b)), b...)
}

// body is the records' bytes before compression.
func (b batch) body() []byte {
	var body []byte
	for _, r := range b.records {
		one := []byte{0}
		one = binary.AppendVarint(one, r.at)
		one = varint(one, int(r.offset-b.first))
		one = nullable(nullable(one, r.key), r.value)
		one = varint(one, len(r.headers))
		for _, h := range r.headers {
			one = nullable(nullable(one, []byte(h.Key)), h.Value)
		}
		body = append(varint(body, len(one)), one...)
	}
	return body
}

func (b batch) bytes() []byte {
	body := b.body()
	if b.compress != nil {
		body = b.compress(body)
	}
	return b.wrap(body, int32(len(b.records)))
}

func (b batch) wrap(body []byte, count int32) []byte {
	big := binary.BigEndian
	var rest []byte // from the attributes on
	rest = big.AppendUint16(rest, uint16(b.attributes))
	rest = big.AppendUint32(rest, uint32(b.last-b.first))
	rest = big.AppendUint64(rest, 0) // the base of the timestamps
	rest = big.AppendUint64(rest, uint64(b.maxTime))
	rest = big.AppendUint64(rest, uint64(b.producer))
	rest = big.AppendUint16(rest, 0)
	rest = big.AppendUint32(rest, 0)
	rest = big.AppendUint32(rest, uint32(count))
	rest = append(rest, body...)
	var out []byte
	out = big.AppendUint64(out, uint64(b.first))
	out = big.AppendUint32(out, uint32(4+1+4+len(rest)))
	out = big.AppendUint32(out, 0)
	out = append(out, 2)
	out = big.AppendUint32(out, crc32.Checksum(rest, castagnoli))
	return append(out, rest...)
}

// old writes a message of magic 0 or 1.
func old(magic, attributes byte, offset, at int64, key, value []byte) []byte {
	big := binary.BigEndian
	rest := []byte{magic, attributes}
	if magic == 1 {
		rest = big.AppendUint64(rest, uint64(at))
	}
	for _, b := range [][]byte{key, value} {
		if b == nil {
			rest = big.AppendUint32(rest, 0xFFFFFFFF)
			continue
		}
		rest = append(big.AppendUint32(rest, uint32(len(b))), b...)
	}
	var out []byte
	out = big.AppendUint64(out, uint64(offset))
	out = big.AppendUint32(out, uint32(4+len(rest)))
	out = big.AppendUint32(out, crc32.ChecksumIEEE(rest))
	return append(out, rest...)
}

// codecs are the ways in which producers compress, with the attributes that say so.
var codecs = map[string]struct {
	attributes int16
	compress   func([]byte) []byte
}{
	"none": {0, func(b []byte) []byte { return b }},
	"gzip": {1, func(b []byte) []byte {
		var out bytes.Buffer
		w := gzip.NewWriter(&out)
		mustWrite(w, b)
		return out.Bytes()
	}},
	"snappy in a block":  {2, func(b []byte) []byte { return snappy.Encode(nil, b) }},
	"snappy with frames": {2, func(b []byte) []byte { return written(compress.Snappy, b) }},
	"lz4":                {3, func(b []byte) []byte { return written(compress.Lz4, b) }},
	"zstd":               {4, func(b []byte) []byte { return written(compress.Zstd, b) }},
	"zstd in one segment": {4, func(b []byte) []byte {
		w, err := zstd.NewWriter(nil, zstd.WithSingleSegment(true))
		if err != nil {
			panic(err)
		}
		return w.EncodeAll(b, nil)
	}},
	"zstd of a large window": {4, func(b []byte) []byte {
		var out bytes.Buffer
		w, err := zstd.NewWriter(&out, zstd.WithWindowSize(128<<20))
		if err != nil {
			panic(err)
		}
		mustWrite(w, b)
		return out.Bytes()
	}},
}

func mustWrite(w io.WriteCloser, b []byte) {
	if _, err := w.Write(b); err != nil {
		panic(err)
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
}

func written(c compress.Compression, b []byte) []byte {
	var out bytes.Buffer
	mustWrite(c.Codec().NewWriter(&out), b)
	return out.Bytes()
}

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

func codecOf(attributes int16) compress.Codec { return compress.Compression(attributes).Codec() }
