package order_test

import (
	"os/exec"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"

	"ordersync/internal/order"
)

func TestTypedIsOneWordOfAShell(t *testing.T) {
	require.Equal(t, "536365", order.Typed("536365"))
	require.Equal(t, "SO-2026/17", order.Typed("SO-2026/17"))
	require.Equal(t, "'A B'", order.Typed("A B"))
	require.Equal(t, "'日本'", order.Typed("日本"))
	for _, id := range []string{"536365", "C536379", "A B", "$(touch x)", "it's", `a"b\c`, "日本", "*", "~", "a;b", "-", "a\nb"} {
		for _, shell := range []string{"sh", "bash"} {
			out, err := exec.CommandContext(t.Context(), shell, "-c", "printf %s "+order.Typed(id)).Output()
			require.NoError(t, err)
			require.Equal(t, id, string(out))
		}
	}
}

// A page shows "a  b" as "a b", and a person copies what is shown.
func TestTypedHasOnlyWhatIsSeen(t *testing.T) {
	require.Equal(t, `"$(printf 'a\302\240b')"`, order.Typed("a\u00a0b"))
	require.Equal(t, `"$(printf 'a \040b')"`, order.Typed("a  b"))
	seen := regexp.MustCompile(`^[!-~日本é]+( [!-~日本é]+)*$`)
	for name, id := range map[string]string{
		"blanks": "a  b", "many blanks": "a     b", "a tab": "a\tb", "line breaks": "a\n\nb", "NBSP": "a\u00a0b", "an ideographic space": "日\u3000本",
		"a thin space": "1\u2009000", "zero width": "a\u200bb", "a joiner": "é\u200db", "a BOM": "\ufeffa", "bidi": "\u202ea\u202c", "an isolate": "\u2066a",
		"a soft hyphen": "a\u00adb", "a line separator": "a\u2028b", "a filler": "a\u3164b", "a variation": "a\ufe0fb", "a tag": "a\U000e0041b",
		"braille": "a\u2800b", "unassigned": "a\u0378b", "private": "a\ue000b",
		"with all of a shell": "-\u200b$(x) `x` 'x' \"x\" \\x \\101 %s %% !x * ~ # =x",
	} {
		word := order.Typed(id)
		require.Regexp(t, seen, word, name)
		for _, shell := range []string{"sh", "bash"} {
			out, err := exec.CommandContext(t.Context(), shell, "-c", "printf %s "+word).Output()
			require.NoError(t, err, name)
			require.Equal(t, id, string(out), name)
		}
	}
}
