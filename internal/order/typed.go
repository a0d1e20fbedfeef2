package order

import (
	"regexp"
	"strings"
)

// plain is what a shell takes as it stands. A word that begins with "=" is expanded by zsh.
var plain = regexp.MustCompile(`^[A-Za-z0-9_.:/@%+,-][A-Za-z0-9_.:/@%+=,-]*$`)

// Typed is a word as a person types it in a shell. An ERP may put anything into a sync_id, and the
// commands that we propose are pasted at night. Whether a word is a flag is not a question of quoting:
// see Command.
func Typed(word string) string {
	if plain.MatchString(word) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}
