#!/usr/bin/env bash
# The whole way of a day of real orders, 835 events of 314: they appear in an ERP, some late, some twice
# and some in the wrong order; it is polled into Kafka; they go through Temporal into MySQL; and both ends
# are compared. It has ports and a directory of its own, and leaves nothing behind.
set -euo pipefail
cd "$(dirname "$0")/.."

# An order that was created, updated, invoiced, and had a line cancelled after that.
readonly order=536395
readonly file=e2e/testdata/retail-orders.ndjson

# The demo is its own stack, whatever servers this shell is set up for.
unset MYSQL_DSN "${!ERP_@}" "${!KAFKA_@}" "${!TEMPORAL_@}"

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

# await waits until a test succeeds, for a minute or two.
await() {
  for ((i = 0; ; i++)); do
    ! "$@" 2>/dev/null || return 0
    if ! kill -0 "$stack" 2>/dev/null || ((i == 600)); then
      echo "demo: the stack did not come so far: $*" >&2
      exit 1
    fi
    sleep 0.2
  done
}

say "Starting Kafka, Temporal, MySQL, the pipeline and an ERP with a day of real orders (data in $dir)"
bin/ordersync dev --data-dir "$dir/data" --kafka-port 0 --temporal-port 0 --ui-port 0 --mysql-port 0 \
  --erp --erp-file "$file" --erp-rate 100 >"$dir/dev.log" 2>&1 &
stack=$!
await test -e "$dir/data/env"
say "A hundred changes a second appear in the ERP now, and it is polled every other second"
await grep -q '^polled everything' "$dir/dev.log"
grep '^polled everything' "$dir/dev.log" | sed 's/;.*//'
run schedule list
say "Everything the ERP has told is in Kafka. What became of it in the shop's database?"
run wait --timeout 5m
run order "$order"
say "Do both ends agree, order by order?"
run reconcile
say "Done. \`make dev ERP=1\` leaves such a stack running, with Temporal's Web UI to look at."
