#!/bin/bash
# What a node's upgrade refuses before it looks at a disk: files that are no updates, and updates that are not for it. The
# rest is told by whole machines (hw-tests, upgrade_and_roll_back). In a mount namespace, with another os-release.
set -euo pipefail
source "$(dirname "$0")/in_namespace.sh"

folder=$PWD
printf 'ID=weft\nIMAGE_ID=weft\nIMAGE_VERSION=0.1.9\n' >os-release
mount --bind os-release "$(readlink -f /usr/lib/os-release)"
mkdir said
[ -d /run/weft-upgrade ] || { mount -t tmpfs tmpfs /run; mkdir /run/weft-upgrade; }
mount --bind said /run/weft-upgrade

# update VERSION ARCH [KIND]: a small one, with the hashes that belong to it.
update() {
    rm -rf pieces
    mkdir pieces
    local piece
    for piece in efi verity root; do echo "the $piece of $1" >"pieces/$piece"; done
    {
        printf 'weft-update %s\nversion %s\narch %s\n' "${3:-1}" "$1" "$2"
        for piece in efi verity root; do
            echo "sha256 $(sha256sum <"pieces/$piece" | cut -c1-64) $piece $(stat -c %s "pieces/$piece")"
        done
    } >pieces/manifest
    tar -C pieces --format=ustar -cf update manifest efi verity root
}
# refused REASON: so is the file that lies there, for that reason, said once; and it is gone.
refused() {
    local status=0
    "$here/root/usr/lib/weft/upgrade" "$folder/update" >/dev/null 2>&1 || status=$?
    [ "$status" != 0 ] && [ ! -e update ] && [ "$(grep -c '^failed: ' said/said)" = 1 ] && grep -q "^failed: .*$1" said/said \
        || { echo "test_upgrade: FAILED: '$1' was expected, not: $(cat said/said)" >&2; exit 1; }
    echo "test_upgrade: ok: $(tail -n 1 said/said)"
}

arch=$(uname -m)
echo "not a tar" >update; refused "no update"
update 0.2.0 "$arch" 2; refused "a kind that this version does not know"
update 0.2.0 m68k; refused "it is for m68k"
update 0.1.9 "$arch"; refused "is what runs here"
update 0.1.10 "$arch"; refused "no partition weft_0.1.9"
update 0.1.8 "$arch"; refused "older than 0.1.9"
update "../x" "$arch"; refused "which version it is"
for piece in efi verity root; do
    update 0.2.0 "$arch"
    sed -i "s/the $piece of/The $piece of/" update
    refused "damaged: $piece"
done
echo "test_upgrade: all of it works"
