package order_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"ordersync/internal/order"
)

// Texts in a line mean the same, and no two lines do.
var meanings = [][]string{
	{`{"a":1,"b":2}`, `{"b":2,"a":1}`, " {\"a\" :\t1,\r\n\"b\":2 } ", `{"b":0,"a":1,"b":2}`, `{"\u0061":1,"b":2}`},
	{`1`, `1.0`, `10e-1`, `0.1E1`, `1e0`, ` 1 `},
	{`-1`, `-1.0`},
	{`100`, `1e2`, `100.000`, `1E+2`},
	{`0`, `-0`, `0.0`, `-0.0`, `0e5`, `1e-400`},
	{`18446744073709551615`},
	{`18446744073709551614`},
	{`-9223372036854775808`},
	{`-9.223372036854775808e18`, `-9223372036854775809`}, // below 64 bits the second, a float64 as the first
	{`-9223372036854775807`},
	{`9007199254740993`}, // 2^53+1, which is no float64
	{`9007199254740992`},
	{`9007199254740990`, `9007199254740993.0`, `9.00719925474099e15`}, // and MySQL makes one of the second
	{`18446744073709551616`, `1.8446744073709552e19`},                 // above 64 bits of the first as well
	{`0.1`, `1e-1`, `0.10`},
	{`0.3`, `0.30000000000000004`, `0.29999999999999999`},
	{`0.300000000000001`},
	{`964.15`, `964.1500000000001`},
	{`964`, `963.9999999999999`, `964.0000000000001`},
	{`9088544342.69`, `9088544342.689999`},
	{`9088544342.68999`},
	{`-0.00123456789012345`, `-1.23456789012345e-3`},
	{`1.7976931348623157e308`, `1.7976931348623155e308`},
	{`1e400`},
	{`1e401`},
	{`"é"`, `"\u00e9"`, `"\u00E9"`},
	{`"e"`},
	{`"/"`, `"\/"`},
	{`"😀"`, `"\ud83d\ude00"`},
	{`"\ud83d"`, `"\uD83D"`}, // halves of pairs, which no text has
	{`"\ud83e"`},
	{`"\ude00\ud83d"`},
	{`"\ud83d\n"`, `"\ud83d\u000a"`},
	{`"�"`, `"\ufffd"`},
	{`"\n"`, `"\u000a"`},
	{`"\\n"`},
	{`"\""`},
	{`"1"`},
	{`""`},
	{`" "`},
	{`"null"`},
	{`null`},
	{`true`},
	{`false`},
	{`[]`, ` [ ] `},
	{`{}`, ` { } `},
	{`[[]]`},
	{`[{}]`},
	{`[1,2]`, `[1.0, 2e0]`},
	{`[2,1]`},
	{`[12]`},
	{`["ab",""]`},
	{`["a","b"]`},
	{`{"a":{"b":[null,{"c":true}]}}`, `{"a": {"b": [null, {"c": true}]}}`},
	{`{"a":{"b":[null,{"c":false}]}}`},
	{`{"a":null}`},
	{`{"":null}`},
	{`{"a":null,"b":null}`, `{"b":{"b":1},"a":1,"a":null,"b":null}`},
	{`{"b":null}`},
	{`no JSON`},
	{`{"a":1`},
	{``},
}

// What was written with 15 digits survives a parser that is off by one float64, whatever the digits.
func TestMeaningOfNeighbours(t *testing.T) {
	for range 10_000 {
		f, err := strconv.ParseFloat(fmt.Sprintf("%.15ge%d", 1+9*rand.Float64(), rand.IntN(60)-30), 64)
		require.NoError(t, err)
		written := strconv.AppendFloat(nil, f, 'e', -1, 64)
		for _, towards := range []float64{math.Inf(-1), math.Inf(1)} {
			next := strconv.AppendFloat(nil, math.Nextafter(f, towards), 'e', -1, 64)
			require.Equal(t, order.MeaningOf(written), order.MeaningOf(next), "%s and %s", written, next)
		}
	}
}

func TestMeaning(t *testing.T) {
	seen := map[order.Meaning]string{}
	for _, texts := range meanings {
		first := order.MeaningOf([]byte(texts[0]))
		require.NotContains(t, seen, first, "%s and %s", texts[0], seen[first])
		seen[first] = texts[0]
		for _, text := range texts[1:] {
			require.Equal(t, first, order.MeaningOf([]byte(text)), "%s and %s", texts[0], text)
		}
	}
}

// A digest of deep data takes no longer than one of flat data, and data that is too deep is no JSON
// to us, on neither side.
func TestMeaningOfDeepData(t *testing.T) {
	nested := func(depth int) []byte {
		return []byte(strings.Repeat(`{"a":[`, depth) + strings.Repeat(`]}`, depth))
	}
	require.NotEqual(t, order.MeaningOf(nested(2000)), order.MeaningOf(nested(2001)))
	require.Equal(t, order.MeaningOf(nested(100_000)), order.MeaningOf(nested(100_000)))
}

// FuzzMeaning holds the digests of two texts against what they decode to.
func FuzzMeaning(f *testing.F) {
	for i, texts := range meanings {
		f.Add([]byte(texts[0]), []byte(texts[len(texts)-1]))
		f.Add([]byte(texts[0]), []byte(meanings[(i+1)%len(meanings)][0]))
	}
	f.Fuzz(func(t *testing.T, x, y []byte) {
		if !json.Valid(x) || !json.Valid(y) || !utf8.Valid(x) || !utf8.Valid(y) {
			if bytes.Equal(x, y) != (order.MeaningOf(x) == order.MeaningOf(y)) && !json.Valid(x) && !json.Valid(y) {
				t.Errorf("%q and %q", x, y)
			}
			return
		}
		vx, vy := naive(t, x), naive(t, y)
		if strings.ContainsRune(fmt.Sprint(vx, vy), utf8.RuneError) {
			return // which encoding/json also makes of every half of a surrogate pair
		}
		if equal := reflect.DeepEqual(vx, vy); equal != (order.MeaningOf(x) == order.MeaningOf(y)) {
			t.Errorf("%s and %s: they are equal: %t", x, y, equal)
		}
		// The same data as a server might write it.
		again, err := json.MarshalIndent(vx, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if bytes.ContainsAny(x, "0123456789") {
			return // naive has made strings of numbers
		}
		if order.MeaningOf(again) != order.MeaningOf(x) {
			t.Errorf("%s and %s", x, again)
		}
	})
}

// naive decodes JSON into what DeepEqual compares as MySQL does. A number is a text that no string
// looks like.
func naive(t *testing.T, data []byte) any {
	t.Helper()
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		t.Fatal(err)
	}
	return plain(value)
}

type numeral string

func plain(value any) any {
	switch v := value.(type) {
	case json.Number:
		if n, ok := new(big.Int).SetString(v.String(), 10); ok && (n.IsInt64() || n.IsUint64()) {
			return numeral(n.String())
		}
		f, err := strconv.ParseFloat(v.String(), 64)
		if err != nil {
			return numeral(v)
		}
		rounded := fmt.Sprintf("%.15g", f)
		if f, err = strconv.ParseFloat(rounded, 64); err == nil && f == math.Trunc(f) && f >= math.MinInt64 && f < 1<<64 {
			n, _ := big.NewFloat(f).Int(nil)
			return numeral(n.String())
		}
		return numeral(rounded)
	case []any:
		for i := range v {
			v[i] = plain(v[i])
		}
	case map[string]any:
		for key := range v {
			v[key] = plain(v[key])
		}
	}
	return value
}

func BenchmarkMeaning(b *testing.B) {
	data := []byte(`{"lines":[{"sku":"85123A","name":"WHITE HANGING HEART T-LIGHT HOLDER","quantity":6,"price":2.55},` +
		`{"sku":"71053","name":"WHITE METAL LANTERN","quantity":6,"price":3.39}],"customer":"17850","country":"United Kingdom",` +
		`"placed_at":"2026-01-02T03:04:05Z","total":35.64,"note":"leave at the \"blue\" door"}`)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		order.MeaningOf(data)
	}
}
