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
	if !strings.Contains(err.Error(), "KAFKA_BROKERS: is not set") || strings.Contains(err.Error(), "MYSQL_DSN") {
		t.Errorf("got %v", err)
	}
	err = run(t.Context(), nil, map[string]string{"KAFKA_BROKERS": "k:9092", "EAGER_START": "true"}, io.Discard)
	if err == nil || !strings.Contains(err.Error(), "MYSQL_DSN") {
		t.Errorf("a worker inside the starter without a target: %v", err)
	}
}
