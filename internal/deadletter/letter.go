// Package deadletter is what people do with the dead-letter topic: look what lies there, send a
// letter's event on its way again, or note that nobody will.
//
//	dead-letter topic ──> Letter ──┬─ open ──Replay──> replayed ──> intake.Sender ──> Temporal
//	                               └─ open ──Discard─> discarded
//
// The topic itself never changes. Whether a letter is dealt with stands in the audit of the target,
// operator_actions, under an id that is made of the letter's place: so whoever did it and why stands
// there too, and doing it twice is doing it once.
//
// What a replay holds to:
//   - An event keeps the coordinates of the record it was read from, and with them its identity. The
//     ledger then applies it once, however often it is sent.
//   - The letters of an order are sent in the order in which they lie in the topic. Those that found
//     the queue of a stuck order full are sent for the order as a whole: each was followed by the next.
//   - An event without a version, which goes by its arrival, is refused where the order has applied
//     one that arrived after it: the older data would come back.
package deadletter

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/segmentio/kafka-go"

	"ordersync/internal/order"
	"ordersync/internal/publish"
)

// Place is where a letter lies in the dead-letter topic. It is its name.
type Place struct {
	Partition int
	Offset    int64
}

func (p Place) String() string { return fmt.Sprintf("%d/%d", p.Partition, p.Offset) }

// MarshalText implements encoding.TextMarshaler.
func (p Place) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (p *Place) UnmarshalText(text []byte) (err error) {
	*p, err = ParsePlace(string(text), "")
	return err
}

// ParsePlace reads partition/offset, or topic/partition/offset with the name of the dead-letter topic.
func ParsePlace(text, topic string) (Place, error) {
	parts := strings.Split(text, "/")
	if len(parts) == 3 && parts[0] == topic {
		parts = parts[1:]
	} else if len(parts) == 3 {
		return Place{}, fmt.Errorf("%s is no place in the dead-letter topic %s: a letter is named by where it lies there, partition/offset; the list shows that beside the place its record came from", text, topic)
	}
	if len(parts) == 2 {
		partition, err1 := strconv.ParseInt(parts[0], 10, 32)
		offset, err2 := strconv.ParseInt(parts[1], 10, 64)
		if err1 == nil && err2 == nil && partition >= 0 && offset >= 0 {
			return Place{int(partition), offset}, nil
		}
	}
	return Place{}, fmt.Errorf("%q names no letter: give its place in the dead-letter topic, partition/offset such as 0/17", text)
}

// State is what has been done with a letter.
type State string

// The states of a letter. Replayed is final; a discarded one may still be replayed.
const (
	Open      State = "open"
	Replayed  State = "replayed"
	Discarded State = "discarded"
)

// Letter is a dead letter and what was done with it.
type Letter struct {
	Place     Place
	WrittenAt time.Time
	publish.Letter
	// Bytes is the length of the value, also where the letter is listed without it or its record's
	// value was too large to keep.
	Bytes   int
	Headers []kafka.Header
	// Problem is what is wrong with the headers of a letter that somebody else wrote; nil if nothing is.
	Problem error

	State State
	// Action is what made it so; nil while it is open.
	Action *order.Action
}

func read(m kafka.Message) Letter {
	l := Letter{Place: Place{m.Partition, m.Offset}, WrittenAt: m.Time, Bytes: len(m.Value), Headers: m.Headers, State: Open}
	l.Letter, l.Problem = publish.ReadLetter(m)
	if !l.Kept() {
		l.Bytes = l.Size
	}
	return l
}

// Origin is where the letter's record stands, or stood.
func (l Letter) Origin() string {
	return fmt.Sprintf("%s/%d/%d", l.Source.Topic, l.Source.Partition, l.Source.Offset)
}

// The names of actions in the audit.
const (
	actionReplay  = "replay"
	actionDiscard = "discard"
)

// namespace is the UUIDv5 namespace of what is done with letters.
var namespace = uuid.MustParse("0f6e6a0e-30c7-5d3b-8a35-0b6c2f0b7f7d")

// actionID is the same for the same action on the same letter. The timestamp tells a dead-letter topic
// that was made anew from the old one.
func (l Letter) actionID(topic string, action ...string) uuid.UUID {
	return uuid.NewSHA1(namespace, fmt.Appendf(nil, "%s\x00%s\x00%d\x00%s", topic, l.Place, l.WrittenAt.UnixMilli(), strings.Join(action, "\x00")))
}
