#!/bin/sh
# Inflate + decode + merge against google/pprof's ParseData + Merge: CPU time on the same files, one after the other on one machine.
#
#   bench/decode-merge.sh [FOLDER] [ROUNDS]
#
# FOLDER holds *.pb.gz; the default is the profiles of the tests.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
folder=$(cd "${1:-$root/tests/fixtures/profiles}" && pwd)
rounds=${2:-15}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

(cd "$root/bench/go/decodemerge" && go build -o "$work/decodemerge" .)
cargo build --quiet --manifest-path "$root/Cargo.toml" --release -p afterglow-bench --bin decode

"$work/decodemerge" -rounds "$rounds" "$folder" > "$work/go.tsv"
"${CARGO_TARGET_DIR:-$root/target}/release/decode" --rounds "$rounds" --go "$work/go.tsv" "$folder"
