#!/bin/bash
# Installs the agent and the command line on this machine, as `make install` built them: below /usr/local, with the service
# and the group `weft`. Again: brings a newer version. What runs goes on, and the service is not started here.
#
#   install.sh FOLDER            FOLDER: with weftd, weft-helper and weft
#   install.sh --uninstall       takes away what the first one brought; /var/lib/weft and /etc/weft stay
#
# PREFIX: another place than /usr/local.
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
prefix=${PREFIX:-/usr/local}
unit=/etc/systemd/system/weftd.service
say() { printf 'install: %s\n' "$*"; }
fail() { printf 'install: %s\n' "$*" >&2; exit 1; }
reload() { [ ! -d /run/systemd/system ] || systemctl daemon-reload; }

[ "$(id -u)" = 0 ] || fail "needs root: it writes to $prefix/bin and /etc/systemd/system"
packaged=$(dpkg-query -W -f '${db:Status-Status}' weft 2>/dev/null || true)
if [ "${1:-}" = --uninstall ]; then
    # The package's own service goes on, with its own program.
    [ ! -d /run/systemd/system ] || [ "$packaged" = installed ] || systemctl disable --now weftd 2>/dev/null || true
    rm -f "$prefix/bin/weft" "$prefix/bin/weftd" "$prefix/bin/weft-helper" "$unit" "$prefix/share/bash-completion/completions/weft"
    reload
    [ ! -d /run/systemd/system ] || [ "$packaged" != installed ] || { systemctl enable weftd && systemctl restart weftd; }
    say "removed; what runs in units goes on (systemctl list-units 'weft-*'), and /var/lib/weft and /etc/weft are kept"
    exit
fi
for program in weftd weft-helper weft; do
    [ -x "${1:-}/$program" ] || fail "no $program in ${1:-}: make install builds it"
done
if [ "$packaged" = installed ]; then
    fail "the package weft is installed here, and two would get in each other's way: apt remove weft first, or make deb and apt install that"
fi

systemd-sysusers "$here/root/usr/lib/sysusers.d/weft.conf"
mkdir -p "$prefix/bin" "$prefix/share/bash-completion/completions" /etc/weft
# The helper first: it takes no orders of another version, and says so.
for program in weft-helper weftd weft; do
    # A program that runs cannot be written over, but another can take its name.
    install -m 0755 "$1/$program" "$prefix/bin/.$program.new"
    mv "$prefix/bin/.$program.new" "$prefix/bin/$program"
done
[ -e /etc/weft/weftd.toml ] || install -m 0644 "$here/../agent/weftd.toml" /etc/weft/weftd.toml
sed "s|/usr/bin/weftd|$prefix/bin/weftd|" "$here/../agent/weftd.service" >"$unit"
"$prefix/bin/weft" completion bash >"$prefix/share/bash-completion/completions/weft"
reload
say "weft and weftd $("$prefix/bin/weft" --version | cut -d' ' -f2) are in $prefix/bin, settings in /etc/weft/weftd.toml"
if [ -d /run/systemd/system ] && systemctl is-active --quiet weftd; then
    say "the agent runs in its old version: systemctl restart weftd; jobs run on meanwhile"
else
    say "now: systemctl enable --now weftd"
fi
say "to use weft without root: usermod -aG weft USER, and log in again"
