#!/bin/bash
# Builds weftd and weft for release, for an architecture, into target/images/bin-ARCH.
set -euo pipefail
arch=${1:-x86_64}
tree=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
target=${CARGO_TARGET_DIR:-$tree/target}
cd "$tree"
if [ "$arch" = "$(uname -m)" ]; then
    ${CARGO:-cargo} build --release -p weft-agent -p weft-cli --bins
    from=$target/release
else
    echo "image: $arch: no agent of that architecture: build one, and name its folder in WEFT_BIN" >&2
    exit 1
fi
mkdir -p "$target/images/bin-$arch"
install -m 0755 "$from/weftd" "$from/weft" "$target/images/bin-$arch/"
