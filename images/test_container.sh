#!/bin/bash
# The container that `make image FORMAT=container` made: the OCI image is what its hashes say, its root is the archive for
# systemd-nspawn, and a node of it founds a fabric and runs a job. Also without systemd: the agent as the only program.
#
#   test_container.sh [VERSION]
#
# Where no container with systemd can be started it says so, and fails if WEFT_MUST=systemd.
set -euo pipefail
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
name=test-container arch=$(uname -m)
source "$here/common.sh"
nspawn=$here/../agent/tests/nspawn.sh
made=$target/images/out/weft-${1:-$version}-$arch
skip() {
    say "skipped: $*"
    [ "${WEFT_MUST:-}" != systemd ]
    exit
}
is() { [ "$2" = "$3" ] || fail "FAILED: $1: $3 was expected, not $2"; say "ok: $1: $2"; }
[ "$(id -u)" = 0 ] || skip "needs root"
[ -e "$made.oci.tar" ] || fail "$made.oci.tar is missing: make image FORMAT=container"

place=$target/images/test-container
machine=container-$$
rm -rf "$place"
mkdir -p "$place/oci" "$place/root"
end() { "$nspawn" stop "$machine"; rm -rf "$place"; }
trap end EXIT
trap 'exit 130' INT TERM

tar -C "$place/oci" -xf "$made.oci.tar"
# From the index to the layer, as who loads it does.
read -r layer kind < <(/usr/bin/python3 - "$place/oci" <<'READ'
import gzip, hashlib, json, sys
folder = sys.argv[1]
def blob(of):
    data = open(f"{folder}/blobs/{of['digest'].replace(':', '/')}", "rb").read()
    assert len(data) == of["size"] and "sha256:" + hashlib.sha256(data).hexdigest() == of["digest"], of
    return data
assert json.load(open(f"{folder}/oci-layout"))["imageLayoutVersion"] == "1.0.0"
index = json.load(open(f"{folder}/index.json"))
manifest = json.loads(blob(index["manifests"][0]))
config = json.loads(blob(manifest["config"]))
layer = gzip.decompress(blob(manifest["layers"][0]))
assert config["rootfs"]["diff_ids"] == ["sha256:" + hashlib.sha256(layer).hexdigest()]
loaded = json.load(open(f"{folder}/manifest.json"))[0]
assert loaded["Config"].endswith(manifest["config"]["digest"][7:]) and loaded["Layers"][0].endswith(manifest["layers"][0]["digest"][7:])
assert config["config"]["Entrypoint"] == ["/usr/lib/systemd/systemd"]
print(manifest["layers"][0]["digest"][7:], config["architecture"])
READ
)
[ -n "$layer" ] || fail "FAILED: the OCI image is not what its hashes say"
is "architecture of the OCI image" "$kind" "$debian"
cmp "$place/oci/blobs/sha256/$layer" "$made.container.tar.gz" || fail "FAILED: the two have different roots"
say "ok: the OCI image is what its hashes say, and its only layer is the archive"
tar -C "$place/root" -xzf "$made.container.tar.gz"
is "files of a remote shell" "$(find "$place/root" -name 'dropbear*' -o -name 'weft-ssh*' | wc -l)" 0

export WEFT_TEST_ROOT=$place/root
"$nspawn" boot "$machine" --set-credential=weft.labels:lives=in-a-box --private-network || skip "no systemd in a container here"
on() { "$nspawn" run "$machine" "$@"; }
for ((try = 0; try < 120; try++)); do [ "$(on systemctl is-active weftd)" != active ] || break; sleep 0.5; done
is "the agent" "$(on systemctl is-active weftd)" active
is "failed units" "$(on systemctl --failed --plain --no-legend | wc -l)" 0
on weft init --name box >/dev/null 2>&1 || fail "FAILED: weft init"
is "nodes" "$(on weft --json nodes | grep -c '"state": "alive"')" 1
is "the label that was given" "$(on weft --json nodes | sed -n 's/.*"lives": "\(.*\)".*/\1/p')" in-a-box
on weft run --name sleeper -- /bin/sleep 600 >/dev/null 2>&1 || fail "FAILED: weft run"
is "the job" "$(on systemctl is-active "weft-sleeper-0-1-*.service")" active
on weft stop sleeper --yes >/dev/null 2>&1
"$nspawn" stop "$machine"

# The agent alone, as a container without systemd starts it: a program in a root, with /var of its own.
mkdir -p "$place/var"
nspawn_alone=(systemd-nspawn --quiet --directory="$place/root" --volatile=overlay --bind="$place/var:/var/lib/weft"
    --machine="weft-test-$machine" --register=no --keep-unit --console=pipe --private-network --resolv-conf=off --timezone=off)
setsid "${nspawn_alone[@]}" --as-pid2 /bin/sh -c 'weftd & until weft init --name alone; do sleep 1; done; weft nodes; echo "founded"; weft run --name sleeper -- /bin/sleep 600 && echo "runs"; kill $!; wait' \
    </dev/null >"$place/alone" 2>&1 || { cat "$place/alone" >&2; fail "FAILED: the agent alone ends with $?"; }
grep -q -x founded "$place/alone" && grep -q -x runs "$place/alone" || { cat "$place/alone" >&2; fail "FAILED: the agent alone"; }
say "ok: the agent alone founds a fabric and runs a job"
say "all of it works"
