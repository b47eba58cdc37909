#!/usr/bin/env bash
# A stream of 50 Mbit/s over links that lose 0, 1, 5 and 20 % of all packets, in both directions:
# what arrives, and how late. Without repair, and with it where this build has it.
#
#   netns-tests/bench/lossy.sh [OPTIONS OF lcroute bench, such as --set live.repair_ms=20]
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"

netns-tests/setup demo
cargo build --release --package netns-tests --bin lcroute-demo
for loss in 0 1 5 20; do
    "${CARGO_TARGET_DIR:-target}/release/lcroute-demo" bench --rate 5208 --loss "$loss" "$@"
done
