package main

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"ordersync/internal/deadletter"
	"ordersync/internal/order"
)

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
	topic, end, err := a.configuredLetters(ctx)
	if err != nil {
		return err
	}
	defer end()
	place, err := deadletter.ParsePlace(arg, topic.Name)
	if err != nil {
		return err
	}
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
	_, err := fmt.Fprintf(out, "\nsend it again: %s\nwith another value: %s\nnote that nobody will: %s\n", a.propose(order.ReplayLetterCommand(v.Place.String())),
		a.propose(order.MendLetterCommand(v.Place.String())), a.propose(order.DiscardLetterCommand(v.Place.String())))
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
	case len(l.Value) == 0:
		_, err = fmt.Fprintln(out, "the value is empty")
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
