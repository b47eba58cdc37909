//! Ends of streams: exit codes, broken streams, slow services.

use crate::prelude::*;

/// Serves by a shell command, and waits until it is ready.
fn serve(member: &Member, protocol: &str, command: &str) -> Result<Process> {
    let args = ["serve", protocol, "--allow-all", "--", "sh", "-c", command];
    let serving = member.host.spawn("lcroute-streams", &args)?;
    serving.says("serving")?;
    Ok(serving)
}

/// Runs `connect` with this input, which stays open; prints output, exit code and errors.
const OPEN_INPUT: &str = r#"
import subprocess, sys, threading
protocol, size = sys.argv[1], int(sys.argv[2])
connect = subprocess.Popen(["lcroute-streams", "connect", "beta", protocol],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
def feed():
    try:
        connect.stdin.write(b"x" * size)
        connect.stdin.flush()
    except BrokenPipeError:
        pass
threading.Thread(target=feed, daemon=True).start()
errors = []
listener = threading.Thread(target=lambda: errors.append(connect.stderr.read()), daemon=True)
listener.start()
said = connect.stdout.read()
code = connect.wait()
listener.join()
print(len(said), said[-20:].decode(errors="replace").strip(), code, b"".join(errors).decode().strip(), sep="|", flush=True)
import os
os._exit(0)
"#;

fn with_open_input(host: &Host, protocol: &str, size: usize) -> Result<String> {
    let said = host.run("python3", &["-c", OPEN_INPUT, protocol, &size.to_string()])?;
    Ok(said.success()?.stdout.trim().to_owned())
}

#[test]
fn connect_ends_with_the_command_and_passes_on_its_exit_code() {
    with_members("streams-exit", ["alpha", "beta"], |_, [alpha, beta]| {
        let mut served = Vec::new();
        let mut said = |protocol: &str, command: &str, size: usize| -> Result<String> {
            served.push(serve(beta, protocol, command)?);
            with_open_input(&alpha.host, protocol, size)
        };
        // standard input stays open in all of these
        ensure!(said("/bye/1", "sleep 1; echo bye", 2)? == "4|bye|0|");
        let answer = said("/three/1", "echo answer; exit 3", 9_000_000)?;
        ensure!(answer == "7|answer|3|", "{answer}");
        let part = said("/part/1", "head -c 3", 9_000_000)?;
        ensure!(part == "3|xxx|0|", "{part}");
        let much = said("/much/1", "yes | head -c 5000000; exit 7", 2)?;
        ensure!(
            much.starts_with("5000000|") && much.ends_with("|7|"),
            "{much}"
        );
        let killed = said("/killed/1", "echo partly; kill -9 $$", 9_000_000)?;
        ensure!(
            killed == "7|partly|137|lcroute: the command on beta was ended by SIGKILL",
            "{killed}"
        );
        // a grandchild with the output belongs to it, as with ssh
        let late = said("/late/1", "(sleep 1; echo late) & exit 4", 2)?;
        ensure!(late == "5|late|4|", "{late}");
        let missing = said("/missing/1", "exec /no/such/command", 2)?;
        ensure!(missing.ends_with("|127|"), "{missing}");
        // one direction closes before the other answers
        let _count = serve(beta, "/count/1", "wc -c; exit 5")?;
        let input = "head -c 3000000 /dev/zero | lcroute-streams connect beta /count/1";
        let counted = alpha.host.sh(input)?;
        holds!(
            counted.code == 5 && counted.stdout == "3000000\n",
            "{counted:?}"
        )
    });
}

/// Copies 200,000 bytes slowly through `connect`, with non-blocking standard input and output.
const NON_BLOCKING: &str = r#"
import os, subprocess, time
def pipe(ours_is_write):
    read, write = os.pipe()
    os.set_blocking(write if not ours_is_write else read, False)
    return read, write
in_read, in_write = pipe(True)
out_read, out_write = pipe(False)
connect = subprocess.Popen(["lcroute-streams", "connect", "beta", "/cat/1"], stdin=in_read, stdout=out_write)
os.close(in_read), os.close(out_write)
sent = bytes(n % 251 for n in range(200_000)) * 5
pid = os.fork()
if pid == 0:
    os.close(out_read)
    for at in range(0, len(sent), 50_000):
        os.write(in_write, sent[at:at + 10_000]); time.sleep(0.1)
        rest = sent[at + 10_000:at + 50_000]
        while rest:
            rest = rest[os.write(in_write, rest):]
    os._exit(0)
os.close(in_write)
got = b""
while piece := os.read(out_read, 30_000):
    got += piece
    time.sleep(0.01)
os.waitpid(pid, 0)
print(connect.wait(), len(got), got == sent)
"#;

#[test]
fn all_bytes_pass_standard_input_and_output_that_do_not_block() {
    with_members("streams-nonblock", ["alpha", "beta"], |_, [alpha, beta]| {
        let _cat = serve(beta, "/cat/1", "cat")?;
        let said = alpha
            .host
            .run("python3", &["-c", NON_BLOCKING])?
            .success()?;
        holds!(said.stdout == "0 1000000 True\n", "{said:?}")
    });
}

/// A client of `forward` on TCP: prints the number of bytes, and the kind of end.
const CLIENT: &str = r#"
import socket, sys
client = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
client.sendall(sys.argv[2].encode())
count = 0
print("connected", flush=True)
try:
    while piece := client.recv(65536):
        count += len(piece)
        print("some", flush=True)
    print(count, "end", flush=True)
except ConnectionResetError:
    print(count, "reset", flush=True)
"#;

/// A server that sends a part, and resets the connection.
const RESETS: &str = r#"
import socket, struct
server = socket.create_server(("127.0.0.1", 8000))
print("listens", flush=True)
while True:
    client, _ = server.accept()
    client.sendall(b"a part")
    client.recv(1)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
"#;

#[test]
fn nothing_that_broke_off_looks_whole() {
    with_members("streams-broken", ["alpha", "beta"], |_, [alpha, beta]| {
        let client =
            |port: &str, word: &str| alpha.host.spawn("python3", &["-c", CLIENT, port, word]);
        let forward = |port: &str, protocol: &str| -> Result<Process> {
            let (at, to) = (format!("127.0.0.1:{port}"), format!("beta:{protocol}"));
            let forward = alpha
                .host
                .spawn("lcroute-streams", &["forward", &at, &to])?;
            exceeds(0, || Ok(forward.stdout().len()))?;
            Ok(forward)
        };
        let ends = |client: &Process, how: &str| {
            eventually("the client sees the end", || {
                let said = client.stdout();
                holds!(said.trim().ends_with(how), "{said}")
            })
        };
        // a server that resets, with a client that waits
        let resets = beta.host.spawn("python3", &["-u", "-c", RESETS])?;
        becomes("listens\n", || Ok(resets.stdout()))?;
        beta.host.configure(
            "[[serve]]\nprotocol = \"/resets/1\"\nto = \"127.0.0.1:8000\"\nallow_all = true\n",
        )?;
        let streams = beta.host.spawn("lcroute-streams", &["streams"])?;
        let _resets = forward("8001", "/resets/1")?;
        eventually("it is reset after all that came", || {
            let mut client = client("8001", "xx")?;
            client.wait(DEADLINE)?;
            holds!(client.stdout().trim().ends_with("6 reset"))
        })?;
        // a killed command, and one that ends
        let _killed = serve(beta, "/killed/1", "echo word; kill -9 $$")?;
        let _ends = serve(beta, "/ends/1", "echo word; exit 1")?;
        let (_to_killed, _to_ends) = (forward("8002", "/killed/1")?, forward("8003", "/ends/1")?);
        ends(&client("8002", "much")?, "5 reset")?;
        ends(&client("8003", "much")?, "5 end")?;
        // an upload with a killed sender: the command's input fails instead of ending
        let command = "if cat >up; then echo whole; else echo broken; fi >>how";
        let _up = serve(beta, "/up/1", command)?;
        let up = "exec 3<>fifo; echo some >&3; exec lcroute-streams connect beta /up/1 <&3";
        alpha.host.call("mkfifo fifo")?;
        let sender = alpha.host.spawn("sh", &["-c", up])?;
        let how = |expected: &str| {
            eventually("the command knows how it ended", || {
                let said = fs::read_to_string(beta.host.path("how")).unwrap_or_default();
                holds!(said == expected, "{said}")
            })
        };
        becomes("some\n", || Ok(fs::read_to_string(beta.host.path("up"))?))?;
        sender.signal(Signal::SIGKILL)?;
        how("broken\n")?;
        let whole = alpha
            .host
            .sh("echo all | lcroute-streams connect beta /up/1")?;
        ensure!(whole.code == 0, "{whole:?}");
        how("broken\nwhole\n")?;
        // the far program for streams is killed: readers and writers get an error
        let _some = serve(beta, "/some/1", "echo some; cat")?;
        let _to_some = forward("8004", "/some/1")?;
        let client = client("8004", "x")?;
        let fed = "exec 3<>fed; exec lcroute-streams connect beta /some/1 <&3";
        alpha.host.call("mkfifo fed")?;
        let mut connect = alpha.host.spawn("sh", &["-c", fed])?;
        eventually("both have some", || {
            ensure!(client.stdout().contains("some"), "{}", client.stdout());
            holds!(connect.stdout() == "some\n", "{}", connect.stderr())
        })?;
        streams.signal(Signal::SIGKILL)?;
        ends(&client, "reset")?;
        connect.expect_exit(DEADLINE, 1)?;
        holds!(connect.stderr().contains("broke off"))
    });
}

/// Listens without accepting, with the smallest backlog, and fills it.
const FULL: &str = r#"
import socket, time
server = socket.socket(socket.AF_UNIX)
server.bind("full.sock")
server.listen(0)
waiting = []
for _ in range(8):
    client = socket.socket(socket.AF_UNIX)
    client.setblocking(False)
    try:
        client.connect("full.sock")
    except BlockingIOError:
        pass
    waiting.append(client)
print("full", flush=True)
time.sleep(1000)
"#;

#[test]
fn a_slow_service_harms_itself_alone() {
    with_members("streams-slow", ["alpha", "beta"], |_, [alpha, beta]| {
        let full = beta.host.spawn("python3", &["-u", "-c", FULL])?;
        becomes("full\n", || Ok(full.stdout()))?;
        let socket = beta.host.path("full.sock");
        beta.host.configure(&format!(
            "[[serve]]\nprotocol = \"/full/1\"\nto = \"unix:{}\"\nallow_all = true\n",
            socket.display()
        ))?;
        let _streams = beta.host.spawn("lcroute-streams", &["streams"])?;
        let _cat = {
            becomes(true, || Ok(beta.host.path("run/streams.sock").exists()))?;
            serve(beta, "/cat/1", "cat")?
        };
        let _deaf = serve(beta, "/deaf/1", "exec sleep 1000")?;
        // a stream that continues throughout
        alpha.host.call("mkfifo fifo")?;
        let held = "exec 3<>fifo; echo first >&3; exec lcroute-streams connect beta /cat/1 <&3";
        let mut held = alpha.host.spawn("sh", &["-c", held])?;
        becomes("first\n", || Ok(held.stdout()))?;
        let mut slow = Vec::new();
        for _ in 0..6 {
            let connect = ["connect", "beta", "/full/1"];
            slow.push(alpha.host.spawn("lcroute-streams", &connect)?);
            let flood = "exec lcroute-streams connect beta /deaf/1 </dev/zero";
            slow.push(alpha.host.spawn("sh", &["-c", flood])?);
        }
        // clients of the full service get an error
        for n in (0..slow.len()).step_by(2) {
            slow[n].expect_exit(DEADLINE, 1)?;
            ensure!(slow[n].stderr().contains("cannot be reached"));
        }
        let much = "head -c 20000000 /dev/zero | lcroute-streams connect beta /cat/1 | wc -c";
        let said = alpha.host.sh(much)?.success()?;
        ensure!(said.stdout == "20000000\n", "{said:?}");
        alpha.host.sh("echo second >fifo")?.success()?;
        becomes("first\nsecond\n", || Ok(held.stdout()))?;
        holds!(held.is_running(), "{}", held.stderr())
    });
}

/// Starts 150 programs at the same moment, before the program for streams runs.
const CROWD: &str = r#"
import collections, subprocess, sys
def begin(n):
    return subprocess.Popen(["lcroute-streams", "connect", "beta", "/echo/1"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
crowd = [begin(n) for n in range(150)]
ends = collections.Counter()
for n, one in enumerate(crowd):
    out, err = one.communicate(b"word %d\n" % n)
    if one.returncode == 0 and out == b"word %d\n" % n:
        ends["served"] += 1
    elif one.returncode and err.strip():
        ends[err.decode().strip()] += 1
    else:
        ends["silent", one.returncode, len(out), err] += 1
print(dict(ends))
"#;

#[test]
fn of_many_programs_at_once_each_is_served() {
    with_members("streams-crowd", ["alpha", "beta"], |_, [alpha, beta]| {
        let _echo = serve(beta, "/echo/1", "cat")?;
        let said = alpha.host.run("python3", &["-c", CROWD])?.success()?;
        holds!(said.stdout == "{'served': 150}\n", "{}", said.stdout)
    });
}

#[test]
#[ignore = "long: `make test-all`"]
fn whoever_waits_or_may_not_is_told_what_to_do() {
    with_members("streams-told", ["alpha", "beta"], |_, [alpha, beta]| {
        let _echo = serve(beta, "/echo/1", "cat")?;
        let table = "add table inet filter; add chain inet filter input { type filter hook input priority 0; policy drop; }; \
                     add rule inet filter input meta l4proto icmpv6 accept; add rule inet filter input iifname != lc0 accept";
        beta.host.run("nft", &[table])?.success()?;
        let closed = alpha
            .host
            .run("lcroute-streams", &["connect", "beta", "/echo/1"])?;
        let first = closed.stderr.lines().next().unwrap_or_default().to_owned();
        closed.exits(3)?;
        shows_all(&first, &["waiting for beta", "s at most", "14247"])?;
        // a user without a permitted group
        let run = |verb: &[&str]| {
            let args = [
                &["--reuid", "nobody", "--clear-groups", "lcroute-streams"],
                verb,
            ]
            .concat();
            alpha.host.run("setpriv", &args)
        };
        let _kept = alpha.host.spawn("lcroute-streams", &["streams"])?;
        becomes(true, || Ok(alpha.host.path("run/streams.sock").exists()))?;
        for verb in [
            &["connect", "beta", "/echo/1"][..],
            &["forward", "127.0.0.1:8080", "beta:/echo/1"],
            &["serve", "/x/1", "--", "cat"],
        ] {
            run(verb)?.fails(4, "sudo usermod -aG lcroute nobody")?;
        }
        Ok(())
    });
}
