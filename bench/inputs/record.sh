#!/usr/bin/env bash
# Records all inputs of the benchmarks: the fleet into OUT/fleet, the large profiles into OUT/large.
#
#   bench/inputs/record.sh [OUT]
#
# OUT is .cache/profiles unless given. The first time takes about an hour on two cores, half of it compiling; later three quarters,
# most of it waiting. ../README.md says what is recorded, and how.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:-$(cd "$here/../.." && pwd)/.cache/profiles}

"$here/build.sh"
"$here/fleet.sh" "$out/fleet"
"$here/large.sh" "$out/large"
