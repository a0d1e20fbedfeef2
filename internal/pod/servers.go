package pod

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/grpc"

	"ordersync/internal/config"
	"ordersync/internal/connect"
	"ordersync/internal/publish"
	"ordersync/internal/target"
	"ordersync/internal/telemetry"
	"ordersync/workflows"
)

// clientID is how ordersync names itself to the brokers.
const clientID = "ordersync"

// NewTemporal makes a client without contacting the server. A nil metrics handler counts nothing; the
// interceptors see its calls.
func NewTemporal(cfg config.Config, log *slog.Logger, metrics client.MetricsHandler, interceptors ...grpc.UnaryClientInterceptor) (client.Client, error) {
	options := cfg.Temporal.Client
	if len(interceptors) > 0 {
		options.ConnectionOptions.DialOptions = append(slices.Clone(options.ConnectionOptions.DialOptions), grpc.WithChainUnaryInterceptor(interceptors...))
	}
	options.DataConverter = workflows.DataConverter()
	options.Logger = telemetry.SDKLogger(log)
	options.MetricsHandler = metrics
	c, err := connect.LazyTemporal(options)
	if err != nil {
		return nil, fmt.Errorf("Temporal client: %w; check the TEMPORAL_ variables", err)
	}
	return c, nil
}

// DialTemporal makes a client and asks the server for its namespace, so that the error says what to
// do when either is not there.
func DialTemporal(ctx context.Context, cfg config.Config, log *slog.Logger) (client.Client, error) {
	c, err := NewTemporal(cfg, log, nil)
	if err != nil {
		return nil, err
	}
	if err := try(ctx, func(ctx context.Context) error { return checkTemporal(ctx, c, cfg) }); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// checkTemporal asks for the namespace: that needs the server, the credentials and the namespace.
func checkTemporal(ctx context.Context, c client.Client, cfg config.Config) error {
	address, namespace := cfg.Temporal.Client.HostPort, cfg.Temporal.Client.Namespace
	_, err := c.WorkflowService().DescribeNamespace(ctx, &workflowservice.DescribeNamespaceRequest{Namespace: namespace})
	var (
		noNamespace *serviceerror.NamespaceNotFound
		notFound    *serviceerror.NotFound
		denied      *serviceerror.PermissionDenied
	)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &noNamespace), errors.As(err, &notFound):
		return fmt.Errorf("Temporal at %s has no namespace %s: create it (temporal operator namespace create -n %s) or change TEMPORAL_NAMESPACE", address, namespace, namespace)
	case errors.As(err, &denied):
		return fmt.Errorf("Temporal at %s refuses access to namespace %s: check TEMPORAL_API_KEY or the client certificate: %w", address, namespace, err)
	default:
		return fmt.Errorf("Temporal at %s does not answer; is it up, are TEMPORAL_ADDRESS and TEMPORAL_TLS right?: %w", address, err)
	}
}

// KafkaTransport connects to the brokers for fetching, producing and administration. Metadata is
// asked for every second and for ordersync's own topics only: with kafka-go's 6 s, that is how
// long calls fail after a partition's leader has died.
func KafkaTransport(cfg config.Config) *kafka.Transport {
	return &kafka.Transport{
		DialTimeout:    5 * time.Second,
		MetadataTTL:    time.Second,
		MetadataTopics: append(cfg.Kafka.AllTopics().Names(), cfg.Kafka.DeadLetterTopic),
		ClientID:       clientID,
		TLS:            cfg.Kafka.TLS,
		SASL:           cfg.Kafka.SASL,
	}
}

// KafkaDialer connects to the brokers for the consumer group.
func KafkaDialer(cfg config.Config) *kafka.Dialer {
	return &kafka.Dialer{
		ClientID:      clientID,
		Timeout:       3 * time.Second,
		DualStack:     true,
		TLS:           cfg.Kafka.TLS,
		SASLMechanism: cfg.Kafka.SASL,
	}
}

// NewProducer writes to Kafka over transport, dead letters to the configured topic.
func NewProducer(cfg config.Config, transport kafka.RoundTripper) *publish.Producer {
	return publish.New(publish.Options{
		Brokers: cfg.Kafka.Brokers, Transport: transport, DeadLetterTopic: cfg.Kafka.DeadLetterTopic,
	})
}

// OpenTarget opens the target without contacting it.
func OpenTarget(cfg config.Config, log *slog.Logger) (*target.Target, error) {
	return target.Open(string(cfg.MySQL.DSN), target.Options{MaxConns: cfg.MySQL.MaxConns, Logger: log})
}
