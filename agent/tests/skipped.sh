#!/bin/bash
# Runs tests, and says at the end which of them were skipped, and why. `make test` runs everything through it.
#
#   skipped.sh COMMAND...     its standard output is shown, its exit status is ours
#
# A test that cannot run prints a line `skipped: REASON` and passes; cargo keeps to itself what a test that passes prints, unless
# it is told `-- --show-output`. What comes of that is shown of tests that failed only; of the others the lines above are
# read. A script prints `NAME: skipped: REASON`. Who is skipped in one run and runs in another one (the executor's tests on systemd, which need a
# container) is not listed, or with what it left out there.
set -uo pipefail

# Why each was skipped: the last time that it was, and in the program whose tests are being read.
declare -A reasons_of reasons_here
# Who ran whole, at least once.
declare -A ran_whole
ran=() name='' hidden=''

# note WHO REASON
note() {
    local who=${1:-a test that does not say its name}
    case $'\n'${reasons_here[$who]:-}$'\n' in *$'\n'"$2"$'\n'*) return ;; esac
    reasons_here[$who]+=${reasons_here[$who]:+$'\n'}$2
}

# One program's tests have ended, or all.
end_block() {
    local who
    for who in "${ran[@]}"; do
        [ -n "${reasons_here[$who]:-}" ] || ran_whole[$who]=1
    done
    for who in "${!reasons_here[@]}"; do reasons_of[$who]=${reasons_here[$who]}; done
    ran=() reasons_here=()
}

tell() {
    local who reason count=0
    declare -A by_reason=()
    for who in "${!reasons_of[@]}"; do
        [ -z "${ran_whole[$who]:-}" ] || continue
        count=$((count + 1))
        while IFS= read -r reason; do by_reason[$reason]+="      $who"$'\n'; done <<<"${reasons_of[$who]}"
    done
    [ "$count" -gt 0 ] || return 0
    printf '\n%d tests were skipped, whole or in part:\n' "$count"
    while IFS= read -r reason; do
        printf '  %s\n' "$reason"
        printf '%s' "${by_reason[$reason]}" | sort
    done < <(printf '%s\n' "${!by_reason[@]}" | sort)
}

read_output() {
    local line
    while IFS= read -r line || [ -n "$line" ]; do
        case $line in
            'successes:') hidden=1 name='' ;;
            'failures:') hidden='' name='' ;;
            'test result: '*) hidden='' name=''; end_block ;;
            '---- '*' stdout ----') name=${line#---- } name=${name% stdout ----} ;;
            'skipped: '*) note "$name" "${line#skipped: }" ;;
            'test '*' ... ok') line=${line#test }; ran+=("${line% ... ok}"); line="test $line" ;;
            [a-z]*': skipped: '*) [ -n "$hidden" ] || note "${line%%: skipped: *}" "${line#*: skipped: }" ;;
        esac
        [ -n "$hidden" ] || printf '%s\n' "$line"
    done
    end_block
    tell
}

[ $# -gt 0 ] || { echo "usage: $0 COMMAND..." >&2; exit 2; }
"$@" | read_output
exit "${PIPESTATUS[0]}"
