#!/bin/bash
# A test program of the agent in a fresh Debian 12: a container with systemd as process 1 that has nothing of this machine but
# this tree and what was built of it, both read-only. The machines that the test makes are namespaces in there.
#
#   in_debian.sh TEST-PROGRAM [ARG...]     as cargo built it
#
# Where no such container can be started it says so, and fails if WEFT_MUST=systemd.
set -u
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
tree=$(readlink -f "$here/../..")
skip() {
    echo "in_debian: skipped: $*"
    [ "${WEFT_MUST:-}" != systemd ]
    exit
}

[ -x "${1:-}" ] || { echo "in_debian: no test program: ${1:-}" >&2; exit 2; }
[ "$(id -u)" = 0 ] || skip "needs root"
program=$(readlink -f "$1")
shift
built=$(dirname "$(dirname "$program")")
name=debian-$$
trap '"$here/nspawn.sh" stop "$name"' EXIT
trap 'exit 130' INT TERM
"$here/nspawn.sh" boot "$name" --private-network --bind-ro="$tree" --bind-ro="$built" || skip "no systemd in a container here"
# A distribution older than this one cannot run what was built here.
"$here/nspawn.sh" run "$name" "$program" --list >/dev/null || skip "the program does not run in the container"
echo "in_debian: $(basename "$program") in $("$here/nspawn.sh" run "$name" sed -n 's/^PRETTY_NAME="\(.*\)"/\1/p' /etc/os-release)"
"$here/nspawn.sh" run "$name" env --chdir="$tree/agent" "$program" "$@"
