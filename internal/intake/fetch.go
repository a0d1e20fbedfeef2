package intake

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	fetchAPI "github.com/segmentio/kafka-go/protocol/fetch"

	"ordersync/internal/order"
	"ordersync/internal/recordset"
)

const (
	// maxHeld is the largest batch that is held in memory as it is stored: what a default topic takes, and a little more. A
	// larger one is decoded while it is read from the connection, and read again for every part.
	maxHeld = 1<<20 + 64<<10
	// maxKey is the longest key that is kept. That of an event has order.MaxSyncID bytes at most.
	maxKey = 64 << 10
	// maxHeaders are the bytes of a record's headers that are kept. Those of a dead letter need some 4 KiB.
	maxHeaders = 64 << 10
	// partMost is about how many bytes of records are decoded at a time.
	partMost = 256 << 10
	// partLargest is what the parts of one compressed batch grow to. Each part decompresses the batch from its beginning, so
	// small parts of a large batch would cost the square of its size. A part waits in memory for room, one per partition.
	partLargest = 2 << 20
	// doubtBytes is how much is fetched again of a batch that cannot be read: enough for what follows it, which says where
	// it ends.
	doubtBytes = 2 * maxHeld
)

// incoming is one record, or what takes the place of those that cannot be read.
type incoming struct {
	kafka.Message
	// keyDigest and valueDigest stand for a key and a value that are too large to keep.
	keyDigest, valueDigest *order.Digest
	// corrupt is why the batch from Offset on cannot be read; nil if it can. Value then is the batch as it is stored.
	corrupt *recordset.CorruptError
}

// fetched is one answer to a fetch of a partition. Its batches are decoded as they are asked for.
type fetched struct {
	topic     string
	partition int
	maxValue  int
	aborted   []transaction
	aborting  map[int64]bool // producers whose records are of an aborted transaction

	// first is what was decoded of a batch too large to hold, which then is the first and only one.
	first *decoded
	held  []byte // the other batches, as they are stored
	// bad is the batch at which decoding ended, as it is stored; empty if it is not held.
	bad []byte
	// parts are how many parts of the first held batch were decoded.
	parts int
	// passed is a damaged batch that ends before what was asked for, whatever its header says. It is the error where nothing
	// else came: an answer without progress would be fetched without end.
	passed *recordset.CorruptError

	// next is where to go on: past the messages that more has returned, and past what is none (transaction markers, aborted
	// records, what compaction removed).
	next int64
	// highWatermark is the offset after the last replicated record.
	highWatermark int64
	errorCode     int16
}

type transaction struct{ producer, first int64 }

type decoded struct {
	messages []incoming
	next     int64
	err      error
}

// ApiKey makes an answer one of kafka-go's messages.
func (f *fetched) ApiKey() protocol.ApiKey { return protocol.Fetch } //nolint:revive,staticcheck // the name is kafka-go's

// fetch reads committed records of one partition from offset on, about maxBytes of them as they are stored, waiting up to
// wait for the first. Values above maxValue bytes are not kept.
//
// It speaks the protocol itself because kafka-go's own clients do not tell transactions apart: Reader hands out markers and
// aborted records as messages, Client.Fetch aborted records, and it spins at a trailing marker. And it decodes the records
// itself, for the reasons given in package recordset.
func fetch(ctx context.Context, tr kafka.RoundTripper, brokers []string, topic string, partition int, offset int64, maxBytes, maxValue int, wait time.Duration) (*fetched, error) {
	ctx, cancel := context.WithTimeout(ctx, wait+requestTimeout)
	defer cancel()
	x := &exchange{
		answer: fetched{topic: topic, partition: partition, maxValue: maxValue, aborting: map[int64]bool{}, next: offset},
		request: fetchAPI.Request{
			ReplicaID:      -1,
			MaxWaitTime:    int32(wait.Milliseconds()),
			MinBytes:       1,
			MaxBytes:       int32(maxBytes),
			IsolationLevel: int8(kafka.ReadCommitted),
			SessionID:      -1,
			SessionEpoch:   -1,
			Topics: []fetchAPI.RequestTopic{{Topic: topic, Partitions: []fetchAPI.RequestPartition{{
				Partition:          int32(partition),
				CurrentLeaderEpoch: -1,
				FetchOffset:        offset,
				LogStartOffset:     -1,
				PartitionMaxBytes:  int32(maxBytes),
			}}}},
		},
	}
	if t, ok := tr.(*kafka.Transport); ok {
		x.clientID = t.ClientID
	}
	m, err := tr.RoundTrip(ctx, kafka.TCP(brokers...), x)
	if err != nil {
		return nil, err
	}
	answer, ok := m.(*fetched)
	if !ok {
		return nil, fmt.Errorf("the answer to a fetch is a %T", m)
	}
	if answer.errorCode != 0 {
		return nil, kafka.Error(answer.errorCode)
	}
	return answer, nil
}

// exchange is a fetch whose answer is read here and not by kafka-go, over a connection of its Transport.
type exchange struct {
	request  fetchAPI.Request
	clientID string
	version  int16
	answer   fetched
}

var (
	_ protocol.RawExchanger  = (*exchange)(nil)
	_ protocol.BrokerMessage = (*exchange)(nil)
)

// ApiKey makes an exchange one of kafka-go's messages.
func (x *exchange) ApiKey() protocol.ApiKey { return protocol.Fetch } //nolint:revive,staticcheck // the name is kafka-go's

// Broker is the partition's leader.
func (x *exchange) Broker(cluster protocol.Cluster) (protocol.Broker, error) {
	return x.request.Broker(cluster)
}

// Required notes the version that the broker speaks. It is called before each RawExchange.
func (x *exchange) Required(versions map[protocol.ApiKey]int16) bool {
	x.version = versions[protocol.Fetch]
	return true
}

// leastVersion is the first version of a fetch that knows of transactions, that of Kafka 0.11.
const leastVersion = 4

// RawExchange makes the exchange. After an error kafka-go closes the connection.
func (x *exchange) RawExchange(connection io.ReadWriter) (protocol.Message, error) {
	if x.version < leastVersion {
		return nil, fmt.Errorf("the broker speaks version %d of Kafka's Fetch, and ordersync needs %d: Kafka 0.11 or later", x.version, leastVersion)
	}
	id := correlation.Add(1)
	if err := protocol.WriteRequest(connection, x.version, id, x.clientID, &x.request); err != nil {
		return nil, err
	}
	var size [4]byte
	if _, err := io.ReadFull(connection, size[:]); err != nil {
		return nil, unexpected(err)
	}
	r := &answerReader{r: &io.LimitedReader{R: connection, N: int64(binary.BigEndian.Uint32(size[:]))}}
	if got := r.int32(); r.err == nil && got != id {
		return nil, fmt.Errorf("the broker answers request %d and not %d", got, id)
	}
	if err := x.answer.read(r, x.version, &x.request); err != nil {
		return nil, err
	}
	if _, err := io.Copy(io.Discard, r.r); err != nil { // the connection is used again
		return nil, err
	}
	if r.r.N > 0 {
		return nil, io.ErrUnexpectedEOF
	}
	return &x.answer, nil
}

// correlation numbers the requests. A connection has one at a time.
var correlation atomic.Int32

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// answerReader reads the fields of an answer, and keeps the first error.
type answerReader struct {
	r   *io.LimitedReader
	err error
}

func (r *answerReader) number(width int) uint64 {
	var raw [8]byte
	if r.err == nil {
		if _, err := io.ReadFull(r.r, raw[8-width:]); err != nil {
			r.err = unexpected(err)
			return 0
		}
	}
	return binary.BigEndian.Uint64(raw[:])
}

func (r *answerReader) int16() int16 { return int16(r.number(2)) }
func (r *answerReader) int32() int32 { return int32(r.number(4)) }
func (r *answerReader) int64() int64 { return int64(r.number(8)) }

func (r *answerReader) skip(n int64) {
	if r.err == nil {
		_, err := io.CopyN(io.Discard, r.r, n)
		r.err = unexpected(err)
	}
}

var errAnswer = errors.New("the broker's answer to a fetch names another partition")

// read reads an answer after its head (https://kafka.apache.org/protocol#The_Messages_Fetch): the header of the one
// partition, and its record set.
func (f *fetched) read(r *answerReader, version int16, request *fetchAPI.Request) error {
	r.skip(4) // how long the broker has throttled the request
	if version >= 7 {
		if code := r.int16(); r.err == nil && code != 0 {
			f.errorCode = code
			return nil
		}
		r.skip(4) // the session, which was not asked for
	}
	topics := r.int32()
	name := r.int16()
	r.skip(int64(name))
	if partitions := r.int32(); r.err == nil && (topics != 1 || partitions != 1) {
		return errAnswer
	}
	if id := r.int32(); r.err == nil && id != request.Topics[0].Partitions[0].Partition {
		return errAnswer
	}
	f.errorCode = r.int16()
	f.highWatermark = r.int64()
	r.skip(8) // the last stable offset
	if version >= 5 {
		r.skip(8) // the log's start
	}
	for range r.int32() { // -1 without any
		if r.err != nil {
			return r.err
		}
		f.aborted = append(f.aborted, transaction{producer: r.int64(), first: r.int64()})
	}
	if version >= 11 {
		r.skip(4) // a replica that could be read from
	}
	size := r.int32()
	if r.err != nil || size <= 0 || f.errorCode != 0 {
		return r.err
	}
	return f.readSet(&io.LimitedReader{R: r.r, N: int64(size)}, r.r)
}

// readSet keeps the batches of a record set that are small enough, or decodes the first if it is not. A broker sends a
// first batch whole whatever was asked for, and otherwise no more than that.
func (f *fetched) readSet(set, answer *io.LimitedReader) error {
	var header bytes.Buffer
	for {
		header.Reset()
		b, err := recordset.ReadHeader(io.TeeReader(set, &header))
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, recordset.ErrPartial):
			if answer.N > 0 && set.N > 0 {
				return io.ErrUnexpectedEOF // of the connection
			}
			return nil
		case err != nil && len(f.held) > 0:
			return nil // what comes before it is good; it is the first of a later fetch
		case err != nil:
			return err
		case b.Size > set.N && (len(f.held) > 0 || f.first != nil):
			return nil // cut off
		case b.Size > maxHeld && len(f.held) > 0:
			return nil // it is the first of a later fetch
		case b.Size > maxHeld:
			return f.stream(b, set)
		}
		from := len(f.held)
		f.held = slices.Grow(f.held, header.Len()+int(min(b.Size, set.N)))
		f.held = append(f.held, header.Bytes()...)
		n := int(min(b.Size, set.N))
		f.held = f.held[:from+header.Len()+n]
		if _, err := io.ReadFull(set, f.held[from+header.Len():]); err != nil {
			return unexpected(err)
		}
	}
}

// stream decodes a part of a batch from the connection. The checksum is over all of it, so nothing is handed out before
// the end has been read.
func (f *fetched) stream(b recordset.Batch, set *io.LimitedReader) error {
	sum := b.Checksum()
	payload := &io.LimitedReader{R: set, N: b.Size}
	part, err := f.decode(b, io.TeeReader(payload, sum), partLargest)
	var corrupt *recordset.CorruptError
	if err != nil && !errors.As(err, &corrupt) {
		return err
	}
	if _, err := io.Copy(sum, payload); err != nil {
		return err
	}
	if payload.N > 0 {
		return io.ErrUnexpectedEOF
	}
	if err := sum.Verify(); err != nil {
		if cut := until(b, set); cut.Last >= f.next {
			b = cut
		}
		part = decoded{next: f.next, err: b.Corrupt(err)}
	}
	f.first = &part
	return nil
}

// until ends a damaged batch where the next begins, which rest reads. The header whose checksum has failed may name a last
// offset that is too high, and going on after that would pass good batches over.
func until(b recordset.Batch, rest io.Reader) recordset.Batch {
	if next, err := recordset.ReadHeader(rest); err == nil && next.First > b.First {
		b.Last = min(b.Last, next.First-1)
	}
	return b
}

// decode decodes records of a batch from next on, until they are about most bytes.
func (f *fetched) decode(b recordset.Batch, payload io.Reader, most int) (decoded, error) {
	part := decoded{next: f.next}
	if f.passes(b) {
		part.next = max(part.next, b.Last+1)
		return part, nil
	}
	bytes, full := 0, false
	limits := recordset.Limits{MaxKey: maxKey, MaxValue: f.maxValue, MaxHeaders: maxHeaders}
	err := b.Records(payload, f.next, limits, func(r recordset.Record) bool {
		part.messages = append(part.messages, incoming{
			Message: kafka.Message{
				Topic: f.topic, Partition: f.partition, Offset: r.Offset, Key: r.Key, Value: r.Value, Time: order.ClampTime(r.Time), Headers: r.Headers,
			},
			keyDigest: r.KeyDigest, valueDigest: r.ValueDigest,
		})
		part.next = r.Offset + 1
		bytes += len(r.Key) + len(r.Value) + recordBytes
		full = bytes >= most
		return !full
	})
	part.err = err
	if err == nil && !full {
		part.next = max(part.next, b.Last+1)
	}
	return part, err
}

// recordBytes is about what a record takes in memory beside its key and value.
const recordBytes = 256

// passes returns whether a batch has no records for anyone: a marker, or those of an aborted transaction. It keeps account
// of the transactions, for which the answer's batches have to come one after the other.
func (f *fetched) passes(b recordset.Batch) bool {
	if b.Control() {
		delete(f.aborting, b.ProducerID)
		return true
	}
	f.aborted = slices.DeleteFunc(f.aborted, func(t transaction) bool {
		if t.first <= b.First {
			f.aborting[t.producer] = true
		}
		return t.first <= b.First
	})
	return b.Transactional() && f.aborting[b.ProducerID]
}

// more returns the next records, about most bytes of them, and none at the end. An error may come with the records before
// it; a batch that cannot be read is a *recordset.CorruptError. The parts of one compressed batch grow, up to partLargest. It
// stops when ctx ends.
func (f *fetched) more(ctx context.Context, most int) ([]incoming, error) {
	if first := f.first; first != nil {
		f.first = nil
		f.next = first.next
		return first.messages, first.err
	}
	var all []incoming
	asked := f.next
	for range f.parts {
		most = min(2*most, max(most, partLargest))
	}
	for most > 0 && len(f.held) > 0 {
		r := bytes.NewReader(f.held)
		b, err := recordset.ReadHeader(r)
		if err != nil {
			return all, err // it was read before
		}
		head := len(f.held) - r.Len()
		if int64(r.Len()) < b.Size {
			f.held = nil
			return all, recordset.ErrPartial
		}
		payload := f.held[head : head+int(b.Size)]
		if b.Last < f.next { // a part of the first batch, or all of it, lies before what was asked for
			f.passes(b)
			f.held = f.held[head+len(payload):]
			continue
		}
		rest := f.held[head+len(payload):]
		sum := b.Checksum()
		_, _ = sum.Write(payload) // a hash returns no error
		part, err := decoded{next: f.next}, error(nil)
		if bad := sum.Verify(); bad != nil {
			cut := until(b, bytes.NewReader(rest))
			if cut.Last < f.next {
				f.passed, f.held = b.Corrupt(bad), rest
				continue
			}
			err = cut.Corrupt(bad)
		} else {
			part, err = f.decode(b, stopping{ctx, bytes.NewReader(payload)}, most)
		}
		for _, m := range part.messages {
			most -= len(m.Key) + len(m.Value) + recordBytes
		}
		all = append(all, part.messages...)
		f.next = part.next
		if err != nil {
			f.bad, f.held = f.held[:head+len(payload)], nil
			return all, err
		}
		switch {
		case f.next > b.Last:
			f.held, f.parts = rest, 0
		case b.Compressed():
			f.parts++
		}
	}
	if passed := f.passed; passed != nil && len(f.held) == 0 {
		f.passed = nil
		if f.next == asked {
			return all, passed
		}
	}
	return all, nil
}

// stopping is a reader that fails when a context has ended: a small batch can decompress for seconds.
type stopping struct {
	ctx context.Context
	r   io.Reader
}

func (s stopping) Read(p []byte) (int, error) {
	if s.ctx.Err() != nil {
		return 0, context.Cause(s.ctx)
	}
	return s.r.Read(p)
}

// unreadable is what takes the place of a batch that cannot be read, from the place on where decoding ended. It goes past
// the batch.
func (f *fetched) unreadable(corrupt *recordset.CorruptError) incoming {
	m := incoming{
		Message: kafka.Message{Topic: f.topic, Partition: f.partition, Offset: max(f.next, corrupt.First), Time: order.ClampTime(corrupt.Time), Value: f.bad},
		corrupt: corrupt,
	}
	f.next = max(f.next, corrupt.Last+1)
	return m
}
