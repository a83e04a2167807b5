# For tests of a whole machine: sourced, it boots a Debian with systemd in a container, which ends with the test.
#
#   on COMMAND...          runs it there
#   is WHAT FOUND WANTED   says that it is so, or ends the test
#   fail WHY, skip WHY     end it; without a container it is skipped, and fails if WEFT_MUST=systemd
#
# $nspawn: the program that copies into the container "$name".
story=$(basename "$0" .sh)
nspawn=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../agent/tests/nspawn.sh
name=${story//_/-}-$$
skip() {
    echo "$story: skipped: $*"
    [ "${WEFT_MUST:-}" != systemd ]
    exit
}
fail() {
    echo "$story: FAILED: $*" >&2
    "$nspawn" run "$name" journalctl --no-pager -n 30 -u weftd >&2 || true
    exit 1
}
is() { [ "$2" = "$3" ] || fail "$1: $3 was expected, not $2"; echo "$story: ok: $1: $2"; }
on() { "$nspawn" run "$name" "$@"; }

[ "$(id -u)" = 0 ] || skip "needs root"
trap '"$nspawn" stop "$name"; rm -rf "${leftovers[@]}"' EXIT
trap 'exit 130' INT TERM
leftovers=()
"$nspawn" boot "$name" || skip "no systemd in a container here"
