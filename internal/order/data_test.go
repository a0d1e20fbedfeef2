package order_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ordersync/internal/order"
)

// Of members with the same key the last counts: MySQL's JSON type keeps only that, and MariaDB, which keeps the text, must
// not find another.
func TestOfMembersWithTheSameKeyTheLastCounts(t *testing.T) {
	many := func(last string) string {
		var members []string
		for i := range 100 {
			members = append(members, fmt.Sprintf(`"key%d":%d`, i, i))
		}
		return "{" + strings.Join(members, ",") + last + "}"
	}
	for data, want := range map[string]string{
		`{"total":1,"total":999}`:                        `{"total":999}`,
		`{"a":1, "b":2, "a":3}`:                          `{"b":2,"a":3}`,
		`{"a":1,"a":2,"a":3}`:                            `{"a":3}`,
		`{"a":1,"\u0061":2}`:                             `{"\u0061":2}`,
		`{"\u00e9":1,"é":2}`:                             `{"é":2}`,
		`{"\ud83d\ude00":1,"😀":2}`:                       `{"😀":2}`,
		`{"\/":1,"/":2,"\"":3,"\u0022":4,"\n":5,"\\":6}`: `{"/":2,"\u0022":4,"\n":5,"\\":6}`,
		`{"\ud800":1,"\ud801":2}`:                        `{"\ud800":1,"\ud801":2}`,
		`{"\ud800":1,"\uFFFD":2}`:                        `{"\ud800":1,"\uFFFD":2}`,
		`{"a":{"b":1,"b":2},"c":[{"d":1,"d":2}]}`:        `{"a":{"b":2},"c":[{"d":2}]}`,
		`{"a":{"b":1,"b":2},"a":{"b":3,"b":4}}`:          `{"a":{"b":4}}`,
		`{"a":{"a":{"a":1}},"b":{"a":2}}`:                `{"a":{"a":{"a":1}},"b":{"a":2}}`,
		`{"":1,"":2}`:                                    `{"":2}`,
		`[{"a":1},{"a":2},"a","a"]`:                      `[{"a":1},{"a":2},"a","a"]`,
		`{"a":"{\"a\":1,\"a\":2}","b":"}"}`:              `{"a":"{\"a\":1,\"a\":2}","b":"}"}`,
		many(`,"key7":"x"`):                              strings.Replace(many(`,"key7":"x"`), `"key7":7,`, "", 1),
		many(`,"key\u0037":"x","key7":"y"`):              strings.Replace(many(`,"key7":"y"`), `"key7":7,`, "", 1),
		`"text"`:                                         `"text"`,
		`{}`:                                             `{}`,
	} {
		got, err := order.ParseData([]byte(data))
		require.NoError(t, err, data)
		require.Equal(t, want, string(got), data)
	}
	e := decode(t, `{"sync_id":1,"event":"order_creation","data":1,"version":1,"version":2,"d\u0061ta":{"b":1}}`)
	require.Equal(t, int64(2), e.Version, "so it is at the top")
	require.JSONEq(t, `{"b":1}`, string(e.Data))
}

func TestManyMembersWithTheSameKeyAreFoundQuickly(t *testing.T) {
	var data bytes.Buffer
	data.WriteByte('{')
	for i := 0; data.Len() < order.MaxValue-20; i++ {
		fmt.Fprintf(&data, `"%x":0,`, i%50_000)
	}
	data.WriteString(`"x":0}`)
	got, err := order.ParseData(data.Bytes())
	require.NoError(t, err)
	require.Equal(t, 50_001, bytes.Count(got, []byte(":")))
}

func TestDepthOfDataIsBounded(t *testing.T) {
	nested := func(levels int) string {
		return strings.Repeat(`[{"a":`, levels/2) + "1" + strings.Repeat("}]", levels/2)
	}
	event := func(data string) order.Record {
		return record(`{"sync_id":1,"event":"order_creation","data":` + data + `}`)
	}
	_, err := order.Decode(event(nested(order.MaxDepth)), order.Online)
	require.NoError(t, err)
	for _, levels := range []int{order.MaxDepth + 2, 9_998, 10_002, 100_000} {
		_, err := order.Decode(event(nested(levels)), order.Online)
		var r *order.Rejection
		require.ErrorAs(t, err, &r, levels)
		require.Equal(t, order.TooDeep, r.Reason, levels)
		_, err = order.ParseData([]byte(nested(levels)))
		require.ErrorAs(t, err, &r, levels)
		require.Equal(t, order.TooDeep, r.Reason, levels)
	}
}

// FuzzParseData holds what it makes of data against what encoding/json does, for which the last of two members counts too.
func FuzzParseData(f *testing.F) {
	for _, data := range []string{
		`{"total":1,"total":999}`, `{"a":1,"\u0061":{"b":[1,{"c":null,"c":1e400}]}}`, `{"\ud83d\ude00":1,"😀":2}`, `[[[]]]`, `"x"`, `-0`,
		`{"a":{"a":1,"b":2},"b":{},"a":[{"a":1,"a":2}]}`, `123456789012345678901234567890`, `{"\\":1,"\u005c":2}`,
	} {
		f.Add([]byte(data))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := order.ParseData(data)
		var r *order.Rejection
		if errors.As(err, &r) {
			return
		}
		if err != nil {
			t.Fatalf("an error of another type: %v", err)
		}
		decoded := func(data []byte) (value any) {
			d := json.NewDecoder(bytes.NewReader(data))
			d.UseNumber()
			if err := d.Decode(&value); err != nil {
				t.Fatalf("%q: %v", data, err)
			}
			return value
		}
		if want := decoded(data); !bytes.Contains(bytes.ToLower(data), []byte(`\ud`)) && !reflect.DeepEqual(want, decoded(got)) {
			t.Fatalf("%q became %q", data, got)
		}
		if again, err := order.ParseData(got); err != nil || !bytes.Equal(again, got) {
			t.Fatalf("%q is not final: %q, %v", got, again, err)
		}
	})
}
