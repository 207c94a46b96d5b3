#!/usr/bin/env bash
# Records profiles of the size that big programs have (0.1 to 2 MB of gzip), each from a real program at real work.
#
#   bench/inputs/large.sh OUT [gopls|compile|servers|jvm|node …]
#
# OUT/<program>-<type>-<n>.pb.gz, bytes as the program wrote them. Build first with build.sh. Runs some minutes on one core each.
#   gopls    loads and checks a module of hundreds of packages: heap, allocs and CPU
#   compile  the Go compiler on MinIO's largest package: CPU
#   servers  some of fleet.sh with a heap sampled so finely that it shows what days of load would: heap and allocs
#   jvm      the Closure compiler on 9 MB of JavaScript under async-profiler, as its converter writes pprof: cpu and alloc
#   node     the TypeScript compiler on its own declarations: wall and heap
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cache=$(cd "$here/../.." && pwd)/.cache/inputs
mkdir -p "${1:?usage: large.sh OUT [PART…]}"
out=$(cd "$1" && pwd)
shift
if [[ $# -eq 0 ]]; then set -- gopls compile servers jvm node; fi
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT

async_profiler=4.2
# The newest that runs on Java 17.
closure_compiler=v20240317

need() {
  local tool
  for tool in "$@"; do
    [[ -e $tool ]] || command -v "$tool" > /dev/null || { echo "recording needs $tool" >&2; exit 1; }
  done
}

# source_of PROGRAM: a copy of a program's module, in the version of programs.tsv, into the working folder.
source_of() {
  local module
  if [[ -d $work/$1 ]]; then return; fi
  module=$(awk -F '\t' -v name="$1" '$1 == name { print $2 "@" $3 }' "$here/programs.tsv")
  cp -r "$(cd "$cache" && go mod download -json "$module" | jq -er .Dir)" "$work/$1"
  chmod -R u+w "$work/$1"
}

record_gopls() {
  local n=0 name
  need go jq "$cache/bin/gopls"
  for name in nats-server caddy minio prometheus; do
    n=$((n + 1))
    source_of $name
    # A cache of its own, so that it has everything to do; siblings in a repository's go.work are not in the module.
    (
      cd "$work/$name"
      GOCACHE=$(go env GOCACHE)
      export GOCACHE GOWORK=off GOMAXPROCS=1 GODEBUG=memprofilerate=16384 XDG_CACHE_HOME=$work/cache-$name
      "$cache/bin/gopls" -profile.cpu="$out/gopls-cpu-00$n.pb.gz" -profile.mem="$out/gopls-heap-00$n.pb.gz" \
        -profile.alloc="$out/gopls-allocs-00$n.pb.gz" stats > /dev/null
    )
  done
}

record_compile() {
  need go jq
  source_of minio
  (
    cd "$work/minio"
    GOMAXPROCS=1 go build -p 1 -gcflags="github.com/minio/minio/cmd=-cpuprofile=$work/compile.pb.gz" ./cmd
  )
  mv "$work/compile.pb.gz" "$out/compile-cpu-001.pb.gz"
}

record_servers() {
  local file
  HEAP_RATE=128 MINUTES=6 LIFE=6 EVERY=60 PORT_BASE=${PORT_BASE:-26100} "$here/fleet.sh" "$work/servers" vegeta \
    node_exporter caddy etcd victoria-metrics minio prometheus
  rm -r "$work/servers/vegeta"
  for file in "$work"/servers/*/a1-{heap,allocs}-*.pb.gz; do
    mv "$file" "$out/$(basename "$(dirname "$file")")-$(basename "$file" | cut -d - -f 2-)"
  done
}

record_jvm() {
  local artifact event input=$cache/node/node_modules/typescript/lib/typescript.js
  need java mvn unzip "$input"
  for artifact in tools.profiler:async-profiler:$async_profiler tools.profiler:jfr-converter:$async_profiler \
    com.google.javascript:closure-compiler:$closure_compiler; do
    mvn -q dependency:copy -Dartifact=$artifact -DoutputDirectory="$work/jvm"
  done
  unzip -oq "$work/jvm/async-profiler-$async_profiler.jar" linux-x64/libasyncProfiler.so -d "$work/jvm"
  java -Xmx2g "-agentpath:$work/jvm/linux-x64/libasyncProfiler.so=start,event=itimer,alloc=64k,interval=2ms,file=$work/jvm/out.jfr" \
    -jar "$work/jvm/closure-compiler-$closure_compiler.jar" -O ADVANCED --jscomp_off='*' --js "$input" --js_output_file /dev/null
  for event in cpu alloc; do
    java -cp "$work/jvm/jfr-converter-$async_profiler.jar" Main --$event --threads --lines -o pb.gz "$work/jvm/out.jfr" \
      "$out/jvm-$event-001.pb.gz"
  done
}

record_node() {
  need node "$cache/node/node_modules"
  (cd "$cache/node" && node main.mjs "$out/node" 40 once)
}

for part in "$@"; do
  echo "recording $part"
  "record_$part"
done
find "$out" -maxdepth 1 -name '*.pb.gz' -printf '%f %s\n' | awk '{ sub(/-[0-9]+[.]pb[.]gz$/, "", $1); count[$1]++; bytes[$1] += $2 }
  END { for (name in count) printf "%-26s %4d profiles %9.1f KB each\n", name, count[name], bytes[name] / count[name] / 1024 }' | sort
