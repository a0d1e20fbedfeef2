package main

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"ordersync/internal/operator"
	"ordersync/internal/order"
)

// hostileIDs are what an ERP may put into an order's id, and a shell or a command line would take for
// something else.
var hostileIDs = []string{
	"-1", "-rf", "--help", "--", "-", "--order=2", "a b", "$(x)", "`x`", "it's", `"`, `a\b`, "!x", "Müller", "~", "#", "*", "?", "{a,b}",
	"a;b", "a|b", "a&b", "<x", ">x", "=x", "%1", "日本", "${HOME}", "$1", "[a]", "(a)", "^x", "@file",
	"a  b", "a\u00a0b", "a\u3000b", "-\u00a0", "a\u200bb", "\u202ea\u202c", "\ufeffa", "a\u2028b", "%s\u00a0\\1'",
}

// typed is what the program gets when a proposed command is pasted into a shell.
func typed(t *testing.T, command string) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "sh", "-c", `ordersync() { printf '%s\0' "$@"; }; `+command).Output()
	require.NoError(t, err, command)
	return strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
}

// parsed is the command that those words reach, after its own check of them.
func parsed(t *testing.T, words []string) *cobra.Command {
	t.Helper()
	a := &app{program: "ordersync"}
	c, rest, err := a.root().Find(words)
	require.NoError(t, err, "%q", words)
	require.NoError(t, c.ParseFlags(rest), "%q", words)
	require.NoError(t, c.ValidateArgs(c.Flags().Args()), "%q", words)
	help, err := c.Flags().GetBool("help")
	require.True(t, err != nil || !help, "%q asks for help", words)
	return c
}

func TestEveryProposedCommandHitsItsOrderAndEvent(t *testing.T) {
	event := uuid.MustParse("3f2a91c0-da00-593a-8997-9372804d022b").String()[:order.ShortID]
	for _, id := range hostileIDs {
		for path, c := range map[string]order.Command{
			"ordersync order": order.ShowCommand(id), "ordersync retry": order.RetryCommand(id, event),
			"ordersync amend": order.AmendCommand(id, event), "ordersync skip": order.SkipCommand(id, event),
		} {
			for _, dir := range []string{defaultDir, "a b", "-x"} {
				command := (&app{program: "ordersync", dataDir: dir}).propose(c)
				assert.Equal(t, command, oneLine(command), "it stands in an error, and errors stand in lists")
				got := parsed(t, typed(t, command))
				assert.Equal(t, path, got.CommandPath(), id)
				assert.Equal(t, []string{id}, got.Flags().Args())
				assert.Equal(t, dir, got.Flag("data-dir").Value.String())
				if path != "ordersync order" {
					assert.Equal(t, event, got.Flag("event-id").Value.String())
				}
			}
		}
		for path, c := range map[string]order.Command{
			"ordersync replay": order.ReplayCommand(id), "ordersync deadletter replay": order.ReplayLettersCommand(id), "ordersync deadletter list": order.ListLettersCommand(id),
		} {
			assert.Equal(t, c.String(), oneLine(c.String()))
			got := parsed(t, typed(t, c.String()))
			assert.Equal(t, path, got.CommandPath(), id)
			assert.Empty(t, got.Flags().Args(), id)
			named := got.Flag("order").Value.String()
			assert.Contains(t, []string{id, "[" + csv(id) + "]"}, named)
		}
	}
}

// csv is how a flag that may be given several times spells its one value.
func csv(value string) string {
	if strings.ContainsAny(value, "\",\n") || strings.HasPrefix(value, " ") {
		return `"` + strings.ReplaceAll(value, `"`, `""`) + `"`
	}
	return value
}

// What the lists and errors print goes by the same way.
func TestWhatIsPrintedAboutAnOddOrderHitsIt(t *testing.T) {
	for _, id := range hostileIDs {
		var out strings.Builder
		a := &app{program: "ordersync", dataDir: "a b"}
		require.NoError(t, a.printStuck(&out, blockedView{Survey: operator.Survey{Total: 1, Orders: []operator.StuckOrder{{SyncID: id}}}}))
		_, command, found := strings.Cut(out.String(), "what to do: ")
		require.True(t, found)
		assert.Equal(t, []string{id}, parsed(t, typed(t, strings.TrimSpace(command))).Flags().Args())
	}
}
