package erp

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
)

// walk guards against a list that has no end: a next that was given before, or pages that bring nothing new under a
// next that moves. It travels in the cursor, as a walk may outlive a process, and has a fixed size: of all pages it
// marks one, that of the number 1, 2, 4, 8 and so on, and compares those that come with it. So a circle is found
// within some four times its own length. A page that was listed before is no error by itself, as events may come
// again; nor is one without events, of a service that filters what it has read.
type walk struct {
	Pages int `json:"n,omitempty"`
	// Mark is the number of the page that is marked; Next and Page are digests of its next and of its items, and Seen
	// is how often its items came again since.
	Mark int    `json:"mark,omitempty"`
	Next string `json:"next,omitempty"`
	Page string `json:"page,omitempty"`
	Seen int    `json:"seen,omitempty"`
	// Empty is how many pages without items came one after the other.
	Empty int `json:"empty,omitempty"`
}

const (
	// oftenSeen is how often the items of a page come again, and over how many pages, before it counts as a circle.
	oftenSeen, seenOver = 2, 100
	// maxEmpty is how many pages without items may come one after the other.
	maxEmpty = 1000
)

// on is the walk behind a page that has more behind it. Its error says why there is no use in going on.
func (w walk) on(l list) (walk, error) {
	next := shortDigest([]byte(l.next))
	if w.Mark > 0 && next == w.Next {
		return w, fmt.Errorf("the answer's next %q was given before, %d pages ago: the ERP goes round in circles", clip(l.next), w.Pages+1-w.Mark)
	}
	w.Pages++
	page := ""
	if len(l.items) == 0 {
		if w.Empty++; w.Empty >= maxEmpty {
			return w, fmt.Errorf("the last %d answers have nothing in them and say that there is more, the last with the next %q: the list has no end", w.Empty, clip(l.next))
		}
	} else {
		w.Empty, page = 0, pageDigest(l.items)
	}
	if page != "" && page == w.Page {
		w.Seen++
		if n := w.Pages - w.Mark; w.Seen >= oftenSeen && n >= seenOver {
			return w, fmt.Errorf("%d answers brought nothing new, the last with the next %q: the ERP lists the same again under another next", n, clip(l.next))
		}
	}
	if w.Pages >= 2*w.Mark {
		w.Mark, w.Next, w.Page, w.Seen = w.Pages, next, page, 0
	}
	return w, nil
}

// pageDigest stands for the items of a page.
func pageDigest(items []json.RawMessage) string {
	h := sha256.New()
	for _, item := range items {
		_, _ = fmt.Fprintf(h, "%d:", len(item))
		_, _ = h.Write(item)
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:9])
}

func shortDigest(text []byte) string {
	sum := sha256.Sum256(text)
	return base64.RawURLEncoding.EncodeToString(sum[:9])
}
