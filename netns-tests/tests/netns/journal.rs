//! The journal: entries with their fields, if stderr is connected to it.

use std::os::unix::net::UnixDatagram;

use crate::prelude::*;

const SOCKET: &str = "/run/systemd/journal/socket";

const UP: &str = "5b9cc80b6cda43ce1fb43d1c0bef4fe5";
const DOWN: &str = "3a69d799f61f18be22d64fdb07085559";
const PEER_UP: &str = "14e6ec4984e284518ad6ae38800887b1";
const PEER_DOWN: &str = "698b82e62336847458d46677ea134ee3";
const SHARE_READY: &str = "e1c9a0ae7eab205a28e6387a639e1871";
const SHARE_CHANGED: &str = "24ac70496e39fdd23838eba8178fcbcc";
const COMMAND_RUN: &str = "cca83ad1a238c0657f546d59bfeb9114";
const COMMAND_ENDED: &str = "e100ff63fe3448a289e1766e2b9bfc92";
const COMMAND_REFUSED: &str = "3572573bf80bc2e4dbaa2ffaba04b9ac";

type Entry = BTreeMap<String, String>;

/// A journald for programs under test.
struct Journal {
    socket: UnixDatagram,
    entries: Vec<Entry>,
}

impl Journal {
    fn new() -> Result<Self> {
        // a tmpfs of this test alone
        fs::create_dir_all("/run/systemd/journal")?;
        let _ = fs::remove_file(SOCKET);
        let socket = UnixDatagram::bind(SOCKET)?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            socket,
            entries: Vec::new(),
        })
    }

    /// Starts a program like systemd: its stderr is a stream to the journal.
    fn start(host: &Host, command: &str) -> Result<Process> {
        let told = "JOURNAL_STREAM=$(stat -L -c %d:%i /proc/self/fd/2) exec";
        host.spawn("sh", &["-c", &format!("{told} {command}")])
    }

    fn read(&mut self) -> Result<()> {
        let mut buffer = vec![0; 1 << 20];
        while let Ok(length) = self.socket.recv(&mut buffer) {
            self.entries.push(entry(&buffer[..length])?);
        }
        Ok(())
    }

    /// Waits for an entry with this id and all these fields.
    fn expect(&mut self, id: &str, fields: &[(&str, &str)]) -> Result<Entry> {
        eventually(&format!("an entry {id} with {fields:?}"), || {
            self.read()?;
            let fits = |e: &&Entry| {
                let has = |(k, v): &(&str, &str)| e.get(*k).is_some_and(|own| own == v);
                e.get("MESSAGE_ID").is_some_and(|i| i == id) && fields.iter().all(has)
            };
            let found = self.entries.iter().find(fits);
            found
                .cloned()
                .with_context(|| format!("{:?}", self.entries))
        })
    }
}

/// Parses the native protocol: `NAME=value` lines, or a name, the length and the value.
fn entry(mut datagram: &[u8]) -> Result<Entry> {
    let mut fields = BTreeMap::new();
    while !datagram.is_empty() {
        let end = datagram
            .iter()
            .position(|b| *b == b'\n')
            .context("no line")?;
        let (line, rest) = (&datagram[..end], &datagram[end + 1..]);
        let (name, value) = match line.iter().position(|b| *b == b'=') {
            Some(at) => {
                datagram = rest;
                (&line[..at], &line[at + 1..])
            }
            None => {
                let (length, rest) = rest.split_at_checked(8).context("no length")?;
                let length = usize::try_from(u64::from_le_bytes(length.try_into()?))?;
                let (value, rest) = rest.split_at_checked(length).context("too short")?;
                datagram = rest.strip_prefix(b"\n").context("no end")?;
                (line, value)
            }
        };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec());
        fields.insert(text(name)?, text(value)?);
    }
    Ok(fields)
}

#[test]
fn what_happens_is_in_the_journal_with_numbers_and_fields() {
    world("journal", |lab| {
        let mut journal = Journal::new()?;
        // lcroute
        let mut network = lab.network(lab.closed_hosts(&["a", "b"])?)?;
        let mut b = Journal::start(&network.members[1].host, "lcroute run")?;
        let up = journal.expect(UP, &[("LCROUTE_TUN", "lc0")])?;
        ensure!(up["MESSAGE"].starts_with("ready: lc0 has fd"), "{up:?}");
        ensure!(
            up.contains_key("LCROUTE_ADDRESS") && up["PRIORITY"] == "5",
            "{up:?}"
        );
        ensure!(up["SYSLOG_IDENTIFIER"].starts_with("lcroute"), "{up:?}");
        network.members[0].start()?;
        let linked = journal.expect(PEER_UP, &[("LCROUTE_PEER_NAME", "a")])?;
        let peer = linked["LCROUTE_PEER"].clone();
        ensure!(peer.starts_with("12D3KooW") && linked["MESSAGE"].contains(&peer));
        network.members[0].stop()?;
        let lost = journal.expect(PEER_DOWN, &[("LCROUTE_PEER", &peer)])?;
        ensure!(!lost["LCROUTE_REASON"].is_empty(), "{lost:?}");
        ensure!(b.stop()? == 0);
        journal.expect(DOWN, &[("LCROUTE_REASON", "told to stop")])?;
        ensure!(b.stderr().is_empty(), "it went both ways: {}", b.stderr());

        // lcsync and lcagent, and their metrics
        let hosts = lab.lan(&["server", "operator"])?;
        let (server, operator) = (&hosts[0], &hosts[1]);
        server.write("shared/file", "one")?;
        let socket = server.path("lcsync.sock");
        let config = format!(
            "[[share]]\npath = \"shared\"\n[metrics]\nlisten = \"{}\"\n",
            socket.display()
        );
        server.write("lcsync.toml", config)?;
        let mut share = Journal::start(server, "lcsync share --config lcsync.toml")?;
        let ready = journal.expect(SHARE_READY, &[("LCSYNC_SHARE", "shared")])?;
        server.write("shared/file", "another")?;
        let changed = journal.expect(SHARE_CHANGED, &[("LCSYNC_SHARE", "shared")])?;
        ensure!(changed["LCSYNC_ROOT"] != ready["LCSYNC_ROOT"]);
        let fetch = ["lc:shared", "copy", "-i", LAN];
        operator.run("lcsync", &fetch)?.success()?;
        eventually("lcsync's figures", || {
            let seen = Exposition::at_socket(&socket)?;
            ensure!(seen.value("lcsync_shares", &[("state", "ready")])? == 1.0);
            ensure!(seen.value("lcsync_share_bytes", &[("share", "shared")])? == 7.0);
            ensure!(seen.value("lcsync_sent_bytes_total", &[])? > 0.0);
            for metric in lcsync::server::metrics::TABLE {
                ensure!(seen.has(metric.name), "no {}", metric.name);
            }
            holds!(seen.value("lcsync_joins_total", &[("channel", "root")])? >= 1.0)
        })?;
        let moved = server.path("elsewhere.sock");
        let config = fs::read_to_string(server.path("lcsync.toml"))?;
        server.write(
            "lcsync.toml",
            config.replace("lcsync.sock", "elsewhere.sock"),
        )?;
        share.signal(Signal::SIGHUP)?;
        eventually("it serves elsewhere", || {
            let seen = Exposition::at_socket(&moved)?;
            ensure!(seen.value("lcsync_shares", &[("state", "ready")])? == 1.0);
            holds!(!socket.exists(), "and where it did before")
        })?;
        let socket = moved;
        ensure!(share.stop()? == 0);
        ensure!(!socket.exists(), "the socket stays behind");

        fs::create_dir_all(operator.path("config/lcagent"))?;
        let made = operator.run("lcagent", &["keygen", "config/lcagent/operator.key"])?;
        let key = made.success()?.stdout;
        let socket = server.path("lcagent.sock");
        let config = format!(
            "name = \"node\"\ninterface = \"{LAN}\"\n[metrics]\nlisten = \"{}\"\n\
             [[allow]]\nkey = \"{}\"\ncommands = [\"echo *\"]\n",
            socket.display(),
            key.trim()
        );
        server.write("lcagent.toml", config)?;
        let mut agent = Journal::start(
            server,
            "lcagent run --config lcagent.toml --state-dir agent",
        )?;
        let run = |command: &[&str]| {
            let args = ["exec", "-i", LAN, "--timeout", "20s", "--"];
            operator.run("lcagent", &[&args[..], command].concat())
        };
        becomes(0, || Ok(run(&["echo", "hello"])?.code))?;
        ensure!(run(&["false"])?.code == 1);
        let command = journal.expect(COMMAND_RUN, &[("LCAGENT_COMMAND", "echo hello")])?;
        ensure!(command["LCAGENT_OPERATOR"] == key.trim(), "{command:?}");
        journal.expect(COMMAND_ENDED, &[("LCAGENT_JOB", &command["LCAGENT_JOB"])])?;
        let refused = journal.expect(COMMAND_REFUSED, &[("LCAGENT_COMMAND", "false")])?;
        ensure!(refused["LCAGENT_REASON"].contains("policy"), "{refused:?}");
        ensure!(refused["PRIORITY"] == "4", "{refused:?}");
        eventually("lcagent's figures", || {
            let seen = Exposition::at_socket(&socket)?;
            ensure!(seen.value("lcagent_jobs_started_total", &[])? >= 1.0);
            for metric in lcagent::agent::metrics::TABLE
                .iter()
                .chain(librecast_program::metrics::PROCESS)
            {
                ensure!(seen.has(metric.name), "no {}", metric.name);
            }
            ensure!(seen.value("lcagent_commands_received_total", &[])? >= 2.0);
            let refused = [("reason", "policy")];
            ensure!(seen.value("lcagent_commands_refused_total", &refused)? == 1.0);
            holds!(seen.value("lcagent_jobs", &[("state", "ended")])? >= 1.0)
        })?;
        let config = fs::read_to_string(server.path("lcagent.toml"))?;
        let (before, after) = config.split_once("[metrics]").context("no metrics")?;
        let (_, after) = after.split_once("[[allow]]").context("no policy")?;
        server.write("lcagent.toml", format!("{before}[[allow]]{after}"))?;
        agent.signal(Signal::SIGHUP)?;
        eventually("it serves no more", || holds!(!socket.exists()))?;
        ensure!(run(&["echo", "still"])?.code == 0);
        holds!(agent.stop()? == 0)
    });
}
