package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"ordersync/internal/config"
	"ordersync/internal/deadletter"
	"ordersync/internal/order"
	"ordersync/internal/pod"
	"ordersync/internal/topics"
)

func (a *app) deadletterCommand() *cobra.Command {
	c := &cobra.Command{
		Use:     "deadletter",
		GroupID: "operate",
		Short:   "Look what lies in the dead-letter topic, replay it or note that nobody will",
		Long: `What cannot be applied lies in the dead-letter topic: records that are no events, and events that
arrived behind a stuck order whose queue was full. The topic itself never changes; what was done with
a letter, by whom and why, stands in the audit (operator_actions in the shop's database).

A letter is named by its place in the dead-letter topic, partition/offset.`,
		Example: `  ordersync deadletter list
  ordersync deadletter list --reason malformed-json --since 24h
  ordersync deadletter show 0/17
  ordersync deadletter replay 0/17 --value-file mended.json --why 'the ERP sent a broken quote'
  ordersync deadletter replay --order 536365
  ordersync deadletter discard --reason null-value --why 'tombstones of the old job'`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(a.deadletterListCommand(), a.deadletterShowCommand(), a.deadletterReplayCommand(), a.deadletterDiscardCommand())
	return c
}

// letterFlags choose letters.
type letterFlags struct {
	reasons, orders, topics []string
	since, until            moment
}

func (f *letterFlags) add(c *cobra.Command) {
	c.Flags().StringSliceVar(&f.reasons, "reason", nil, "only letters with this reason, such as malformed-json or order-blocked")
	c.Flags().StringArrayVar(&f.orders, "order", nil, "only letters of this order, a sync_id")
	c.Flags().StringArrayVar(&f.topics, "topic", nil, "only letters whose record came from this topic")
	c.Flags().Var(&f.since, "since", "only letters written since: 2006-01-02T15:04:05Z, or so long ago, such as 24h")
	c.Flags().Var(&f.until, "until", "only letters written before: the same forms")
}

func (f *letterFlags) any() bool {
	return len(f.reasons)+len(f.orders)+len(f.topics) > 0 || !f.since.IsZero() || !f.until.IsZero()
}

func (f *letterFlags) filter() deadletter.Filter {
	filter := deadletter.Filter{Orders: f.orders, Topics: f.topics, Since: f.since.Time, Until: f.until.Time}
	for _, reason := range f.reasons {
		filter.Reasons = append(filter.Reasons, order.Reason(reason))
	}
	return filter
}

// moment is a flag for a time: RFC 3339, a date, or a duration before now.
type moment struct{ time.Time }

func (m *moment) Type() string { return "time" }

func (m *moment) String() string {
	if m.IsZero() {
		return ""
	}
	return stamp(m.Time)
}

func (m *moment) Set(text string) (err error) {
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		m.Time = time.Now().Add(-ago).UTC()
		return nil
	}
	for _, form := range []string{time.RFC3339, time.DateOnly} {
		if m.Time, err = time.Parse(form, text); err == nil {
			return nil
		}
	}
	return fmt.Errorf("%q is no time: give one such as 2026-01-02T15:04:05Z, a day such as 2026-01-02 (UTC), or how long ago, such as 90m", text)
}

// configuredLetters is the dead-letter topic, and what closes it.
func (a *app) configuredLetters(ctx context.Context) (deadletter.Topic, func(), error) {
	cfg, err := a.config(ctx, kafkaBrokers, mysqlDSN)
	if err != nil {
		return deadletter.Topic{}, nil, err
	}
	return a.deadLetters(ctx, cfg)
}

// deadLetters is the dead-letter topic of a configuration, and what closes it.
func (a *app) deadLetters(ctx context.Context, cfg config.Config) (deadletter.Topic, func(), error) {
	shop, err := a.openShop(ctx, cfg)
	if err != nil {
		return deadletter.Topic{}, nil, err
	}
	transport := pod.KafkaTransport(cfg)
	end := func() {
		transport.CloseIdleConnections()
		_ = shop.Close() // nothing is under way
	}
	return deadletter.Topic{
		Name: cfg.Kafka.DeadLetterTopic, Target: shop, Reader: topics.Reader{Brokers: cfg.Kafka.Brokers, Transport: transport},
	}, end, nil
}

// letterView is a letter in a list.
type letterView struct {
	Place     deadletter.Place `json:"place"`
	WrittenAt time.Time        `json:"written_at"`
	Reason    order.Reason     `json:"reason"`
	Detail    string           `json:"detail"`
	// SyncID is empty where the letter does not tell its order; its record's key may then.
	SyncID string       `json:"sync_id,omitempty"`
	Source order.Source `json:"source"`
	// Bytes is the length of the record's value.
	Bytes int              `json:"bytes"`
	State deadletter.State `json:"state"`
	// Action is what made the state; absent while it is open.
	Action *order.Action `json:"action,omitempty"`
	// Problem is what is wrong with the headers of a letter that ordersync did not write.
	Problem string `json:"problem,omitempty"`

	key string
}

func viewLetter(l deadletter.Letter) letterView {
	v := letterView{
		Place: l.Place, WrittenAt: l.WrittenAt.UTC(), Reason: l.Reason, Detail: l.Detail, SyncID: l.SyncID, Source: l.Source,
		Bytes: l.Bytes, State: l.State, Action: l.Action, key: string(l.Key),
	}
	if l.Problem != nil {
		v.Problem = l.Problem.Error()
	}
	return v
}

// order is that of the letter, or in parentheses the key of its record.
func (v letterView) order() string {
	if v.SyncID == "" && v.key != "" && utf8.ValidString(v.key) {
		return "(" + shortened(v.key, order.MaxSyncID) + ")"
	}
	return v.SyncID
}

func (v letterView) origin() string {
	return fmt.Sprintf("%s/%d/%d", v.Source.Topic, v.Source.Partition, v.Source.Offset)
}

// letterCount counts the letters with a reason.
type letterCount struct {
	Reason    order.Reason `json:"reason"`
	Open      int          `json:"open"`
	Replayed  int          `json:"replayed"`
	Discarded int          `json:"discarded"`
}

type letterList struct {
	Counts  []letterCount `json:"counts"`
	Letters []letterView  `json:"letters"`
	// More tells that there are further ones.
	More bool `json:"more"`
}

// maxLetters is the most letters that are listed.
const maxLetters = 1_000_000

func (a *app) deadletterListCommand() *cobra.Command {
	var flags letterFlags
	var all bool
	var limit int
	c := &cobra.Command{
		Use:   "list",
		Short: "List dead letters, and count them by reason",
		Long: `Lists the dead letters that wait for somebody, oldest first, with --all also those that were replayed
or discarded. All that the other flags select are counted by reason and state. An order in
parentheses is the key of a record that does not tell its order itself.`,
		Example: `  ordersync deadletter list
  ordersync deadletter list --order 536365 --all
  ordersync deadletter list --reason order-blocked --topic online --since 2026-01-02 -o json`,
		Args: noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			if limit < 1 || limit > maxLetters {
				return fmt.Errorf("--limit %d: give a number from 1 to %d", limit, maxLetters)
			}
			return a.listLetters(c.Context(), flags.filter(), all, limit)
		},
	}
	flags.add(c)
	c.Flags().BoolVar(&all, "all", false, "also those that were replayed or discarded")
	c.Flags().IntVar(&limit, "limit", 100, "list so many letters at most; all are counted")
	return a.withOutput(c)
}

func (a *app) listLetters(ctx context.Context, filter deadletter.Filter, all bool, limit int) error {
	topic, end, err := a.configuredLetters(ctx)
	if err != nil {
		return err
	}
	defer end()
	bar := a.newBar("dead letters", -1, false)
	letters, err := topic.List(ctx, filter, func(done, total int64) {
		bar.resize(total)
		bar.set(done, fmt.Sprintf("%d of %d read", done, total))
	})
	bar.finish()
	if err != nil {
		return err
	}
	list := letterList{Counts: countLetters(letters), Letters: []letterView{}}
	for _, l := range letters {
		switch {
		case l.State != deadletter.Open && !all:
		case len(list.Letters) == limit:
			list.More = true
		default:
			list.Letters = append(list.Letters, viewLetter(l))
		}
	}
	return a.print(list, func(out io.Writer) error { return a.printLetters(out, list) })
}

func countLetters(letters []deadletter.Letter) []letterCount {
	byReason := map[order.Reason]*letterCount{}
	counts := []letterCount{}
	for _, l := range letters {
		n, ok := byReason[l.Reason]
		if !ok {
			n = &letterCount{Reason: l.Reason}
			byReason[l.Reason] = n
		}
		switch l.State {
		case deadletter.Replayed:
			n.Replayed++
		case deadletter.Discarded:
			n.Discarded++
		default:
			n.Open++
		}
	}
	for _, n := range byReason {
		counts = append(counts, *n)
	}
	slices.SortFunc(counts, func(x, y letterCount) int { return strings.Compare(string(x.Reason), string(y.Reason)) })
	return counts
}

func (a *app) printLetters(out io.Writer, list letterList) error {
	if len(list.Counts) == 0 {
		_, err := fmt.Fprintln(out, "no dead letter is selected")
		return err
	}
	t := newTable(out)
	t.row("REASON", "OPEN", "REPLAYED", "DISCARDED")
	for _, n := range list.Counts {
		t.row(n.Reason, n.Open, n.Replayed, n.Discarded)
	}
	if err := t.flush(); err != nil || len(list.Letters) == 0 {
		return err
	}
	fmt.Fprintln(out)
	t = newTable(out)
	t.row("PLACE", "WRITTEN AT", "REASON", "ORDER", "RECORD", "STATE", "DETAIL")
	for _, l := range list.Letters {
		t.row(l.Place, stamp(l.WrittenAt), l.Reason, l.order(), l.origin(), l.State, shortened(l.Detail, 60))
	}
	if err := t.flush(); err != nil {
		return err
	}
	if list.More {
		fmt.Fprintln(out, "… and more: raise --limit, or select some")
	}
	_, err := fmt.Fprintf(out, "\nwhat is in one: %s\n", a.hint("deadletter show "+list.Letters[0].Place.String()))
	return err
}
