#!/bin/bash
# The executor's own tests (`agent/src/executor/on_systemd.rs`) where systemd is process 1.
#
#   on_systemd.sh TEST-PROGRAM [ONLY [OPTION]]  the unit tests of weftd, as cargo built them; those whose name contains ONLY.
#                                             OPTION: how they are run, else --show-output, for skipped.sh
#
# They start tasks by means of weftd itself, and helpers: cargo builds both into the folder above. WEFT_ROUNDS says how often stories of people who
# start units by hand are told.
#
# Where no container with systemd can be started it says so, and fails if WEFT_MUST=systemd.
set -u
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
skip() {
    echo "on_systemd: skipped: $*"
    [ "${WEFT_MUST:-}" != systemd ]
    exit
}

[ -x "${1:-}" ] || { echo "on_systemd: no test program: ${1:-}" >&2; exit 2; }
[ "$(id -u)" = 0 ] || skip "needs root"
name=exec-$$
trap '"$here/nspawn.sh" stop "$name"' EXIT
trap 'exit 130' INT TERM
"$here/nspawn.sh" boot "$name" || skip "no systemd in a container here"
"$here/nspawn.sh" copy "$name" "$1" /opt/tests || exit 1
for program in weftd weft-helper; do
    "$here/nspawn.sh" copy "$name" "$(dirname "$1")/../$program" "/opt/$program" || exit 1
done
# A distribution older than this one cannot run what was built here.
"$here/nspawn.sh" run "$name" /opt/tests --list >/dev/null || skip "the program does not run in the container"
echo "on_systemd: the executor's tests in a container with systemd as process 1"
export WEFT_TEST_ENV="${WEFT_TEST_ENV:-} WEFT_ROUNDS=${WEFT_ROUNDS:-2}"
"$here/nspawn.sh" run "$name" /opt/tests "${2:-on_systemd_}" "${3:---show-output}" || exit 1
# Where tasks cannot see it.
"$here/nspawn.sh" run "$name" sh -c 'cp /opt/tests /opt/weftd /opt/weft-helper /root/' || exit 1
"$here/nspawn.sh" run "$name" /root/tests on_systemd_a_unit_runs --show-output
