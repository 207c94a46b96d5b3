#!/usr/bin/env bash
# Builds the programs that are recorded: those of programs.tsv from their published modules, each with profiled.go added to its main
# package, and the two with a profiler of their own, node and python, from the folders beside this file.
#
#   bench/inputs/build.sh [PROGRAM…]
#
# They come to lie in .cache/inputs (git-ignored); what is there in its version is left alone. Needs go and jq, npm, python3, and the
# package registries by these. One compiler at a time: the larger take some CPU-minutes each.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=$(cd "$here/../.." && pwd)/.cache/inputs
mkdir -p "$cache/bin" "$cache/src"

need() {
  local tool
  for tool in "$@"; do
    command -v "$tool" > /dev/null || { echo "building the programs needs $tool" >&2; exit 1; }
  done
}

# The module's own go.mod rules, as in a clone of its repository, but that siblings in that repository come from the proxy.
build() {
  local name=$1 module=$2 version=$3 package=$4 mode=$5 src stamp
  need go jq
  stamp="$cache/bin/.$name-$version-$mode-$(sha256sum "$here/profiled.go" | cut -c1-8)"
  src=$cache/src/$name
  if [[ -x $cache/bin/$name && -f $stamp ]]; then return; fi
  echo "building $name $version ($mode)"
  rm -rf "$src"
  cp -r "$(cd "$cache" && go mod download -json "$module@$version" | jq -er .Dir)" "$src"
  chmod -R u+w "$src"
  cp "$here/profiled.go" "$src/$package/afterglow_profiled.go"
  (
    cd "$src"
    go mod edit -json | jq -r '.Replace[]? | select(.New.Path | startswith(".")) | .Old.Path' \
      | while read -r old; do go mod edit -dropreplace "$old"; done
    GOWORK=off GOFLAGS='-mod=mod -buildvcs=false' GOMAXPROCS=1 go build -p 1 -buildmode="$mode" -o "$cache/bin/$name" "$package"
  )
  rm -rf "$src" "$cache/bin/.$name-"*
  touch "$stamp"
}

# prepare NAME COMMAND…: copies the folder NAME and runs the command that installs what it depends on there, once for each content.
prepare() {
  local name=$1 stamp
  shift
  stamp="$cache/$name/.built-$(cat "$here/$name"/* | sha256sum | cut -c1-8)"
  if [[ -f $stamp ]]; then return; fi
  echo "preparing $name"
  rm -rf "${cache:?}/$name"
  cp -r "$here/$name" "$cache/$name"
  (cd "$cache/$name" && "$@")
  touch "$stamp"
}

install_python() {
  python3 -m venv venv
  venv/bin/pip install --quiet --disable-pip-version-check -r requirements.txt
}

wanted=" $* "
asked() { [[ $wanted == '  ' || $wanted == *" $1 "* ]]; }

if asked node; then
  need npm
  prepare node npm install --silent --no-fund --no-audit
fi
if asked python; then
  need python3
  prepare python install_python
fi
while IFS=$'\t' read -r name module version package mode; do
  if [[ $name == '#'* ]] || ! asked "$name"; then continue; fi
  build "$name" "$module" "$version" "$package" "$mode"
done < "$here/programs.tsv"
