#!/bin/bash
# Three nodes on this machine: they find each other, run a service, lose a node, get it back, and find a noisy neighbour.
#
#   demo.sh [--once] WEFTD WEFT     --once: end when all was shown, else stay until Ctrl-C
#
# Each node is a machine out of namespaces (agent/tests/machine.sh) on a switch that only they have.
# Nothing of this machine is touched but a folder in /tmp and a cgroup, and both go in the end: this
# script is two processes, and the outer one cleans up whatever became of the inner one.

set -euo pipefail
here=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")" && pwd)
script=$here/demo.sh
machine=$(readlink -f "$here/../agent/tests/machine.sh")
job=$(readlink -f "$here/../docs/examples/web.toml")
nodes=(alder birch cedar)
fabric=grove
# Nothing here takes this long; the machine may be very busy.
patience=90

bold='' dim='' red='' green='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then
    bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' green=$'\e[32m' plain=$'\e[0m'
fi

# ---------------------------------------------------------------------------- the outer process

outer() {
    local once=''
    [ "${1:-}" != --once ] || { once=1; shift; }
    [ $# = 2 ] || { sed -n '2,/^$/s/^# \{0,1\}//p' "$script" >&2; exit 2; }
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || { echo "demo: network namespaces need root, and there is no sudo here" >&2; exit 1; }
        echo "demo: network namespaces need root: asking sudo"
        exec sudo --preserve-env=NO_COLOR "$script" ${once:+--once} "$@"
    fi
    local program missing=()
    for program in ip unshare nsenter setpriv mount python3 timeout; do
        command -v "$program" >/dev/null || missing+=("$program")
    done
    [ -x /usr/bin/python3 ] || missing+=(/usr/bin/python3)
    [ ${#missing[@]} = 0 ] || { echo "demo: not here: ${missing[*]}; \`make setup\` installs what is missing" >&2; exit 1; }

    sweep
    folder=/tmp/weft-demo.$$
    cgroups=
    mkdir -m 755 "$folder"
    trap 'stop_all' EXIT
    trap 'interrupted=1; exit 130' INT TERM HUP
    if mount_point=$(cgroup_mount); then
        cgroups=$mount_point/weft-demo.$$
        mkdir "$cgroups" 2>/dev/null || cgroups=
    fi
    once=$once folder=$folder cgroups=$cgroups weftd=$(readlink -f "$1") weft=$(readlink -f "$2") \
        setpriv --pdeathsig KILL unshare --fork --kill-child=KILL --pid --mount --net \
        --propagation private --mount-proc -- bash "$script" inner &
    inner=$!
    echo "$inner" >"$folder/pid"
    local status=0
    wait "$inner" || status=$?
    inner=
    exit "$status"
}

# Runs in every case. The end of the inner process is the end of every process of the demo.
stop_all() {
    local status=$?
    trap '' INT TERM HUP
    trap - EXIT
    if [ -n "${inner:-}" ]; then
        kill -KILL "$inner" 2>/dev/null || true
        wait "$inner" 2>/dev/null || true
    fi
    # To the end and shown: Ctrl-C is how it is meant to end.
    [ -z "${interrupted:-}" ] || [ ! -e "$folder/shown" ] || status=0
    [ -z "$cgroups" ] || bash "$machine" remove "$cgroups" || status=1
    rm -rf "$folder"
    [ -z "${interrupted:-}" ] || printf '\n'
    printf '%sdemo: all processes, namespaces and files of it are gone%s\n' "$dim" "$plain"
    exit "$status"
}

cgroup_mount() {
    local path
    for path in /sys/fs/cgroup /sys/fs/cgroup/unified; do
        [ ! -e "$path/cgroup.controllers" ] || { echo "$path"; return; }
    done
    return 1
}

# What a demo left that was killed with SIGKILL: its processes are gone, folder and cgroup may not be.
sweep() {
    local path
    for path in /tmp/weft-demo.* /sys/fs/cgroup/weft-demo.* /sys/fs/cgroup/unified/weft-demo.*; do
        [ -d "$path" ] && [ ! -e "/proc/${path##*.}" ] || continue
        case $path in
        /tmp/*) rm -rf "$path" ;;
        *) bash "$machine" remove "$path" || true ;;
        esac
    done
}

# ---------------------------------------------------------------------------- the inner process

seconds_since() { awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.1f", b - a }'; }
say() { printf '%s\n' "$*"; }
step() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
good() { printf '  %sok%s  %s\n' "$green" "$plain" "$*"; }
fail() {
    printf '\n%sfailed:%s %s\n' "$red" "$plain" "$*" >&2
    local node
    for node in "${nodes[@]}"; do
        [ ! -e "$folder/$node/log" ] || { echo "--- the last lines of weftd on $node" >&2; tail -n 12 "$folder/$node/log" >&2; }
    done
    printf '%sfailed:%s %s\n' "$red" "$plain" "$*" >&2
    exit 1
}

# The command line as a person on that node would use it, shown before it runs.
weft_on() {
    local node=$1
    shift
    printf '  %s%s$ weft %s%s\n' "$dim" "$node" "$*" "$plain"
    ask "$node" "$@" 2>&1 | sed 's/^/      /'
}
ask() {
    local node=$1
    shift
    "$weft" --socket "$folder/$node/weft.sock" "$@"
}

# Also 3 is an answer: not all is well, as on a node that is in no fabric yet.
answers() {
    local status=0
    ask "$1" status || status=$?
    [ $status = 0 ] || [ $status = 3 ]
}

# Repeats a command until it says yes.
until_true() {
    local what=$1 began=$SECONDS
    shift
    until "$@" >/dev/null 2>&1; do
        [ $((SECONDS - began)) -lt $patience ] || fail "waited $patience s in vain until $what"
        sleep 0.1
    done
}

# Answers of the API, read by a few lines of Python: `read_json 'print(len(data))'`.
read_json() { /usr/bin/python3 -c "import json, sys; data = json.load(sys.stdin); $1"; }

# Physical cores, one a line, as the CPUs of each: `0,4`.
physical_cores() {
    cat /sys/devices/system/cpu/cpu[0-9]*/topology/thread_siblings_list 2>/dev/null | sort -Vu
}

# CPUs for node number $1 of three: a third of the cores, and two at least.
share() {
    local cores count each first index list=
    mapfile -t cores < <(physical_cores)
    count=${#cores[@]}
    [ "$count" -gt 0 ] || { cores=(0); count=1; }
    each=$((count / 3))
    [ "$each" -ge 2 ] || each=$((count < 2 ? count : 2))
    first=$(($1 * each))
    for ((index = first; index < first + each; index++)); do
        list+=,${cores[index % count]}
    done
    echo "${list#,}"
}

start_node() {
    local node=$1 number
    for ((number = 0; number < 3; number++)); do [ "${nodes[number]}" != "$node" ] || break; done
    mkdir -p "$folder/$node"
    cat >"$folder/$node/weftd.toml" <<TOML
state = "$folder/$node/state"

[resources]
cpus         = "$(share $number)"
housekeeping = ""
memory       = "512MiB"

[api]
socket = "$folder/$node/weft.sock"

[executor]
kind = "direct"
TOML
    ip netns add "$node"
    ip link add "$node" type veth peer name eth0 netns "$node"
    ip link set "$node" master br0 up
    ip -n "$node" link set lo up
    ip -n "$node" addr add "10.77.0.$((number + 1))/24" dev eth0
    ip -n "$node" link set eth0 up
    rm -f "$folder/$node/init"
    bash "$machine" init "$node" "/run/netns/$node" "$(cgroup_of "$node")" \
        >"$folder/$node/init" 2>>"$folder/$node/log" &
    disown
    until_true "$node has booted" grep -q '^init ' "$folder/$node/init"
    bash "$machine" run "$(init_of "$node")" "$(cgroup_of "$node")" \
        "$weftd" --config "$folder/$node/weftd.toml" >>"$folder/$node/log" 2>&1 </dev/null &
    disown
    until_true "the agent on $node answers" answers "$node"
}
init_of() { cut -d' ' -f2 "$folder/$1/init"; }
cgroup_of() { if [ -n "$cgroups" ]; then echo "$cgroups/$1"; else echo -; fi; }

# Pulls the plug: the kernel ends every process of a machine when its init is killed.
kill_node() {
    local node=$1
    kill -KILL "$(init_of "$node")"
    ip netns del "$node"
    [ -z "$cgroups" ] || bash "$machine" remove "$cgroups/$node"
}

# Lines `SLOT NODE PORT` of what runs on nodes that are alive, as one node sees it.
running() {
    ask "$1" ps web -o json | read_json '
for alloc in data:
    row = alloc["row"]
    if row["phase"] == "running" and alloc["node_state"] == "alive" and row["healthy"] >= ('"${2:-0}"' > 0):
        print(alloc["id"]["slot"]["index"], alloc["node_name"], row["claim"]["ports"]["http"])'
}
fetch() {
    /usr/bin/python3 -c 'import sys, urllib.request
with urllib.request.urlopen(sys.argv[1], timeout=5) as answer:
    print(answer.status, answer.read().decode().strip().splitlines()[-1])' "$1"
}
fetch_all() {
    local slot node port page count=0
    while read -r slot node port; do
        page=$(fetch "http://$node:$port/") || fail "slot $slot does not answer at http://$node:$port/"
        good "slot $slot  http://$node:$port/  $page"
        count=$((count + 1))
    done < <(running "$1" 1 | sort)
    [ "$count" = 3 ] || fail "three slots should answer, $count do"
}
alive_nodes() { ask "$1" nodes -o json | read_json 'print(sum(node["state"] == "alive" for node in data))'; }
sees_alive() { [ "$(alive_nodes "$1")" = "$2" ]; }
runs_elsewhere() { running "$1" | awk -v slot="$2" -v node="$3" '$1 == slot && $2 != node { found = 1 } END { exit !found }'; }
has_healthy() { [ "$(running "$1" 1 | wc -l)" = "$2" ]; }
same_view() {
    local node
    for node in "${nodes[@]}"; do
        ask "$node" status -o json | read_json 'print(data["fabric"]["fingerprint"])' || true
    done | sort | uniq -c | awk '{ exit !($1 == 3) }'
}

# A job that computes a little and sleeps a little, on $node; with a line of what it asks for.
quiet_job() {
    cat <<TOML
name = "quiet"
[task]
command = ["/bin/sh", "-c", "while :; do n=0; while [ \$n -lt 3000 ]; do n=\$((n + 1)); done; sleep 0.01; done"]
stop_timeout = "1s"
[resources]
$2
[placement]
constraints = ['name == "$1"']
TOML
}

# Four loops that compute all the time, and end by themselves should everything else fail.
noisy_job() {
    cat <<TOML
name = "noisy"
[task]
command = ["/usr/bin/timeout", "600", "/bin/sh", "-c", "for n in 1 2 3 4; do while :; do :; done & done; wait"]
stop_timeout = "1s"
[resources]
cpu = 0.5
[placement]
constraints = ['name == "$1"']
TOML
}

# Who takes what the job waits for, by `weft why-slow`: of the first reason, if that is waiting for a CPU.
blamed() {
    ask "$1" why-slow quiet --range 15s --json 2>/dev/null | read_json '
for slot in data["slots"]:
    for reason in slot["reasons"][:1]:
        print(reason["culprit"] if reason["cause"] == "cpu" else "")'
}
blames() { [ "$(blamed "$1")" = "$2" ]; }

# What one of ten waits of the job for a CPU is longer than, in microseconds; where single waits are not measured, how
# long it waits of a second on average. Not one of a hundred: so few are what the rest of a busy machine does to it.
waits() {
    local found
    found=$(ask "$1" hist runq --job quiet --range 10s --json 2>/dev/null | read_json '
for histogram in data["histograms"]:
    if histogram["quantiles"]["p90"] is not None: print(round(histogram["quantiles"]["p90"] * 1e6, 1))')
    [ -n "$found" ] || found=$(ask "$1" query \
        'sum(rate(weft_unit_cpu_wait_seconds_total{job="quiet"}[30s]))' --json 2>/dev/null |
        read_json 'print(*(round(float(one["value"][1]) * 1e6, 1) for one in data["data"]["result"]))')
    echo "$found"
}
# Since a moment ago only: what was before the change does not count any more.
is_measured() { [ -n "$(waits "$1")" ]; }
is_calm() { awk -v before="$2" -v now="$(waits "$1")" 'BEGIN { exit !(now != "" && now * 2 <= before) }'; }
# CPUs of this machine that programs take of which no node of the demo knows: whoever they disturb, they disturb.
strangers() {
    ask "$1" query "sum(rate(node_cpu_seconds_total{node=\"$2\",mode!~\"idle|iowait\"}[10s]))
        - sum(rate(weft_unit_cpu_seconds_total{node=\"$2\",unit!=\"other\"}[10s]))" --json 2>/dev/null |
        read_json 'print(*(round(float(one["value"][1]), 2) for one in data["data"]["result"]))'
}
disturbed() { awk -v foreign="$(strangers "$1" "$2")" 'BEGIN { exit !(foreign > 0.1) }'; }

# Shows 5 of the story: a noisy neighbour is found, and cores of its own save the victim.
neighbours() {
    local node=$1 asked=$2 before after began
    if [ -z "$cgroups" ]; then
        say "  skipped: without cgroups nobody knows whose threads wait"
        return
    fi
    ask "$asked" stop web --yes >/dev/null 2>&1 || fail "the service could not be stopped"
    quiet_job "$node" 'cpu = 0.5' >"$folder/quiet.toml"
    noisy_job "$node" >"$folder/noisy.toml"
    weft_on "$asked" apply --yes --timeout 2m "$folder/quiet.toml" || fail "the quiet job did not start"
    if [ "$(cores_of "$node")" -lt 2 ]; then
        say "  skipped: $node has a single core, and none to give away"
        return
    fi
    weft_on "$asked" apply --yes --timeout 2m "$folder/noisy.toml" || fail "the noisy job did not start"
    until_true "somebody measures how long the quiet job waits" is_measured "$asked"
    began=$SECONDS
    until blames "$asked" noisy/0 || [ $((SECONDS - began)) -ge 45 ]; do sleep 1; done
    weft_on "$asked" why-slow quiet --range 15s || fail "no answer"
    if blames "$asked" noisy/0; then
        good "why-slow names noisy/0"
    else
        disturbed "$asked" "$node" || fail "why-slow does not name noisy/0, but $(blamed "$asked")"
        say "  not shown: other programs of this machine take more of the CPUs than noisy/0 can"
    fi
    # To ask is work too, on the same CPUs: nothing is asked in the ten seconds that are asked about.
    sleep 11
    before=$(waits "$asked")
    weft_on "$asked" hist runq --by job --range 10s || fail "no answer"
    [ -n "$before" ] || fail "nothing is known of its waits"

    quiet_job "$node" 'cores = 1' >"$folder/quiet.toml"
    weft_on "$asked" apply --yes --timeout 2m "$folder/quiet.toml" || fail "the quiet job got no core"
    began=$SECONDS
    sleep 11
    until is_calm "$asked" "$before" || [ $((SECONDS - began)) -ge 45 ]; do sleep 11; done
    after=$(waits "$asked")
    weft_on "$asked" hist runq --by job --range 10s || fail "no answer"
    if is_calm "$asked" "$before"; then
        good "with a core of its own it waits ${bold}$after us${plain}, not $before us, while noisy goes on"
    else
        # Other programs of this machine are on every core, also on that one.
        disturbed "$asked" "$node" ||
            fail "with a core of its own the quiet job still waits $after us, not half of $before us at most"
        say "  not shown: other programs of this machine run on the job's own core too: it waits $after us, not $before us"
    fi
    ask "$asked" stop noisy --yes >/dev/null 2>&1 || fail "the noisy job could not be stopped"
    ask "$asked" stop quiet --yes >/dev/null 2>&1 || fail "the quiet job could not be stopped"
    weft_on "$asked" apply --yes --timeout 2m "$job" || fail "the service did not come back"
}
cores_of() {
    ask "$1" nodes -o json | read_json 'print(*(len(node["info"]["topology"]["cores"]) for node in data if node["name"] == "'"$1"'"))'
}

inner() {
    # Signals of the terminal reach the outer process, which ends us.
    mount -t tmpfs tmpfs /run
    printf '127.0.0.1 localhost\n10.77.0.1 alder\n10.77.0.2 birch\n10.77.0.3 cedar\n' >"$folder/hosts"
    mount --bind "$folder/hosts" /etc/hosts
    ip link set lo up
    ip link add br0 type bridge mcast_snooping 0
    ip addr add 10.77.0.254/24 dev br0
    ip link set br0 up

    say "${bold}weft: three nodes, one computer${plain}"
    local cores each began node token victim asked slot slots
    cores=$(physical_cores | wc -l)
    each=$(share 0)
    if [ "$cores" -lt 6 ]; then
        say "  This machine has $cores physical cores: the nodes' shares overlap, so a core that is exclusive on"
        say "  one node may be exclusive on another one too. With a machine for each node it is not."
    fi
    if [ "$cores" -lt 2 ]; then
        say "  With a single core there is none to give away: the service takes a share of it instead."
        sed 's/^cores  = 1 .*/cpu = 0.2/' "$job" >"$folder/web.toml"
        job=$folder/web.toml
    fi

    step "1. Three machines start an agent each. Nobody told them about each other."
    began=$EPOCHREALTIME
    for number in 0 1 2; do
        start_node "${nodes[number]}"
        good "${nodes[number]}  10.77.0.$((number + 1))  CPUs $(share $number)"
    done

    step "2. One founds a fabric, the others join with its token. They find it by multicast DNS."
    weft_on alder init --name $fabric || fail "alder could not found a fabric"
    printf '  %salder$ weft token create%s\n' "$dim" "$plain"
    token=$(ask alder token create 2>"$folder/said") || fail "alder made no token: $(<"$folder/said")"
    printf '      %s...\n' "${token:0:24}"
    for node in birch cedar; do
        printf '  %s%s$ weft join %s...%s\n' "$dim" "$node" "${token:0:24}" "$plain"
        ask "$node" join "$token" 2>&1 | sed 's/^/      /' || fail "$node could not join"
    done
    for node in "${nodes[@]}"; do
        until_true "$node sees three nodes" sees_alive "$node" 3
    done
    good "every node sees three, $(seconds_since "$began") s after the first agent started"

    step "3. Any node takes a job. The three slots of this one get a core each."
    began=$EPOCHREALTIME
    weft_on birch apply --yes --timeout 2m "$job" || fail "the job did not become healthy"
    good "healthy after $(seconds_since "$began") s"
    fetch_all cedar

    # The founder if it has work: it is not special.
    victim=$(running birch | awk '{ print $2 }' | sort | head -n 1)
    for asked in "${nodes[@]}"; do [ "$asked" = "$victim" ] || break; done
    slots=$(running birch | awk -v node="$victim" '$2 == node { print $1 }')
    [ -n "$slots" ] || fail "nothing runs"
    step "4. The plug of $victim is pulled: its agent and its work die at once (SIGKILL)."
    began=$EPOCHREALTIME
    kill_node "$victim"
    for slot in $slots; do
        until_true "slot $slot runs elsewhere" runs_elsewhere "$asked" "$slot" "$victim"
        good "slot $slot runs on $(running "$asked" | awk -v slot="$slot" '$1 == slot { print $2 }')," \
            "${bold}$(seconds_since "$began") s${plain} after $victim died"
    done
    until_true "three slots are healthy" has_healthy "$asked" 3
    fetch_all "$asked"

    step "5. $victim comes back. What it ran before was given away: it does not start it again."
    start_node "$victim"
    for node in "${nodes[@]}"; do
        until_true "$node sees three nodes" sees_alive "$node" 3
    done
    until_true "the views of all three are equal" same_view
    until_true "three slots are healthy" has_healthy "$victim" 3
    good "three nodes again, and their views are equal"
    weft_on "$victim" status || fail "not all is well"
    weft_on "$victim" ps || fail "no answer"
    fetch_all "$victim"

    step "6. A job is slow. Any node says why, and a core of its own makes it fast again."
    neighbours "$victim" "$asked"

    touch "$folder/shown"
    if [ -n "$once" ]; then
        step "All of it worked."
        return
    fi
    step "It stays up until Ctrl-C. From another terminal, as root:"
    for node in "${nodes[@]}"; do
        say "  $weft --socket $folder/$node/weft.sock status"
    done
    say "  nsenter --net=/proc/$(cat "$folder/pid")/ns/net curl http://10.77.0.2:PORT/    (\`weft ps\` names the ports)"
    sleep infinity
}

if [ "${1:-}" = inner ]; then inner; else outer "$@"; fi
