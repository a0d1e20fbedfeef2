// Package connect makes Temporal clients. Every client of ordersync is made here, because the SDK's own cannot call
// the server about an order whose sync_id is not printable ASCII.
package connect

import (
	"context"
	"slices"
	"strings"

	"go.temporal.io/sdk/client"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
)

// Temporal makes a client and connects it. Every error is that of client.DialContext.
func Temporal(ctx context.Context, options client.Options) (client.Client, error) {
	return client.DialContext(ctx, anyWorkflowID(options))
}

// LazyTemporal makes a client that connects with its first call. Every error is that of client.NewLazyClient.
func LazyTemporal(options client.Options) (client.Client, error) {
	return client.NewLazyClient(anyWorkflowID(options))
}

// resourceID is the header in which the SDK repeats the workflow id of a call, for proxies that route by it. It is
// optional, and the server goes by the call itself (https://github.com/temporalio/features/issues/721).
const resourceID = "temporal-resource-id"

// anyWorkflowID lets a client make calls about any workflow id. The SDK (v1.50) puts the id into a header as it
// is, and gRPC refuses a call with a header that is not printable ASCII. Such a header is left out.
//
// The interceptor runs after all of the SDK's own, so it sees what they have set.
func anyWorkflowID(options client.Options) client.Options {
	options.ConnectionOptions.DialOptions = append(slices.Clip(options.ConnectionOptions.DialOptions),
		grpc.WithChainUnaryInterceptor(dropUnsendableHeader))
	return options
}

func dropUnsendableHeader(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoker grpc.UnaryInvoker, opts ...grpc.CallOption) error {
	if headers, ok := metadata.FromOutgoingContext(ctx); ok && slices.ContainsFunc(headers.Get(resourceID), unsendable) {
		headers.Delete(resourceID)
		ctx = metadata.NewOutgoingContext(ctx, headers)
	}
	return invoker(ctx, method, req, reply, cc, opts...)
}

// unsendable returns whether gRPC refuses a header of this value.
func unsendable(value string) bool {
	return strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r > '~' })
}
