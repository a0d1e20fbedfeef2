// Package order holds the event of an order and the rules that belong to it alone: what a
// Kafka record must look like to be one, which event it is (its identity), and the words for
// its kind, its outcome and the order's status. It imports the standard library and uuid only,
// so every other package can speak of orders without speaking of Kafka, Temporal or MySQL.
package order

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"time"

	"github.com/google/uuid"
)

// Kind is what an event does to its order. The values are those of the ERP's messages.
type Kind string

// The three kinds, in the order in which they follow each other in an order's life.
const (
	Creation Kind = "order_creation"
	Update   Kind = "order_updation"
	Invoice  Kind = "invoice_creation"
)

// Kinds lists every kind in the order in which ties between equal versions are broken.
var Kinds = []Kind{Creation, Update, Invoice}

// Rank is the kind's place among events of the same version: a creation goes before an
// update, an update before an invoice. An unknown kind ranks last.
func (k Kind) Rank() int {
	for i, known := range Kinds {
		if k == known {
			return i
		}
	}
	return len(Kinds)
}

// Channel is where the order was placed: online, store or international. A record's topic
// decides it.
type Channel string

// The channels of a retailer, which are also the default names of their topics.
const (
	Online        Channel = "online"
	Store         Channel = "store"
	International Channel = "international"
)

// Channels lists every channel.
var Channels = []Channel{Online, Store, International}

// Source is the place in Kafka an event was read from.
type Source struct {
	Topic     string `json:"topic"`
	Partition int    `json:"partition"`
	Offset    int64  `json:"offset"`
	// ReceivedAt is the record's timestamp as the broker hands it out, in UTC with millisecond
	// precision and within the range of a MySQL DATETIME.
	ReceivedAt time.Time `json:"received_at"`
}

// Event is one step of one order, decoded and identified. Its JSON form is what travels in
// Temporal payloads.
type Event struct {
	SyncID string    `json:"sync_id"`
	ID     uuid.UUID `json:"event_id"`
	Kind   Kind      `json:"event"`
	// Version is the ERP's own version of the order, 1 or more; 0 means the event has none and
	// goes by its arrival.
	Version int64           `json:"version,omitempty"`
	Data    json.RawMessage `json:"data"`
	// Digest stands for the meaning of the data as it came, in 32 hex digits. An amendment replaces Data and
	// leaves Digest. Invoices have one, and events without a version, which nothing else tells apart. Events
	// from before there were digests have none.
	Digest string `json:"digest,omitempty"`
	// OccurredAt is the ERP's time, or the record's timestamp where the ERP names none. UTC.
	OccurredAt time.Time `json:"occurred_at"`
	Channel    Channel   `json:"channel"`
	Source     Source    `json:"source"`
}

// Versioned tells whether the ERP gave the event a version.
func (e Event) Versioned() bool { return e.Version > 0 }

// SameAs returns whether e is a further delivery of the event of the same identity that has this kind,
// version and digest. If not, the ERP gave two events one event_id, and neither must take the place of the
// other without a trace.
//
// Data counts only where neither has a version: an ERP that is asked for an order's creation again shows the
// order as it is by now. A digest that is empty is not known, and differs from none.
func (e Event) SameAs(kind Kind, version int64, digest string) bool {
	switch {
	case e.Kind != kind, e.Version != version:
		return false
	case e.Versioned(), e.Digest == "", digest == "":
		return true
	default:
		return e.Digest == digest
	}
}

// ConflictDetail says for people that e bears the identity of another event, which other names.
func (e Event) ConflictDetail(other string) string {
	if other == e.Name() {
		return fmt.Sprintf("event_id %s is that of another %s of this order with other data; every event needs an event_id of its own", e.ID, other)
	}
	return fmt.Sprintf("event_id %s of this %s is that of the order's %s; every event needs an event_id of its own", e.ID, e.Name(), other)
}

// Check tells what keeps an event that came by another way than Decode from being an event of the
// order syncID.
func (e Event) Check(syncID string) error {
	switch {
	case e.SyncID != syncID:
		return fmt.Errorf("event %s is of order %q", e.ID, e.SyncID)
	case e.ID == uuid.Nil:
		return errors.New("an event has no event_id")
	case e.Kind.Rank() == len(Kinds):
		return fmt.Errorf("event %s has the unknown kind %q", e.ID, e.Kind)
	case e.Version < 0:
		return fmt.Errorf("event %s has version %d", e.ID, e.Version)
	case absent(e.Data):
		return fmt.Errorf("event %s has no data", e.ID)
	case e.Digest != "" && !digestForm.MatchString(e.Digest):
		return fmt.Errorf("event %s has the digest %q, which is not 32 hex digits", e.ID, clip([]byte(e.Digest)))
	case e.OccurredAt != ClampTime(e.OccurredAt), e.Source.ReceivedAt != ClampTime(e.Source.ReceivedAt):
		return fmt.Errorf("event %s lacks occurred_at or source.received_at", e.ID)
	}
	return nil
}

// digestForm matches a digest.
var digestForm = regexp.MustCompile(`^[0-9a-f]{32}$`)

// Name is the event for people, as NameOf.
func (e Event) Name() string { return NameOf(e.Kind, e.Version) }

// NameOf is an event for people: its kind, and its version if it has one ("order_updation v2").
func NameOf(kind Kind, version int64) string {
	if version <= 0 {
		return string(kind)
	}
	return fmt.Sprintf("%s v%d", kind, version)
}

// overhead is a generous bound, in bytes, of an encoded event without its data: a sync_id and a
// topic of at most 64 and 249 bytes (the former twice that when JSON escapes it), a UUID, two
// times, numbers and field names.
const overhead = 768

// Size is an upper bound of the bytes the event takes in a payload. All limits on calls,
// queues and carried state are counted in it.
func (e Event) Size() int { return len(e.Data) + overhead }

// Step is one event on its way to the target.
type Step struct {
	Event Event `json:"event"`
	// InsertMissing lets an update of an order the target lacks be applied as an insert. Without
	// it the target answers Missing. A creation always inserts, an invoice never does.
	InsertMissing bool `json:"insert_missing,omitempty"`
}

// Outcome is what became of an event in the target.
type Outcome string

// The outcomes. Applied, Stale and Skipped are final and stand in the ledger. Missing is the
// target's answer that it lacks the order the step needs. Conflict is its answer that the ledger has
// another event of this identity. After the last two nothing was written.
const (
	Applied  Outcome = "applied"
	Stale    Outcome = "stale"
	Skipped  Outcome = "skipped"
	Missing  Outcome = "missing"
	Conflict Outcome = "conflict"
)

// Status is an order's status in the target; empty where the target lacks the order.
type Status string

// The statuses of a row in orders.
const (
	Open     Status = "open"
	Invoiced Status = "invoiced"
)

// Result is the target's answer to one step.
type Result struct {
	Outcome Outcome `json:"outcome"`
	// Status is the order's status in the target after the step; empty if it lacks the order.
	Status Status `json:"status,omitempty"`
	// Duplicate tells that the ledger already had the event: Outcome is then the recorded one,
	// and this delivery changed nothing.
	Duplicate bool `json:"duplicate,omitempty"`
	// Recorded names the event in the ledger that has the step's identity ("order_creation v1"). It is set
	// with the outcome Conflict only.
	Recorded string `json:"recorded,omitempty"`
}
