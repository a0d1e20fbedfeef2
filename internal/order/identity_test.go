package order_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ordersync/internal/order"
)

const one, other = "0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210"

// Whether two events of one identity are one.
func TestSameAs(t *testing.T) {
	event := func(kind order.Kind, version int64, digest string) order.Event {
		return order.Event{Kind: kind, Version: version, Digest: digest}
	}
	for name, c := range map[string]struct {
		event, known order.Event
		same         bool
	}{
		"itself":                             {event(order.Update, 0, one), event(order.Update, 0, one), true},
		"itself with a version":              {event(order.Update, 3, ""), event(order.Update, 3, ""), true},
		"another kind":                       {event(order.Update, 3, ""), event(order.Creation, 3, ""), false},
		"another kind without versions":      {event(order.Invoice, 0, one), event(order.Creation, 0, one), false},
		"another version":                    {event(order.Update, 3, ""), event(order.Update, 2, ""), false},
		"a version where the known has none": {event(order.Update, 3, ""), event(order.Update, 0, one), false},
		"the same, from before digests":      {event(order.Update, 3, ""), event(order.Update, 0, ""), false},
		"no version where the known has one": {event(order.Update, 0, one), event(order.Update, 3, ""), false},
		"other data":                         {event(order.Update, 0, one), event(order.Update, 0, other), false},
		"other data of one version":          {event(order.Update, 3, one), event(order.Update, 3, other), true},
		"known from before digests":          {event(order.Update, 0, one), event(order.Update, 0, ""), true},
		"itself from before digests":         {event(order.Update, 0, ""), event(order.Update, 0, one), true},
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, c.same, c.event.SameAs(c.known.Kind, c.known.Version, c.known.Digest))
			require.Equal(t, c.same, c.known.SameAs(c.event.Kind, c.event.Version, c.event.Digest), "the other way round")
		})
	}
}

// The digest is that of the data as it came, of events without a version only. It stands in ledgers: it never changes.
func TestDigest(t *testing.T) {
	e := decode(t, `{"sync_id":1,"event":"order_updation","data":{"b": 1.0, "a": "\u00e9"}}`)
	require.Equal(t, "4e1a247b38332a0392e52664f22bf58e", e.Digest)
	require.Equal(t, e.Digest, decode(t, `{"sync_id":2,"event":"order_creation","data":{"a":"é","b":1}}`).Digest)
	require.NotEqual(t, e.Digest, decode(t, `{"sync_id":1,"event":"order_updation","data":{"b":2,"a":"é"}}`).Digest)
	require.Empty(t, decode(t, `{"sync_id":1,"event":"order_updation","version":1,"data":{}}`).Digest)

	require.NoError(t, e.Check("1"))
	for _, wrong := range []string{"1", strings.ToUpper(e.Digest), e.Digest + "0"} {
		e.Digest = wrong
		require.ErrorContains(t, e.Check("1"), "digest")
	}
}

func TestConflictDetailNamesBothEvents(t *testing.T) {
	e := order.Event{ID: order.ParseEventID("x"), Kind: order.Update, Version: 3}
	require.Contains(t, e.ConflictDetail("order_creation v1"), "order_updation v3")
	require.Contains(t, e.ConflictDetail("order_creation v1"), "order_creation v1")
	require.Contains(t, e.ConflictDetail(e.Name()), "other data")
}
