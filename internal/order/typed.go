package order

import (
	"regexp"
	"strings"
)

// plain is what a shell takes as it stands.
var plain = regexp.MustCompile(`^[A-Za-z0-9_.:/@%+=,][A-Za-z0-9_.:/@%+=,-]*$`)

// Typed is a sync_id as a person types it in a shell. An ERP may put anything into one, and the
// commands that we propose are pasted at night.
func Typed(syncID string) string {
	if plain.MatchString(syncID) {
		return syncID
	}
	return "'" + strings.ReplaceAll(syncID, "'", `'\''`) + "'"
}
