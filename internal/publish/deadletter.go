package publish

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"

	"ordersync/internal/order"
)

// Headers of a dead letter. Key and value are those of the record it stands for.
const (
	HeaderTopic     = "ordersync-topic"
	HeaderPartition = "ordersync-partition" // decimal
	HeaderOffset    = "ordersync-offset"    // decimal
	HeaderTimestamp = "ordersync-timestamp" // RFC 3339
	HeaderReason    = "ordersync-reason"    // an order.Reason
	HeaderDetail    = "ordersync-detail"    // for people
	// HeaderSyncID names the order; absent where the record does not tell it.
	HeaderSyncID = "ordersync-sync-id"
	// HeaderSize and HeaderSHA256 (decimal; hex) stand for a value that is too large to keep. The record then has no value.
	HeaderSize   = "ordersync-size"
	HeaderSHA256 = "ordersync-sha256"
	// HeaderKeySize and HeaderKeySHA256 (decimal; hex) stand for a key that is too large to keep. The record then has no key.
	HeaderKeySize   = "ordersync-key-size"
	HeaderKeySHA256 = "ordersync-key-sha256"
)

// maxDetail bounds the detail, in bytes: it may quote another server's error.
const maxDetail = 1 << 10

// DeadLetter writes dead letters and returns when all are acknowledged. Each is keyed as its record was,
// so those of an order stay in order. A null value stays null. Where the broker refuses a letter for its size, size and
// digest take the place of its value, and then of its key as well; it then comes after the others. Every error is worth
// another attempt, which writes those again that were acknowledged.
func (p *Producer) DeadLetter(ctx context.Context, letters ...order.DeadLetter) error {
	messages := make([]kafka.Message, len(letters))
	for i, letter := range letters {
		messages[i] = kafka.Message{Topic: p.deadLetterTopic, Key: letter.Key, Value: letter.Value, Headers: headers(letter)}
	}
	err := p.Publish(ctx, messages...)
	for range 2 { // without values, without keys
		var failures Errors
		if !errors.As(err, &failures) || stopped(failures) {
			break
		}
		var refused []kafka.Message
		for i, failure := range failures {
			if failure != nil {
				refused = append(refused, smaller(messages[i]))
			}
		}
		messages = refused
		err = p.Publish(ctx, messages...)
	}
	if err != nil {
		return fmt.Errorf("write %d dead letters to topic %s: %w", len(letters), p.deadLetterTopic, err)
	}
	return nil
}

// smaller is a dead letter without its value, or without its key if it has no value.
func smaller(m kafka.Message) kafka.Message {
	switch {
	case m.Value != nil:
		m.Headers = append(m.Headers, digest(HeaderSize, HeaderSHA256, order.DigestOf(m.Value))...)
		m.Value = nil
	case m.Key != nil:
		m.Headers = append(m.Headers, digest(HeaderKeySize, HeaderKeySHA256, order.DigestOf(m.Key))...)
		m.Key = nil
	}
	return m
}

// digest are the headers of what is too large to keep, none for nil.
func digest(size, sum string, d *order.Digest) []kafka.Header {
	if d == nil {
		return nil
	}
	return []kafka.Header{header(size, strconv.FormatInt(d.Size, 10)), header(sum, hex.EncodeToString(d.SHA256[:]))}
}

func headers(letter order.DeadLetter) []kafka.Header {
	s := letter.Source
	all := []kafka.Header{
		header(HeaderTopic, s.Topic),
		header(HeaderPartition, strconv.Itoa(s.Partition)),
		header(HeaderOffset, strconv.FormatInt(s.Offset, 10)),
		header(HeaderTimestamp, s.ReceivedAt.UTC().Format(time.RFC3339Nano)),
		header(HeaderReason, string(letter.Reason)),
		header(HeaderDetail, order.Clip(letter.Detail, maxDetail)),
	}
	record := order.Record{Topic: s.Topic, Partition: s.Partition, Offset: s.Offset, Timestamp: s.ReceivedAt, Value: letter.Value}
	if e, err := order.Decode(record, ""); err == nil {
		all = append(all, header(HeaderSyncID, e.SyncID))
	}
	all = append(all, digest(HeaderSize, HeaderSHA256, letter.ValueDigest)...)
	return append(all, digest(HeaderKeySize, HeaderKeySHA256, letter.KeyDigest)...)
}

func header(key, value string) kafka.Header { return kafka.Header{Key: key, Value: []byte(value)} }
