package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"ordersync/internal/devstack/devtest"
	"ordersync/internal/operator"
	"ordersync/internal/order"
	"ordersync/internal/publish"
)

// TestAnythingEndsSomewhere sends what nobody would: random bytes, real events with parts changed, random
// JSON. Each record must end in the ledger, in the dead-letter topic or behind an order that is visibly
// stuck; none may vanish, and no run may fail. ORDERSYNC_E2E_FUZZ=10m goes on for that long.
func TestAnythingEndsSomewhere(t *testing.T) {
	limit := time.Duration(0)
	if text := os.Getenv("ORDERSYNC_E2E_FUZZ"); text != "" {
		var err error
		limit, err = time.ParseDuration(text)
		require.NoError(t, err)
	}
	s := seed(t)
	g := newGarbage(t, s)
	b := setup(t, "HOLD_WINDOW=500ms")
	b.run()
	producer := b.client(kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(kgo.ZstdCompression()), kgo.ProducerBatchMaxBytes(16<<20))
	began, rounds, total := time.Now(), 0, tally{}
	for rounds < 2 || time.Since(began) < limit {
		var records []*kgo.Record
		for range 150 {
			channel := order.Channels[g.IntN(len(order.Channels))]
			r := g.record()
			r.Topic, r.Partition = b.topics()[channel], int32(g.IntN(partitions))
			records = append(records, r)
		}
		for _, r := range producer.ProduceSync(t.Context(), records...) {
			require.NoError(t, r.Err)
		}
		total.add(b.requireEnded(records))
		rounds++
	}
	t.Logf("%d rounds in %s: %s", rounds, time.Since(began).Round(time.Second), total)
	b.requireCommitted()
}

// tally counts where records ended.
type tally struct{ records, ledger, letters, stuck, again int }

func (t *tally) add(o tally) {
	t.records += o.records
	t.ledger += o.ledger
	t.letters += o.letters
	t.stuck += o.stuck
	t.again += o.again
}

func (t tally) String() string {
	return fmt.Sprintf("%d records: %d in the ledger, %d in the dead-letter topic, %d behind orders that are stuck, %d came before",
		t.records, t.ledger, t.letters, t.stuck, t.again)
}

// requireEnded waits until each record has ended somewhere, and until no run has failed.
func (b *bundle) requireEnded(records []*kgo.Record) (t tally) {
	b.Helper()
	devtest.Eventually(b, 3*time.Minute, func() error {
		t = tally{records: len(records)}
		places := map[string]bool{}
		rows, err := b.target.DB().QueryContext(b.Context(), "SELECT CONCAT(source_topic, '/', source_partition, '/', source_offset), CONCAT(sync_id, ' ', event_id) FROM order_events")
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var at, id string
			if err := rows.Scan(&at, &id); err != nil {
				return err
			}
			places[at], places[id] = true, true
		}
		if err := rows.Err(); err != nil {
			return err
		}
		letters := b.letterPlaces()
		stuck, err := operator.Blocked(b.Context(), b.temporal)
		if err != nil {
			return err
		}
		var lost []error
		for _, r := range records {
			at := fmt.Sprintf("%s/%d/%d", r.Topic, r.Partition, r.Offset)
			e, err := order.Decode(order.Record{Topic: r.Topic, Partition: int(r.Partition), Offset: r.Offset, Timestamp: r.Timestamp, Value: r.Value}, order.Online)
			switch {
			case places[at]:
				t.ledger++
			case letters[at]:
				t.letters++
			case err == nil && stuck[e.SyncID]:
				t.stuck++
			case err == nil && places[e.SyncID+" "+e.ID.String()]:
				t.again++
			default:
				lost = append(lost, fmt.Errorf("%s: %.300q (%w)", at, r.Value, err))
			}
		}
		if len(lost) > 0 {
			return fmt.Errorf("%d records are nowhere, the first %w", len(lost), lost[0])
		}
		n, err := b.workflows(`ExecutionStatus IN ("Failed","Terminated","TimedOut","Canceled")`)
		if err == nil && n > 0 {
			err = fmt.Errorf("%d runs ended in another way than by completing", n)
		}
		return err
	}, "each record has ended somewhere")
	return t
}

// letterPlaces are the records that the dead letters stand for, topic/partition/offset.
func (b *bundle) letterPlaces() map[string]bool {
	places := map[string]bool{}
	for _, l := range b.deadLetters() {
		places[l.place] = true
	}
	return places
}

// garbage makes records, the same for a seed.
type garbage struct {
	*rand.Rand
	real [][]byte
}

func newGarbage(t *testing.T, seed uint64) *garbage {
	t.Helper()
	text, err := os.ReadFile("testdata/retail-orders.ndjson")
	require.NoError(t, err)
	return &garbage{rand.New(rand.NewPCG(seed, 1)), bytes.Split(bytes.TrimSpace(text), []byte("\n"))}
}

func (g *garbage) record() *kgo.Record {
	r := &kgo.Record{Value: g.value()}
	switch g.IntN(4) {
	case 0:
		r.Key = g.bytes(g.IntN(30))
	case 1:
		r.Key = []byte("536365")
	}
	if g.IntN(5) == 0 {
		r.Timestamp = time.UnixMilli([]int64{0, 1, 1_700_000_000, 1 << 50, 253402300800000}[g.IntN(5)])
	}
	if g.IntN(10) == 0 {
		r.Headers = []kgo.RecordHeader{{Key: publish.HeaderReason, Value: g.bytes(10)}, {Key: "", Value: nil}}
	}
	return r
}

func (g *garbage) value() []byte {
	switch g.IntN(10) {
	case 0:
		return nil
	case 1:
		return g.bytes(g.IntN(300))
	case 2, 3:
		return g.mutate(g.line())
	case 4:
		return []byte(g.json(4))
	case 5:
		return bytes.Repeat(g.bytes(1+g.IntN(3)), g.IntN(1<<20))
	default:
		return g.event()
	}
}

func (g *garbage) bytes(n int) []byte {
	out := make([]byte, n)
	for i := range out {
		out[i] = byte(g.IntN(256))
	}
	return out
}

func (g *garbage) line() []byte { return bytes.Clone(g.real[g.IntN(len(g.real))]) }

// mutate changes some bytes of a real event.
func (g *garbage) mutate(line []byte) []byte {
	for range 1 + g.IntN(4) {
		at := g.IntN(len(line))
		switch g.IntN(4) {
		case 0:
			line[at] = byte(g.IntN(256))
		case 1:
			line = append(line[:at:at], line[min(len(line), at+1+g.IntN(20)):]...)
		case 2:
			line = append(line[:at:at], append(g.bytes(1+g.IntN(3)), line[at:]...)...)
		default:
			end := min(len(line), at+g.IntN(60))
			line = append(line[:end:end], line[at:]...)
		}
		if len(line) == 0 {
			return line
		}
	}
	return line
}

// event is a real event with a field or two replaced by what an ERP should not send.
func (g *garbage) event() []byte {
	var fields map[string]json.RawMessage
	if json.Unmarshal(g.line(), &fields) != nil {
		return nil
	}
	for range g.IntN(3) {
		names := []string{"sync_id", "event", "data", "version", "event_id", "occurred_at", "extra"}
		name := names[g.IntN(len(names))]
		if g.IntN(6) == 0 {
			delete(fields, name)
			continue
		}
		fields[name] = json.RawMessage(g.field(name))
	}
	var out strings.Builder
	out.WriteByte('{')
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		value := fields[name]
		if out.Len() > 1 {
			out.WriteByte(',')
		}
		fmt.Fprintf(&out, "%q:%s", name, value)
		if g.IntN(20) == 0 {
			fmt.Fprintf(&out, ",%q:%s", name, value) // twice
		}
	}
	return []byte(out.String() + "}")
}

// field is a value that is odd for the field, and often one that is odd for any.
func (g *garbage) field(name string) string {
	odd := map[string][]string{
		"sync_id": {
			`"Müller-1"`, `"注文 1"`, `"🛒"`, `"\ud83d"`, `"\ud83d\ude00"`, `"\u0000"`, `" 536365 "`, `-1`, `"-rf"`, `"--help"`, `"a'b"`, `"%s%d"`, `"$(x)"`, `1e3`, `1.0`,
			`18446744073709551616`, `""`, `"` + strings.Repeat("ö", 32) + `"`, `"` + strings.Repeat("ö", 33) + `"`, `"A"`, `"a"`, `"e\u0301"`, `"é"`, `true`, `[1]`, `"a/b?c#d"`, `"\"` + `"`, `"a\\b"`, `"a\u200fb"`,
		},
		"event":       {`"order_creation"`, `"order_updation"`, `"invoice_creation"`, `"ORDER_CREATION"`, `" order_creation"`, `"order_creation\u0000"`, `1`},
		"version":     {`0`, `-1`, `1`, `2`, `9223372036854775807`, `9223372036854775808`, `1.0`, `1e2`, `"3"`, `""`},
		"event_id":    {`""`, `"x"`, `"\ud83d"`, `"00000000-0000-0000-0000-000000000000"`, `"2d7a3288-75c9-5ad5-ab72-0a95a812163c"`, `"` + strings.Repeat("e", 129) + `"`, `7`, `"É"`},
		"occurred_at": {`"yesterday"`, `"2010-12-01t08:26:00z"`, `"2016-12-31T23:59:60Z"`, `"2010-12-01 08:26:00"`, `"0000-00-00"`, `"9999-12-31T23:59:59.999999999Z"`, `"2010-12-01T08:26:00+99:00"`, `0`},
		"data": {
			strings.Repeat("[", 99) + strings.Repeat("]", 99), strings.Repeat("[", 32) + strings.Repeat("]", 32), strings.Repeat(`{"a":`, 5000) + "1" + strings.Repeat("}", 5000),
			`{"total":1,"total":999}`, `{"a":"\ud83d"}`, `{"\ud83d":1}`, `{"a":"\u0000"}`, `1e400`, `-0`, `123456789012345678901234567890`, `0.1e-400`, `""`, `"\\"`, `false`,
			`{"":{"":[]}}`, `"` + strings.Repeat("€", 300_000) + `"`, `"` + strings.Repeat("<", 1_000_000) + `"`,
		},
	}[name]
	if len(odd) > 0 && g.IntN(5) > 0 {
		return odd[g.IntN(len(odd))]
	}
	return g.json(3)
}

// json is a random JSON value of at most so many levels.
func (g *garbage) json(depth int) string {
	kind := g.IntN(8)
	if depth == 0 {
		kind = g.IntN(5)
	}
	switch kind {
	case 0:
		return "null"
	case 1:
		return []string{"true", "false"}[g.IntN(2)]
	case 2:
		return fmt.Sprint(g.Int64() >> g.IntN(63))
	case 3:
		return fmt.Sprint(g.NormFloat64())
	case 4:
		text, err := json.Marshal(strings.ToValidUTF8(string(g.bytes(g.IntN(20))), "é"))
		if err != nil {
			return `""`
		}
		return string(text)
	case 5:
		var all []string
		for range g.IntN(4) {
			all = append(all, g.json(depth-1))
		}
		return "[" + strings.Join(all, ",") + "]"
	default:
		var all []string
		for range g.IntN(4) {
			names := []string{"sync_id", "event", "data", "payload", "before", "after", "specversion", "a"}
			all = append(all, fmt.Sprintf("%q:%s", names[g.IntN(len(names))], g.json(depth-1)))
		}
		return "{" + strings.Join(all, ",") + "}"
	}
}
