package order_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ordersync/internal/order"
)

func TestOccurredAt(t *testing.T) {
	for raw, want := range map[string]string{
		`"2010-12-01T10:26:00+02:00"`:   "2010-12-01T08:26:00Z",
		`"2026-01-01t00:00:00z"`:        "2026-01-01T00:00:00Z",
		`"2026-01-01 00:00:00Z"`:        "2026-01-01T00:00:00Z",
		`"2016-12-31T23:59:60Z"`:        "2017-01-01T00:00:00Z",
		`"2016-12-31T23:59:60.5Z"`:      "2017-01-01T00:00:00Z",
		`"2017-01-01T01:59:60+02:00"`:   "2017-01-01T00:00:00Z",
		`"2026-01-01T00:00:00"`:         "2026-01-01T00:00:00Z",
		`"2026-01-01 00:00:00.1234567"`: "2026-01-01T00:00:00.123456Z",
		`"2026-01-01t00:00:00.5-00:30"`: "2026-01-01T00:30:00.5Z",
	} {
		e := decode(t, `{"sync_id":1,"event":"order_creation","data":1,"occurred_at":`+raw+`}`)
		require.Equal(t, want, e.OccurredAt.Format(time.RFC3339Nano), raw)
	}
	// What cannot be read stops no event.
	for _, raw := range []string{
		`"2010-12-01"`, `1291192000`, `"0001-01-01T00:00:00Z"`, `"9999-12-31T23:59:59-01:00"`, `"yesterday"`, `""`, `{}`, `"/Date(1291192000)/"`,
		`"2010-02-30T00:00:00Z"`, `"2010-12-01T24:00:00Z"`, `"2010-12-01T00:00:61Z"`, `"ſ010-12-01T00:00:00Z"`,
	} {
		fields, err := order.ParseFields([]byte(`{"sync_id":1,"event":"order_creation","data":1,"occurred_at":` + raw + `}`))
		require.NoError(t, err)
		_, ok := fields.OccurredAt()
		require.False(t, ok, raw)
		e, err := fields.Event(record(""), order.Online)
		require.NoError(t, err, raw)
		require.Equal(t, received, e.OccurredAt, raw)
	}
}
