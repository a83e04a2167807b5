# Sourced by tests that mount things: has the script that sources it run in a mount namespace of its own, in an empty folder
# that is removed afterwards. Sets `here`, the folder of the script.
here=$(dirname "$(readlink -f "$0")")
if [ "$(id -u)" != 0 ]; then
    echo "$(basename "$0" .sh): skipped: needs root, for a mount namespace"
    exit
fi
if [ "${1:-}" != inside ]; then
    folder=$(mktemp -d)
    trap 'rm -rf "$folder"' EXIT
    unshare --mount --propagation private bash "$(readlink -f "$0")" inside "$folder"
    exit
fi
cd "$2"
