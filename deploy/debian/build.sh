#!/usr/bin/env bash
# Builds the Debian package of a program with cargo-deb, which must be on the PATH.
#
#   deploy/debian/build.sh PROGRAM PACKAGE.deb [OPTION…]
#
# Further options are those of cargo-deb. With `--target TRIPLE` for another processor, HOST_PROGRAM is the same program for
# this one: it writes the manual pages and the completions.
set -euo pipefail
program=$(realpath "$1") package=$(realpath "$2")
shift 2
cd "$(dirname "$0")/../.."

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# cargo-deb reads the program from the target directory, and with --target from a directory in it.
directory=$work/release triple=
for option in "$@"; do
    [ "$triple" != next ] || directory=$work/$option/release
    triple=
    [ "$option" != --target ] || triple=next
done
files=$directory/package
mkdir -p "$files"
cp "$program" "$directory/proxbox-bridge"

host=${HOST_PROGRAM:-$program}
for shell in bash zsh fish; do
    "$host" completions "$shell" >"$files/$shell"
done
"$host" man --out "$files"
deploy/licenses.py >"$files/THIRD-PARTY-LICENSES"
# Debian has the text of the licence already.
sed 's|deploy/LICENSE|/usr/share/common-licenses/Apache-2.0|g' README.md >"$files/README.md"
# cargo-deb does not compress files of the target directory.
gzip -9 --no-name "$files"/*.1 "$files/THIRD-PARTY-LICENSES"
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(date +%s)}

# Debian's changelog, which package managers show.
field() { sed -n "/^$1 = \"\(.*\)\"\$/{s//\1/p;q}" Cargo.toml; }
gzip -9 --no-name >"$files/changelog.Debian.gz" <<END
proxbox-bridge ($(field version)-1) stable; urgency=medium

  * /usr/share/doc/proxbox-bridge/deploy/CHANGELOG.md lists what has changed.

 -- $(field maintainer)  $(date --utc --rfc-email --date="@$SOURCE_DATE_EPOCH")
END
CARGO_TARGET_DIR=$work cargo-deb --no-build --no-strip --locked --output "$package" "$@"
