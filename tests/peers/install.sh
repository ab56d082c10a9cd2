#!/usr/bin/env bash
# Installs what the WebSocket peers of the tests are made with: Python's websockets and Node's ws, both under
# the target directory of cargo. Does nothing if they are there.
set -euo pipefail
cd "$(dirname "$0")"

missing=()
command -v python3 >/dev/null || missing+=(python3 python3-venv)
if command -v python3 >/dev/null; then
    # Debian's python3 has venv in a package of its own, and half of it without.
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
fi
command -v node >/dev/null || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)
if [ ${#missing[@]} -gt 0 ]; then
    if ! command -v apt-get >/dev/null; then
        echo "peers: install these first, by the names that they have here: ${missing[*]}" >&2
        exit 1
    fi
    as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo)
    "${as_root[@]}" apt-get update
    "${as_root[@]}" apt-get install -y --no-install-recommends "${missing[@]}"
fi

target=$(cargo metadata --locked --no-deps --format-version 1 |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
peers=$target/peers

# What is installed, and by what. It is written last: a half of it does not count.
wanted=$(cat requirements.txt package-lock.json; python3 --version; node --version)
if [ "$(cat "$peers/installed" 2>/dev/null)" = "$wanted" ] && "$peers/venv/bin/python" -c 'import websockets'; then
    exit 0
fi
rm -rf "$peers"
mkdir -p "$peers"
python3 -m venv "$peers/venv"
"$peers/venv/bin/pip" install --quiet --requirement requirements.txt
cp package.json package-lock.json "$peers"
npm ci --prefix "$peers" --ignore-scripts --no-audit --no-fund
printf '%s\n' "$wanted" >"$peers/installed"
