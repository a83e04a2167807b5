#!/bin/bash
# Builds a Debian package of the agent and the command line, into target/packages.
#
#   deb.sh [ARCH]         ARCH: x86_64 or aarch64 (default: this machine's)
#
# The package is made by dpkg-deb out of files that are there: programs, the unit, the group of the socket, completions
# and man pages, which help2man makes of what `weft COMMAND --help` says, of job files and of the settings. Same programs, same commit: same bytes.
#
# Environment:
#   WEFT_BIN      folder with weftd, weft-helper and weft of that architecture (default: built for release)
#   WEFT_VERSION  in place of the workspace's version
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
name=deb arch=${1:-$(uname -m)}
source "$here/common.sh"

for program in dpkg-deb readelf strip; do
    command -v $program >/dev/null || fail "$program is missing: make setup installs it"
done
[[ $version =~ ^[0-9][0-9A-Za-z.~+-]*$ ]] || fail "\"$version\" is no version of a Debian package: it begins with a digit"
programs

mkdir -p "$target/packages"
root=$(mktemp -d "$target/packages/root.XXXXXX")
trap 'rm -rf "$root"' EXIT
chmod 0755 "$root"
file() { install -D -m "$1" "$2" "$root/$3"; }

for program in weftd weft-helper weft; do
    file 0755 "$bin/$program" usr/bin/$program
    # One built for release is stripped, and one of another architecture may not be understood here.
    strip "$root/usr/bin/$program" 2>/dev/null || true
done
file 0644 "$tree/agent/weftd.service" usr/lib/systemd/system/weftd.service
file 0644 "$here/root/usr/lib/sysusers.d/weft.conf" usr/lib/sysusers.d/weft.conf
for example in "$tree"/docs/examples/*; do file 0644 "$example" "usr/share/doc/weft/examples/$(basename "$example")"; done
for page in "$tree"/docs/*.md; do file 0644 "$page" "usr/share/doc/weft/$(basename "$page")"; done
for page in "$tree"/docs/guide/*.md; do file 0644 "$page" "usr/share/doc/weft/guide/$(basename "$page")"; done
file 0644 "$tree/docs/weft-job.schema.json" usr/share/doc/weft/weft-job.schema.json
file 0644 "$tree/agent/weftd.toml" usr/share/doc/weft/examples/weftd.toml

# What the programs say of themselves. Those of another architecture cannot be asked here: this machine's, from the same
# tree, say the same.
if [ "$arch" = "$(uname -m)" ]; then
    asked=$root/usr/bin
else
    asked=$target/debug
    [ -x "$asked/weft" ] && [ -x "$asked/weftd" ] && [ -x "$asked/weft-helper" ] || (cd "$tree" && "${CARGO:-cargo}" build --workspace --bins)
fi
weft=$asked/weft
"$weft" completion bash | install -D -m 0644 /dev/stdin "$root/usr/share/bash-completion/completions/weft"
"$weft" completion zsh | install -D -m 0644 /dev/stdin "$root/usr/share/zsh/vendor-completions/_weft"
"$weft" completion fish | install -D -m 0644 /dev/stdin "$root/usr/share/fish/vendor_completions.d/weft.fish"
command -v help2man >/dev/null || fail "help2man is missing: demo/setup.sh deb installs it"
manual() {
    mkdir -p "$root/usr/share/man/man$1"
    help2man --no-info --section "$1" --version-string "$version" --name "$4" "$3" |
        gzip -9n >"$root/usr/share/man/man$1/$2.$1.gz"
}
# Of the job file, as its parser knows it; and the settings, as the file with all of them says.
mkdir -p "$root/usr/share/man/man5"
gzip -9n <"$tree/docs/weft-job.5" >"$root/usr/share/man/man5/weft-job.5.gz"
{
    printf '.TH WEFTD.TOML 5 "" weft weft\n.SH NAME\nweftd.toml \\- settings of weftd, in /etc/weft\n.SH DESCRIPTION\n.nf\n'
    sed -e 's/\\/\\e/g' -e 's/-/\\-/g' -e "s/^[.']/\\\\\&&/" "$tree/agent/weftd.toml"
    printf '.fi\n.SH SEE ALSO\n.BR weftd (8),\n.BR weft-job (5)\n'
} | gzip -9n >"$root/usr/share/man/man5/weftd.toml.5.gz"
manual 1 weft "$weft" "run jobs on many machines as on one"
manual 8 weftd "$asked/weftd" "weft's agent"
manual 8 weft-helper "$asked/weft-helper" "what weft's agent does on demand"
while read -r command what; do
    manual 1 "weft-$command" "$weft $command" "$what"
done < <("$weft" --help | sed -n '/^Usage:/,/^Options:/s/^  \([a-z][a-z-]*\)  *\([A-Z].*\)/\1 \2/p')
[ -e "$root/usr/share/man/man1/weft-apply.1.gz" ] || fail "weft --help lists no commands"

glibc=$(readelf -VW "$root/usr/bin/weftd" "$root/usr/bin/weft-helper" "$root/usr/bin/weft" | grep -o 'GLIBC_[0-9][0-9.]*' | sort -uV | tail -n 1)
[ -n "$glibc" ] || fail "the programs do not say which glibc they need"
mkdir "$root/DEBIAN"
for script in postinst prerm postrm; do install -m 0755 "$here/deb/$script" "$root/DEBIAN/$script"; done
size=$(du -sk --apparent-size "$root/usr" | cut -f1)
sed -e "s/@VERSION@/$version/" -e "s/@ARCH@/$debian/" -e "s/@GLIBC@/${glibc#GLIBC_}/" -e "s/@SIZE@/$size/" \
    "$here/deb/control" >"$root/DEBIAN/control"
find "$root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
package=$target/packages/weft_${version}_$debian.deb
dpkg-deb --root-owner-group --build "$root" "$package" >/dev/null
say "$package: $(stat -c %s "$package" | numfmt --to=si)B, installed $((size / 1024)) MiB"
