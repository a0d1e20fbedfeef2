package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// table lines columns up.
type table struct{ w *tabwriter.Writer }

func newTable(out io.Writer) *table {
	return &table{tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)}
}

// row adds a line; an empty last column leaves no spaces at its end.
func (t *table) row(columns ...any) {
	var text []string
	for _, c := range columns {
		text = append(text, oneLine(fmt.Sprint(c)))
	}
	for len(text) > 1 && text[len(text)-1] == "" {
		text = text[:len(text)-1]
	}
	fmt.Fprintln(t.w, strings.Join(text, "\t"))
}

func (t *table) flush() error { return t.w.Flush() }

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
