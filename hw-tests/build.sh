#!/bin/bash
# What virtual machines need, from Debian packages, into target/vm. Nothing is installed on this machine.
#
#   tools/       QEMU and its firmware, a stock Debian kernel with its modules: unpacked, not configured
#   root.ext4    a Debian with systemd (agent/tests/nspawn.sh), the kernel's modules, and a shell on the second
#                serial port; machines write to copies of it
#
# Cached. Needs root, for the owners of files. WEFT_VM names the folder (default: target/vm of this tree).
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
vm=${WEFT_VM:-$(dirname "$here")/target/vm}
# Changes with what is below: what another recipe made is made anew.
recipe=4
packages=qemu-system-x86,qemu-system-arm,qemu-utils,ovmf,qemu-efi-aarch64,linux-image-cloud-amd64,nftables

source "$here/../agent/tests/nspawn.sh"
[ "$(id -u)" = 0 ] || { fail "needs root"; exit 1; }
mkdir -p "$vm"
exec 9>"$vm/lock"
flock 9

if [ ! -e "$vm/tools/.recipe-$recipe" ]; then
    install_tools
    say "unpacking $packages into $vm/tools (half a minute)"
    rm -rf "$vm/tools" "$vm/tools.partial"
    debian_sources bookworm >"$vm/sources.list"
    mmdebstrap --quiet --mode=root --variant=extract --include="$packages" bookworm "$vm/tools.partial" \
        "$vm/sources.list" >&2
    touch "$vm/tools.partial/.recipe-$recipe"
    mv "$vm/tools.partial" "$vm/tools"
    rm -f "$vm"/root.ext4.recipe-*
fi

if [ ! -e "$vm/root.ext4.recipe-$recipe" ]; then
    node=$(build_root)
    say "making $vm/root.ext4"
    root=$vm/root.partial
    rm -rf "$root"
    cp -a "$node" "$root"
    # Left out where a container was the aim: a machine has devices.
    rm -f "$root"/etc/systemd/system/systemd-udevd.service "$root"/etc/systemd/system/systemd-udev-trigger.service
    cp -a "$vm"/tools/lib/modules "$root/usr/lib/"
    for folder in "$root"/usr/lib/modules/*; do chroot "$root" depmod "$(basename "$folder")"; done
    # The tests of the probes lose packages with it. With the libraries that it alone needs.
    cp -a "$vm/tools/usr/sbin/nft" "$root/usr/sbin/"
    (cd "$vm/tools/usr/lib/x86_64-linux-gnu" && cp -an lib{nftables,nftnl,mnl,jansson,edit,bsd,md,xtables}.so.* "$root/usr/lib/x86_64-linux-gnu/")
    install -m 0644 "$here/shell.service" "$root/etc/systemd/system/"
    install -D -m 0755 "$here/shell.sh" "$root/usr/local/libexec/weft-test-shell"
    install -m 0644 "$here/net.network" "$root/etc/systemd/network/"
    mkdir -p "$root/opt/weft"
    printf '%s\n' '/dev/nvme1n1 /opt/weft ext4 ro,x-systemd.device-timeout=300s 0 0' >"$root/etc/fstab"
    chroot "$root" systemctl --quiet enable shell.service systemd-networkd.service
    rm -f "$vm/root.ext4"
    mkfs.ext4 -q -L root -d "$root" "$vm/root.ext4" 2G
    rm -rf "$root"
    touch "$vm/root.ext4.recipe-$recipe"
fi
printf '%s\n' "$vm"
