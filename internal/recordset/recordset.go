// Package recordset reads the record sets of Kafka's fetch answers, batch by batch and record by record, within bounds.
//
// kafka-go's own decoder does not do for two reasons. It hides a batch's last offset, and log compaction leaves batches
// whose last offset is above their last record, or that have no record at all: a reader that goes by records asks for such
// a batch for ever. And it decompresses a batch as a whole: a default topic takes 300 MiB of blanks in one record.
//
// Here a record's key and value are copied only up to a limit; of a longer one the size and the digest are read. What a
// batch decompresses to streams by. So a batch needs its stored bytes, one decompressor and the records that are kept.
//
// The formats are described in https://kafka.apache.org/documentation/#messageformat: batches (magic 2), and the message
// sets of Kafka before 0.11 (magic 0 and 1), which old segments still hold.
package recordset

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"time"

	"github.com/segmentio/kafka-go"

	"ordersync/internal/order"
)

// Record is one record. Its memory is its own.
type Record struct {
	Offset int64
	// Time is the producer's timestamp; on a topic with LogAppendTime the broker's.
	Time time.Time
	// Key and Value are nil where the record's are null or too large to keep. In the second case the digest is set.
	Key, Value             []byte
	KeyDigest, ValueDigest *order.Digest
	// Headers are nil where they are larger than MaxHeaders together.
	Headers []kafka.Header
}

// Limits bound what is kept of a record, in bytes.
type Limits struct {
	MaxKey, MaxValue, MaxHeaders int
}

// ErrPartial is the error for a batch that the answer was too short for. It comes again with the next fetch.
var ErrPartial = errors.New("the answer ends within a batch")

// CorruptError is the error of a batch that cannot be read. The offsets First to Last are its.
type CorruptError struct {
	First, Last int64
	// Time is the latest timestamp in the batch.
	Time time.Time
	Err  error
}

func (e *CorruptError) Error() string {
	return fmt.Sprintf("the batch of offsets %d to %d cannot be read: %v", e.First, e.Last, e.Err)
}

// Unwrap returns what is wrong with the batch.
func (e *CorruptError) Unwrap() error { return e.Err }

const (
	prefixBytes = 17 // up to the magic byte, which stands at one place in all formats
	headerBytes = 61 // of a batch of magic 2
	// lengthEnd is where the bytes begin that a batch's or a message's length counts.
	lengthEnd = 12

	compressionBits = 0x07
	appendTimeBit   = 0x08
	transactionBit  = 0x10
	controlBit      = 0x20
)

// Batch is the header of a batch of magic 2, or of a message of magic 0 or 1, which may hold others.
type Batch struct {
	// First is the offset of the first record when the batch was written; of a message it is that of the last.
	// Last is the batch's last offset. Compaction may have removed the records of both.
	First, Last int64
	Magic       int8
	ProducerID  int64
	// Size is how many bytes follow the header: the payload.
	Size int64

	attributes    int16
	baseTimestamp int64
	maxTimestamp  int64
	count         int32
	crc           uint32
	summed        []byte // of the header, what the checksum counts
}

// ReadHeader reads a batch's header. The error is io.EOF at the end of the set, ErrPartial within a header.
func ReadHeader(r io.Reader) (Batch, error) {
	var raw [headerBytes]byte
	if _, err := io.ReadFull(r, raw[:prefixBytes]); err != nil {
		return Batch{}, partial(err)
	}
	number := binary.BigEndian
	b := Batch{First: int64(number.Uint64(raw[0:])), Magic: int8(raw[16]), ProducerID: -1}
	b.Last = b.First
	length := int64(int32(number.Uint32(raw[8:])))
	if b.Magic == 2 {
		if _, err := io.ReadFull(r, raw[prefixBytes:]); err != nil {
			return Batch{}, within(err)
		}
		b.crc = number.Uint32(raw[17:])
		b.attributes = int16(number.Uint16(raw[21:]))
		b.Last = b.First + int64(int32(number.Uint32(raw[23:])))
		b.baseTimestamp = int64(number.Uint64(raw[27:]))
		b.maxTimestamp = int64(number.Uint64(raw[35:]))
		b.ProducerID = int64(number.Uint64(raw[43:]))
		b.count = int32(number.Uint32(raw[57:]))
		b.summed = append(b.summed, raw[21:]...)
		b.Size = length - (headerBytes - lengthEnd)
	} else {
		// A message: checksum, magic, attributes and, from magic 1 on, the timestamp.
		end := prefixBytes + 1
		if b.Magic == 1 {
			end += 8
		}
		if _, err := io.ReadFull(r, raw[prefixBytes:end]); err != nil {
			return Batch{}, within(err)
		}
		b.crc = number.Uint32(raw[12:])
		b.attributes = int16(raw[17])
		b.maxTimestamp = -1
		if b.Magic == 1 {
			b.maxTimestamp = int64(number.Uint64(raw[18:]))
		}
		b.baseTimestamp = b.maxTimestamp
		b.summed = append(b.summed, raw[16:end]...)
		b.Size = length - int64(end-lengthEnd)
	}
	if b.First < 0 || b.Last < b.First || b.Size < 0 || b.Magic < 0 || b.Magic > 2 {
		return b, fmt.Errorf("the answer holds a batch with an impossible header: magic %d, offsets %d to %d, %d bytes", b.Magic, b.First, b.Last, b.Size)
	}
	return b, nil
}

func partial(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrPartial
	}
	return err
}

func within(err error) error {
	if errors.Is(err, io.EOF) {
		return ErrPartial
	}
	return partial(err)
}

// Control returns whether the batch holds a transaction's marker and no records.
func (b Batch) Control() bool { return b.Magic == 2 && b.attributes&controlBit != 0 }

// Transactional returns whether the batch belongs to a transaction.
func (b Batch) Transactional() bool { return b.Magic == 2 && b.attributes&transactionBit != 0 }

// Time is the latest timestamp in the batch.
func (b Batch) Time() time.Time { return timeOf(b.maxTimestamp) }

// Compressed returns whether the payload is compressed.
func (b Batch) Compressed() bool { return b.attributes&compressionBits != 0 }

// Corrupt is the error of a batch that cannot be read for a reason.
func (b Batch) Corrupt(reason error) *CorruptError {
	return &CorruptError{First: b.First, Last: b.Last, Time: b.Time(), Err: reason}
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Checksum counts the bytes of a payload that are written to it.
type Checksum struct {
	hash.Hash32
	want uint32
}

// Checksum begins the checksum of the batch.
func (b Batch) Checksum() Checksum {
	sum := Checksum{crc32.NewIEEE(), b.crc}
	if b.Magic == 2 {
		sum.Hash32 = crc32.New(castagnoli)
	}
	_, _ = sum.Write(b.summed) // a hash returns no error
	return sum
}

// Verify returns an error where the payload is not the one that was written.
func (c Checksum) Verify() error {
	if got := c.Sum32(); got != c.want {
		return fmt.Errorf("its checksum is %08x and not %08x: it was damaged on a disk or on the way", got, c.want)
	}
	return nil
}

// timeOf is a timestamp of Kafka, in milliseconds; -1 stands for none.
func timeOf(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
