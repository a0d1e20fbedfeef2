package erp

import "time"

// restLimit is how long a rest is worth something: no longer than a page takes to be published.
const restLimit = 30 * time.Second

// rest is what the last page read and did not hand out: of several queries, each is read as far as a
// page may need. The request that goes on from there gets it, so that no row is read twice.
type rest struct {
	next    Cursor
	until   time.Time
	at      time.Time
	streams []*stream
}

func (s *sqlSource) keep(next Cursor, r Request, streams []*stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rest = rest{next: next, until: r.Until, at: time.Now(), streams: streams}
}

// take is the rest that belongs to a request, or nil. It is nobody else's from then on.
func (s *sqlSource) take(r Request) []*stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	kept := s.rest
	s.rest = rest{}
	if kept.streams == nil || kept.next != r.After || !kept.until.Equal(r.Until) || time.Since(kept.at) > restLimit {
		return nil
	}
	for _, st := range kept.streams {
		st.ended = false // there may be more by now
	}
	return kept.streams
}
