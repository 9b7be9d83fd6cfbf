#!/usr/bin/env bash
# Style and house rules. Prints every place that breaks one, and ends 1 where there is any.
set -uo pipefail
cd "$(dirname "$0")/.."
failed=0

swift format lint --recursive --strict Sources Tests Fuzz Package.swift || failed=1

# rule DESCRIPTION PATTERN [grep arguments]: no line of the given files may match.
rule() {
  local description=$1 pattern=$2
  shift 2
  local found
  found=$(grep -rnE "$pattern" "$@") && { printf '%s:\n%s\n' "$description" "$found"; failed=1; }
  return 0
}
rule "The clock is read in SystemClock.swift alone" '\bDate\(\)|Date\.now\b' \
  --include='*.swift' --exclude=SystemClock.swift Sources
rule "Unstructured tasks belong to the daemon, to the parts of an S3 upload, to keys that many wait for, and to cleaning up after a cancellation" '\bTask( \{|\.detached)' \
  --include='*.swift' --exclude-dir=BackupDaemon --exclude=S3Upload.swift --exclude=S3Credentials.swift --exclude=Uncancelled.swift Sources
rule "Open ends" '\bTO''DO\b|\bFIX''ME\b|\bXX''X\b' --include='*.swift' --include='*.sh' --include='*.c' --include='*.h' Sources Tests Fuzz scripts
rule "Tests wait for events" 'Task\.sleep|\busleep\(|Thread\.sleep' --include='*.swift' Tests
rule "No force, no trap on input" '\btry!|fatalError\(| as! ' --include='*.swift' Sources
# Characters hide bytes: `'` behind U+0600 is no `'` to Swift, and CR LF is no LF. Cron expressions, sizes and paths of stores have an
# alphabet of ASCII that is checked, byte by byte, where they come in.
rule "Text is searched and cut by bytes (Sources/Quoting/ByteText.swift)" '\.replacing\(|replacingOccurrences|\.has(Prefix|Suffix)\(|\.isNewline' \
  --include='*.swift' --exclude-dir=Quoting --exclude-dir=CronSchedule --exclude-dir=Units --exclude-dir=Storage Sources
# A Character may hold bytes of both sides of a cut: `.` and U+0301 are one. What is excluded cuts bytes and lists.
rule "Text is cut by bytes: rest(after:), skip, MemberName (Sources/Quoting)" 'dropFirst\([^)].*\.count( *[-+] *[0-9]+)?\)' \
  --include='*.swift' --exclude-dir=CronSchedule --exclude=Verification.swift --exclude=Drill.swift --exclude=PieceDigests.swift \
  --exclude=HTTPReplyParser.swift --exclude=S3Upload.swift Sources
# Swift takes `é` of one code point and of two for equal, and K and U+212A; PostgreSQL has a database of each name.
rule "Names of databases are compared by bytes: isExactly, ExactText (Sources/Quoting)" \
  '(\.database|\.live|liveName\([^)]*\)) (==|!=) [^n]|(==|!=) [][A-Za-z_.$0-9!?]*\.(database|live)\b|[dD]atabases\??\.(first|last|contains|filter|removeAll)\b.*\$0\.name (==|!=)|\b(database|databaseName) (==|!=) [^n]|Set\([^)]*\\\.(id\.)?database\)\)?( |$|\.)' \
  --include='*.swift' Sources
rule "Only Sources/Quoting quotes" "&(amp|lt|gt|quot|#39);|\"''\"|\"\\\\\"\\\\\"\"|'\\\\''" \
  --include='*.swift' --exclude-dir=Quoting Sources

# The programs are not installed where lint runs; whatever else verify has to say about the unit is a mistake.
found=$(systemd-analyze verify --man=no systemd/pgbackupd.service 2>&1 |
  grep -vE '^pgbackupd\.service: Command /usr/bin/pgbackup(d|ctl) is not executable: No such file or directory$')
[ -z "$found" ] || { printf 'The unit:\n%s\n' "$found"; failed=1; }
# In tenths: 0 is a fully sandboxed service, 100 one that may do everything.
found=$(systemd-analyze security --no-pager --offline=true --threshold=13 systemd/pgbackupd.service 2>&1) ||
  { printf 'The unit is exposed more than 1.3:\n%s\n' "$(grep -v '✓' <<<"$found")"; failed=1; }

for script in scripts/*.sh scripts/*/*.sh .ci/run Tests/*/Golden/*.sh Benchmarks/*.sh; do
  [ -e "$script" ] || continue
  bash -n "$script" || failed=1
done
long=$(find Sources Tests Fuzz -name '*.swift' -print0 | xargs -0 wc -l | awk '$1 > 500 && $2 != "total"')
[ -z "$long" ] || { printf 'Files over 500 lines:\n%s\n' "$long"; failed=1; }

[ $failed -eq 0 ] && echo "lint: clean"
exit $failed
