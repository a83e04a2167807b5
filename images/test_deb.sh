#!/bin/bash
# A package on a Debian machine with systemd: installed, used, replaced by a newer version, removed and purged.
#
#   test_deb.sh FOLDER     FOLDER: with weftd, weft-helper and weft
#
# Where no container with systemd can be started it says so, and fails if WEFT_MUST=systemd.
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
source "$here/in_container.sh"
target=$(readlink -f "${CARGO_TARGET_DIR:-$here/../target}")
one=$target/packages/test.1 two=$target/packages/test.2
# Not compressed: programs that were built for tests are large.
export DPKG_DEB_COMPRESSOR_TYPE=none
build() { WEFT_BIN=$1 WEFT_VERSION=$2 CARGO_TARGET_DIR=$target "$here/deb.sh" >/dev/null; mv "$target/packages/weft_$2_"*.deb "$3"; }
mkdir -p "$target/packages"
build "$1" 0.0.1 "$one"
build "$1" 0.0.1 "$two"
cmp "$one" "$two" || fail "two builds differ"
echo "test_deb: ok: two builds have the same bytes"
build "$1" 0.0.2 "$two"

leftovers=("$one" "$two")
# Asks again for half a minute.
wait_for() {
    local what=$1 try
    shift
    for ((try = 0; try < 60; try++)); do
        if "$@" >/dev/null 2>&1; then return; fi
        sleep 0.5
    done
    fail "not within 30 s: $what"
}
"$nspawn" copy "$name" "$one" /root/weft_0.0.1.deb
"$nspawn" copy "$name" "$two" /root/weft_0.0.2.deb

on dpkg --install /root/weft_0.0.1.deb >/dev/null || fail "it cannot be installed"
wait_for "the agent is active" on systemctl is-active weftd
is "the agent after the installation" "$(on systemctl is-active weftd)" active
is "the agent at the next start of the machine" "$(on systemctl is-enabled weftd)" enabled
is "the group of the socket" "$(on stat -c %G /run/weft/weft.sock)" weft
on weft init --name grove >/dev/null || fail "weft init"
on weft run --name sleeper -- /bin/sleep 600 >/dev/null || fail "weft run"
process() { on systemctl show -P MainPID "weft-sleeper-0-1-*.service"; }
before=$(process)
[ "$before" -gt 0 ] || fail "the job does not run"
identity() { on weft status --json | sed -n 's/^  "node": "\([0-9a-f]*\)".*/\1/p'; }
known=$(identity)
[ -n "$known" ] || fail "the agent does not say who it is"

# What another installation has left would be used in place of the package's.
on touch /usr/local/bin/weftd
said=$(on dpkg --install /root/weft_0.0.2.deb 2>&1) || fail "the newer version cannot be installed: $said"
[[ $said == *"/usr/local/bin/weftd is from another installation"* ]] || fail "it does not say what is in its way: $said"
on rm /usr/local/bin/weftd
is "version after the upgrade" "$(on dpkg-query -W -f '${Version}' weft)" 0.0.2
wait_for "the new agent answers" on weft status
is "the job's process after the upgrade" "$(process)" "$before"
is "the node after the upgrade" "$(identity)" "$known"

# As the agent says it for cores that a job has for itself: containers have no cpusets, so it does not say so here.
allowed() { on systemctl show -P AllowedCPUs system.slice; }
on systemctl set-property --runtime system.slice AllowedCPUs=0 || fail "systemd takes no AllowedCPUs="
is "CPUs of services" "$(allowed)" 0
on dpkg --remove weft >/dev/null 2>&1 || fail "it cannot be removed"
is "the job's process without an agent" "$(process)" "$before"
said=$(on dpkg --purge weft 2>&1) || fail "it cannot be purged"
[[ $said == *"/var/lib/weft is kept"* ]] || fail "purge does not say what it keeps: $said"
on test -d /var/lib/weft || fail "purge took the data with it"
on test ! -e /usr/bin/weftd || fail "the program is still there"
is "the job's process after the purge" "$(process)" "$before"
is "CPUs of services while the job runs on" "$(allowed)" 0

on dpkg --install /root/weft_0.0.2.deb >/dev/null || fail "it cannot be installed again"
wait_for "the agent finds its job" on weft wait sleeper
is "the node that is installed again" "$(identity)" "$known"
is "the job's process, adopted" "$(process)" "$before"
on weft stop sleeper --yes >/dev/null || fail "the job cannot be stopped"
on env WEFT_PURGE_DATA=yes dpkg --purge weft >/dev/null 2>&1 || fail "it cannot be purged with its data"
on test ! -e /var/lib/weft || fail "the data is still there"
is "CPUs of services when all is gone" "$(allowed)" "$(cat /sys/devices/system/cpu/possible)"
echo "test_deb: all of it works"
