# Shared by the builders of images and packages: sourced, by a script that has set `name` (of its messages) and `arch`.
# Sets `tree`, `target`, `version`, `debian` (Debian's name of the architecture) and SOURCE_DATE_EPOCH.
#
# Environment:
#   WEFT_BIN      folder with weftd, weft-helper and weft of that architecture (default: built for release)
#   WEFT_VERSION  in place of the workspace's version
tree=$(dirname "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")")
target=$(readlink -m "${CARGO_TARGET_DIR:-$tree/target}")

say() { printf '%s: [%4d s] %s\n' "$name" "$SECONDS" "$*"; }
fail() { printf '%s: %s\n' "$name" "$*" >&2; exit 1; }

case $arch in
    x86_64) debian=amd64 ;;
    aarch64) debian=arm64 ;;
    *) fail "ARCH=$arch: x86_64 and aarch64 are known" ;;
esac

version=${WEFT_VERSION:-$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' "$tree/Cargo.toml")}
# Times inside are those of the commit.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$tree" log -1 --format=%ct 2>/dev/null || echo 1700000000)}
export SOURCE_DATE_EPOCH

# debian_sources SUITE: where apt of this machine gets its Debian packages, as sources of that suite.
debian_sources() {
    local found
    found=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 2>/dev/null | sort -u \
        | sed -nE "s#^([^ ]+) (bookworm|trixie)(-updates|-security)? main\$#deb \1 $1\3 main#p" | sort -u)
    [ -n "$found" ] || fail "apt knows no Debian packages on this machine: run apt-get update, or add a source"
    printf '%s\n' "$found"
}

# programs: sets `bin`, a folder with weftd, weft-helper and weft of this architecture.
programs() {
    if [ -n "${WEFT_BIN:-}" ]; then
        bin=$(readlink -f "$WEFT_BIN") || fail "WEFT_BIN=$WEFT_BIN: there is no such folder"
    else
        say "agent: cargo build --release, for $arch"
        build_agent
        bin=$target/images/bin-$arch
    fi
    local program
    for program in weftd weft-helper weft; do
        [ -x "$bin/$program" ] || fail "$bin/$program is missing: WEFT_BIN names the folder with weftd, weft-helper and weft"
    done
}

build_agent() {
    local from=$target/release
    local build=("${CARGO:-cargo}" build --release -p weft-agent -p weft-helper -p weft-cli --bins)
    if [ "$arch" = "$(uname -m)" ]; then
        (cd "$tree" && "${build[@]}")
    else
        from=$target/$arch-unknown-linux-gnu/release
        cross_tools
        (cd "$tree" && cross_environment && "${build[@]}" --target "$arch-unknown-linux-gnu")
    fi
    mkdir -p "$target/images/bin-$arch"
    install -m 0755 "$from/weftd" "$from/weft-helper" "$from/weft" "$target/images/bin-$arch/"
}

# What building for another architecture needs: its C compiler, Rust's library for it, and the two libraries that the
# eBPF loader is linked with, which are unpacked beside the build and not installed.
cross_tools() {
    "$tree/demo/setup.sh" "cross-$arch"
    local rust=$arch-unknown-linux-gnu
    if [ ! -d "$(rustc --print sysroot)/lib/rustlib/$rust" ]; then
        command -v rustup >/dev/null || fail "Rust's library for $rust is missing, and there is no rustup to add it"
        say "agent: rustup target add $rust"
        rustup target add "$rust"
    fi
    libraries=$target/cross/$arch
    [ ! -e "$libraries/lib/libz.a" ] || return 0
    say "agent: fetching libelf and zlib for $arch"
    local root=$target/cross/$arch.partial
    rm -rf "$root" "$libraries"
    mkdir -p "$target/cross"
    debian_sources bookworm >"$target/cross/sources.list"
    mmdebstrap --quiet --variant=extract --architectures="$debian" --include=libelf-dev,zlib1g-dev \
        bookworm "$root.tar" "$target/cross/sources.list" </dev/null
    mkdir -p "$root" "$libraries/lib"
    tar -C "$root" --exclude='./dev/*' -xf "$root.tar" ./usr/include ./usr/lib
    mkdir "$libraries/include"
    cp -L "$root"/usr/include/{libelf.h,gelf.h,elf.h,zlib.h,zconf.h} "$libraries/include/"
    [ ! -e "$root/usr/include/$arch-linux-gnu/zconf.h" ] || cp -L "$root/usr/include/$arch-linux-gnu/zconf.h" "$libraries/include/"
    cp -L "$root/usr/lib/$arch-linux-gnu/libelf.a" "$libraries/lib/"
    cp -L "$root/usr/lib/$arch-linux-gnu/libz.a" "$libraries/lib/"
    rm -rf "$root" "$root.tar"
}

# For cargo and the crates that compile C.
cross_environment() {
    local upper=${arch^^} lower=${arch}_unknown_linux_gnu
    export "CARGO_TARGET_${upper}_UNKNOWN_LINUX_GNU_LINKER=$arch-linux-gnu-gcc"
    export "CC_$lower=$arch-linux-gnu-gcc" "AR_$lower=$arch-linux-gnu-ar"
    # -B: where the compiler, asked for libelf.a, finds it.
    export "CFLAGS_$lower=-I$libraries/include -B$libraries/lib"
    export PKG_CONFIG_ALLOW_CROSS=1
}
