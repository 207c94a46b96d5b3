#!/usr/bin/env bash
# Runs the benchmarks one after the other; bench/README.md says what each measures. Give the folder of base profiles as the
# first argument to use others than the fixtures.
set -euo pipefail
cd "$(dirname "$0")/.."

profiles=${1:-tests/fixtures/profiles}

cargo build --locked --release -p afterglow-bench -p afterglow-ingester --bins

echo "== decode and merge, beside google/pprof"
bench/decode-merge.sh "$profiles"

echo "== ingest: 16 streams, each waits for its answer, so that a flush holds 16 profiles"
target/release/load --profiles "$profiles" --count 2000 --streams 16

echo "== ingest: as fast as two streams with 64 profiles under way each go"
target/release/load --profiles "$profiles" --count 2000 --streams 2 --window 64

echo "== what is stored, level by level"
target/release/size "$profiles"

echo "== what roll-ups cost and spare"
target/release/rollups "$profiles"
