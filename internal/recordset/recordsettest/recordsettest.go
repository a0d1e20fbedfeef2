// Package recordsettest writes record sets for tests, as no producer of today does: compacted, of old formats, damaged.
package recordsettest

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/compress"
)

// Record is a record to be written; key and value may be null.
type Record struct {
	Offset int64
	// At is the timestamp, in Unix milliseconds.
	At         int64
	Key, Value []byte
	Headers    []kafka.Header
}

// Batch is a batch of magic 2 to be written.
type Batch struct {
	First, Last int64
	Attributes  int16
	MaxTime     int64 // Unix milliseconds
	Producer    int64
	Records     []Record
	Compress    func([]byte) []byte // nil writes them plain
}

func varint(out []byte, n int) []byte { return binary.AppendVarint(out, int64(n)) }

func nullable(out, b []byte) []byte {
	if b == nil {
		return varint(out, -1)
	}
	return append(varint(out, len(b)), b...)
}

// Body is the records' bytes before compression.
func (b Batch) Body() []byte {
	var body []byte
	for _, r := range b.Records {
		one := []byte{0}
		one = binary.AppendVarint(one, r.At)
		one = varint(one, int(r.Offset-b.First))
		one = nullable(nullable(one, r.Key), r.Value)
		one = varint(one, len(r.Headers))
		for _, h := range r.Headers {
			one = nullable(nullable(one, []byte(h.Key)), h.Value)
		}
		body = append(varint(body, len(one)), one...)
	}
	return body
}

// Bytes is the batch as a broker stores it.
func (b Batch) Bytes() []byte {
	body := b.Body()
	if b.Compress != nil {
		body = b.Compress(body)
	}
	return b.Wrap(body, int32(len(b.Records)))
}

// Wrap writes the header before a body, which says that it has count records.
func (b Batch) Wrap(body []byte, count int32) []byte {
	big := binary.BigEndian
	var rest []byte // from the attributes on
	rest = big.AppendUint16(rest, uint16(b.Attributes))
	rest = big.AppendUint32(rest, uint32(b.Last-b.First))
	rest = big.AppendUint64(rest, 0) // the base of the timestamps
	rest = big.AppendUint64(rest, uint64(b.MaxTime))
	rest = big.AppendUint64(rest, uint64(b.Producer))
	rest = big.AppendUint16(rest, 0)
	rest = big.AppendUint32(rest, 0)
	rest = big.AppendUint32(rest, uint32(count))
	rest = append(rest, body...)
	var out []byte
	out = big.AppendUint64(out, uint64(b.First))
	out = big.AppendUint32(out, uint32(4+1+4+len(rest)))
	out = big.AppendUint32(out, 0)
	out = append(out, 2)
	out = big.AppendUint32(out, crc32.Checksum(rest, crc32.MakeTable(crc32.Castagnoli)))
	return append(out, rest...)
}

// Old writes a message of magic 0 or 1.
func Old(magic, attributes byte, offset, at int64, key, value []byte) []byte {
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

// Codec is a way in which producers compress, with the attributes that say so.
type Codec struct {
	Attributes int16
	Compress   func([]byte) []byte
}

// Codecs are all of them, by name.
var Codecs = map[string]Codec{
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

// Blanks is a batch with one record, whose value is size blanks, and which takes little when it is compressed by zstd.
func Blanks(offset int64, size int) []byte {
	const attributes = 4
	b := Batch{First: offset, Last: offset, Attributes: attributes}
	head := varint(varint([]byte{0, 0, 0}, -1), size)
	var body bytes.Buffer
	w := compress.Compression(attributes).Codec().NewWriter(&body)
	write := func(b []byte) {
		if _, err := w.Write(b); err != nil {
			panic(err)
		}
	}
	write(append(varint(nil, len(head)+size+1), head...))
	block := bytes.Repeat([]byte(" "), 1<<20)
	for left := size; left > 0; left -= len(block) {
		write(block[:min(left, len(block))])
	}
	mustWrite(w, []byte{0}) // no headers
	return b.Wrap(body.Bytes(), 1)
}
