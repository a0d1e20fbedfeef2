package intake

import (
	"context"
	"errors"
	"io"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	fetchAPI "github.com/segmentio/kafka-go/protocol/fetch"
)

// fetched is one answer to a fetch of a partition.
type fetched struct {
	messages []kafka.Message
	// next is where to go on: past the messages, and past what is none (transaction markers,
	// aborted records, what compaction removed).
	next int64
	// highWatermark is the offset after the last replicated record.
	highWatermark int64
}

// fetch reads committed records of one partition from offset on, about maxBytes of them as they are stored,
// waiting up to wait for the first.
//
// It speaks the protocol itself because kafka-go's own clients do not tell transactions apart:
// Reader hands out markers and aborted records as messages, Client.Fetch aborted records, and it
// spins at a trailing marker. An error may come along with the messages read before it.
func fetch(ctx context.Context, tr kafka.RoundTripper, brokers []string, topic string, partition int, offset int64, maxBytes int, wait time.Duration) (fetched, error) {
	ctx, cancel := context.WithTimeout(ctx, wait+requestTimeout)
	defer cancel()
	m, err := tr.RoundTrip(ctx, kafka.TCP(brokers...), &fetchAPI.Request{
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
	})
	if err != nil {
		return fetched{next: offset}, err
	}
	response, ok := m.(*fetchAPI.Response)
	if !ok || len(response.Topics) != 1 || len(response.Topics[0].Partitions) != 1 {
		return fetched{next: offset}, errors.New("the broker's answer to a fetch names another partition")
	}
	p := response.Topics[0].Partitions[0]
	if p.ErrorCode != 0 {
		return fetched{next: offset}, kafka.Error(p.ErrorCode)
	}
	out := fetched{next: offset, highWatermark: p.HighWatermark}
	stream, _ := p.RecordSet.Records.(*protocol.RecordStream)
	if stream == nil {
		return out, nil
	}
	aborting := map[int64]bool{} // producers whose records are of an aborted transaction
	for _, batch := range stream.Records {
		switch b := batch.(type) {
		case *protocol.ControlBatch:
			delete(aborting, b.ProducerID)
			out.next = max(out.next, b.BaseOffset+1)
		case *protocol.RecordBatch:
			p.AbortedTransactions = slices.DeleteFunc(p.AbortedTransactions, func(t fetchAPI.ResponseTransaction) bool {
				if t.FirstOffset <= b.BaseOffset {
					aborting[t.ProducerID] = true
				}
				return t.FirstOffset <= b.BaseOffset
			})
			skip := b.Attributes.Transactional() && aborting[b.ProducerID]
			err := records(b, func(r *protocol.Record, key, value []byte) {
				out.next = max(out.next, r.Offset+1)
				if !skip && r.Offset >= offset {
					out.messages = append(out.messages, kafka.Message{
						Topic: topic, Partition: partition, Offset: r.Offset, Key: key, Value: value, Time: r.Time, Headers: r.Headers,
					})
				}
			})
			if err != nil {
				return out, err
			}
			out.next = max(out.next, b.BaseOffset+1) // a batch that compaction emptied still moves on
		}
	}
	return out, nil
}

// records calls each with every record of a batch, whose key and value it may keep.
func records(b *protocol.RecordBatch, each func(r *protocol.Record, key, value []byte)) error {
	for {
		r, err := b.ReadRecord()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		key, keyErr := protocol.ReadAll(r.Key)
		value, valueErr := protocol.ReadAll(r.Value)
		for _, bytes := range []protocol.Bytes{r.Key, r.Value} {
			if bytes != nil {
				_ = bytes.Close() // gives its pages back; it was read already
			}
		}
		if err := errors.Join(keyErr, valueErr); err != nil {
			return err
		}
		each(r, key, value)
	}
}
