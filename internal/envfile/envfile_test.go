package envfile

import (
	"io/fs"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestParse(t *testing.T) {
	for line, want := range map[string]string{
		`A=b`:                         `b`,
		`export A=b`:                  `b`,
		`  export   A=b  `:            `b`,
		`A=`:                          ``,
		`A='b c'`:                     `b c`,
		`A='it'\''s'`:                 `it's`,
		`A='root:p$w"@tcp(h:1)/s?x&'`: `root:p$w"@tcp(h:1)/s?x&`,
		`A="b c"`:                     `b c`,
		`A="a\"b\\c\$d\n"`:            `a"b\c$d\n`,
		`A=a'b'"c"d`:                  `abcd`,
		`A=a\ b`:                      `a b`,
		`A=b # why`:                   `b`,
		`A=b#c`:                       `b#c`,
		`A=x=y`:                       `x=y`,
	} {
		got, err := Parse(strings.NewReader("# first\n\n" + line + "\nZ=last"))
		require.NoError(t, err, line)
		assert.Equal(t, map[string]string{"A": want, "Z": "last"}, got, line)

		// A shell must read the same from it.
		shell, err := exec.Command("sh", "-c", line+"\nprintf %s \"$A\"").Output()
		require.NoError(t, err, line)
		assert.Equal(t, string(shell), got["A"], "as sh reads %s", line)
	}
}

func TestParseRefuses(t *testing.T) {
	for line, want := range map[string]string{
		`A b`:          "line 2: it is not NAME=value",
		`1A=b`:         "line 2: it is not NAME=value",
		`A='b`:         "line 2: the value of A has a single quote that is not closed",
		`A="b`:         "double quote that is not closed",
		`A=$B`:         "not expanded",
		"A=\"`date`\"": "not expanded",
		`A=b c`:        "has a space",
		`A=b;c`:        "has a ;",
		`A=b\`:         "ends in a backslash",
	} {
		_, err := Parse(strings.NewReader("# first\n" + line))
		assert.ErrorContains(t, err, want, line)
	}
}

func TestReadNamesTheFile(t *testing.T) {
	_, err := Read(filepath.Join(t.TempDir(), "env"))
	assert.ErrorIs(t, err, fs.ErrNotExist)
}
