#!/bin/bash
# Installs what building, testing and showing weft needs and this machine does not have: nothing when
# all is there. Says what it installs, and why. `setup.sh bench` adds what the benchmarks measure beside,
# `setup.sh promql` what `make test-promql` compares with, `setup.sh cross-aarch64` the C
# compiler for that architecture, `setup.sh vm` what makes the disks of `make test-vm` (QEMU and
# the kernel are unpacked beside them by hw-tests/build.sh, and not installed).
set -euo pipefail

# Program or file, Debian package, what for.
needed='
cc               gcc                build: the linker
make             make               build: libbpf
pkg-config       pkg-config         build: libbpf
clang            clang              build: eBPF probes; without it weft reads procfs
/usr/include/libelf.h libelf-dev    build: libbpf, with zlib
ip               iproute2           demo, tests: network namespaces
nft              nftables           tests: a network that loses packets
nsenter          util-linux         demo, tests: machines out of namespaces
mount            mount              demo, tests: machines out of namespaces
hostname         hostname           demo, tests: machines out of namespaces
/usr/bin/python3 python3-minimal    demo, tests: the service they run
systemd-nspawn   systemd-container  tests: machines with systemd
mmdebstrap       mmdebstrap         tests: machines with systemd
dbus-daemon      dbus               tests: machines with systemd
avahi-daemon     avahi-daemon       tests: discovery beside Avahi
avahi-browse     avahi-utils        tests: discovery beside Avahi
readelf          binutils           package: what the programs need
help2man         help2man           package: man pages
openssl          openssl            tests: updates of images that are signed
dnsmasq          dnsmasq-base       tests: discovery by unicast DNS
faketime         faketime           tests: a machine whose clock is wrong
'
[ "${1:-}" != bench ] || needed+='
serf             serf               bench: the same measured beside it
bpftrace         bpftrace           bench: the same measured beside it
strace           strace             bench: how often an agent opens files
'
[ "${1:-}" != promql ] || needed+='
prometheus       prometheus         test-promql: the answers of Prometheus itself
prometheus-node-exporter prometheus-node-exporter test-promql: the metrics of a host beside ours
'

[ "${1:-}" != cross-aarch64 ] || needed+='
aarch64-linux-gnu-gcc gcc-aarch64-linux-gnu build: programs for aarch64
/usr/aarch64-linux-gnu/include/stdio.h libc6-dev-arm64-cross build: programs for aarch64
'

[ "${1:-}" != vm ] || needed+='
mkfs.ext4        e2fsprogs          test-vm: disks of machines
strip            binutils           test-vm: programs on them
objcopy          binutils           test-vm: the pieces of an image
flock            util-linux         test-vm: one build at a time
sfdisk           fdisk              test-vm: partitions of disks
ssh              openssh-client     test-vm: the client of remote shells
'

missing=() why=()
while read -r program package reason; do
    [ -n "$program" ] || continue
    [[ $program != /* || ! -e $program ]] || continue
    PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null && continue
    missing+=("$package")
    why+=("  $package  ($program; $reason)")
done <<<"$needed"
# Beyond programs: the service of the demo is in the standard library, which the minimal package lacks.
/usr/bin/python3 -c 'import http.server' 2>/dev/null || { missing+=(python3); why+=("  python3  (http.server; demo, tests: the service they run)"); }

if [ ${#missing[@]} -gt 0 ]; then
    echo "setup: to install:"
    printf '%s\n' "${why[@]}"
    command -v apt-get >/dev/null || { echo "setup: there is no apt-get here: install these yourself" >&2; exit 1; }
    as_root=()
    if [ "$(id -u)" != 0 ]; then
        command -v sudo >/dev/null || { echo "setup: not root, and there is no sudo: tests that need these will say so"; exit 0; }
        as_root=(sudo)
    fi
    # Services of these packages are not wanted, only their programs: where nothing forbids it, forbid it.
    policy=/usr/sbin/policy-rc.d
    [ "${1:-}" != promql ] || [ -e $policy ] || {
        printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" tee $policy >/dev/null
        "${as_root[@]}" chmod +x $policy
        trap '"${as_root[@]}" rm -f $policy' EXIT
    }
    install() {
        "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"
    }
    install || { echo "setup: the package lists may be old: fetching them"; "${as_root[@]}" apt-get update; install; }
else
    echo "setup: every program is there"
fi

command -v cargo >/dev/null || { echo "setup: Rust is missing: see https://rustup.rs" >&2; exit 1; }
