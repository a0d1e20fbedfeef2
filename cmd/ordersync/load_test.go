package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"ordersync/internal/devstack/devtest"
)

// loadInto gives the environment of a Kafka of the test's own with the topic of channel store.
func loadInto(t *testing.T) (environ map[string]string, published func() int64) {
	t.Helper()
	brokers := devtest.KafkaEmbedded(t).Brokers()
	c := &kafka.Client{Addr: kafka.TCP(brokers...)}
	_, err := c.CreateTopics(t.Context(), &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{Topic: "store", NumPartitions: 1, ReplicationFactor: 1}}})
	require.NoError(t, err)
	return map[string]string{kafkaBrokers: strings.Join(brokers, ",")}, func() int64 {
		offsets, err := c.ListOffsets(t.Context(), &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{"store": {kafka.LastOffsetOf(0)}}})
		require.NoError(t, err)
		return offsets.Topics["store"][0].LastOffset
	}
}

// A file that is no JSON as it is makes one error that says what it is and what to type; what is to be
// typed makes it loadable.
func TestLoadNamesAFormatOnce(t *testing.T) {
	environ, published := loadInto(t)
	var events strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&events, "{\"sync_id\":%d,\"channel\":\"store\",\"event\":\"order_creation\",\"version\":1,\"data\":1}\n", i)
	}
	for name, file := range map[string]struct {
		make, says string
	}{
		"it's orders.json.gz": {"gzip -c", "it is compressed with gzip; nothing was published. Try: gunzip -c "},
		"orders-utf16.ndjson": {"iconv -f UTF-8 -t UTF-16", "it is UTF-16 text; nothing was published. Try: iconv -f UTF-16 -t UTF-8 "},
		"orders-16be.ndjson":  {"iconv -f UTF-8 -t UTF-16BE", "it is UTF-16 text; nothing was published. Try: iconv -f UTF-16BE -t UTF-8 "},
		"orders.geojsons":     {`sed "s/^/$(printf '\036')/"`, "it is a JSON text sequence (RFC 7464); nothing was published. Try: sed "},
		"orders.txt":          {`sed 's/$/,/'`, "it is JSON objects with a comma behind each; nothing was published. Try: sed "},
	} {
		t.Run(name, func(t *testing.T) {
			program, _, _ := strings.Cut(file.make, " ")
			if _, err := exec.LookPath(program); err != nil {
				t.Skip(err)
			}
			path := filepath.Join(t.TempDir(), name)
			convert := shell(t, events.String(), file.make)
			require.NoError(t, os.WriteFile(path, convert, 0o600))
			before := published()
			r := call(t.Context(), environ, "", "load", path)
			require.ErrorContains(t, r.err, path+": "+file.says)
			assert.Empty(t, r.stdout+r.stderr)
			assert.NotContains(t, r.err.Error(), "\n")
			assert.Equal(t, before, published())

			_, line, _ := strings.Cut(r.err.Error(), "Try: ")
			typed, ok := strings.CutSuffix(line, " | ordersync load -")
			require.True(t, ok, line)
			r = call(t.Context(), environ, string(shell(t, "", typed)), "load", "-")
			require.NoError(t, r.err)
			assert.Contains(t, r.stdout, "published 1000 of 1000 records")
		})
	}
	for stdin, want := range map[string]string{
		"":                                  "-: it is empty; nothing was published",
		"sync_id,event\n1,order_creation\n": "-: it is a table (CSV with ',' between the columns); nothing was published. Please write each event as one JSON object on a line",
		"<orders/>":                         "-: it is XML or HTML; nothing was published. Please",
		zip(t, events.String()):             "standard input: it is compressed with gzip; nothing was published. Put a command in between: … | gunzip -c | ordersync load -",
		"[\n{\"sync_id\":1,\"channel\":\"store\"},\n{\"sync_id\":2,\"channel": "the first 1 records are dealt with, the next cannot be read: line 3: the file ends within a JSON value: is it complete?\nmend the file",
	} {
		r := call(t.Context(), environ, stdin, "load", "-")
		require.ErrorContains(t, r.err, want)
	}
}

// Many malformed lines are named up to a bound.
func TestLoadNamesFewMalformedLines(t *testing.T) {
	environ, _ := loadInto(t)
	r := call(t.Context(), environ, strings.Repeat("{\"sync_id\":1}\n", 3000), "load", "-")
	require.ErrorContains(t, r.err, "-: 3000 of 3000 records were not published; the first 10 are named above")
	assert.Equal(t, 10, strings.Count(r.stderr, "\n"), r.stderr)
	assert.Contains(t, r.stderr, "-, line 10: it names no channel")
	r = call(t.Context(), environ, strings.Repeat("{\"sync_id\":1}\n", 3000), "load", "-", "-o", "json")
	require.Error(t, r.err)
	assert.Equal(t, 100, strings.Count(r.stdout, "it names no channel"))
}

// shell runs a command of a person's.
func shell(t *testing.T, stdin, command string) []byte {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", command)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.Output()
	require.NoError(t, err, command)
	return out
}

func zip(t *testing.T, text string) string {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := io.WriteString(w, text)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return out.String()
}
