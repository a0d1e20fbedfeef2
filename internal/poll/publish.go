package poll

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"

	"ordersync/internal/erp"
	"ordersync/internal/order"
	"ordersync/internal/publish"
)

// publishTime is how long a page may take to be published, with the producer's own attempts. Its dead
// letters, written one by one, have the time that they need.
const publishTime = 2 * time.Minute

// batch is what a page comes to.
type batch struct {
	messages []kafka.Message
	// rows are those of the messages.
	rows    []erp.Row
	letters []letter
	// told are the bad rows whose letter is written, or which are in a topic, where the starter makes one of them.
	told []erp.Row
	// bad are the rows that are no events or too large, of before too.
	bad      badRows
	firstBad string
	counts   order.PollCounts
}

// letter is a dead letter and the row it tells of.
type letter struct {
	order.DeadLetter
	row erp.Row
}

// publish deals with a page. If any of it fails, the page is to be dealt with again; what was acknowledged is
// remembered, and left out then. Of an order that is its first events, by what publish.Producer promises, so
// that the rest still comes in order.
func (s *stretch) publish(ctx context.Context, page fetched) error {
	b := &batch{bad: newBadRows(s.state, page.asked)}
	if err := s.publishAll(ctx, page, b); err != nil {
		s.state.Bad, s.state.BadUntil = newBadRows(s.state, page.asked).half(b.told)
		return err
	}
	s.moved(page, b)
	return nil
}

func (s *stretch) publishAll(ctx context.Context, page fetched, b *batch) error {
	rows, err := s.sift(ctx, page, &b.counts)
	if err != nil {
		return err
	}
	topics := s.Topics
	if s.task.Backfill {
		topics = s.BackfillTopics
	}
	for _, row := range rows {
		b.add(row, topics[row.Event.Channel], page.asked)
	}
	failures, err := s.write(ctx, b.messages)
	for i, failure := range failures {
		switch row := b.rows[i]; {
		case failure != nil:
		case row.Rejected != nil:
			b.told = append(b.told, row)
		default:
			s.way().recent.add(row)
			b.counts.Published++
		}
	}
	if err != nil {
		return &order.Failure{Type: KafkaUnavailable, Err: err}
	}
	for i, failure := range failures {
		if failure != nil {
			b.refuse(b.rows[i], b.messages[i].Topic, page.asked, failure)
		}
	}
	for _, letter := range b.letters {
		if err := s.Producer.DeadLetter(ctx, letter.DeadLetter); err != nil {
			return &order.Failure{Type: KafkaUnavailable, Err: err}
		}
		b.told = append(b.told, letter.row)
	}
	return nil
}

// add finds the place of a row. One that is no event goes to the topic of its channel as it is: there
// the starter makes a dead letter of it, which can be mended and replayed from its place in Kafka. What
// has no topic goes to the dead-letter topic directly. Either happens once for each row.
func (b *batch) add(row erp.Row, topic string, asked time.Time) {
	bad := row.Rejected != nil || topic == ""
	told := (bad || b.bad.any()) && b.bad.told(row)
	if !told && ((bad || b.bad.any()) && b.bad.again(row) || bad && b.bad.forgotten(row)) {
		b.counts.Repeated++
		return
	}
	switch {
	case row.Rejected != nil:
		b.reject(row, row.Rejected.Error())
	case bad:
		b.reject(row, noTopic(row))
	case told:
		b.reject(row, string(order.ValueTooLarge))
	}
	switch {
	case told:
		return
	case topic == "":
		b.letters = append(b.letters, letter{letterOf(row, asked, noTopic(row)), row})
		return
	}
	m := kafka.Message{Topic: topic, Value: row.Value}
	if row.Event.SyncID != "" {
		m.Key = []byte(row.Event.SyncID)
	}
	b.messages, b.rows = append(b.messages, m), append(b.rows, row)
}

// refuse takes a row for a dead letter that its topic did not take.
func (b *batch) refuse(row erp.Row, topic string, asked time.Time, why error) {
	if row.Rejected == nil && b.bad.forgotten(row) {
		b.counts.Repeated++
		return
	}
	l := letterOf(row, asked, fmt.Sprintf("%d bytes are more than the topic %s takes: %v", len(row.Value), topic, why))
	if row.Rejected == nil {
		l.Reason = order.ValueTooLarge
		b.reject(row, l.Detail)
	}
	b.letters = append(b.letters, letter{l, row})
}

func (b *batch) reject(row erp.Row, why string) {
	b.counts.Rejected++
	b.bad.add(row)
	if b.firstBad == "" {
		b.firstBad = why
	}
}

// write hands back the failures of the messages, nil for one that was acknowledged. Any but that a message
// is too large is an error as well. There are none where it is not known what was acknowledged.
func (s *stretch) write(ctx context.Context, messages []kafka.Message) (publish.Errors, error) {
	if len(messages) == 0 {
		return nil, nil
	}
	turn := &s.way().turn
	turn.Lock()
	defer turn.Unlock()
	limited, cancel := context.WithTimeout(ctx, publishTime)
	defer cancel()
	err := s.Producer.Publish(limited, messages...)
	var failures publish.Errors
	switch {
	case err == nil:
		return make(publish.Errors, len(messages)), nil
	case !errors.As(err, &failures):
		return nil, err
	}
	for _, failure := range failures {
		if failure != nil && !publish.TooLarge(failure) {
			return failures, err
		}
	}
	return failures, nil
}

// moved takes a page into the state, as it is dealt with.
func (s *stretch) moved(page fetched, b *batch) {
	state := &s.state
	state.Cursor, state.More = string(page.Next), page.More
	state.Bad, state.BadUntil = b.bad.seen()
	for _, row := range page.Rows {
		if row.ChangedAt.After(state.ChangedUntil) && !row.ChangedAt.After(page.asked.Add(farAhead)) {
			state.ChangedUntil = row.ChangedAt.UTC()
		}
	}
	if !page.More {
		state.ReadUntil, state.BadBefore, state.BadBeforeUntil, state.AskAll = page.asked, nil, time.Time{}, false
	}
	if state.FirstBad == "" {
		state.FirstBad = b.firstBad
	}
	state.Pages++
	state.Read += int64(len(page.Rows))
	state.Published += b.counts.Published
	state.Known += b.counts.Known
	state.Unversioned += b.counts.Unversioned
	state.Rejected += b.counts.Rejected
	state.DeadLettered += int64(len(b.letters))
	state.Repeated += b.counts.Repeated
}
