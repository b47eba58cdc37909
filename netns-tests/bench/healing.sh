#!/usr/bin/env bash
# How long listeners hear nothing when nodes die: 16 daemons with about three links each, one sender
# (100 packets a second), twelve listeners; three nodes are killed (SIGKILL) at a time, and come back.
# Prints the pauses of those who live on, round by round, then median and p99 of all.
#
#   netns-tests/bench/healing.sh [ROUNDS, 10]
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"

netns-tests/setup test
ROUNDS=${1:-10} cargo test --release --package netns-tests --test netns healing_measured -- --ignored --nocapture
