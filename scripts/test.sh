#!/usr/bin/env bash
# Runs the built tests, and says at the very end which failed: the logs above are long. Arguments go to `swift test`; without any, all
# tests run, in two processes at once: those of the whole programs mostly wait for servers and clocks, and would keep the others' threads.
set -uo pipefail
cd "$(dirname "$0")/.."
# So many tests at once in each: all of them would wait for the same few cores, with hundreds of sessions and servers.
export NO_COLOR=1
# Another scratch path's build may be run as well: coverage.sh and sanitize.sh do.
build=${TEST_BUILD:-.build}
export SWT_EXPERIMENTAL_MAXIMUM_PARALLELIZATION_WIDTH=${SWT_EXPERIMENTAL_MAXIMUM_PARALLELIZATION_WIDTH:-8}

# run LOG ARGUMENTS…: the built bundle itself, as `swift test` runs it; two of those at once would meet in .build's database.
run() {
  local log=$1
  shift
  "$(dirname "$(realpath "$build/debug/pgbackupd")")"/pgbackupdPackageTests.xctest --testing-library swift-testing "$@" >"$log" 2>&1
}
if [ $# -gt 0 ]; then
  logs=("$build/test.log")
  swift test --skip-build --scratch-path "$build" "$@" 2>&1 | tee "${logs[0]}"
  status=${PIPESTATUS[0]}
else
  logs=("$build/test.log" "$build/test-programs.log")
  run "${logs[1]}" --filter '^EndToEndTests\.' &
  programs=$!
  run "${logs[0]}" --skip '^EndToEndTests\.'
  status=$?
  wait $programs || status=$?
  cat "${logs[@]}"
fi
if [ "$status" -ne 0 ]; then
  printf '\nWhat failed (the whole log is in %s):\n' "${logs[*]}"
  grep -ahE '^✘|recorded an issue|^  ?↳|Fatal error|Fatal access|signal code|^error:' "${logs[@]}" | cut -c1-1000
fi
# A process that ran nothing is no success.
for log in "${logs[@]}"; do
  grep -aqE 'Test run with [1-9][0-9]* tests? ' "$log" || { echo "No test ran: see $log" >&2; status=1; }
done
grep -ahE 'Test run with [0-9]+ tests' "${logs[@]}"
exit "$status"
