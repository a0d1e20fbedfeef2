// Package simulate makes the events of a retailer's orders, the same for the same seed, and says
// what they must come to: a naive model of the target that knows nothing of the pipeline. The
// command's simulate, the end-to-end tests and the benchmark share it.
package simulate

import (
	"container/heap"
	"encoding/json"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"ordersync/internal/order"
)

// MaxOrders is the most orders one seed can make: each seed has a block of that many sync_ids.
const MaxOrders = 10_000_000

// blocks is the number of sync_id blocks; seeds that are equal modulo it make the same sync_ids.
const blocks = 1_000_000

// maxUpdates is the most updates an order gets where their number is drawn.
const maxUpdates = 4

// Options of a simulation. The zero value is the ordinary mix.
type Options struct {
	// Updates is the exact number of updates of every order. nil draws 0 to 4 for each.
	Updates *int
	// Start is when the first order is placed; the zero time is 2010-12-01T08:00:00Z, where the
	// sample data begins too.
	Start time.Time
}

// Orders yields the events of n orders as they would happen: orders overlap in time, each order's
// events keep their order, occurred_at never goes back. Only the orders that are under way at
// one moment, some hundred, are held in memory. An event's Source is empty.
//
// n above MaxOrders is cut off there.
func Orders(seed uint64, n int, o Options) iter.Seq[order.Event] {
	n = min(n, MaxOrders)
	return func(yield func(order.Event) bool) {
		arrivals := rand.New(rand.NewPCG(seed, 0))
		at := o.Start.UTC()
		if o.Start.IsZero() {
			at = time.Date(2010, 12, 1, 8, 0, 0, 0, time.UTC)
		}
		var open agenda
		for i := 0; i < n || len(open) > 0; {
			if i < n && (len(open) == 0 || !open[0].next.Before(at)) {
				heap.Push(&open, place(seed, i, at, o))
				i++
				at = at.Add(between(arrivals, meanGap))
				continue
			}
			if !yield(open[0].event()) {
				return
			}
			if open[0].finished() {
				heap.Pop(&open)
			} else {
				heap.Fix(&open, 0)
			}
		}
	}
}

// Times between things, in the mean. With these some 150 orders are under way at once.
const (
	meanGap     = 20 * time.Second // between two orders of the shop
	meanUpdate  = 8 * time.Minute  // between two events of an order
	meanInvoice = 30 * time.Minute // from the last change to the invoice
)

// between draws a waiting time around mean, of at least a second.
func between(r *rand.Rand, mean time.Duration) time.Duration {
	return (time.Second + time.Duration(r.ExpFloat64()*float64(mean-time.Second))).Round(time.Second)
}

// sale is an order under way.
type sale struct {
	rand    *rand.Rand
	index   int // place among the seed's orders; breaks ties, so that the sequence is fixed
	seed    uint64
	syncID  int64
	channel order.Channel
	next    time.Time // when its next event happens
	kind    order.Kind
	version int64
	updates int // still to come
	done    bool

	content content
	unshown int // lines of the basket that have yet to be ordered
	basket  []line
}

// content is an order's data: all of it, in every creation and update.
type content struct {
	Customer string `json:"customer,omitempty"`
	Country  string `json:"country"`
	Lines    []line `json:"lines"`
	Note     string `json:"note,omitempty"`
}

type line struct {
	SKU   string `json:"sku"`
	Name  string `json:"name"`
	Qty   int    `json:"qty"`
	Price cents  `json:"price"`
}

type invoice struct {
	Number   string `json:"invoice_no"`
	Total    cents  `json:"total"`
	Currency string `json:"currency"`
}

// cents is an amount that JSON shows with its point.
type cents int64

func (c cents) MarshalJSON() ([]byte, error) {
	sign := ""
	if c < 0 {
		sign, c = "-", -c
	}
	return fmt.Appendf(nil, "%s%d.%02d", sign, c/100, c%100), nil
}

// place makes order number i of the seed. Each order has random numbers of its own, so that it
// does not depend on how many others there are.
func place(seed uint64, i int, at time.Time, o Options) *sale {
	r := rand.New(rand.NewPCG(seed, uint64(i)+1))
	block := seed % blocks
	if block == 0 {
		block = blocks
	}
	s := &sale{
		rand: r, index: i, seed: seed, syncID: int64(block)*MaxOrders + int64(i) + 1,
		next: at, kind: order.Creation, version: 1,
	}
	s.updates = s.drawUpdates(o)
	s.channel, s.content.Country = s.drawChannel()
	if s.channel != order.Store {
		s.content.Customer = strconv.Itoa(12000 + r.IntN(6500))
	}
	s.basket = make([]line, s.drawSize())
	for i := range s.basket {
		s.basket[i] = drawLine(r)
	}
	s.unshown = r.IntN(len(s.basket))
	if s.updates == 0 {
		s.unshown = 0
	}
	return s
}

func (s *sale) drawUpdates(o Options) int {
	if o.Updates != nil {
		return max(0, *o.Updates)
	}
	// Of 100 orders so many have 0, 1, 2, 3 and 4 updates.
	weights := [maxUpdates + 1]int{30, 45, 15, 7, 3}
	n := s.rand.IntN(100)
	for updates, weight := range weights {
		if n -= weight; n < 0 {
			return updates
		}
	}
	return maxUpdates
}

// drawChannel follows the sample: 86 % online, 9 % store, 5 % international.
func (s *sale) drawChannel() (order.Channel, string) {
	switch n := s.rand.IntN(100); {
	case n < 86:
		return order.Online, home
	case n < 95:
		return order.Store, home
	default:
		return order.International, countries[s.rand.IntN(len(countries))]
	}
}

// maxLines is the most lines an order has, about that of the sample.
const maxLines = 600

// drawSize is the number of lines of an order: half of them have up to 8, one in a hundred more
// than a hundred.
func (s *sale) drawSize() int {
	const median, spread = 8, 1.1
	lines := math.Exp(math.Log(median) + spread*s.rand.NormFloat64())
	return max(1, min(maxLines, int(lines)))
}

func drawLine(r *rand.Rand) line {
	c, m, t := r.IntN(len(colours)), r.IntN(len(materials)), r.IntN(len(things))
	return line{
		SKU:   strconv.Itoa(20000 + (c*len(materials)+m)*len(things) + t),
		Name:  colours[c] + " " + materials[m] + " " + things[t],
		Qty:   1 + int(r.ExpFloat64()*8),
		Price: cents(35 + 10*((c+3*m+7*t)%130)),
	}
}

// finished tells that the order's invoice is out.
func (s *sale) finished() bool { return s.done }

// event is the order's next event; the order then moves on to the one after it.
func (s *sale) event() order.Event {
	switch s.kind {
	case order.Creation:
		s.content.Lines = s.basket[:len(s.basket)-s.unshown]
	case order.Update:
		s.change()
	}
	e := order.Event{
		SyncID: strconv.FormatInt(s.syncID, 10), Kind: s.kind, Version: s.version,
		OccurredAt: s.next, Channel: s.channel, Data: s.data(),
		ID: uuid.NewSHA1(namespace, fmt.Appendf(nil, "%d/%d/%d/%s", s.seed, s.syncID, s.version, s.kind)),
	}
	if e.Kind == order.Invoice { // as Decode does
		e.Digest = order.MeaningOf(e.Data).Digest()
	}
	s.advance()
	return e
}

// namespace is the UUIDv5 namespace of simulated events.
var namespace = uuid.MustParse("8f1d3d0c-4a0e-5a6b-9d57-2f6f0c1b7e34")

// advance decides what comes next, and when.
func (s *sale) advance() {
	switch {
	case s.kind == order.Invoice:
		s.done = true
		return
	case s.updates > 0:
		s.updates--
		s.kind = order.Update
		s.next = s.next.Add(between(s.rand, meanUpdate))
	default:
		s.kind = order.Invoice
		s.next = s.next.Add(between(s.rand, meanInvoice))
	}
	// The ERP sometimes takes a version for itself, so there are gaps.
	s.version++
	if s.rand.IntN(20) == 0 {
		s.version += 1 + s.rand.Int64N(3)
	}
}

// change is what an update does to the order: the rest of the basket is ordered, a quantity is
// changed, a line cancelled or a note left. The lines are copied, as those of earlier events
// may still be in use.
func (s *sale) change() {
	lines := slices.Clone(s.content.Lines)
	if s.unshown > 0 {
		add := s.unshown
		if s.updates > 0 {
			add = 1 + s.rand.IntN(s.unshown)
		}
		from := len(s.basket) - s.unshown
		lines = append(lines, s.basket[from:from+add]...)
		s.unshown -= add
	}
	at := s.rand.IntN(len(lines))
	switch s.rand.IntN(4) {
	case 0:
		lines[at].Qty += 1 + s.rand.IntN(12)
	case 1:
		if len(lines) > 1 {
			lines = slices.Delete(lines, at, at+1)
		}
	case 2:
		s.content.Note = notes[s.rand.IntN(len(notes))]
	}
	s.content.Lines = lines
}

func (s *sale) data() json.RawMessage {
	var v any = s.content
	if s.kind == order.Invoice {
		bill := invoice{Number: fmt.Sprintf("INV-%d", s.syncID), Currency: "GBP"}
		for _, l := range s.content.Lines {
			bill.Total += l.Price * cents(l.Qty)
		}
		v = bill
	}
	data, err := json.Marshal(v)
	if err != nil {
		panic(fmt.Sprintf("simulate: order data does not encode: %v", err)) // plain structs: cannot be
	}
	return data
}

// agenda is a heap of the orders under way, the one whose turn it is first.
type agenda []*sale

func (a agenda) Len() int { return len(a) }
func (a agenda) Less(i, j int) bool {
	if !a[i].next.Equal(a[j].next) {
		return a[i].next.Before(a[j].next)
	}
	return a[i].index < a[j].index
}
func (a agenda) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any)   { *a = append(*a, x.(*sale)) }
func (a *agenda) Pop() any {
	last := len(*a) - 1
	s := (*a)[last]
	(*a)[last] = nil
	*a = (*a)[:last]
	return s
}
