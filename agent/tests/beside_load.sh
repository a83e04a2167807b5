#!/bin/bash
# Runs a command while every CPU of this machine has a loop that does nothing, at ordinary priority: as beside a compiler.
# A test that waits for a number of seconds, and not for progress, fails here.
#
#   beside_load.sh COMMAND...     its exit status is ours
set -uo pipefail
[ $# -gt 0 ] || { echo "usage: $0 COMMAND..." >&2; exit 2; }

# Looks now and then whether this script is still there: so it ends also when nobody could tell it to.
busy() {
    local turn
    while kill -0 $$ 2>/dev/null; do
        for ((turn = 0; turn < 100000; turn++)); do :; done
    done
}
loops=()
trap 'kill "${loops[@]}" 2>/dev/null; wait "${loops[@]}" 2>/dev/null' EXIT
trap 'exit 130' INT TERM
for ((cpu = $(nproc); cpu > 0; cpu--)); do
    busy </dev/null >/dev/null 2>&1 &
    loops+=($!)
done
echo "beside load: ${#loops[@]} busy loops (${loops[*]}) beside: $*"
"$@"
status=$?
for loop in "${loops[@]}"; do
    kill -0 "$loop" || { echo "beside load: loop $loop did not run to the end: this was no test" >&2; exit 1; }
done
echo "beside load: done in $SECONDS s, exit status $status"
exit "$status"
