SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

# Two packages are tested at a time, the end-to-end tests alone: each package starts servers of its own, and what
# some tests wait for has a limit. vet, which goes first, has compiled in parallel what they need.
AT_ONCE := -p 2
SERIALLY := -p 1
# Further flags of `go test`: make test TESTFLAGS='-count=1 -v'
TESTFLAGS ?=
# Where `make dev` keeps its data.
DATA_DIR ?= .ordersync
# Anything here has `make dev` start at a simulated ERP.
ERP ?=

LINT := go tool -modfile=tools/lint/go.mod

## help            this list
.PHONY: help
help:
	@sed -n 's/^## /  make /p' $(MAKEFILE_LIST)

## demo            a week of real orders from an ERP to the shop: sets up, builds, polls, waits, compares both ends, stops
.PHONY: demo
demo: setup build
	@scripts/demo.sh

## dev             the whole stack, left running on the usual ports with its data in DATA_DIR (.ordersync); ERP=1: with an ERP
.PHONY: dev
dev: setup build
	@exec bin/ordersync dev --data-dir $(DATA_DIR) $(if $(ERP),--erp)

## setup           install what is missing: a MariaDB server, curl, kcat, the temporal CLI (built once, 3 minutes; bin/temporal)
.PHONY: setup
setup:
	@echo "setup: compiling; the first time this takes a minute or two"
	@go run ./internal/devstack/setup

## build           bin/ordersync, bin/worker and bin/starter
.PHONY: build
build:
	CGO_ENABLED=0 go build -trimpath -o bin/ ./cmd/ordersync ./worker ./starter

## test            set up, then every test, against real servers that it starts and stops
.PHONY: test
test: setup vet
	@go run ./internal/devstack/setup postgres
	go test -C deployments $(TESTFLAGS) ./...
	go test $(AT_ONCE) -timeout 30m $(TESTFLAGS) $$(go list ./... | grep -v /e2e)
	go test $(SERIALLY) -timeout 40m $(TESTFLAGS) ./e2e/...

## race            the tests under the race detector; the pipeline in one process, not end to end by processes
.PHONY: race
race: setup
	@go run ./internal/devstack/setup race
	@go run ./internal/devstack/setup postgres
	CGO_ENABLED=1 go vet -race ./...
	CGO_ENABLED=1 go test -race -short $(AT_ONCE) -timeout 30m $(TESTFLAGS) $$(go list ./... | grep -v -e /e2e -e /bench)

## test-real       the end-to-end tests against Apache Kafka 4.3; needs a JDK 17 and Maven
.PHONY: test-real
test-real: setup
	@go run ./internal/devstack/setup kafka
	ORDERSYNC_TEST_KAFKA=real go test $(SERIALLY) -count=1 -timeout 40m $(TESTFLAGS) ./e2e/... ./internal/devstack
	ORDERSYNC_TEST_KAFKA=real go test $(SERIALLY) -count=1 -timeout 10m $(TESTFLAGS) -run TestApacheKafka ./internal/intake

## webui           stuck orders in Temporal's Web UI, in a headless Chromium, which it installs if there is none
.PHONY: webui
webui: setup
	@go run ./internal/devstack/setup chromium
	go vet -C e2e/webui ./...
	go test -C e2e/webui -timeout 10m $(TESTFLAGS) ./...

## bench           orders/s of ordersync, of a naive bridge and of the engine's floor, three rounds each
.PHONY: bench
bench: setup
	go run ./bench

## bench-refusing  events/s of healthy orders with 1 % refused ones beside them, and a bulk retry of those
.PHONY: bench-refusing
bench-refusing: setup
	go run ./bench -only ordersync,refusing -orders 10000

## bench-poll      rows/s from an ERP into Kafka, by MySQL, PostgreSQL and HTTP, and of publishing alone
.PHONY: bench-poll
bench-poll: setup
	go run ./bench/poll -at-least 20000

## bench-backfill  time from broker to target of new orders, with a backfill of 20,000 orders beside them and without
.PHONY: bench-backfill
bench-backfill: setup
	go run ./bench/backfill

## bench-reconcile memory, orders/s and findings of a comparison of 1,000,000 orders a side
.PHONY: bench-reconcile
bench-reconcile: setup
	go run ./bench/reconcile

## vet             go vet
.PHONY: vet
vet:
	go vet -C deployments ./...
	go vet ./...

## lint            golangci-lint (.golangci.yml), and workflowcheck: is the workflow deterministic?
.PHONY: lint
lint:
	@echo "lint: building the linters takes two minutes the first time"
	$(LINT) golangci-lint run ./...
	$(LINT) workflowcheck -config tools/lint/workflowcheck.yaml ./workflows/...

## fmt             gofmt, and imports in order
.PHONY: fmt
fmt:
	$(LINT) golangci-lint fmt ./...
