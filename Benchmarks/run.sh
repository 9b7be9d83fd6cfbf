#!/usr/bin/env bash
# The figures, measured in one run on one machine: ratios against pg_dump and against the shell pipeline. ROWS sets the
# size (2800000 rows are about 620 MB of archive), ROUNDS how often each way is timed, in turn. Prints a Markdown table;
# ends 1 where a bound is missed.
set -euo pipefail
cd "$(dirname "$0")/.."
rows=${ROWS:-2800000}
rounds=${ROUNDS:-5}
programs=$PWD/.build/release

folder=$(mktemp -d /tmp/pgbackupd-bench.XXXXXX)
chmod 755 "$folder"
bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
as_user=()
[ "$(id -u)" -ne 0 ] || as_user=(setpriv --reuid=postgres --regid=postgres --init-groups)
daemon=
sealing=
cleanup() {
  for process in $daemon $sealing; do { kill "$process" 2>/dev/null && wait "$process" 2>/dev/null; } || true; done
  [ ! -d "$folder/pg/data" ] || "${as_user[@]}" "$bin/pg_ctl" -D "$folder/pg/data" stop -m immediate -s || true
  rm -rf "$folder"
}
trap cleanup EXIT
trap 'exit 130' INT TERM

note() { echo "$*" >&2; }
now() { date +%s.%N; }
# seconds COMMAND…: its wall time
seconds() { local start; start=$(now); "$@" >/dev/null 2>&1; echo "$(now) $start" | awk '{printf "%.3f", $1 - $2}'; }
median() { sort -n | awk '{v[NR] = $1} END {print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2}'; }
status() { awk -v field="$1:" '$1 == field {print $2}' "/proc/$daemon/status"; }

note "Building the benchmark (once) …"
swift build --package-path Benchmarks -c release 2>&1 | tail -n 1 >&2
micro=Benchmarks/.build/release/micro

note "Making $rows rows …"
mkdir "$folder/pg"
[ "$(id -u)" -ne 0 ] || chown postgres "$folder/pg"
"${as_user[@]}" "$bin/initdb" -D "$folder/pg/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 -N >/dev/null
"${as_user[@]}" "$bin/pg_ctl" -D "$folder/pg/data" -l "$folder/pg/log" -w -s \
  -o "-k $folder/pg -c listen_addresses='' -c fsync=off -c shared_buffers=1GB -c max_wal_size=4GB" start
export PGHOST=$folder/pg PGUSER=postgres
createdb bench
psql -X -q -v rows="$rows" -f Benchmarks/data.sql bench
psql -X -q -c CHECKPOINT bench

cat >"$folder/config.yaml" <<YAML
databases: { bench: { connect: "host=$folder/pg user=postgres dbname=bench" } }
jobs: { bench: { keep: 1h } }
daemon: { state: $folder/state, socket: $folder/control.sock }
YAML
start=$(now)
"$programs/pgbackupd" --config "$folder/config.yaml" 2>"$folder/log" &
daemon=$!
while [ ! -S "$folder/control.sock" ]; do kill -0 $daemon; done
"$programs/pgbackupctl" jobs --socket "$folder/control.sock" >/dev/null
ready=$(echo "$(now) $start" | awk '{printf "%.0f", ($1 - $2) * 1000}')
idle=$(($(status VmRSS) / 1024))

# A second daemon, which encrypts: the same in everything else.
recipient=$("$programs/pgbackupctl" key generate --output "$folder/key")
sed -e "s|$folder/state|$folder/sealed|; s|control.sock|sealed.sock|" "$folder/config.yaml" >"$folder/sealed.yaml"
echo "encryption: { recipients: [$recipient] }" >>"$folder/sealed.yaml"
"$programs/pgbackupd" --config "$folder/sealed.yaml" 2>"$folder/sealed.log" &
sealing=$!
while [ ! -S "$folder/sealed.sock" ]; do kill -0 $sealing; done

pipeline() { pg_dump -Fc -Z0 bench | zstd -q -3 -T0 -f -o "$folder/pipeline.zst"; }
plain() { pg_dump -Fc -f "$folder/default.dump" bench; }
ours() { "$programs/pgbackupctl" backup bench --type bench --socket "$folder/control.sock"; }
sealed() { "$programs/pgbackupctl" backup bench --type bench --socket "$folder/sealed.sock"; }
note "Timing, $rounds rounds in turn …"
seconds ours >/dev/null
seconds sealed >/dev/null
for _ in $(seq "$rounds"); do
  seconds ours >>"$folder/ours" && echo >>"$folder/ours"
  seconds pipeline >>"$folder/pipeline" && echo >>"$folder/pipeline"
  seconds sealed >>"$folder/sealed.times" && echo >>"$folder/sealed.times"
done
default=$(seconds plain)
ours=$(grep . "$folder/ours" | median)
pipeline=$(grep . "$folder/pipeline" | median)
sealed=$(grep . "$folder/sealed.times" | median)
peak=$(($(status VmHWM) / 1024))
stored=$(find "$folder/state/backups" -name '*.dump.zst' -printf '%s\n' | tail -n 1)
default_size=$(stat -c %s "$folder/default.dump")

note "Measuring what needs no server …"
pg_dump -Fc -Z0 bench >"$folder/archive"
archive_mb=$(($(stat -c %s "$folder/archive") / 1000000))
scan=$("$micro" scan "$folder/archive")
back=$("$micro" read "$folder/archive")
fire=$("$micro" schedule)

# Idle for half a minute: voluntary switches of all threads are its wake-ups.
switches() { cat /proc/$daemon/task/*/status | awk '/^voluntary_ctxt/ {n += $2} END {print n}'; }
before=$(switches)
read -rt 30 <> <(:) || true
wakeups=$((($(switches) - before) * 2))

failed=0
row() { # name, value, bound, 1 where it holds
  local verdict=yes
  [ "$4" = 1 ] || { verdict=**NO**; failed=1; }
  printf '| %s | %s | %s | %s |\n' "$1" "$2" "$3" "$verdict"
}
holds() { awk "BEGIN {print ($1) ? 1 : 0}"; }
echo
echo "$rows rows, $archive_mb MB of archive; $(nproc) cores; $("$bin/postgres" --version); medians of $rounds"
echo
echo '| what | measured | bound | holds |'
echo '|---|---|---|---|'
row "wall time against \`pg_dump -Fc\` ($default s)" "$(awk "BEGIN {printf \"%.2f\", $ours / $default}") ×" "≤ 0.25 ×" "$(holds "$ours <= 0.25 * $default")"
row "wall time against \`pg_dump -Fc -Z0 \\| zstd -3 -T0\` ($pipeline s)" "$(awk "BEGIN {printf \"%.2f\", $ours / $pipeline}") ×" "≤ 1.10 ×" "$(holds "$ours <= 1.10 * $pipeline")"
row "encrypted against not encrypted ($ours s)" "$(awk "BEGIN {printf \"%.2f\", $sealed / $ours}") ×" "≤ 1.10 ×" "$(holds "$sealed <= 1.10 * $ours")"
row "artifact against pg_dump's own" "$(awk "BEGIN {printf \"%.2f\", $stored / $default_size}") ×" "≤ 1 ×" "$(holds "$stored <= $default_size")"
row "scan and fingerprint, one core" "$scan MB/s" "≥ 1000 MB/s" "$(holds "$scan >= 1000")"
row "read back (decompress, scan), one core" "$back MB/s" "≥ 500 MB/s" "$(holds "$back >= 500")"
row "peak memory of the daemon" "$peak MiB" "≤ 150 MiB" "$(holds "$peak <= 150")"
row "idle memory after the start" "$idle MiB" "≤ 40 MiB" "$(holds "$idle <= 40")"
row "idle wake-ups a minute" "$wakeups" "≤ 1" "$(holds "$wakeups <= 1")"
row "next fire among 10,000 jobs" "$(awk "BEGIN {printf \"%.4f\", $fire * 1000}") ms" "< 1 ms" "$(holds "$fire < 0.001")"
row "start to the first answer" "$ready ms" "< 200 ms" "$(holds "$ready < 200")"
exit $failed
