package order

import (
	"fmt"
	"regexp"
	"strings"
	"unicode"
)

var (
	// plain is what a shell takes as it stands. A word that begins with "=" is expanded by zsh.
	plain = regexp.MustCompile(`^[A-Za-z0-9_.:/@%+,-][A-Za-z0-9_.:/@%+=,-]*$`)
	// literal is what the format of printf means by itself, at any place in any shell.
	literal = regexp.MustCompile(`^[A-Za-z0-9_.:/@+=, ]$`)
)

// Typed is a word as a person types it in a shell. An ERP may put anything into a sync_id, and the
// commands that we propose are pasted at night. A word must not end with a line break, which no id does.
// Whether a word is a flag is not a question of quoting: see Command.
func Typed(word string) string {
	switch {
	case plain.MatchString(word):
		return word
	case shows(word):
		return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
	}
	// Every shell has printf, also one that does not know $'...'.
	var text strings.Builder
	before := rune(0)
	for _, r := range word {
		if literal.MatchString(string(r)) && (r != ' ' || before != ' ') || r > unicode.MaxASCII && visible(r) {
			text.WriteRune(r)
		} else {
			for _, b := range []byte(string(r)) {
				fmt.Fprintf(&text, `\%03o`, b)
			}
		}
		before = r
	}
	return `"$(printf '` + text.String() + `')"`
}

// shows returns whether a word is seen as it is. A page or a terminal shows several blanks as one, a wide
// blank as a blank, and a character without width not at all, and what is copied from there is another word.
func shows(word string) bool {
	return !strings.Contains(word, "  ") && !strings.ContainsFunc(word, func(r rune) bool { return !visible(r) })
}

// visible returns whether a character has a form of its own. Those of the tables are letters and marks that have none.
func visible(r rune) bool {
	const blankBraille = '\u2800'
	return unicode.IsPrint(r) && r != blankBraille && !unicode.In(r, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}
