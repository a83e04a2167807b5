#!/bin/bash
# Two updates for the story upgrade_and_roll_back: the image of this tree as a later version (VERSION.1), and one whose agent
# does not start (VERSION.2). After images/build.sh, whose programs they have.
#
#   updates.sh ARCH
set -euo pipefail
tree=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
name=updates arch=${1:-x86_64}
source "$tree/images/common.sh"

bin=${WEFT_BIN:-$target/images/bin-$arch}
FORMAT=update WEFT_VERSION=$version.1 WEFT_BIN=$bin "$tree/images/build.sh" "$arch"
broken=$target/images/bin-broken-$arch
mkdir -p "$broken"
install -m 0755 "$bin/weft" "$broken/weft"
printf '#!/bin/sh\necho this one does not start\nexit 1\n' >"$broken/weftd"
chmod 0755 "$broken/weftd"
FORMAT=update WEFT_VERSION=$version.2 WEFT_BIN=$broken "$tree/images/build.sh" "$arch"
