#!/usr/bin/env bash
# Builds an OCI image of a program without Docker: image.sh PROGRAM OUT. The same program on the same system gives the same digest.
#
# Two layers: what the program needs of the system (the libraries that it is linked with, the roots of trust, a user), and the program.
# There is no shell and nothing else that could be run. OUT gets oci/ (an OCI layout), afterglow.tar (for docker load) and digest.
set -euo pipefail
umask 022
cd "$(dirname "$0")/.."
program=$1 out=$2
crane=$PWD/.cache/bin/crane

stage=$(mktemp -d)
registry=
trap '[[ -z $registry ]] || kill "$registry"; rm -rf "$stage"' EXIT
base=$stage/base top=$stage/top
mkdir -p "$base"/{etc/ssl/certs,lib64,tmp,usr/lib} "$top"/usr/{bin,share/doc/afterglow}
chmod 1777 "$base/tmp"
ln -s usr/lib "$base/lib"

# The loader lies where the program says; the other libraries where the loader looks. Where the system keeps them does not matter.
ldd "$program" | while read -r name arrow path _; do
  case $name in
    linux-vdso*) ;;
    /*) cp -L "$name" "$base/$name" ;;
    *) [[ $arrow == "=>" ]] && cp -L "$path" "$base/usr/lib/$name" ;;
  esac
done
for package in libc6 libgcc-s1 ca-certificates; do
  install -D -m 644 "$(readlink -f "/usr/share/doc/$package/copyright")" "$base/usr/share/doc/$package/copyright"
done
cp -L /etc/ssl/certs/ca-certificates.crt "$base/etc/ssl/certs/"
echo 'hosts: files dns' > "$base/etc/nsswitch.conf"
printf '%s\n' root:x:0:0:root:/:/nologin afterglow:x:10001:10001:afterglow:/:/nologin > "$base/etc/passwd"
printf '%s\n' root:x:0: afterglow:x:10001: > "$base/etc/group"
# Names of functions stay, for the program profiles itself; debug information is most of the bytes.
strip --strip-debug -o "$top/usr/bin/afterglow" "$program"
chmod 755 "$top/usr/bin/afterglow"
install -m 644 LICENSE "$top/usr/share/doc/afterglow/copyright"
python3 packaging/sbom.py > "$top/usr/share/doc/afterglow/sbom.cdx.json"

# pack FILE FOLDER: an archive into which no time, owner or order of this machine goes.
pack() {
  tar --create --file "$1" --directory "$2" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner \
    --format=posix --pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime --transform='s#^\./##' .
}
for layer in base top; do
  pack "$stage/$layer.tar" "$stage/$layer"
done

# crane changes the settings of images that lie in a registry: one on loopback, for as long as this takes.
: > "$stage/registry.log"
"$crane" registry serve --address 127.0.0.1:0 >> "$stage/registry.log" 2>&1 &
registry=$!
for _ in $(seq 100); do
  port=$(sed -n 's/.*serving on port \([0-9]*\).*/\1/p' "$stage/registry.log")
  [[ -n $port ]] && break
  sleep 0.1
done
[[ -n $port ]] || { cat "$stage/registry.log" >&2; exit 1; }

version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
image=127.0.0.1:$port/afterglow:$version
"$crane" append --oci-empty-base --new_layer "$stage/base.tar" --new_layer "$stage/top.tar" --new_tag "$image" > /dev/null
"$crane" mutate "$image" --tag "$image" --set-platform "linux/$(dpkg --print-architecture)" --user 10001:10001 --workdir / \
  --entrypoint /usr/bin/afterglow --cmd --help --env PATH=/usr/bin --exposed-ports 4100/tcp,4200/tcp \
  --label org.opencontainers.image.title=afterglow,org.opencontainers.image.version="$version",org.opencontainers.image.licenses=Apache-2.0 \
  --label org.opencontainers.image.source=https://github.com/afterglow-profiler/afterglow > /dev/null
rm -rf "$out/oci"
mkdir -p "$out"
"$crane" pull --format=oci "$image" "$out/oci"
# For docker load and kind load, under the name by which the chart asks for it rather than that of the registry of a moment.
"$crane" pull "$image" "$stage/loaded.tar"
mkdir "$stage/loaded"
tar --extract --file "$stage/loaded.tar" --directory "$stage/loaded"
sed -i "s#\"$image\"#\"ghcr.io/afterglow-profiler/afterglow:$version\"#" "$stage/loaded/manifest.json"
pack "$out/afterglow.tar" "$stage/loaded"
"$crane" digest "$image" | tee "$out/digest"
