#!/usr/bin/env bash
# The whole way of a week of real orders, 835 events of 314 orders: they appear in an ERP, some late, some
# twice and some in the wrong order; it is polled into Kafka; they go through Temporal into MySQL; and both
# ends are compared. It has ports and a directory of its own, and leaves nothing behind.
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

if [[ ! -x bin/ordersync ]]; then
  echo "demo: there is no bin/ordersync: type make demo, which builds it first" >&2
  exit 1
fi
readonly happened=$(grep -c . "$file")

say "Starting Kafka, Temporal, MySQL, the pipeline and an ERP with a week of real orders (data in $dir)"
bin/ordersync dev --data-dir "$dir/data" --kafka-port 0 --temporal-port 0 --ui-port 0 --mysql-port 0 \
  --erp --erp-file "$file" --erp-rate 100 >"$dir/dev.log" 2>&1 &
stack=$!
await test -e "$dir/data/env"
say "In the ERP $happened events happen now, a hundred a second. It is polled every other second"
echo "The ERP shows some of them late, some out of order, and some a second time, as real ones do."
await grep -q '^polled everything' "$dir/dev.log"
grep '^polled everything' "$dir/dev.log" | sed 's/;.*//'
told=$(sed -n 's/^polled everything: \([0-9]*\) changes.*/\1/p' "$dir/dev.log")
say "What did the last poll do?"
echo "A poll reads again what changed within 10 s before the one before it ended, as an ERP may commit late."
echo "Rows that the shop has already are \"known\" and left out, the others are published to Kafka."
run schedule list
say "Everything that the ERP told is in Kafka. What became of it in the shop's database?"
run wait --timeout 5m | tee "$dir/wait"
count() { awk -v what="$1" '$1 == what { print $2 }' "$dir/wait"; }
say "How these numbers belong together"
printf '%6d  events happened in the ERP\n' "$happened"
printf '%6d  changes were told by it: %d of the events twice\n' "$told" "$((told - happened))"
printf '%6d  records are in Kafka: polls left out what the shop had, and published again what was on its way\n' "$(count events)"
printf '%6d  of these are duplicates: the same event once more, which changes nothing\n' "$(count duplicates)"
printf '%6d  events were applied, each once\n' "$(count applied)"
say "One of these orders: created, updated, invoiced, and updated again when a customer cancelled a line"
run order "$order"
say "Do both ends agree, order by order?"
run reconcile
say "Done. \`make dev ERP=1\` leaves such a stack running, with Temporal's Web UI to look at."
