package publish

import (
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"

	"ordersync/internal/order"
)

// Letter is a dead letter as it stands in its topic.
type Letter struct {
	order.DeadLetter
	// SyncID is the order it belongs to; empty where nobody can tell.
	SyncID string
	// Size and SHA256 (hex) are those of a value that was too large to keep; 0 and empty otherwise.
	Size   int
	SHA256 string
	// KeySize and KeySHA256 (hex) are the same of a key.
	KeySize   int
	KeySHA256 string
}

// Kept tells whether the letter has the value of its record, which may be null.
func (l Letter) Kept() bool { return l.SHA256 == "" }

// ReadLetter reads what DeadLetter wrote. The letter holds what could be read also where there is an
// error: somebody else may have written to the topic.
func ReadLetter(m kafka.Message) (Letter, error) {
	header := map[string]string{}
	for _, h := range m.Headers {
		header[h.Key] = string(h.Value)
	}
	l := Letter{
		DeadLetter: order.DeadLetter{
			Source: order.Source{Topic: header[HeaderTopic]},
			Key:    m.Key, Value: m.Value, Reason: order.Reason(header[HeaderReason]), Detail: header[HeaderDetail],
		},
		SyncID:    header[HeaderSyncID],
		SHA256:    header[HeaderSHA256],
		KeySHA256: header[HeaderKeySHA256],
	}
	if l.SyncID == "" {
		l.SyncID = order.SyncIDOf(m.Value)
	}
	var problems []error
	note := func(header string, err error) {
		if err != nil {
			problems = append(problems, fmt.Errorf("header %s: %w", header, err))
		}
	}
	var err error
	l.Source.Partition, err = strconv.Atoi(header[HeaderPartition])
	note(HeaderPartition, err)
	l.Source.Offset, err = strconv.ParseInt(header[HeaderOffset], 10, 64)
	note(HeaderOffset, err)
	l.Source.ReceivedAt, err = time.Parse(time.RFC3339Nano, header[HeaderTimestamp])
	note(HeaderTimestamp, err)
	if !l.Kept() {
		l.Size, err = strconv.Atoi(header[HeaderSize])
		note(HeaderSize, err)
	}
	if l.KeySHA256 != "" {
		l.KeySize, err = strconv.Atoi(header[HeaderKeySize])
		note(HeaderKeySize, err)
	}
	return l, errors.Join(problems...)
}
