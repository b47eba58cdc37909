//! `lcsync status`: the state of this host's servers.

use std::io::{self, ErrorKind, Read};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use librecast_program::cli::{self, Exit, ExitError};
use librecast_program::screen;
use librecast_program::units::{count, duration, short};
use nix::unistd::geteuid;
use serde::Serialize;

use crate::listing::shown;
use crate::progress::human_bytes;
use crate::server::status::{Content, Process, Share, Status};
use crate::server::status_socket::{connect, folders, remove_left_over, sockets_in};

/// Interval of repeated output.
const INTERVAL: Duration = Duration::from_secs(1);
/// Time in which a server must answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);
/// Time for all servers: any user may put sockets where root looks.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer, in bytes: many thousand shares.
const MAX_ANSWER: usize = 16 << 20;
/// Longest answers together, in bytes.
const MAX_ANSWERS: usize = 64 << 20;
/// Most channels of a share that are shown.
const CHANNELS: usize = 16;

/// Options of the command line.
#[derive(Debug)]
pub struct Options {
    /// This share only.
    pub name: Option<String>,
    /// One JSON object for each share.
    pub json: bool,
    /// Repeat the output.
    pub watch: bool,
}

/// Prints the state once, or once a second for ever.
pub fn show(options: &Options) -> anyhow::Result<Exit> {
    if options.watch {
        let look = || {
            let (mut text, hints) = look(options)?;
            if !options.json {
                hints.iter().for_each(|hint| text += &format!("{hint}\n"));
            }
            Ok(text)
        };
        return screen::watch("lcsync", !options.json, INTERVAL, look);
    }
    let (text, hints) = look(options)?;
    cli::print(&text)?;
    for hint in hints {
        cli::hint("lcsync", hint);
    }
    Ok(Exit::Ok)
}

/// Returns the text, and hints on missing servers.
fn look(options: &Options) -> anyhow::Result<(String, Vec<String>)> {
    let answers = ask_all();
    let found = answers.of(options.name.as_deref())?;
    let mut text = String::new();
    if options.json {
        for line in &found {
            text += &serde_json::to_string(line)?;
            text.push('\n');
        }
    } else if options.name.is_some() {
        text.extend(found.iter().map(details));
    } else {
        text = table(&found);
    }
    Ok((text, answers.hints()))
}

/// One share and the process that serves it.
#[derive(Debug, Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    share: &'a Share,
    process: &'a Process,
}

/// Answers of all servers.
#[derive(Debug, Default)]
struct Answers {
    servers: Vec<Status>,
    /// Sockets and folders of other users.
    refused: Vec<String>,
    /// Sockets without an answer, and the reason.
    silent: Vec<String>,
}

fn ask_all() -> Answers {
    let mut answers = Answers::default();
    let until = Instant::now() + TIMEOUT;
    let mut room = MAX_ANSWERS;
    for folder in folders() {
        match sockets_in(&folder) {
            Ok(sockets) => {
                for socket in sockets {
                    answers.ask(&socket, until, &mut room);
                }
            }
            Err(e) if e.kind() == ErrorKind::PermissionDenied => answers.refused(&folder),
            // its server has just ended
            Err(e) => tracing::debug!("{}: {e}", folder.display()),
        }
    }
    answers
}

impl Answers {
    fn ask(&mut self, socket: &Path, until: Instant, room: &mut usize) {
        let until = until.min(Instant::now() + ANSWER_TIMEOUT);
        let answer = time_left(until)
            .and_then(|left| connect(socket, left))
            .and_then(|stream| read(stream, until, room));
        let e = match answer {
            Ok(status) => return self.servers.push(status),
            Err(e) => e,
        };
        match e.kind() {
            ErrorKind::PermissionDenied => self.refused(socket),
            ErrorKind::ConnectionRefused => remove_left_over(socket),
            // it has just ended
            ErrorKind::NotFound => {}
            ErrorKind::WouldBlock | ErrorKind::TimedOut => self.silent(socket, "too slow"),
            // it may quote the server's text
            _ => self.silent(socket, &shown(e.to_string().as_bytes())),
        }
    }

    fn silent(&mut self, socket: &Path, why: &str) {
        self.silent.push(format!("{}: {why}", path_of(socket)));
    }

    fn refused(&mut self, path: &Path) {
        self.refused.push(path_of(path));
    }

    /// Returns all shares, or those of this name; an error if there is none.
    fn of(&self, name: Option<&str>) -> Result<Vec<Line<'_>>, ExitError> {
        let all = self.servers.iter().flat_map(|server| {
            let process = &server.process;
            let line = move |share| Line { share, process };
            server.shares.iter().map(line)
        });
        let mut found: Vec<Line<'_>> = all
            .filter(|line| name.is_none_or(|name| line.share.name == name))
            .collect();
        found.sort_by_key(|line| (&line.share.name, line.process.pid));
        if !found.is_empty() {
            return Ok(found);
        }
        let exit = match self.refused.is_empty() {
            true => Exit::Unreachable,
            false => Exit::NotPermitted,
        };
        let mut message = match name {
            Some(name) => format!("lc:{} is not shared on this host", shown(name.as_bytes())),
            None => "nothing is shared on this host".to_owned(),
        };
        if !geteuid().is_root() || !self.silent.is_empty() {
            message += ", as far as can be seen";
        }
        for hint in self.hints() {
            message += &format!("\n  {hint}");
        }
        Err(ExitError::new(exit, message))
    }

    fn hints(&self) -> Vec<String> {
        let refused = self.refused.iter();
        let refused = refused.map(|path| {
            format!("{path}: permission denied: be root, or the user who shares there")
        });
        let silent = self.silent.iter().map(|why| format!("no answer: {why}"));
        refused.chain(silent).collect()
    }
}

fn path_of(path: &Path) -> String {
    shown(path.as_os_str().as_encoded_bytes())
}

fn time_left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    let left = (!left.is_zero()).then_some(left);
    left.ok_or_else(|| ErrorKind::TimedOut.into())
}

/// Reads a whole answer within the time.
fn read(mut stream: UnixStream, until: Instant, room: &mut usize) -> io::Result<Status> {
    let mut answer = Vec::new();
    let mut part = vec![0; 64 << 10];
    loop {
        stream.set_read_timeout(Some(time_left(until)?))?;
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(length) => answer.extend_from_slice(&part[..length]),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
        if answer.len() > MAX_ANSWER.min(*room) {
            return Err(io::Error::other("too long"));
        }
    }
    *room -= answer.len();
    if answer.is_empty() {
        return Err(io::Error::other("it is stopping, or stuck"));
    }
    let other = |e| io::Error::other(format!("not one of this version: {e}"));
    serde_json::from_slice(&answer).map_err(other)
}

/// Formats one line for each share.
fn table(found: &[Line<'_>]) -> String {
    let name = |line: &Line<'_>| format!("lc:{}", shown(line.share.name.as_bytes()));
    let width = found.iter().map(|line| name(line).chars().count()).max();
    let width = width.unwrap_or(0);
    let mut text = format!(
        "{:<width$}  {:>11} {:>9} {:>12} {:>12} {:>11}  {:<11}  {}\n",
        "NAME", "SIZE", "LISTENERS", "RATE", "LIMIT", "SENT", "UP", "PATH"
    );
    for line in found {
        let Line { share, process } = line;
        let size = share.content.as_ref().map(|c| human_bytes(c.bytes));
        text += &format!(
            "{:<width$}  {:>11} {:>9} {:>12} {:>12} {:>11}  {:<11}  {}\n",
            name(line),
            size.unwrap_or("not ready".into()),
            listeners(share.listeners, share.more_listeners),
            rate(share.rate_bps),
            limit(line).map_or("-".into(), rate),
            human_bytes(share.sent_bytes),
            duration(process.uptime_s),
            shown(share.path.as_bytes()),
        );
    }
    for line in found {
        let (name, share) = (name(line), line.share);
        if let Some(vanished) = &share.vanished {
            text += &format!("{name}: {}\n", shown(vanished.as_bytes()));
        }
        for rival in rivals_of(share) {
            text += &format!("{name}: {rival}\n");
        }
        let left_out = share.content.as_ref().map_or(0, |c| c.left_out);
        if left_out > 0 {
            text += &format!("{name}: {left_out} left out, see its log\n");
        }
    }
    text
}

/// Formats all figures of one share.
fn details(line: &Line<'_>) -> String {
    let Line { share, process } = line;
    let mut text = format!("lc:{}", shown(share.name.as_bytes()));
    if let Some(content) = &share.content {
        text += &format!(" {}", shown(content.root.as_bytes()));
    }
    text.push('\n');
    let mut put = |what: &str, value: &str| text += &format!("  {what:<10} {value}\n");
    put("path", &shown(share.path.as_bytes()));
    match &share.content {
        Some(content) => {
            put("content", &content_of(content));
            put("version", &version_of(content));
        }
        None => put("content", "not ready yet"),
    }
    if let Some(vanished) = &share.vanished {
        put("vanished", &shown(vanished.as_bytes()));
    }
    for rival in rivals_of(share) {
        put("rival", &rival);
    }
    let kinds = [
        (share.sealed, "sealed"),
        (share.signed, "signed"),
        (share.listed, "listed"),
    ];
    let kinds: Vec<&str> = kinds.iter().filter(|(is, _)| *is).map(|k| k.1).collect();
    if !kinds.is_empty() {
        put("kind", &kinds.join(", "));
    }
    let interfaces: Vec<String> = share
        .interfaces
        .iter()
        .map(|i| shown(i.as_bytes()))
        .collect();
    put("on", &interfaces.join(" "));
    let role = if process.seed {
        ", a receiver that serves on"
    } else {
        ""
    };
    let up = duration(process.uptime_s);
    put("process", &format!("{}, up {up}{role}", process.pid));
    let (now, lately) = (rate(share.rate_bps), rate(share.average_bps));
    let limit = limit(line).map_or(String::new(), |l| format!(", limit {}", rate(l)));
    put("rate", &format!("{now}, {lately} over 10 s{limit}"));
    let sent = human_bytes(share.sent_bytes);
    let (blocks, symbols) = (share.sent_blocks as usize, share.sent_symbols as usize);
    let (blocks, symbols) = (count(blocks, "block"), count(symbols, "symbol"));
    put("sent", &format!("{sent}: {blocks}, {symbols}"));
    put(
        "listeners",
        &listeners(share.listeners, share.more_listeners),
    );
    for host in &share.hosts {
        let (on, channels) = (
            shown(host.interface.as_bytes()),
            count(host.channels, "channel"),
        );
        put("", &format!("{} on {on}: {channels}", host.address));
    }
    let (joined, sending, waiting) = (
        share.channels_joined,
        share.channels_sending,
        share.channels_waiting,
    );
    put(
        "channels",
        &format!("{joined} joined, {sending} sending, {waiting} waiting"),
    );
    for channel in share.channels.iter().take(CHANNELS) {
        let on = shown(channel.interface.as_bytes());
        let (symbols, listeners) = (
            count(channel.symbols as usize, "symbol"),
            count(channel.listeners, "listener"),
        );
        let state = channel.state.name();
        put(
            "",
            &format!("{} on {on}: {state}, {symbols}, {listeners}", channel.group),
        );
    }
    text
}

/// Formats the rivals of a share, and the remedy.
fn rivals_of(share: &Share) -> impl Iterator<Item = String> {
    let remedy = share.remedy.as_deref().unwrap_or_default();
    share.rivals.iter().map(move |rival| {
        let (on, root) = (&rival.interface, &rival.root);
        let told = format!(
            "{} on {on} publishes something else under its name and key, {root} (a copied host?). {remedy}",
            rival.address
        );
        shown(told.as_bytes())
    })
}

fn content_of(content: &Content) -> String {
    let (files, blocks) = (content.files as usize, content.blocks as usize);
    let left_out = match content.left_out {
        0 => String::new(),
        n => format!("; {n} left out, see its log"),
    };
    format!(
        "{} in {}, {}{left_out}",
        human_bytes(content.bytes),
        count(files, "file"),
        count(blocks, "block")
    )
}

fn version_of(content: &Content) -> String {
    format!(
        "{} for {}; {} since the start, {}",
        content.generation,
        duration(content.changed_s),
        count(content.versions as usize, "version"),
        count(content.rescans as usize, "rescan")
    )
}

/// Returns the limit of the share, in bits per second.
fn limit(line: &Line<'_>) -> Option<u64> {
    let limits = [line.share.limit_bps, line.process.limit_bps];
    limits.into_iter().flatten().min()
}

fn listeners(known: usize, more: bool) -> String {
    let sign = if more { "+" } else { "" };
    format!("{known}{sign}")
}

fn rate(bits: u64) -> String {
    format!("{}bit/s", short(bits as f64))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::Ipv6Addr;

    use super::*;
    use crate::server::channel::Progress;
    use crate::server::status::{Host, JoinedChannel, Rival, State};

    fn share(name: &str) -> Share {
        Share {
            name: name.into(),
            path: "/srv/\u{1b}[2Jphotos".into(),
            state: State::Ready,
            sealed: false,
            signed: true,
            listed: true,
            interfaces: vec!["eth0".into(), "lc0".into()],
            content: Some(Content {
                root: "3d5e".into(),
                generation: 1_700_000_000_000,
                files: 120,
                bytes: 1_288_490_189,
                left_out: 2,
                blocks: 1,
                versions: 2,
                changed_s: 61,
                rescans: 3,
            }),
            vanished: Some("it is gone: mount it again".into()),
            rivals: vec![Rival {
                interface: "eth0".into(),
                address: Ipv6Addr::LOCALHOST,
                root: "77aa".into(),
                generation: 1_700_000_000_001,
                received_s: 2,
            }],
            remedy: Some("Stop one of them".into()),
            rate_bps: 18_900_000,
            average_bps: 17_000_000,
            limit_bps: Some(50_000_000),
            sent_bytes: 1_048_576,
            sent_symbols: 1_024,
            sent_blocks: 4,
            listeners: 1,
            more_listeners: true,
            hosts: vec![Host {
                interface: "eth0".into(),
                address: Ipv6Addr::LOCALHOST,
                channels: 128,
            }],
            channels_joined: 128,
            channels_sending: 20,
            channels_waiting: 100,
            channels: vec![
                JoinedChannel {
                    interface: "eth0".into(),
                    group: "ff1e::7".parse().unwrap(),
                    state: Progress::Sending,
                    symbols: 88,
                    listeners: 1,
                };
                40
            ],
        }
    }

    fn server(pid: u32, names: &[&str]) -> Status {
        Status {
            process: Process {
                pid,
                version: "1".into(),
                uptime_s: 3_700,
                seed: false,
                limit_bps: Some(20_000_000),
                capacity_bps: None,
            },
            shares: names.iter().map(|name| share(name)).collect(),
        }
    }

    fn answers() -> Answers {
        let mut pending = server(9, &["later"]);
        let later = &mut pending.shares[0];
        (later.state, later.content) = (State::Pending, None);
        pending.process.limit_bps = None;
        later.limit_bps = None;
        Answers {
            servers: vec![server(70, &["photos", "a much longer name"]), pending],
            ..Answers::default()
        }
    }

    #[test]
    fn columns_stand_below_their_titles() {
        let answers = answers();
        let text = table(&answers.of(None).unwrap());
        let lines: Vec<&str> = text.lines().collect();
        let words = |n: usize| lines[n].split_whitespace().collect::<Vec<_>>();
        assert_eq!(words(0)[..4], ["NAME", "SIZE", "LISTENERS", "RATE"]);
        assert!(lines[1].starts_with("lc:a much longer name  "), "{text}");
        assert_eq!(words(2)[0], "lc:later");
        assert_eq!(words(2)[1..3], ["not", "ready"]);
        let photos =
            "lc:photos 1.20 GiB 1+ 18.9 Mbit/s 20.0 Mbit/s 1.00 MiB 1 h 1 min /srv/\\#033[2Jphotos";
        assert_eq!(words(3).join(" "), photos);
        let end = |line: usize, word: &str| lines[line].find(word).map(|at| at + word.len());
        assert_eq!(end(0, "RATE"), end(3, "18.9 Mbit/s"));
        assert_eq!(end(0, "LISTENERS"), end(3, "1+"));
        assert_eq!(
            lines[4],
            "lc:a much longer name: it is gone: mount it again"
        );
        assert_eq!(
            lines[5],
            "lc:a much longer name: ::1 on eth0 publishes something else under its name and key, 77aa (a copied host?). \
             Stop one of them"
        );
        assert_eq!(lines[6], "lc:a much longer name: 2 left out, see its log");
    }

    #[test]
    fn one_share_is_shown_whole_and_commands_no_terminal() {
        let answers = answers();
        let found = answers.of(Some("photos")).unwrap();
        let text = details(&found[0]);
        assert!(!text.contains('\u{1b}'), "{text}");
        for part in [
            "lc:photos 3d5e\n",
            "  path       /srv/\\#033[2Jphotos\n",
            "  content    1.20 GiB in 120 files, 1 block; 2 left out, see its log\n",
            "  vanished   it is gone: mount it again\n",
            "  rival      ::1 on eth0 publishes something else under its name and key, 77aa",
            "  version    1700000000000 for 1 min 1 s; 2 versions since the start, 3 rescans\n",
            "  kind       signed, listed\n",
            "  on         eth0 lc0\n",
            "  process    70, up 1 h 1 min\n",
            "  rate       18.9 Mbit/s, 17.0 Mbit/s over 10 s, limit 20.0 Mbit/s\n",
            "  sent       1.00 MiB: 4 blocks, 1024 symbols\n",
            "  listeners  1+\n             ::1 on eth0: 128 channels\n",
            "  channels   128 joined, 20 sending, 100 waiting\n",
            "             ff1e::7 on eth0: sending, 88 symbols, 1 listener\n",
        ] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
        assert_eq!(text.matches("ff1e::7").count(), CHANNELS);
        assert!(details(&answers.of(Some("later")).unwrap()[0]).contains("not ready yet"));
    }

    #[test]
    fn an_object_has_the_share_and_its_process() {
        let answers = answers();
        let lines = answers.of(Some("photos")).unwrap();
        let value = serde_json::to_value(&lines[0]).unwrap();
        assert_eq!(
            (&value["root"], &value["files"]),
            (&"3d5e".into(), &120.into())
        );
        assert_eq!(value["state"], "ready");
        assert_eq!(value["channels"][0]["state"], Progress::Sending.name());
        assert_eq!(value["process"]["pid"], 70);
    }

    #[test]
    fn who_finds_nothing_is_told_why() {
        let mut answers = answers();
        let error = answers.of(Some("other\u{7}")).unwrap_err();
        assert_eq!(error.exit, Exit::Unreachable);
        let said = error.to_string();
        assert!(said.starts_with("lc:other\\#007 is not shared"), "{said}");
        answers.silent.push("/run/lcsync/7.sock: timed out".into());
        assert!(answers.of(None).is_ok() && answers.hints().len() == 1);
        answers.refused(Path::new("/run/lcsync/photos"));
        let error = answers.of(Some("other")).unwrap_err();
        assert_eq!(error.exit, Exit::NotPermitted);
        let said = error.to_string();
        assert!(
            said.contains("/run/lcsync/photos: permission denied"),
            "{said}"
        );
        assert!(said.contains("7.sock: timed out"), "{said}");
    }

    #[test]
    fn an_answer_has_a_bound_and_a_form() {
        let say = |text: Vec<u8>| {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            let saying = std::thread::spawn(move || {
                // the reader hangs up when it is too long
                let _ = theirs.write_all(&text);
            });
            let until = Instant::now() + Duration::from_secs(60);
            let read = read(ours, until, &mut MAX_ANSWERS.clone());
            saying.join().unwrap();
            read.map_err(|e| e.to_string())
        };
        let status = server(70, &["photos"]);
        let mut line = serde_json::to_vec(&status).unwrap();
        line.push(b'\n');
        assert_eq!(say(line).unwrap(), status);
        for (said, why) in [
            (Vec::new(), "stopping, or stuck"),
            (b"{}\n".to_vec(), "not one of this version"),
            (vec![b'['; MAX_ANSWER + 1], "too long"),
        ] {
            let error = say(said).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn what_a_server_has_said_wrong_is_quoted_safely_and_after_the_time_none_is_asked() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("1.sock");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let said = br#"{"shares":[{"state":"\u001b[2J"}]}"#;
        let saying = std::thread::spawn(move || listener.accept().unwrap().0.write_all(said));
        let (mut answers, mut room) = (Answers::default(), MAX_ANSWERS);
        answers.ask(&socket, Instant::now(), &mut room);
        assert!(answers.silent[0].ends_with("1.sock: too slow"));
        answers.ask(&socket, Instant::now() + TIMEOUT, &mut room);
        saying.join().unwrap().unwrap();
        assert!(answers.silent[1].contains("`\\#033[2J`"), "{answers:?}");
        assert_eq!(room, MAX_ANSWERS - said.len());
    }
}
