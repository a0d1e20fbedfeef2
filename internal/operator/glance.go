package operator

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	"go.temporal.io/sdk/client"

	"ordersync/workflows"
)

// Glance is what can be told of the stuck orders at a cost that does not grow with their number.
type Glance struct {
	// Retrying and Blocked count them by channel.
	Retrying, Blocked map[string]int64
	// Oldest are for each channel some of the longest stuck ones, longest first. Where more than a page
	// of its orders is stuck, the first is so for at least 99 hundredths of the longest time.
	Oldest map[string][]StuckOrder
}

// oldestKept is how many of a channel's longest stuck orders a Glance has.
const oldestKept = 3

// TakeGlance looks at the stuck orders of a task queue. While a page holds them, that is one call.
func TakeGlance(ctx context.Context, c client.Client, taskQueue string, channels []string, now time.Time) (Glance, error) {
	return takeGlance(ctx, c, taskQueue, channels, now, pageSize)
}

func takeGlance(ctx context.Context, c client.Client, taskQueue string, channels []string, now time.Time, page int) (Glance, error) {
	g := Glance{Retrying: map[string]int64{}, Blocked: map[string]int64{}, Oldest: map[string][]StuckOrder{}}
	all := Selection{TaskQueue: taskQueue}
	orders, more, err := firstPage(ctx, c, all, page)
	if err != nil {
		return g, err
	}
	if !more {
		for _, o := range orders {
			count := g.Retrying
			if o.Status == workflows.StatusBlocked {
				count = g.Blocked
			}
			count[o.Channel]++
			g.Oldest[o.Channel] = append(g.Oldest[o.Channel], o)
		}
		for channel := range g.Oldest {
			g.Oldest[channel] = longest(g.Oldest[channel])
		}
		return g, nil
	}
	for _, channel := range channels {
		s := all
		s.Channel = channel
		for status, counts := range map[string]map[string]int64{workflows.StatusRetrying: g.Retrying, workflows.StatusBlocked: g.Blocked} {
			s.Status = status
			if counts[channel], err = s.Count(ctx, c); err != nil {
				return g, err
			}
		}
		s.Status = ""
		if g.Retrying[channel]+g.Blocked[channel] > 0 {
			if g.Oldest[channel], err = oldest(ctx, c, s, now, page); err != nil {
				return g, err
			}
		}
	}
	return g, nil
}

// oldest finds the longest stuck orders of a selection in about a dozen calls. The visibility store
// may hand orders out in no order of use, so it counts those of a certain age, and halves the ages
// between one that too many have and one that none has, until a page holds what is left.
func oldest(ctx context.Context, c client.Client, s Selection, now time.Time, page int) ([]StuckOrder, error) {
	const closeEnough = 1.01
	many, none := 1.0, (100 * 365 * 24 * time.Hour).Seconds()
	for none/many > closeEnough {
		age := math.Sqrt(many * none)
		s.StuckBefore = now.Add(-seconds(age))
		n, err := s.Count(ctx, c)
		switch {
		case err != nil:
			return nil, err
		case n == 0:
			none = age
		case n > int64(page):
			many = age
		default:
			many, none = age, age
		}
	}
	s.StuckBefore = now.Add(-seconds(many))
	orders, _, err := firstPage(ctx, c, s, page)
	return longest(orders), err
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// firstPage lists some orders of a selection, and tells whether there are more.
func firstPage(ctx context.Context, c client.Client, s Selection, page int) (orders []StuckOrder, more bool, err error) {
	err = list(ctx, c, s.Query(), page, func(o StuckOrder) bool {
		if len(orders) == page {
			more = true
			return false
		}
		orders = append(orders, o)
		return true
	})
	if err != nil {
		return nil, false, fmt.Errorf("look at the stuck orders: %w", err)
	}
	return orders, more, nil
}

func longest(orders []StuckOrder) []StuckOrder {
	slices.SortStableFunc(orders, func(x, y StuckOrder) int { return since(x).Compare(since(y)) })
	return orders[:min(len(orders), oldestKept)]
}
