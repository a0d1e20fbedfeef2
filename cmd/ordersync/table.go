package main

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// table lines columns up.
type table struct {
	out    io.Writer
	indent string
	text   bytes.Buffer
	w      *tabwriter.Writer
}

func newTable(out io.Writer) *table {
	t := &table{out: out}
	t.w = tabwriter.NewWriter(&t.text, 0, 0, 2, ' ', 0)
	return t
}

func (t *table) row(columns ...any) {
	for i, c := range columns {
		if i > 0 {
			fmt.Fprint(t.w, "\t")
		}
		fmt.Fprint(t.w, oneLine(fmt.Sprint(c)))
	}
	fmt.Fprintln(t.w)
}

// flush writes the table, without the spaces after empty last columns.
func (t *table) flush() error {
	if err := t.w.Flush(); err != nil {
		return err
	}
	for line := range strings.Lines(t.text.String()) {
		if _, err := fmt.Fprintln(t.out, t.indent+strings.TrimRight(line, " \n")); err != nil {
			return err
		}
	}
	return nil
}

// oneLine keeps what others wrote from breaking a table.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// shortened is text in at most n characters.
func shortened(text string, n int) string {
	text = oneLine(text)
	if runes := []rune(text); len(runes) > n {
		return string(runes[:n-1]) + "…"
	}
	return text
}

// stamp is a time for people, to the second.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// exact is a time to the millisecond.
func exact(t time.Time) string { return t.UTC().Format("2006-01-02T15:04:05.000Z") }

// latency is how long something took.
func latency(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	default:
		return d.Round(time.Second).String()
	}
}
