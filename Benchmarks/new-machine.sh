#!/usr/bin/env bash
# A disaster, measured: a new machine with an empty state, and a store of BACKUPS (1000) backups behind a line that takes LATENCY (50) ms for
# each request. Prints how long it takes until the newest backup and all of them are known, with a daemon and without, and after a restart;
# ends 1 where a bound is missed: the newest within 10 s, all within 60 s.
set -euo pipefail
cd "$(dirname "$0")/.."
backups=${BACKUPS:-1000}
latency=${LATENCY:-50}
databases=40
programs=$PWD/.build/release
PGBACKUPD_TEST_PYTHON=1 scripts/setup.sh >&2

folder=$(mktemp -d /tmp/pgbackupd-machine.XXXXXX)
chmod 755 "$folder"
bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
as_user=()
[ "$(id -u)" -ne 0 ] || as_user=(setpriv --reuid=postgres --regid=postgres --init-groups)
port=$((20000 + $$ % 20000))
children=()
cleanup() {
  for process in "${children[@]}"; do kill "$process" 2>/dev/null && wait "$process" 2>/dev/null || true; done
  [ ! -d "$folder/pg/data" ] || "${as_user[@]}" "$bin/pg_ctl" -D "$folder/pg/data" stop -m immediate -s || true
  rm -rf "$folder"
  for offset in 0 1 3 5 7; do rm -f /tmp/seaweedfs-*-$((port + offset)).sock; done
}
trap cleanup EXIT
trap 'exit 130' INT TERM
note() { echo "$*" >&2; }

note "Making $backups backups …"
mkdir "$folder/pg" "$folder/s3"
[ "$(id -u)" -ne 0 ] || chown postgres "$folder/pg"
"${as_user[@]}" "$bin/initdb" -D "$folder/pg/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 -N >/dev/null
"${as_user[@]}" "$bin/pg_ctl" -D "$folder/pg/data" -l "$folder/pg/log" -w -s -o "-k $folder/pg -c listen_addresses='' -c fsync=off" start
export PGHOST=$folder/pg PGUSER=postgres
createdb shop_1
psql -X -q -c "CREATE TABLE small AS SELECT i, md5(i::text) AS t FROM generate_series(1, 100) i" shop_1
for number in $(seq 2 $databases); do createdb -T shop_1 "shop_$number"; done

echo '{"identities": [{"name": "bench", "actions": ["Admin", "Read", "List", "Tagging", "Write"],
  "credentials": [{"accessKey": "bench", "secretKey": "bench-secret"}]}]}' >"$folder/s3.json"
.build/python/bin/weed -logdir="$folder" server -dir="$folder/s3" -ip=127.0.0.1 -ip.bind=127.0.0.1 -master.telemetry=false \
  -master.volumeSizeLimitMB=512 -volume.max=100 -s3 -s3.config="$folder/s3.json" -s3.port=$port -s3.port.grpc=$((port + 1)) \
  -master.port=$((port + 2)) -master.port.grpc=$((port + 3)) -volume.port=$((port + 4)) -volume.port.grpc=$((port + 5)) \
  -filer.port=$((port + 6)) -filer.port.grpc=$((port + 7)) -s3.port.iceberg=$((port + 8)) -s3.port.lance=$((port + 10)) \
  -filer.localSocket="$folder/filer.sock" -s3.localSocket="$folder/s3.sock" >"$folder/s3.log" 2>&1 &
children+=($!)
signed=(curl -s --user bench:bench-secret --aws-sigv4 aws:amz:us-east-1:s3)
"${signed[@]}" --retry 60 --retry-delay 1 --retry-all-errors -o /dev/null "http://127.0.0.1:$port/"
"${signed[@]}" -X PUT -o /dev/null "http://127.0.0.1:$port/bench"

# Each request is one piece of some hundred bytes on its way there: it waits, and so its answer does.
python3 Tests/TestSupport/forward.py $((port + 9)) "$port" "" "$latency" >"$folder/forward.log" &
children+=($!)

# configure NAME PORT [LINE]: a machine of its own.
configure() {
  mkdir "$folder/$1"
  cat >"$folder/$1/c.yaml" <<YAML
databases: { all: { connect: "host=$folder/pg user=postgres dbname=postgres", include: "shop_*" } }
stores: { offsite: { s3: { bucket: bench, prefix: prod, endpoint: "http://127.0.0.1:$2", access_key: bench, secret_key: bench-secret } } }
jobs: { hourly: { schedule: "0 0 1 1 *", keep: forever } }
daemon: { state: $folder/$1/state, socket: $folder/$1/s.sock, parallel_runs: 4 }
${3:-}
YAML
}
# begin NAME: its daemon; $daemon is its process.
begin() {
  NOTIFY_SOCKET='' "$programs/pgbackupd" --config "$folder/$1/c.yaml" >>"$folder/$1/log" 2>&1 &
  daemon=$!
  until "$programs/pgbackupctl" jobs --socket "$folder/$1/s.sock" >/dev/null 2>&1; do
    kill -0 $daemon 2>/dev/null || { cat "$folder/$1/log" >&2; exit 1; }
    read -rt 0.05 <> <(:) || true
  done
}
finish() { kill "$daemon" && wait "$daemon" || true; }

configure first "$port"
begin first
"$programs/pgbackupctl" run hourly --socket "$folder/first/s.sock" >/dev/null 2>&1 || { tail -n 5 "$folder/first/log" >&2; exit 1; }
finish
.build/python/bin/python Benchmarks/clone_backups.py "http://127.0.0.1:$port" bench prod "$folder/first/state/signing.sec" "$backups"
key=$(tail -n 1 "$folder/first/state/signing.pub")

now() { date +%s.%N; }
missed=0
# told SENTENCE SECONDS BOUND
told() {
  local holds=yes
  awk -v found="$2" -v bound="$3" 'BEGIN { exit !(found <= bound) }' || { holds="**NO**"; missed=1; }
  printf '| %s | %.1f s | ≤ %s s | %s |\n' "$1" "$2" "$3" "$holds"
}
# listed EXPECTED COMMAND…: seconds until it has listed so many.
listed() {
  local start count wanted=$1
  shift
  start=$(now)
  count=$("$@" --json 2>/dev/null | jq length)
  [ "$count" -eq "$wanted" ] || { note "listed $count of $wanted: $*"; exit 1; }
  echo "$(now) $start" | awk '{ printf "%.2f", $1 - $2 }'
}

export AWS_ACCESS_KEY_ID=bench AWS_SECRET_ACCESS_KEY=bench-secret
made=$("$programs/pgbackupctl" list --standalone --store "s3://bench/prod" --endpoint "http://127.0.0.1:$port" --json 2>/dev/null | jq length)
printf '%s backups of %s databases, %s ms for each request:\n\n| what | measured | bound | holds |\n|---|---|---|---|\n' "$made" $databases "$latency"
configure second $((port + 9)) "signing: { trusted: [\"$key\"] }"
start=$(now)
begin second
# The newest of a database, as a restore would want it.
"$programs/pgbackupctl" restore "all.shop_7/latest" --into copy --preview --socket "$folder/second/s.sock" >/dev/null 2>"$folder/preview"
told "an empty daemon: start, and the preview of a restore of the newest" "$(echo "$(now) $start" | awk '{ print $1 - $2 }')" 10
told "all of it by the same daemon, after that" "$(listed "$made" "$programs/pgbackupctl" list --socket "$folder/second/s.sock")" 60
finish
begin second
told "all of it after a restart" "$(listed "$made" "$programs/pgbackupctl" list --socket "$folder/second/s.sock")" 10
finish
told "all of it without a daemon" \
  "$(listed "$made" "$programs/pgbackupctl" list --standalone --store s3://bench/prod --endpoint "http://127.0.0.1:$((port + 9))" --trust "$key")" 60
exit $missed
