package main

import (
	"fmt"
	"io"
	"math"
	"time"

	"github.com/schollz/progressbar/v3"
)

// bar shows how far a long job is: a bar on a terminal, else a line now and then.
type bar struct {
	out  io.Writer
	what string
	max  int64

	onTerminal *progressbar.ProgressBar // nil where nobody watches
	last       time.Time
	said       string
}

// plainEvery is how often a line is written where there is no bar.
const plainEvery = 5 * time.Second

// newBar makes one for size units, -1 where that is not known.
func (a *app) newBar(what string, size int64, bytes bool) *bar {
	b := &bar{out: a.stderr, what: what, max: size, last: time.Now()}
	if terminal(a.stderr) {
		b.onTerminal = progressbar.NewOptions64(size,
			progressbar.OptionSetWriter(a.stderr),
			progressbar.OptionSetDescription(what),
			progressbar.OptionSetWidth(30),
			progressbar.OptionThrottle(100*time.Millisecond),
			progressbar.OptionShowBytes(bytes),
			progressbar.OptionSetPredictTime(size > 0),
			progressbar.OptionClearOnFinish(),
			progressbar.OptionSetRenderBlankState(true),
		)
	}
	return b
}

// set shows that done units are done; detail goes with it.
func (b *bar) set(done int64, detail string) {
	if b.onTerminal != nil {
		b.onTerminal.Describe(b.what + ": " + detail)
		// It fails where the terminal does, which is not the job's affair.
		_ = b.onTerminal.Set64(min(done, max(b.onTerminal.GetMax64()-1, 0)))
		return
	}
	if time.Since(b.last) < plainEvery || detail == b.said {
		return
	}
	b.last, b.said = time.Now(), detail
	if b.max > 0 {
		detail += fmt.Sprintf(" (%d%%)", 100*min(done, b.max)/b.max)
	}
	fmt.Fprintf(b.out, "%s: %s\n", b.what, detail)
}

// resize changes the number of units.
func (b *bar) resize(size int64) {
	if b.max == size {
		return
	}
	b.max = size
	if b.onTerminal != nil {
		b.onTerminal.ChangeMax64(max(size, 1))
	}
}

// clear makes room for a line of text.
func (b *bar) clear() {
	if b.onTerminal != nil {
		_ = b.onTerminal.Clear()
	}
}

func (b *bar) finish() { b.clear() }

func rounded(x float64) float64 { return math.Round(10*x) / 10 }
