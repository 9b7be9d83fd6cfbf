#!/usr/bin/env bash
# Prints the lines that tests cover, by room and of the whole, and ends 1 where a room or the whole is below its threshold. Arguments go to
# `swift test` (--filter PostgresArchiveTests): then a part runs, and thresholds say nothing.
#
# The programs that tests start count too: each process writes its counts at its end. Those that are killed write none.
set -uo pipefail
cd "$(dirname "$0")/.."
# Parsers, quoting, crypto and retention, in percent; a room that is not there yet is passed over.
rooms='PostgresArchive=95 AgeEncryption=95 BackupCatalog=95 CronSchedule=95 ArtifactFormat=95 Quoting=95'
whole=85

# The toolchain's own: another version's doesn't read its profiles.
tools=$(dirname "$(realpath "$(command -v swift)")")
work=.build-coverage
mkdir -p "$work"
swift build --build-tests --enable-code-coverage --scratch-path "$work" >"$work/build.log" 2>&1 ||
  { grep -E "error:" "$work/build.log" || tail -20 "$work/build.log"; exit 1; }
binaries=$(dirname "$(realpath "$work/debug/pgbackupd")")
profiles=$PWD/$work/profiles
rm -rf "$profiles"
mkdir -p "$profiles"
# Drills and servers run as other users.
chmod 1777 "$profiles"

# %m: processes of one program add up in a few files, or thousands of them would fill the disk.
LLVM_PROFILE_FILE="$profiles/%8m.profraw" TEST_BUILD=$work scripts/test.sh "$@"
status=$?
"$tools/llvm-profdata" merge -sparse -failure-mode=all -o "$work/coverage.profdata" "$profiles"/*.profraw || exit 1
"$tools/llvm-cov" export -summary-only -instr-profile "$work/coverage.profdata" \
  -ignore-filename-regex='/\.build|/Tests/|/Fuzz/' \
  "$binaries/pgbackupdPackageTests.xctest" -object "$binaries/pgbackupd" -object "$binaries/pgbackupctl" \
  >"$work/coverage.json" || exit 1

python3 - "$work/coverage.json" "$rooms" "$whole" $# <<'PYTHON' || status=1
import json, re, sys

path, rooms, whole, arguments = sys.argv[1:]
wanted = {name: float(least) for name, least in (word.split("=") for word in rooms.split())}
files = {}
for file in json.load(open(path))["data"][0]["files"]:
    match = re.search(r"/Sources/([^/]+)/(.+)$", file["filename"])
    if match:
        lines = file["summary"]["lines"]
        files[match.group(1), match.group(2)] = (lines["covered"], lines["count"])

def percent(some):
    covered, count = (sum(column) for column in zip(*some))
    return 100 * covered / count if count else 100, covered, count

below = []
for room in sorted({room for room, _ in files}):
    own = {name: lines for (of, name), lines in files.items() if of == room}
    share, covered, count = percent(own.values())
    least = wanted.get(room)
    print(f"{room:22} {share:5.1f} %  {covered:6} of {count:6} lines" + (f"  (at least {least:.0f})" if least else ""))
    if least:
        # What is not covered has a name.
        for name, (some, all_) in sorted(own.items()):
            if all_ and some / all_ < least / 100:
                print(f"    {name:36} {100 * some / all_:5.1f} %  {all_ - some} lines are not covered")
        if share < least:
            below.append(room)
share, covered, count = percent(files.values())
print(f"{'The whole':22} {share:5.1f} %  {covered:6} of {count:6} lines  (at least {whole})")
if share < float(whole):
    below.append("the whole")
if arguments != "0":
    print("A part of the tests ran: thresholds are not asked for.")
elif below:
    sys.exit(f"Below the threshold: {', '.join(below)}")
PYTHON
exit "$status"
