package config

import (
	"fmt"
	"reflect"
	"strings"
	"text/tabwriter"
	"time"
)

// Variable is an environment variable that ordersync reads.
type Variable struct {
	Name    string
	Default string // empty if it has none
	Usage   string
	// Min and Max bound a number or a duration; empty where there are none.
	Min, Max string

	kind  kind
	field []int // its place in Config; nil for those that the SDK's envconfig reads
}

type kind int

const (
	kindText kind = iota
	kindInt
	kindDuration
	kindBool
)

// Variables lists every variable, in the order of Config.
func Variables() []Variable {
	return append(temporalVariables(), declared(reflect.TypeFor[Config](), "", nil)...)
}

// Known tells whether a process reads the variable.
func Known(name string) bool {
	for _, v := range Variables() {
		if v.Name == name {
			return true
		}
	}
	return strings.HasPrefix(name, grpcMeta)
}

func declared(t reflect.Type, prefix string, path []int) []Variable {
	var found []Variable
	for i := range t.NumField() {
		f := t.Field(i)
		index := append(append([]int{}, path...), i)
		if nested, ok := f.Tag.Lookup("envPrefix"); ok {
			found = append(found, declared(f.Type, prefix+nested, index)...)
			continue
		}
		name := f.Tag.Get("env")
		if name == "" || name == "-" {
			continue
		}
		found = append(found, Variable{
			Name: prefix + name, Default: f.Tag.Get("envDefault"), Usage: f.Tag.Get("usage"),
			Min: f.Tag.Get("min"), Max: f.Tag.Get("max"), kind: kindOf(f.Type), field: index,
		})
	}
	return found
}

func kindOf(t reflect.Type) kind {
	switch {
	case t == reflect.TypeFor[time.Duration]():
		return kindDuration
	case t.Kind() == reflect.Int && t.PkgPath() == "":
		return kindInt
	case t.Kind() == reflect.Bool:
		return kindBool
	default:
		return kindText
	}
}

// variableOf finds a variable by the name of its field, which is all that a parse error tells.
// Field names are unique over the nested structs.
func variableOf(field string) Variable {
	for _, v := range Variables() {
		if v.field != nil && reflect.TypeFor[Config]().FieldByIndex(v.field).Name == field {
			return v
		}
	}
	return Variable{Name: field}
}

// grpcMeta is the prefix of the variables that become gRPC headers.
const grpcMeta = "TEMPORAL_GRPC_META_"

// temporalVariables are those that go.temporal.io/sdk/contrib/envconfig reads.
func temporalVariables() []Variable {
	return []Variable{
		{Name: "TEMPORAL_ADDRESS", Default: "localhost:7233", Usage: "the Temporal server, host:port"},
		{Name: "TEMPORAL_NAMESPACE", Default: "default", Usage: "the Temporal namespace"},
		{Name: "TEMPORAL_API_KEY", Usage: "API key; switches TLS on"},
		{Name: "TEMPORAL_TLS", Usage: "true or false: speak TLS to the Temporal server"},
		{Name: "TEMPORAL_TLS_SERVER_CA_CERT_PATH", Usage: "PEM file of the authority to trust"},
		{Name: "TEMPORAL_TLS_SERVER_CA_CERT_DATA", Usage: "the same, the PEM text itself"},
		{Name: "TEMPORAL_TLS_CLIENT_CERT_PATH", Usage: "PEM file of the client's certificate"},
		{Name: "TEMPORAL_TLS_CLIENT_CERT_DATA", Usage: "the same, the PEM text itself"},
		{Name: "TEMPORAL_TLS_CLIENT_KEY_PATH", Usage: "PEM file of the client's key"},
		{Name: "TEMPORAL_TLS_CLIENT_KEY_DATA", Usage: "the same, the PEM text itself"},
		{Name: "TEMPORAL_TLS_SERVER_NAME", Usage: "the name expected in the server's certificate"},
		{Name: "TEMPORAL_TLS_DISABLE_HOST_VERIFICATION", Usage: "true: accept any certificate"},
		{Name: "TEMPORAL_CLIENT_AUTHORITY", Usage: "the :authority of gRPC calls"},
		{Name: "TEMPORAL_CONFIG_FILE", Usage: "a temporal.toml to read as well; the default one is not read"},
		{Name: "TEMPORAL_PROFILE", Usage: "the profile in it"},
	}
}

// Usage is the table of all variables for --help.
func Usage() string {
	var out strings.Builder
	table := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	for _, v := range Variables() {
		text := v.Usage
		if v.Default != "" {
			text += fmt.Sprintf(" (default %s)", v.Default)
		}
		fmt.Fprintf(table, "  %s\t%s\n", v.Name, text)
	}
	fmt.Fprintf(table, "  %s*\t%s\n", grpcMeta, "a header of every call to the Temporal server")
	table.Flush() //nolint:errcheck // a strings.Builder does not fail
	return out.String()
}
