package workflows

import (
	"bytes"
	"encoding/json"
	"fmt"

	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"
)

// DataConverter encodes payloads as the SDK's default does, except that JSON is written without
// HTML escapes: those would turn an order's data of 1 MiB of "<" into 6 MiB, more than the server
// takes. Every client that starts, signals or works on OrderSync uses it. What it writes any other
// converter can read.
func DataConverter() converter.DataConverter {
	return converter.NewCompositeDataConverter(
		converter.NewNilPayloadConverter(),
		converter.NewByteSlicePayloadConverter(),
		converter.NewProtoJSONPayloadConverter(),
		converter.NewProtoPayloadConverter(),
		plainJSON{converter.NewJSONPayloadConverter()},
	)
}

type plainJSON struct {
	*converter.JSONPayloadConverter
}

func (c plainJSON) ToPayload(value any) (*commonpb.Payload, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(value); err != nil {
		return nil, fmt.Errorf("%w: %w", converter.ErrUnableToEncode, err)
	}
	return &commonpb.Payload{
		Metadata: map[string][]byte{converter.MetadataEncoding: []byte(c.Encoding())},
		Data:     bytes.TrimRight(out.Bytes(), "\n"),
	}, nil
}
