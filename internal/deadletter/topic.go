package deadletter

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"

	"ordersync/internal/order"
	"ordersync/internal/target"
	"ordersync/internal/topics"
)

// Topic is the dead-letter topic, with the audit that knows what was done with its letters.
type Topic struct {
	Name   string
	Reader topics.Reader
	Target *target.Target
}

// maxValue is the largest value of a letter that is read, in bytes: as large as the topic takes messages. Letters keep
// what was too large to be an event, if only a little.
const maxValue = 16 << 20

func (t Topic) reader() topics.Reader {
	r := t.Reader
	r.MaxValue = maxValue
	return r
}

// Filter chooses letters. Conditions of different kinds must all hold, of the values of one any.
type Filter struct {
	Places  []Place
	Reasons []order.Reason
	// Orders are sync_ids. A letter that does not tell its order counts as that of its key.
	Orders []string
	// Topics are those the records came from.
	Topics []string
	// Since and Until bound the time at which the letters were written; Until is excluded.
	Since, Until time.Time
	// Ends bound the places: a letter lies before the offset that its partition has here. Nil bounds nothing.
	Ends map[int]int64
}

// UpTo bounds the filter by letters that it has chosen: it chooses none that came after them. Their times would not do, as
// a letter of the same millisecond may come later, and another process's clock may be behind.
func (f Filter) UpTo(letters []Letter) Filter {
	f.Ends = map[int]int64{}
	for _, l := range letters {
		f.Ends[l.Place.Partition] = max(f.Ends[l.Place.Partition], l.Place.Offset+1)
	}
	return f
}

func (f Filter) matches(l Letter) bool {
	return among(f.Places, l.Place) && among(f.Reasons, l.Reason) && among(f.Topics, l.Source.Topic) &&
		(among(f.Orders, l.SyncID) || l.SyncID == "" && l.Key != nil && among(f.Orders, string(l.Key))) &&
		!l.WrittenAt.Before(f.Since) && (f.Until.IsZero() || l.WrittenAt.Before(f.Until)) &&
		(f.Ends == nil || l.Place.Offset < f.Ends[l.Place.Partition])
}

// among tells whether a value is allowed: all are where none is named.
func among[T comparable](allowed []T, value T) bool {
	return len(allowed) == 0 || slices.Contains(allowed, value)
}

// stateChunk is how many letters the audit is asked for at once.
const stateChunk = 1000

// List reads the letters that a filter chooses, in the order in which they lie in the topic, without
// their values. It keeps some hundred bytes of each in memory. Progress is told how many of
// how many letters are read; it may be nil.
func (t Topic) List(ctx context.Context, f Filter, progress func(done, total int64)) ([]Letter, error) {
	return t.list(ctx, f.Since, f.matches, progress)
}

func (t Topic) list(ctx context.Context, since time.Time, choose func(Letter) bool, progress func(done, total int64)) ([]Letter, error) {
	var all []Letter
	known := 0 // letters whose state has been looked up
	err := t.scan(ctx, since, progress, func(m kafka.Message) error {
		l := read(m)
		if !choose(l) {
			return nil
		}
		l.Value = nil
		if all = append(all, l); len(all)-known < stateChunk {
			return nil
		}
		chunk := all[known:]
		known = len(all)
		return t.look(ctx, chunk)
	})
	if err != nil {
		return nil, err
	}
	return all, t.look(ctx, all[known:])
}

// scan hands every letter to take.
func (t Topic) scan(ctx context.Context, since time.Time, progress func(done, total int64), take func(kafka.Message) error) error {
	spans, err := t.Reader.Spans(ctx, t.Name, since)
	if err != nil {
		return err
	}
	var done, total int64
	for _, s := range spans {
		total += s.Len()
	}
	return t.reader().Merge(ctx, spans, func(m kafka.Message) error {
		if done++; progress != nil {
			progress(done, total)
		}
		return take(m)
	})
}

// Follow hands take the letters that have come since the last time, each with its value and with its state as
// of now. next has for each partition the offset to go on at; it is empty at first, and moved on.
func (t Topic) Follow(ctx context.Context, next map[int]int64, take func(Letter) error) error {
	spans, err := t.Reader.Spans(ctx, t.Name, time.Time{})
	if err != nil {
		return err
	}
	var chunk []Letter
	bytes := 0
	flush := func() error {
		letters := chunk
		chunk, bytes = nil, 0
		if err := t.look(ctx, letters); err != nil {
			return err
		}
		for _, l := range letters {
			if err := take(l); err != nil {
				return err
			}
		}
		return nil
	}
	for _, s := range spans {
		s.First = max(s.First, next[s.Partition])
		err := t.reader().Read(ctx, s, func(m kafka.Message) error {
			chunk, bytes = append(chunk, read(m)), bytes+len(m.Value)
			if len(chunk) < chunkLetters && bytes < chunkBytes {
				return nil
			}
			return flush()
		})
		if err == nil {
			err = flush()
		}
		if err != nil {
			return err
		}
		next[s.Partition] = s.End
	}
	return nil
}

// look sets the letters' states.
func (t Topic) look(ctx context.Context, letters []Letter) error {
	keys := make([]target.ActionKey, 0, 2*len(letters))
	for _, l := range letters {
		keys = append(keys, l.key(t.Name, actionReplay), l.key(t.Name, actionDiscard))
	}
	actions, err := t.Target.Recorded(ctx, keys)
	if err != nil {
		return err
	}
	for i, l := range letters {
		if a, ok := actions[l.key(t.Name, actionReplay)]; ok {
			letters[i].State, letters[i].Action = Replayed, &a
		} else if a, ok := actions[l.key(t.Name, actionDiscard)]; ok {
			letters[i].State, letters[i].Action = Discarded, &a
		}
	}
	return nil
}

func (l Letter) key(topic, action string) target.ActionKey {
	return target.ActionKey{SyncID: l.SyncID, ID: l.actionID(topic, action)}
}

// Get reads one letter, with its value.
func (t Topic) Get(ctx context.Context, p Place) (Letter, error) {
	spans, err := t.Reader.Spans(ctx, t.Name, time.Time{})
	if err != nil {
		return Letter{}, err
	}
	var found []Letter
	for _, s := range spans {
		if s.Partition != p.Partition || p.Offset < s.First || p.Offset >= s.End {
			continue
		}
		s.First, s.End = p.Offset, p.Offset+1
		err := t.reader().Read(ctx, s, func(m kafka.Message) error {
			found = append(found, read(m))
			return nil
		})
		if err != nil {
			return Letter{}, err
		}
	}
	if len(found) == 0 {
		return Letter{}, fmt.Errorf("topic %s has no letter at %s (any more); see ordersync deadletter list", t.Name, p)
	}
	return found[0], t.look(ctx, found)
}
