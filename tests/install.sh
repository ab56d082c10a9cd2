#!/usr/bin/env bash
# Installs what the tests need beside Rust: programs of Debian, which are not started, and under the target
# directory of cargo what tests are made with in Python and Node. Does nothing if all of it is there.
#
#   tests/install.sh                what `cargo test` and `tests/deploy/run` need
#   tests/install.sh --containers   what `tests/deploy/run --containers` needs, too
set -euo pipefail
cd "$(dirname "$0")"

sets=(tests)
[ "${1-}" != --containers ] || sets+=(containers)
# What is for root is not on everybody's path.
found() { PATH=$PATH:/usr/sbin:/sbin type -P "$1"; }
missing=() programs=()
while read -r used_by program packages; do
    [[ " ${sets[*]} " == *" $used_by "* ]] || continue
    programs+=("$program")
    # shellcheck disable=SC2206 # Each word is a package.
    found "$program" >/dev/null || missing+=($packages)
done < <(grep -v '^#' programs.txt)
if found python3 >/dev/null; then
    # Debian's python3 has venv in a package of its own, and half of it without.
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
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

# The PATH of tests: the listed programs, Rust, and what Debian's essential packages have.
programs_of_tests=$peers/programs
rm -rf "$programs_of_tests"
mkdir -p "$programs_of_tests"
if command -v dpkg-query >/dev/null; then
    # shellcheck disable=SC2016 # dpkg-query fills it in.
    essential=$(dpkg-query --show --showformat '${Essential} ${binary:Package}\n' | sed -n 's/^yes //p')
    # shellcheck disable=SC2086 # Each word is a package.
    for path in $(dpkg-query --listfiles $essential | grep -E '^(/usr)?/s?bin/[^/]+$'); do
        [ ! -x "$path" ] || ln -sf "$path" "$programs_of_tests"
    done
    for name in awk which; do # They are alternatives, which no package lists.
        ! path=$(found "$name") || ln -sf "$path" "$programs_of_tests"
    done
else
    # Without Debian's lists, everything that is there can be called.
    for folder in /bin /usr/bin; do
        find "$folder" -maxdepth 1 -exec ln -sf -t "$programs_of_tests" {} +
    done
fi
for program in "${programs[@]}" cargo rustc rustdoc; do
    ln -sf "$(found "$program")" "$programs_of_tests/$program"
done

# What is installed, and by what. It is written last: a half of it does not count.
wanted=$(cat requirements.txt plugin/requirements.txt package-lock.json; python3 --version; node --version)
if [ "$(cat "$peers/installed" 2>/dev/null)" = "$wanted" ] && "$peers/venv/bin/python" -c 'import websockets'; then
    exit 0
fi
rm -rf "$peers/venv" "$peers/plugin" "$peers/node_modules" "$peers/installed"
mkdir -p "$peers"
python3 -m venv "$peers/venv"
"$peers/venv/bin/pip" install --quiet --requirement requirements.txt
# NetBox's plugin, for its modules: they run on Debian's Python, which is older than what the package asks for.
"$peers/venv/bin/pip" install --quiet --no-deps --ignore-requires-python --only-binary :all: \
    --target "$peers/plugin" --requirement plugin/requirements.txt
cp package.json package-lock.json "$peers"
npm ci --prefix "$peers" --ignore-scripts --no-audit --no-fund
printf '%s\n' "$wanted" >"$peers/installed"
