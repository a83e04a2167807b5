#!/bin/bash
# Fuzzes what reads bytes from outside, one target after the other, with libFuzzer and the address sanitizer (cargo-fuzz, which
# needs a nightly toolchain). Begins with the corpus of the tree; what it finds on its way goes to `fabric/fuzz/found`, which git
# ignores, and the next run goes on from there.
#
#   run.sh [TARGET...]     all, unless some are named; SECONDS_EACH=60
#
# A crash is kept in `fabric/fuzz/artifacts/TARGET`, and the exit status is 1: put the file into the corpus of its target, and
# `cargo test` (`fabric/tests/corpus.rs`) has it for ever.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")"
seconds=${SECONDS_EACH:-60}
case $seconds in '' | *[!0-9]* | 0) echo "fuzz: SECONDS_EACH=$seconds: write a number of seconds, 1 or more" >&2; exit 2 ;; esac

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

failed=()
for target in "${targets[@]}"; do
    echo "fuzz: $target for $seconds s"
    mkdir -p "found/$target"
    cargo +nightly fuzz run --fuzz-dir . "$target" "found/$target" "corpus/$target" -- \
        -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=10 -print_final_stats=1 || failed+=("$target")
done
[ ${#failed[@]} = 0 ] || { echo "fuzz: crashed: ${failed[*]}: see $PWD/artifacts" >&2; exit 1; }
echo "fuzz: ${targets[*]}: nothing found"
