package config

import (
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/go-sql-driver/mysql"
)

// LogValue is the effective configuration, every variable under its own name, secrets masked.
// Variables that are unset and have no default are left out.
func (c Config) LogValue() slog.Value {
	var attrs []slog.Attr
	for _, v := range Variables() {
		if value := c.shown(v); value != "" {
			attrs = append(attrs, slog.String(v.Name, value))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Temporal.variables)) {
		if strings.HasPrefix(name, grpcMeta) { // headers authorize, mostly
			attrs = append(attrs, slog.String(name, masked))
		}
	}
	return slog.GroupValue(attrs...)
}

// shown is a variable's effective value as it may be printed.
func (c Config) shown(v Variable) string {
	switch {
	case v.Name == "TEMPORAL_ADDRESS":
		return c.Temporal.Client.HostPort
	case v.Name == "TEMPORAL_NAMESPACE":
		return c.Temporal.Client.Namespace
	case v.field == nil && c.Temporal.variables[v.Name] == "":
		return ""
	case v.Name == "TEMPORAL_API_KEY", strings.HasSuffix(v.Name, "_DATA"):
		return masked
	case v.field == nil:
		return c.Temporal.variables[v.Name]
	case v.Name == "MYSQL_DSN":
		return maskDSN(c.MySQL.DSN)
	}
	return fmt.Sprint(reflect.ValueOf(c).FieldByIndex(v.field).Interface())
}

// String is LogValue as text, so that a Config that is printed shows no secret either.
func (c Config) String() string { return c.LogValue().String() }

// GoString is String, for %#v.
func (c Config) GoString() string { return c.String() }

// maskDSN shows where the target is and as whom, which is what one looks for in a log.
func maskDSN(dsn Secret) string {
	if dsn == "" {
		return ""
	}
	parsed, err := mysql.ParseDSN(string(dsn))
	if err != nil {
		return masked
	}
	if parsed.Passwd != "" {
		parsed.Passwd = masked
	}
	return parsed.FormatDSN()
}
