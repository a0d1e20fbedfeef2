package main

import (
	"io"
	"strings"
	"testing"
)

func TestRequiredVariables(t *testing.T) {
	err := run(t.Context(), nil, nil, io.Discard)
	if err == nil {
		t.Fatal("it runs without a configuration")
	}
	if !strings.Contains(err.Error(), "KAFKA_BROKERS: is not set") || !strings.Contains(err.Error(), "MYSQL_DSN: is not set") {
		t.Errorf("got %v", err)
	}
}
