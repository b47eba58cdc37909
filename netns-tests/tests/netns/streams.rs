//! Streams between programs of two nodes: protocol, permission, secrecy on the path, ends.

use crate::library;
use crate::prelude::*;
use crate::private::remembers;

/// Documented exit codes.
const FAILED: i32 = 1;
const UNREACHABLE: i32 = 3;
const NOT_PERMITTED: i32 = 4;

/// ```text
///   alpha ── one ── two ── beta
/// ```
fn line(lab: &Lab) -> Result<Network> {
    let mut network = lab.network(lab.hosts_in_a_row(&["alpha", "one", "two", "beta"])?)?;
    network.start_routed()?;
    Ok(network)
}

/// Serves by a command, and waits until it is ready.
fn serve(member: &Member, protocols: &str, more: &[&str], command: &[&str]) -> Result<Process> {
    let args = [&["serve", protocols], more, &["--"], command].concat();
    let serving = member.host.spawn("lcroute-streams", &args)?;
    serving.says("serving")?;
    Ok(serving)
}

/// Runs `lcroute connect` with this standard input, by a shell.
fn connect(host: &Host, input: &str, args: &str) -> Result<Output> {
    host.sh(&format!("{input} | lcroute-streams connect {args}"))
}

#[test]
fn nodes_agree_on_a_protocol_and_nobody_between_them_reads_what_they_say() {
    world("streams-agree", |lab| {
        let mut network = line(lab)?;
        let pids = [1, 2].map(|at| network.members[at].daemon().map(|d| d.pid()));
        let [alpha, one, two, beta] = network.nodes()?;
        let allow = ["--allow", "alpha", "--allow", "label:role=admin"];
        let protocols = "/demo/echo/2,/demo/echo/1";
        let _serving = serve(
            beta,
            protocols,
            &allow,
            &["sh", "-c", "cat; echo $LC_NAME $LC_PROTOCOL"],
        )?;
        let secret = "meet at the old mill";
        let said = connect(
            &alpha.host,
            &format!("echo {secret}"),
            "beta /demo/echo/3,/demo/echo/2 -v",
        )?;
        let said = said.success()?;
        ensure!(
            said.stdout == format!("{secret}\nalpha /demo/echo/2\n"),
            "{said:?}"
        );
        ensure!(
            said.stderr.contains("beta (12D3KooW") && said.stderr.contains("/demo/echo/2"),
            "{said:?}"
        );
        let by_id = connect(
            &alpha.host,
            "true",
            &format!("{} /demo/echo/1", beta.peer_id()?),
        )?;
        ensure!(by_id.success()?.stdout == "alpha /demo/echo/1\n");
        // none in common: both lists, for a permitted node
        let none = connect(&alpha.host, "true", "beta /demo/echo/9")?;
        none.exits(FAILED)?;
        ensure!(
            none.stderr.contains("/demo/echo/2, /demo/echo/1")
                && none.stderr.contains("/demo/echo/9"),
            "{none:?}"
        );
        // a node without permission learns nothing
        for protocol in ["/demo/echo/2", "/demo/echo/9"] {
            let refused = connect(&one.host, "true", &format!("beta {protocol}"))?;
            ensure!(
                refused.code == NOT_PERMITTED && !refused.stderr.contains("echo"),
                "{refused:?}"
            );
        }
        for nowhere in ["nobody", "two"] {
            let missing = connect(&alpha.host, "true", &format!("{nowhere} /demo/echo/1"))?;
            ensure!(missing.code == UNREACHABLE, "{nowhere}: {missing:?}");
        }
        // no other unicast is carried
        let to = beta.address()?.to_string();
        ensure!(
            alpha
                .host
                .run("ping", &["-6", "-c", "1", "-W", "2", &to])?
                .code
                != 0
        );
        let script = format!(
            "import socket\ns = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)\ns.sendto(b'x', ('{to}', 5000))"
        );
        alpha.host.run("python3", &["-c", &script])?;
        at_least(2, || alpha.counter("drops/unicast_off"))?;
        for pid in pids {
            ensure!(!remembers(pid?, secret.as_bytes())?);
        }
        let _ = two;
        Ok(())
    });
}

#[test]
fn a_killed_router_breaks_no_stream() {
    world("streams-reroute", |lab| {
        let hosts = lab.closed_hosts(&["alpha", "left", "right", "beta"])?;
        hosts[0].cut_from([&hosts[3]])?;
        let mut network = lab.network(hosts)?;
        network.start_routed()?;
        let [alpha, left, right, beta] = network.nodes()?;
        let (_, beta_id) = (left, beta.peer_id()?);
        let size = 100_000_000;
        let noise = alpha.host.path("noise");
        fs::write(&noise, lcroute_demo::lab::noise(7, size))?;
        let got = beta.host.path("got");
        let put = format!("cat > {}; echo done", got.display());
        let _serving = serve(beta, "/put/1", &["--allow-all"], &["sh", "-c", &put])?;
        let via = alpha
            .routes()?
            .into_iter()
            .find(|r| r["peer_id"] == *beta_id);
        let via = via.map(|r| r["via"].clone()).unwrap_or_default();
        let is_left = via == *left.peer_id()?;
        ensure!(is_left || via == *right.peer_id()?, "{via}");
        let input = format!("lcroute-streams connect beta /put/1 < {}", noise.display());
        let mut put = alpha.host.spawn("sh", &["-c", &input])?;
        exceeds(2_000_000, || Ok(fs::metadata(&got)?.len()))?;
        network.members[if is_left { 1 } else { 2 }]
            .daemon()?
            .kill()?;
        ensure!(
            fs::metadata(&got)?.len() < size as u64,
            "it was all there already"
        );
        put.expect_exit(DEADLINE * 2, 0)?;
        ensure!(put.stdout() == "done\n", "{}", put.stdout());
        holds!(fs::read(&noise)? == fs::read(&got)?, "bytes differ")
    });
}

#[test]
fn streams_end_as_they_should() {
    with_members("streams-ends", ["alpha", "beta"], |_, [alpha, beta]| {
        let mut serving = serve(beta, "/cat/1", &["--allow", "alpha"], &["cat"])?;
        // an upgrade of either daemon breaks nothing
        let mut held = begin(alpha, beta)?;
        for member in [alpha, beta] {
            member.host.call("lcroute reload --exec")?;
            let after = connect(&alpha.host, "echo again", "beta /cat/1")?.success()?;
            ensure!(after.stdout == "again\n", "{after:?}");
        }
        ensure!(held.is_running(), "{}", held.stdout());
        // a kill does, once the next program receives packets of its streams
        let control = beta.host.path("run/control.sock").display().to_string();
        let killed = ["-9", "-f", &format!("{control} streams --idle")];
        beta.host.run("pkill", &killed)?.success()?;
        becomes(false, || Ok(serving.is_running()))?;
        let mut serving = serve(beta, "/cat/1", &["--allow", "alpha"], &["cat"])?;
        broke_off(&held)?;
        let after = connect(&alpha.host, "echo again", "beta /cat/1")?.success()?;
        ensure!(after.stdout == "again\n", "{after:?}");
        let held = begin(alpha, beta)?;
        // the server ends: its streams break
        serving.signal(Signal::SIGTERM)?;
        ensure!(serving.wait(DEADLINE)? == 0, "SIGTERM");
        broke_off(&held)?;
        // a killed client ends the process
        let command = ["sh", "-c", "cat; echo gone >> ended"];
        let _serving = serve(beta, "/cat/1", &["--allow", "alpha"], &command)?;
        let held = begin(alpha, beta)?;
        // other processes of this name belong to other tests
        let parent = held.pid().to_string();
        let killed = ["-9", "-P", &parent, "-f", "lcroute-streams connect"];
        alpha.host.run("pkill", &killed)?.success()?;
        ended(beta)?;
        drop(held);
        // an expulsion during a stream
        let _serving = serve(alpha, "/cat/1", &["--allow", "beta"], &command)?;
        let _held = begin(beta, alpha)?;
        alpha.host.call("lcroute revoke beta")?;
        ended(alpha)?;
        Ok(())
    });
}

/// Starts a stream that has carried data both ways, and stays open.
fn begin(from: &Member, to: &Member) -> Result<Process> {
    let to = to.host.name();
    let script = format!(
        "exec 2>&1; mkfifo fifo.$$; exec 3<>fifo.$$; echo here >&3\n\
         lcroute-streams connect {to} /cat/1 <fifo.$$; echo exit $?"
    );
    let begun = from.host.spawn("sh", &["-c", &script])?;
    eventually("it goes there and back", || {
        holds!(begun.stdout().starts_with("here\n"), "{}", begun.stdout())
    })?;
    Ok(begun)
}

fn broke_off(stream: &Process) -> Result<()> {
    stream.prints("broke off\nexit 1")
}

/// Waits until the serving process has ended with its message.
fn ended(member: &Member) -> Result<()> {
    eventually("its process has ended", || {
        let said = fs::read_to_string(member.host.path("ended")).unwrap_or_default();
        holds!(said == "gone\n", "{said}")
    })
}

#[test]
fn servers_that_are_there_already_are_reached_until_the_configuration_says_no_more() {
    with_members("streams-servers", ["alpha", "beta"], |_, [alpha, beta]| {
        fs::create_dir_all(beta.host.path("site"))?;
        fs::write(beta.host.path("site/page"), "a page of beta\n")?;
        let http = crate::words("-m http.server 8000 --bind 127.0.0.1 -d site");
        let _http = beta.host.spawn("python3", &http)?;
        let serve = |protocol: &str, allow: &str| {
            format!("[[serve]]\nprotocol = \"{protocol}\"\nto = \"127.0.0.1:8000\"\n{allow}\n")
        };
        let both = serve("/http/1", "allow = [\"alpha\"]") + &serve("/other/1", "allow_all = true");
        let both = both + "[streams]\nmetrics = \"[::1]:9120\"\n";
        beta.host.configure(&both)?;
        let mut streams = beta.host.spawn("lcroute-streams", &["streams"])?;
        let forwarding = ["forward", "127.0.0.1:8080", "beta:/http/1"];
        let mut forward = alpha.host.spawn("lcroute-streams", &forwarding)?;
        let fetch = || {
            alpha
                .host
                .ask("curl", &["-sS", "-m", "20", "http://127.0.0.1:8080/page"])
        };
        becomes("a page of beta\n", || Ok(fetch()?.success()?.stdout))?;
        // beta's metrics show it
        let metrics = beta
            .host
            .run("curl", &["-sSg", "http://[::1]:9120/metrics"])?;
        let metrics = metrics.success()?.stdout;
        for line in ["lcroute_streams_serving 2", "lcroute_streams_connections 1"] {
            ensure!(metrics.lines().any(|l| l == line), "{line}: {metrics}");
        }
        let status = beta.host.call("lcroute status")?.stdout;
        shows_all(&status, &["with 1 node, serving /http/1, /other/1"])?;
        let status = beta.host.call("lcroute status --json")?;
        let status: Value = serde_json::from_str(&status.stdout)?;
        ensure!(status["streams"]["accepted"].as_u64() >= Some(1));
        let near = beta.host.call("lcroute members --json")?;
        let near: Vec<Value> = serde_json::from_str(&near.stdout)?;
        let near = near.iter().find(|m| m["name"] == "alpha");
        ensure!(
            near.is_some_and(|m| m["hops"] == 1 && m["rtt_ms"].is_number()),
            "{near:?}"
        );
        // and so does its doctor, when the firewall closes
        let doctor = || -> Result<(Value, String)> {
            let said = beta.host.run("lcroute", &["doctor", "--json"])?;
            let said: Value = serde_json::from_str(&said.stdout)?;
            let checks = said["checks"].as_array().cloned().unwrap_or_default();
            let check = checks.into_iter().find(|check| check["name"] == "streams");
            let check = check.unwrap_or_default();
            let remedy = check["remedy"].as_str().unwrap_or_default().to_owned();
            Ok((check["state"].clone(), remedy))
        };
        ensure!(doctor()?.0 == "ok", "{:?}", doctor()?);
        let table = "add table inet filter; add chain inet filter input { type filter hook input priority 0; policy drop; }; \
                     add rule inet filter input meta l4proto icmpv6 accept; add rule inet filter input iifname != lc0 accept";
        beta.host.run("nft", &[table])?.success()?;
        let (state, remedy) = doctor()?;
        ensure!(state == "warn", "{state}");
        connect(&alpha.host, "true", "beta /other/1")?.exits(UNREACHABLE)?;
        let rule = remedy.lines().next().unwrap_or_default();
        beta.host.sh(rule)?.success()?;
        ensure!(doctor()?.0 == "ok", "{:?}", doctor()?);
        // git over a command: one direction closes before the other answers
        beta.host.call("git init -q --bare project.git")?;
        let receive = ["git", "receive-pack", "project.git"];
        let _git = self::serve(beta, "/git/1", &["--allow", "alpha"], &receive)?;
        let push = "set -e; git init -q work; cd work; git config user.name a; git config user.email a@a\n\
            git config protocol.ext.allow user; echo word > file; git add file; git commit -qm first\n\
            git push -q 'ext::lcroute-streams connect beta /git/1' HEAD:refs/heads/main";
        alpha.host.sh(push)?.success()?;
        let log = ["--git-dir", "project.git", "log", "--format=%s", "main"];
        ensure!(beta.host.run("git", &log)?.success()?.stdout == "first\n");
        // a protocol removed from the configuration ends, and the rest continues
        beta.host
            .write("lcroute.toml", serve("/other/1", "allow_all = true"))?;
        streams.signal(Signal::SIGHUP)?;
        eventually("it is served no more", || {
            let none = connect(&alpha.host, "true", "beta /http/1")?;
            none.fails(FAILED, "/other/1")
        })?;
        ensure!(fetch()?.code != 0, "it is forwarded still");
        for process in [&mut forward, &mut streams] {
            process.signal(Signal::SIGTERM)?;
            process.expect_exit(DEADLINE, 0)?;
        }
        holds!(!beta.host.path("run/streams.sock").exists())
    });
}

/// Starts the program of streams on both nodes.
fn programs_of(alpha: &Member, beta: &Member) -> Result<[Process; 2]> {
    let [one, other] = [alpha, beta].map(|node| node.host.spawn("lcroute-streams", &["streams"]));
    let programs = [one?, other?];
    eventually("both answer", || {
        counted(&alpha.host).and(counted(&beta.host))
    })?;
    Ok(programs)
}

#[test]
fn a_thousand_streams_and_one_that_nobody_reads_take_bounded_memory() {
    with_members("streams-many", ["alpha", "beta"], |_, [alpha, beta]| {
        let programs = programs_of(alpha, beta)?;
        let serve = library::python(&beta.host, "stream_serve.py")?;
        let serve = [&serve[..], &["/capitals/1".to_owned()]].concat();
        let _capitals = library::spawn(&beta.host, &serve)?;
        // short programs in three languages
        let python = library::python(&alpha.host, "stream_echo.py")?;
        let rust = vec![env!("CARGO_BIN_EXE_stream-echo").to_owned()];
        let c = vec![library::compile(&alpha.host, "stream_echo")?];
        for program in [python, rust, c] {
            let args = ["beta", "/capitals/1", "a word"].map(str::to_owned);
            let args: Vec<&str> = program.iter().chain(&args).map(String::as_str).collect();
            eventually("it is answered", || {
                let said = alpha.host.ask("env", &args)?.success()?;
                holds!(said.stdout == "alpha: A WORD\n", "{said:?}")
            })?;
        }
        alpha.host.write("many.py", MANY)?;
        let many = alpha.host.spawn("python3", &["many.py"])?;
        becomes("all\n", || Ok(many.stdout()))?;
        ensure!(counted(&beta.host)?["streams"] == 1_000);
        for program in &programs {
            let memory = program.peak_memory()?;
            ensure!(memory < 128 << 20, "{memory} bytes");
        }
        drop(many);
        becomes(0, || Ok(counted(&beta.host)?["streams"].clone()))?;
        // without a reader the writer waits
        let _deaf = self::serve(beta, "/deaf/1", &["--allow-all"], &["sleep", "60"])?;
        let flood =
            "dd if=/dev/zero bs=1M count=200 2>/dev/null | lcroute-streams connect beta /deaf/1";
        let mut flood = alpha.host.spawn("sh", &["-c", flood])?;
        let sent = || -> Result<u64> {
            Ok(counted(&alpha.host)?["tx_bytes"]
                .as_u64()
                .unwrap_or_default())
        };
        eventually("the window is full", || {
            let (before, after) = (sent()?, {
                sleep(Duration::from_secs(1));
                sent()?
            });
            holds!(after > 1_000_000 && before == after, "{after}")
        })?;
        ensure!(flood.is_running() && sent()? < 32_000_000, "{}", sent()?);
        for program in &programs {
            let memory = program.peak_memory()?;
            ensure!(memory < 128 << 20, "{memory} bytes");
        }
        Ok(())
    });
}

#[test]
fn a_flood_of_handshakes_hurts_no_stream() {
    world("streams-flood", |lab| {
        let network = lab.closed_network(["alpha", "beta", "evil"])?;
        let [alpha, beta, evil] = network.nodes()?;
        let program = beta.host.spawn("lcroute-streams", &["streams"])?;
        eventually("it answers", || counted(&beta.host).map(drop))?;
        let command = ["sh", "-c", "cat > got; echo done"];
        let _serving = serve(beta, "/put/1", &["--allow", "alpha"], &command)?;
        let _echo = serve(beta, "/cat/1", &["--allow", "alpha"], &["cat"])?;
        let mut held = begin(alpha, beta)?;
        let args = [evil.address()?.to_string(), beta.address()?.to_string()];
        let flood = env!("CARGO_BIN_EXE_handshake-flood");
        let mut flood = evil.host.spawn(flood, &[&args[0], &args[1]])?;
        let refused = || -> Result<u64> {
            let refused = &counted(&beta.host)?["refused"]["handshakes"];
            Ok(refused.as_u64().unwrap_or_default())
        };
        exceeds(100, &refused)?;
        // a new stream, also over a new connection, with much data
        let noise = alpha.host.path("noise");
        fs::write(&noise, lcroute_demo::lab::noise(7, 20 << 20))?;
        let put = format!("cat {}", noise.display());
        let before = refused()?;
        let said = connect(&alpha.host, &put, "beta /put/1")?.success()?;
        ensure!(said.stdout == "done\n", "{said:?}");
        ensure!(fs::read(&noise)? == fs::read(beta.host.path("got"))?);
        exceeds(before, &refused)?;
        ensure!(flood.is_running(), "{}", flood.stderr());
        ensure!(held.is_running(), "{}", held.stdout());
        let memory = program.peak_memory()?;
        ensure!(memory < 128 << 20, "{memory} bytes");
        // the library keeps connections that their first packet closed: they stay few
        let connections = || -> Result<u64> {
            Ok(counted(&beta.host)?["connections"]
                .as_u64()
                .unwrap_or_default())
        };
        at_least(16, &connections)?;
        let before = connections()?;
        sleep(Duration::from_secs(3));
        let (after, refused) = (connections()?, refused()?);
        ensure!(after < before + 8, "{before}, {after}; {refused} refused");
        drop(flood);
        ensure!(held.is_running(), "{}", held.stdout());
        held.stop()?;
        let mut after = begin(alpha, beta)?;
        holds!(after.is_running(), "{}", after.stdout())
    });
}

#[test]
fn ssh_goes_over_a_stream() {
    with_members("streams-ssh", ["alpha", "beta"], |_, [alpha, beta]| {
        let file = |host: &Host, name: &str| host.path(name).display().to_string();
        let (key, host_key) = (file(&alpha.host, "key"), file(&beta.host, "host_key"));
        let keygen = ["-q", "-t", "ed25519", "-N", "", "-f", &key];
        alpha.host.run("ssh-keygen", &keygen)?.success()?;
        let make = ["-t", "ed25519", "-f", &host_key];
        beta.host.run("dropbearkey", &make)?.success()?;
        // its home has only this key, as far as this server sees
        let server = format!(
            "mount -t tmpfs -o mode=700 none /root && mkdir -m 700 /root/.ssh && cp {key}.pub /root/.ssh/authorized_keys\n\
             exec dropbear -F -E -s -p 127.0.0.1:22 -r {host_key}"
        );
        let _sshd = beta
            .host
            .spawn("unshare", &["--mount", "sh", "-ec", &server])?;
        beta.host.configure(
            "[[serve]]\nprotocol = \"/ssh/1\"\nto = \"127.0.0.1:22\"\nallow = [\"alpha\"]\n",
        )?;
        let _streams = beta.host.spawn("lcroute-streams", &["streams"])?;
        let known = format!("UserKnownHostsFile={}", file(&alpha.host, "known"));
        let ssh = [
            "-F",
            "none",
            "-i",
            &key,
            "-o",
            &known,
            "-o",
            "StrictHostKeyChecking=accept-new",
            "-o",
            "BatchMode=yes",
            "-o",
            "ProxyCommand=lcroute-streams connect beta /ssh/1",
            "root@beta",
        ];
        let ssh = |command: &str| {
            let args = [&ssh[..], &[command]].concat();
            alpha.host.run("ssh", &args)
        };
        eventually("a shell of beta", || {
            let said = ssh("ip -6 -o addr show lc0")?;
            let said = said.success()?;
            let address = beta.address()?.to_string();
            said.prints(&address)
        })?;
        holds!(ssh("exit 7")?.code == 7, "its exit code")
    });
}

/// Ansible's work on beta, with expected results.
const PLAY: &str = r#"
- hosts: beta
  gather_facts: false
  tasks:
    - ansible.builtin.setup: { gather_subset: [min] }
    - ansible.builtin.copy: { content: "{{ 'word ' * 300000 }}", dest: "{{ there }}/copied", mode: "0644" }
    - ansible.builtin.shell: "wc -c < {{ there }}/copied; echo sorry >&2; exit 3"
      register: counted
      failed_when: counted.rc != 3 or counted.stdout != '1500000' or counted.stderr != 'sorry'
    - ansible.builtin.fetch: { src: "{{ there }}/copied", dest: "{{ here }}/fetched", flat: true }
"#;

#[test]
#[ignore = "`make test-all`: ansible-core, which netns-tests/setup all fetches"]
fn ansible_runs_tasks_over_streams() {
    with_members("streams-ansible", ["alpha", "beta"], |_, [alpha, beta]| {
        let shell = ["sh", "-c", "IFS= read -r line && eval \"$line\""];
        let _serving = serve(beta, "/ansible/1", &["--allow", "alpha"], &shell)?;
        alpha.host.write("play.yml", PLAY)?;
        let ansible = crate::foreign::root()?.join("ansible");
        let file = |path: &Path| path.display().to_string();
        let plugins = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/ansible");
        let environment = [
            format!("PYTHONPATH={}", file(&ansible)),
            format!("ANSIBLE_CONNECTION_PLUGINS={plugins}"),
            format!("ANSIBLE_HOME={}", file(&alpha.host.path("ansible"))),
            "ANSIBLE_PYTHON_INTERPRETER=/usr/bin/python3".to_owned(),
            "LC_ALL=C.UTF-8".to_owned(),
        ];
        let there = beta.host.path("there");
        fs::create_dir_all(&there)?;
        let play = |protocol: &str| {
            let variables = format!(
                "ansible_connection=lcroute ansible_lcroute_executable=lcroute-streams ansible_lcroute_protocol={protocol} there={} here={}",
                file(&there),
                file(&alpha.host.path("")),
            );
            let playbook = file(&ansible.join("bin/ansible-playbook"));
            let args = [
                "python3", &playbook, "-v", "-i", "beta,", "-e", &variables, "play.yml",
            ];
            let args: Vec<&str> = environment.iter().map(String::as_str).chain(args).collect();
            alpha.host.run("env", &args)
        };
        play("/ansible/1")?.success()?.prints("failed=0")?;
        let fetched = fs::read(alpha.host.path("fetched"))?;
        ensure!(fetched == "word ".repeat(300_000).as_bytes(), "other bytes");
        // a node that does not serve it is unreachable, with the reason
        let other = play("/other/1")?;
        let told = other.stdout.contains("unreachable=1")
            && (other.stdout.clone() + &other.stderr).contains("no protocol in common");
        holds!(told, "{other:?}")
    });
}

/// Receives datagrams, and answers each in capitals.
const CAPITALS: &str = r#"
import json, os, socket
program = socket.socket(socket.AF_UNIX)
program.connect(os.environ["LCROUTE_CONTROL"].replace("control.sock", "streams.sock"))
ask = {"cmd": "serve", "protocols": ["/words/1"], "allow": ["alpha"], "datagrams": True}
program.sendall(json.dumps(ask).encode() + b"\n")
print(program.recv(65536).decode(), flush=True)
line, descriptors, _, _ = socket.recv_fds(program, 65536, 1)
words = socket.socket(fileno=descriptors[0])
assert words.type == socket.SOCK_SEQPACKET
while word := words.recv(65536):
    words.send(word.upper())
print("end", flush=True)
"#;

/// Sends datagrams of all lengths, and counts correct answers.
const WORDS: &str = r#"
import json, os, socket
program = socket.socket(socket.AF_UNIX)
program.connect(os.environ["LCROUTE_CONTROL"].replace("control.sock", "streams.sock"))
ask = {"cmd": "connect", "node": "beta", "protocols": ["/words/1"], "datagrams": True}
program.sendall(json.dumps(ask).encode() + b"\n")
line, descriptors, _, _ = socket.recv_fds(program, 65536, 1)
longest = json.loads(line)["ok"]["datagram_bytes"]
assert longest >= 1000, longest
words = socket.socket(fileno=descriptors[0])
words.settimeout(5)
came = 0
for length in range(1, longest + 1, 10):
    words.send(b"w" * length)
    try:
        came += words.recv(65536) == b"W" * length
    except TimeoutError:
        pass
words.send(b"x" * (longest + 500))
words.send(b"after one that is too long")
assert words.recv(65536) == b"AFTER ONE THAT IS TOO LONG"
print(came, "of", len(range(1, longest + 1, 10)))
"#;

#[test]
fn datagrams_go_both_ways_and_end_with_either_side() {
    world("streams-datagrams", |lab| {
        let network = lab.closed_network(["alpha", "beta"])?;
        let [alpha, beta] = network.nodes()?;
        let _programs = programs_of(alpha, beta)?;
        let capitals = beta.host.spawn("python3", &["-c", CAPITALS])?;
        capitals.prints("ok")?;
        let said = alpha.host.run("python3", &["-c", WORDS])?.success()?.stdout;
        let (came, of) = said.trim().split_once(" of ").unwrap_or_default();
        let (came, of): (u32, u32) = (came.parse()?, of.parse()?);
        ensure!(of >= 100 && came + 2 >= of, "{said}");
        eventually("the other side ends", || {
            holds!(capitals.stdout().ends_with("end\n"))
        })?;
        Ok(())
    });
}

/// Opens a thousand streams that each carry data both ways, and stay open.
const MANY: &str = r#"
import json, os, resource, socket, time
resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
path = os.environ["LCROUTE_CONTROL"].replace("control.sock", "streams.sock")
ask = json.dumps({"cmd": "connect", "node": "beta", "protocols": ["/capitals/1"]}).encode() + b"\n"
streams = []
for n in range(1000):
    s = socket.socket(socket.AF_UNIX)
    s.connect(path)
    s.sendall(ask)
    f = s.makefile("rwb", buffering=0)
    said = f.readline()
    assert b'"ok"' in said, (n, said)
    streams.append((s, f))
for n, (s, f) in enumerate(streams):
    f.write(b"x%d\n" % n)
for n, (s, f) in enumerate(streams):
    said = f.readline()
    assert said == b"alpha: X%d\n" % n, said
print("all", flush=True)
time.sleep(1000)
"#;

/// Returns the counters of a host's program for streams.
fn counted(host: &Host) -> Result<Value> {
    let script = "import socket, os\n\
        s = socket.socket(socket.AF_UNIX)\n\
        s.connect(os.environ['LCROUTE_CONTROL'].replace('control.sock', 'streams.sock'))\n\
        s.sendall(b'{\"cmd\":\"status\"}\\n')\n\
        print(s.makefile().readline())";
    let said = host.run("python3", &["-c", script])?.success()?;
    Ok(serde_json::from_str::<Value>(&said.stdout)?["ok"].clone())
}
