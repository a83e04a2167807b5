#!/bin/bash
# Builds what nodes start from: a disk, files for starts by network, or a container.
#
#   build.sh ARCH         ARCH: x86_64 or aarch64
#
# Updates are signed (Ed25519), and a node takes those only that are signed by a key in the image that it runs. The private key is in
# images/update.key, which git ignores; it is made by the first build. Keep a copy: without it no node that runs such an image can be
# upgraded. Public keys in images/update-keys/*.pub go into the image as well: docs/IMAGES.md says how one key follows another.
#
# What goes in is written down in the files beside this one; tools.sh says where packages come from and what the rest runs in.
#
# Environment:
#   WEFT_BIN      folder with weftd, weft-helper and weft of that architecture (default: built for release)
#   WEFT_VERSION  in place of the workspace's version
#   FORMAT        one of these, or several with spaces between them (default: "disk update")
#                   disk       a disk for UEFI machines
#                   update     what nodes that start from a disk write into their other slot
#                   netboot    a kernel and an initial RAM disk with all of the root in it, and both as one UEFI program
#                   container  the root for systemd-nspawn (tar) and for docker and its like (OCI)
#   WEFT_UPDATE_KEY  another file with the private key
#   FRESH=1       ask for packages anew
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
name=image arch=${1:-x86_64}
source "$here/common.sh"

formats=${FORMAT:-disk update}
for format in $formats; do
    case $format in disk | update | netboot | container) ;; *) fail "FORMAT=$format: disk, update, netboot and container are known" ;; esac
done
[[ $version =~ ^[0-9A-Za-z.~+-]{1,16}$ ]] || fail "\"$version\" is no version: 16 letters, digits, dots and dashes at most"
source "$here/tools.sh"

tools
node="$(lines "$here/node.packages") linux-image-$debian"
node_file=$work/node-$arch-$(hash_of "$suite" "$node").tar
packages "node, $arch" "$debian" "$node" extract "$node_file"
programs
key=${WEFT_UPDATE_KEY:-$here/update.key}
if [ ! -e "$key" ]; then
    [ -z "${WEFT_UPDATE_KEY:-}" ] || fail "WEFT_UPDATE_KEY=$key: there is no such file"
    # First complete, then there: a key that is cut off would be kept for ever.
    (umask 077; in_tools "$bin" openssl genpkey -algorithm ed25519 >"$key.new")
    mv "$key.new" "$key"
    say "made $key, which signs updates: keep a copy, nodes that run this image take no others"
fi
say "updates are signed with $key"
in_tools "$bin" /source/images/assemble.sh "$arch" "$version" "/build/$(basename "$node_file")" "$formats" <"$key"
say "done: $work/out"
