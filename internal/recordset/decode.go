package recordset

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/segmentio/kafka-go"

	"ordersync/internal/order"
)

// readAhead is the buffer of a payload that is read.
const readAhead = 16 << 10

// maxHeaders bounds the number of headers that are kept of a record.
const maxHeaders = 100

// Records calls each with the batch's records from offset from on, by offset, until it returns false or none is left.
// It reads payload only as far as that needs. Every error about the batch is a *CorruptError; an error of payload itself
// is returned as it is.
func (b Batch) Records(payload io.Reader, from int64, limits Limits, each func(Record) bool) error {
	source := &source{Reader: payload}
	err := b.records(source, from, limits, each)
	switch {
	case err == nil:
		return nil
	case source.err != nil:
		return source.err
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		err = errors.New("it ends within a record")
	}
	return b.Corrupt(err)
}

// source keeps the error of a reader, which is none of what was read.
type source struct {
	io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

func (b Batch) records(payload io.Reader, from int64, limits Limits, each func(Record) bool) error {
	if b.Magic < 2 {
		return b.messages(payload, from, limits, each)
	}
	return decompressed(b.attributes, payload, func(plain io.Reader) error {
		c := cursor{r: bufio.NewReaderSize(plain, readAhead), limits: limits}
		previous := b.First - 1
		for range b.count {
			record, err := c.record(b, from)
			if err != nil {
				return err
			}
			if record.Offset <= previous || record.Offset > b.Last {
				return fmt.Errorf("it has the offset %d after %d", record.Offset, previous)
			}
			previous = record.Offset
			if record.Offset >= from && !each(record) {
				return nil
			}
		}
		return nil
	})
}

// cursor reads the fields of a record, and no byte beyond its length.
type cursor struct {
	r      *bufio.Reader
	limits Limits
	left   int64 // bytes of the record
	err    error // the first
}

var errFields = errors.New("the fields of a record do not fit its length")

// record reads the next record of a batch of magic 2. Of one below from only the offset is kept.
func (c *cursor) record(b Batch, from int64) (Record, error) {
	c.left, c.err = binary.MaxVarintLen64, nil
	length := c.varint()
	if c.err != nil {
		return Record{}, c.err
	}
	if length < 0 {
		return Record{}, errFields
	}
	c.left = length
	c.skip(1) // attributes, unused
	at := b.baseTimestamp + c.varint()
	if b.attributes&appendTimeBit != 0 {
		at = b.maxTimestamp
	}
	record := Record{Offset: b.First + c.varint()}
	if c.err == nil && record.Offset < from {
		c.skip(c.left)
		return record, c.err
	}
	record.Time = timeOf(at)
	record.Key, record.KeyDigest = c.bytes(c.varint(), c.limits.MaxKey)
	record.Value, record.ValueDigest = c.bytes(c.varint(), c.limits.MaxValue)
	record.Headers = c.headers()
	c.skip(c.left)
	return record, c.err
}

// headers reads a record's headers, none where they are beyond the bounds.
func (c *cursor) headers() []kafka.Header {
	count := c.varint()
	if c.err != nil || count <= 0 || count > maxHeaders || c.left > int64(c.limits.MaxHeaders) {
		return nil
	}
	all := make([]kafka.Header, 0, count)
	for range count {
		key, _ := c.bytes(c.varint(), c.limits.MaxHeaders)
		value, _ := c.bytes(c.varint(), c.limits.MaxHeaders)
		all = append(all, kafka.Header{Key: string(key), Value: value})
	}
	return all
}

// varint reads a number in zigzag encoding.
func (c *cursor) varint() int64 {
	var bits uint64
	for shift := 0; shift < 64; shift += 7 {
		if c.left == 0 {
			c.fail(errFields)
		}
		if c.err != nil {
			return 0
		}
		next, err := c.r.ReadByte()
		if err != nil {
			c.fail(err)
			return 0
		}
		c.left--
		bits |= uint64(next&0x7f) << shift
		if next < 0x80 {
			return int64(bits>>1) ^ -int64(bits&1)
		}
	}
	c.fail(errors.New("a number of a record is longer than 64 bits"))
	return 0
}

// bytes reads n bytes, null where n is negative. Of more than most it returns the digest.
func (c *cursor) bytes(n int64, most int) ([]byte, *order.Digest) {
	if n > c.left {
		c.fail(errFields)
	}
	if c.err != nil || n < 0 {
		return nil, nil
	}
	c.left -= n
	if n > int64(most) {
		sum := sha256.New()
		if _, err := io.CopyN(sum, c.r, n); err != nil {
			c.fail(err)
			return nil, nil
		}
		return nil, &order.Digest{Size: n, SHA256: [sha256.Size]byte(sum.Sum(nil))}
	}
	kept := make([]byte, n)
	if _, err := io.ReadFull(c.r, kept); err != nil {
		c.fail(err)
		return nil, nil
	}
	return kept, nil
}

func (c *cursor) skip(n int64) {
	if n > c.left {
		c.fail(errFields)
	}
	if c.err != nil {
		return
	}
	c.left -= n
	for n > 0 {
		part, err := c.r.Discard(int(min(n, 1<<30)))
		if err != nil {
			c.fail(err)
			return
		}
		n -= int64(part)
	}
}

// number reads a number of fixed width, as messages have them.
func (c *cursor) number(width int64) int64 {
	var raw [8]byte
	if width > c.left {
		c.fail(errFields)
	}
	if c.err != nil {
		return 0
	}
	c.left -= width
	if _, err := io.ReadFull(c.r, raw[:width]); err != nil {
		c.fail(err)
		return 0
	}
	if width == 4 {
		return int64(int32(binary.BigEndian.Uint32(raw[:])))
	}
	return int64(binary.BigEndian.Uint64(raw[:]))
}

func (c *cursor) fail(err error) {
	if c.err == nil {
		c.err = err
	}
}

// maxSet bounds the stored bytes of a compressed message of magic 0 or 1, which has to be read twice.
const maxSet = 16 << 20

// messages reads a message of magic 0 or 1: a record, or a compressed set of them.
func (b Batch) messages(payload io.Reader, from int64, limits Limits, each func(Record) bool) error {
	c := cursor{r: bufio.NewReaderSize(payload, readAhead), limits: limits, left: b.Size}
	if !b.Compressed() {
		record := Record{Offset: b.Last, Time: b.Time()}
		if record.Offset < from {
			return nil
		}
		record.Key, record.KeyDigest = c.bytes(c.number(4), limits.MaxKey)
		record.Value, record.ValueDigest = c.bytes(c.number(4), limits.MaxValue)
		if c.err == nil {
			each(record)
		}
		return c.err
	}
	c.skip(max(0, c.number(4))) // no key
	size := c.number(4)
	if c.err == nil && size > maxSet {
		return fmt.Errorf("it is a compressed message of %d bytes in the format of Kafka before 0.11; more than %d are not read", size, maxSet)
	}
	set, _ := c.bytes(size, maxSet)
	if c.err != nil {
		return c.err
	}
	// From magic 1 on the offsets within are relative, and the outer message has the offset of the last. So the set is
	// read once for its last offset, and once more for its records.
	shift := int64(0)
	if b.Magic == 1 {
		last := int64(-1)
		if err := b.inner(set, limits, func(offset int64, rest *cursor) bool { last = offset; return true }); err != nil {
			return err
		}
		shift = b.Last - last
	}
	previous := int64(-1)
	var bad error
	err := b.inner(set, limits, func(offset int64, rest *cursor) bool {
		record := Record{Offset: offset + shift}
		if record.Offset <= previous || record.Offset > b.Last {
			bad = fmt.Errorf("it has the offset %d after %d", record.Offset, previous)
			return false
		}
		previous = record.Offset
		if record.Offset < from {
			return true
		}
		at := int64(-1)
		if b.Magic == 1 {
			at = rest.number(8)
		}
		if b.attributes&appendTimeBit != 0 {
			at = b.maxTimestamp
		}
		record.Time = timeOf(at)
		record.Key, record.KeyDigest = rest.bytes(rest.number(4), limits.MaxKey)
		record.Value, record.ValueDigest = rest.bytes(rest.number(4), limits.MaxValue)
		return rest.err == nil && each(record)
	})
	return errors.Join(bad, err)
}

// inner decompresses a set and calls each with every message in it: its offset, and a cursor that stands at its timestamp.
func (b Batch) inner(set []byte, limits Limits, each func(offset int64, rest *cursor) bool) error {
	return decompressed(b.attributes, bytes.NewReader(set), func(plain io.Reader) error {
		r := bufio.NewReaderSize(plain, readAhead)
		for {
			if _, err := r.Peek(1); errors.Is(err, io.EOF) {
				return nil
			}
			c := cursor{r: r, limits: limits, left: lengthEnd}
			offset := c.number(8)
			c.left = c.number(4)
			c.skip(4) // the checksum: the outer message has one over all
			var kind [2]byte
			if c.err == nil && c.left < int64(len(kind)) {
				return errFields
			}
			if c.err == nil {
				c.left -= int64(len(kind))
				_, c.err = io.ReadFull(r, kind[:])
			}
			if c.err != nil {
				return c.err
			}
			if int8(kind[0]) != b.Magic || kind[1]&compressionBits != 0 {
				return fmt.Errorf("it holds a message of magic %d with attributes %#x, which cannot be", kind[0], kind[1])
			}
			goOn := each(offset, &c)
			if c.skip(c.left); c.err != nil || !goOn {
				return c.err
			}
		}
	})
}
