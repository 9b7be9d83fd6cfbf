#!/usr/bin/env bash
# Runs the unit tests (all but those of the whole programs) under a sanitizer: scripts/sanitize.sh thread|address [arguments of swift test].
# The first build of each takes its time: it has a scratch path of its own.
set -uo pipefail
cd "$(dirname "$0")/.."
kind=${1:?thread or address}
shift
case $kind in
  thread) work=.build-tsan ;;
  address) work=.build-asan ;;
  *) echo "usage: scripts/sanitize.sh thread|address" >&2; exit 2 ;;
esac
mkdir -p "$work"
swift build --build-tests --sanitize="$kind" --scratch-path "$work" >"$work/build.log" 2>&1 ||
  { grep -E "error:" "$work/build.log" || tail -20 "$work/build.log"; exit 1; }

# LeakSanitizer takes what Foundation and the test library keep for lost.
export ASAN_OPTIONS=detect_leaks=0
export TSAN_OPTIONS=suppressions=$PWD/scripts/tsan.suppressions
# Tracing a crash back takes minutes.
export SWIFT_BACKTRACE=enable=no
export TEST_BUILD=$work
if [ "$kind" = thread ]; then
  # The toolchain's own: it knows Swift's calls.
  "$(dirname "$(realpath "$(command -v swift)")")/clang" -shared -fPIC -O2 -Wall -Werror -o "$work/tsan-mutex.so" scripts/tsan-mutex.c || exit 1
  export LD_PRELOAD=$PWD/$work/tsan-mutex.so
fi
[ $# -gt 0 ] || set -- --skip '^EndToEndTests\.'
scripts/test.sh "$@"
status=$?
found=$(grep -acE 'WARNING: ThreadSanitizer|ERROR: AddressSanitizer' "$work/test.log")
[ "$found" -eq 0 ] || { echo "$found reports of the sanitizer: see $work/test.log" >&2; status=1; }
exit "$status"
