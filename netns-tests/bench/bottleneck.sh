#!/usr/bin/env bash
# Live traffic and one TCP (iperf) share 20 Mbit/s behind a tail-drop queue: who gets what, and how
# long the queue is (p99 of a ping). Then two live flows of two nodes do.
#
#   netns-tests/bench/bottleneck.sh [QUEUE IN MS, 50]
#
# Needs iperf, ping, python3, tc and user namespaces.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
if [ -z "${IN_LAB:-}" ]; then
    cargo build --release --package lcroute
    IN_LAB=1 exec unshare -Urnmpf --kill-child --mount-proc bash "$0" "$@"
fi
queue=${1:-50} mbit=20
lcroute=$PWD/${CARGO_TARGET_DIR:-target}/release/lcroute
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

# a, c --- sw ---(tbf)--- b
mount -t tmpfs lab /run
ip link set lo up
ip link add sw up type bridge mcast_snooping 0
ip addr add 10.9.0.1/24 dev sw
for n in a b c; do
    ip netns add $n
    ip link add v$n master sw up type veth peer name eth0 netns $n
    ip -n $n link set lo up
    ip -n $n link set eth0 up
    ip -n $n addr add 10.9.0.$(printf %d "0x$n")/24 dev eth0
done
on() { ip netns exec "$@"; }
signal=ws://10.9.0.1:7117
"$lcroute" signal --listen '[::]:7117' > "$dir/signal" 2>&1 &
"$lcroute" --state-dir "$dir/b" init --name b > /dev/null 2>&1
"$lcroute" --state-dir "$dir/b" invite --signal $signal > "$dir/token"
for n in a c; do "$lcroute" --state-dir "$dir/$n" join - --name $n < "$dir/token" > /dev/null; done
for n in a b c; do
    on $n "$lcroute" --state-dir "$dir/$n" --control "$dir/control-$n" run --signal $signal > "$dir/log-$n" 2>&1 &
done
until [ "$("$lcroute" --control "$dir/control-b" peers 2> /dev/null | grep -c connected)" = 2 ]; do sleep 0.2; done
tc qdisc replace dev vb root tbf rate ${mbit}mbit burst 4000 limit $((mbit * 125 * queue))

cat > "$dir/live.py" << 'PY'
import socket, struct, sys, time
verb, group, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
index = socket.if_nametoindex("lc0")
end = time.monotonic() + seconds
if verb == "send":
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
    n, began = 0, time.monotonic()
    while time.monotonic() < end:
        while n < (time.monotonic() - began) * 8_000:
            s.sendto(bytes(1_200), (group, 5001))
            n += 1
        time.sleep(0.0005)
else:
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, socket.inet_pton(socket.AF_INET6, group) + struct.pack("@I", index))
    s.bind((group, 5001, 0, index))
    s.settimeout(0.2)
    got = 0
    while time.monotonic() < end:
        try:
            got += len(s.recv(2_000))
        except TimeoutError:
            pass
    print(f"{group}: {got * 8 / seconds / 1e6:.2f} Mbit/s")
PY
live() { on "$1" python3 "$dir/live.py" "${@:2}"; }
queue_p99() {
    on a ping -i 0.05 -w "$1" 10.9.0.11 | grep -o 'time=[0-9.]*' | cut -d= -f2 | sort -n |
        awk '{ a[NR] = $1 } END { print "queue: p50 " a[int(NR / 2)] " ms, p99 " a[int(NR * 0.99)] " ms" }'
}

on b iperf -s -p 5201 > /dev/null 2>&1 &
live b receive ff1e::a 3 > /dev/null
tcp() { on a iperf -c 10.9.0.11 -p 5201 -t "$1" -i 0 -f m > "$dir/tcp"; }
for first in live tcp; do
    echo "== ${queue} ms, $first first, then 20 s together"
    # somebody listens all the time, or there is nothing to send
    live b receive ff1e::a 36 > /dev/null & listener=$!
    sleep 1
    if [ $first = live ]; then
        live a send ff1e::a 32 & sender=$!
        sleep 5; tcp 26 & other=$!
    else
        tcp 31 & other=$!
        sleep 5; live a send ff1e::a 27 & sender=$!
    fi
    sleep 5
    before=$(on b cat /sys/class/net/eth0/statistics/rx_bytes)
    live b receive ff1e::a 20 & receiver=$!
    queue_p99 20
    wait $receiver
    after=$(on b cat /sys/class/net/eth0/statistics/rx_bytes)
    awk -v b=$((after - before)) 'BEGIN { printf "all: %.2f Mbit/s\n", b * 8 / 20 / 1e6 }'
    wait $sender $other $listener || true
    tail -1 "$dir/tcp"
done
echo "== ${queue} ms, a and c, 20 s together"
for group in ff1e::a ff1e::c; do live b receive $group 36 > /dev/null & done
live a send ff1e::a 32 & one=$!
sleep 4
live c send ff1e::c 27 & two=$!
sleep 5
live b receive ff1e::a 20 & three=$!
live b receive ff1e::c 20 & four=$!
queue_p99 20
wait $three $four
kill $one $two
