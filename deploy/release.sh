#!/usr/bin/env bash
# Builds the files of a release into target/release-VERSION, with their checksums: Debian packages and static programs for
# amd64 and arm64, the image, the Helm chart, and the list of dependencies (SBOM).
#
#   deploy/release.sh VERSION            builds what this machine can build, and lists what it cannot
#   deploy/release.sh --strict VERSION   fails if this machine cannot build everything
#
# It needs Rust with rustup, Python with venv, git, and for the image Docker with buildx. It installs its other tools under
# target. The times in the files are those of the commit.
set -euo pipefail
cd "$(dirname "$0")/.."

cargo_auditable=0.7.7
cargo_cyclonedx=0.5.9
cargo_deb=3.8.0
cargo_zigbuild=0.24.1
ziglang=0.17.1
# The C library of Debian 12, the oldest that the packages are for. zig links for it on every machine.
glibc=2.36

strict=no
if [ "${1-}" = --strict ]; then
    strict=yes
    shift
fi
if [ $# != 1 ]; then
    echo "usage: deploy/release.sh [--strict] VERSION" >&2
    exit 64
fi
version=$1

# --- checks --------------------------------------------------------------------------------------------------------------

refuse() {
    echo "release: $1" >&2
    exit 1
}
grep -qxF "version = \"$version\"" Cargo.toml || refuse "the version in Cargo.toml is not $version"
for key in version appVersion; do
    grep -qxF "$key: $version" deploy/helm/proxbox-bridge/Chart.yaml || refuse "$key in Chart.yaml is not $version"
done
grep -q "^## $version\b" deploy/CHANGELOG.md || refuse "deploy/CHANGELOG.md has no section '## $version'"
git diff --quiet HEAD || refuse "there are changes that are not committed"

PROXBOX_BRIDGE_COMMIT=$(git rev-parse --short=12 HEAD)
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export PROXBOX_BRIDGE_COMMIT SOURCE_DATE_EPOCH

target=$(cargo metadata --locked --no-deps --format-version 1 |
    python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
tools=$target/release-tools
out=$target/release-$version
rm -rf "$out"
mkdir -p "$out"
missing=()
# Adds a file and the reason to the list of those that are missing.
cannot() {
    echo "release: no $1: $2" >&2
    missing+=("$1: $2")
}

# --- tools ---------------------------------------------------------------------------------------------------------------

PATH=$tools/bin:$tools/venv/bin:$PATH
# Installs a tool from crates.io if this version is not there.
crate() {
    [ -e "$tools/$1-$2" ] && return
    cargo install --quiet --locked --debug --root "$tools" "$1@$2" && touch "$tools/$1-$2"
}
# zig has a C compiler and a linker for all targets.
zig() {
    [ -e "$tools/ziglang-$ziglang-$cargo_zigbuild" ] && return
    rm -rf "$tools/venv"
    python3 -m venv "$tools/venv" &&
        "$tools/venv/bin/pip" install --quiet "ziglang==$ziglang" "cargo-zigbuild==$cargo_zigbuild" &&
        touch "$tools/ziglang-$ziglang-$cargo_zigbuild"
}
mkdir -p "$tools"
compiler=yes
if ! zig || ! crate cargo-auditable "$cargo_auditable" || ! crate cargo-deb "$cargo_deb"; then
    compiler=no
fi

# --- programs ------------------------------------------------------------------------------------------------------------

# Symbols would be half of the program.
export CARGO_PROFILE_RELEASE_STRIP=symbols
# The directories of this machine are not those of another one.
RUSTFLAGS=
for renamed in "${CARGO_HOME:-$HOME/.cargo}=/cargo" "$(rustc --print sysroot)=/rust" "$PWD=/src" "$target=/target"; do
    RUSTFLAGS+=" --remap-path-prefix=$renamed"
done
export RUSTFLAGS

# Builds the program for a target. The list of its dependencies is in the program, for scanners.
build() {
    [ "$compiler" = yes ] && rustup target add "$1" && cargo auditable zigbuild --release --locked --target "$1${2-}"
}
# Fails if too little of the program has the order of src/order.ld: its names are no longer those of the compiler, or the
# linker did not read it. An idle process would take 4 MiB more.
ordered() {
    size() { readelf --sections --wide "$1" | sed -n "s/.* $2 *PROGBITS *[0-9a-f]* [0-9a-f]* \([0-9a-f]*\) .*/\1/p"; }
    local listed others
    listed=$(size "$1" '\.text\.hot')
    others=$(size "$1" '\.text')
    ((16#${listed:-0} * 2 > 16#$others)) ||
        refuse "less than a third of $1 has the order of src/order.ld: renew it with tests/bench/order"
}
# A compressed archive of a directory in $work, which is the same for the same files.
archive() {
    tar --create --sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode=u+w,go-w \
        --directory "$work" "$1" | gzip -9 --no-name >"$2"
}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# That of this machine first: it writes the manual pages and completions for all.
host=$(uname -m)
other=$([ "$host" = x86_64 ] && echo aarch64 || echo x86_64)
for processor in "$host" "$other"; do
    triple=$processor-unknown-linux-musl
    name=proxbox-bridge-$version-$triple
    if ! build "$triple"; then
        cannot "$name.tar.gz" "its target cannot be built here, see above"
        continue
    fi
    ordered "$target/$triple/release/proxbox-bridge"
    mkdir -p "$work/$name"
    cp "$target/$triple/release/proxbox-bridge" README.md deploy/LICENSE "$work/$name"
    deploy/licenses.py >"$work/$name/THIRD-PARTY-LICENSES"
    cp -R deploy "$work/$name/deploy"
    if [ "$processor" = "$host" ]; then
        export HOST_PROGRAM=$target/$triple/release/proxbox-bridge
        [[ "$("$HOST_PROGRAM" --version)" = "proxbox-bridge $version ($PROXBOX_BRIDGE_COMMIT "* ]] ||
            refuse "the program has another version: $("$HOST_PROGRAM" --version)"
        "$HOST_PROGRAM" man --out "$work/man"
        mkdir "$work/completions"
        for shell in bash zsh fish; do
            "$HOST_PROGRAM" completions "$shell" >"$work/completions/proxbox-bridge.$shell"
        done
    fi
    [ ! -e "$work/man" ] || cp -R "$work/man" "$work/completions" "$work/$name"
    archive "$name" "$out/$name.tar.gz"
done

for architecture in amd64 arm64; do
    triple=$([ $architecture = amd64 ] && echo x86_64 || echo aarch64)-unknown-linux-gnu
    package=proxbox-bridge_$version-1_$architecture.deb
    if [ -z "${HOST_PROGRAM-}" ]; then
        cannot "$package" "the program that writes its manual pages was not built"
    elif ! build "$triple" ".$glibc"; then
        cannot "$package" "its target cannot be built here, see above"
    else
        ordered "$target/$triple/release/proxbox-bridge"
        deploy/debian/build.sh "$target/$triple/release/proxbox-bridge" "$out/$package" --target "$triple"
    fi
done

# --- everything else -----------------------------------------------------------------------------------------------------

cp -R deploy/helm/proxbox-bridge "$work"
archive proxbox-bridge "$out/proxbox-bridge-$version.tgz"

if crate cargo-cyclonedx "$cargo_cyclonedx"; then
    sbom=proxbox-bridge-$version.cdx.json
    cargo cyclonedx --quiet --format json --spec-version 1.5 --no-build-deps --override-filename "${sbom%.json}"
    sed "s|path+file://$PWD|path+file:///src|" "$sbom" >"$out/$sbom"
    rm "$sbom"
else
    cannot "proxbox-bridge-$version.cdx.json" "cargo-cyclonedx cannot be installed"
fi

image=proxbox-bridge-$version-image.tar
if ! docker buildx version >/dev/null 2>&1 || ! docker info >/dev/null 2>&1; then
    cannot "$image" "there is no Docker engine with buildx"
elif ! docker buildx build --file deploy/docker/Dockerfile --platform linux/amd64,linux/arm64 --sbom=true \
    --build-arg PROXBOX_BRIDGE_COMMIT --build-arg SOURCE_DATE_EPOCH \
    --label "org.opencontainers.image.version=$version" \
    --label "org.opencontainers.image.revision=$(git rev-parse HEAD)" \
    --label "org.opencontainers.image.created=$(date --utc --iso-8601=seconds --date="@$SOURCE_DATE_EPOCH")" \
    --tag "proxbox-bridge:$version" --output "type=oci,dest=$out/$image,rewrite-timestamp=true" .; then
    cannot "$image" "docker buildx build failed"
fi

(cd "$out" && sha256sum -- * >"$work/SHA256SUMS" && mv "$work/SHA256SUMS" .)
echo "$out:"
ls -l "$out"
if [ ${#missing[@]} -gt 0 ]; then
    printf 'release: not built: %s\n' "${missing[@]}" >&2
    [ "$strict" = no ]
fi
