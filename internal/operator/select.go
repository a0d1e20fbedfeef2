package operator

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"ordersync/workflows"
)

// Selection is some of the stuck orders; the zero value is all of them.
type Selection struct {
	// Status is retrying or blocked; empty for both.
	Status string `json:"status,omitempty"`
	// Reason is the type of the error.
	Reason  string `json:"reason,omitempty"`
	Channel string `json:"channel,omitempty"`
	// StuckBefore leaves out what got stuck after it; zero for no such bound.
	StuckBefore time.Time `json:"stuck_before,omitzero"`
	// TaskQueue restricts it to one deployment of those that share a namespace.
	TaskQueue string `json:"task_queue,omitempty"`
}

// word is what a search attribute of ours can be: it stands in a query between quotes.
var word = regexp.MustCompile(`^[A-Za-z0-9_.-]+$`)

// Check refuses values that no stuck order can have.
func (s Selection) Check() error {
	for name, value := range map[string]string{"status": s.Status, "error": s.Reason, "channel": s.Channel} {
		if value != "" && !word.MatchString(value) {
			return fmt.Errorf("--%s %q is no word of letters, digits, dots and dashes", name, value)
		}
	}
	return nil
}

// Query finds the selection in Temporal's visibility store. A closed run keeps its search
// attributes, so it asks for running ones.
func (s Selection) Query() string {
	terms := []string{`SyncStatus IN ("retrying","blocked")`}
	if s.Status != "" {
		terms[0] = equals(workflows.SyncStatus.GetName(), s.Status)
	}
	if s.Reason != "" {
		terms = append(terms, equals(workflows.SyncError.GetName(), s.Reason))
	}
	if s.Channel != "" {
		terms = append(terms, equals(workflows.Channel.GetName(), s.Channel))
	}
	if !s.StuckBefore.IsZero() {
		terms = append(terms, workflows.StuckSince.GetName()+` <= "`+lastOf(s.StuckBefore).Format(time.RFC3339Nano)+`"`)
	}
	if s.TaskQueue != "" {
		terms = append(terms, equals("TaskQueue", s.TaskQueue))
	}
	return strings.Join(append(terms, `ExecutionStatus="Running"`), " AND ")
}

// lastOf is the last microsecond of t's millisecond. The dev server keeps its visibility in SQLite, which
// compares times as texts: what it keeps has three digits (37.930), and of what it is asked for it cuts the
// zeros (37.93). By text 37.930 is later, so the order that got stuck last was left out. With six digits
// that do not end in zero both orders agree. What the workflow compares is exact.
func lastOf(t time.Time) time.Time {
	return t.UTC().Truncate(time.Millisecond).Add(999 * time.Microsecond)
}

func equals(attribute, value string) string { return attribute + `="` + value + `"` }

// Count is how many orders are selected.
func (s Selection) Count(ctx context.Context, c client.Client) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	r, err := c.CountWorkflow(ctx, &workflowservice.CountWorkflowExecutionsRequest{Query: s.Query()})
	if err != nil {
		return 0, fmt.Errorf("count the stuck orders: %w", err)
	}
	return r.GetCount(), nil
}

// Survey is the stuck orders of a selection: how many of what, and the longest stuck ones.
type Survey struct {
	Total  int     `json:"total"`
	Groups []Group `json:"groups"`
	// Orders are the longest stuck ones, longest first.
	Orders []StuckOrder `json:"orders"`
	// More tells that Orders are not all.
	More bool `json:"more"`
	// Newest is when the last of all got stuck, by the server's clock.
	Newest time.Time `json:"newest,omitzero"`
}

// Pinned is the selection without what gets stuck after the survey of it: an order that is freed and gets
// stuck on its next event is left alone. It goes by the server's clock, in which the survey's times are.
func (s Selection) Pinned(by Survey) Selection {
	if newest := bound(by.Newest); !by.Newest.IsZero() && (s.StuckBefore.IsZero() || newest.Before(s.StuckBefore)) {
		s.StuckBefore = newest.UTC()
	}
	return s
}

// Group counts the stuck orders with the same status, reason and channel.
type Group struct {
	Status  string `json:"status"`
	Reason  string `json:"reason"`
	Channel string `json:"channel"`
	Count   int    `json:"count"`
	// Oldest is when the first of them got stuck.
	Oldest time.Time `json:"oldest"`
	// Ages counts them by how long they have been stuck: under a minute, an hour, a day, and longer.
	Ages [4]int `json:"ages"`
}

// Look surveys a selection at now. It keeps limit orders, whatever their number.
func Look(ctx context.Context, c client.Client, s Selection, limit int, now time.Time) (Survey, error) {
	survey := Survey{Groups: []Group{}, Orders: []StuckOrder{}}
	groups := map[Group]*Group{}
	err := list(ctx, c, s.Query(), pageSize, func(o StuckOrder) bool {
		survey.Total++
		key := Group{Status: o.Status, Reason: o.Reason, Channel: o.Channel}
		g, ok := groups[key]
		if !ok {
			g = &Group{Status: o.Status, Reason: o.Reason, Channel: o.Channel, Oldest: now}
			groups[key] = g
		}
		g.Count++
		if o.Since != nil {
			g.Ages[age(now.Sub(*o.Since))]++
			if o.Since.After(survey.Newest) {
				survey.Newest = o.Since.UTC()
			}
			if o.Since.Before(g.Oldest) {
				g.Oldest = *o.Since
			}
		}
		survey.Orders = append(survey.Orders, o)
		if len(survey.Orders) >= 2*limit+pageSize {
			survey.keep(limit)
		}
		return true
	})
	survey.keep(limit)
	for _, g := range groups {
		survey.Groups = append(survey.Groups, *g)
	}
	slices.SortFunc(survey.Groups, func(x, y Group) int {
		return cmp.Or(cmp.Compare(x.Status, y.Status), y.Count-x.Count, cmp.Compare(x.Reason+x.Channel, y.Reason+y.Channel))
	})
	return survey, err
}

// keep drops all but the limit longest stuck orders.
func (s *Survey) keep(limit int) {
	slices.SortStableFunc(s.Orders, func(x, y StuckOrder) int { return since(x).Compare(since(y)) })
	if len(s.Orders) > limit {
		s.Orders, s.More = s.Orders[:limit], true
	}
}

func since(o StuckOrder) time.Time {
	if o.Since == nil {
		return time.Time{}
	}
	return *o.Since
}

func age(d time.Duration) int {
	for i, bound := range []time.Duration{time.Minute, time.Hour, 24 * time.Hour} {
		if d < bound {
			return i
		}
	}
	return 3
}
