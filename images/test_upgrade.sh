#!/bin/bash
# What a node's upgrade refuses before it looks at a disk: files that are no updates, updates that nobody has signed whom it
# trusts, and updates that are not for it. The rest is told by whole machines (hw-tests, upgrade_and_roll_back). In a mount
# namespace, with another os-release.
#
#   test_upgrade.sh BIN     the folder with weft-helper, which verifies signatures
set -euo pipefail
programs=$(readlink -f "${WEFT_PROGRAMS:-${1:-.}}")
export WEFT_PROGRAMS=$programs
source "$(dirname "$0")/in_namespace.sh"

folder=$PWD
[ -x "$programs/weft-helper" ] || { echo "test_upgrade: no weft-helper in $programs" >&2; exit 1; }
export PATH=$programs:$PATH
printf 'ID=weft\nIMAGE_ID=weft\nIMAGE_VERSION=0.1.9\n' >os-release
mount --bind os-release "$(readlink -f /usr/lib/os-release)"
mkdir said
[ -d /run/weft-upgrade ] || { mount -t tmpfs tmpfs /run; mkdir /run/weft-upgrade; }
mount --bind said /run/weft-upgrade

# key NAME: a private key, and what an image has of it.
key() {
    openssl genpkey -algorithm ed25519 -out "$1.key"
    openssl pkey -in "$1.key" -pubout -out "$1.pub"
}
# signature NAME: the line that this key signs the manifest with, as assemble.sh writes it.
signature() {
    openssl pkeyutl -sign -rawin -inkey "$1.key" -in pieces/manifest -out made
    echo "ed25519 $(openssl pkey -in "$1.key" -pubout -outform DER | tail -c 32 | od -An -v -tx1 | tr -d ' \n') $(od -An -v -tx1 made | tr -d ' \n')"
}
for name in ours next stranger; do key "$name"; done
mkdir keys
cp ours.pub keys/

# update VERSION ARCH [KIND [KEY...]]: a small one, with the hashes that belong to it, signed by these keys.
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
    : >pieces/signature
    local signer
    for signer in "${@:4}"; do signature "$signer" >>pieces/signature; done
    pack
}
pack() { tar -C pieces --format=ustar -cf update manifest signature efi verity root; }
# refused REASON: so is the file that lies there, for that reason, said once; and it is gone.
refused() {
    local status=0
    "$here/root/usr/lib/weft/upgrade" "$folder/update" "$folder/keys" >/dev/null 2>&1 || status=$?
    [ "$status" != 0 ] && [ ! -e update ] && [ "$(grep -c '^failed: ' said/said)" = 1 ] && grep -q "^failed: .*$1" said/said \
        || { echo "test_upgrade: FAILED: '$1' was expected, not: $(cat said/said)" >&2; exit 1; }
    echo "test_upgrade: ok: $(tail -n 1 said/said)"
}

arch=$(uname -m)
signed() { update "$1" "$2" "${3:-1}" ours; }
echo "not a tar" >update; refused "no update"
signed 0.2.0 "$arch" 2; refused "a kind that this version does not know"
signed 0.2.0 m68k; refused "it is for m68k"
signed 0.1.9 "$arch"; refused "is what runs here"
# As far as one that is signed by the right key gets on a machine without slots.
signed 0.1.10 "$arch"; refused "no partition weft_0.1.9"
signed 0.1.8 "$arch"; refused "older than 0.1.9"
signed "../x" "$arch"; refused "which version it is"
for piece in efi verity root; do
    signed 0.2.0 "$arch"
    sed -i "s/the $piece of/The $piece of/" update
    refused "damaged: $piece"
done

update 0.2.0 "$arch" 1; refused "it is not signed"
update 0.2.0 "$arch" 1; tar --delete -f update signature; refused "it is not signed"
update 0.2.0 "$arch" 1 stranger; refused "this image takes updates of ours"
# A piece is changed, and its hash in the manifest with it.
signed 0.2.0 "$arch"
before=$(sha256sum <pieces/root | cut -c1-64)
echo "another root" >pieces/root
sed -i "s/^sha256 $before root .*/sha256 $(sha256sum <pieces/root | cut -c1-64) root $(stat -c %s pieces/root)/" pieces/manifest
pack; refused "changed afterwards"
signed 0.2.0 "$arch"; sed -i 's/^version 0.2.0/version 9.2.0/' pieces/manifest; pack; refused "changed afterwards"
# The manifest that was signed, and another one behind it in the same file.
signed 0.2.0 "$arch"; mkdir more; sed 's/^version 0.2.0/version 9.2.0/' pieces/manifest >more/manifest
tar -C more --format=ustar -rf update manifest; refused "changed afterwards"
# The signature of an older update.
signed 0.1.10 "$arch"; mv pieces/signature older; signed 0.2.0 "$arch"; mv older pieces/signature; pack; refused "changed afterwards"

# One key follows another. First both are trusted, and either will do.
cp next.pub keys/
update 0.1.10 "$arch" 1 ours; refused "no partition weft_0.1.9"
update 0.1.10 "$arch" 1 next; refused "no partition weft_0.1.9"
# Then the old one is not any more; what both have signed is still taken.
rm keys/ours.pub
update 0.1.10 "$arch" 1 ours; refused "this image takes updates of next"
update 0.1.10 "$arch" 1 ours next; refused "no partition weft_0.1.9"
# An image that was built without a key, and one with something else in its place.
echo "no key" >keys/next.pub
update 0.1.10 "$arch" 1 next; refused "no key that updates are signed with"
rm -r keys
update 0.1.10 "$arch" 1 next; refused "no key that updates are signed with"
echo "test_upgrade: all of it works"
