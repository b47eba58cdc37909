#!/usr/bin/env bash
# lcroute beside other systems that carry multicast, and beside a bare relay (the limit), all in
# one run, with the same programs: highest rate with less than 1 % loss, CPU time, latency, ratios.
#
#   netns-tests/bench/peers.sh [OPTIONS OF lcroute bench]
#
# The others come from Debian: apt install fastd tinc openvpn. What is missing is named and left out.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"

netns-tests/setup demo
cargo build --release --package lcroute-lab --bin lcroute-lab
exec "${CARGO_TARGET_DIR:-target}/release/lcroute-lab" bench \
    --through lcroute,relay,fastd-multitap,fastd,tinc,openvpn --measure rate,cpu,latency "$@"
