package order

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"time"
)

// DeadLetter is a record, or what became of one, that will not be applied. It keeps the original
// bytes and says where they came from and why they are here.
type DeadLetter struct {
	Source Source
	Key    []byte // nil where the record had none
	Value  []byte // nil where the record's was null
	// KeyDigest and ValueDigest stand for a key and a value that are too large to keep; nil otherwise.
	KeyDigest, ValueDigest *Digest
	Reason                 Reason
	Detail                 string
}

// Digest stands for bytes that are too large to keep.
type Digest struct {
	Size   int64
	SHA256 [sha256.Size]byte
}

// DigestOf is the digest of bytes.
func DigestOf(b []byte) *Digest { return &Digest{Size: int64(len(b)), SHA256: sha256.Sum256(b)} }

// ERPRow stands in a dead letter for the topic of a row of the ERP that never was a record. It is no
// name of a topic.
const ERPRow = "erp:row"

// message is an event as the ERP publishes it.
type message struct {
	SyncID     string          `json:"sync_id"`
	Kind       Kind            `json:"event"`
	EventID    string          `json:"event_id"`
	Version    int64           `json:"version,omitempty"`
	OccurredAt time.Time       `json:"occurred_at"`
	Data       json.RawMessage `json:"data"`
}

// Message is the event in the form of a Kafka record's value. Its id is spelled out, so decoding
// it again, from wherever it then stands, gives an event of the same identity.
func (e Event) Message() ([]byte, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	err := enc.Encode(message{
		SyncID: e.SyncID, Kind: e.Kind, EventID: e.ID.String(), Version: e.Version,
		OccurredAt: e.OccurredAt, Data: e.Data,
	})
	return bytes.TrimRight(out.Bytes(), "\n"), err
}

// SyncIDOf is the order that a record's value names, also where the value is no event; empty where
// it names none. By it the dead letters of an order are found.
func SyncIDOf(value []byte) string {
	var fields Fields
	if json.Unmarshal(value, &fields) != nil {
		return ""
	}
	return fields.SyncID()
}
