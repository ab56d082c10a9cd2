#!/usr/bin/env bash
# Replays a recording of an old backend, starts the bridge in front of it, and prints the stream of a full update.
# Installs missing programs first.
#
#   deploy/quickstart.sh             the demonstration
#   deploy/quickstart.sh --test      the demonstration, then all tests
#   deploy/quickstart.sh --install   only the missing programs
set -euo pipefail
cd "$(dirname "$0")/.."

usage() {
    echo "usage: deploy/quickstart.sh [--test | --install]" >&2
    exit 64
}

case "${1-}" in
    "" | --test | --install) ;;
    *) usage ;;
esac

# --- missing programs ------------------------------------------------------------------------------

missing=()
command -v cc >/dev/null && command -v make >/dev/null || missing+=(gcc libc6-dev make)
command -v curl >/dev/null || missing+=(curl ca-certificates)
command -v python3 >/dev/null || missing+=(python3)
if [ ${#missing[@]} -gt 0 ]; then
    if ! command -v apt-get >/dev/null; then
        echo "quickstart: install these packages first (names of Debian): ${missing[*]}" >&2
        exit 1
    fi
    as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo)
    "${as_root[@]}" apt-get update
    "${as_root[@]}" apt-get install -y --no-install-recommends "${missing[@]}"
fi
if ! cargo --version >/dev/null 2>&1; then
    # rustup, because most distributions package a Rust that is too old.
    if ! curl --proto '=https' --tlsv1.2 -sSf https://sh.rustup.rs | sh -s -- -y --no-modify-path; then
        echo "quickstart: install Rust 1.90 or newer with rustup, then run this again" >&2
        exit 1
    fi
    PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
fi

[ "${1-}" != --install ] || exit 0

# --- demonstration ---------------------------------------------------------------------------------

if [ "${1-}" = --test ]; then
    # Builds the program, too. `cargo build` would build most dependencies once more, with the features of the program alone.
    cargo test --locked --no-run
else
    cargo build --locked
fi
target=$(cargo metadata --locked --no-deps --format-version 1 |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
bridge=$target/debug/proxbox-bridge

# Ignores the configuration of the caller, and logs the line that `start` waits for.
for name in $(compgen -e PROXBOX_BRIDGE_); do unset "$name"; done
export PROXBOX_BRIDGE_LOG=info

started=()
stop() {
    for pid in "${started[@]}"; do
        kill "$pid" 2>/dev/null || true
    done
}
trap stop EXIT

# Starts a subcommand of the bridge and sets `address` to its listening address.
start() {
    exec {log}< <(exec "$bridge" "$@" 2>&1)
    started+=($!)
    while read -r -u "$log" line; do
        address=$(sed -n 's/.*"Listening\.".*"address":"\([^"]*\)".*/\1/p' <<<"$line")
        [ -z "$address" ] || return 0
        echo "$line" >&2
    done
    echo "quickstart: proxbox-bridge $1 did not start" >&2
    exit 1
}

start replay fixtures/recordings/0.0.2.post1 --listen 127.0.0.1:0 --speed 10
start serve --backend "http://$address" --listen 127.0.0.1:0 --admin-listen 127.0.0.1:0
echo
echo "\$ curl -N http://$address/full-update/stream"
curl -sSN --fail-with-body --noproxy '*' --max-time 60 "http://$address/full-update/stream" | tee "$target/quickstart.txt"
grep -q '^data: {"ok": true' "$target/quickstart.txt"

# --- tests -----------------------------------------------------------------------------------------

if [ "${1-}" = --test ]; then
    python3 fixtures/convert.py --check fixtures/recordings
    tests/install.sh
    # Only the programs that tests/install.sh has linked are on the PATH.
    PATH=$target/peers/programs cargo test --locked
    PROXBOX_BRIDGE_BINARY=$bridge tests/plugin/run
    PROXBOX_BRIDGE_BINARY=$bridge tests/deploy/run
fi
