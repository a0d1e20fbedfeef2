package telemetry

import (
	"io"
	"log/slog"

	temporallog "go.temporal.io/sdk/log"
)

// NewLogger writes JSON lines. The keys are the same everywhere: order, event, topic, partition,
// offset, generation, channel, error, attempt, reason, address.
func NewLogger(out io.Writer, level slog.Leveler) *slog.Logger {
	return slog.New(slog.NewJSONHandler(out, &slog.HandlerOptions{Level: level, ReplaceAttr: sameKeys}))
}

// sdkKeys are the SDK's names for what has a name of ours.
var sdkKeys = map[string]string{"Error": "error", "Attempt": "attempt", "Reason": "reason"}

func sameKeys(groups []string, attr slog.Attr) slog.Attr {
	if ours, ok := sdkKeys[attr.Key]; ok && len(groups) == 0 {
		attr.Key = ours
	}
	return attr
}

// SDKLogger is log for the Temporal SDK.
func SDKLogger(log *slog.Logger) temporallog.Logger {
	return temporallog.NewStructuredLogger(log.With("component", "temporal-sdk"))
}
