#!/bin/bash
# README's two machines, word for word: two containers with systemd as process 1 on one switch, each with a disk of its own.
# The first installs as README says, the second gets the package; then every line of 'Five minutes' is typed where it says.
# The first one's plug is pulled, its slots run on the other, and it comes back.
#
#   two_machines.sh FOLDER     FOLDER: with weftd, weft-helper and weft; they stand for what README's commands would build
#
# Where no container with systemd can be started it says so, and fails if WEFT_MUST=systemd.
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
tree=$(readlink -f "$here/../..")
story=two_machines
skip() {
    echo "$story: skipped: $*"
    [ "${WEFT_MUST:-}" != systemd ]
    exit
}
[ "$(id -u)" = 0 ] || skip "needs root"
[ "$(nproc)" -ge 2 ] || skip "README's job needs more cores than two machines of one CPU have"
[ -x "${1:-}/weftd" ] || { echo "$story: no weftd in ${1:-}" >&2; exit 2; }
# The switch and the disks go with the last process.
if [ "${2:-}" != inside ]; then
    exec unshare --net --mount --propagation private bash "$0" "$(readlink -f "$1")" inside
fi
source "$here/nspawn.sh"
source "$tree/images/readme.sh"
programs=$1
scratch=$(mktemp -d)
target=$(readlink -f "${CARGO_TARGET_DIR:-$tree/target}")
declare -A name=([one]="one-$$" [two]="two-$$")
trap 'for machine in one two; do stop "${name[$machine]}" || true; done; umount -l "$scratch" || true; rm -rf "$scratch"' EXIT
trap 'exit 130' INT TERM
declare -A address=([one]=10.77.0.1 [two]=10.77.0.2)

wrong() {
    echo "$story: FAILED: $*" >&2
    local machine
    for machine in one two; do
        echo "$story: $machine's agent:" >&2
        run "${name[$machine]}" journalctl --no-pager -n 20 -u weftd >&2 || true
    done
    exit 1
}
is() { [ "$2" = "$3" ] || wrong "$1: $3 was expected, not $2"; echo "$story: ok: $1: $2"; }

# Asks again, for a minute, until it is so: WHAT WANTED COMMAND...
becomes() {
    local what=$1 wanted=$2 found try
    shift 2
    for ((try = 0; try < 120; try++)); do
        found=$("$@") || true
        [ "$found" != "$wanted" ] || break
        sleep 0.5
    done
    is "$what" "$found" "$wanted"
}

# A line of README that was typed on one of them, how it has to end, and what it printed, in $said.
types() {
    local machine=$1 command=$2 wanted=${3:-0} status=0
    echo "$machine\$ $command"
    said=$(run "${name[$machine]}" sh -c "cd /root/weft; $command" 2>&1) || status=$?
    sed -e 's/.*\r//' -e 's/^/    /' <<<"$said"
    [ "$status" = "$wanted" ] || wrong "$machine\$ $command: ends with $status, not $wanted"
}
# Types it again, for a minute, until what is printed has this (an extended regular expression).
until_it_says() {
    local machine=$1 command=$2 what=$3 try
    for ((try = 0; try < 120; try++)); do
        said=$(run "${name[$machine]}" sh -c "$command" 2>&1) || true
        if grep -qE "$what" <<<"$said"; then
            echo "$machine\$ $command"
            sed 's/^/    /' <<<"$said"
            return
        fi
        sleep 0.5
    done
    wrong "$machine\$ $command: no '$what' within a minute: $said"
}

# A machine's disk, what it lies on, and its start. Its address is what a router at home would give it.
disk() {
    local disk=$scratch/$1
    mkdir -p "$disk/written" "$disk/work" "$disk/root"
    mount -t overlay -o "lowerdir=$root,upperdir=$disk/written,workdir=$disk/work" overlay "$disk/root"
    echo "$1" >"$disk/root/etc/hostname"
    printf '[Match]\nName=host0\n[Network]\nAddress=%s/24\n' "${address[$1]}" >"$disk/root/etc/systemd/network/10-host0.network"
    mkdir -p "$disk/root/etc/systemd/system/multi-user.target.wants" "$disk/root/root/weft"
    ln -s /lib/systemd/system/systemd-networkd.service "$disk/root/etc/systemd/system/multi-user.target.wants/"
    cat /proc/sys/kernel/random/uuid >"$disk/uuid"
}
switch_on() {
    WEFT_TEST_ROOT=$scratch/$1/root boot "${name[$1]}" --volatile=no --hostname="$1" --uuid="$(cat "$scratch/$1/uuid")" \
        --network-bridge=br0
}
# Slots of web that run on a machine, as `weft ps` on another one has it.
slots_on() { run "${name[$2]}" weft ps web --json | python3 -c '
import json, sys
allocs = json.load(sys.stdin)
print(sum(alloc["node_name"] == sys.argv[1] and alloc["row"]["phase"] == "running" and alloc["row"]["healthy"]
          and alloc["node_state"] == "alive" for alloc in allocs))' "$1"; }
units_on() { run "${name[$1]}" systemctl list-units --plain --no-legend --state=active 'weft-web-*.service' | grep -c . || true; }

root=$(build_root) || skip "no systemd in a container here"
mount -t tmpfs tmpfs "$scratch"
ip link set lo up
ip link add br0 type bridge mcast_snooping 0
ip link set br0 up
disk one
disk two
switch_on one || skip "no systemd in a container here"
switch_on two || wrong "the second machine does not start"

# README's text: commands of the installation, the package, lines that are typed, the job file, columns.
install=$(install_commands) || wrong "README"
package=$(grep -o 'apt install [^`]*' "$readme") || wrong "README has no package"
typed=$(sed -n '/^## Five minutes/,/^## /s/^    \(\(one\|two\)\$ .*\)/\1/p' "$readme" | sed 's/ *#.*//')
[ "$(grep -c . <<<"$typed")" -ge 10 ] || wrong "README types nothing below 'Five minutes': $typed"
sed -n '/^## Five minutes/,/^## /p' "$readme" | sed -n '/^```toml/,/^```/p' | sed '/^```/d' >"$scratch/two/root/root/weft/web.toml"
[ -s "$scratch/two/root/root/weft/web.toml" ] || wrong "README has no job"
head=$(sed -n '/^birch\$ weft ps/{n;p}' "$readme" | tr -s ' ')

# One has a clone and a toolchain, two gets the package.
clone "$scratch/one/root" "$programs"
built=$(mktemp -d "$target/packages.XXXXXX")
DPKG_DEB_COMPRESSOR_TYPE=none WEFT_BIN=$scratch/one/root/root/weft/target/release CARGO_TARGET_DIR=$built "$tree/images/deb.sh" >/dev/null ||
    { rm -rf "$built"; wrong "no package"; }
mv "$built"/packages/weft_*.deb "$scratch/two/root/root/weft/"
rm -rf "$built"

while read -r command; do
    case $command in
    # It belongs to no fabric yet, which is a warning.
    "weft doctor") types one "$command" 3 ;;
    *) types one "$command" ;;
    esac
done <<<"$install"
types two "DEBIAN_FRONTEND=noninteractive $package"
for machine in one two; do
    is "$machine: weftd.service" "$(run "${name[$machine]}" systemctl is-active weftd)" active
    is "$machine: weftd.service at the next start" "$(run "${name[$machine]}" systemctl is-enabled weftd)" enabled
    is "$machine: the group of the socket" "$(run "${name[$machine]}" stat -c %G /run/weft/weft.sock)" weft
done

token=
while read -r line; do
    machine=${line%%\$*} command=${line#*\$ }
    [ -z "$token" ] || command=${command/weft1.…/$token}
    case $command in
    "weft token create")
        types "$machine" "$command"
        token=$(grep '^weft1\.' <<<"$said") || wrong "it is no token"
        ;;
    "weft nodes")
        types "$machine" "$command"
        [ "$(grep -cE '^(one|two).* alive ' <<<"$said")" = 2 ] || wrong "two nodes were expected"
        ;;
    "weft ps")
        types "$machine" "$command"
        [ "$(head -n 1 <<<"$said" | tr -s ' ')" = "$head" ] || wrong "README shows other columns: $head"
        [ "$(grep -cE '^web/[012] .* running +healthy ' <<<"$said")" = 3 ] || wrong "three healthy slots were expected"
        ;;
    # It goes on until Ctrl-C.
    *" -f")
        # What a shell starts beside it ignores Ctrl-C otherwise.
        types "$machine" "env --default-signal=INT $command >said 2>&1 & for try in \$(seq 600); do grep -q GET said && break; sleep 0.1; done; kill -INT \$!; wait \$! || code=\$?; cat said; exit \$code" 130
        grep -q '^web/[012] | .*GET / ' <<<"$said" || wrong "nothing of what it writes"
        ;;
    "weft status") until_it_says "$machine" "$command" '^state +all is well' ;;
    *) types "$machine" "$command" ;;
    esac
done <<<"$typed"
[ -n "$token" ] || wrong "README made no token"
for machine in one two; do
    [ "$(units_on "$machine")" -gt 0 ] || wrong "$machine runs nothing"
    becomes "$machine: slots that run, by its units" "$(units_on "$machine")" slots_on "$machine" two
done

echo "$story: now pull the plug of one"
lost=$(units_on one) kept=$(units_on two)
# As far as it has cores: what does not fit says so.
fits=$((kept + $(run "${name[two]}" weft node two --json | python3 -c 'import json, sys; print(json.load(sys.stdin)["free"]["cores"])')))
kill -KILL "$(pid "${name[one]}")"
SECONDS=0
until_it_says two "weft nodes" '^one .* dead '
most=$((lost + kept < fits ? lost + kept : fits))
becomes "slots that run on two, of $((lost + kept)), on its $fits cores" "$most" slots_on two two
becomes "two: units of web" "$most" units_on two
echo "$story: ok: that took $SECONDS s"
types two "weft status" 3
[ "$most" = $((lost + kept)) ] || until_it_says two "weft explain web" '^web/[012] .* pending: no node can take it'

echo "$story: it is switched on again"
stop "${name[one]}"
switch_on one || wrong "it does not come back"
until_it_says two "weft nodes" '^one .* alive '
until_it_says one "weft status" '^state +all is well'
types one "weft wait web --timeout 60s"
all_slots() { echo $(($(slots_on one one) + $(slots_on two one))); }
all_units() { echo $(($(units_on one) + $(units_on two))); }
becomes "slots that run" $((lost + kept)) all_slots
becomes "units of web" $((lost + kept)) all_units
types one "weft stop web --yes"
becomes "units of web once it is stopped" 0 all_units
echo "$story: all of it is as README says"
