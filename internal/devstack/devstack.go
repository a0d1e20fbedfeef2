// Package devstack runs the three engines ordersync stands on, for one person or one test: Kafka as
// franz-go's kfake in this process, Temporal's development server and a private MariaDB or MySQL as
// children. Everything listens on 127.0.0.1 and keeps its data in one directory:
//
//	DIR/lock               held while a stack runs; the pid of its process
//	DIR/env                KAFKA_BROKERS, TEMPORAL_ADDRESS, MYSQL_DSN as shell lines; there while the stack is ready
//	DIR/own-env            those of them whose server a stack started itself; it stays
//	DIR/kafka, mysql, temporal   data
//	DIR/{mysql,temporal}.pid     the child, so that the next start can end one that outlived its parent
//	DIR/logs/*.log         what the engines say
//
// What it promises: a kill -9 of any process, or of all of them at once, loses nothing that was
// acknowledged, and a start with the same directory goes on from there. What it does not: a power
// cut may lose the last seconds, and may lose different seconds in each engine, because none of
// them waits for the disk (that is the difference between tens and hundreds of orders a second on
// one machine). Passwords are public. It is no way to run ordersync for real.
package devstack

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
)

// Schema is the MySQL schema a Stack's own server holds the orders in.
const Schema = "ordersync"

// Options say where a Stack lives and which engines it starts. A port of 0 is a free one.
type Options struct {
	Dir string

	KafkaPort    int
	TemporalPort int
	UIPort       int
	MySQLPort    int

	// Servers that run already. What is named here is not started.
	KafkaBrokers    []string
	TemporalAddress string
	MySQLDSN        string

	Logger *slog.Logger
}

// Stack is what Start started.
type Stack struct {
	options  Options
	lock     *dirLock
	kafka    *Kafka
	mysql    *MySQL
	temporal *Temporal
	dsn      string

	died chan error
	stop sync.Once
}

// Start starts the engines that options do not name, in one directory that it locks, and returns
// once all of them answer. When it fails nothing is left running.
func Start(ctx context.Context, options Options) (_ *Stack, err error) {
	if options.Dir, err = filepath.Abs(options.Dir); err != nil {
		return nil, err
	}
	lock, err := lockDir(options.Dir)
	if err != nil {
		return nil, err
	}
	// A file left by a killed process names ports nobody listens on, and its presence means ready.
	if err := removeEnv(options.Dir); err != nil {
		return nil, errors.Join(err, lock.release())
	}

	s := &Stack{options: options, lock: lock, dsn: options.MySQLDSN, died: make(chan error, 2)}
	group, groupCtx := errgroup.WithContext(ctx)
	if len(options.KafkaBrokers) == 0 {
		group.Go(func() (err error) {
			s.kafka, err = StartKafka(groupCtx, KafkaOptions{Dir: options.Dir, Port: options.KafkaPort, Logger: options.Logger})
			return err
		})
	}
	if options.TemporalAddress == "" {
		group.Go(func() (err error) {
			s.temporal, err = StartTemporal(groupCtx, TemporalOptions{
				Dir: options.Dir, Port: options.TemporalPort, UIPort: options.UIPort, Logger: options.Logger,
			})
			return err
		})
	}
	if options.MySQLDSN == "" {
		group.Go(func() (err error) {
			if s.mysql, err = StartMySQL(groupCtx, MySQLOptions{Dir: options.Dir, Port: options.MySQLPort, Logger: options.Logger}); err != nil {
				return err
			}
			s.dsn, err = s.mysql.CreateSchema(groupCtx, Schema)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, errors.Join(err, s.Stop(context.WithoutCancel(ctx)))
	}
	for _, c := range s.children() {
		go s.watch(c)
	}
	return s, nil
}

// Dir is the stack's directory, absolute.
func (s *Stack) Dir() string { return s.options.Dir }

// Kafka is the embedded broker, nil if another one is used.
func (s *Stack) Kafka() *Kafka { return s.kafka }

// Temporal is the embedded server, nil if another one is used.
func (s *Stack) Temporal() *Temporal { return s.temporal }

// MySQL is the embedded server, nil if another one is used.
func (s *Stack) MySQL() *MySQL { return s.mysql }

// KafkaBrokers are the bootstrap addresses, of the embedded broker or of the one that options name.
func (s *Stack) KafkaBrokers() []string {
	if s.kafka != nil {
		return s.kafka.Brokers()
	}
	return s.options.KafkaBrokers
}

// TemporalAddress is the host and port of the frontend, embedded or not.
func (s *Stack) TemporalAddress() string {
	if s.temporal != nil {
		return s.temporal.Address()
	}
	return s.options.TemporalAddress
}

// MySQLDSN is the data source name of the target's schema, embedded or not.
func (s *Stack) MySQLDSN() string { return s.dsn }

// UIAddress is the URL of the embedded Temporal's Web UI, empty if another Temporal is used.
func (s *Stack) UIAddress() string {
	if s.temporal == nil {
		return ""
	}
	return s.temporal.UIAddress()
}

// Died delivers an error for each engine that ended without being told to.
func (s *Stack) Died() <-chan error { return s.died }

func (s *Stack) watch(c *child) {
	<-c.done
	if !c.told.Load() {
		s.died <- c.failure("ended by itself")
	}
}

func (s *Stack) children() []*child {
	var all []*child
	if s.temporal != nil {
		all = append(all, s.temporal.child)
	}
	if s.mysql != nil {
		all = append(all, s.mysql.child)
	}
	return all
}

// WriteEnv writes DIR/env, with further variables if there are any. Call it when whoever reads the file
// may go ahead.
func (s *Stack) WriteEnv(more map[string]string) error {
	values := map[string]string{
		"KAFKA_BROKERS":    strings.Join(s.KafkaBrokers(), ","),
		"TEMPORAL_ADDRESS": s.TemporalAddress(),
		"MYSQL_DSN":        s.MySQLDSN(),
	}
	maps.Copy(values, more)
	own := maps.Clone(values)
	for name, external := range map[string]bool{
		"KAFKA_BROKERS": s.kafka == nil, "TEMPORAL_ADDRESS": s.temporal == nil, "MYSQL_DSN": s.mysql == nil,
	} {
		if external {
			delete(own, name)
		}
	}
	if err := writeEnv(OwnEnvFile(s.options.Dir), own); err != nil {
		return err
	}
	return writeEnv(EnvFile(s.options.Dir), values)
}

// Stop removes DIR/env and ends what Start started, each within ten seconds: SIGTERM first, then
// SIGKILL. Call it after everything that uses the engines has stopped.
func (s *Stack) Stop(ctx context.Context) error {
	var errs []error
	s.stop.Do(func() {
		errs = append(errs, removeEnv(s.options.Dir))
		if s.temporal != nil {
			errs = append(errs, s.temporal.Stop(ctx))
		}
		if s.mysql != nil {
			errs = append(errs, s.mysql.Stop(ctx))
		}
		if s.kafka != nil {
			errs = append(errs, s.kafka.Stop(ctx))
		}
		errs = append(errs, s.lock.release())
	})
	return errors.Join(errs...)
}

// ErrMissing is in the chain of an error that says a program is not installed.
var ErrMissing = errors.New("not installed")

func missing(format string, args ...any) error {
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), ErrMissing)
}

func logger(l *slog.Logger) *slog.Logger {
	if l == nil {
		return slog.New(slog.DiscardHandler)
	}
	return l
}

// logFile opens DIR/logs/NAME.log for appending. One that has grown past logLimit becomes NAME.log.old.
func logFile(dir, name string) (*os.File, error) {
	const logLimit = 16 << 20
	path := filepath.Join(dir, "logs", name+".log")
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, err
	}
	if info, err := os.Stat(path); err == nil && info.Size() > logLimit {
		if err := os.Rename(path, path+".old"); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
}
