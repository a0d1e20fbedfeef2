#!/usr/bin/env bash
# The whole pipeline on a real order file: 835 events of 314 orders go into Kafka, through Temporal,
# into MySQL. It has ports and a directory of its own, and leaves nothing behind.
set -euo pipefail
cd "$(dirname "$0")/.."

# An order that was created, updated, invoiced, and had a line cancelled after that.
readonly order=536395
readonly file=e2e/testdata/retail-orders.ndjson

# The demo is its own stack, whatever servers this shell is set up for.
unset MYSQL_DSN "${!KAFKA_@}" "${!TEMPORAL_@}"

dir=$(mktemp -d "${TMPDIR:-/tmp}/ordersync-demo.XXXXXX")
stack=
finish() {
  local code=$?
  trap - EXIT INT TERM
  if [[ -n $stack ]]; then
    kill -TERM "$stack" 2>/dev/null || true
    wait "$stack" || code=$?
  fi
  if ((code == 0)); then
    rm -rf "$dir"
  else
    echo "demo: failed; its logs are in $dir" >&2
    [[ ! -s $dir/dev.log ]] || tail -n 20 "$dir/dev.log" >&2
  fi
  exit "$code"
}
trap finish EXIT
trap 'exit 130' INT TERM

bold= plain=
if [[ -t 1 ]]; then
  bold=$'\e[1m' plain=$'\e[0m'
fi
say() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
run() { say "\$ ordersync $*"; bin/ordersync "$@" --data-dir "$dir/data"; }

say "Starting Kafka, Temporal, MySQL and the pipeline (data in $dir)"
bin/ordersync dev --data-dir "$dir/data" --kafka-port 0 --temporal-port 0 --ui-port 0 --mysql-port 0 \
  >"$dir/dev.log" 2>&1 &
stack=$!
for ((i = 0; ; i++)); do
  [[ ! -e $dir/data/env ]] || break
  if ! kill -0 "$stack" 2>/dev/null || ((i == 600)); then
    echo "demo: the stack did not get ready" >&2
    exit 1
  fi
  sleep 0.2
done

run load "$file"
run wait --timeout 5m
run order "$order"
say "Done. \`make dev\` leaves a stack running, with Temporal's Web UI to look at."
