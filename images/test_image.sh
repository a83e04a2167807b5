#!/bin/bash
# Builds an image twice, and says whether both have the same bytes, and how large they are beside what they may be.
#
#   test_image.sh [ARCH]
#
# Budgets: a root of 45 MB, a compressed disk of 70 MB (docs/IMAGES.md).
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
name=test-image arch=${1:-$(uname -m)}
source "$here/common.sh"
out=$target/images/out
sums=weft-$version-$arch.sha256sums

"$here/build.sh" "$arch"
first=$(cat "$out/$sums")
# Times are told in seconds, by FAT in two of them.
sleep 3
"$here/build.sh" "$arch"
if ! changed=$(diff <(printf '%s\n' "$first") "$out/$sums"); then
    printf '%s\n' "$changed"
    fail "two builds of the same have different bytes"
fi
say "two builds have the same bytes: $(wc -l <"$out/$sums") files"

within() {
    local what=$1 file=$out/weft-$version-$arch.$2 most=$3 size
    size=$(stat -c %s "$file")
    say "$what: $((size / 1000)) kB of $((most / 1000)) kB"
    [ "$size" -le "$most" ] || fail "$what is larger than it may be: $file"
}
within "root" root 45000000
within "compressed disk" raw.zst 70000000
