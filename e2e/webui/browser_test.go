package webui

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// patience is how long a page may take to show something, on a machine that does much else.
const patience = 30 * time.Second

// width is that of the window, in pixels.
const width = 1400

// browser is a tab of a headless Chromium.
type browser struct {
	*testing.T
	tab context.Context
}

// findChromium is the path of a Chromium.
func findChromium(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "headless-shell"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	missing(t, "no chromium on the PATH: `make webui` installs one")
	return ""
}

// openBrowser starts a Chromium that lives as long as the test and talks to nobody but the Web UI.
func openBrowser(t *testing.T, chromium string) *browser {
	t.Helper()
	options := []chromedp.ExecAllocatorOption{
		chromedp.ExecPath(chromium), chromedp.UserDataDir(t.TempDir()), chromedp.WindowSize(width, 900),
		chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck,
		chromedp.WSURLReadTimeout(time.Minute),
	}
	for _, off := range []string{"disable-quic", "disable-background-networking", "disable-component-update", "disable-sync", "disable-extensions", "disable-dev-shm-usage"} {
		options = append(options, chromedp.Flag(off, true))
	}
	allocator, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancel)
	tab, cancel := chromedp.NewContext(allocator)
	t.Cleanup(cancel)
	b := &browser{t, tab}
	require.NoError(t, chromedp.Do(tab)) // which starts it; its life is that of this context
	return b
}

func (b *browser) open(url string) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.tab, patience)
	defer cancel()
	require.NoError(b, chromedp.Do(ctx, chromedp.Navigate(url)))
}

// inPage has JavaScript functions: what the page shows, frames included, and ways to use it.
const inPage = `
	const shown = () => [document, ...[...document.querySelectorAll("iframe")].map(f => f.contentDocument)]
		.map(d => d?.body?.innerText ?? "").join("\n").replace(/[\s\u00a0]+/g, " ");
	const all = selector => [...document.querySelectorAll(selector)]
		.filter(e => e.getClientRects().length > 0 && getComputedStyle(e).visibility === "visible");
	const labelled = (selector, label) => all(selector)
		.find(e => e.innerText.replace(/\s+/g, " ").trim().startsWith(label) || e.getAttribute("aria-label") === label);
`

// evaluate runs an expression in the page.
func evaluate[T any](b *browser, expression string) (T, error) {
	ctx, cancel := context.WithTimeout(b.tab, patience)
	defer cancel()
	return chromedp.Run(ctx, chromedp.Evaluate[T]("(() => {"+inPage+"return "+expression+"})()"))
}

// text is what the page shows, without its layout.
func (b *browser) text() string {
	text, err := evaluate[string](b, "shown()")
	if err != nil {
		return err.Error()
	}
	return text
}

// await waits until the page shows all of texts.
func (b *browser) await(texts ...string) {
	b.Helper()
	b.until(fmt.Sprintf("shows %q", texts), func() bool {
		text := b.text()
		for _, wanted := range texts {
			if !strings.Contains(text, wanted) {
				return false
			}
		}
		return true
	})
}

// click clicks what a JavaScript expression finds, once it is there.
func (b *browser) click(expression string) {
	b.Helper()
	b.until("has "+expression, func() bool {
		done, err := evaluate[bool](b, "(e => { if (!e) return false; e.click(); return true })("+expression+")")
		return err == nil && done
	})
}

// press clicks a link, button or menu item by its label.
func (b *browser) press(label string) {
	b.Helper()
	b.click(fmt.Sprintf("labelled(%q, %s)", "a, button, [role=menuitem]", quoted(label)))
}

func (b *browser) until(what string, done func() bool) {
	b.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !done(); <-tick.C {
		if time.Now().After(end) {
			b.Fatalf("the page %s: not within %s. It shows: %s", what, patience, b.text())
		}
	}
}

// picture writes the page down to a height to docs/, with -update.
func (b *browser) picture(name string, height int64) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.tab, patience)
	defer cancel()
	require.NoError(b, chromedp.Do(ctx, chromedp.EmulateViewport(width, height)))
	png, err := chromedp.Run(ctx, chromedp.CaptureScreenshot())
	require.NoError(b, err)
	require.Less(b, len(png), 300<<10, "too large for the repository")
	if *update {
		require.NoError(b, os.WriteFile(filepath.Join("../../docs", name), png, 0o644))
	}
	require.NoError(b, chromedp.Do(ctx, chromedp.ResetViewport()))
}

func quoted(text string) string {
	raw, err := json.Marshal(text)
	if err != nil {
		panic(err) // a string has a JSON form
	}
	return string(raw)
}
