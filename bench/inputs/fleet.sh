#!/usr/bin/env bash
# Records a fleet: real servers under a light, changing load, asked for their profiles once a minute and restarted now and then.
#
#   bench/inputs/fleet.sh OUT [PROGRAM…]
#
# OUT/<program>/<instance>-<type>-<n>.pb.gz; an instance is a letter and the number of its process, so a1 and a2 are one server before
# and after a restart, and a1 and b1 two servers at one time. Bytes are as the program wrote them. Build first with build.sh;
# programs that are not built are named and left out.
#
#   MINUTES=29 EVERY=60 LIFE=9   how long in all, seconds between two profiles of one type, minutes until a restart
#   HEAP_RATE=65536              bytes allocated between two samples of the heap; eight times as fine as Go's default, so that minutes
#                                show what hours would
#   PORT_BASE=24100              the servers take ports of 127.0.0.1 from here on
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
cache=$root/.cache/inputs
out=${1:?usage: fleet.sh OUT [PROGRAM…]}
shift
minutes=${MINUTES:-29} every=${EVERY:-60} life=${LIFE:-9} heap_rate=${HEAP_RATE:-65536} base=${PORT_BASE:-24100}
cpu_seconds=10

for tool in curl awk zstd; do
  command -v "$tool" > /dev/null || { echo "recording needs $tool" >&2; exit 1; }
done
[[ -x $cache/bin/vegeta ]] || { echo "vegeta, which makes the load, is not built: bench/inputs/build.sh vegeta" >&2; exit 1; }

# Two at a time of those that users run many of.
fleet=(
  vegeta:a nats-server:a nats-server:b node_exporter:a node_exporter:b caddy:a caddy:b etcd:a victoria-metrics:a minio:a
  prometheus:a statsd_exporter:a pebble:a coredns:a hugo:a node:a python:a
)
wanted=" $* "
mkdir -p "$out"
out=$(cd "$out" && pwd)
work=$(mktemp -d)
log="$out/fleet.log"
end=$((SECONDS + minutes * 60))

# Each instance has ten ports of its own.
port() {
  local at=0 entry
  for entry in "${fleet[@]}"; do
    if [[ $entry == "$1:$2" ]]; then echo $((base + 10 * at)); return; fi
    at=$((at + 1))
  done
}

# Sleeps so that a signal is answered at once.
pause() { sleep "$1" & wait $!; }

note() { echo "$(date -u +%H:%M:%S) $*" >> "$log"; }

# --- How each server starts: PORT, FOLDER of its own, number of its process. ------------------------------------------

# A load without end on all of them, rising with each restart.
start_vegeta() {
  exec vegeta attack -targets "$work/targets" -format http -rate $((10 + 5 * $3))/s -duration 0 -workers 4 -max-workers 8 > /dev/null
}

start_nats-server() { exec nats-server -a 127.0.0.1 -p "$1" -m $(($1 + 1)) -js -sd "$2"; }

start_node_exporter() { exec node_exporter --web.listen-address="127.0.0.1:$1"; }

start_caddy() {
  cat > "$2/Caddyfile" << CADDY
{
	admin off
	persist_config off
	auto_https off
}
http://127.0.0.1:$1 {
	encode zstd gzip
	handle /metrics {
		metrics
	}
	handle /node {
		rewrite /metrics
		reverse_proxy 127.0.0.1:$(port node_exporter a)
	}
	handle_path /page/* {
		root $2/site
		templates
		file_server
	}
	root $root/docs
	file_server browse
}
CADDY
  mkdir -p "$2/site"
  cat > "$2/site/site.html" << 'PAGE'
{{ range $i, $e := splitList "," "a,b,c,d" }}<p>{{ $i }} {{ $e }} {{ now | date "15:04:05" }}</p>{{ end }}
{{ placeholder "http.request.uri" }}
PAGE
  HOME=$2 XDG_DATA_HOME=$2 XDG_CONFIG_HOME=$2 exec caddy run --config "$2/Caddyfile" --adapter caddyfile
}

start_etcd() {
  exec etcd --name a --data-dir "$2/data" --listen-client-urls "http://127.0.0.1:$1" --advertise-client-urls "http://127.0.0.1:$1" \
    --listen-peer-urls "http://127.0.0.1:$(($1 + 1))" --initial-advertise-peer-urls "http://127.0.0.1:$(($1 + 1))" \
    --initial-cluster "a=http://127.0.0.1:$(($1 + 1))" --snapshot-count 2000 --log-level warn
}

scrape_config() {
  local name
  echo 'scrape_configs:'
  for name in node_exporter caddy etcd victoria-metrics prometheus statsd_exporter; do
    printf '  - job_name: %s\n    scrape_interval: 10s\n    static_configs: [{targets: ["127.0.0.1:%s"]}]\n' "$name" "$(port "$name" a)"
  done
}

start_victoria-metrics() {
  scrape_config > "$2/scrape.yml"
  exec victoria-metrics -httpListenAddr="127.0.0.1:$1" -storageDataPath="$2/data" -promscrape.config="$2/scrape.yml" \
    -memory.allowedBytes=256MB -retentionPeriod=1d -loggerLevel=WARN
}

start_prometheus() {
  {
    scrape_config
    printf 'rule_files: [%s]\n' "$2/rules.yml"
  } > "$2/prometheus.yml"
  cat > "$2/rules.yml" << 'RULES'
groups:
  - name: recorded
    interval: 15s
    rules:
      - {record: "job:cpu:rate1m", expr: "sum by (job) (rate(process_cpu_seconds_total[1m]))"}
      - {record: "job:memory:max", expr: "max by (job) (process_resident_memory_bytes)"}
      - {alert: Busy, expr: "rate(process_cpu_seconds_total[1m]) > 0.9", for: 1m}
RULES
  exec prometheus --config.file="$2/prometheus.yml" --storage.tsdb.path="$2/data" --web.listen-address="127.0.0.1:$1" --log.level=warn
}

start_minio() {
  MINIO_ROOT_USER=afterglow MINIO_ROOT_PASSWORD=afterglow MINIO_CI_CD=1 MINIO_PROMETHEUS_AUTH_TYPE=public \
    exec minio server --quiet --address "127.0.0.1:$1" --console-address "127.0.0.1:$(($1 + 1))" "$2/data"
}

start_statsd_exporter() {
  exec statsd_exporter --web.listen-address="127.0.0.1:$1" --statsd.listen-udp="127.0.0.1:$(($1 + 1))" --statsd.listen-tcp=
}

start_pebble() {
  local workloads=(A B F)
  cd "$2"
  exec pebble bench ycsb "$2/data" -d 0 --workload "${workloads[$(($3 % 3))]}" -m 400 -c 4 --values 400 --cache 67108864 > /dev/null
}

start_coredns() {
  cat > "$2/Corefile" << COREFILE
https://.:$1 {
	bind 127.0.0.1
	hosts {
		127.0.0.2 db.shop.test cache.shop.test
		fallthrough
	}
	template IN A apps.test {
		match "^(?P<name>[a-z]+)[.]apps[.]test[.]$"
		answer "{{ .Name }} 30 IN A 127.0.0.3"
		fallthrough
	}
	template IN AAAA apps.test {
		rcode NXDOMAIN
	}
	rewrite name suffix .old.test .apps.test
	cache 5
	prometheus 127.0.0.1:$(($1 + 1))
	errors
	whoami
}
COREFILE
  exec coredns -quiet -conf "$2/Corefile"
}

start_hugo() {
  local page
  mkdir -p "$2/site/content/posts" "$2/site/layouts/_default"
  printf 'baseURL = "/"\ntitle = "site"\n[markup.highlight]\nnoClasses = true\n' > "$2/site/hugo.toml"
  tee "$2/site/layouts/_default/single.html" > "$2/site/layouts/_default/list.html" << 'PAGE'
<title>{{ .Title }}</title>{{ .Content }}
{{ range where site.RegularPages "Section" "posts" | first 20 }}<p>{{ .Title }} {{ .WordCount }} {{ .Summary }}</p>{{ end }}
PAGE
  for page in {1..60}; do
    {
      printf -- '---\ntitle: "Page %s"\ntags: ["t%s", "all"]\n---\n' "$page" $((page % 7))
      cat "$root/README.md"
    } > "$2/site/content/posts/$page.md"
  done
  exec hugo server --source "$2/site" --bind 127.0.0.1 --port "$1" --disableLiveReload --logLevel error --poll 2s
}

# The profiler of these two writes the files itself; into OUT.
start_node() { cd "$cache/node" && exec node main.mjs "$out/node/a$3" "$every"; }

start_python() {
  cd "$cache/python"
  export DD_TRACE_ENABLED=false DD_INSTRUMENTATION_TELEMETRY_ENABLED=false
  DD_PROFILING_OUTPUT_PPROF="$2/p" DD_PROFILING_UPLOAD_INTERVAL=$every exec venv/bin/python main.py
}

# --- Load that is not HTTP, or belongs to one instance: PORT, FOLDER. -------------------------------------------------

# NATS's own protocol: a stream on disk, 24 subjects, bursts of messages. Unasked PONGs answer the server's PINGs.
load_nats-server() {
  local stream='{"name":"orders","subjects":["orders.>"],"max_bytes":8000000,"storage":"file"}' at
  exec 3<> "/dev/tcp/127.0.0.1/$1"
  cat <&3 > /dev/null &
  printf 'CONNECT {"verbose":false}\r\nSUB orders.*.new 1\r\nSUB orders.3.> group 2\r\n' >&3
  printf 'PUB $JS.API.STREAM.CREATE.orders answers %s\r\n%s\r\n' "${#stream}" "$stream" >&3
  while :; do
    for at in {1..24}; do printf 'PUB orders.%s.new 64\r\n%064d\r\n' "$at" "$RANDOM" >&3; done
    printf 'PONG\r\n' >&3
    pause 0.$((RANDOM % 4 + 2))
  done
}

load_statsd_exporter() {
  exec 3<> "/dev/udp/127.0.0.1/$(($1 + 1))"
  while :; do
    printf 'requests.%s:1|c\nlatency.%s:%s|ms\nqueue:%s|g|#shard:%s\n' $((RANDOM % 40)) $((RANDOM % 20)) $((RANDOM % 900)) \
      $((RANDOM % 99)) $((RANDOM % 12)) >&3 || true
    pause 0.2
  done
}

# A bucket that all may write to, so that the load needs no signatures.
load_minio() {
  local policy sign=(curl -s --retry 5 --retry-connrefused --aws-sigv4 aws:amz:us-east-1:s3 --user afterglow:afterglow -X PUT)
  policy='{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Principal":{"AWS":["*"]},"Action":["s3:*"],
    "Resource":["arn:aws:s3:::load","arn:aws:s3:::load/*"]}]}'
  policy=$(tr -d '\n ' <<< "$policy")
  "${sign[@]}" "http://127.0.0.1:$1/load"
  # curl signs the body's hash, but MinIO reads it from this header alone.
  "${sign[@]}" -H "x-amz-content-sha256: $(printf %s "$policy" | sha256sum | cut -d ' ' -f 1)" --data "$policy" \
    "http://127.0.0.1:$1/load?policy="
}

# It profiles its own CPU without end, ten seconds a file, so nobody else can: one whole file a minute is taken.
load_pebble() {
  local n=0 file
  while :; do
    pause "$every"
    file=$(find "$2" -maxdepth 1 -name 'cpu.*.prof' | sort | tail -n 2 | head -n 1)
    n=$((n + 1))
    if [[ -n $file ]]; then cp "$file" "$(printf '%s/pebble/a%s-cpu-%03d.pb.gz' "$out" "$3" $n)"; fi
  done
}

load_hugo() {
  while :; do
    echo "Changed at $SECONDS." >> "$2/site/content/posts/$((RANDOM % 60 + 1)).md"
    pause 7
  done
}

# ddtrace writes zstd frames; what was pushed is their content in gzip, as an agent would send it.
load_python() {
  local n=0 file
  while :; do
    for file in "$2"/p.*.pprof; do
      [[ -e $file ]] || continue
      pause 1
      n=$((n + 1))
      zstd -qdc "$file" | gzip -n > "$out/python/a$3-all-$(printf %03d $n).pb.gz"
      rm "$file"
    done
    pause 5
  done
}

# --- HTTP requests, a file for each instance and one for all. ---------------------------------------------------------

# request NAME LETTER METHOD PATH [BODY [HEADER]]
request() {
  local file=$work/targets.d/$1-$2
  printf '%s http://127.0.0.1:%s%s\n' "$3" "$(($(port "$1" "$2") + ${offset:-0}))" "$4" >> "$file"
  if [[ -n ${6:-} ]]; then printf '%s\n' "$6" >> "$file"; fi
  if [[ -n ${5:-} ]]; then
    printf '%s' "$5" > "$work/bodies/$1-$(cksum <<< "$5" | cut -d ' ' -f 1)"
    printf '@%s\n' "$work/bodies/$1-$(cksum <<< "$5" | cut -d ' ' -f 1)" >> "$file"
  fi
  echo >> "$file"
}

write_targets() {
  local at it key value
  mkdir -p "$work/bodies" "$work/targets.d"
  for at in {1..8}; do
    for it in a b; do
      request caddy $it GET /
      request caddy $it GET /format.md '' 'Accept-Encoding: gzip'
      request caddy $it GET "/page/site.html?$at"
      offset=1 request nats-server $it GET /varz
      offset=1 request nats-server $it GET '/connz?subs=1'
      if ((at % 4)); then continue; fi
      request caddy $it GET /node '' 'Accept-Encoding: zstd'
      offset=1 request nats-server $it GET '/jsz?streams=1'
      if ((at == 8)); then request node_exporter $it GET /metrics; fi
    done
    key=$(printf 'key-%s' "$at" | base64) value=$(head -c $((at * 90)) "$root/README.md" | base64 -w0)
    request etcd a POST /v3/kv/put "{\"key\":\"$key\",\"value\":\"$value\"}"
    request etcd a POST /v3/kv/range "{\"key\":\"$key\",\"range_end\":\"AA==\",\"limit\":20}"
    request victoria-metrics a POST /api/v1/import/prometheus \
      "$(for key in {1..40}; do echo "load_requests_total{shard=\"$key\",step=\"$at\"} $((RANDOM * at))"; done)"
    request victoria-metrics a GET '/api/v1/query?query=sum(rate(load_requests_total%5B1m%5D))by(shard)'
    for it in victoria-metrics prometheus; do
      request $it a GET '/api/v1/query?query=topk(5,rate(process_cpu_seconds_total%5B2m%5D))'
      if ((at % 4)); then continue; fi
      request $it a GET \
        '/api/v1/query?query=histogram_quantile(0.9,sum(rate(etcd_disk_wal_fsync_duration_seconds_bucket%5B2m%5D))by(le))'
      request $it a GET '/api/v1/series?match%5B%5D=%7Bjob=%22caddy%22%7D'
      request $it a GET /metrics
    done
    request minio a PUT "/load/$at" "$(head -c $((at * 900)) "$root/README.md")"
    request minio a GET "/load/$at"
    # DNS over HTTP: questions for <letter>.apps.test and for db.shop.test, as messages in base64.
    key=$(printf '\0\0\1\0\0\1\0\0\0\0\0\0\1'"\\x6$at"'\4apps\4test\0\0\1\0\1' | base64 -w0 | tr '+/' '-_' | tr -d =)
    request coredns a GET "/dns-query?dns=$key"
    request coredns a GET /dns-query?dns=AAABAAABAAAAAAAAAmRiBHNob3AEdGVzdAAAAQAB
    request hugo a GET "/posts/$at/"
    request hugo a GET /tags/all/
    if ((at % 4)); then continue; fi
    request etcd a POST /v3/lease/grant '{"TTL":30}'
    request minio a GET '/load?list-type=2'
    request minio a DELETE "/load/$at"
    request statsd_exporter a GET /metrics
  done
  cat "$work"/targets.d/* > "$work/targets"
}

# --- One instance, from its first process to its last. ----------------------------------------------------------------

# fetch SOCKET PATH FILE
fetch() {
  if curl -sf --max-time 40 --unix-socket "$1" -o "$3.part" "http://localhost/debug/pprof/$2"; then
    mv "$3.part" "$3"
  else
    rm -f "$3.part"
    note "no answer: $3"
  fi
}

# record SOCKET PREFIX PID UNTIL TARGETS RATE: asks for every type once in each EVERY seconds. The CPU profile comes first, under a
# load that differs from one to the next: servers are profiled when they have something to do, and the machine is not kept busy between.
record() {
  local n=0 began type file
  while kill -0 "$3" 2> /dev/null && ((SECONDS + cpu_seconds + 5 < $4)); do
    began=$SECONDS n=$((n + 1))
    file=$(printf '%s-%%s-%03d.pb.gz' "$2" $n)
    if [[ -f $5 ]]; then
      vegeta attack -targets "$5" -format http -rate $(($6 * (1 + n % 5)))/s -duration ${cpu_seconds}s -workers 2 -max-workers 8 \
        > /dev/null &
    fi
    # shellcheck disable=SC2059
    if [[ $2 != */pebble/* ]]; then fetch "$1" "profile?seconds=$cpu_seconds" "$(printf "$file" cpu)"; fi
    for type in heap allocs goroutine mutex block; do
      # shellcheck disable=SC2059
      fetch "$1" "$type" "$(printf "$file" $type)"
    done
    pause $((began + every > SECONDS ? began + every - SECONDS : 1))
  done
}

# instance NAME LETTER DELAY
instance() {
  local name=$1 letter=$2 process=0 folder socket until rate pid='' load=''
  # shellcheck disable=SC2064
  trap 'kill $pid $load 2> /dev/null || true; exit 0' TERM
  pause "$3"
  mkdir -p "$out/$name"
  while ((SECONDS + 60 < end)); do
    process=$((process + 1))
    folder=$work/$name-$letter$process socket=$work/$name-$letter$process.sock
    mkdir -p "$folder"
    until=$((SECONDS + life * 60 < end ? SECONDS + life * 60 : end))
    note "start $name $letter$process"
    (
      export GODEBUG=memprofilerate=$heap_rate AFTERGLOW_INPUTS_SOCKET=$socket
      "start_$name" "$(port "$name" "$letter")" "$folder" "$process"
    ) > "$folder.log" 2>&1 &
    pid=$!
    pause 3
    if declare -F "load_$name" > /dev/null; then
      (
        child=''
        trap 'kill $(jobs -p) 2> /dev/null || true; exit 0' TERM
        "load_$name" "$(port "$name" "$letter")" "$folder" "$process"
      ) > "$folder.load.log" 2>&1 &
      load=$!
    fi
    case $name in
      node | python)
        while kill -0 "$pid" 2> /dev/null && ((SECONDS < until)); do pause 5; done
        ;;
      *)
        # A look at the whole machine costs that program ten times what an answer costs the others.
        if [[ $name == node_exporter ]]; then rate=2; else rate=25; fi
        record "$socket" "$out/$name/$letter$process" "$pid" "$until" "$work/targets.d/$name-$letter" "$rate"
        ;;
    esac
    if ! kill -0 "$pid" 2> /dev/null; then
      note "$name $letter$process ended by itself: $(tail -n 3 "$folder.log" | tr '\n' ' ')"
      pause 20
    fi
    # shellcheck disable=SC2086
    kill $pid $load 2> /dev/null || true
    wait "$pid" 2> /dev/null || true
    load=''
    rm -rf "$folder" "$socket"
  done
}

PATH=$cache/bin:$PATH
write_targets > "$work/targets"

waiting=()
finish() {
  trap - EXIT INT TERM
  kill "${waiting[@]}" 2> /dev/null || true
  wait
  rm -rf "$work"
}
trap finish EXIT
trap 'exit 1' INT TERM

at=0
for entry in "${fleet[@]}"; do
  name=${entry%:*} letter=${entry#*:}
  if [[ $# -gt 0 && $wanted != *" $name "* ]]; then continue; fi
  if [[ ! -x $cache/bin/$name && ! -d $cache/$name ]]; then
    echo "left out, for it is not built: $name" >&2
    continue
  fi
  if (exec 3<> "/dev/tcp/127.0.0.1/$(port "$name" "$letter")") 2> /dev/null; then
    echo "port $(port "$name" "$letter") is taken; give another PORT_BASE" >&2
    exit 1
  fi
  # Spread over the minute, so that no two measure each other.
  instance "$name" "$letter" $((at * every / ${#fleet[@]})) &
  waiting+=($!)
  at=$((at + 1))
done
wait "${waiting[@]}"
find "$out" -name '*.pb.gz' -printf '%h %s\n' | awk '{ sub(".*/", "", $1); count[$1]++; bytes[$1] += $2 }
  END { for (name in count) printf "%-20s %5d profiles %9.1f KB\n", name, count[name], bytes[name] / 1024 }' | sort
