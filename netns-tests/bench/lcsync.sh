#!/usr/bin/env bash
# lcsync beside uftp and rsync, each ratio within one run. Rows can be named; without names all of them run (15 min).
#
#   netns-tests/bench/lcsync.sh [one beside_rsync receivers staggered tbf loss room slow second small lc0 memory copies copies_small]
#
# "server bytes" are bytes of symbols that the server has sent, per byte shared; "wire" is what its interface has sent,
# headers and all, per byte. Files are random, in a tmpfs; `small`, `second` and `memory` are on disk (TMPDIR).
# `copies` are local ones, beside rsync's: five pairs each, one after the other, and the median of their ratios.
# Needs root (for rsync's daemon) or user namespaces, nft, tc, and for the peers: apt install uftp rsync udpcast. What is missing is left out.
set -euo pipefail
cd "$(dirname "$0")/../.."
export PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH"
if [ -z "${IN_LAB:-}" ]; then
    [ -n "${PROGRAMS:-}" ] || cargo build --release --package lcsync --package lcroute
    # rsync's daemon sets its groups, which only the real root may
    if [ "$(id -u)" = 0 ]; then root=(); else root=(--user --map-root-user); fi
    IN_LAB=1 REAL_ROOT=$((${#root[@]} == 0)) exec unshare "${root[@]}" -nmpf --kill-child --mount-proc bash "$0" "$@"
fi
programs=${PROGRAMS:-$PWD/${CARGO_TARGET_DIR:-target}/release}
dir=$(mktemp -d)
trap 'umount -l "$dir/ram"; rm -rf "$dir"' EXIT
mkdir "$dir/ram" "$dir/disk"
mount -t tmpfs -o size=90% ram "$dir/ram"
mount -t tmpfs lab /run
ip link set lo up
MiB=$((1 << 20))

# --- the world ---------------------------------------------------------------------------------------------

#   sw (bridge with MLD snooping) ─┬─ eth0 ── s     10.9.0.100
#                                  ├─ eth0 ── r1    10.9.0.1
#                                  └─ ...
world() { # NUMBER OF RECEIVERS
    local n
    for n in $(ip netns list | cut -d' ' -f1); do
        ip link del "v$n"
        ip netns del "$n"
    done
    ip link del sw 2> /dev/null || true
    ip link add sw up type bridge mcast_snooping 1
    host s 100
    for n in $(seq "$1"); do host "r$n" "$n"; done
    # addresses of the link are in use when they are no longer tentative
    until on s ip -6 addr show dev eth0 scope link -tentative | grep -q fe80; do sleep 0.1; done
}
host() { # NAME NUMBER
    ip netns add "$1"
    ip link add "v$1" master sw up type veth peer name eth0 netns "$1"
    # a train of datagrams crosses a veth as one packet, and would be lost as one: no real link does that
    ip link set "v$1" gso_max_segs 1 && ip -n "$1" link set eth0 gso_max_segs 1
    ip link set "v$1" type bridge_slave fastleave on
    ip -n "$1" link set lo up
    ip netns exec "$1" sysctl -qw net.ipv6.conf.eth0.accept_dad=0
    ip -n "$1" addr add "10.9.0.$2/24" brd + dev eth0
    ip -n "$1" link set eth0 up
}
on() { ip netns exec "$@"; }
limit_server() { on s tc qdisc replace dev eth0 root tbf rate "$1" burst 4000 limit 400000; }
limit_receiver() { tc qdisc replace dev "vr$1" root tbf rate "$2" burst 4000 limit 200000; }
lose() { # RECEIVER PERCENT
    on "r$1" nft "table inet loss {
        chain in {
            type filter hook prerouting priority -400
            ip6 daddr ff1e::/16 numgen random mod 100 < $2 drop
            ip daddr 224.0.0.0/4 numgen random mod 100 < $2 drop
        }
    }"
}
sent() { on s cat /sys/class/net/eth0/statistics/tx_bytes; }
random() { head -c "$2" /dev/urandom > "$1"; }
now() { echo "${EPOCHREALTIME/,/.}"; }
calc() { awk "BEGIN { printf \"%.3f\", $* }"; }

# --- the programs ------------------------------------------------------------------------------------------

share=
serve() { # PATH [ARGS OF share]
    ip netns exec s "$programs/lcsync" share "$@" -i "${interface:-eth0}" --log info > "$dir/share" 2> "$dir/share.log" &
    share=$!
    until grep -q ^lc: "$dir/share"; do
        kill -0 $share || { cat "$dir/share.log"; exit 1; }
        sleep 0.05
    done
    # the bridge forwards to all until it has seen the first query
    sleep 0.3
}
# Stops the server; sets $symbols to the bytes of symbols it has sent.
stop() {
    kill $share
    wait $share || true
    symbols=$(sed -n 's/.* sent .* symbols, \([0-9]*\) bytes.*/\1/p' "$dir/share.log" | tail -1)
}
fetch() { # RECEIVER NAME DEST: writes the seconds it took
    local begin
    begin=$(now)
    on "r$1" "$programs/lcsync" "lc:$2" "$3" -q -i "${interface:-eth0}" 2> "$dir/fetch.$1" || cat "$dir/fetch.$1" >&2
    echo "$(calc "$(now) - $begin")" > "$dir/seconds.$1"
}
# One transfer of FILE to N receivers that start DELAY apart. Sets $seconds (the slowest), $bytes (server bytes),
# $wire, $mbit (goodput of the slowest).
transfer() { # FILE N DELAY [ARGS OF share]
    local file=$1 n=$2 delay=$3 size before pids=() name
    shift 3
    size=$(stat -c %s "$file") name=$(basename "$file")
    serve "$file" "$@"
    before=$(sent)
    for r in $(seq "$n"); do
        rm -rf "$dir/ram/r$r" && mkdir "$dir/ram/r$r"
        fetch "$r" "$name" "$dir/ram/r$r/" &
        pids+=($!)
        if [ "$r" != "$n" ]; then sleep "$delay"; fi
    done
    wait "${pids[@]}"
    wire=$(calc "($(sent) - $before) / $size")
    stop
    for r in $(seq "$n"); do
        cmp "$file" "$dir/ram/r$r/$name"
        rm -r "$dir/ram/r$r"
    done
    seconds=$(cat "$dir"/seconds.* | sort -n | tail -1)
    rm "$dir"/seconds.*
    bytes=$(calc "$symbols / $size") mbit=$(calc "$size * 8e-6 / $seconds")
}
has() { command -v "$1" > /dev/null || { echo "  ($1 is not installed)"; false; }; }
# The same by uftp, whose sender is told its rate (-1: none). Sets $seconds, $wire, $mbit.
uftp_transfer() { # FILE N KBIT/S
    local size before begin pids=()
    size=$(stat -c %s "$1")
    for r in $(seq "$2"); do
        rm -rf "$dir/ram/r$r" && mkdir "$dir/ram/r$r"
        ip netns exec "r$r" uftpd -d -D "$dir/ram/r$r" -I eth0 > /dev/null 2>&1 &
        pids+=($!)
        until on "r$r" grep -q 010404E6 /proc/net/igmp; do sleep 0.05; done
    done
    before=$(sent) begin=$(now)
    on s uftp -R "$3" -I eth0 "$1" > "$dir/uftp.log" 2>&1 || tail -5 "$dir/uftp.log"
    seconds=$(calc "$(now) - $begin") wire=$(calc "($(sent) - $before) / $size")
    kill "${pids[@]}"
    wait "${pids[@]}" 2> /dev/null || true
    for r in $(seq "$2"); do
        cmp "$1" "$dir/ram/r$r/$(basename "$1")"
        rm -r "$dir/ram/r$r"
    done
    mbit=$(calc "$size * 8e-6 / $seconds")
}
# The same by udpcast, whose receivers acknowledge each slice. Sets $seconds (the slowest), $wire.
udpcast_transfer() { # FILE N
    local size before begin pids=()
    size=$(stat -c %s "$1")
    before=$(sent) begin=$(now)
    for r in $(seq "$2"); do
        ip netns exec "r$r" udp-receiver --interface eth0 --nokbd --file "$dir/ram/r$r" > /dev/null 2> "$dir/udpcast.$r" &
        pids+=($!)
    done
    on s udp-sender --interface eth0 --nokbd --min-receivers "$2" --file "$1" > /dev/null 2> "$dir/udpcast" || tail -5 "$dir/udpcast"
    wait "${pids[@]}"
    seconds=$(calc "$(now) - $begin") wire=$(calc "($(sent) - $before) / $size")
    for r in $(seq "$2"); do
        cmp "$1" "$dir/ram/r$r"
        rm "$dir/ram/r$r"
    done
}
rsyncd=
has_rsyncd() { has rsync && { [ "$REAL_ROOT" = 1 ] || { echo "  (rsync's daemon needs root)"; false; }; }; }
rsync_serve() { # FOLDER
    printf 'use chroot = no\nreverse lookup = no\npid file = %s\n[m]\npath = %s\nuid = root\ngid = root\n' \
        "$dir/rsyncd.pid" "$1" > "$dir/rsyncd.conf"
    ip netns exec s rsync --daemon --no-detach --config "$dir/rsyncd.conf" --address 10.9.0.100 &
    rsyncd=$!
    until on s ss -ltn | grep -q :873; do
        kill -0 $rsyncd
        sleep 0.05
    done
}
rsync_stop() { kill $rsyncd; wait $rsyncd || true; rm -f "$dir/rsyncd.pid"; }
# N rsyncs at once from a daemon. Sets $seconds (the slowest).
rsync_transfer() { # FILE N
    local begin pids=()
    rsync_serve "$(dirname "$1")"
    begin=$(now)
    for r in $(seq "$2"); do
        mkdir "$dir/ram/r$r"
        on "r$r" rsync -W "rsync://10.9.0.100/m/$(basename "$1")" "$dir/ram/r$r/" &
        pids+=($!)
    done
    wait "${pids[@]}"
    seconds=$(calc "$(now) - $begin")
    rsync_stop
    for r in $(seq "$2"); do rm -r "$dir/ram/r$r"; done
}

# --- the rows ----------------------------------------------------------------------------------------------

one() {
    echo "== one: 200 MiB over veth, one receiver (goal: >= 2x uftp)"
    world 1
    random "$dir/ram/file" $((200 * MiB))
    transfer "$dir/ram/file" 1 0
    local ours=$mbit
    echo "  lcsync $mbit Mbit/s, server bytes $bytes, wire $wire"
    has uftp || return 0
    uftp_transfer "$dir/ram/file" 1 -1
    echo "  uftp   $mbit Mbit/s, wire $wire; lcsync / uftp = $(calc "$ours / $mbit")"
}

beside_rsync() {
    echo "== beside_rsync: one receiver, trains of datagrams pass whole, medians of three pairs (goal: rsync's time for 1 MiB, else twice)"
    has_rsyncd || return 0
    world 1
    for end in vs vr1; do ip link set $end gso_max_segs 65535; done
    for host in s r1; do ip -n $host link set eth0 gso_max_segs 65535; done
    local size pairs
    for size in 1 10 100 1024; do
        random "$dir/ram/file" $((size * MiB))
        pairs=
        for _ in 1 2 3; do
            transfer "$dir/ram/file" 1 0
            local ours=$seconds
            rsync_transfer "$dir/ram/file" 1
            pairs+="$(calc "$ours / $seconds") $ours $seconds"$'\n'
        done
        echo "  $size MiB: $(sort -n <<< "${pairs%$'\n'}" | sed -n 2p | { read -r of ours theirs; echo "lcsync $ours s, rsync $theirs s: ${of}x"; })"
    done
}

receivers() {
    echo "== receivers: 100 MiB, 1, 2, 4, 8 together (goal: server bytes of 8 <= 1.03x of 1; faster than as many rsyncs)"
    world 8
    random "$dir/ram/file" $((100 * MiB))
    local single n ours
    for link in 300mbit free; do
        [ $link = free ] && on s tc qdisc del dev eth0 root || limit_server $link
        for n in 1 2 4 8; do
            transfer "$dir/ram/file" $n 0
            [ $n = 1 ] && single=$bytes
            ours=$seconds
            echo "  server's link $link, $n: $seconds s, server bytes $bytes = $(calc "$bytes / $single")x of one, wire $wire"
            if [ $link != free ] && has_rsyncd; then
                rsync_transfer "$dir/ram/file" $n
                echo "    $n rsyncs $seconds s; rsync / lcsync = $(calc "$seconds / $ours")"
            fi
        done
    done
}

staggered() {
    echo "== staggered: 200 MiB, 4 receivers starting 25 % of a transfer apart (goal: server bytes <= 1.8; ideal 1.75)"
    world 4
    random "$dir/ram/file" $((200 * MiB))
    local limit
    for limit in "--bwlimit 200M" ""; do
        # shellcheck disable=SC2086
        transfer "$dir/ram/file" 1 0 $limit
        # shellcheck disable=SC2086
        transfer "$dir/ram/file" 4 "$(calc "$seconds / 4")" $limit
        echo "  ${limit:-without a limit}: server bytes $bytes, slowest $seconds s"
    done
}

tbf() {
    echo "== tbf: 200 MiB to 4 receivers over 100 Mbit/s (goal: >= 97 % of what packet headers leave)"
    # 1,024 of 1,114 bytes of an Ethernet frame are data
    local most where
    most=$(calc "100 * 1024 / 1114")
    for where in server receivers; do
        world 4
        random "$dir/ram/file" $((200 * MiB))
        if [ $where = server ]; then limit_server 100mbit; else
            for r in 1 2 3 4; do limit_receiver $r 100mbit; done
        fi
        transfer "$dir/ram/file" 4 0
        echo "  at the $where: lcsync $mbit Mbit/s = $(calc "$mbit / $most * 100") %, server bytes $bytes"
        has uftp || continue
        uftp_transfer "$dir/ram/file" 4 95000
        echo "  at the $where: uftp   $mbit Mbit/s = $(calc "$mbit / $most * 100") %, wire $wire"
    done
}

loss() {
    echo "== loss: 100 MiB to 4 receivers, each losing on its own (goal: server bytes <= 1.05, 1.11, 1.34)"
    local percent
    for percent in 1 5 20; do
        world 4
        random "$dir/ram/file" $((100 * MiB))
        limit_server 200mbit
        for r in 1 2 3 4; do lose $r $percent; done
        transfer "$dir/ram/file" 4 0
        echo "  $percent %: lcsync server bytes $bytes, wire $wire, $seconds s"
        has uftp || continue
        uftp_transfer "$dir/ram/file" 4 190000
        echo "  $percent %: uftp   wire $wire, $seconds s"
    done
}

room() {
    echo "== room: 60 MiB to 8 receivers that lose 1 % each, ${RATE:-200mbit} at the server, three pairs (goal: udpcast's time, 1.1x its wire)"
    has udp-sender || return 0
    world 8
    random "$dir/ram/file" $((60 * MiB))
    limit_server "${RATE:-200mbit}"
    for r in $(seq 8); do lose "$r" 1; done
    for _ in 1 2 3; do
        transfer "$dir/ram/file" 8 0
        local ours=$seconds our_wire=$wire
        udpcast_transfer "$dir/ram/file" 8
        echo "  lcsync $ours s, server bytes $bytes, wire $our_wire; udpcast $seconds s, wire $wire: time $(calc "$ours / $seconds")x, wire $(calc "$our_wire / $wire")x"
    done
}

slow() {
    echo "== slow: 100 MiB to three receivers at 200 Mbit/s and one at 10 (goal: fast <= 1.15x of without it, slow >= 80 %)"
    world 4
    random "$dir/ram/file" $((100 * MiB))
    for r in 1 2 3; do limit_receiver $r 200mbit; done
    transfer "$dir/ram/file" 3 0
    local without=$seconds size=$((100 * MiB)) pids=()
    echo "  fast ones alone: $seconds s, server bytes $bytes"
    limit_receiver 4 10mbit
    serve "$dir/ram/file"
    for r in 4 1 2 3; do
        mkdir "$dir/ram/r$r"
        fetch $r file "$dir/ram/r$r/" &
        pids+=($!)
    done
    wait "${pids[@]}"
    stop
    for r in 1 2 3 4; do cmp "$dir/ram/file" "$dir/ram/r$r/file"; done
    local fast
    fast=$(cat "$dir"/seconds.[123] | sort -n | tail -1)
    echo "  fast ones beside the slow one: $fast s = $(calc "$fast / $without")x, server bytes $(calc "$symbols / $size")"
    echo "  the slow one: $(cat "$dir/seconds.4") s, $(calc "$size * 8e-6 / $(cat "$dir/seconds.4")") Mbit/s of 10"
    rm "$dir"/seconds.*
}

second() {
    echo "== second: 1 GiB again after 10 changes, together 1 %, and with 1 MiB in front (goal: <= 1.5 %, <= 2 % of the bytes)"
    world 1
    local file=$dir/disk/file copy=$dir/disk/copy size=$((1024 * MiB)) what
    random "$file" $size
    rm -rf "$copy" && mkdir "$copy"
    cp "$file" "$copy/file"
    for what in changes insertion; do
        if [ $what = changes ]; then
            for n in 0 1 2 3 4 5 6 7 8 9; do
                head -c $((size / 1000)) /dev/urandom |
                    dd of="$file" bs=64K seek=$((n * size / 10 + 12345)) oflag=seek_bytes conv=notrunc status=none
            done
        else
            { head -c $MiB /dev/urandom; cat "$file"; } > "$file.new" && mv "$file.new" "$file"
        fi
        rm -rf "$copy.rsync" && cp -r "$copy" "$copy.rsync"
        serve "$file"
        fetch 1 file "$copy/"
        stop
        cmp "$file" "$copy/file"
        echo "  $what: lcsync server bytes $(calc "$symbols / $size * 100") %, $(cat "$dir/seconds.1") s"
        has_rsyncd || continue
        rsync_serve "$dir/disk"
        local before begin
        before=$(sent) begin=$(now)
        on r1 rsync --no-whole-file "rsync://10.9.0.100/m/file" "$copy.rsync/"
        echo "  $what: rsync wire $(calc "($(sent) - $before) / $size * 100") %, $(calc "$(now) - $begin") s"
        rsync_stop
    done
    rm -rf "$file" "$copy" "$copy.rsync"
}

small() {
    echo "== small: 100,000 files of 1 KiB (goal: >= 1x rsync daemon)"
    world 1
    local tree=$dir/disk/tree ours
    mkdir -p "$tree"
    head -c $((100000 * 1024)) /dev/urandom | split -b 1024 -a 5 -d --additional-suffix=.bin - "$tree/f"
    for d in $(seq 0 99); do
        mkdir "$tree/$d" && mv "$tree"/f"$(printf %02d "$d")"*.bin "$tree/$d/"
    done
    serve "$tree"
    fetch 1 tree "$dir/disk/copy"
    stop
    diff -r "$tree" "$dir/disk/copy"
    ours=$(cat "$dir/seconds.1")
    echo "  lcsync $ours s, server bytes $(calc "$symbols / 102400000")"
    has_rsyncd || return 0
    rm -rf "$dir/disk/copy"
    sync
    rsync_serve "$dir/disk"
    local begin
    begin=$(now)
    on r1 rsync -r rsync://10.9.0.100/m/tree/ "$dir/disk/copy"
    echo "  rsync  $(calc "$(now) - $begin") s; rsync / lcsync = $(calc "($(now) - $begin) / $ours")"
    rsync_stop
    rm -rf "$dir/disk/copy" "$tree"
}

lc0() {
    echo "== lc0: 100 MiB through three nodes"
    world 2
    random "$dir/ram/file" $((100 * MiB))
    local n pids=() lcroute=$programs/lcroute interface=lc0
    run() { on "$1" "$lcroute" --state-dir "$dir/state-$1" --control "$dir/control-$1" "${@:2}"; }
    run s init --name s > /dev/null 2>&1
    run s invite --signal ws://10.9.0.100:7117 > "$dir/token" 2> /dev/null
    ip netns exec s "$lcroute" signal --listen '[::]:7117' > "$dir/signal" 2>&1 &
    pids+=($!)
    for n in r1 r2; do run $n join - --name $n < "$dir/token" > /dev/null 2>&1; done
    for n in s r1 r2; do
        ip netns exec $n "$lcroute" --state-dir "$dir/state-$n" --control "$dir/control-$n" \
            run --signal ws://10.9.0.100:7117 > "$dir/log-$n" 2>&1 &
        pids+=($!)
    done
    until [ "$(run s peers 2> /dev/null | grep -c connected)" = 2 ]; do sleep 0.2; done
    for n in 1 2; do
        transfer "$dir/ram/file" $n 0
        echo "  $n together: $mbit Mbit/s, server bytes $bytes, wire $wire"
    done
    transfer "$dir/ram/file" 1 0 --bwlimit 100M
    transfer "$dir/ram/file" 2 "$(calc "$seconds / 2")" --bwlimit 100M
    echo "  2, half a transfer apart, --bwlimit 100M: server bytes $bytes (ideal 1.5)"
    kill "${pids[@]}"
    wait "${pids[@]}" 2> /dev/null || true
}

memory() {
    echo "== memory: a share of 10 GiB, sparse (goal: <= 64 MiB above the index)"
    world 1
    truncate -s 10G "$dir/disk/sparse"
    serve "$dir/disk/sparse"
    grep -E 'VmRSS|VmHWM' "/proc/$share/status"
    fetch 1 sparse "$dir/disk/copy"
    echo "  after a transfer ($(cat "$dir/seconds.1") s):"
    grep -E 'VmRSS|VmHWM' "/proc/$share/status"
    stop
    rm -f "$dir/disk/sparse" "$dir/disk/copy"
}

compare() { # TITLE OPTIONS-OF-LCSYNC OPTIONS-OF-RSYNC PREPARE: both copy $ram/src to a DEST of their own
    local ratios=() begin ours theirs ram=$dir/ram n
    for n in 1 2 3 4 5; do
        $4 "$n"
        begin=$(now)
        # shellcheck disable=SC2086 # options
        "$programs/lcsync" $2 --stats "$ram/src/" "$ram/ours" > "$dir/stats"
        ours=$(calc "$(now) - $begin")
        begin=$(now)
        # shellcheck disable=SC2086
        rsync $3 "$ram/src/" "$ram/theirs"
        theirs=$(calc "$(now) - $begin")
        ratios+=("$(calc "$ours / $theirs") $ours $theirs")
        diff -r "$ram/src" "$ram/ours"
    done
    printf '%s\n' "${ratios[@]}" | sort -n | sed -n 3p |
        while read -r ratio ours theirs; do
            echo "  $1: $ours s, rsync $theirs s: $ratio; $(sed -n 's/Literal data/written/p' "$dir/stats")"
        done
}
scatter() { # N: writes 64 bytes into one page in 100 of a GiB
    python3 - "$dir/ram/src/f" "$1" << 'EOF'
import os, random, sys
random.seed(sys.argv[2])
file = os.open(sys.argv[1], os.O_RDWR)
for page in random.sample(range(1 << 18), (1 << 18) // 100):
    os.pwrite(file, os.urandom(64), page * 4096 + random.randrange(4000))
EOF
}
insert() { { echo "$1 $(head -c 60 /dev/zero | tr '\0' x)"; cat "$dir/ram/src/f"; } > "$dir/ram/f" && mv "$dir/ram/f" "$dir/ram/src/f"; }
fresh() { rm -rf "$dir"/ram/{ours,theirs,cp}; }
touched() { touch -d "@$((1000000000 + $1))" "$dir/ram/src/f"; }
# As compare, of many small files: beside rsync and, where it does the same, `cp -a`.
compare_small() { # TITLE OPTIONS PREPARE [cp]
    local rows=() begin ours theirs cp ram=$dir/ram n
    for n in 1 2 3 4 5; do
        $3 "$n"
        begin=$(now)
        # shellcheck disable=SC2086 # options
        "$programs/lcsync" $2 "$ram/src/" "$ram/ours"
        ours=$(calc "$(now) - $begin")
        begin=$(now)
        # shellcheck disable=SC2086
        rsync $2 "$ram/src/" "$ram/theirs"
        theirs=$(calc "$(now) - $begin") cp=0
        if [ -n "${4:-}" ]; then
            begin=$(now)
            cp -a "$ram/src" "$ram/cp"
            cp=$(calc "$(now) - $begin")
        fi
        rows+=("$(calc "$ours / $theirs") $(calc "$cp == 0 ? 0 : $ours / $cp") $ours")
        diff -r "$ram/src" "$ram/ours"
    done
    printf '%s\n' "${rows[@]}" | sort -n | sed -n 3p |
        while read -r of_rsync of_cp ours; do echo "  $1: $ours s, of rsync's $of_rsync, of cp's $of_cp"; done
}
tree() { # FOLDERS: of 100 files each, 0 to 12 kB
    perl -e 'for my $d (1 .. $ARGV[1]) { mkdir "$ARGV[0]/$d"; for my $f (1 .. 100) {
        open my $o, ">", "$ARGV[0]/$d/f$f"; print $o "x" x int(rand(12001)); } }' "$dir/ram/src" "$1"
}
some() { # N: one file of a hundred
    local d
    for d in "$dir/ram/src"/*/; do echo "$1 $1" > "${d}f$((1 + $1))"; done
}
emptied() {
    rm -rf "$dir"/ram/{src,ours,theirs}
    mkdir "$dir/ram/src"
    tree 300
    cp -a "$dir/ram/src" "$dir/ram/ours" && cp -a "$dir/ram/src" "$dir/ram/theirs"
    rm -rf "$dir/ram/src" && mkdir "$dir/ram/src"
}
copies_small() {
    echo "== copies_small: 30,000 files of 0 to 12 kB in memory (goals: at most 0.5 of rsync's, 1 of cp -a's)"
    has rsync || return 0
    mkdir "$dir/ram/src" && tree 300
    compare_small "new" -a fresh cp
    compare_small "nothing new" -a :
    compare_small "one of a hundred changed" -a some
    compare_small "all deleted" "-a --delete" emptied
}
copies() {
    echo "== copies: local, 1 GiB or 100,000 files of 1 KiB, in memory (goals: 0.6, 0.2, -, -, 1)"
    has rsync || return 0
    local ram=$dir/ram d
    mkdir "$ram/src"
    random "$ram/src/f" $((1024 * MiB))
    cp -a "$ram/src" "$ram/ours" && cp -a "$ram/src" "$ram/theirs"
    compare "equal, -c" -ac -ac :
    compare "1 % of the pages changed, --inplace" "-a --inplace" "-a --inplace" scatter
    compare "1 % of the pages changed" -a -a scatter
    compare "64 bytes in front" -a -a insert
    compare "other time, same bytes" -a -a touched
    rm -rf "$ram"/{src,ours,theirs}
    for d in $(seq 100); do mkdir -p "$ram/src/$d" && head -c 1024000 /dev/urandom | split -b 1024 -a 3 - "$ram/src/$d/f"; done
    compare "100,000 files, new" -a -a fresh
    compare "100,000 files, unchanged" -a -a :
    compare "100,000 files, unchanged, -c" -ac -ac :
}

if [ $# = 0 ]; then
    set -- one beside_rsync receivers staggered tbf loss room slow second small lc0 memory copies copies_small
fi
for row in "$@"; do
    declare -F "$row" > /dev/null || { echo "no row $row"; exit 2; }
    "$row"
    rm -rf "$dir"/ram/* "$dir"/disk/*
done
