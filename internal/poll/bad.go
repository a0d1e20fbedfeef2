package poll

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
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
	switch {
	case row.Eventlike:
		return "the ERP's row would be an event without it, so no topic has it; mend it in the ERP, where a change of it is read again"
	case row.Event.Channel == "":
		return "the ERP's row tells no channel, so there is no topic for it; mend it in the ERP, where a change of it is read again"
	}
	return fmt.Sprintf("the ERP's row is of channel %q, for which KAFKA_TOPICS names no topic", row.Event.Channel)
}

// maxBad bounds the bad rows that are remembered. Of more within the overlap the oldest are forgotten, and the
// time up to which they changed is remembered instead: what is read again of that time or before counts as told.
// So no number of them is told again and again, and of those that become visible late only such a one gets
// no letter that is older than the youngest maxBad. Rows that tell no time have no such bound.
const maxBad = 1000

// badRows are the rows that have a dead letter already. The state of the poll is the only place where they are
// remembered, also between the attempts at a page that fails half way.
type badRows struct {
	// known are their digests, those of the poll before too, and whether now has them.
	known map[string]bool
	// begun are those of an attempt at the page under way.
	begun map[string]bool
	// now are those of this poll, in the order in which they came. The next one remembers no others:
	// what this one has not read again is out of its reach.
	now []badRow
	// until is the time up to which this poll has forgotten some, before that of the poll before.
	until, before time.Time
	// knownUntil and asked are what readBefore goes by.
	knownUntil, asked time.Time
}

// badRow is written as its digest and the time of its change, if it has one, behind a mark if it is of a page that is
// not through.
type badRow struct {
	digest string
	at     time.Time
	begun  bool
}

// begunMark is no character of a digest.
const begunMark = "!"

func (r badRow) String() string {
	text := r.digest
	if !r.at.IsZero() {
		text += "/" + strconv.FormatInt(r.at.UnixMicro(), 36)
	}
	if r.begun {
		text = begunMark + text
	}
	return text
}

func parseBadRow(text string) badRow {
	text, begun := strings.CutPrefix(text, begunMark)
	digest, at, _ := strings.Cut(text, "/")
	micros, err := strconv.ParseInt(at, 36, 64)
	if err != nil {
		return badRow{digest: digest, begun: begun}
	}
	return badRow{digest, time.UnixMicro(micros).UTC(), begun}
}

func newBadRows(state order.PollState, asked time.Time) badRows {
	b := badRows{
		known: make(map[string]bool, len(state.Bad)+len(state.BadBefore)), begun: map[string]bool{},
		until: state.BadUntil, before: state.BadBeforeUntil, knownUntil: state.KnownUntil, asked: asked,
	}
	for _, text := range state.BadBefore {
		b.known[parseBadRow(text).digest] = false
	}
	for _, text := range state.Bad {
		row := parseBadRow(text)
		if row.begun {
			b.begun[row.digest] = true
			row.begun = false
		}
		b.now, b.known[row.digest] = append(b.now, row), true
	}
	return b
}

// told reports whether an attempt at the page under way has seen to the letter of a row, which is then no more than
// this page's.
func (b *badRows) told(row erp.Row) bool {
	digest := badDigest(row)
	told := b.begun[digest]
	delete(b.begun, digest)
	return told
}

// half takes the rows of a page into a state that has their letters and not the page.
func (b badRows) half(told []erp.Row) ([]string, time.Time) {
	for _, row := range told {
		if digest := badDigest(row); !b.known[digest] {
			b.now, b.known[digest] = append(b.now, badRow{digest: digest, at: row.ChangedAt}), true
		}
		b.begun[badDigest(row)] = true
	}
	for i := range b.now {
		b.now[i].begun = b.begun[b.now[i].digest]
	}
	return b.seen()
}

func (b *badRows) any() bool { return len(b.known) > 0 }

// again tells whether a row has its letter, and remembers it further if so.
func (b *badRows) again(row erp.Row) bool {
	if _, ok := b.known[badDigest(row)]; !ok {
		return false
	}
	b.add(row)
	return true
}

// forgotten tells whether a row that is bad has its letter by its time, and remembers it further if so.
func (b *badRows) forgotten(row erp.Row) bool {
	if row.ChangedAt.IsZero() || row.ChangedAt.After(b.before) || !readBefore(row, b.knownUntil, b.asked) {
		return false
	}
	b.add(row)
	return true
}

func (b *badRows) add(row erp.Row) {
	d := badDigest(row)
	if !b.known[d] {
		b.now, b.known[d] = append(b.now, badRow{digest: d, at: row.ChangedAt}), true
	}
}

// seen are those that the state remembers, and the time up to which it does not.
func (b *badRows) seen() ([]string, time.Time) {
	forgotten := max(0, len(b.now)-maxBad)
	until := b.until
	for _, row := range b.now[:forgotten] {
		if row.at.After(until) {
			until = row.at.UTC()
		}
	}
	var all []string
	for _, row := range b.now[forgotten:] {
		all = append(all, row.String())
	}
	return all, until
}

// badDigest is the same for the same row read again.
func badDigest(row erp.Row) string {
	sum := sha256.Sum256(append([]byte(string(row.Event.Channel)+"\x00"), row.Value...))
	return base64.RawURLEncoding.EncodeToString(sum[:9])
}
