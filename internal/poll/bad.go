package poll

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"time"

	"ordersync/internal/erp"
	"ordersync/internal/order"
)

func letterOf(row erp.Row, asked time.Time, detail string) order.DeadLetter {
	letter := order.DeadLetter{
		Source: order.Source{Topic: order.ERPRow, ReceivedAt: asked}, Value: row.Value, Reason: order.InvalidField, Detail: detail,
	}
	if row.Event.SyncID != "" {
		letter.Key = []byte(row.Event.SyncID)
	}
	if row.Rejected != nil {
		letter.Reason, letter.Detail = row.Rejected.Reason, row.Rejected.Detail+"; "+detail
	}
	if !row.ChangedAt.IsZero() {
		letter.Detail += "; changed in the ERP at " + row.ChangedAt.UTC().Format(time.RFC3339Nano)
	}
	return letter
}

func noTopic(row erp.Row) string {
	if row.Event.Channel == "" {
		return "the ERP's row tells no channel, so there is no topic for it; mend it in the ERP, where a change of it is read again"
	}
	return fmt.Sprintf("the ERP's row is of channel %q, for which KAFKA_TOPICS names no topic", row.Event.Channel)
}

// maxBad bounds the bad rows that are remembered. The oldest are forgotten, and get a second letter if
// they are read again.
const maxBad = 1000

// badRows are the rows that have a dead letter already, by their digests.
type badRows struct {
	known map[string]bool // those of the poll before too
	// now are those of this poll, in the order in which they came. The next one remembers no others:
	// what this one has not read again is out of its reach.
	now []string
}

func newBadRows(state order.PollState) badRows {
	b := badRows{now: slices.Clone(state.Bad)}
	if n := len(state.Bad) + len(state.BadBefore); n > 0 {
		b.known = make(map[string]bool, n)
	}
	for _, all := range [][]string{state.Bad, state.BadBefore} {
		for _, d := range all {
			b.known[d] = true
		}
	}
	return b
}

func (b *badRows) any() bool { return len(b.known) > 0 }

// again tells whether a row has its letter, and remembers it further if so.
func (b *badRows) again(row erp.Row) bool {
	d := badDigest(row)
	if !b.known[d] {
		return false
	}
	if !slices.Contains(b.now, d) {
		b.now = append(b.now, d)
	}
	return true
}

func (b *badRows) add(row erp.Row) {
	if b.known == nil {
		b.known = map[string]bool{}
	}
	d := badDigest(row)
	b.known[d] = true
	b.now = append(b.now, d)
}

func (b *badRows) seen() []string { return b.now[max(0, len(b.now)-maxBad):] }

// badDigest is the same for the same row read again.
func badDigest(row erp.Row) string {
	sum := sha256.Sum256(append([]byte(string(row.Event.Channel)+"\x00"), row.Value...))
	return base64.RawURLEncoding.EncodeToString(sum[:9])
}
