# For tests that type what README says: sourced. $readme: the file.
#
#   install_commands        the lines of the first block below 'Install it', without what is said about them
#   clone ROOT PROGRAMS     puts a clone into /root/weft of a machine's ROOT, and a toolchain whose cargo finds that the folder
#                           PROGRAMS has all that it would build
readme=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/../README.md

install_commands() {
    local block
    block=$(sed -n '/^## Install it/,/^Or /s/^    \([^#]*[^# ]\) *#.*/\1/p' "$readme")
    [ "$(grep -c . <<<"$block")" -ge 3 ] || { echo "README has no commands below 'Install it': $block" >&2; return 1; }
    printf '%s\n' "$block"
}

clone() {
    local tree folder=$1/root/weft program
    tree=$(dirname "$readme")
    mkdir -p "$folder/agent" "$folder/target/release" "$1/usr/local/bin"
    cp -r "$tree/Makefile" "$tree/images" "$folder/"
    cp "$tree/agent/weftd.toml" "$tree/agent/weftd.service" "$folder/agent/"
    for program in weftd weft-helper weft; do strip -o "$folder/target/release/$program" "$2/$program"; done
    cat >"$1/usr/local/bin/cargo" <<'END'
#!/bin/sh
[ "$*" = "build --release --workspace --bin weftd --bin weft-helper --bin weft" ] || { echo "cargo: $*: unknown here" >&2; exit 1; }
END
    chmod 0755 "$1/usr/local/bin/cargo"
}
