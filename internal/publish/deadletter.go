package publish

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
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
	// HeaderSize and HeaderSHA256 (decimal; hex) stand for a value that is too large even for the
	// dead-letter topic. The record then has no value.
	HeaderSize   = "ordersync-size"
	HeaderSHA256 = "ordersync-sha256"
)

// maxDetail bounds the detail, in bytes: it may quote another server's error.
const maxDetail = 1 << 10

// DeadLetter writes dead letters and returns when all are acknowledged. Each is keyed as its record was,
// so those of an order stay in order. A null value stays null; one that the broker refuses for its size is
// replaced by its size and digest, and then comes after the others. Every error is worth another attempt,
// which writes those again that were acknowledged.
func (p *Producer) DeadLetter(ctx context.Context, letters ...order.DeadLetter) error {
	messages := make([]kafka.Message, len(letters))
	for i, letter := range letters {
		messages[i] = kafka.Message{Topic: p.deadLetterTopic, Key: letter.Key, Value: letter.Value, Headers: headers(letter)}
	}
	err := p.Publish(ctx, messages...)
	var failures Errors
	if errors.As(err, &failures) && !stopped(failures) {
		var smaller []kafka.Message
		for i, failure := range failures {
			if failure != nil {
				smaller = append(smaller, withoutValue(messages[i]))
			}
		}
		err = p.Publish(ctx, smaller...)
	}
	if err != nil {
		return fmt.Errorf("write %d dead letters to topic %s: %w", len(letters), p.deadLetterTopic, err)
	}
	return nil
}

// withoutValue is a dead letter that says how large its value was, and has its digest.
func withoutValue(m kafka.Message) kafka.Message {
	digest := sha256.Sum256(m.Value)
	m.Headers = append(m.Headers,
		header(HeaderSize, strconv.Itoa(len(m.Value))),
		header(HeaderSHA256, hex.EncodeToString(digest[:])))
	m.Value = nil
	return m
}

func headers(letter order.DeadLetter) []kafka.Header {
	s := letter.Source
	all := []kafka.Header{
		header(HeaderTopic, s.Topic),
		header(HeaderPartition, strconv.Itoa(s.Partition)),
		header(HeaderOffset, strconv.FormatInt(s.Offset, 10)),
		header(HeaderTimestamp, s.ReceivedAt.UTC().Format(time.RFC3339Nano)),
		header(HeaderReason, string(letter.Reason)),
		header(HeaderDetail, clip(letter.Detail)),
	}
	record := order.Record{Topic: s.Topic, Partition: s.Partition, Offset: s.Offset, Timestamp: s.ReceivedAt, Value: letter.Value}
	if e, err := order.Decode(record, ""); err == nil {
		all = append(all, header(HeaderSyncID, e.SyncID))
	}
	return all
}

func header(key, value string) kafka.Header { return kafka.Header{Key: key, Value: []byte(value)} }

func clip(s string) string {
	if len(s) <= maxDetail {
		return s
	}
	return strings.ToValidUTF8(s[:maxDetail], "") + "…"
}
