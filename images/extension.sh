#!/bin/bash
# Makes a system extension of a folder: a file that adds programs to the read-only root of nodes (docs/IMAGES.md).
#
#   extension.sh ARCH NAME FOLDER     FOLDER: with usr/ or opt/ in it; ARCH: x86_64, aarch64, or any for scripts and data
#
# Writes target/images/extensions-ARCH/NAME.raw. What the folder has of usr/lib/extension-release.d/extension-release.NAME is
# kept; without it one is written that says: for weft's images, while they offer programs the same libraries.
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
[ $# = 3 ] || { sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2; }
name=extension arch=$1 extension=$2 folder=$3
kind=$arch
[ "$arch" != any ] || arch=$(uname -m)
source "$here/common.sh"
[[ $extension =~ ^[0-9A-Za-z][0-9A-Za-z._-]{0,63}$ ]] || fail "\"$extension\" is no name: letters, digits, dots and dashes, 64 at most"
[ -d "$folder/usr" ] || [ -d "$folder/opt" ] || fail "$folder has neither usr nor opt: nothing else is merged"
for found in "$folder"/*; do
    case ${found##*/} in usr | opt) ;; *) fail "$found: only usr and opt are merged, so it would never be seen" ;; esac
done
source "$here/tools.sh"
tools

out=$work/extensions-$kind
copy=$work/extension.partial
rm -rf "$copy"
mkdir -p "$out" "$copy"
cp -a "$folder/." "$copy/"
release=$copy/usr/lib/extension-release.d/extension-release.$extension
if [ ! -e "$release" ]; then
    mkdir -p "${release%/*}"
    echo "ID=weft" >"$release"
    grep -o 'SYSEXT_LEVEL=.*' "$here/assemble.sh" >>"$release"
    # As systemd calls it.
    case $kind in x86_64) echo "ARCHITECTURE=x86-64" ;; aarch64) echo "ARCHITECTURE=arm64" ;; esac >>"$release"
    # It learns of units in it, then.
    [ ! -d "$copy/usr/lib/systemd/system" ] || echo "EXTENSION_RELOAD_MANAGER=1" >>"$release"
fi
in_tools "$copy" mkfs.erofs --quiet --all-root -T "$SOURCE_DATE_EPOCH" \
    -U "$(printf 'weft extension %s %s' "$extension" "$kind" | sha256sum | sed -E 's/^(.{8})(.{4}).(.{3}).(.{3})(.{12}).*/\1-\2-4\3-a\4-\5/')" \
    -z zstd,level=6 -C 65536 "/build/extensions-$kind/$extension.raw" /given >/dev/null
rm -rf "$copy"
say "done: $out/$extension.raw, $(du -k "$out/$extension.raw" | cut -f1) kB"
