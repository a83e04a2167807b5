#!/bin/bash
# Machines with real systemd as PID 1, each in a container of systemd-nspawn, for tests.
#
#   nspawn.sh build_root [DIR]            make the root that all machines share (cached; prints DIR)
#   nspawn.sh boot NAME [NSPAWN-ARG...]   start a machine and wait until its systemd is up
#   nspawn.sh copy NAME FILE PATH         put a file into it, with its mode
#   nspawn.sh run NAME COMMAND...         run a command in it; its exit status is the answer
#   nspawn.sh pid NAME                    the PID of its init as this machine sees it
#   nspawn.sh stop NAME                   end it and remove what it left
#   nspawn.sh test BINARY [ARG...]        boot, copy, run, stop: also after Ctrl-C
#
# Without NSPAWN-ARGs a machine has a network namespace with nothing but `lo`. For several that hear
# each other, call `boot` inside `unshare -n` with a bridge: `boot a --network-bridge=br0`.
#
# Can also be sourced: every word above is then a function (`test` is called `test_binary`).
#
# What is real inside: systemd, D-Bus, journald, transient units, sandboxing, CPUAffinity, NUMAPolicy.
# What is not, where this machine's cgroup v2 has no controllers to give: CPUQuota, MemoryMax, TasksMax,
# AllowedCPUs and AllowedMemoryNodes are accepted by systemd and not enforced.
#
# WEFT_TEST_ROOT names another root that all machines share, in place of the one of build_root.
#
# Needs root. WEFT_TESTBED names the folder for roots and notes (default: target/testbed of this tree).

nspawn_home=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
nspawn_testbed=${WEFT_TESTBED:-$nspawn_home/target/testbed}
nspawn_root=$nspawn_testbed/node-root
nspawn_packages=systemd,systemd-sysv,dbus,udev,systemd-resolved,kmod,iproute2,libnss-resolve,procps,python3,apt,make
# Changes with the recipe below: a root of another recipe is built anew.
nspawn_recipe=3

say() { printf 'nspawn: %s\n' "$*" >&2; }
fail() { say "$*"; return 1; }

# Tools that are missing, from the distribution.
install_tools() {
    local missing=()
    command -v systemd-nspawn >/dev/null || missing+=(systemd-container)
    command -v mmdebstrap >/dev/null || missing+=(mmdebstrap)
    command -v nsenter >/dev/null || missing+=(util-linux)
    [ ${#missing[@]} -eq 0 ] && return 0
    command -v apt-get >/dev/null || { fail "install ${missing[*]} and try again"; return 1; }
    say "installing ${missing[*]}"
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" >&2 && return 0
    apt-get update >&2
    DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" >&2
}

# Where apt of this machine gets its Debian packages, as one-line sources.
debian_sources() {
    local suite=$1 uri
    uri=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' 2>/dev/null \
        | awk '$2 ~ /^(bookworm|trixie)$/ { print $1; exit }')
    if [ -z "$uri" ]; then
        fail "apt knows no Debian packages on this machine: run apt-get update, or add a source"
        return 1
    fi
    printf 'deb %s %s main\n' "$uri" "$suite"
}

build_root() {
    local root=${1:-$nspawn_root} suite=${WEFT_TEST_SUITE:-bookworm}
    if [ ! -e "$root/.recipe-$nspawn_recipe" ]; then
        [ "$(id -u)" = 0 ] || { fail "needs root"; return 1; }
        install_tools || return 1
        mkdir -p "$(dirname "$root")"
        # One build at a time: several tests may ask at once.
        (
            flock 9
            [ -e "$root/.recipe-$nspawn_recipe" ] && exit 0
            say "building $root ($suite, about half a minute)"
            partial=$root.partial
            rm -rf "$partial"
            debian_sources "$suite" >"$root.list" || exit 1
            mmdebstrap --quiet --mode=root --variant=essential --include="$nspawn_packages" \
                --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
                --dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/info/*' \
                "$suite" "$partial" "$root.list" >&2 || exit 1
            # One ID for all would give all the same addresses; nspawn's --uuid sets it anew.
            : >"$partial/etc/machine-id"
            # Each takes the name it is booted with.
            rm -f "$partial/etc/hostname"
            # What only slows the boot of a container down.
            for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
                fstrim.timer systemd-networkd-wait-online.service systemd-udevd.service \
                systemd-udev-trigger.service; do
                ln -sf /dev/null "$partial/etc/systemd/system/$unit"
            done
            touch "$partial/.recipe-$nspawn_recipe"
            rm -rf "$root"
            mv "$partial" "$root"
        ) 9>"$root.lock" || return 1
    fi
    printf '%s\n' "$root"
}

# The cgroup v2 mount: the whole tree, or its part on a machine that still has version 1 as well.
cgroup_mount() {
    if [ -e /sys/fs/cgroup/cgroup.controllers ]; then echo /sys/fs/cgroup; else echo /sys/fs/cgroup/unified; fi
}

notes_of() { echo "$nspawn_testbed/machines/$1"; }

valid_name() { [[ $1 =~ ^[a-z0-9][a-z0-9-]{0,30}$ ]] || fail "$1: a name is made of a-z, 0-9 and -"; }

# True while the process PID still is the one that was started (same start time).
is_ours() {
    local pid=$1 started=$2
    [ -n "$pid" ] && [ "$(process_start "$pid")" = "$started" ]
}

process_start() { sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

boot() {
    local name=$1 root notes cgroup tree pid init='' try
    shift
    valid_name "$name" || return 1
    [ "$(id -u)" = 0 ] || { fail "needs root"; return 1; }
    install_tools || return 1
    root=${WEFT_TEST_ROOT:-$(build_root)} || return 1
    notes=$(notes_of "$name")
    [ -e "$notes" ] && stop "$name"
    mkdir -p "$notes"
    [ $# -eq 0 ] && set -- --private-network
    tree=$(cgroup_mount)
    cgroup=$tree/weft-test-$name
    mkdir -p "$cgroup" || return 1
    echo "$cgroup" >"$notes/cgroup"
    # A session of its own: Ctrl-C is for the caller, who then calls `stop`. Nothing of the caller's
    # namespaces but the network is shared: mounts stay inside.
    setsid unshare --mount --propagation private bash -c '
        echo $$ >"$1/cgroup.procs" || exit 1
        shift
        exec env SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 systemd-nspawn "$@"' nspawn "$cgroup" \
        --quiet --boot --volatile=overlay --directory="$root" --machine="weft-test-$name" \
        --hostname="$name" --uuid="$(cat /proc/sys/kernel/random/uuid)" --register=no --keep-unit \
        --console=pipe --link-journal=no --resolv-conf=off --timezone=off "$@" \
        </dev/null >"$notes/console" 2>&1 &
    pid=$!
    disown "$pid" 2>/dev/null
    echo "$pid $(process_start "$pid")" >"$notes/pid"
    for ((try = 0; try < 600; try++)); do
        kill -0 "$pid" 2>/dev/null || break
        init=$(head -n1 "$cgroup"/payload/init.scope/cgroup.procs 2>/dev/null)
        if [ -n "$init" ] && [ "$init" != 0 ]; then
            echo "$init" >"$notes/init"
            case $(run "$name" systemctl is-system-running 2>/dev/null) in
            running) return 0 ;;
            degraded)
                say "$name is up, with failed units: $(run "$name" systemctl --failed --plain --no-legend | cut -d' ' -f1 | tr '\n' ' ')"
                return 0
                ;;
            esac
        fi
        sleep 0.1
    done
    say "$name did not come up; the end of its console:"
    tail -n 20 "$notes/console" >&2
    stop "$name"
    return 1
}

pid() { cat "$(notes_of "$1")/init" 2>/dev/null || fail "$1 is not running"; }

run() {
    local init
    init=$(pid "$1") || return 1
    shift
    nsenter --target "$init" --mount --pid --net --uts --ipc --cgroup -- \
        env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
        ${WEFT_TEST_ENV:-} "$@"
}

copy() {
    local init
    init=$(pid "$1") || return 1
    mkdir -p "/proc/$init/root$(dirname "$3")" && cp --preserve=mode -L "$2" "/proc/$init/root$3"
}

stop() {
    local notes pid started cgroup directory try
    notes=$(notes_of "$1")
    [ -e "$notes" ] || return 0
    read -r pid started <"$notes/pid" 2>/dev/null || pid=''
    cgroup=$(cat "$notes/cgroup" 2>/dev/null)
    # The first signal asks systemd inside to power off, the second one ends the container.
    for signal in TERM TERM KILL; do
        is_ours "$pid" "${started:-}" || break
        kill -"$signal" "$pid" 2>/dev/null
        for ((try = 0; try < 30; try++)); do
            is_ours "$pid" "$started" || break
            sleep 0.1
        done
    done
    if [ -n "$cgroup" ] && [ -d "$cgroup" ]; then
        [ -e "$cgroup/cgroup.kill" ] && echo 1 >"$cgroup/cgroup.kill" 2>/dev/null
        for ((try = 0; try < 50; try++)); do
            find "$cgroup" -depth -type d -exec rmdir {} + 2>/dev/null
            [ -d "$cgroup" ] || break
            sleep 0.1
        done
    fi
    # On a machine with version 1 too, the container also left a tree under name=systemd.
    directory=/sys/fs/cgroup/systemd/weft-test-$1
    [ -d "$directory" ] && find "$directory" -depth -type d -exec rmdir {} + 2>/dev/null
    rm -rf "$notes"
}

# One machine for one test program. Its exit status is the answer.
test_binary() {
    local binary=$1 name="t$$" status
    shift
    trap 'stop "$name"; trap - EXIT; exit 130' INT TERM
    trap 'stop "$name"' EXIT
    boot "$name" || return 1
    copy "$name" "$binary" /opt/test || return 1
    run "$name" /opt/test "$@"
    status=$?
    stop "$name"
    trap - EXIT INT TERM
    return $status
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
    set -u
    word=${1:-}
    shift || true
    case $word in
    build_root | boot | copy | run | pid | stop) "$word" "$@" ;;
    test) test_binary "$@" ;;
    *)
        sed -n '2,/^$/s/^# \{0,1\}//p' "$0" >&2
        exit 2
        ;;
    esac
fi
