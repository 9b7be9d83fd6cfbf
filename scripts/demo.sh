#!/usr/bin/env bash
# Shows the main job on a private, throw-away PostgreSQL. Ends 0 only where everything it claims is true, and leaves no
# process and no file behind. KEEP=1 leaves the server and the daemon running and says how to use them.
set -euo pipefail
cd "$(dirname "$0")/.."
PATH=$PWD/.build/release:$PATH

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
run() { printf '$ %s\n' "$*"; "$@"; }
die() { printf '\nThe demo failed: %s\n' "$*" >&2; exit 1; }

folder=$(mktemp -d /tmp/pgbackupd-demo.XXXXXX)
chmod 755 "$folder"
bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
# PostgreSQL refuses to run as root.
as_user=()
[ "$(id -u)" -ne 0 ] || as_user=(setpriv --reuid=postgres --regid=postgres --init-groups)
daemon=

cleanup() {
  status=$?
  trap - EXIT
  if [ "${KEEP:-}" = 1 ] && [ $status -eq 0 ]; then
    say "Still running, as KEEP=1 asked for:"
    cat <<TEXT
  export PGBACKUPD_SOCKET=$folder/control.sock PATH=$PWD/.build/release:\$PATH
  pgbackupctl status
The page:     http://127.0.0.1:$port/        (and /metrics)
The database: psql -h $folder/pg -U postgres portal
To end it:    kill $daemon; ${as_user[*]} $bin/pg_ctl -D $folder/pg/data stop -m fast; rm -rf $folder
TEXT
    exit 0
  fi
  [ -z "$daemon" ] || { kill "$daemon" 2>/dev/null && wait "$daemon" 2>/dev/null; } || true
  [ ! -d "$folder/pg/data" ] || "${as_user[@]}" "$bin/pg_ctl" -D "$folder/pg/data" stop -m immediate -s || true
  [ $status -eq 0 ] || { echo "--- the daemon's log:"; cat "$folder/daemon.log" 2>/dev/null; } >&2
  rm -rf "$folder"
  exit $status
}
trap cleanup EXIT
trap 'exit 130' INT TERM

say "1. A private PostgreSQL in $folder, reachable by its socket only."
mkdir "$folder/pg"
[ "$(id -u)" -ne 0 ] || chown postgres "$folder/pg"
"${as_user[@]}" "$bin/initdb" -D "$folder/pg/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 -N >/dev/null
"${as_user[@]}" "$bin/pg_ctl" -D "$folder/pg/data" -l "$folder/pg/log" -w -s \
  -o "-k $folder/pg -c listen_addresses='' -c fsync=off" start
export PGHOST=$folder/pg PGUSER=postgres PGOPTIONS='-c client_min_messages=warning'
createdb portal
psql -X -q -d portal -v scale=5 -f etc/demo/sample.sql
psql -X -d portal -Atc "SELECT count(*) || ' tables, ' || pg_size_pretty(pg_database_size('portal')) || ' on disk'
  FROM pg_class WHERE relkind IN ('r', 'p') AND relnamespace = 'portal'::regnamespace"

port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
say "2. The daemon, on this configuration. Its schedule fires within the minute."
cat >"$folder/pgbackupd.yaml" <<YAML
databases:
  portal:
    connect: "host=$folder/pg user=postgres dbname=portal"
    assert: ["select count(*) = 10000 from portal.users"]
jobs:
  minutely: { schedule: "* * * * *", keep: 2h }
  manual:
  drill:
objectives: { rpo: 24h, proved: 8d, rto: 1h }
alerts: { on: [failure, recovered], command: { run: "cat >>$folder/alerts; echo >>$folder/alerts" } }
metrics: { listen: "127.0.0.1:$port" }
drill: { folder: $folder/drills, jobs: 2 }
daemon: { state: $folder/state, socket: $folder/control.sock }
YAML
cat "$folder/pgbackupd.yaml"
run pgbackupctl config check "$folder/pgbackupd.yaml"
export PGBACKUPD_SOCKET=$folder/control.sock
pgbackupd --config "$folder/pgbackupd.yaml" 2>"$folder/daemon.log" &
daemon=$!
# The socket takes connections from the moment that it exists.
while [ ! -S "$PGBACKUPD_SOCKET" ]; do
  kill -0 "$daemon" 2>/dev/null || die "the daemon did not start"
  read -rt 0.05 <> <(:) || true
done

say "3. A backup on demand. It is measured, compressed and stored while pg_dump still writes."
run pgbackupctl backup portal --label "before the demo's release"

say "4. What the daemon says of itself."
run pgbackupctl status && die "nothing was proved yet, and status does not say so"
echo "(It ends with 10, because nothing was proved yet. Step 8 does that.)"
echo
run pgbackupctl jobs

say "5. The schedule fires by itself; the ledger tells when (a minute at most)."
until pgbackupctl log --lines 1000 --json | grep -q '"kind":"run.finished".*"reason":"schedule'; do
  kill -0 "$daemon" 2>/dev/null || die "the daemon is gone"
  # Ends with the first record that is written from now on.
  { pgbackupctl log --follow --lines 0 & echo $!; } | { read -r follower; head -n 1 >/dev/null; kill "$follower" 2>/dev/null || true; } || true
done
run pgbackupctl log
echo
run pgbackupctl list
echo
run pgbackupctl contents portal/latest:manual

say "6. Without pgbackupd: what is stored opens with stock tools alone."
backup=$(ls -d "$folder"/state/backups/portal/manual/*/)
artifact=$(ls "$backup"*.dump.zst)
createdb restored
echo "\$ zstd -dc $(basename "$artifact") | pg_restore --exit-on-error -d restored"
zstd -dc "$artifact" | pg_restore --exit-on-error -d restored
(cd "$backup" && pgbackupctl show portal/latest:manual | sed -n 's/^sha256  //p' | run sha256sum -c -)

say "7. Every table of both databases, compared by SQL: rows and the digest of all their text."
mapfile -t tables < <(psql -X -d portal -Atc "SELECT format('%I.%I', nspname, relname) FROM pg_class c
  JOIN pg_namespace n ON n.oid = relnamespace WHERE relkind IN ('r', 'm') AND nspname = 'portal' ORDER BY 1")
[ ${#tables[@]} -ge 12 ] || die "only ${#tables[@]} tables were found"
for table in "${tables[@]}"; do
  query="SELECT count(*) || ' rows  ' || coalesce(md5(string_agg(md5(t::text), '' ORDER BY md5(t::text))), 'empty') FROM ONLY $table AS t"
  left=$(psql -X -d portal -Atc "$query")
  right=$(psql -X -d restored -Atc "$query")
  printf '  %-38s %s\n' "$table" "$left"
  [ "$left" = "$right" ] || die "$table differs: $right"
done
objects="SELECT count(*) || ' objects  ' || md5(string_agg(md5(lo_get(oid)), '' ORDER BY oid)) FROM pg_largeobject_metadata"
printf '  %-38s %s\n' "large objects" "$(psql -X -d portal -Atc "$objects")"
[ "$(psql -X -d portal -Atc "$objects")" = "$(psql -X -d restored -Atc "$objects")" ] || die "large objects differ"

say "All equal: ${#tables[@]} tables and the large objects came back as they were."

say "8. A disaster: somebody empties the users' table, and drops another one."
psql -X -q -d portal -c 'TRUNCATE portal.users CASCADE; DROP TABLE portal.floats'
psql -X -d portal -Atc "SELECT count(*) || ' users are left' FROM portal.users"
run pgbackupctl restore portal/latest:manual --preview
echo
run pgbackupctl restore portal/latest:manual --force
psql -X -d portal -Atc "SELECT count(*) || ' users are there again' FROM portal.users"
[ "$(psql -X -d portal -Atc 'SELECT count(*) FROM portal.users')" = 10000 ] || die "users are missing"
run pgbackupctl status

say "9. Second thoughts: back to what it was before the restore, and forth again."
run pgbackupctl rollback portal --force
[ "$(psql -X -d portal -Atc 'SELECT count(*) FROM portal.users')" = 0 ] || die "the rollback did not roll back"
run pgbackupctl rollback portal --force
[ "$(psql -X -d portal -Atc 'SELECT count(*) FROM portal.users')" = 10000 ] || die "the second rollback did not undo the first"

say "10. One table alone: into a schema beside the live one, and as JSON with no PostgreSQL at all."
run pgbackupctl restore portal/latest:manual --table portal.floats --into-schema rescued
psql -X -d portal -c 'TABLE rescued.floats'
echo '$ pgbackupctl extract portal/latest:manual --table portal.floats --format json'
pgbackupctl extract portal/latest:manual --table portal.floats --format json

say "11. Is what is stored still what was written? Every byte is read back, and the newest backup is restored into a throw-away server."
run pgbackupctl verify --all
echo
run pgbackupctl drill portal/latest:manual
echo
run pgbackupctl status || die "something is wrong"

say "12. From outside: a monitor's line, Prometheus, and a page."
run pgbackupctl check --nagios
echo "\$ curl -s http://127.0.0.1:$port/metrics | grep database_"
curl -s --noproxy '*' "http://127.0.0.1:$port/metrics" | grep '^pgbackupd_database_\(rpo\|proved\|rto\|recovery\)'
curl -s --noproxy '*' "http://127.0.0.1:$port/" | grep -q 'All is well' || die "the page does not say that all is well"
pgbackupctl report --format html --output "$folder/report.html" >/dev/null
grep -q 'No problems are known' "$folder/report.html" || die "the report knows of problems"

say "Restored, proved row for row, undone, and done again; and proved once more where nothing can be harmed."
[ "${KEEP:-}" = 1 ] || echo "KEEP=1 make demo leaves it running, with its page."
