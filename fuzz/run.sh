#!/usr/bin/env bash
# Runs each fuzz target for FUZZ_SECONDS, starting from what it found before; ends with 1 where one found something.
#
#   fuzz/run.sh                 all targets
#   fuzz/run.sh decode merge    these
#
# The instrumentation is what the stable compiler has; without a sanitizer, for the crates forbid unsafe code. What is found lies in
# .cache/fuzz/<target>/findings, and `FUZZ_INPUT=<file> fuzz/run.sh <target>` runs it again.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${FUZZ_SECONDS:-60}
folder=.cache/fuzz
host=$(rustc -vV | sed -n 's/^host: //p')
targets=("$@")
if [ $# -eq 0 ]; then
  mapfile -t targets < <(cd fuzz/targets && ls | sed 's/\.rs$//')
fi

# An explicit target keeps the instrumentation away from build scripts.
RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
-Cllvm-args=-sanitizer-coverage-pc-table -Cllvm-args=-sanitizer-coverage-trace-compares" \
  cargo build --locked --release --manifest-path fuzz/Cargo.toml --target "$host" --target-dir "$folder/target"

# Seeds: those that are committed, and small real profiles, as they were sent and as protobuf behind the byte that says so.
seed() { # TARGET
  mkdir -p "$folder/$1/corpus" "$folder/$1/findings"
  cp -t "$folder/$1/corpus" "fuzz/corpus/$1"/*
  case $1 in
    inflate) find tests/fixtures -name '*.pb.gz' -size -8k -exec cp --backup=numbered -t "$folder/$1/corpus" {} + ;;
    decode | views | merge | segment | compaction)
      find tests/fixtures -name '*.pb.gz' -size -8k | while read -r file; do
        { printf '\002'; gunzip -c "$file"; } > "$folder/$1/corpus/$(basename "$file" .pb.gz)"
      done ;;
  esac
}

failed=()
for target in "${targets[@]}"; do
  seed "$target"
  program="$folder/target/$host/release/$target"
  if [ -n "${FUZZ_INPUT:-}" ]; then
    exec "$program" "$FUZZ_INPUT"
  fi
  echo "== $target, $seconds s"
  # P24: no input takes long, under the sanitizer and on a busy machine, or much memory.
  "$program" -max_total_time="$seconds" -max_len=65536 -timeout=10 -rss_limit_mb=1024 -malloc_limit_mb=256 -print_final_stats=1 \
    -artifact_prefix="$folder/$target/findings/" "$folder/$target/corpus" \
    > "$folder/$target/log" 2>&1 || failed+=("$target")
  grep -E 'stat::number_of_executed_units|stat::peak_rss_mb|^SUMMARY|panicked' "$folder/$target/log" || true
done
if [ ${#failed[@]} -gt 0 ]; then
  echo "found something: ${failed[*]}; see $folder/<target>/log" >&2
  exit 1
fi
echo "${#targets[@]} targets, nothing found"
