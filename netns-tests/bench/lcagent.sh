#!/usr/bin/env bash
# lcagent beside clush over local sshd, sixteen nodes in namespaces, each ratio within one run.
#
#   netns-tests/bench/lcagent.sh [time bytes loss]
#
# time   `true` on all nodes, turn by turn; the median of each, and the ratio
# bytes  datagrams of the operator, with their headers, for one node and for all, turn by turn. (What his interface counts has
#        0 to 2 MLD reports of 90 bytes more, whichever fall into that time: ratios from 0.97 to 1.20.)
# loss   10 % of all that arrives at the nodes and the operator is lost: 1,000 lines of each node, none missing
#
# Needs root, nft, and for the peer: apt install clustershell openssh-server. What is missing ends it with its name.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH:/usr/sbin"
if [ -z "${IN_LAB:-}" ]; then
    [ "$(id -u)" = 0 ] || { echo "needs root: sshd changes users"; exit 1; }
    for program in clush ssh sshd nft; do
        command -v $program > /dev/null || { echo "$program is missing: apt install clustershell openssh-server nftables"; exit 1; }
    done
    [ -n "${PROGRAMS:-}" ] || cargo build --release --package lcagent
    IN_LAB=1 exec unshare -nmpf --kill-child --mount-proc bash "$0" "$@"
fi
lcagent=${PROGRAMS:-$PWD/${CARGO_TARGET_DIR:-target}/release}/lcagent
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mount -t tmpfs lab /run
mkdir -p /run/sshd
ip link set lo up
nodes=${NODES:-16} rounds=${ROUNDS:-9}

#   sw (bridge with MLD snooping) ─┬─ eth0 ── s     10.9.0.100   the operator
#                                  ├─ eth0 ── n1    10.9.0.1     sshd, lcagent run
#                                  └─ ...
host() { # NAME NUMBER
    ip netns add "$1"
    ip link add "v$1" master sw up type veth peer name eth0 netns "$1"
    ip -n "$1" link set lo up
    ip netns exec "$1" sysctl -qw net.ipv6.conf.eth0.accept_dad=0
    ip -n "$1" addr add "10.9.0.$2/24" dev eth0
    ip -n "$1" link set eth0 up
}
on() { ip netns exec "$@"; }
ip link add sw up type bridge mcast_snooping 1
host s 100
on s "$lcagent" keygen "$dir/operator.key" > "$dir/public"
ssh-keygen -qt ed25519 -N '' -f "$dir/ssh"
ssh-keygen -qt ed25519 -N '' -f "$dir/host"
chmod 755 "$dir"
cp "$dir/ssh.pub" "$dir/authorized"
for n in $(seq "$nodes"); do
    host "n$n" "$n"
    cat > "$dir/n$n.toml" <<- CONFIG
	name = "n$n"
	[[allow]]
	key = "$(cat "$dir/public")"
	commands = ["*"]
	CONFIG
    on "n$n" "$lcagent" run --config "$dir/n$n.toml" --state-dir "$dir/n$n" --log warn 2> "$dir/n$n.log" &
    on "n$n" /usr/sbin/sshd -De -h "$dir/host" -o "AuthorizedKeysFile=$dir/authorized" -o StrictModes=no \
        -o UsePAM=no -o PidFile=none -o PermitRootLogin=yes 2> "$dir/n$n.sshd" &
done
operator() { on s "$lcagent" "$@" --key "$dir/operator.key" --state-dir "$dir/operator" -i eth0; }
# the first exec is for everybody who listens; from then on they are known
until [ "$(operator nodes --json --timeout 3s 2> "$dir/nodes.err" | grep -o '"state":"up"' | wc -l)" = "$nodes" ]; do sleep 0.2; done
run() { on s "$lcagent" exec --key "$dir/operator.key" --state-dir "$dir/operator" -i eth0 "$@"; }
peer() {
    on s clush -q -w "10.9.0.[1-$nodes]" -l root -o "-i $dir/ssh -o BatchMode=yes -o StrictHostKeyChecking=no \
        -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR -F none" -- "$@"
}
now() { echo "${EPOCHREALTIME/,/.}"; }
took() { # COMMAND...
    local begun
    begun=$(now)
    "$@" > "$dir/out" 2> "$dir/err" || { cat "$dir/err"; exit 1; }
    awk "BEGIN { print $(now) - $begun }"
}
median() { sort -n | awk '{ a[NR] = $1 } END { print a[int((NR + 1) / 2)] }'; }
on s nft "table inet count {
    counter out {
    }
    chain out {
        type filter hook output priority 0
        udp dport 14243 counter name out
    }
}"
sent() { on s nft list counter inet count out | sed -n 's/.*bytes \([0-9]*\).*/\1/p'; }
cost() { # ARGS OF run
    local before
    before=$(sent)
    run "$@" > /dev/null
    echo $(($(sent) - before))
}

row_time() {
    local n
    peer true > /dev/null
    for n in $(seq "$rounds"); do
        took run -- true >> "$dir/ours"
        took peer true >> "$dir/theirs"
    done
    awk -v o="$(median < "$dir/ours")" -v t="$(median < "$dir/theirs")" -v n="$nodes" \
        'BEGIN { printf "time   true on %d nodes: lcagent %.3f s, clush %.3f s: 1/%.1f\n", n, o, t, t / o }'
}
row_bytes() {
    local n one all
    for n in $(seq 5); do
        one=$(cost --on n1 -- true)
        all=$(cost -- true)
        awk -v o="$one" -v a="$all" -v n="$nodes" 'BEGIN { printf "bytes  for one node %d, for %d %d: %.2f\n", o, n, a, a / o }'
    done
}
row_loss() {
    local host lines
    for host in s $(seq -f n%g "$nodes"); do
        on "$host" nft "table inet loss {
            chain in {
                type filter hook input priority 0
                udp dport 14243 numgen random mod 100 < 10 drop
            }
        }"
    done
    took run -- seq 1000 > "$dir/lossy"
    lines=$(sort -u "$dir/out" | wc -l)
    for host in s $(seq -f n%g "$nodes"); do on "$host" nft delete table inet loss; done
    [ "$lines" = $((nodes * 1000)) ] || { echo "$lines lines"; exit 1; }
    printf 'loss   10 %%: all %d lines of %d nodes in %.2f s\n' "$lines" "$nodes" "$(cat "$dir/lossy")"
}
[ $# -gt 0 ] || set -- time bytes loss
for row in "$@"; do "row_$row"; done
kill $(jobs -p)
