package order_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/uuid"
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
	require.NotEmpty(t, decode(t, `{"sync_id":1,"event":"invoice_creation","version":1,"event_id":"x","data":{}}`).Digest)

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

// Derived ids stand in ledgers: they never change.
func TestDerivedIDs(t *testing.T) {
	id := func(value string) string { return decode(t, value).ID.String() }
	require.Equal(t, "f6189316-e429-54b5-99c5-037ff4b9e080", id(`{"sync_id":1,"event":"order_creation","data":1,"version":1}`))
	require.Equal(t, "5ae234e4-5dde-5263-86ca-f3f0f7129ba7", id(`{"sync_id":"Müller-1","event":"order_updation","data":1,"version":7}`))
	require.Equal(t, "1dd3fa69-4c67-517f-8aa5-e3955b32063e", id(`{"sync_id":1,"event":"order_updation","data":1}`))
	require.Equal(t, "1dd3fa69-4c67-517f-8aa5-e3955b32063e", id(`{"sync_id":1,"event":"invoice_creation","data":1}`))
	require.Equal(t, "93048a8d-2d24-5e0a-ac26-888e05d78b86", id(`{"sync_id":1,"event":"invoice_creation","data":1,"version":2,"event_id":"900"}`))
	require.Equal(t, "06ccf886-8651-574a-aeaf-c7fd6590d850", id(`{"sync_id":1,"event":"invoice_creation","version":2,"data":{"number":"R1"}}`))
	require.Equal(t, "0025b70b-b9d7-53eb-bb7e-a3fe66ba3ab2", order.RowID("42", []byte(`{}`)).String())
}

// An order may have several invoices of one version. What one means decides which it is.
func TestInvoicesOfOneVersion(t *testing.T) {
	first := decode(t, `{"sync_id":1,"event":"invoice_creation","version":2,"data":{"number":"R1","total":10}}`)
	again := decode(t, `{"sync_id":1,"event":"invoice_creation","version":2,"data":{ "total":10.0, "number":"R1"}}`)
	second := decode(t, `{"sync_id":1,"event":"invoice_creation","version":2,"data":{"number":"R2","total":10}}`)
	require.Equal(t, first.ID, again.ID)
	require.NotEqual(t, first.ID, second.ID)
}

// Both forms of an invoice's derived id find each other, wherever the event was written down.
func TestAlias(t *testing.T) {
	e := decode(t, `{"sync_id":1,"event":"invoice_creation","version":2,"data":{"number":"R1"}}`)
	former := uuid.MustParse("0783cc3c-c2fb-5bcf-a432-ae801b244b5a")
	require.Equal(t, order.Alias{ID: former, Digest: e.Digest}, e.Alias())

	spelledOut, err := e.Message() // as it stands in dead letters, and in what was polled
	require.NoError(t, err)
	require.Equal(t, e.Alias(), decode(t, string(spelledOut)).Alias())
	amended := e
	amended.Data = json.RawMessage(`{"number":"R1","mended":true}`)
	require.Equal(t, e.Alias(), amended.Alias())

	before := e // in a workflow or a dead letter
	before.ID, before.Digest = former, ""
	require.Equal(t, order.Alias{ID: e.ID}, before.Alias())

	for _, other := range []string{
		`{"sync_id":1,"event":"invoice_creation","data":1}`,
		`{"sync_id":1,"event":"invoice_creation","version":2,"data":1,"event_id":"900"}`,
		`{"sync_id":1,"event":"order_updation","version":2,"data":1}`,
	} {
		require.Zero(t, decode(t, other).Alias())
	}
}
