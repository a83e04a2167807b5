#!/bin/bash
# record.sh: which functions the agent runs while nothing happens, written to `functions` beside this file. The linker puts
# them side by side (build.rs), so that an agent at rest needs few pages of its program.
#
# Three agents on a switch, each in a network namespace, find each other by multicast as they do anywhere, make a fabric and run a
# job; one of them is watched by callgrind for five minutes after everything has settled, and asked for its metrics. Needs root
# (eBPF, namespaces) and valgrind. A quarter of an hour, half of it the build.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../.."
command -v valgrind >/dev/null || { echo "record: valgrind is missing: apt-get install valgrind" >&2; exit 1; }
[ "$(id -u)" = 0 ] || { echo "record: needs root, for eBPF probes and network namespaces" >&2; exit 1; }
say() { printf 'record: [%4d s] %s\n' "$SECONDS" "$*"; }
target=$(readlink -m "${CARGO_TARGET_DIR:-target}")
work=$(mktemp -d)
agents=()
cp agent/at_rest/functions "$work/before"
net=weft-record-$$
trap 'kill "${agents[@]}" 2>/dev/null || true; wait; for one in $(ip netns list | grep -o "^$net-[0-9]*"); do ip netns del "$one"; done; cp "$work/before" agent/at_rest/functions; rm -rf "$work"' EXIT

say "building for release, with symbols and without a list: valgrind finds names in one section only"
: >agent/at_rest/functions
cargo build --release -p weft-agent -p weft-cli --bins
cargo rustc --release -p weft-agent --bin weftd -- -C strip=none
cp "$target/release/weftd" "$target/release/weft" "$work/"

weft() { timeout 120 "$work/weft" --socket "$work/$1.sock" "${@:2}"; }
agent() {
    local number=$1 with=("${@:2}")
    ip netns add "$net-$number"
    ip -n "$net-0" link add "port$number" type veth peer name eth0 netns "$net-$number"
    ip -n "$net-0" link set "port$number" master switch up
    ip -n "$net-$number" addr add "10.77.0.$number/24" dev eth0
    ip -n "$net-$number" link set lo up
    ip -n "$net-$number" link set eth0 up
    cat >"$work/$number.toml" <<END
state = "$work/$number"
[node]
name = "n$number"
[metrics]
listen = "127.0.0.1:7480"
[api]
socket = "$work/$number.sock"
[executor]
kind = "direct"
END
    # A program of its own each, as on machines of their own.
    cp "$work/weftd" "$work/weftd$number"
    # Not by ip netns exec, which would hide the cgroups.
    nsenter --net="/run/netns/$net-$number" "${with[@]}" "$work/weftd$number" --config "$work/$number.toml" 2>"$work/$number.log" &
    agents+=($!)
    for _ in $(seq 120); do weft "$number" status >/dev/null 2>&1 || [ $? = 3 ] && return 0; sleep 1; done
    echo "record: agent $number does not answer" >&2
    tail -5 "$work/$number.log" >&2
    exit 1
}

say "three agents"
ip netns add "$net-0"
ip -n "$net-0" link add switch type bridge mcast_snooping 0
ip -n "$net-0" link set switch up
agent 1
weft 1 init >/dev/null
token=$(weft 1 --json token create | sed -n 's/.*"token": *"\([^"]*\)".*/\1/p')
agent 2
weft 2 join "$token" >/dev/null
agent 3 valgrind --tool=callgrind --demangle=no --instr-atstart=no --callgrind-out-file="$work/calls"
watched=${agents[2]}
weft 3 join "$token" >/dev/null
printf '%s\n' 'name = "sleeper"' 'count = 3' '[task]' 'command = ["/bin/sleep", "100000"]' \
    '[resources]' 'cpu = 0.05' 'memory = "8MiB"' '[placement]' 'spread = "name"' >"$work/job.toml"
weft 1 apply "$work/job.toml" --yes >/dev/null
sleep 30
say "watching for five minutes"
callgrind_control -i on "$watched" >/dev/null
# As Prometheus does.
for _ in $(seq 20); do
    sleep 15
    nsenter --net="/run/netns/$net-3" bash -c 'exec 3<>/dev/tcp/127.0.0.1/7480; printf "GET /metrics HTTP/1.0\r\nhost: weft\r\n\r\n" >&3; cat <&3' \
        | grep weft_agent_info >/dev/null || { echo "record: it does not tell its metrics" >&2; exit 1; }
done
callgrind_control -i off "$watched" >/dev/null
callgrind_control -d "$watched" >/dev/null
weft 1 stop sleeper --yes >/dev/null

# Every name that begins where a function was run: functions with the same code are one.
LC_ALL=C awk '
    /^ob=/ { match($0, /\([0-9]+\)/); object = substr($0, RSTART, RLENGTH); name = substr($0, RSTART + RLENGTH + 1)
             if (name != "") objects[object] = name; ours = objects[object] ~ /\/weftd[0-9]$/ }
    /^cob=/ { match($0, /\([0-9]+\)/); name = substr($0, RSTART + RLENGTH + 1)
             if (name != "") objects[substr($0, RSTART, RLENGTH)] = name }
    /^c?fn=/ { match($0, /\([0-9]+\)/); number = substr($0, RSTART, RLENGTH); name = substr($0, RSTART + RLENGTH + 1)
             sub(/\047[0-9]+$/, "", name)
             if (name != "") names[number] = name
             if ($0 ~ /^fn=/ && ours) print names[number] }
' "$work"/calls.1 >"$work/run"
nm --defined-only "$work/weftd" | awk '$2 ~ /^[tTwW]$/ { print $1, $3 }' >"$work/all"
awk 'FILENAME ~ /run$/ { run[$1]; next }
     { at[$2] = at[$2] " " $1; names[$1] = names[$1] " " $2 }
     END { for (name in run) { count = split(at[name], where); for (i = 1; i <= count; i++) print names[where[i]] } }
' "$work/run" "$work/all" | tr ' ' '\n' | grep . | grep -v -e _chacha20_poly1305_ -e poly_hash_ad_internal >"$work/names"
# Without what differs from build to build: the hash at the end of a name, and the number of a crate.
general() { sed -E "s/17h[0-9a-f]{16}E.*/17h*/; /^_R/{ s/Cs[0-9A-Za-z]+_/Cs*_/g; s/\.llvm\..*//; s/\.[0-9]+\$//; s/\$/*/ }" | LC_ALL=C sort -u; }
general <"$work/names" >"$work/functions"
[ "$(wc -l <"$work/functions")" -gt 500 ] || { echo "record: only $(wc -l <"$work/functions") functions were seen" >&2; exit 1; }
say "$(wc -l <"$work/functions") functions"
# What was seen another time stays while there is such a function: a peer's handshake does not come in every five minutes.
cut -d ' ' -f 2 "$work/all" | general | LC_ALL=C comm -12 - "$work/before" | LC_ALL=C sort -u - "$work/functions" >"$work/both"
cp "$work/both" "$work/before"
say "$(wc -l <"$work/both") with those of before"
