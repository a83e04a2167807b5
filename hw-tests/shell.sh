#!/bin/sh
# Takes a line with a word and a script in base64; answers with the word, the script's exit status, and what it wrote,
# in base64. So nothing that a script says is taken for the end of it (hw-tests/src/serial.rs).
stty raw -echo
while :; do
    echo "shell ready"
    while IFS=' ' read -r word script; do
        [ -n "$script" ] || { echo "shell ready"; continue; }
        printf '%s' "$script" | base64 -d >/run/weft-test-script
        sh /run/weft-test-script </dev/null >/run/weft-test-said 2>&1
        status=$?
        printf '%s %s %s\n' "$word" "$status" "$(base64 -w 0 /run/weft-test-said)"
    done
done
