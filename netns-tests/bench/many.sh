#!/usr/bin/env bash
# More real daemons than the 64 up to which news go over all links (ADR 0018): 72 with about four links each.
# One comes late, four are killed one after the other and come back; a stream goes on all the time. Prints when all
# know of it, the pauses of the listeners, and that nobody heard anything twice. Some minutes, a gigabyte of memory.
#
#   netns-tests/bench/many.sh [NODES, 72]
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"

netns-tests/setup test
NODES=${1:-72} cargo test --release --package netns-tests --test netns many_routers_measured -- --ignored --nocapture
