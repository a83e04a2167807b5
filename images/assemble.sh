#!/bin/bash
# The part of a build that runs in the root with the tools: packages and files in, images out.
#
#   assemble.sh ARCH VERSION PACKAGES.TAR "FORMAT..." <KEY   /source: the tree; /given: weftd, weft-helper and weft; /build: results
#
# KEY signs updates: a private key (Ed25519, PEM). It is nowhere but in the memory of the mount namespace that this runs in.
#
# Times, UUIDs and orders come from the version and from SOURCE_DATE_EPOCH.
set -euo pipefail
shopt -s nullglob
arch=$1 version=$2 packages=$3 formats=$4
recipe=/source/images
umask 022

say() { printf 'image: [%4d s] %s\n' "$SECONDS" "$*"; }
fail() { printf 'image: %s\n' "$*" >&2; exit 1; }
lines() { sed -e 's/#.*//' -e '/^[[:space:]]*$/d' "$@"; }
mib() { awk -v bytes="$(stat -c %s "$1")" 'BEGIN { printf "%.1f MiB", bytes / 1048576 }'; }
# A UUID that belongs to a word and this version.
uuid() { printf 'weft %s %s %s' "$1" "$arch" "$version" | sha256sum | sed -E 's/^(.{8})(.{4}).(.{3}).(.{3})(.{12}).*/\1-\2-4\3-a\4-\5/'; }

# As UEFI and as systemd call it, and its usual serial port.
case $arch in
    x86_64) efi=x64 systemd_arch=x86-64 serial=ttyS0 ;;
    aarch64) efi=aa64 systemd_arch=arm64 serial=ttyAMA0 ;;
esac
name=weft-$version-$arch
built=/build/build-$arch
out=/build/out
rm -rf "$built"
mkdir -p "$built/root" "$built/initrd" "$out"
cd "$built"
key=/tmp/update.key
(umask 077; cat >"$key")
openssl pkey -in "$key" -noout 2>/dev/null || fail "the key for updates is none"
# public FILE: the public half of a key, as digits.
public() { openssl pkey "${@:2}" -in "$1" -pubout -outform DER | tail -c 32 | od -An -v -tx1 | tr -d ' \n'; }

# --- the root -------------------------------------------------------------------------------------------------

tar -C root --exclude='./dev/*' -xf "$packages"
mv root/packages.list "$out/$name.packages"
kernel=$(basename root/boot/vmlinuz-*)
release=${kernel#vmlinuz-}
cp "root/boot/$kernel" linux
cp -r root/usr/lib/systemd/boot/efi efi
mv "root/usr/lib/modules/$release" modules
# Users that every Debian has, with a shell that there is.
sed -e 's#/bin/bash$#/bin/sh#' -e 's#^root:\*:#root:x:#' -e 's#:\*:#:x:#' root/usr/share/base-passwd/passwd.master >root/etc/passwd
sed 's#:\*:#:x:#' root/usr/share/base-passwd/group.master >root/etc/group
rm -rf root/usr/share/base-passwd

# leave_out LIST ROOT: what these patterns say.
leave_out() {
    local pattern
    while read -r pattern; do
        # A pattern of the list may have braces, so it is a word of the shell.
        eval "rm -rf $2/$pattern"
    done < <(lines "$recipe/$1")
    find "$2" -xtype l -path '*.wants/*' -delete
}
leave_out node.leave-out root

# Commands: busybox, where no package brought a better one. A node installs nothing, so it has no dpkg and no rpm.
rm -f root/usr/bin/busybox.static
# Asked of the one beside the tools: the node's may be of another architecture.
for applet in $(busybox --list); do
    case $applet in dpkg* | rpm* | linuxrc | busybox | init | su | login | getty | sulogin) continue ;; esac
    [ -e "root/usr/bin/$applet" ] || [ -L "root/usr/bin/$applet" ] || [ -e "root/usr/sbin/$applet" ] || [ -L "root/usr/sbin/$applet" ] \
        || ln -s busybox "root/usr/bin/$applet"
done

# Modules: the chosen ones, and what they need.
chosen() {
    local list=$1 pattern
    while read -r pattern; do
        (cd modules/kernel; eval "for path in $pattern $(eval "printf '%s.ko.xz ' $pattern"); do [ ! -e \"\$path\" ] || find \"\$path\" -name '*.ko.xz'; done")
    done < <(lines "$list") | sort -u
}
comm -23 <(chosen "$recipe/node.modules") <(chosen "$recipe/node.modules.leave-out") >modules.chosen
# with_needs FILE: these modules and the modules they depend on.
with_needs() {
    awk -v list="$1" '
        BEGIN { while ((getline line < list) > 0) wanted[++count] = "kernel/" line }
        { split($0, half, ":"); needs[half[1]] = half[2] }
        END {
            while (count > 0) {
                module = wanted[count--]
                if (module in seen) continue
                seen[module] = 1
                print module
                found = split(needs[module], each, " ")
                for (i = 1; i <= found; i++) wanted[++count] = each[i]
            }
        }' modules/modules.dep | sort
}
# install_modules FILE ROOT: these, and what modprobe reads.
install_modules() {
    local place=$built/$2/usr/lib/modules/$release
    mkdir -p "$place"
    cp modules/modules.order modules/modules.builtin modules/modules.builtin.modinfo "$place/"
    (cd modules; xargs -a "$built/$1" cp --parents -t "$place")
    [ "${3:-}" != plain ] || { find "$place" -name '*.ko.xz' -exec unxz {} +; sed -i 's/\.ko\.xz$/.ko/' "$place/modules.order"; }
    depmod -b "$2" "$release"
    # Written for those who have systemd's tool at hand; both forms are not needed.
    rm -f "$place"/modules.{symbols,symbols.bin,devname.bin}
}
[ -e modules/modules.dep ] || { mkdir -p all/lib/modules; ln -s "$built/modules" "all/lib/modules/$release"; depmod -b all "$release"; }
with_needs modules.chosen >modules.node
install_modules modules.node root
say "modules: $(wc -l <modules.node) of $(find modules -name '*.ko.xz' | wc -l) ($(du -sh "root/usr/lib/modules" | cut -f1))"

# Our own files.
cp -r "$recipe/root/." root/
install -D -m 0644 /source/agent/weftd.service root/usr/lib/systemd/system/weftd.service
install -m 0755 /given/weftd /given/weft-helper /given/weft root/usr/bin/
install -D -m 0644 "$out/$name.packages" root/usr/share/weft/packages
# Whose updates a node takes: of the key that this build signs with, and of those that the tree has.
mkdir root/usr/share/weft/update-keys
signer=$(public "$key")
openssl pkey -in "$key" -pubout -out "root/usr/share/weft/update-keys/${signer:0:16}.pub"
for more in "$recipe"/update-keys/*.pub; do
    [ "$(public "$more" -pubin | wc -c)" = 64 ] || fail "$more is no public key"
    install -m 0644 "$more" root/usr/share/weft/update-keys/
done
cat >root/usr/lib/os-release <<RELEASE
ID=weft
ID_LIKE=debian
NAME=weft
PRETTY_NAME="weft $version"
VERSION_ID=$version
SYSEXT_LEVEL=1
IMAGE_ID=weft
IMAGE_VERSION=$version
RELEASE
ln -sf ../usr/lib/os-release root/etc/os-release
ln -sf /run/systemd/resolve/stub-resolv.conf root/etc/resolv.conf
# The initial RAM disk puts the machine's own in its place.
: >root/etc/machine-id
mkdir -p root/{dev,proc,sys,run,tmp,var,root,mnt,opt} root/etc/weft root/etc/repart.d root/etc/extensions
rm -rf root/etc/repart.d root/boot
# Empty, for the automount of the EFI system partition: the root is read-only, so systemd cannot make it.
mkdir root/boot
for empty in var run tmp; do find "root/$empty" -mindepth 1 -delete; done
systemd-sysusers --root="$built/root"
rm -f root/etc/.pwd.lock root/etc/{passwd,group,shadow,gshadow}-
# choose_services ROOT: those that its preset names.
choose_services() {
    find "$1/etc/systemd/system" -mindepth 1 -type l -delete
    systemctl --root="$built/$1" --quiet preset-all
}
choose_services root
find root -name '*.pyc' -delete
chmod 0755 root

# --- read-only, and every block of it checked ----------------------------------------------------------------

say "root: writing erofs"
mkfs.erofs --quiet -T "$SOURCE_DATE_EPOCH" -U "$(uuid erofs)" -z zstd,level=6 -C 65536 -E ztailpacking,fragments \
    root.erofs root >/dev/null
salt=$(uuid salt | sha256sum | cut -d' ' -f1)
veritysetup format --salt "$salt" --uuid "$(uuid verity)" root.erofs root.verity >verity.text
hash=$(sed -n 's/^Root hash:[[:space:]]*//p' verity.text)
blocks=$(($(stat -c %s root.erofs) / 4096))
# systemd's rule for what belongs together: the halves of the hash are the partitions' UUIDs.
halves() { sed -E 's/^(.{8})(.{4})(.{4})(.{4})(.{12})$/\1-\2-\3-\4-\5/'; }
root_uuid=$(cut -c1-32 <<<"$hash" | halves)
verity_uuid=$(cut -c33-64 <<<"$hash" | halves)
say "root: $(mib root.erofs) ($(du -sh --apparent-size root | cut -f1) unpacked)"

# --- the initial RAM disk ------------------------------------------------------------------------------------

# needed FILE: the libraries that it is linked with, and theirs.
needed() {
    local library path
    for library in $(readelf -d "$1" 2>/dev/null | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p') \
        $(readelf -l "$1" 2>/dev/null | sed -n 's/.*interpreter: \(.*\)\]/\1/p'); do
        for path in root/usr/lib/*-linux-gnu/"${library##*/}" root/usr/lib64/"${library##*/}" root/usr/lib/"${library##*/}"; do
            [ -e "$path" ] || continue
            path=${path#root/}
            grep -q -x "$path" initrd.list && continue
            echo "$path" >>initrd.list
            needed "root/$path"
        done
    done
}
lines "$recipe/initrd.files" >initrd.list
for file in $(cat initrd.list); do needed "root/$file"; done
mkdir -p initrd/{dev,proc,sys,run,tmp,mnt,sysroot} initrd/usr/{bin,sbin,lib,lib64}
for link in bin sbin lib lib64; do ln -s "usr/$link" "initrd/$link"; done
(cd root; sort -u ../initrd.list | xargs cp -L --parents -t ../initrd)
[ -e "initrd/usr/lib64" ] && interpreter=$(readelf -l root/usr/sbin/dmsetup | sed -n 's/.*interpreter: \(.*\)\]/\1/p') \
    && { [ -e "initrd$interpreter" ] || cp -L "root$interpreter" "initrd/usr$interpreter"; }
for applet in sh mount umount grep find sort cat xargs modprobe losetup readlink sleep reboot cp ln chmod tr mkdir switch_root sha256sum; do
    ln -s busybox "initrd/usr/bin/$applet"
done
# The kernel itself calls this one, for what a module asks for while it starts.
ln -s ../bin/busybox initrd/usr/sbin/modprobe
while read -r module; do
    find modules/kernel -name "$module.ko.xz" -o -name "${module//-/_}.ko.xz" -o -name "${module//_/-}.ko.xz" | sed 's#^modules/kernel/##'
done < <(lines "$recipe/initrd.modules") | sort -u >modules.early
with_needs modules.early >modules.initrd
install_modules modules.initrd initrd plain
install -m 0755 "$recipe/initrd/init" initrd/init

# archive FOLDER: as the kernel unpacks it.
archive() {
    find "$1" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    (cd "$1"; find . -mindepth 1 -print0 | LC_ALL=C sort -z \
        | cpio --quiet --null --create --format=newc --owner=+0:+0 --reproducible)
}
# pack FOLDER FILE: the same, smallest.
pack() { archive "$1" | zstd -q -T1 -19 >"$2"; }
pack initrd initrd.cpio.zst
say "kernel: $(mib linux), initial RAM disk: $(mib initrd.cpio.zst)"

# --- what is handed out --------------------------------------------------------------------------------------

mkdir -p table esp/EFI/BOOT esp/EFI/systemd esp/EFI/Linux esp/loader
# What the machine needs at least: every partition of the first start, and the tables at both ends.
megabytes=$(cat "$recipe"/root/usr/lib/repart.d/*.conf | awk -F = '$1 == "SizeMinBytes" { sum += $2 } END { print sum + 2 }')
echo "$version $blocks $salt $hash" >table/root.table
echo "$megabytes" >table/minimum
pack table table.cpio.zst
sed "s/%%SERIAL%%/$serial/" "$recipe/cmdline" >cmdline
# unite CMDLINE FILE INITRD...: kernel, command line and initial RAM disks as one program for UEFI.
unite() {
    local cmdline=$1 file=$2
    shift 2
    ukify build --linux=linux "${@/#/--initrd=}" --cmdline="@$cmdline" \
        --os-release=@root/usr/lib/os-release --uname="$release" --stub="efi/linux$efi.efi.stub" \
        --efi-arch="$efi" --output="$file" >/dev/null
}

disk() {
    # Three tries; then systemd-boot takes the version before.
    cp uki.efi "esp/EFI/Linux/weft_$version+3.efi"
    cp "efi/systemd-boot$efi.efi" "esp/EFI/BOOT/BOOT${efi^^}.EFI"
    cp "efi/systemd-boot$efi.efi" "esp/EFI/systemd/"
    cp "$recipe/boot-loader.conf" esp/loader/loader.conf
    mkdir -p repart
    for definition in "$recipe"/disk/*.conf; do
        sed -e "s/%%VERSION%%/$version/" -e "s/%%ROOT_UUID%%/$root_uuid/" -e "s/%%VERITY_UUID%%/$verity_uuid/" \
            "$definition" >"repart/${definition##*/}"
    done
    find esp -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
    rm -f disk.raw
    systemd-repart --empty=create --size=auto --offline=yes --sector-size=512 --architecture="$systemd_arch" \
        --seed="$(uuid disk)" --definitions=repart --root="$built" --copy-source="$built" --dry-run=no --no-pager \
        disk.raw >repart.text 2>&1 || { cat repart.text >&2; fail "systemd-repart made no disk"; }
    say "disk: compressing"
    zstd -q -f -T1 -12 --long=27 disk.raw -o "$out/$name.raw.zst"
    mv disk.raw "$out/$name.raw"
    say "disk: $(mib "$out/$name.raw.zst") compressed, $(du -sm "$out/$name.raw" | cut -f1) MiB written"
    cp uki.efi "$out/$name.efi"
    cp root.erofs "$out/$name.root"
    cp root.verity "$out/$name.verity"
}
# What a node writes into its other slot.
update() {
    mkdir update
    ln root.erofs update/root
    ln root.verity update/verity
    ln uki.efi update/efi
    {
        printf 'weft-update 1\nversion %s\narch %s\nuuid %s root\nuuid %s verity\n' "$version" "$arch" "$root_uuid" "$verity_uuid"
        for piece in efi verity root; do
            echo "sha256 $(sha256sum <"update/$piece" | cut -c1-64) $piece $(stat -c %s "update/$piece")"
        done
    } >update/manifest
    openssl pkeyutl -sign -rawin -inkey "$key" -in update/manifest -out manifest.signature
    echo "ed25519 $signer $(od -An -v -tx1 manifest.signature | tr -d ' \n')" >update/signature
    tar -C update --format=ustar --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode=0644 \
        -cf "$out/$name.update" manifest signature efi verity root
    say "update: $(mib "$out/$name.update"), kernel $(mib uki.efi), signed by ${signer:0:16}"
}

# For machines that have no disk of ours: the root comes in the initial RAM disk, as it is on a disk, and stays in memory.
netboot() {
    mkdir memory
    ln root.erofs root.verity memory/
    # Compressed already. It comes first: what is not compressed must begin at a multiple of four bytes.
    archive memory >memory.cpio
    cat memory.cpio initrd.cpio.zst table.cpio.zst >"$out/$name.netboot.initrd"
    cp linux "$out/$name.netboot.linux"
    # The partition for /var is looked for by the initial RAM disk, and need not be there.
    sed -E 's/ systemd\.mount-extra=[^ ]+//' cmdline >cmdline.netboot
    unite cmdline.netboot "$out/$name.netboot.efi" memory.cpio initrd.cpio.zst table.cpio.zst
    say "netboot: kernel $(mib linux), initial RAM disk $(mib "$out/$name.netboot.initrd"), both in one $(mib "$out/$name.netboot.efi")"
}

# The same root without what only a machine needs, for who starts containers: as an archive for systemd-nspawn and its like,
# and as an OCI image that docker and its like load.
container() {
    cp -a root container-root
    leave_out container.leave-out container-root
    cp -r "$recipe/container/." container-root/
    choose_services container-root
    # Without addresses from outside nothing would ever be online.
    rm -rf container-root/etc/systemd/system/network-online.target.wants
    # An image that nothing can be written into has another name.
    sed -i -e '/^IMAGE_/d' -e "s/^PRETTY_NAME=.*/PRETTY_NAME=\"weft $version, in a container\"/" container-root/usr/lib/os-release
    : >container-root/etc/resolv.conf
    as_built() { tar --sort=name --format=gnu --mtime="@$SOURCE_DATE_EPOCH" --numeric-owner "$@"; }
    as_built -C container-root -cf layer.tar .
    gzip -n -9 <layer.tar >layer.tar.gz

    mkdir -p oci/blobs/sha256
    # blob FILE: its name there.
    blob() {
        local sum
        sum=$(sha256sum <"$1" | cut -c1-64)
        cp "$1" "oci/blobs/sha256/$sum"
        echo "$sum"
    }
    local created go layer config manifest
    created=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)
    case $arch in x86_64) go=amd64 ;; aarch64) go=arm64 ;; esac
    layer=$(blob layer.tar.gz)
    cat >oci.config <<CONFIG
{"created":"$created","architecture":"$go","os":"linux","config":{"Env":["PATH=/usr/bin:/usr/sbin","container=oci"],"Entrypoint":["/usr/lib/systemd/systemd"],"Volumes":{"/var":{}},"StopSignal":"SIGRTMIN+3","Labels":{"org.opencontainers.image.title":"weft","org.opencontainers.image.version":"$version"}},"rootfs":{"type":"layers","diff_ids":["sha256:$(sha256sum <layer.tar | cut -c1-64)"]},"history":[{"created":"$created"}]}
CONFIG
    config=$(blob oci.config)
    cat >oci.manifest <<MANIFEST
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.oci.image.config.v1+json","digest":"sha256:$config","size":$(stat -c %s oci.config)},"layers":[{"mediaType":"application/vnd.oci.image.layer.v1.tar+gzip","digest":"sha256:$layer","size":$(stat -c %s layer.tar.gz)}]}
MANIFEST
    manifest=$(blob oci.manifest)
    echo '{"imageLayoutVersion":"1.0.0"}' >oci/oci-layout
    cat >oci/index.json <<INDEX
{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:$manifest","size":$(stat -c %s oci.manifest),"platform":{"architecture":"$go","os":"linux"},"annotations":{"org.opencontainers.image.ref.name":"$version","io.containerd.image.name":"docker.io/library/weft:$version"}}]}
INDEX
    # What docker reads that does not know the layout yet.
    echo "[{\"Config\":\"blobs/sha256/$config\",\"RepoTags\":[\"weft:$version\"],\"Layers\":[\"blobs/sha256/$layer\"]}]" >oci/manifest.json
    as_built --owner=0 --group=0 -C oci -cf "$out/$name.oci.tar" blobs index.json manifest.json oci-layout
    mv layer.tar.gz "$out/$name.container.tar.gz"
    say "container: $(mib "$out/$name.container.tar.gz")"
}

case $formats in *disk* | *update*) unite cmdline uki.efi initrd.cpio.zst table.cpio.zst ;; esac
for format in $formats; do "$format"; done
(cd "$out"; sha256sum "$name".* >"$name.sha256sums.new"; grep -v sha256sums "$name.sha256sums.new" >"$name.sha256sums"; rm "$name.sha256sums.new")
