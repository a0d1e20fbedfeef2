package erp_test

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ordersync/internal/erp"
)

// All changes of 60,000 orders of four lines, read in pages of 1,000 rows: what the database takes for
// it, in another process, and what we do.
func BenchmarkDatabase(b *testing.B) {
	for kind, fresh := range databases {
		b.Run(kind, func(b *testing.B) {
			d := fresh(b)
			dir, schema := docsQueries(b, kind)
			d.exec(b, schema)
			const orders = 60_000
			var lines, heads, invoices []string
			flush := func() {
				d.exec(b, "INSERT INTO orders (order_id, channel, customer, country, version) VALUES "+strings.Join(heads, ","))
				d.exec(b, "INSERT INTO order_lines VALUES "+strings.Join(lines, ","))
				d.exec(b, "INSERT INTO invoices (invoice_id, order_id, total) VALUES "+strings.Join(invoices, ","))
				heads, lines, invoices = nil, nil, nil
			}
			for id := range orders {
				heads = append(heads, fmt.Sprintf("(%d, 'online', '%d', 'United Kingdom', %d)", id, id, 1+id%3/2))
				for line := range 4 {
					lines = append(lines, fmt.Sprintf("(%d, %d, '85123A', 'WHITE HANGING HEART T-LIGHT HOLDER', 6, 2.55)", id, line))
				}
				if id%3 == 0 {
					invoices = append(invoices, fmt.Sprintf("(%d, %d, 61.20)", id, id))
				}
				if len(heads) == 1000 {
					flush()
				}
			}
			if kind == erp.Postgres {
				d.exec(b, "ANALYZE") // which autovacuum does within a minute
			}
			source := openSource(b, erp.Options{Kind: kind, URL: d.url, QueriesDir: filepath.Join(dir, "queries")})
			read(b, source)
		})
	}
}

// BenchmarkService reads 100,000 events from a service that answers at once.
func BenchmarkService(b *testing.B) {
	line := `{"sku":"85123A","name":"WHITE HANGING HEART T-LIGHT HOLDER","qty":6,"price":2.55}`
	var events []string
	for id := range 1000 {
		events = append(events, fmt.Sprintf(`{"sync_id":%d,"event":"order_creation","channel":"online","version":1,"changed_at":"2026-01-01T00:00:00Z",
			"data":{"customer":"17850","country":"United Kingdom","lines":[%s]}}`, id, strings.Repeat(line+",", 3)+line))
	}
	list := strings.Join(events, ",")
	n := 0
	base := answering(b, func(w http.ResponseWriter, _ *http.Request) {
		n++
		fmt.Fprintf(w, `{"events":[%s],"next":"%d","more":%t}`, list, n, n%100 != 0)
	})
	read(b, openSource(b, erp.Options{Kind: erp.HTTP, URL: base}))
}

func read(b *testing.B, source erp.Source) {
	b.ReportAllocs()
	rows := 0
	for b.Loop() {
		var after erp.Cursor
		for {
			page, err := source.Page(b.Context(), erp.Request{After: after, Limit: 1000})
			require.NoError(b, err)
			require.Nil(b, page.Rows[0].Rejected)
			rows += len(page.Rows)
			if after = page.Next; !page.More {
				break
			}
		}
	}
	b.ReportMetric(float64(rows)/b.Elapsed().Seconds(), "rows/s")
	b.ReportMetric(float64(rows)/float64(b.N), "rows")
}
