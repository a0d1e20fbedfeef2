package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"ordersync/internal/order"
)

// Secret is a value that is never printed, whichever verb, logger or encoder it meets. Convert it
// to a string to use it.
type Secret string

const masked = "***"

func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return masked
}

// GoString masks the secret for %#v.
func (s Secret) GoString() string { return strconv.Quote(s.String()) }

// LogValue masks the secret for slog.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// MarshalText masks the secret for encoders.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Brokers are the bootstrap servers, host:port each.
type Brokers []string

// UnmarshalText reads addresses separated by commas.
func (b *Brokers) UnmarshalText(text []byte) error {
	*b = nil
	var problems []error
	for item := range strings.SplitSeq(string(text), ",") {
		address := strings.TrimSpace(item)
		if err := checkAddress(address); err != nil {
			problems = append(problems, err)
		}
		*b = append(*b, address)
	}
	return errors.Join(problems...)
}

// String is the form UnmarshalText reads.
func (b Brokers) String() string { return strings.Join(b, ",") }

// checkAddress wants a host to connect to and a port.
func checkAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil || host == "" {
		return fmt.Errorf("%q is not host:port", address)
	}
	return checkPort(address, port)
}

func checkPort(address, port string) error {
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return fmt.Errorf("%q does not end in a port from 1 to 65535", address)
	}
	return nil
}

// Topics are the topics that are read, each with the channel its events belong to. A channel may
// have several topics; one that is not named is not read.
type Topics map[string]order.Channel

// topicName is what Kafka accepts as a topic's name
// (https://github.com/apache/kafka/blob/4.0/clients/src/main/java/org/apache/kafka/common/internals/Topic.java).
var topicName = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,249}$`)

// UnmarshalText reads channel=topic pairs separated by commas.
func (t *Topics) UnmarshalText(text []byte) error {
	*t = Topics{}
	var problems []error
	for item := range strings.SplitSeq(string(text), ",") {
		name, topic, found := strings.Cut(strings.TrimSpace(item), "=")
		channel := order.Channel(strings.TrimSpace(name))
		topic = strings.TrimSpace(topic)
		other, taken := (*t)[topic]
		switch {
		case !found:
			problems = append(problems, fmt.Errorf("%q is not channel=topic", strings.TrimSpace(item)))
		case !slices.Contains(order.Channels, channel):
			problems = append(problems, fmt.Errorf("unknown channel %q, the channels are %s", name, channelNames()))
		case !topicName.MatchString(topic):
			problems = append(problems, fmt.Errorf("%q is no name of a topic: 1 to 249 of a-z, A-Z, 0-9, '.', '_', '-'", topic))
		case taken && other != channel:
			problems = append(problems, fmt.Errorf("topic %q is given to both %s and %s", topic, other, channel))
		default:
			(*t)[topic] = channel
		}
	}
	return errors.Join(problems...)
}

// String is the form UnmarshalText reads, sorted by channel.
func (t Topics) String() string {
	var pairs []string
	for topic, channel := range t {
		pairs = append(pairs, string(channel)+"="+topic)
	}
	slices.Sort(pairs)
	return strings.Join(pairs, ",")
}

// Names are the topics' names, sorted.
func (t Topics) Names() []string {
	var names []string
	for topic := range t {
		names = append(names, topic)
	}
	slices.Sort(names)
	return names
}

// backfillSuffix makes the name of the topic that a backfill publishes to.
const backfillSuffix = ".backfill"

// Backfill are the topics of backfills, one beside each topic, with the same channel.
func (t Topics) Backfill() Topics {
	beside := make(Topics, len(t))
	for topic, channel := range t {
		beside[topic+backfillSuffix] = channel
	}
	return beside
}

// ByChannel is the topic of each channel; of several the first by name.
func (t Topics) ByChannel() map[order.Channel]string {
	topics := map[order.Channel]string{}
	for _, topic := range t.Names() {
		if channel := t[topic]; topics[channel] == "" {
			topics[channel] = topic
		}
	}
	return topics
}

func channelNames() string {
	var names []string
	for _, c := range order.Channels {
		names = append(names, string(c))
	}
	return strings.Join(names, ", ")
}
