#!/usr/bin/env bash
# A stream of 50 Mbit/s over links that lose 0, 1, 5 and 20 % of all packets, in both directions:
# what arrives, and how late, without repair and with it.
#
#   netns-tests/bench/lossy.sh [OPTIONS OF lcroute bench]
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"

netns-tests/setup demo
cargo build --release --package lcroute-lab --bin lcroute-lab
for repair in 0 25; do
    for loss in 0 1 5 20; do
        echo "== repair within $repair ms, $loss % loss"
        "${CARGO_TARGET_DIR:-target}/release/lcroute-lab" bench --measure rate --rate 5208 \
            --loss "$loss" --set "live.repair_ms=$repair" "$@"
    done
done
