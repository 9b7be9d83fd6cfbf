#!/usr/bin/env bash
# Fuzzes the parsers of bytes from outside with libFuzzer and AddressSanitizer: every input of Fuzz/Corpus once, then changed ones, for
# FUZZ_SECONDS (60) each, in another order each time unless FUZZ_SEED is given. Names of targets may be given; else all run, FUZZ_JOBS (as many as there are processors) at a time. FUZZ_BUILT=1 takes
# the fuzzer that is there.
#
# A crash, a property that does not hold, five seconds for one input, or 2 GiB of memory is a finding: it is kept in .build-fuzz/findings, and
# the script ends 1. What is found on the way stays in .build-fuzz/corpus for the next run.
set -uo pipefail
cd "$(dirname "$0")/.."
seconds=${FUZZ_SECONDS:-60}
jobs=${FUZZ_JOBS:-$(nproc)}
work=.build-fuzz
mkdir -p "$work/findings" "$work/logs"

if [ -z "${FUZZ_BUILT:-}" ]; then
  began=$SECONDS
  # BoringSSL without any optimisation would take most of the time.
  PGBACKUPD_FUZZ=1 swift build --product pgbackupd-fuzz --scratch-path "$work" -Xcc -O1 >"$work/build.log" 2>&1 ||
    { grep -E 'error:' "$work/build.log" || tail -20 "$work/build.log"; exit 1; }
  echo "Built in $((SECONDS - began)) s."
fi
fuzzer=$(realpath "$work/debug/pgbackupd-fuzz")
if [ $# -gt 0 ]; then names=("$@"); else mapfile -t names < <("$fuzzer" --list); fi

# Every target has seeds, and every folder of seeds a target.
for name in $("$fuzzer" --list); do [ -d "Fuzz/Corpus/$name" ] || { echo "Fuzz/Corpus/$name is missing" >&2; exit 1; }; done
for folder in Fuzz/Corpus/*/; do
  "$fuzzer" --list | grep -qx "$(basename "$folder")" || { echo "$folder belongs to no target" >&2; exit 1; }
done

# one NAME: prints a line with what came of it.
one() {
  local name=$1 log=$work/logs/$1.log status
  mkdir -p "$work/corpus/$name"
  # Tracing a crash back takes minutes. Foundation keeps memory that LeakSanitizer takes for lost.
  SWIFT_BACKTRACE=enable=no ASAN_OPTIONS=detect_leaks=0 "$fuzzer" "$name" -max_total_time="$seconds" -timeout=5 \
    -rss_limit_mb=2048 -print_final_stats=1 -detect_leaks=0 ${FUZZ_SEED:+-seed=$FUZZ_SEED} -artifact_prefix="$work/findings/$name-" \
    "$work/corpus/$name" "Fuzz/Corpus/$name" >"$log" 2>&1
  status=$?
  # A run that did not read the seeds has shown nothing.
  if ! grep -aqE '[1-9][0-9]* files found in Fuzz/Corpus/' "$log"; then
    echo "VIOLATED: the seeds were not read" >>"$log"
    status=1
  fi
  awk -v name="$name" -v status="$status" '
    /^stat::number_of_executed_units:/ { runs = $2 }
    /^stat::peak_rss_mb:/ { memory = $2 }
    /^VIOLATED:|^SUMMARY:|Fatal error:/ { if (why == "") why = $0 }
    / cov: / { for (at = 1; at < NF; at++) if ($at == "cov:") edges = $(at + 1) }
    END { printf "%-18s %10d runs %6d edges %5d MiB  %s\n", name, runs, edges, memory, status == 0 ? "nothing found" : why }' "$log"
  return "$status"
}
export -f one
export work seconds fuzzer FUZZ_SEED
printf '%s\0' "${names[@]}" | xargs -0 -P "$jobs" -I{} bash -c 'one "$1" || touch "$work/failed"' _ {}
[ ! -e "$work/failed" ] || { rm "$work/failed"; echo "Findings are in $work/findings; run one again: $fuzzer TARGET FILE" >&2; exit 1; }
