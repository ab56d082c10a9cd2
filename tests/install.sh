#!/usr/bin/env bash
# Installs what the tests need beside Rust: programs of Debian, which are not started, and under the target
# directory of cargo what tests are made with in Python and Node. Does nothing if all of it is there.
#
#   tests/install.sh                what `cargo test` and `tests/deploy/run` need
#   tests/install.sh --containers   what `tests/deploy/run --containers` needs, too
set -euo pipefail
cd "$(dirname "$0")"

missing=()
# What is for root is not on everybody's path.
needs() { PATH=$PATH:/usr/sbin:/sbin command -v "$1" >/dev/null || missing+=("${@:2}"); }
needs python3 python3 python3-venv
if command -v python3 >/dev/null; then
    # Debian's python3 has venv in a package of its own, and half of it without.
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
fi
needs node nodejs
needs npm npm
needs openssl openssl
needs nginx nginx-light
needs caddy caddy
needs haproxy haproxy
needs promtool prometheus
needs systemd-analyze systemd
needs kubectl kubernetes-client
needs chromium chromium
if [ "${1-}" = --containers ]; then
    needs systemd-nspawn systemd-container
    needs podman podman runc conmon netavark aardvark-dns catatonit
    needs iptables iptables
    needs ip iproute2
fi
if [ ${#missing[@]} -gt 0 ]; then
    if ! command -v apt-get >/dev/null; then
        echo "tests: install these first, by the names that they have here: ${missing[*]}" >&2
        exit 1
    fi
    as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo)
    # Servers are not to start when they are installed: the tests start their own.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" install -m 755 /dev/stdin "$policy"
        # shellcheck disable=SC2064 # What it is now is what is meant.
        trap "${as_root[*]} rm -f $policy" EXIT
    fi
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
