#!/bin/bash
# Builds the disk that machines start from.
#
#   build.sh ARCH         ARCH: x86_64 or aarch64
#
# What goes in is written down in the files beside this one. Packages come from where this machine's own apt gets
# Debian's. They are kept below target/images, and so is a root with the tools, which the rest runs in: nothing is
# installed on this machine, and no mount outlives the build. Needs root, for file owners.
#
# Environment:
#   WEFT_BIN      folder with weftd and weft of that architecture (default: built for release)
#   WEFT_VERSION  in place of the workspace's version
#   FORMAT        disk (the default: the disk and the update), or update: only what nodes write into their other slot
#   FRESH=1       ask for packages anew
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
suite=trixie
name=image arch=${1:-x86_64}
source "$here/common.sh"

kernel=linux-image-$debian
format=${FORMAT:-disk}
case $format in disk | update) ;; *) fail "FORMAT=$format: disk and update are known" ;; esac
[ "$(id -u)" = 0 ] || fail "needs root, because files in an image belong to users of the image"
command -v mmdebstrap >/dev/null || fail "mmdebstrap is missing: make setup installs it"

work=$target/images
mkdir -p "$work"
# One build at a time.
exec 9>"$work/lock"
flock -n 9 || { say "another build is running: waiting for it"; flock 9; }

[[ $version =~ ^[0-9A-Za-z.~+-]{1,16}$ ]] || fail "\"$version\" is no version: 16 letters, digits, dots and dashes at most"

lines() { sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "$@"; }

# packages WHAT ARCH PACKAGES VARIANT FILE: an archive of these, as it is when it was first asked for.
packages() {
    local what=$1 of=$2 list=$3 variant=$4 file=$5
    [ -n "${FRESH:-}" ] || [ ! -e "$file" ] || { say "$what: as fetched before"; return; }
    say "$what: fetching $(wc -w <<<"$list") packages and what they need"
    debian_sources "$suite" >"$work/sources.list"
    rm -f "$work/"*.partial.tar "${file%-*}"-*.tar
    mmdebstrap --quiet --mode=root --variant="$variant" --architectures="$of" \
        --include="$(tr -s ' \n' ',,' <<<"$list" | sed 's/,*$//')" \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
        --extract-hook='cd "$1/var/cache/apt/archives" && ls *.deb >"$1/packages.list" || true' \
        "$suite" "${file%.tar}.partial.tar" "$work/sources.list" </dev/null
    mv "${file%.tar}.partial.tar" "$file"
}
hash_of() { printf '%s\n' "$@" | sha256sum | cut -c1-12; }

tools=$(lines "$here/tools.packages")
tools_file=$work/tools-$(hash_of "$suite" "$tools").tar
packages "tools" "$(dpkg --print-architecture)" "$tools" apt "$tools_file"
if [ ! -e "$work/tools/.from" ] || [ "$(cat "$work/tools/.from")" != "$tools_file $(stat -c %Y "$tools_file")" ]; then
    rm -rf "$work/tools"
    mkdir "$work/tools"
    tar -C "$work/tools" --exclude='./dev/*' -xf "$tools_file"
    echo "$tools_file $(stat -c %Y "$tools_file")" >"$work/tools/.from"
fi

mkdir -p "$work/tools"/{source,build,bin.agent}

node="$(lines "$here/node.packages") $kernel"
node_file=$work/node-$arch-$(hash_of "$suite" "$node").tar
packages "node, $arch" "$debian" "$node" extract "$node_file"

programs

# The rest sees this machine read-only, in a mount namespace that ends with it.
unshare --mount --propagation private bash -euc '
    tools=$1 source=$2 work=$3 bin=$4
    shift 4
    mount --bind "$tools" "$tools"
    mount --bind -o ro "$source" "$tools/source"
    mount -o remount,bind,ro "$tools/source"
    mount --bind "$work" "$tools/build"
    mount --bind "$bin" "$tools/bin.agent"
    mount -t proc proc "$tools/proc"
    mount -t tmpfs -o mode=1777 tmpfs "$tools/tmp"
    mount --rbind /dev "$tools/dev"
    mkdir -p "$tools/.old"
    cd "$tools"
    pivot_root . .old
    umount -l /.old
    exec env -i PATH=/usr/bin:/usr/sbin LANG=C.UTF-8 SOURCE_DATE_EPOCH="$SOURCE_DATE_EPOCH" \
        /source/images/assemble.sh "$@"
' build "$work/tools" "$tree" "$work" "$bin" "$arch" "$version" "/build/$(basename "$node_file")" "$format"
say "done: $work/out"
