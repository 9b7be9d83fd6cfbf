# What is checked of pgbackupd in a booted container: sourced by test-systemd.sh. `check` counts, `inside` runs as root there.
# A check is a function or a command that fails where the sentence is not true, and prints what it saw.

unit=pgbackupd.service
configuration=/etc/pgbackupd/pgbackupd.yaml
# A member of the group, who is not root.
operator=olga

# --- helpers

client() { inside_as "$operator" pgbackupctl "$@"; }
property() { inside systemctl show --property="$1" --value "$unit"; }
sql() { inside_as postgres psql -XAtq -d shop -c "$1"; }

# is VALUE WHAT COMMAND…: the command prints exactly that.
is() {
  local wanted=$1 what=$2 actual
  shift 2
  actual=$("$@")
  [ "$actual" = "$wanted" ] || { printf '%s is "%s", not "%s"\n' "$what" "$actual" "$wanted"; return 1; }
}

# says PATTERN COMMAND…: the command's output matches, however it ends.
says() {
  local pattern=$1 output
  shift
  output=$("$@" 2>&1)
  grep -qE -- "$pattern" <<<"$output" || { printf 'no "%s" in:\n%s\n' "$pattern" "$output"; return 1; }
}

# ends_with STATUS COMMAND…
ends_with() {
  local wanted=$1 status
  shift
  "$@"
  status=$?
  [ $status -eq "$wanted" ] || { printf 'it ended with %s, not %s: %s\n' "$status" "$wanted" "$*"; return 1; }
}

# The ledger as one JSON array, asked of the daemon; jq's status tells whether the expression is true of it.
ledger() { client log --lines 100000 --json | jq -s "$@"; }
ledger_has() { ledger -e "$@" >/dev/null || { client log --lines 12; return 1; }; }

# Entries of the unit as JSON lines; arguments as for journalctl.
journal() { inside journalctl --unit="$unit" --output=json --no-pager "$@"; }

# drop_in NAME: standard input becomes a drop-in of the unit.
drop_in() {
  inside mkdir -p "/etc/systemd/system/$unit.d"
  inside tee "/etc/systemd/system/$unit.d/$1.conf" >/dev/null && inside systemctl daemon-reload
}
remove_drop_in() { inside rm "/etc/systemd/system/$unit.d/$1.conf" && inside systemctl daemon-reload; }

# configure SCHEDULE [JOB-LINE]: writes the configuration with that schedule of `daily`, and a further job.
configure() {
  inside tee "$configuration" >/dev/null <<YAML
databases:
  shop: { connect: "host=/run/postgresql dbname=shop user=pgbackupd" }
jobs:
  daily: { schedule: "$1", keep: 7d }
  manual: { keep: forever }
  ${2:-}
metrics: { listen: "127.0.0.1:9847" }
alerts: { on: success, command: { run: "cat >>/var/lib/pgbackupd/told" } }
daemon:
  monitor_socket: /run/pgbackupd/monitor.sock
YAML
}

daily="0 2 * * *"

# --- a dump that stands still

# pg_dump takes large objects after every table: a lock on their table holds it when most of the archive is written already.
hold_dumps() {
  inside systemd-run --quiet --collect --uid=postgres --setenv=PGAPPNAME=holder \
    psql -X -q -d shop -c "BEGIN; LOCK TABLE pg_largeobject IN ACCESS EXCLUSIVE MODE; SELECT pg_sleep(900)" &&
    within 20 is 1 "the number of held locks" sql "SELECT count(*) FROM pg_locks
      WHERE relation = 'pg_largeobject'::regclass AND mode = 'AccessExclusiveLock' AND granted"
}

release_dumps() {
  sql "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'holder'" >/dev/null
  within 20 is 0 "the number of holders" sql "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'holder'"
}

# Nothing holds, nothing runs, and the daemon is up: so that a check that failed does not spoil the next one.
calm() {
  release_dumps && inside systemctl start "$unit" &&
    within 60 is 0 "the number of runs" active_runs && configure "$daily" && inside systemctl reload "$unit"
}
active_runs() { client status --json | jq '.runs | length'; }

# A dump stands at the lock, and part of its archive lies in the store.
is_mid_dump() {
  is 1 "the number of waiting dumps" sql "SELECT count(*) FROM pg_locks
    WHERE relation = 'pg_largeobject'::regclass AND NOT granted" || return 1
  inside find /var/lib/pgbackupd/backups -name '*.part' -size +100k | grep . || { echo "no part of it is written"; return 1; }
}

# Begins a backup on demand and prints the id of its run.
begin_backup() { client backup shop --no-wait --json | jq -er '.[0].id'; }

# All that lies in the store, except for the folder where uploads grow.
stored() { inside find /var/lib/pgbackupd/backups -mindepth 1 ! -name .incoming | sort; }

# --- preparations

create_database() {
  within 60 inside_as postgres pg_isready --quiet &&
    inside_as postgres createdb shop &&
    inside_as postgres psql -X -q -v ON_ERROR_STOP=1 -d shop <<'SQL'
CREATE ROLE pgbackupd LOGIN;
GRANT pg_read_all_data TO pgbackupd;
CREATE TABLE orders AS SELECT n AS id, md5(n::text) || md5((n + 1)::text) || md5((n + 2)::text) AS note
  FROM generate_series(1, 200000) AS n;
SELECT lo_from_bytea(4711, 'a picture');
GRANT SELECT ON LARGE OBJECT 4711 TO pgbackupd;
SQL
}

has_account() {
  inside systemd-sysusers pgbackupd.conf && inside systemd-tmpfiles --create pgbackupd.conf &&
    says '^pgbackupd:.*:/var/lib/pgbackupd:/usr/sbin/nologin$' inside getent passwd pgbackupd &&
    says '^pgbackupd:' inside getent group pgbackupd &&
    is "700 pgbackupd pgbackupd" "the state directory" inside stat -c '%a %U %G' /var/lib/pgbackupd &&
    inside useradd --groups pgbackupd "$operator"
}

is_started() {
  inside chown root:pgbackupd "$configuration" && inside chmod 0640 "$configuration" &&
    inside systemctl enable --quiet "$unit" && inside systemctl start "$unit" &&
    is active "its state" inside systemctl is-active "$unit" &&
    is enabled "the unit" inside systemctl is-enabled "$unit" &&
    is "$unit" "what is wanted at boot" inside ls /etc/systemd/system/multi-user.target.wants --ignore='[!p]*' \
      --ignore='postgresql*'
}

# Starts anew on the configuration written before; the counter of restarts begins at 0.
restarted() { inside systemctl restart "$unit" && is active "its state" inside systemctl is-active "$unit"; }

# --- the host

verifies() { is "" "what systemd-analyze verify says" inside systemd-analyze verify --man=no "$unit"; }
is_hardened() { inside systemd-analyze security --no-pager --threshold=13 "$unit"; }

sockets_have_modes() {
  is "755 pgbackupd pgbackupd" "their directory" inside stat -c '%a %U %G' /run/pgbackupd &&
    is "660 pgbackupd pgbackupd socket" "the control socket" inside stat -c '%a %U %G %F' /run/pgbackupd/control.sock &&
    is "666 pgbackupd pgbackupd socket" "the monitor socket" inside stat -c '%a %U %G %F' /run/pgbackupd/monitor.sock
}

http_status() {
  inside_as nobody curl --silent --output /dev/null --write-out '%{http_code}' --unix-socket /run/pgbackupd/monitor.sock "$@"
}

monitor_only_reads() {
  is 200 "GET of the status" http_status http://x/v1/status &&
    says '^40[345]$' http_status --request POST http://x/v1/reload &&
    says '^40[345]$' http_status --request POST --data '{"database":"shop"}' http://x/v1/backups &&
    ledger_has 'any(.[]; .kind == "configuration.reloaded" or .kind == "run.started") | not'
}

stranger_is_refused() { ends_with 3 inside_as nobody pgbackupctl status; }

backs_up() {
  client backup shop --label "from the test" && says '^shop/[0-9TZ]+ .*manual' client list &&
    ledger_has --arg uid "$(inside id -u "$operator")" \
      'any(.[]; .kind == "run.finished" and .result == "succeeded" and .by.uid == ($uid | tonumber))' &&
    is 200000 "the rows of orders" backed_up_rows
}
backed_up_rows() { client contents shop/latest --json | jq '.tables[] | select(.name == "orders") | .rows'; }

# A whole PostgreSQL, in the unit's sandbox.
drills() {
  client drill shop && says 'proved .*by a drill' client show shop/latest && is "" "what is left of it" inside ls /var/lib/pgbackupd/drills
}

# --- a hostile backup

# A table's CHECK runs in a drill, as a superuser there: native code (Tests/Attacker), then a shell. Both attack the daemon, its key, its
# stores and its sockets; what came of that lies in the drill's server, and an assertion tells it.
create_attack() {
  local code
  clang -shared -fPIC -o "$work/attacker.so" Tests/Attacker/Attacker.c &&
    code=$(od -An -tx1 -v "$work/attacker.so" | tr -d ' \n') &&
    inside_as postgres psql -X -q -v ON_ERROR_STOP=1 -d shop <<SQL
CREATE FUNCTION attack(x int) RETURNS bool LANGUAGE plpgsql AS \$attack\$
DECLARE folder text := current_setting('data_directory'); tool oid; BEGIN
  IF current_setting('cluster_name') <> 'pgbackupd_drill' THEN RETURN true; END IF;
  tool := lo_from_bytea(0, '\\x$code');
  PERFORM lo_export(tool, folder || '/tool.so');
  PERFORM lo_unlink(tool);
  EXECUTE format('COPY (SELECT unnest(%L::text[])) TO %L', ARRAY['victim=$1', 'port=9847',
    'secret=/var/lib/pgbackupd/signing.sec', 'store=/var/lib/pgbackupd/backups', 'stream=/run/pgbackupd/control.sock',
    'datagram=/run/systemd/journal/socket'], folder || '/targets');
  BEGIN
    EXECUTE format('LOAD %L', folder || '/tool.so');
  EXCEPTION WHEN OTHERS THEN
  END;
  COPY (SELECT 1) TO PROGRAM \$sh\$
    { read word </var/lib/pgbackupd/signing.sec && echo 'sh reads the key: DONE'
    read word </etc/pgbackupd/pgbackupd.yaml && echo 'sh reads the configuration: DONE'
    echo x >/var/lib/pgbackupd/backups/forged && echo 'sh writes into the store: DONE'
    echo x >/tmp/forged && echo 'sh writes to /tmp: DONE'
    read word </proc/$1/environ && echo 'sh reads the environment: DONE'
    kill -9 $1 && echo 'sh kills: DONE'
    } >>found 2>&1; echo 'sh: refused (it has ended)' >>found \$sh\$;
  RETURN true;
END \$attack\$;
CREATE TABLE bait (x int CHECK (attack(x)));
INSERT INTO bait VALUES (1);
SQL
}

# The attack has been made in full, and nothing of it was done.
was_refused() {
  local attack
  tr '+' '\n' <"$work/found" >"$work/found.lines" && mv "$work/found.lines" "$work/found"
  cat "$work/found"
  [ "$(grep -c ': refused (' "$work/found")" -ge 65 ] && ! grep 'DONE' "$work/found" || return 1
  for attack in 'read the key: refused (EACCES)' 'write into the store: refused (EACCES)' 'open its memory: refused (ENOENT)' \
    'pidfd_getfd: refused (EPERM)' 'ptrace: refused (EPERM)' 'connect to a unix socket: refused (EPERM)' \
    'sendmsg to a unix datagram socket: refused (EAFNOSUPPORT)' 'connect by TCP: refused (EAFNOSUPPORT)' \
    'kill: refused (EPERM)' 'sh: refused (it has ended)'; do
    grep -qF "$attack" "$work/found" || { printf 'no "%s"\n' "$attack"; return 1; }
  done
}

keeps_code_in() {
  local process key
  process=$(property MainPID)
  key=$(inside sha256sum /var/lib/pgbackupd/signing.sec)
  create_attack "$process" && configure "$daily" &&
    inside sed -i "s|user=pgbackupd\" }|user=pgbackupd\", assert: [\"SELECT translate(pg_read_file('found'), chr(10), '+')\"] }|" "$configuration" &&
    inside systemctl reload "$unit" && client backup shop || return 1
  ends_with 9 client drill shop >"$work/found" 2>&1 && was_refused &&
    is "$process" "the daemon's process" property MainPID && is "$key" "the key" inside sha256sum /var/lib/pgbackupd/signing.sec &&
    is "" "what is forged" inside find /var/lib/pgbackupd/backups /tmp -name forged &&
    within 20 is "$process" "the processes of the account" inside pgrep -u pgbackupd &&
    is "" "what is left of the drill" inside ls /var/lib/pgbackupd/drills || return 1
  # Nothing of it stays, so that what follows finds a database without problems.
  client delete shop/latest --force && sql "DROP TABLE bait; DROP FUNCTION attack" && configure "$daily" &&
    inside systemctl reload "$unit" && client backup shop && client accept shop/latest --note "the attack is over" &&
    client drill shop && client status
}

# Nothing of the daemon's memory is another process's of its account, or in a core.
keeps_its_memory() {
  local process
  process=$(property MainPID)
  is root "the owner of its environment" inside stat -c %U "/proc/$process/environ" &&
    ! inside_as pgbackupd cat "/proc/$process/environ" && ! inside_as pgbackupd head -c1 "/proc/$process/mem" &&
    says '^Max core file size +0 +0 ' inside cat "/proc/$process/limits"
}

verifies_backups() { client verify --all && says ' ok$' client verify shop/latest; }

serves_page() {
  says '^pgbackupd_database_backups\{database="shop"\} 1' inside curl --silent http://127.0.0.1:9847/metrics &&
    says 'Backups of' inside curl --silent http://127.0.0.1:9847/ &&
    is 421 "what another name gets" inside curl --silent --output /dev/null --write-out '%{http_code}' \
      --header 'Host: evil.example' http://127.0.0.1:9847/ &&
    says '^PGBACKUPD OK' inside_as nobody pgbackupctl check --nagios --socket /run/pgbackupd/monitor.sock
}

tells_people() { within 20 says 'manual of .shop. succeeded' inside cat /var/lib/pgbackupd/told; }

shows_progress() {
  local run
  calm && hold_dumps && run=$(begin_backup) && within 30 is_mid_dump &&
    within 10 says '^manual of shop: dump [0-9]+ %' property StatusText &&
    says 'manual of shop' inside systemctl status "$unit" && release_dumps &&
    within 30 ledger_has --arg run "$run" 'any(.[]; .run == $run and .result == "succeeded")' &&
    within 10 says '^next: daily at 20' property StatusText
}

# --- the journal

# finds FIELD VALUE: the filter finds each entry that has the field, and no other; and there are others.
finds() {
  local field=$1 value=$2 with all found strays
  inside journalctl --sync
  all=$(journal | jq -s length)
  with=$(journal | jq -s --arg f "$field" --arg v "$value" '[.[] | select(.[$f] == $v)] | length')
  found=$(journal "$field=$value" | jq -s length)
  strays=$(journal "$field=$value" | jq -c --arg f "$field" --arg v "$value" 'select(.[$f] != $v)')
  printf '%s=%s finds %s entries of %s; %s have it\n%s\n' "$field" "$value" "$found" "$all" "$with" "$strays"
  [ "$found" -gt 0 ] && [ "$found" -eq "$with" ] && [ "$found" -lt "$all" ] && [ -z "$strays" ]
}

last_run() { ledger -er '[.[] | select(.kind == "run.finished")] | last | .run'; }
finds_last_run() { finds PGBACKUPD_RUN "$(last_run)"; }

# The MESSAGE_ID of the catalog's entry with that subject.
message_id() { awk -v subject="Subject: $1" '/^-- / { id = $2 } index($0, subject) == 1 { print id }' systemd/pgbackupd.catalog; }

# has_entry SUBJECT PRIORITY
has_entry() {
  local id
  id=$(message_id "$1")
  echo "$1: '$id'"
  [ -n "$id" ] && journal "MESSAGE_ID=$id" | jq -es --arg p "$2" 'length > 0 and all(.[]; .PRIORITY == $p)'
}

is_well_marked() {
  has_entry "The daemon is ready" 5 && has_entry "A backup of" 5 &&
    journal _COMM=pgbackupd | jq -es 'length > 0 and all(.[]; .PRIORITY and .SYSLOG_IDENTIFIER == "pgbackupd")'
}

# Whatever a library writes to standard error would come by the transport "stdout".
is_no_noise() {
  journal _COMM=pgbackupd | jq -r 'select(._TRANSPORT != "journal") | .MESSAGE' | sort | uniq -c
  journal _COMM=pgbackupd | jq -es 'all(.[]; ._TRANSPORT == "journal")'
}

is_explained() {
  inside journalctl --update-catalog &&
    says 'put the schedules into force' inside journalctl --unit="$unit" --no-pager --catalog &&
    says 'A backup of shop succeeded' inside journalctl --unit="$unit" --no-pager --catalog
}

# --- reload

reloads() {
  configure "17 3 * * *" && inside systemctl reload "$unit" && says '17 3 \* \* \*' client jobs
}

refuses_mistakes() {
  configure "99 99 * * *" && ! inside systemctl reload "$unit" && is active "its state" inside systemctl is-active "$unit" &&
    says '17 3 \* \* \*' client jobs && ends_with 10 client status && says 'configuration file was refused' client status &&
    finds PGBACKUPD_ERROR E-CONFIG-INVALID
}

is_mended() { configure "$daily" && inside systemctl reload "$unit" && ends_with 0 client status && says "0 2 \* \* \*" client jobs; }

reloads_on_hangup() {
  configure "23 4 * * *" && inside systemctl kill --signal=HUP --kill-whom=main "$unit" &&
    within 15 says '23 4 \* \* \*' client jobs && is active "its state" inside systemctl is-active "$unit" && configure "$daily" &&
    inside systemctl reload "$unit"
}

dumps_state() {
  inside systemctl kill --signal=USR1 --kill-whom=main "$unit" &&
    within 15 says 'state: .*job daily' inside journalctl --unit="$unit" --no-pager --output=cat --grep=state &&
    is active "its state" inside systemctl is-active "$unit"
}

# --- a store elsewhere, a password from a credential: the example that is installed, as it is

uses_credential() {
  sql "CREATE ROLE reader LOGIN PASSWORD 'only in this test'; GRANT pg_read_all_data TO reader;
    GRANT SELECT ON LARGE OBJECT 4711 TO reader" &&
    inside install -d -o pgbackupd -g pgbackupd -m 0700 /srv/backups &&
    inside install -m 0600 /dev/stdin /etc/pgbackupd/shop-password <<<"only in this test" &&
    drop_in example <systemd/example-drop-in.conf && inside tee "$configuration" >/dev/null <<'YAML' &&
databases:
  shop: { connect: "host=127.0.0.1 dbname=shop user=reader", password_file: "${CREDENTIALS_DIRECTORY}/shop-password" }
stores:
  disk: { path: /srv/backups }
YAML
    restarted && client backup shop && inside find /srv/backups -name manifest.json | grep . &&
    is 1 "the number of scram passwords" sql "SELECT count(*) FROM pg_authid
      WHERE rolname = 'reader' AND rolpassword LIKE 'SCRAM-SHA-256%'"
}

# --- ends

# has_no_leftovers STORED: the store holds what it held before, and no part of an upload.
has_no_leftovers() {
  is "$1" "the store" stored && is "" "uploads" inside find /var/lib/pgbackupd/backups/.incoming -type f
}

stops_cleanly() {
  local run before begun took
  calm || return 1
  before=$(stored)
  hold_dumps && run=$(begin_backup) && within 30 is_mid_dump || return 1
  begun=$SECONDS
  inside systemctl stop "$unit"
  took=$((SECONDS - begun))
  echo "it took $took seconds"
  [ $took -le 15 ] && is inactive "its state" property ActiveState && is success "its result" property Result &&
    has_no_leftovers "$before" && release_dumps && restarted &&
    ledger_has --arg run "$run" 'any(.[]; .run == $run and .kind == "run.finished" and .result == "aborted")'
}

has_new_process() { [ "$(property ActiveState)" = active ] && [ "$(property MainPID)" -ne "$1" ]; }

# kill -9 of the daemon; systemd brings another one up.
killed_and_restarted() {
  local process
  process=$(property MainPID)
  inside kill -KILL "$process" && within 40 has_new_process "$process"
}

knows_what_was_cut_off() {
  local run before
  calm || return 1
  before=$(stored)
  hold_dumps && run=$(begin_backup) && within 30 is_mid_dump && killed_and_restarted &&
    within 15 ledger_has --arg run "$run" 'any(.[]; .run == $run and .result == "interrupted")' &&
    within 15 has_no_leftovers "$before" && release_dumps && [ "$(property NRestarts)" -ge 1 ]
}

catches_up() {
  calm && hold_dumps && configure "$daily" 'minutely: { schedule: "* * * * *", keep: 1h }' && inside systemctl reload "$unit" &&
    within 90 is_mid_dump && killed_and_restarted && release_dumps &&
    within 15 ledger_has 'any(.[]; .job == "minutely" and .result == "interrupted" and (.reason | startswith("schedule")))' &&
    within 60 ledger_has 'any(.[]; .job == "minutely" and .kind == "run.finished" and .result == "succeeded"
      and (.reason | startswith("catch-up")))' &&
    configure "$daily" && inside systemctl reload "$unit"
}

# is_watched PART: the release build, where a question that changes nothing is optimised away.
is_watched() {
  local before
  before=$(watchdog_timeouts)
  # No core: it would only fill this machine's disk.
  drop_in wedge <<UNIT && restarted && within 60 restarted_by_itself && remove_drop_in wedge && restarted
[Service]
ExecStart=
ExecStart=/usr/bin/pgbackupd --config /etc/pgbackupd/pgbackupd.yaml --debug-wedge-after 1 --debug-wedge-part $1
WatchdogSec=4
LimitCORE=0
UNIT
  local status=$?
  [ $status -eq 0 ] && [ "$(watchdog_timeouts)" -gt "$before" ]
}

watchdog_timeouts() { inside journalctl --no-pager --output=cat --unit="$unit" | grep -c 'Watchdog timeout'; }
restarted_by_itself() { [ "$(property NRestarts)" -ge 1 ]; }

# --- reboot

comes_back() {
  local before backups
  calm && client backup shop || return 1
  before=$(client list --json | jq -c 'map(.id)')
  container_poweroff && container_boot && within 60 is active "its state" inside systemctl is-active "$unit" &&
    backups=$(client list --json | jq -c 'map(.id)') && [ "$backups" = "$before" ] && ends_with 0 client status &&
    ledger_has '[.[] | select(.kind == "daemon.started" or .kind == "daemon.stopped") | .kind][-2:]
      == ["daemon.stopped", "daemon.started"]'
}

# --- all of them, in an order where each finds what it needs

run_checks() {
  check "PostgreSQL runs, with a database and a role" create_database || return
  check "sysusers and tmpfiles make the account and the state directory" has_account || return
  configure "$daily"
  check "systemd-analyze verify finds nothing in the installed unit" verifies
  check "systemctl enable and start: the daemon says that it is ready" is_started || return
  check "systemd-analyze security: the exposure is 1.3 at most" is_hardened
  check "the status line tells what comes next" within 10 says '^next: daily at 20' property StatusText
  check "the control socket is the group's, the monitor socket everybody's" sockets_have_modes
  check "the monitor socket answers questions of nobody, and changes nothing" monitor_only_reads
  check "the control socket refuses who is not in the group" stranger_is_refused
  check "a member of the group makes a backup on demand" backs_up
  check "a message goes out by a command, in the unit's sandbox" tells_people
  check "a drill restores it into a throw-away server, in the unit's sandbox" drills
  check "the daemon's memory is closed to others of its account" keeps_its_memory
  check "a verification reads it back" verifies_backups
  check "the page and the metrics are served, to who asks for them by the right name" serves_page
  check "the status line shows a run and how far it is" shows_progress
  check "code of a hostile backup gets nothing and reaches nobody, in the unit's sandbox" keeps_code_in

  check "the journal's filter for a database finds its entries" finds PGBACKUPD_DATABASE shop
  check "the journal's filter for a job finds its entries" finds PGBACKUPD_JOB manual
  check "the journal's filter for a run finds its entries" finds_last_run
  check "the journal's entries carry PRIORITY and MESSAGE_ID" is_well_marked
  check "the daemon writes nothing but such entries" is_no_noise
  check "journalctl -x explains entries" is_explained

  check "systemctl reload puts a new schedule into force" reloads
  check "systemctl reload fails on a bad file; the old schedule stays, status and the journal tell why" refuses_mistakes
  check "systemctl reload works again once the file is mended" is_mended
  check "SIGHUP reloads too" reloads_on_hangup
  check "SIGUSR1 writes the state to the journal" dumps_state

  check "systemctl stop in mid-dump ends within seconds; the run is aborted and nothing of it stays" stops_cleanly
  # The pause before a restart is for real trouble.
  drop_in quick <<<$'[Service]\nRestartSec=1'
  check "kill -9 in mid-dump: the run is interrupted in the ledger, and nothing of it stays" knows_what_was_cut_off
  check "a scheduled run that kill -9 cut off is caught up" catches_up
  local part
  for part in scheduler daemon ledger job; do
    check "a daemon whose $part hangs is ended by the watchdog and started anew" is_watched "$part"
  done
  check "it comes back by itself after a reboot, with all it knew" comes_back
  check "the installed example works: a store elsewhere, and a password from a credential over TCP" uses_credential
}
