#!/bin/bash
# What README says about installing, word for word, on a machine with systemd; then a newer version over it, a package
# beside it, and away with it.
#
#   test_install.sh FOLDER     FOLDER: with weftd, weft-helper and weft; they stand for what `make install` would build
#
# Where no container with systemd can be started it says so, and fails if WEFT_MUST=systemd.
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
source "$here/in_container.sh"
source "$here/readme.sh"
scratch=$(mktemp -d)
leftovers=("$scratch")
clone "/proc/$("$nspawn" pid "$name")/root" "$1"
on() { "$nspawn" run "$name" env --chdir=/root/weft "$@"; }

block=$(install_commands) || fail "README"
while read -r command; do
    echo "test_install: README says: $command"
    case $command in
    # It belongs to no fabric yet, which is a warning.
    "weft doctor") said=$(on sh -c "$command") || [ $? = 3 ] || fail "$command: $said" ;;
    *) said=$(on sh -c "$command" 2>&1) || fail "$command: $said" ;;
    esac
done <<<"$block"
is "the agent" "$(on systemctl is-active weftd)" active
is "the agent at the next start of the machine" "$(on systemctl is-enabled weftd)" enabled
is "the group of the socket" "$(on stat -c %G /run/weft/weft.sock)" weft
is "settings that are there and may be changed" "$(on stat -c %a /etc/weft/weftd.toml)" 644
on weft init --name grove >/dev/null || fail "weft init"
on weft run sleeper -- sleep 600 >/dev/null || fail "weft run"
process() { on systemctl show -P MainPID "weft-sleeper-0-1-*.service"; }
before=$(process)
[ "$before" -gt 0 ] || fail "the job does not run"

on sh -c 'echo "log = \"debug\"" >/etc/weft/weftd.toml'
said=$(on make install) || fail "it cannot be installed again: $said"
[[ $said == *"systemctl restart weftd"* ]] || fail "it does not say what is to be done now: $said"
on systemctl restart weftd || fail "the agent does not start again"
is "settings after it was installed again" "$(on cat /etc/weft/weftd.toml)" 'log = "debug"'
on weft wait sleeper --timeout 30s >/dev/null 2>&1 || fail "the job is not there"
is "the job's process after the restart" "$(process)" "$before"

on make uninstall >/dev/null || fail "it cannot be removed"
is "what is left of the programs" "$(on sh -c 'ls /usr/local/bin /etc/systemd/system | grep -c weft || true')" 0
is "the job's process without an agent" "$(process)" "$before"
on test -d /var/lib/weft || fail "the data went, too"

# Beside the package it installs nothing.
mkdir -p "$scratch/package/DEBIAN"
printf 'Package: weft\nVersion: 9\nArchitecture: all\nMaintainer: nobody\nDescription: it is there\n' >"$scratch/package/DEBIAN/control"
dpkg-deb --build "$scratch/package" "$scratch/weft.deb" >/dev/null
"$nspawn" copy "$name" "$scratch/weft.deb" /root/weft.deb
on dpkg --install /root/weft.deb >/dev/null || fail "the package cannot be installed"
if said=$(on make install 2>&1); then fail "it was installed beside the package: $said"; fi
[[ $said == *"the package weft is installed"* ]] || fail "it does not say why it installs nothing: $said"
on test ! -e /usr/local/bin/weftd || fail "a program came all the same"
echo "test_install: all of it works"
