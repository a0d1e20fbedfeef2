package order_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ordersync/internal/order"
)

// An event of usual size, 15 lines of an order.
func BenchmarkDecode(b *testing.B) {
	line := `{"sku":"85123A","name":"WHITE HANGING HEART T-LIGHT HOLDER","qty":6,"price":2.55}`
	r := record(`{"sync_id":536365,"channel":"online","event":"order_updation","version":2,"event_id":"2d7a3288-75c9-5ad5-ab72-0a95a812163c",` +
		`"occurred_at":"2010-12-01T08:26:00Z","data":{"customer":"17850","country":"United Kingdom","lines":[` +
		strings.Repeat(line+",", 14) + line + `]}}`)
	b.SetBytes(int64(len(r.Value)))
	b.ReportAllocs()
	for b.Loop() {
		_, err := order.Decode(r, order.Online)
		require.NoError(b, err)
	}
}
