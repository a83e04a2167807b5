#!/bin/bash
# Fuzzes what reads bytes from outside, one target after the other, with libFuzzer and the address sanitizer (cargo-fuzz, which
# needs a nightly toolchain). Begins with the corpus of the tree; what it finds on its way goes to `fuzz/found`, which git
# ignores, and the next run goes on from there.
#
#   run.sh [TARGET...]     all, unless some are named; SECONDS_EACH=60, or INPUTS_EACH=10000000
#
# Prints for each target how many inputs it ran, how many a second, and how much of the program they reached (libFuzzer's `cov`:
# edges between blocks of code). A crash is kept in `fuzz/artifacts/TARGET`, and the exit status is 1: put the file into the corpus
# of its target, and `cargo test` (`fuzz/replay.rs`) has it for ever.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")"
number() {
    case $2 in '' | *[!0-9]* | 0) echo "fuzz: $1=$2: write a number, 1 or more" >&2; exit 2 ;; esac
}
inputs=${INPUTS_EACH:-}
seconds=${SECONDS_EACH:-}
if [ -n "$inputs" ]; then number INPUTS_EACH "$inputs"; else seconds=${seconds:-60}; fi
if [ -n "$seconds" ]; then number SECONDS_EACH "$seconds"; fi

# Bytes of the longest input. What makes sense is far shorter than what is allowed, and short inputs are many.
longest() {
    case $1 in
        datagram | sealed) echo 1500 ;;
        promql | image_reference) echo 400 ;;
        store_file) echo 96 ;;
        credential | helper | stream | update_signature) echo 1024 ;;
        api | http | series | state_file | configuration | dns | entry | image_manifest) echo 4096 ;;
        *) echo 8192 ;;
    esac
}

all=()
for file in fuzz_targets/*.rs; do all+=("$(basename "$file" .rs)"); done
targets=("${@:-${all[@]}}")
for target in "${targets[@]}"; do
    [ -e "fuzz_targets/$target.rs" ] || { echo "fuzz: there is no target $target: write one of ${all[*]}" >&2; exit 2; }
done

if ! cargo +nightly --version >/dev/null 2>&1; then
    echo "fuzz: to install: a nightly toolchain of Rust, for the sanitizer (rustup toolchain install nightly --profile minimal)"
    rustup toolchain install nightly --profile minimal
fi
if ! cargo fuzz --version >/dev/null 2>&1; then
    echo "fuzz: to install: cargo-fuzz, with cargo install"
    cargo install --locked cargo-fuzz
fi

# One that does not build has not crashed.
for target in "${targets[@]}"; do cargo +nightly fuzz build --fuzz-dir . "$target"; done

said=$(mktemp)
trap 'rm -f "$said"' EXIT
failed=() table=()
for target in "${targets[@]}"; do
    echo "fuzz: $target: ${inputs:+$inputs inputs}${inputs:+${seconds:+, at most }}${seconds:+$seconds s}"
    mkdir -p "found/$target"
    cargo +nightly fuzz run --fuzz-dir . "$target" "found/$target" "corpus/$target" -- \
        -max_len="$(longest "$target")" ${seconds:+-max_total_time="$seconds"} ${inputs:+-runs="$inputs"} \
        -rss_limit_mb=2048 -malloc_limit_mb=512 -timeout=10 -print_final_stats=1 2>&1 | tee "$said" || failed+=("$target")
    # The last line of each kind: "#1234 DONE cov: 56 ft: ..." and "stat::...".
    table+=("$(awk -v target="$target" '
        { for (word = 1; word < NF; word++) if ($word == "cov:") cov = $(word + 1) }
        /^stat::number_of_executed_units:/ { inputs = $2 }
        /^stat::average_exec_per_sec:/ { rate = $2 }
        END { printf "%-18s %12d inputs %8d a second %7d edges", target, inputs, rate, cov }
    ' "$said")")
done
printf 'fuzz: %s\n' "${table[@]}"
[ ${#failed[@]} = 0 ] || { echo "fuzz: crashed: ${failed[*]}: see $PWD/artifacts" >&2; exit 1; }
echo "fuzz: ${targets[*]}: nothing found"
