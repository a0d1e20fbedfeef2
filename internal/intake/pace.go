package intake

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/time/rate"
)

const (
	// slowCall is how long a call to Temporal takes when the servers have no time to spare; some 10 ms
	// are usual.
	slowCall = 100 * time.Millisecond
	// slowPart of the calls within paceWindow, one in so many, make it slower.
	slowPart   = 10
	paceWindow = time.Second
	// paceLeast and paceStep are parts of the highest rate: what is left at the least, and what comes
	// back in a window.
	paceLeast, paceStep = 10, 10
)

// pace limits the rate of backfills. It gives way: servers that are busy answer slowly, and whatever a
// backfill adds is then felt most by new orders, which wait behind it. So while more than a tenth of
// all calls are slow the rate halves every second, down to a tenth; after that it comes back, by a
// tenth a second.
type pace struct {
	*rate.Limiter
	most rate.Limit
	show prometheus.Gauge

	mu          sync.Mutex
	since       time.Time // begin of the window
	calls, slow int       // within it
}

// newPace limits to so many records a second, of which a fiftieth may come at once: new orders would
// feel more.
func newPace(perSecond int, show prometheus.Gauge) *pace {
	show.Set(float64(perSecond))
	return &pace{
		Limiter: rate.NewLimiter(rate.Limit(perSecond), max(1, perSecond/50)), most: rate.Limit(perSecond), show: show, since: time.Now(),
	}
}

// called notes how long a call took, whichever it was.
func (p *pace) called(took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.calls++
	if took > slowCall {
		p.slow++
	}
	now := time.Now()
	if now.Sub(p.since) < paceWindow {
		return
	}
	limit := min(p.most, p.Limit()+p.most/paceStep)
	if p.slow*slowPart > p.calls {
		limit = max(p.most/paceLeast, p.Limit()/2)
	}
	p.SetLimit(limit)
	p.show.Set(float64(limit))
	p.since, p.calls, p.slow = now, 0, 0
}
