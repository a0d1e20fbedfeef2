package config

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caarlos0/env/v11"
	"github.com/go-sql-driver/mysql"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/contrib/envconfig"
)

// Environ is the process's environment in the form that Load takes.
func Environ() map[string]string { return env.ToMap(os.Environ()) }

// Error is every problem of a configuration, one a line.
type Error struct {
	Problems []string
}

func (e *Error) Error() string {
	return "the configuration is not usable:\n  " + strings.Join(e.Problems, "\n  ")
}

// Load reads the configuration from environ; a variable that is set but empty counts as unset.
// required names variables without a default that this process cannot do without. The error is an
// *Error with all problems, none of which quotes a secret.
func Load(environ map[string]string, required ...string) (Config, error) {
	var c Config
	var problems []string
	report := func(name string, err error) {
		for line := range strings.SplitSeq(err.Error(), "\n") {
			problems = append(problems, name+": "+line)
		}
	}

	given := map[string]string{}
	for name, value := range environ {
		if strings.TrimSpace(value) != "" {
			given[name] = value
		}
	}
	malformed := map[string]bool{}
	var all env.AggregateError
	if err := env.ParseWithOptions(&c, env.Options{Environment: given}); errors.As(err, &all) {
		for _, err := range all.Errors {
			var parse env.ParseError
			if !errors.As(err, &parse) {
				report("environment", err)
				continue
			}
			v := variableOf(parse.Name)
			malformed[v.Name] = true
			report(v.Name, v.explain(given[v.Name], parse.Err))
		}
	}
	for _, v := range Variables() {
		if given[v.Name] == "" && slices.Contains(required, v.Name) {
			report(v.Name, fmt.Errorf("is not set: %s", v.Usage))
		}
		if v.field != nil && !malformed[v.Name] {
			if err := v.checkRange(reflect.ValueOf(c).FieldByIndex(v.field)); err != nil {
				report(v.Name, err)
			}
		}
	}
	c.resolveTemporal(given, report)
	c.Kafka.resolve(malformed, report)
	c.MySQL.check(report)
	c.ERP.check(report)
	if c.EagerStart && c.MySQL.DSN == "" {
		report("EAGER_START", errors.New("puts a worker into the starter's process, which needs MYSQL_DSN"))
	}
	if c.HTTPAddress != NoServer {
		if _, port, err := net.SplitHostPort(c.HTTPAddress); err != nil {
			report("HTTP_ADDRESS", fmt.Errorf("%q is neither host:port nor :port nor %s", c.HTTPAddress, NoServer))
		} else if _, err := strconv.ParseUint(port, 10, 16); err != nil {
			report("HTTP_ADDRESS", fmt.Errorf("%q does not end in a port from 0 to 65535", c.HTTPAddress))
		}
	}
	if len(problems) > 0 {
		slices.Sort(problems)
		return Config{}, &Error{Problems: problems}
	}
	return c, nil
}

// explain makes of a parser's error what its reader needs: what was given, what is expected.
func (v Variable) explain(value string, err error) error {
	switch v.kind {
	case kindInt:
		return fmt.Errorf("%q is no whole number, such as %s", value, v.Default)
	case kindDuration:
		return fmt.Errorf("%q is no duration, such as %s", value, v.Default)
	case kindBool:
		return fmt.Errorf("%q is neither true nor false", value)
	default:
		return err
	}
}

func (v Variable) checkRange(value reflect.Value) error {
	if v.Min == "" {
		return nil
	}
	var low, high int64
	if v.kind == kindDuration {
		low, high = int64(mustParse(time.ParseDuration(v.Min))), int64(mustParse(time.ParseDuration(v.Max)))
	} else {
		low, high = mustParse(strconv.ParseInt(v.Min, 10, 64)), mustParse(strconv.ParseInt(v.Max, 10, 64))
	}
	if n := value.Int(); n < low || n > high {
		return fmt.Errorf("%v is not within %s and %s", value.Interface(), v.Min, v.Max)
	}
	return nil
}

// mustParse is for the tags of Config: they are part of the program.
func mustParse[T any](value T, err error) T {
	if err != nil {
		panic(fmt.Sprintf("config: a tag does not parse: %v", err))
	}
	return value
}

// lookup gives the SDK's envconfig the same variables. Empty ones are gone from it: to envconfig an
// empty TEMPORAL_TLS_SERVER_NAME, say from a ConfigMap, would switch TLS on.
type lookup map[string]string

func (l lookup) Environ() []string {
	var pairs []string
	for name, value := range l {
		pairs = append(pairs, name+"="+value)
	}
	return pairs
}

func (l lookup) LookupEnv(name string) (string, bool) {
	value, ok := l[name]
	return value, ok
}

func (c *Config) resolveTemporal(given map[string]string, report func(string, error)) {
	c.Temporal.variables = maps.Clone(given)
	maps.DeleteFunc(c.Temporal.variables, func(name, _ string) bool { return !strings.HasPrefix(name, "TEMPORAL_") })

	options, err := envconfig.LoadClientOptions(envconfig.LoadClientOptionsRequest{
		EnvLookup: lookup(given),
		// The profile of a developer's own temporal.toml must not leak its TLS and keys into the
		// connection of a process that was given an address: the file is read only when asked for.
		DisableFile: given["TEMPORAL_CONFIG_FILE"] == "" && given["TEMPORAL_PROFILE"] == "",
	})
	if err != nil {
		report("TEMPORAL_*", err)
		return
	}
	options.HostPort = cmp.Or(options.HostPort, client.DefaultHostPort)
	options.Namespace = cmp.Or(options.Namespace, client.DefaultNamespace)
	if err := checkAddress(options.HostPort); err != nil {
		report("TEMPORAL_ADDRESS", err)
	}
	c.Temporal.Client = options
}

// resolve checks what concerns several variables and makes TLS and SASL of them.
func (k *Kafka) resolve(malformed map[string]bool, report func(string, error)) {
	if !topicName.MatchString(k.DeadLetterTopic) {
		report("KAFKA_DEAD_LETTER_TOPIC", fmt.Errorf("%q is no name of a topic", k.DeadLetterTopic))
	}
	if !malformed["KAFKA_TOPICS"] {
		k.checkBackfillTopics(report)
	}
	if channel, ok := k.AllTopics()[k.DeadLetterTopic]; ok && !malformed["KAFKA_TOPICS"] {
		report("KAFKA_DEAD_LETTER_TOPIC", fmt.Errorf("%q is also a topic of %s: dead letters would be read as events", k.DeadLetterTopic, channel))
	}
	var err error
	if k.TLS, err = k.tlsConfig(); err != nil {
		report("KAFKA_TLS_*", err)
	}
	switch mechanism := strings.ToLower(k.SASLMechanism); mechanism {
	case "":
		if k.Username != "" || k.Password != "" {
			report("KAFKA_SASL_MECHANISM", errors.New("is not set, but KAFKA_SASL_USERNAME or KAFKA_SASL_PASSWORD is"))
		}
	case "plain":
		k.SASL = plain.Mechanism{Username: k.Username, Password: string(k.Password)}
	case "scram-sha-256", "scram-sha-512":
		algorithm := scram.SHA256
		if mechanism == "scram-sha-512" {
			algorithm = scram.SHA512
		}
		if k.SASL, err = scram.Mechanism(algorithm, k.Username, string(k.Password)); err != nil {
			report("KAFKA_SASL_*", errors.New("user or password has a character that SCRAM does not allow"))
		}
	default:
		report("KAFKA_SASL_MECHANISM", fmt.Errorf("%q is none of plain, scram-sha-256, scram-sha-512", k.SASLMechanism))
	}
	if k.SASL != nil && (k.Username == "" || k.Password == "") {
		report("KAFKA_SASL_MECHANISM", fmt.Errorf("%s needs KAFKA_SASL_USERNAME and KAFKA_SASL_PASSWORD", k.SASLMechanism))
	}
}

// checkBackfillTopics checks the names that come of the topics' own.
func (k *Kafka) checkBackfillTopics(report func(string, error)) {
	for _, topic := range k.Topics.Names() {
		beside := topic + backfillSuffix
		if _, taken := k.Topics[beside]; taken {
			report("KAFKA_TOPICS", fmt.Errorf("%q is the topic of backfills to %q, which are read at a limited rate: take another name", beside, topic))
		}
		if !topicName.MatchString(beside) {
			report("KAFKA_TOPICS", fmt.Errorf("topic %q is too long: the name of its topic for backfills, with %s at its end, may have 249 characters", topic, backfillSuffix))
		}
	}
}

func (k *Kafka) tlsConfig() (*tls.Config, error) {
	if !k.TLSEnabled {
		if k.TLSCAFile != "" || k.TLSCertFile != "" || k.TLSKeyFile != "" {
			return nil, errors.New("files are named, but KAFKA_TLS_ENABLED is not true")
		}
		return nil, nil
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if k.TLSCAFile != "" {
		pem, err := os.ReadFile(k.TLSCAFile)
		if err != nil {
			return nil, fmt.Errorf("KAFKA_TLS_CA_FILE: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("KAFKA_TLS_CA_FILE: %s has no PEM certificate", k.TLSCAFile)
		}
	}
	if (k.TLSCertFile == "") != (k.TLSKeyFile == "") {
		return nil, errors.New("KAFKA_TLS_CERT_FILE and KAFKA_TLS_KEY_FILE go together, only one is set")
	}
	if k.TLSCertFile != "" {
		cert, err := tls.LoadX509KeyPair(k.TLSCertFile, k.TLSKeyFile)
		if err != nil {
			return nil, fmt.Errorf("KAFKA_TLS_CERT_FILE, KAFKA_TLS_KEY_FILE: %w", err)
		}
		conf.Certificates = []tls.Certificate{cert}
	}
	return conf, nil
}

func (m *MySQL) check(report func(string, error)) {
	if m.DSN == "" {
		return
	}
	dsn, err := mysql.ParseDSN(string(m.DSN))
	switch {
	case err != nil: // which may quote a part of the password
		report("MYSQL_DSN", errors.New("is not user:password@tcp(host:port)/schema?parameter=value"))
	case dsn.DBName == "":
		report("MYSQL_DSN", errors.New("names no schema; ordersync wants one of its own, after the last slash"))
	}
}
