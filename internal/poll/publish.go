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
	"ordersync/internal/target"
)

// publishTime is how long a page may take to be published, with the producer's own attempts. Its dead
// letters, written one by one, have the time that they need.
const publishTime = 2 * time.Minute

// batch is what a page comes to.
type batch struct {
	messages []kafka.Message
	// rows are those of the messages.
	rows    []erp.Row
	letters []order.DeadLetter
	// bad are the rows that are no events or too large, of before too.
	bad      badRows
	firstBad string
	counts   order.PollCounts
}

// publish deals with a page. If any of it fails, all of it is to be done again.
func (s *stretch) publish(ctx context.Context, page fetched) error {
	b := &batch{bad: newBadRows(s.state, page.asked)}
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
	refused, err := s.write(ctx, b.messages)
	if err != nil {
		return &order.Failure{Type: KafkaUnavailable, Err: err}
	}
	for i, row := range b.rows {
		if why := refused[i]; why != nil {
			b.refuse(row, b.messages[i].Topic, page.asked, why)
		} else if row.Rejected == nil {
			b.counts.Published++
		}
	}
	for _, letter := range b.letters {
		if err := s.Producer.DeadLetter(ctx, letter); err != nil {
			return &order.Failure{Type: KafkaUnavailable, Err: err}
		}
	}
	for i, row := range b.rows {
		// What a backfill has published waits at its rate, also where it is so young that no poll has read it.
		if row.Rejected == nil && refused[i] == nil && !s.task.Backfill {
			s.recent.add(target.EventKey{SyncID: row.Event.SyncID, ID: row.Event.ID})
		}
	}
	s.moved(page, b)
	return nil
}

// add finds the place of a row. One that is no event goes to the topic of its channel as it is: there
// the starter makes a dead letter of it, which can be mended and replayed from its place in Kafka. What
// has no topic goes to the dead-letter topic directly. Either happens once for each row.
func (b *batch) add(row erp.Row, topic string, asked time.Time) {
	bad := row.Rejected != nil || topic == ""
	if (bad || b.bad.any()) && b.bad.again(row) || bad && b.bad.forgotten(row) {
		b.counts.Repeated++
		return
	}
	if row.Rejected != nil {
		b.reject(row, row.Rejected.Error())
	}
	if topic == "" {
		letter := letterOf(row, asked, noTopic(row))
		if row.Rejected == nil {
			b.reject(row, letter.Detail)
		}
		b.letters = append(b.letters, letter)
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
	letter := letterOf(row, asked, fmt.Sprintf("%d bytes are more than the topic %s takes: %v", len(row.Value), topic, why))
	if row.Rejected == nil {
		letter.Reason = order.ValueTooLarge
		b.reject(row, letter.Detail)
	}
	b.letters = append(b.letters, letter)
}

func (b *batch) reject(row erp.Row, why string) {
	b.counts.Rejected++
	b.bad.add(row)
	if b.firstBad == "" {
		b.firstBad = why
	}
}

// write hands back what the brokers refuse for its size, by the index of the message; any other failure
// is an error.
func (s *stretch) write(ctx context.Context, messages []kafka.Message) (map[int]error, error) {
	if len(messages) == 0 {
		return nil, nil
	}
	turn := &s.polling
	if s.task.Backfill {
		turn = &s.backfilling
	}
	turn.Lock()
	defer turn.Unlock()
	limited, cancel := context.WithTimeout(ctx, publishTime)
	defer cancel()
	err := s.Producer.Publish(limited, messages...)
	var each publish.Errors
	if !errors.As(err, &each) {
		return nil, err
	}
	refused := map[int]error{}
	for i, failure := range each {
		switch {
		case publish.TooLarge(failure):
			refused[i] = failure
		case failure != nil:
			return nil, err
		}
	}
	return refused, nil
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
		state.ReadUntil, state.BadBefore, state.BadBeforeUntil = page.asked, nil, time.Time{}
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
