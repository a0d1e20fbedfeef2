package workflows

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"ordersync/internal/order"
)

// What the Web UI shows is copied, so it names the order to the last blank.
func TestCodeKeepsALineAsItIs(t *testing.T) {
	for line, want := range map[string]string{
		"order 1":          "` order 1 `",
		"order 'a  b'":     "` order 'a  b' `",
		"order 'a\u00a0b'": "` order 'a\u00a0b' `",
		"order '`a``b'":    "``` order '`a``b' ```",
	} {
		assert.Equal(t, want, code(line))
	}
	for _, id := range []string{"a  b", "a\u00a0b", "a\u3000b", "a b"} {
		command := order.SkipCommand(id, "13a01de0").String()
		assert.Contains(t, code(command), command)
	}
}
