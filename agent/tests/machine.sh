#!/bin/bash
# A machine out of namespaces: its own processes, mounts, host name, network and cgroup tree, without
# systemd. The demo, the tests and the benchmarks start agents in such machines. Killing its init is a
# power cut: the agent and its work are gone at once, and nothing of the machine stays but its files.
#
#   machine.sh init NAME NETNS CGROUP      becomes a machine; prints `init PID`, its first process as
#                                          the caller sees it, once commands can be run in it
#   machine.sh run PID CGROUP COMMAND...   becomes a command in it
#   machine.sh remove CGROUP               after the end of its init: removes the cgroups it left
#
# NETNS is a network namespace, by path. CGROUP is a folder to make in the cgroup v2 hierarchy, or `-`
# for none. The machine has an empty /srv, so that tasks can have files there, and its own leases in
# /run/weft-guard. Needs root.

set -eu
script=$(readlink -f "${BASH_SOURCE[0]}")

# Makes the cgroup and begins a cgroup namespace in it. The process then moves one level down, since a
# cgroup that hands controllers on must be empty itself.
init() {
    local name=$1 network=$2 cgroup=$3 controller
    if [ "$cgroup" = - ]; then
        enter "$name" "$network" -
    fi
    mkdir -p "$cgroup/init"
    for controller in cpu cpuset memory pids; do
        # Not every hierarchy has them to give; the agent finds out what it got.
        echo "+$controller" 2>/dev/null >"$(dirname "$cgroup")/cgroup.subtree_control" || true
    done
    echo $$ >"$cgroup/cgroup.procs"
    exec unshare --cgroup -- bash "$script" enter "$name" "$network" "$cgroup"
}

enter() {
    local name=$1 network=$2 cgroup=$3
    [ "$cgroup" = - ] || echo $$ >"$cgroup/init/cgroup.procs"
    exec nsenter --net="$network" -- unshare --fork --kill-child=KILL --pid --mount --uts \
        --propagation private -- bash "$script" inside "$name" "$cgroup"
}

# Process 1 of the machine.
inside() {
    local name=$1 cgroup=$2 process
    # /proc is still the caller's: this is our number there.
    read -r process _ </proc/self/stat
    hostname "$name"
    mount -t proc proc /proc
    mount -t sysfs sysfs /sys
    if [ "$cgroup" != - ]; then
        mount -t cgroup2 cgroup2 /sys/fs/cgroup
    fi
    mount -t tmpfs -o size=16m,mode=755 tmpfs /srv
    # What a machine has in /run is gone after a power cut.
    mkdir -p /run/weft-guard
    mount -t tmpfs -o size=16m,mode=700 tmpfs /run/weft-guard
    echo "init $process"
    exec >/dev/null
    # Bash reaps whatever is left to it. A signal to the whole terminal is not for us.
    trap '' INT TERM HUP
    while :; do
        sleep 86400 &
        wait $! || true
    done
}

run() {
    local process=$1 cgroup=$2
    shift 2
    [ "$cgroup" = - ] || echo $$ >"$cgroup/init/cgroup.procs"
    exec nsenter --target="$process" --mount --uts --net --pid --cgroup -- "$@"
}

remove() {
    local try
    for ((try = 0; try < 100; try++)); do
        [ -d "$1" ] || return 0
        find "$1" -depth -type d -exec rmdir {} + 2>/dev/null || true
        sleep 0.05
    done
    [ ! -d "$1" ] || { echo "machine.sh: cannot remove $1" >&2; return 1; }
}

word=${1:-help}
shift || true
case $word in
init | enter | inside | run | remove) "$word" "$@" ;;
*)
    sed -n '2,/^$/s/^# \{0,1\}//p' "$script" >&2
    exit 2
    ;;
esac
