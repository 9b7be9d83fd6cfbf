#!/bin/bash
# make-golden.sh BIN_ROOT: makes the golden archives and their expectations again, from scratch.
#
# BIN_ROOT holds one PostgreSQL per major, complete with server: BIN_ROOT/14/bin to BIN_ROOT/18/bin.
# For each major a throw-away cluster is made, golden.sql loaded and dumped, and the server asked by oracle.py what the
# archive has to contain.  The results replace the files next to this script:
#
#   pgNN.dump            uncompressed and written through a pipe.  pg_dump cannot seek back there, so the table of
#                        contents never learns where the data blocks are ("not set"), as in every streamed backup.
#   pg15-seekable.dump   uncompressed and written to a file: the offsets are set.
#   pg16-gzip.dump       compressed, for tests that have to notice it; without expectations.
#   *.expected.json      what oracle.py says of the uncompressed ones.
#
# Rows, bytes and fingerprints come out the same each time.  The archives do not: they hold the time of the dump, and
# on another minor release its version.
#
# Environment: PYTHON (a Python with the package "xxhash"; python3 if unset), and SERVER_USER (postgres if unset), the
# user to run servers as when this script runs as root, which PostgreSQL refuses to do.

set -euo pipefail

[ $# = 1 ] || { echo "usage: $0 BIN_ROOT" >&2; exit 2; }
bin_root=$(cd "$1" && pwd)
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python=${PYTHON:-python3}
server_user=${SERVER_USER:-postgres}

# Nothing of the caller's may leak into a connection, or into the text of a value.
for name in $(compgen -e PG); do unset "$name"; done
export LC_ALL=C
scratch=$(mktemp -d)
chmod 755 "$scratch"
export PGHOST=$scratch PGPORT=54321 PGUSER=postgres PGCLIENTENCODING=UTF8

# pg_dump sets some of these by itself, but neither TimeZone nor bytea_output; the oracle's psql sets none.
settings="-c TimeZone=UTC -c bytea_output=hex -c intervalstyle=postgres -c datestyle=ISO -c extra_float_digits=3"

as_server() {
  if [ "$(id -u)" = 0 ]; then
    (cd "$scratch" && setpriv --reuid="$server_user" --regid="$(id -gn "$server_user")" --init-groups "$@")
  else
    (cd "$scratch" && "$@")
  fi
}

running= # the bin folder of the server that is up
stop() {
  [ -z "$running" ] || as_server "$running/pg_ctl" -D "$scratch/data" -m immediate -s stop || true
  running=
  rm -rf "$scratch/data"
}
trap 'stop; rm -rf "$scratch"' EXIT
[ "$(id -u)" != 0 ] || chown "$server_user" "$scratch"

start() {
  local bin=$1
  # Locale C and UTF8 exist everywhere and sort alike everywhere.
  as_server "$bin/initdb" -D "$scratch/data" -U postgres -A trust -E UTF8 --locale=C --no-sync >"$scratch/initdb.log" 2>&1 ||
    { cat "$scratch/initdb.log" >&2; return 1; }
  # Only a socket in the scratch folder, so no port can be taken already; no fsync for a cluster that is thrown away.
  as_server "$bin/pg_ctl" -D "$scratch/data" -l "$scratch/server.log" -w -s \
    -o "-p $PGPORT -c listen_addresses= -c unix_socket_directories='$scratch' -c fsync=off" start ||
    { cat "$scratch/server.log" >&2; return 1; }
  running=$bin
}

load() {
  local psql=("$1/psql" -X -q -v ON_ERROR_STOP=1)
  "${psql[@]}" -d postgres -c 'CREATE ROLE golden_reader' -c 'CREATE ROLE golden_writer' \
    -c "CREATE DATABASE golden ENCODING 'UTF8' TEMPLATE template0"
  "${psql[@]}" -d golden -f "$here/golden.sql" >/dev/null
}

# piped NAME BIN OPTIONS...: a dump through a pipe.  A redirection alone would not do: that is a file, and seekable.
piped() {
  local name=$1 bin=$2
  shift 2
  "$bin/pg_dump" -Fc "$@" golden | cat >"$scratch/$name.dump"
  mv "$scratch/$name.dump" "$here/$name.dump"
}

expected() {
  local name=$1 bin=$2
  PGDATABASE=golden "$python" "$here/oracle.py" expect --psql "$bin/psql" --pg-dump "$bin/pg_dump" "$here/$name.dump" \
    >"$scratch/$name.json"
  mv "$scratch/$name.json" "$here/$name.expected.json"
}

for major in 14 15 16 17 18; do
  bin=$bin_root/$major/bin
  start "$bin"
  load "$bin"
  export PGOPTIONS=$settings
  piped "pg$major" "$bin" -Z0
  expected "pg$major" "$bin"
  case $major in
    15)
      "$bin/pg_dump" -Fc -Z0 -f "$scratch/seekable" golden
      mv "$scratch/seekable" "$here/pg15-seekable.dump"
      expected pg15-seekable "$bin"
      ;;
    16) piped pg16-gzip "$bin" -Z6 ;;
  esac
  unset PGOPTIONS
  stop
  echo "$("$bin/pg_dump" --version): done"
done
