#!/usr/bin/env bash
# Runs the built tests, and says at the very end which failed: the log above is long. Arguments go to `swift test`.
set -uo pipefail
cd "$(dirname "$0")/.."
log=.build/test.log
# So many tests at once: all of them would wait for the same few cores, with hundreds of sessions and servers.
export SWT_EXPERIMENTAL_MAXIMUM_PARALLELIZATION_WIDTH=${SWT_EXPERIMENTAL_MAXIMUM_PARALLELIZATION_WIDTH:-8}
swift test --skip-build "$@" 2>&1 | tee "$log"
status=${PIPESTATUS[0]}
if [ "$status" -ne 0 ]; then
  printf '\nWhat failed (the whole log is in %s):\n' "$log"
  grep -aE '^✘|recorded an issue|^  ?↳|Fatal error|signal code' "$log" | cut -c1-1000
fi
exit "$status"
