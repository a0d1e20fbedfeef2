package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"ordersync/internal/config"
	"ordersync/internal/deadletter"
	"ordersync/internal/intake"
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

// deadLetters is the dead-letter topic of a configuration, and what closes it.
func (a *app) deadLetters(ctx context.Context, cfg config.Config) (deadletter.Topic, func(), error) {
	shop, err := pod.OpenTarget(cfg, a.warnings())
	if err != nil {
		return deadletter.Topic{}, nil, err
	}
	transport := pod.KafkaTransport(cfg)
	end := func() {
		transport.CloseIdleConnections()
		_ = shop.Close() // nothing is under way
	}
	if err := shop.CheckSchema(ctx); err != nil {
		end()
		return deadletter.Topic{}, nil, err
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
	cfg, err := a.config(ctx, kafkaBrokers, mysqlDSN)
	if err != nil {
		return err
	}
	topic, end, err := a.deadLetters(ctx, cfg)
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

func (a *app) deadletterShowCommand() *cobra.Command {
	return a.withOutput(&cobra.Command{
		Use:   "show PLACE",
		Short: "Show a dead letter: headers, detail, the record's value",
		Long: `Shows a dead letter: why it is one, where its record stood, its headers and the record's value, which
is laid out if it is JSON, and shown in hexadecimal if it is no text. With -o json the value is there
as base64, and as text if it is some.`,
		Example: `  ordersync deadletter show 0/17
  ordersync deadletter show 0/17 -o json | jq -r .value_text > event.json`,
		Args: oneArgument("the place of a letter"),
		RunE: func(c *cobra.Command, args []string) error { return a.showLetter(c.Context(), args[0]) },
	})
}

// letterDetail is all there is to know of a letter.
type letterDetail struct {
	letterView
	Headers []headerView `json:"headers"`
	// KeyBase64 and ValueBase64 are null where the record's are; ValueBase64 also where the value was too large
	// to keep, as Kept tells. The texts are absent where the bytes are none.
	KeyBase64   *string `json:"key_base64"`
	KeyText     *string `json:"key_text,omitempty"`
	ValueBase64 *string `json:"value_base64"`
	ValueText   *string `json:"value_text,omitempty"`
	Kept        bool    `json:"kept"`
}

type headerView struct {
	Key   string `json:"key"`
	Value string `json:"value"`
}

func detailLetter(l deadletter.Letter) letterDetail {
	d := letterDetail{letterView: viewLetter(l), Headers: []headerView{}, Kept: l.Kept()}
	for _, h := range l.Headers {
		d.Headers = append(d.Headers, headerView{h.Key, string(h.Value)})
	}
	d.KeyBase64, d.KeyText = encoded(l.Key)
	d.ValueBase64, d.ValueText = encoded(l.Value)
	return d
}

func encoded(raw []byte) (asBase64, text *string) {
	if raw == nil {
		return nil, nil
	}
	b := base64.StdEncoding.EncodeToString(raw)
	if utf8.Valid(raw) {
		s := string(raw)
		text = &s
	}
	return &b, text
}

func (a *app) showLetter(ctx context.Context, arg string) error {
	cfg, err := a.config(ctx, kafkaBrokers, mysqlDSN)
	if err != nil {
		return err
	}
	place, err := deadletter.ParsePlace(arg, cfg.Kafka.DeadLetterTopic)
	if err != nil {
		return err
	}
	topic, end, err := a.deadLetters(ctx, cfg)
	if err != nil {
		return err
	}
	defer end()
	l, err := topic.Get(ctx, place)
	if err != nil {
		return err
	}
	return a.print(detailLetter(l), func(out io.Writer) error { return a.printLetter(out, l) })
}

func (a *app) printLetter(out io.Writer, l deadletter.Letter) error {
	v := viewLetter(l)
	fmt.Fprintf(out, "dead letter %s: %s, %s\n", v.Place, v.Reason, v.State)
	if v.Action != nil {
		fmt.Fprintf(out, "  by %s at %s: %s\n", v.Action.By, stamp(v.Action.At), oneLine(v.Action.Effect))
		if v.Action.Reason != "" {
			fmt.Fprintf(out, "  because: %s\n", oneLine(v.Action.Reason))
		}
	}
	fmt.Fprintf(out, "detail: %s\n", oneLine(v.Detail))
	if v.Problem != "" {
		fmt.Fprintf(out, "ordersync did not write it, or its headers were changed: %s\n", oneLine(v.Problem))
	}
	fmt.Fprintln(out)
	t := newTable(out)
	t.row("order", v.order())
	t.row("record", v.origin())
	t.row("received at", exact(v.Source.ReceivedAt))
	t.row("written at", exact(v.WrittenAt))
	for _, h := range l.Headers {
		t.row("header "+h.Key, shortened(string(h.Value), 100))
	}
	if err := t.flush(); err != nil {
		return err
	}
	fmt.Fprintln(out)
	if err := printValue(out, l); err != nil {
		return err
	}
	if l.State != deadletter.Open {
		return nil
	}
	_, err := fmt.Fprintf(out, "\nsend it again: %s\nwith another value: %s\nnote that nobody will: %s\n", a.hint("deadletter replay "+v.Place.String()),
		a.hint("deadletter replay "+v.Place.String()+" --value-file FILE"), a.hint("deadletter discard "+v.Place.String()+" --why WHY"))
	return err
}

// How much of a value is shown.
const (
	maxText = 64 << 10
	maxHex  = 512
)

func printValue(out io.Writer, l deadletter.Letter) error {
	var laidOut bytes.Buffer
	var err error
	switch {
	case !l.Kept():
		_, err = fmt.Fprintf(out, "the value was too large to keep: %d bytes, SHA-256 %s; it stood at %s\n", l.Size, l.SHA256, l.Origin())
	case l.Value == nil:
		_, err = fmt.Fprintln(out, "the value is null")
	case utf8.Valid(l.Value) && len(l.Value) <= maxText && json.Indent(&laidOut, l.Value, "", "  ") == nil:
		_, err = fmt.Fprintf(out, "%s\n", laidOut.Bytes())
	case printable(l.Value):
		_, err = fmt.Fprintf(out, "%s\n", l.Value[:min(len(l.Value), maxText)])
		if more := len(l.Value) - maxText; more > 0 {
			_, err = fmt.Fprintf(out, "… and %d more bytes; all of them: -o json\n", more)
		}
	default:
		_, err = fmt.Fprintf(out, "%d bytes:\n%s", len(l.Value), hex.Dump(l.Value[:min(len(l.Value), maxHex)]))
		if more := len(l.Value) - maxHex; more > 0 {
			_, err = fmt.Fprintf(out, "… and %d more bytes; all of them: -o json\n", more)
		}
	}
	return err
}

// printable tells whether bytes are text that does a terminal no harm.
func printable(raw []byte) bool {
	return utf8.Valid(raw) && !bytes.ContainsFunc(raw, func(r rune) bool { return r < ' ' && r != '\n' && r != '\t' && r != '\r' || r == 0x7f })
}

// actFlags are those of what is done with letters.
type actFlags struct {
	letterFlags
	all    bool
	dryRun bool
	by     string
	why    string
}

func (f *actFlags) add(c *cobra.Command) {
	f.letterFlags.add(c)
	c.Flags().BoolVar(&f.all, "all", false, "all letters that are open")
	c.Flags().BoolVar(&f.dryRun, "dry-run", false, "show what would come of it, and do nothing")
	c.Flags().StringVar(&f.by, "by", "", "who does it, for the audit (default: user@host)")
	c.Flags().StringVar(&f.why, "why", "", "why, for the audit")
}

func (f *actFlags) who() deadletter.Who {
	return deadletter.Who{By: person(f.by), Why: f.why, DryRun: f.dryRun}
}

// filter is what places and flags choose; nothing at all must be asked for with --all.
func (f *actFlags) filter(places []string, topic string) (deadletter.Filter, error) {
	filter := f.letterFlags.filter()
	for _, text := range places {
		place, err := deadletter.ParsePlace(text, topic)
		if err != nil {
			return filter, err
		}
		filter.Places = append(filter.Places, place)
	}
	return filter, nil
}

// lettersNamed wants places, flags that select letters, or --all.
func lettersNamed(f *actFlags) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		switch {
		case f.all && (len(args) > 0 || f.any()):
			return fmt.Errorf("%s: --all takes all open letters; leave it out to select some", c.CommandPath())
		case !f.all && len(args) == 0 && !f.any():
			return fmt.Errorf("%s needs letters: their places, or --reason, --order, --topic, --since, --until, or --all for all that are open", c.CommandPath())
		}
		return nil
	}
}

func (a *app) deadletterReplayCommand() *cobra.Command {
	var flags actFlags
	var force bool
	var file string
	c := &cobra.Command{
		Use:   "replay (PLACE... | --reason R | --order ID | --topic T | --since T | --all)",
		Short: "Send what dead letters hold on its way again",
		Long: `Sends what dead letters hold to their orders again, by the way the starter goes. An event keeps the
coordinates of its record and so its identity: what was applied already is not applied again. The
letters of an order are sent in the order in which they lie in the topic. Those selected by flags are
sent if they are open; those named, whatever was done with them. It may be interrupted and repeated.

A record that is no event needs a corrected value (--value-file), which takes its place.

What found the queue of a stuck order full (order-blocked) is replayed for the order as a whole: one
such letter takes all open ones of its order along. While the order is still stuck they are refused,
since they would only overflow again.

An event without a version goes by its arrival. It is refused where the order has applied one that
arrived later, since older data would come back. --force sends what is refused for these two reasons.`,
		Example: `  ordersync deadletter replay 0/17
  ordersync deadletter replay 0/17 --value-file mended.json --why 'the ERP sent a broken quote'
  ordersync deadletter replay --order 536365
  ordersync deadletter replay --reason order-blocked --dry-run`,
		Args: lettersNamed(&flags),
		RunE: func(c *cobra.Command, args []string) error {
			return a.replayLetters(c.Context(), args, flags, file, force)
		},
	}
	flags.add(c)
	c.Flags().StringVar(&file, "value-file", "", "the file with the value to send instead, of exactly one letter; - is standard input")
	c.Flags().BoolVar(&force, "force", false, "also while the order is stuck, and what others have overtaken")
	return a.withOutput(c)
}

func (a *app) replayLetters(ctx context.Context, places []string, flags actFlags, file string, force bool) error {
	cfg, err := a.config(ctx, kafkaBrokers, temporalAddress, mysqlDSN)
	if err != nil {
		return err
	}
	filter, err := flags.filter(places, cfg.Kafka.DeadLetterTopic)
	if err != nil {
		return err
	}
	var value []byte
	if file != "" {
		if value, err = a.readValue(file); err != nil {
			return err
		}
	}
	topic, end, err := a.deadLetters(ctx, cfg)
	if err != nil {
		return err
	}
	defer end()
	temporal, err := pod.DialTemporal(ctx, cfg, a.warnings())
	if err != nil {
		return err
	}
	defer temporal.Close()

	bar := a.newBar("letters", -1, false)
	result, err := deadletter.Replay{
		Topic: topic, Channels: cfg.Kafka.Topics, Temporal: temporal,
		Sender: intake.NewSender(temporal, cfg.Temporal.TaskQueue, pod.Settings(cfg)),
		Who:    flags.who(), Force: force, Value: value,
		Progress: func(done, total int64) {
			bar.resize(total)
			bar.set(done, fmt.Sprintf("%d of %d replayed", done, total))
		},
	}.Run(ctx, filter)
	bar.finish()
	return a.report(result, err, "replay")
}

// readValue reads a corrected value.
func (a *app) readValue(file string) ([]byte, error) {
	in, _, err := a.open(file)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	value, err := io.ReadAll(io.LimitReader(in, order.MaxValue+1))
	switch {
	case err != nil:
		return nil, err
	case len(value) > order.MaxValue:
		return nil, fmt.Errorf("%s has more than %d bytes, which no event may have", file, order.MaxValue)
	case len(bytes.TrimSpace(value)) == 0:
		return nil, fmt.Errorf("%s is empty; it should hold the event, as in: %s", file, a.hint("deadletter show PLACE -o json | jq -r .value_text"))
	}
	return value, nil
}

func (a *app) deadletterDiscardCommand() *cobra.Command {
	var flags actFlags
	c := &cobra.Command{
		Use:   "discard (PLACE... | --reason R | --order ID | --topic T | --since T | --all)",
		Short: "Note that nobody will replay dead letters",
		Long: `Marks dead letters as dealt with, so that they are listed with --all only. Nothing is deleted; a
discarded letter may still be replayed by its place.`,
		Example: `  ordersync deadletter discard 0/17 --why 'the order was cancelled'
  ordersync deadletter discard --reason null-value --dry-run`,
		Args: lettersNamed(&flags),
		RunE: func(c *cobra.Command, args []string) error { return a.discardLetters(c.Context(), args, flags) },
	}
	flags.add(c)
	return a.withOutput(c)
}

func (a *app) discardLetters(ctx context.Context, places []string, flags actFlags) error {
	cfg, err := a.config(ctx, kafkaBrokers, mysqlDSN)
	if err != nil {
		return err
	}
	filter, err := flags.filter(places, cfg.Kafka.DeadLetterTopic)
	if err != nil {
		return err
	}
	topic, end, err := a.deadLetters(ctx, cfg)
	if err != nil {
		return err
	}
	defer end()
	bar := a.newBar("letters", -1, false)
	result, err := topic.Discard(ctx, filter, flags.who(), func(done, total int64) {
		bar.resize(total)
		bar.set(done, fmt.Sprintf("%d of %d discarded", done, total))
	})
	bar.finish()
	return a.report(result, err, "discard")
}

// report prints what came of a replay or a discard, and makes an error of what was left undone.
func (a *app) report(r deadletter.Result, err error, what string) error {
	interrupted := errors.Is(err, context.Canceled)
	if err != nil && !interrupted {
		return err
	}
	printed := a.print(r, func(out io.Writer) error { return printResult(out, r, what) })
	switch {
	case interrupted:
		err = fmt.Errorf("interrupted; %s the same letters again: nothing happens twice", what)
	case r.Refused+r.Failed > len(r.Refusals):
		err = fmt.Errorf("%d letters were left as they are; the first %d are told with the reason", r.Refused+r.Failed, len(r.Refusals))
	case r.Refused+r.Failed > 0:
		err = fmt.Errorf("%d letters were left as they are; each is told with the reason", r.Refused+r.Failed)
	}
	return errors.Join(err, printed)
}

func printResult(out io.Writer, r deadletter.Result, what string) error {
	if r.Letters == 0 {
		_, err := fmt.Fprintln(out, "no open dead letter is selected; nothing was done")
		return err
	}
	if r.Added > 0 {
		fmt.Fprintf(out, "what overflowed behind an order is replayed as a whole: %d more letters of %d orders (%s)\n", r.Added, len(r.Whole), shortened(strings.Join(r.Whole, ", "), 80))
	}
	var parts []string
	for _, part := range []struct {
		n    int
		text string
	}{
		{r.Sent, fmt.Sprintf("sent to %d orders", r.Orders)}, {r.InLedger, "applied already"}, {r.Discarded, "discarded"},
		{r.Settled, "discarded before"}, {r.Refused, "refused"}, {r.Failed, "failed"},
	} {
		if part.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", part.n, part.text))
		}
	}
	would := ""
	if r.DryRun {
		would = ", if it were done"
	}
	fmt.Fprintf(out, "%s of %d letters%s: %s\n", what, r.Letters, would, strings.Join(parts, ", "))
	for _, l := range r.Refusals {
		fmt.Fprintf(out, "  %s: %s\n", l.Place, oneLine(l.Why))
	}
	return nil
}
