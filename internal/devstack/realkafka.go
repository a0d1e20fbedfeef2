package devstack

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
)

// RealKafkaVersion is the Apache Kafka that FetchRealKafka fetches.
const RealKafkaVersion = "4.3.0"

// realKafkaJava is the oldest Java it runs on.
const realKafkaJava = 17

//go:embed kafka
var realKafkaFiles embed.FS

// RealKafkaOptions say where StartRealKafka keeps its data and listens.
type RealKafkaOptions struct {
	Dir    string
	Port   int // 0 is a free one
	Logger *slog.Logger
}

// RealKafka is one broker of Apache Kafka, to hold what is tried on the embedded one against.
type RealKafka struct {
	child *child
	port  int
}

// StartRealKafka starts a broker from the jars that FetchRealKafka has fetched.
func StartRealKafka(ctx context.Context, options RealKafkaOptions) (*RealKafka, error) {
	dir, err := filepath.Abs(options.Dir)
	if err != nil {
		return nil, err
	}
	jars := realKafkaJars()
	if err := checkJars(jars); err != nil {
		return nil, missing("Apache Kafka %s is not in %s (%v); `make test-real` fetches it", RealKafkaVersion, jars, err)
	}
	if err := findJava(ctx); err != nil {
		return nil, err
	}
	if err := endLeftover(filepath.Join(dir, "kafka.pid"), dir); err != nil {
		return nil, err
	}
	k := &RealKafka{}
	if k.port, err = choosePort(options.Port, "RealKafkaOptions.Port"); err != nil {
		return nil, err
	}
	controller, err := freePort()
	if err != nil {
		return nil, err
	}

	home := filepath.Join(dir, "apache-kafka")
	if err := os.MkdirAll(home, 0o750); err != nil {
		return nil, err
	}
	properties, err := realKafkaFiles.ReadFile("kafka/server.properties")
	if err != nil {
		return nil, err
	}
	settings := filepath.Join(home, "server.properties")
	if err := writeFile(settings, strings.NewReplacer(
		"{BROKER_PORT}", strconv.Itoa(k.port), "{CONTROLLER_PORT}", strconv.Itoa(controller),
		"{DATA_DIR}", filepath.Join(home, "data"),
	).Replace(string(properties))); err != nil {
		return nil, err
	}
	logging, err := realKafkaFiles.ReadFile("kafka/log4j2.yaml")
	if err != nil {
		return nil, err
	}
	if err := writeFile(filepath.Join(home, "log4j2.yaml"), string(logging)); err != nil {
		return nil, err
	}
	java := func(args ...string) []string {
		return append([]string{"-Xmx512m", "-Dlog4j2.configurationFile=" + filepath.Join(home, "log4j2.yaml"),
			"-cp", filepath.Join(jars, "*")}, args...)
	}

	// Any 16 bytes are a cluster's id. A directory that is formatted already is left as it is.
	id := base64.RawURLEncoding.EncodeToString([]byte("ordersync-tests!"))
	format := exec.CommandContext(ctx, "java", java("kafka.tools.StorageTool", "format", "--standalone", "--ignore-formatted",
		"-t", id, "-c", settings)...)
	if out, err := format.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("format Kafka's directory: %w:\n%s", err, out)
	}
	if k.child, err = startChild(dir, "kafka", exec.Command("java", java("kafka.Kafka", settings)...)); err != nil {
		return nil, err
	}
	client := &kafka.Client{Addr: kafka.TCP(k.Brokers()[0])}
	if err := k.child.await(ctx, time.Minute, func(ctx context.Context) error {
		answer, err := client.Metadata(ctx, &kafka.MetadataRequest{})
		if err == nil && len(answer.Brokers) == 0 {
			err = errors.New("it knows no broker yet")
		}
		return err
	}); err != nil {
		k.child.kill()
		return nil, err
	}
	logger(options.Logger).Info("Apache Kafka is ready", "address", k.Brokers()[0])
	return k, nil
}

// Brokers are the bootstrap addresses.
func (k *RealKafka) Brokers() []string { return []string{address(k.port)} }

// Stop shuts the broker down, within ten seconds.
func (k *RealKafka) Stop(ctx context.Context) error {
	k.child.stop(ctx)
	return nil
}

// Kill ends the broker as a crash would and returns when it is gone.
func (k *RealKafka) Kill() { k.child.kill() }

func realKafkaJars() string { return filepath.Join(CacheDir(), "kafka-"+RealKafkaVersion) }

// FetchRealKafka fetches the jars of Apache Kafka with Maven, once for this user, and holds them
// against checksums. Without a Java of at least version 17 or without Maven the error has ErrMissing in its chain.
func FetchRealKafka(ctx context.Context, progress io.Writer) (err error) {
	if err := findJava(ctx); err != nil {
		return err
	}
	jars := realKafkaJars()
	if checkJars(jars) == nil {
		return nil
	}
	if _, err := exec.LookPath("mvn"); err != nil {
		return missing("no mvn on the PATH, which fetches Apache Kafka; install Maven")
	}
	fmt.Fprintf(progress, "fetching Apache Kafka %s, 44 MiB, into %s\n", RealKafkaVersion, jars)
	if err := os.MkdirAll(CacheDir(), 0o750); err != nil {
		return err
	}
	fresh, err := os.MkdirTemp(CacheDir(), "kafka-new-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(fresh)) }()
	pom, err := realKafkaFiles.ReadFile("kafka/pom.xml")
	if err != nil {
		return err
	}
	if err := writeFile(filepath.Join(fresh, "pom.xml"), string(pom)); err != nil {
		return err
	}
	mvn := exec.CommandContext(ctx, "mvn", "-q", "-B", "-Dstyle.color=never", "-f", filepath.Join(fresh, "pom.xml"),
		"dependency:copy-dependencies", "-DoutputDirectory="+filepath.Join(fresh, "jars"))
	mvn.Stdout, mvn.Stderr = progress, progress
	if err := mvn.Run(); err != nil {
		return fmt.Errorf("fetch Apache Kafka with mvn: %w", err)
	}
	if err := checkJars(filepath.Join(fresh, "jars")); err != nil {
		return fmt.Errorf("what mvn fetched is not Apache Kafka %s as it was released: %w", RealKafkaVersion, err)
	}
	if err := os.RemoveAll(jars); err != nil { // one that is damaged
		return err
	}
	return os.Rename(filepath.Join(fresh, "jars"), jars)
}

// checkJars holds a directory's files against the checksums: all of them, and no other.
func checkJars(dir string) error {
	list, err := realKafkaFiles.ReadFile("kafka/jars.sha256")
	if err != nil {
		return err
	}
	want := map[string]string{}
	for line := range strings.Lines(string(list)) {
		if sum, name, ok := strings.Cut(strings.TrimSpace(line), "  "); ok {
			want[name] = sum
		}
	}
	found, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, file := range found {
		sum, err := sha256File(filepath.Join(dir, file.Name()))
		if err != nil {
			return err
		}
		if want[file.Name()] != sum {
			return fmt.Errorf("%s has the checksum %s, not %q", file.Name(), sum, want[file.Name()])
		}
		delete(want, file.Name())
	}
	if len(want) > 0 {
		return fmt.Errorf("%s lacks %s", dir, strings.Join(slices.Sorted(maps.Keys(want)), ", "))
	}
	return nil
}

func sha256File(path string) (string, error) {
	file, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer file.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, file); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// javaVersion finds the feature release in `openjdk version "17.0.12" 2024-07-16`.
var javaVersion = regexp.MustCompile(`version "(\d+)`)

func findJava(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "java", "-version").CombinedOutput()
	if err != nil {
		return missing("no java on the PATH that tells its version (%v); install a JDK of version %d or later", err, realKafkaJava)
	}
	version := javaVersion.FindSubmatch(out)
	if version == nil {
		return missing("java does not tell its version but %q; install a JDK of version %d or later", out, realKafkaJava)
	}
	if n, err := strconv.Atoi(string(version[1])); err != nil || n < realKafkaJava {
		return missing("java is version %s; Apache Kafka %s needs %d or later", version[1], RealKafkaVersion, realKafkaJava)
	}
	return nil
}
