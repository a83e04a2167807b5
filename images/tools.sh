# Packages, and the root with the tools that images are built in: sourced, after common.sh.
#
# Packages come from where this machine's own apt gets Debian's. They are kept below target/images, and so is the root:
# nothing is installed on this machine, and no mount outlives a build. Needs root, for file owners.
#
# Environment:
#   FRESH=1       ask for packages anew
suite=trixie
[ "$(id -u)" = 0 ] || fail "needs root, because files in an image belong to users of the image"
command -v mmdebstrap >/dev/null || fail "mmdebstrap is missing: make setup installs it"

work=$target/images
mkdir -p "$work"
# One build at a time.
exec 9>"$work/lock"
flock -n 9 || { say "another build is running: waiting for it"; flock 9; }

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

# The root with the tools, in $work/tools.
tools() {
    local list file
    list=$(lines "$tree/images/tools.packages")
    file=$work/tools-$(hash_of "$suite" "$list").tar
    packages "tools" "$(dpkg --print-architecture)" "$list" apt "$file"
    if [ ! -e "$work/tools/.from" ] || [ "$(cat "$work/tools/.from")" != "$file $(stat -c %Y "$file")" ]; then
        rm -rf "$work/tools"
        mkdir "$work/tools"
        tar -C "$work/tools" --exclude='./dev/*' -xf "$file"
        echo "$file $(stat -c %Y "$file")" >"$work/tools/.from"
    fi
    mkdir -p "$work/tools"/{source,build,given}
}

# in_tools FOLDER COMMAND...: runs it there, with the tree in /source, $work in /build and this folder in /given. It sees the
# first read-only, and what it mounts ends with it.
in_tools() {
    unshare --mount --propagation private bash -euc '
        tools=$1 source=$2 work=$3 given=$4
        shift 4
        mount --bind "$tools" "$tools"
        mount --bind -o ro "$source" "$tools/source"
        mount -o remount,bind,ro "$tools/source"
        mount --bind "$work" "$tools/build"
        mount --bind "$given" "$tools/given"
        mount -t proc proc "$tools/proc"
        mount -t tmpfs -o mode=1777 tmpfs "$tools/tmp"
        mount --rbind /dev "$tools/dev"
        mkdir -p "$tools/.old"
        cd "$tools"
        pivot_root . .old
        umount -l /.old
        exec env -i PATH=/usr/bin:/usr/sbin LANG=C.UTF-8 SOURCE_DATE_EPOCH="$SOURCE_DATE_EPOCH" "$@"
    ' in_tools "$work/tools" "$tree" "$work" "$@"
}
