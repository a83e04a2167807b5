#!/bin/bash
# Which system extensions a node hides from systemd-sysext, before it merges any: those that would keep it from merging the
# others, and those that replace what the image has. The rest is told by whole machines (hw-tests, extends). In a mount
# namespace, with a small root beside.
set -euo pipefail
source "$(dirname "$0")/in_namespace.sh"

mkdir -p root/usr/{bin,share} root/opt hidden extensions
echo agent >root/usr/bin/weftd
ln -s share root/usr/data
# extension NAME [RELEASE]: a folder that adds one file.
extension() {
    mkdir -p "extensions/$1/usr/bin" "extensions/$1/usr/lib/extension-release.d"
    echo "of $1" >"extensions/$1/usr/bin/$1"
    echo ID=_any >"extensions/$1/usr/lib/extension-release.d/extension-release.${2:-$1}"
}
# image NAME: the same as a file.
image() {
    mkfs.ext4 -q -d "extensions/$1" "extensions/$1.raw" 2M 2>/dev/null
    rm -r "extensions/$1"
}
extension good
extension adds; mkdir -p extensions/adds/opt/adds extensions/adds/usr/share
extension nameless other
extension replaces; echo another >extensions/replaces/usr/bin/weftd
extension covers; mkdir extensions/covers/usr/data
extension uncovers; echo >extensions/uncovers/usr/share
extension imaged
image imaged
extension renamed
image renamed
mv extensions/renamed.raw extensions/differs.raw
extension inimage; echo another >extensions/inimage/usr/bin/weftd
image inimage
echo "no image" >extensions/torn.raw
echo "neither" >extensions/readme

if ! mount -o ro,loop extensions/imaged.raw "$2/hidden" 2>/dev/null; then
    echo "test_extensions: skipped: no loop devices here"
    [ "${WEFT_MUST:-}" != loop ]
    exit
fi
umount "$2/hidden"

"$here/root/usr/lib/weft/extensions" extensions hidden "$PWD/root" >said
check() {
    grep -q -x "extension $1 is left out: $2" said && [ -d "hidden/$1" ] \
        || { echo "test_extensions: FAILED: '$1 ... $2' was expected of: $(cat said)" >&2; exit 1; }
    echo "test_extensions: ok: $(grep "^extension $1 " said)"
}
check nameless "it has no /usr/lib/extension-release.d/extension-release.nameless"
check replaces "it replaces /usr/bin/weftd, and may only add files"
check covers "it replaces /usr/data, and may only add files"
check uncovers "it replaces /usr/share, and may only add files"
check differs "it has no /usr/lib/extension-release.d/extension-release.differs"
check inimage "it replaces /usr/bin/weftd, and may only add files"
check torn "it is no image of a file system"
[ "$(wc -l <said)" = 7 ] && [ "$(ls hidden | wc -l)" = 7 ] \
    || { echo "test_extensions: FAILED: more were left out: $(cat said)" >&2; exit 1; }
echo "test_extensions: all of it works: good, adds and imaged are merged"
