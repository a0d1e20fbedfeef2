package devstack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"

	"github.com/twmb/franz-go/pkg/kfake"
)

// KafkaOptions say where StartKafka keeps its data and listens.
type KafkaOptions struct {
	// Dir is the stack's directory; empty keeps everything in memory.
	Dir    string
	Port   int // 0 is a free one
	Logger *slog.Logger
}

// Kafka is an embedded broker that speaks Kafka's protocol: groups, transactions and retention, one
// node, no replication, no topics but those that are created.
type Kafka struct {
	cluster *kfake.Cluster
	log     *os.File // nil in memory
}

// StartKafka starts the broker. Its writes go to the page cache, as those of Kafka do by default: a
// killed process loses nothing, a power cut may.
func StartKafka(_ context.Context, options KafkaOptions) (_ *Kafka, err error) {
	k := &Kafka{}
	settings := []kfake.Opt{
		kfake.DefaultNumPartitions(6),
		kfake.ListenFn(func(network, address string) (net.Listener, error) {
			listener, err := net.Listen(network, address)
			if err != nil {
				return nil, portError(err, options.Port, "--kafka-port")
			}
			return listener, nil
		}),
		kfake.Ports(options.Port),
	}
	if options.Dir != "" {
		if k.log, err = logFile(options.Dir, "kafka"); err != nil {
			return nil, err
		}
		settings = append(settings,
			kfake.DataDir(filepath.Join(options.Dir, "kafka")),
			kfake.WithLogger(kfake.BasicLogger(k.log, kfake.LogLevelWarn)))
	}
	if k.cluster, err = kfake.NewCluster(settings...); err != nil {
		return nil, errors.Join(fmt.Errorf("start Kafka: %w", err), k.closeLog())
	}
	logger(options.Logger).Info("Kafka is ready", "address", k.Brokers()[0])
	return k, nil
}

// Brokers are the bootstrap addresses.
func (k *Kafka) Brokers() []string { return k.cluster.ListenAddrs() }

// Cluster gives tests a hold on the broker: to inject faults, to look into groups and topics.
func (k *Kafka) Cluster() *kfake.Cluster { return k.cluster }

// Stop closes the broker and what it keeps on disk.
func (k *Kafka) Stop(context.Context) error {
	k.cluster.Close()
	return k.closeLog()
}

func (k *Kafka) closeLog() error {
	if k.log == nil {
		return nil
	}
	return k.log.Close()
}
