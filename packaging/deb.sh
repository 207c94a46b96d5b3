#!/usr/bin/env bash
# Builds the Debian package of a program: deb.sh PROGRAM OUT. The same program gives the same package, byte for byte.
set -euo pipefail
umask 022
cd "$(dirname "$0")/.."
program=$1 out=$2

DEB_STAGE=$(mktemp -d)
trap 'rm -rf "$DEB_STAGE"' EXIT
# Names of functions stay, for the program profiles itself; debug information is most of the bytes.
strip --strip-debug -o "$DEB_STAGE/afterglow" "$program"
# The tiers as programs of their own as well: whoever builds those has the package beside them for the rest.
for shell in bash zsh fish; do
  for name in afterglow afterglow-agent afterglow-ingester afterglow-querier; do
    "$program" completions "$shell" "$name" > "$DEB_STAGE/$name.$shell"
  done
done
"$program" man "$DEB_STAGE/man"
gzip -9n "$DEB_STAGE"/man/*.1
python3 packaging/sbom.py > "$DEB_STAGE/sbom.cdx.json"
DEB_VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
DEB_ARCH=$(dpkg --print-architecture)
# The newest symbol of glibc that the program asks for.
DEB_LIBC=$(objdump -T "$DEB_STAGE/afterglow" | grep -o 'GLIBC_[0-9.]*' | sort -Vu | tail -1 | cut -d_ -f2)
# The time of all files.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export DEB_STAGE DEB_VERSION DEB_ARCH DEB_LIBC SOURCE_DATE_EPOCH

mkdir -p "$out"
.cache/bin/nfpm package --config packaging/deb/nfpm.yaml --packager deb --target "$out/"
