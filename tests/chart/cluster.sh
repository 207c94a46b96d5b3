#!/usr/bin/env bash
# Builds a Kubernetes without nodes into .cache/bin, for `make chart-e2e`: etcd, the API server, the controllers and the scheduler, all of them
# ordinary Go modules. Takes some ten minutes of CPU the first time.
set -euo pipefail
cd "$(dirname "$0")/../.."

kubernetes=v1.37.2
bin=$PWD/.cache/bin
stamp=$bin/.kubernetes-$kubernetes
[[ -f $stamp ]] && exit 0

# The parts of Kubernetes are modules of their own, which its go.mod looks for in folders that a download has not: v1.X.Y is v0.X.Y there.
module=$PWD/.cache/kubernetes
rm -rf "$module"
mkdir -p "$module"
cd "$module"
source=$(go mod download -json "k8s.io/kubernetes@$kubernetes" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
{
  echo "module kubernetes.invalid/tools"
  sed -n '/^go /p; /^godebug/,/^)/p' "$source/go.mod"
  echo "require k8s.io/kubernetes $kubernetes"
  sed -n "s#^\t\(k8s.io/[^ ]*\) => ./staging/.*#replace \1 => \1 v0.${kubernetes#v1.}#p" "$source/go.mod"
} > go.mod
export GOFLAGS=-modcacherw
go get -tool k8s.io/kubernetes/cmd/kube-apiserver k8s.io/kubernetes/cmd/kube-controller-manager k8s.io/kubernetes/cmd/kube-scheduler \
  go.etcd.io/etcd/server/v3
GOBIN=$bin go install -ldflags="-s -w -X k8s.io/component-base/version.gitVersion=$kubernetes -X k8s.io/component-base/version.gitMajor=1 \
-X k8s.io/component-base/version.gitMinor=$(cut -d. -f2 <<< "$kubernetes")" tool
# The last part of its path that is not a version gives a program its name.
mv "$bin/server" "$bin/etcd"
touch "$stamp"
