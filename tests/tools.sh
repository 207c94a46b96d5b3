#!/usr/bin/env bash
# Installs what the tests need beside Rust, Go, Node and Python, into .cache/ (git-ignored), each by its version: what is there
# already is left alone. Needs the package registries by their ordinary clients, nothing else.
set -euo pipefail
cd "$(dirname "$0")/.."

cache="$PWD/.cache"
bin="$cache/bin"
mkdir -p "$bin"

# go_tool NAME MODULE VERSION: builds a Go program once for each version.
go_tool() {
  local name=$1 module=$2 version=$3
  if [[ -x "$bin/$name" && -f "$bin/.$name-$version" ]]; then return; fi
  echo "installing $name $version"
  GOBIN="$bin" GOFLAGS=-modcacherw go install "$module@$version"
  rm -f "$bin/.$name-"*
  touch "$bin/.$name-$version"
}

# MinIO stands in for S3 (AGPL: a tool of the tests, never part of what is delivered). Its first build takes some minutes.
go_tool minio github.com/minio/minio v0.0.0-20260212201848-7aac2a2c5b7c
# A second S3 store, of other code, for the conformance suite.
go_tool versitygw github.com/versity/versitygw/cmd/versitygw v1.8.0
go_tool grpcurl github.com/fullstorydev/grpcurl/cmd/grpcurl v1.9.4
# The chart: rendered, checked against the API's schemas and by an operator's eye, its alerts tried.
go_tool helm helm.sh/helm/v3/cmd/helm v3.22.0
go_tool kubeconform github.com/yannh/kubeconform/cmd/kubeconform v0.8.0
go_tool kube-score github.com/zegl/kube-score/cmd/kube-score v1.20.0
go_tool promtool github.com/prometheus/prometheus/cmd/promtool v0.316.0

# Images and packages without Docker.
go_tool crane github.com/google/go-containerregistry/cmd/crane v0.22.1
go_tool nfpm github.com/goreleaser/nfpm/v2/cmd/nfpm v2.45.2

# apt_install PACKAGE...: installs packages of the system.
apt_install() {
  echo "installing $*"
  apt-get update -qq
  apt-get install -y -qq --no-install-recommends "$@" > /dev/null
}

# apt_tool COMMAND PACKAGE...: installs packages of the system where a command is missing.
apt_tool() {
  if command -v "$1" > /dev/null; then return; fi
  apt_install "${@:2}"
}

# strace shows that a PUT into a folder is on the disk before it returns.
apt_tool strace strace
# It reads the units as systemd would, and says what they leave open.
apt_tool systemd-analyze systemd

# A name stands for what a file says, to a process into which this is loaded: siblings of queriers that come and go. It is no command.
if ! dpkg -s libnss-wrapper > /dev/null 2>&1; then apt_install libnss-wrapper; fi

# The browser that looks at the web UI, and a font for what it draws.
apt_tool chromium chromium fonts-dejavu-core

# Python reads our blocks as Parquet, to prove that others can, and tries the chart.
requirements=(tests/parquet/requirements.txt tests/chart/requirements.txt)
stamp="$cache/venv/.$(cat "${requirements[@]}" | sha256sum | cut -c1-16)"
if [[ ! -f $stamp ]]; then
  echo "installing ${requirements[*]}"
  python3 -m venv "$cache/venv"
  "$cache/venv/bin/pip" install --quiet --disable-pip-version-check "${requirements[@]/#/-r}"
  touch "$stamp"
fi

# The schemas of the objects that the chart makes, from the modules that define them.
schemas_version=$(sha256sum tests/chart/schemas.py | cut -c1-16)
if [[ ! -f $cache/schemas/.$schemas_version ]]; then
  echo "installing the schemas of Kubernetes"
  rm -rf "$cache/schemas"
  "$cache/venv/bin/python" tests/chart/schemas.py "$cache/schemas"
  touch "$cache/schemas/.$schemas_version"
fi
