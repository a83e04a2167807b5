#!/bin/bash
# bench_scale.sh TARGET [--small]: what large fabrics cost. Writes TARGET/bench/scale.json and, unless it is
# the small run, docs/scale.svg; prints a table. Each measurement is a process of its own, so that memory is its
# own too. The small run leaves out how fast placements are: `make bench` shows that.
set -euo pipefail
target=$1 small=${2:-}
cargo=${CARGO:-cargo}
folder=$target/bench/scale
rm -rf "$folder"
mkdir -p "$folder"

[ -n "$small" ] || $cargo bench -p weft-fabric --bench placement | tee "$folder/placements.jsonl"
$cargo build --workspace --bin weft-sim
sim=$target/debug/weft-sim

number=0
scale() {
    number=$((number + 1))
    echo "weft-sim scale $*"
    "$sim" scale "$@" --out "$(printf '%s/%02d.json' "$folder" "$number")"
}

sizes=(100 300 1000 3000)
[ -n "$small" ] || sizes+=(10000)
for nodes in "${sizes[@]}"; do scale spread --nodes "$nodes"; done

scale deaths --nodes 100 --jobs 5 --slots 100 --percent 1 --percent 10
scale deaths --nodes 1000 --jobs 20 --slots 100 --percent 1
if [ -z "$small" ]; then
    scale deaths --nodes 1000 --jobs 20 --slots 100 --percent 10
    scale deaths --nodes 3000 --jobs 60 --slots 100 --percent 1
fi

scale overfull
scale readers
[ -n "$small" ] || scale readers --jobs 200
entries=(100000 300000)
[ -n "$small" ] || entries+=(1000000)
for entries in "${entries[@]}"; do scale table --entries "$entries"; done

# Every row on every node.
scale submit --nodes 100 --jobs 10 --slots "$([ -n "$small" ] && echo 100 || echo 1000)"
[ -n "$small" ] || scale submit --nodes 300 --jobs 10 --slots 1000

# C2M's shape: rows on their own node and on the coordinator that proposed them.
if [ -z "$small" ]; then
    scale submit --nodes 6100 --jobs 200 --slots 10000 --rows-stay --name C2M --budget 60
    scale submit --nodes 10000 --jobs 20 --slots 50000 --rows-stay --name "a million"
else
    scale submit --nodes 61 --jobs 20 --slots 1000 --rows-stay --name "C2M, a hundredth" --budget 60
fi

"$sim" scale report --out "$target/bench/scale.json" \
    $([ -n "$small" ] || echo --placements "$folder/placements.jsonl" --svg docs/scale.svg) "$folder"/*.json
