package order

import "strings"

// Clip is a text of at most so many bytes, and an ellipsis where something is left out. No character is cut in two.
func Clip[T ~string | ~[]byte](text T, most int) string {
	if len(text) <= most {
		return string(text)
	}
	return strings.ToValidUTF8(string(text[:most]), "") + "…"
}
