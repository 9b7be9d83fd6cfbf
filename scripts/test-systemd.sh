#!/usr/bin/env bash
# Tries the unit under a real systemd: Debian 13 and Debian 12, each booted as a container, with PostgreSQL inside and pgbackupd
# installed by `make install`. Prints a sentence per check, and ends 1 where one failed. A machine that can't boot such a
# container fails the test and says why: a check that was not made is not a check that passed.
#
#   scripts/test-systemd.sh [trixie] [bookworm]
#
# The roots (about 600 MB each, made in a minute) are kept in PGBACKUPD_TEST_ROOTS, /var/tmp/pgbackupd-test-roots by default.
set -uo pipefail
cd "$(dirname "$0")/.."

fail_early() { printf 'FAILED  %s\n0 passed, 1 failed\n' "$1"; exit 1; }

if [ -z "${PGBACKUPD_TEST_NAMESPACE:-}" ]; then
  scripts/setup.sh systemd-container mmdebstrap jq || fail_early "what the test needs can't be installed"
  as_root=()
  [ "$(id -u)" -eq 0 ] || as_root=(sudo --preserve-env=PGBACKUPD_TEST_ROOTS)
  # Mounts of the test are seen by nobody else, and go with the last of its processes.
  "${as_root[@]}" unshare --mount --propagation private true ||
    fail_early "this machine allows no mount namespace, so no container can be booted"
  exec "${as_root[@]}" env PGBACKUPD_TEST_NAMESPACE=1 unshare --mount --propagation private "$0" "$@"
fi

roots=${PGBACKUPD_TEST_ROOTS:-/var/tmp/pgbackupd-test-roots}
name=pgbackupd-test-$$
work=$(mktemp -d "/var/tmp/$name.XXXXXX")
passed=0
failed=0
source scripts/systemd/container.sh
source scripts/systemd/checks.sh

cleanup() {
  trap - EXIT
  # A second signal must not end this half way.
  trap '' INT TERM
  container_end
  umount --recursive --lazy "$work" 2>/dev/null
  rmdir "$work"
}
trap cleanup EXIT
trap 'exit 130' INT TERM
mount -t tmpfs -o mode=0755 tmpfs "$work" || fail_early "this machine allows no mounts, so no container can be booted"

# check SENTENCE COMMAND…: one check; what the command prints is the evidence, shown where it fails.
check() {
  local sentence="$suite: $1"
  shift
  if "$@" >"$work/evidence" 2>&1; then
    passed=$((passed + 1))
    printf 'ok      %s\n' "$sentence"
  else
    failed=$((failed + 1))
    printf 'FAILED  %s\n' "$sentence"
    tail -n 30 "$work/evidence" | sed 's/^/          /'
    return 1
  fi
}

prepare_namespace() {
  # nspawn wants a /run in memory, and one tree of control groups (version 2), which some machines have beside the old ones.
  mount -t tmpfs -o mode=0755 tmpfs /run &&
    { [ "$(stat -f -c %T /sys/fs/cgroup)" = cgroup2fs ] ||
      { umount --recursive /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup; }; }
}

install_programs() { make --no-print-directory install DESTDIR="$root" >/dev/null; }

# Runs every check on one suite. A step without which the others make no sense ends it.
run_suite() {
  local failed_before=$failed
  suite=$1
  check "there is a fresh root" container_prepare "$suite" || return
  check "make install puts everything into place" install_programs || return
  check "systemd boots as PID 1" container_boot || return
  printf '        %s: %s\n' "$suite" "$(inside systemctl --version | head -n 1)"
  run_checks
  if [ "$failed" -gt "$failed_before" ]; then
    printf '%s: the end of the journal:\n' "$suite"
    inside journalctl -u pgbackupd -n 60 --no-pager
  fi
  container_end
}

suite=host
[ $# -gt 0 ] || set -- trixie bookworm
if check "containers can be booted here" prepare_namespace; then
  for suite in "$@"; do run_suite "$suite"; done
fi
printf '%s passed, %s failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
