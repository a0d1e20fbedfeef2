// Package config reads the environment variables of every ordersync process into one struct. They
// are the same for worker, starter and command, are declared once, by the tags below, and all
// their problems are reported at once.
//
// Temporal's connection is the exception: TEMPORAL_ADDRESS and its siblings are read by the SDK's
// own envconfig, so that they mean what they mean to the temporal CLI.
package config

import (
	"crypto/tls"
	"log/slog"
	"maps"
	"time"

	"github.com/segmentio/kafka-go/sasl"
	"go.temporal.io/sdk/client"
)

// Config is the effective configuration of a process. A loaded one is complete: files are read,
// certificates parsed, defaults filled in.
//
// Tags: env names the variable, envDefault its default, usage is for --help, min and max are
// the bounds of a number or a duration.
type Config struct {
	Temporal Temporal `envPrefix:"TEMPORAL_"`
	Kafka    Kafka    `envPrefix:"KAFKA_"`
	MySQL    MySQL    `envPrefix:"MYSQL_"`
	ERP      ERP      `envPrefix:"ERP_"`

	// EagerStart puts a worker into the starter's process: Temporal then hands the first workflow
	// task of a new order to it in the answer to the start. It needs MYSQL_DSN in the starter.
	EagerStart bool `env:"EAGER_START" envDefault:"false" usage:"run a worker inside the starter, which new orders then start on at once (needs MYSQL_DSN)"`

	// HoldWindow and IdleTimeout reach an order with its next run, in the workflow's input.
	HoldWindow  time.Duration `env:"HOLD_WINDOW" envDefault:"1m" min:"0s" max:"168h" usage:"how long an update or invoice waits for the creation of its order"`
	IdleTimeout time.Duration `env:"IDLE_TIMEOUT" envDefault:"720h" min:"0s" max:"87600h" usage:"how long the workflow of an open order with nothing to do stays open; 0s completes it at once"`

	// MaxRetrying is the number of orders in SyncStatus retrying above which nothing is fetched.
	MaxRetrying int `env:"MAX_RETRYING" envDefault:"1000" min:"1" max:"1000000" usage:"the starter stops fetching while more orders than this are retrying"`
	// MaxInFlight counts fetched offsets above the committed one, in each partition.
	MaxInFlight int `env:"MAX_IN_FLIGHT" envDefault:"10000" min:"1" max:"1000000" usage:"fetched but uncommitted records of a partition, at most: what a restart may read again"`

	// BackfillRate bounds what a backfill may take from new orders. With 0 its topics need not exist.
	BackfillRate int `env:"BACKFILL_RATE" envDefault:"30" min:"0" max:"100000" usage:"events of backfills that a starter reads in a second, at most, and fewer while Temporal is slow; 0 reads none of them"`

	// AlertWebhook takes a POST when orders get blocked. Its URL is a secret, as such URLs tend to be.
	AlertWebhook Secret `env:"ALERT_WEBHOOK_URL" usage:"gets a JSON POST when orders get blocked, at most one a minute per reason; none if unset"`

	HTTPAddress string     `env:"HTTP_ADDRESS" envDefault:":8080" usage:"where /healthz, /readyz and /metrics are served; none for no server"`
	LogLevel    slog.Level `env:"LOG_LEVEL" envDefault:"INFO" usage:"DEBUG, INFO, WARN or ERROR"`
	// WorkerStopTimeout is what a stopping worker gives the tasks it is in.
	WorkerStopTimeout time.Duration `env:"WORKER_STOP_TIMEOUT" envDefault:"5s" min:"1s" max:"7s" usage:"how long a stopping worker waits for the steps under way"`
}

// NoServer as HTTPAddress means that nothing is served.
const NoServer = "none"

// Temporal is the connection to the Temporal server and the task queue of worker and starter.
type Temporal struct {
	TaskQueue string `env:"TASK_QUEUE" envDefault:"ordersync" usage:"the task queue of the workers"`

	// Client has what the SDK's envconfig read: address, namespace, TLS, credentials, headers.
	Client client.Options `env:"-"`

	variables map[string]string // the TEMPORAL_ variables that were set, for the log
}

// Kafka is the connection to the brokers and the topics.
type Kafka struct {
	Brokers         Brokers `env:"BROKERS" usage:"bootstrap servers, host:port separated by commas"`
	Group           string  `env:"GROUP" envDefault:"ordersync" usage:"the starter's consumer group"`
	Topics          Topics  `env:"TOPICS" envDefault:"online=online,store=store,international=international" usage:"the topics read, channel=topic separated by commas; the channels are online, store, international"`
	DeadLetterTopic string  `env:"DEAD_LETTER_TOPIC" envDefault:"order-events.dead-letter" usage:"where records go that cannot be applied"`

	SASLMechanism string `env:"SASL_MECHANISM" usage:"plain, scram-sha-256 or scram-sha-512; none if unset"`
	Username      string `env:"SASL_USERNAME" usage:"SASL user"`
	Password      Secret `env:"SASL_PASSWORD" usage:"SASL password"`

	TLSEnabled  bool   `env:"TLS_ENABLED" envDefault:"false" usage:"speak TLS to the brokers"`
	TLSCAFile   string `env:"TLS_CA_FILE" usage:"PEM file of the authorities to trust instead of the system's"`
	TLSCertFile string `env:"TLS_CERT_FILE" usage:"PEM file of the client's certificate"`
	TLSKeyFile  string `env:"TLS_KEY_FILE" usage:"PEM file of the client's key"`

	// TLS is made of the four above; nil without TLS.
	TLS *tls.Config `env:"-"`
	// SASL is made of mechanism, user and password; nil without SASL.
	SASL sasl.Mechanism `env:"-"`
}

// BackfillTopics are the topics that backfills publish to, with their channels.
func (k Kafka) BackfillTopics() Topics { return k.Topics.Backfill() }

// AllTopics are all that events are published to: Topics and those of backfills.
func (k Kafka) AllTopics() Topics {
	all := k.BackfillTopics()
	maps.Copy(all, k.Topics)
	return all
}

// MySQL is the connection to the target.
type MySQL struct {
	DSN      Secret `env:"DSN" usage:"the target, a schema of its own: user:password@tcp(host:3306)/schema"`
	MaxConns int    `env:"MAX_CONNS" envDefault:"16" min:"1" max:"1000" usage:"connections to the target, and steps applied at the same time, at most"`
}

// ERP is the source that is polled, if there is one.
type ERP struct {
	Source string `env:"SOURCE" usage:"what the ERP is polled through: http, mysql or postgres; nothing is polled if unset"`
	// URL may hold a password.
	URL          Secret        `env:"URL" usage:"http: the base URL; mysql: user:password@tcp(host:3306)/schema; postgres: postgres://user:password@host:5432/database"`
	Token        Secret        `env:"TOKEN" usage:"http: the bearer token"`
	User         string        `env:"USERNAME" usage:"http: user of basic authentication"`
	UserPassword Secret        `env:"PASSWORD" usage:"http: password of basic authentication"`
	Queries      string        `env:"QUERIES" usage:"mysql, postgres: a directory of .sql files, a query for changes in each"`
	Orders       string        `env:"ORDERS_QUERY" usage:"mysql, postgres: a .sql file, the query for the orders as they stand, which reconcile compares"`
	Timeout      time.Duration `env:"TIMEOUT" envDefault:"30s" min:"1s" max:"10m" usage:"how long the ERP may take for a page"`
	// Interval, From and Overlap reach the poll with `ordersync schedule apply`.
	Interval time.Duration `env:"POLL_INTERVAL" envDefault:"10s" min:"1s" max:"24h" usage:"the time between two polls"`
	Overlap  time.Duration `env:"OVERLAP" envDefault:"1m" min:"0s" max:"24h" usage:"how far before its last row a poll begins again: longer than the ERP takes to commit"`
	PageSize int           `env:"PAGE_SIZE" envDefault:"1000" min:"1" max:"10000" usage:"rows of a page"`
}
