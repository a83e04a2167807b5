#!/bin/bash
# Builds images in all formats twice, and says whether both have the same bytes, and how large they are beside what they may
# be. Then starts the container.
#
#   test_image.sh [ARCH]
#
# Budgets: a root of 45 MB, a compressed disk of 70 MB, an initial RAM disk of 53 MB that has this root in it: a machine of
# 256 MB holds it twice for a moment. And a container of 25 MB (docs/IMAGES.md).
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
name=test-image arch=${1:-$(uname -m)}
source "$here/common.sh"
out=$target/images/out
export FORMAT="disk update netboot container"
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
within "initial RAM disk with the root" netboot.initrd 53000000
within "container" container.tar.gz 25000000
if [ "$arch" = "$(uname -m)" ]; then
    "$here/test_container.sh"
else
    say "the container of another architecture is not started"
fi
