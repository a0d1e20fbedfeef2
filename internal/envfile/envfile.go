// Package envfile reads the file in which a running stack says how to reach it: NAME=value lines
// that a shell can source.
package envfile

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
)

// Read parses the file at path. Its error is an fs.ErrNotExist where there is none.
func Read(path string) (map[string]string, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	values, err := Parse(file)
	if err != nil {
		return nil, fmt.Errorf("%s, %w", path, err)
	}
	return values, nil
}

var assignment = regexp.MustCompile(`^(?:export[ \t]+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)$`)

// Parse reads NAME=value lines: export in front is optional, the value may be quoted as a shell
// quotes, lines of nothing and of a # comment are passed over. Nothing is expanded: a $ or a
// backquote that a shell would act on is an error, as are two words.
func Parse(r io.Reader) (map[string]string, error) {
	values := map[string]string{}
	lines := bufio.NewScanner(r)
	for number := 1; lines.Scan(); number++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		match := assignment.FindStringSubmatch(line)
		if match == nil {
			return nil, fmt.Errorf("line %d: it is not NAME=value", number)
		}
		value, err := unquote(match[2])
		if err != nil {
			return nil, fmt.Errorf("line %d: the value of %s %w", number, match[1], err)
		}
		values[match[1]] = value
	}
	return values, lines.Err()
}

// unquote follows POSIX's quoting
// (https://pubs.opengroup.org/onlinepubs/9799919799/utilities/V3_chap02.html#tag_19_02).
func unquote(text string) (string, error) {
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case '\'':
			end := strings.IndexByte(text[i+1:], '\'')
			if end < 0 {
				return "", errors.New("has a single quote that is not closed")
			}
			out.WriteString(text[i+1 : i+1+end])
			i += 1 + end
		case '"':
			quoted, rest, err := doubleQuoted(text[i+1:])
			if err != nil {
				return "", err
			}
			out.WriteString(quoted)
			i = len(text) - len(rest) - 1
		case '\\':
			if i++; i == len(text) {
				return "", errors.New("ends in a backslash")
			}
			out.WriteByte(text[i])
		case '$', '`':
			return "", fmt.Errorf("has a %c, which is not expanded here: quote it with '", c)
		case ' ', '\t':
			if rest := strings.TrimSpace(text[i:]); rest != "" && rest[0] != '#' {
				return "", errors.New("has a space: quote it with '")
			}
			return out.String(), nil
		case ';', '&', '|', '<', '>', '(', ')':
			return "", fmt.Errorf("has a %c: quote it with '", c)
		default:
			out.WriteByte(c)
		}
	}
	return out.String(), nil
}

// doubleQuoted reads up to the closing quote; rest is what comes after it.
func doubleQuoted(text string) (quoted, rest string, err error) {
	var out strings.Builder
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			return out.String(), text[i+1:], nil
		case c == '$' || c == '`':
			return "", "", fmt.Errorf("has a %c, which is not expanded here: quote it with '", c)
		case c == '\\' && i+1 < len(text) && strings.IndexByte("$`\"\\", text[i+1]) >= 0:
			i++
			out.WriteByte(text[i])
		default:
			out.WriteByte(c)
		}
	}
	return "", "", errors.New("has a double quote that is not closed")
}
