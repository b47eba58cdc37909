#!/usr/bin/env bash
# What the programs cost while nothing happens: nine daemons, each linked with the other eight, a shared folder of a
# hundred files, an agent. Prints resident memory and processor time of the worst daemon beside their goals, and how
# long lcroute takes from its start to READY. Two minutes.
#
#   netns-tests/bench/idle.sh [SECONDS, 60]
#
# Needs root or user namespaces with a /dev/net/tun that is open to everybody.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH:/usr/sbin"
if [ -z "${IN_LAB:-}" ]; then
    [ -n "${PROGRAMS:-}" ] || cargo build --release --package lcroute --package lcsync --package lcagent --bins
    if [ "$(id -u)" = 0 ]; then root=(); else root=(--user --map-root-user); fi
    IN_LAB=1 exec unshare "${root[@]}" -nmpf --kill-child --mount-proc bash "$0" "$@"
fi
programs=${PROGRAMS:-$PWD/${CARGO_TARGET_DIR:-target}/release}
seconds=${1:-60} nodes=9 starts=10 settle=30
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
mount -t tmpfs lab /run
ip link set lo up

#   sw (bridge) ─┬─ eth0 ── n1   10.9.0.1   lcroute run, lcroute signal, lcsync share, lcagent run
#                ├─ eth0 ── n2   10.9.0.2   lcroute run
#                └─ ...
on() { ip netns exec "$@"; }
ip link add sw up type bridge
for n in $(seq $nodes); do
    ip netns add "n$n"
    ip link add "v$n" master sw up type veth peer name eth0 netns "n$n"
    ip -n "n$n" link set lo up
    on "n$n" sysctl -qw net.ipv6.conf.eth0.accept_dad=0
    ip -n "n$n" addr add "10.9.0.$n/24" dev eth0
    ip -n "n$n" link set eth0 up
    ip -n "n$n" route add default via 10.9.0.100
    printf '[topology]\npolicy = "mesh"\n[signal]\nservers = ["ws://10.9.0.1:7117"]\n' > "$dir/n$n.toml"
done
lcroute() { # NODE ARGS...
    local node=$1
    shift
    ip netns exec "n$node" "$programs/lcroute" --state-dir "$dir/n$node" --config "$dir/n$node.toml" \
        --control "$dir/n$node.sock" "$@"
}
until_true() { # SECONDS WHAT COMMAND...
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        [ $SECONDS -lt $end ] || { echo "$what: not in time" >&2; tail -n 5 "$dir"/*.log >&2; exit 1; }
        sleep 0.2
    done
}

lcroute 1 signal --listen 10.9.0.1:7117 2> "$dir/signal.log" &
lcroute 1 init --name n1 > /dev/null
token=$(lcroute 1 invite)
for n in $(seq 2 $nodes); do lcroute "$n" join "$token" --name "n$n" > /dev/null; done
for n in $(seq $nodes); do
    lcroute "$n" run > /dev/null 2> "$dir/n$n.log" &
done
mkdir "$dir/files"
for n in $(seq 100); do head -c 10000 /dev/urandom > "$dir/files/$n"; done
on n1 "$programs/lcagent" keygen "$dir/operator.key" > "$dir/public"
printf 'name = "n1"\n[[allow]]\nkey = "%s"\ncommands = ["*"]\n' "$(cat "$dir/public")" > "$dir/agent.toml"
linked() { [ "$(lcroute "$1" peers --json 2> /dev/null | grep -o '"connected"' | wc -l)" = $((nodes - 1)) ]; }
for n in $(seq $nodes); do until_true 60 "n$n is linked with all" linked "$n"; done
on n1 "$programs/lcsync" share "$dir/files" -i lc0 > "$dir/share" 2> "$dir/share.log" &
on n1 "$programs/lcagent" run --config "$dir/agent.toml" --state-dir "$dir/agent" 2> "$dir/agent.log" &
until_true 20 "the folder is shared" grep -q ^lc: "$dir/share"
sleep $settle

# nanoseconds on a processor so far, of all threads
spent() { cat /proc/"$1"/task/*/schedstat | awk '{ sum += $1 } END { print sum }'; }
# worst PROGRAM ARGUMENT: over all processes of it, resident MiB (now and at most) and per cent of a processor
declare -A before
mapfile -t pids < <(pgrep -f "^$programs/lc[a-z]* .*(run|share|signal)( |$)")
for pid in "${pids[@]}"; do before[$pid]=$(spent "$pid"); done
began=${EPOCHREALTIME/,/.}
sleep "$seconds"
ended=${EPOCHREALTIME/,/.}
for pid in "${pids[@]}"; do
    name=$(tr '\0' ' ' < "/proc/$pid/cmdline" | sed -E "s|^$programs/||; s/ --[a-z-]* [^ ]*//g; s/ .*(run|share|signal).*/ \1/")
    awk -v name="$name" -v spent=$(($(spent "$pid") - before[$pid])) -v from="$began" -v to="$ended" '
        /^VmRSS/ { now = $2 } /^VmHWM/ { most = $2 }
        END { printf "%s\t%.1f\t%.1f\t%.3f\n", name, now / 1024, most / 1024, spent / (to - from) / 1e7 }' "/proc/$pid/status"
done > "$dir/figures"
echo "idle for $seconds s, $nodes nodes in a mesh (8 peers each), $(nproc) cores"
echo "program          MiB resident (at most)  goal   % of a core  goal"
awk -F'\t' '
    { if ($2 > now[$1]) now[$1] = $2; if ($3 > most[$1]) most[$1] = $3; if ($4 > cpu[$1]) cpu[$1] = $4 }
    END { for (name in now) printf "%-16s %12.1f %9.1f %6d %13.3f %5.1f  %s\n", name, now[name], most[name], 30, cpu[name], 0.2,
              (now[name] <= 30 && cpu[name] <= 0.2 ? "met" : "MISSED") }' "$dir/figures" | sort -r

# --- from the start to READY, as systemd would hear it ------------------------------------------------------
cat > "$dir/ready.py" << 'PYTHON'
import os, signal, socket, statistics, subprocess, sys, time
starts, path, *command = sys.argv[1:]
took = []
for _ in range(int(starts)):
    told = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    told.bind(path)
    told.settimeout(20)
    began = time.monotonic()
    daemon = subprocess.Popen(command, env=os.environ | {"NOTIFY_SOCKET": path}, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL)
    while b"READY=1" not in told.recv(4096):
        pass
    took.append((time.monotonic() - began) * 1000)
    daemon.send_signal(signal.SIGTERM)
    daemon.wait()
    told.close()
    os.unlink(path)
print(f"start to READY: median {statistics.median(took):.0f} ms, longest {max(took):.0f} ms of {starts}, goal 200 ms",
      "met" if max(took) <= 200 else "MISSED")
PYTHON
pkill --signal TERM -f "^$programs/lcroute --state-dir $dir/n2 "
until_true 10 "n2 has ended" sh -c "! ip netns exec n2 ip link show lc0 2> /dev/null"
on n2 python3 "$dir/ready.py" $starts "$dir/ready" "$programs/lcroute" --state-dir "$dir/n2" --config "$dir/n2.toml" \
    --control "$dir/n2.sock" run
