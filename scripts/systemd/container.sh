# Debian containers with a real systemd as their PID 1, for test-systemd.sh: sourced by it, in a mount namespace of its own.
# Whatever is mounted here vanishes with that namespace; container_end ends the processes and removes the control group.
#
# Used from outside: $work (a folder of this run), $roots (where roots are kept), $name (unique on this machine).

# The process whose end is the container's, and the container's PID 1, as this machine counts.
nspawn=
leader=
root=
cgroup=

# The programs that a bug report would be about, PostgreSQL, and what pgbackupd links with.
packages=(
  systemd systemd-sysv dbus procps iproute2 util-linux curl ca-certificates
  postgresql postgresql-contrib libpq5 libzstd1 zlib1g libxxhash0 libsystemd0 libseccomp2 libxml2 age zstd tzdata
)

# within SECONDS COMMAND…: tries the command until it succeeds; fails when it does not in that time. What it printed last stays.
within() {
  local limit=$1 output end
  shift
  end=$((SECONDS + limit))
  until output=$("$@" 2>&1); do
    if [ $SECONDS -ge $end ]; then
      printf 'not within %s seconds: %s\n%s\n' "$limit" "$*" "$output"
      return 1
    fi
    read -rt 0.1 <> <(:) || true
  done
  [ -z "$output" ] || printf '%s\n' "$output"
}

# A cached root of the suite; made when the suite's packages are new. Prints its path.
root_of() {
  local suite=$1 include=("${packages[@]}") key path fresh mirror options=()
  # Named anew when its time stamps grew to 64 bits.
  if [ "$suite" = bookworm ]; then include+=(libcurl4); else include+=(libcurl4t64); fi
  key=$(printf '%s\n' "$suite" "${include[@]}" | sha256sum | cut -c1-12)
  path=$roots/$suite-$key
  mkdir -p "$roots"
  # Two runs at once make it once.
  exec 9>"$path.lock"
  flock 9
  if [ ! -d "$path" ]; then
    echo "Making the root of $suite, once." >&2
    # Debian comes from where this machine's apt gets it, by the same proxies.
    mirror=$(apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(LABEL)' |
      awk '$2 == "Debian" && $3 == "Debian" { print $1; exit }')
    while read -r line; do options+=("--aptopt=$line"); done < <(
      apt-config dump | grep -E '^Acquire::(http|https|Check-Valid-Until|Check-Date|Retries|ForceIPv[46])\b.*"[^"]+"')
    fresh=$(mktemp -d "$roots/making.XXXXXX")
    chmod 755 "$fresh"
    mmdebstrap --quiet --variant=minbase --mode=root "${options[@]}" --include="$(IFS=,; echo "${include[*]}")" \
      "$suite" - ${mirror:+"$mirror"} | tar -C "$fresh" -xf - || { rm -rf "$fresh"; return 1; }
    mv "$fresh" "$path"
  fi
  exec 9>&-
  echo "$path"
}

# Lays a fresh, writable layer over the suite's root: it is kept over a reboot of the container, and gone after this run.
container_prepare() {
  local suite=$1 cached
  cached=$(root_of "$suite") || return 1
  mkdir -p "$work/$suite"/{upper,work,root}
  root=$work/$suite/root
  mount -t overlay overlay -o "lowerdir=$cached,upperdir=$work/$suite/upper,workdir=$work/$suite/work" "$root" || return 1
  # With an identity the boot is no first boot: systemd then enables nothing by itself.
  tr -d - </proc/sys/kernel/random/uuid >"$root/etc/machine-id"
}

# Boots it; returns when systemd has started all it wanted to.
container_boot() {
  cgroup=/sys/fs/cgroup/$name
  mkdir -p "$cgroup" || return 1
  (
    # Landlock is for drills: nspawn refuses calls that it does not know of, and a kernel without Landlock is what code in the container
    # would see. A machine has it.
    echo $BASHPID >"$cgroup/cgroup.procs"
    # A session of its own, so that Ctrl-C reaches this script alone. When the script dies, however that comes, so does unshare, with
    # it the first process of its PID namespace, and with that one the container.
    # Without the host's network: ports are free, and nothing reaches the outside.
    exec setsid setpriv --pdeathsig KILL unshare --pid --fork --kill-child --mount-proc \
      systemd-nspawn --quiet --directory="$root" --boot --machine="$name" \
      --register=no --keep-unit --private-network --link-journal=no --resolv-conf=off --timezone=off \
      --kill-signal=SIGRTMIN+3 --console=pipe \
      --system-call-filter="landlock_create_ruleset landlock_add_rule landlock_restrict_self"
  ) </dev/null >"$work/console.log" 2>&1 &
  nspawn=$!
  if ! within 60 container_find_leader || ! within 120 container_is_up; then
    cat "$work/console.log"
    return 1
  fi
  leader=$(container_find_leader)
}

# Prints the PID of the container's PID 1: nspawn's child, once that has become systemd.
container_find_leader() {
  local supervisor
  supervisor=$(pgrep -P "$nspawn" -x systemd-nspawn) && pgrep -P "$supervisor" -x systemd
}

container_is_up() {
  local state
  leader=$(container_find_leader) || return 1
  state=$(inside systemctl is-system-running)
  # Degraded: some unit that makes no sense in a container failed. Whether ours runs is checked anyway.
  [ "$state" = running ] || [ "$state" = degraded ]
}

# Runs a command inside, as root. nsenter alone would hand it this machine's capabilities, so those that reach beyond a container,
# such as setting the clock, are dropped.
inside() {
  nsenter --target "$leader" --mount --uts --ipc --net --pid --cgroup --root --wd -- \
    setpriv --bounding-set=-sys_time,-sys_module,-sys_rawio,-syslog,-wake_alarm,-sys_boot --inh-caps=-all \
    env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 TERM=dumb SYSTEMD_PAGER= "$@"
}

# inside_as USER COMMAND…
inside_as() {
  inside sh -c 'exec setpriv --reuid="$0" --regid="$(id -g "$0")" --init-groups "$@"' "$@"
}

container_has_ended() { ! kill -0 "$nspawn" 2>/dev/null; }

# Shuts it down as a machine is; its files stay.
container_poweroff() {
  inside systemctl poweroff --no-wall
  within 100 container_has_ended || return 1
  wait "$nspawn" 2>/dev/null
  nspawn= leader=
}

# Ends the container at once and takes its mounts and control groups away. Does no harm when there is none.
container_end() {
  # The death of its PID 1 ends every process of the container.
  [ -z "$leader" ] || kill -KILL "$leader" 2>/dev/null
  if [ -n "$nspawn" ]; then
    within 10 container_has_ended >/dev/null || kill -KILL "$nspawn" 2>/dev/null
    wait "$nspawn" 2>/dev/null
  fi
  [ -z "$cgroup" ] || find "$cgroup" -depth -type d -exec rmdir {} \; 2>/dev/null
  [ -z "$root" ] || umount --recursive --lazy "$root" 2>/dev/null
  nspawn= leader= root= cgroup=
  return 0
}
