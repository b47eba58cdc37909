//! Report of a running server to `lcsync status`: shares, members, rates. One JSON line.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::time::Instant;

use librecast::coding::SYMBOL_SIZE;
use serde::{Deserialize, Serialize};

use super::channel::Progress;
use super::hosted::Server;
use super::rescan::{Vanished, Watched};
use super::rivals;

/// Most hosts and channels named for each share; more are only counted.
pub const MAX_NAMED: usize = 64;
/// Most channels with counted members: serving waits meanwhile.
const MAX_LOOKED_AT: usize = 1_024;

/// One process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Figures of all its shares.
    pub process: Process,
    /// Its shares, sorted by name.
    pub shares: Vec<Share>,
}

/// Figures of all shares of a process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: u32,
    /// Version of the program.
    pub version: String,
    /// Seconds since it began to serve.
    pub uptime_s: u64,
    /// Whether it is a receiver that serves on.
    pub seed: bool,
    /// Limit in bits per second over all shares.
    pub limit_bps: Option<u64>,
    /// Capacity in bits per second, if measured.
    pub capacity_bps: Option<u64>,
}

/// Whether a share has a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Its files are hashed, or not received yet.
    Pending,
    /// It is served.
    Ready,
}

/// One share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "they are independent, and read by people"
)]
pub struct Share {
    /// NAME in lc:NAME.
    pub name: String,
    /// Shared path.
    pub path: String,
    /// Whether it has a version.
    pub state: State,
    /// Whether a key seals it.
    pub sealed: bool,
    /// Whether its versions are signed.
    pub signed: bool,
    /// Whether catalogues list it.
    pub listed: bool,
    /// Interfaces on which it is served now.
    pub interfaces: Vec<String>,
    /// The served version.
    #[serde(flatten)]
    pub content: Option<Content>,
    /// Reason why the present files are not published: some may be missing by mistake.
    pub vanished: Option<String>,
    /// Hosts that publish other files under its name and key.
    pub rivals: Vec<Rival>,
    /// Remedy against rivals.
    pub remedy: Option<String>,
    /// Bits per second over the last second, with headers.
    pub rate_bps: u64,
    /// The same over the last ten.
    pub average_bps: u64,
    /// Limit of the same.
    pub limit_bps: Option<u64>,
    /// Bytes sent since the start, without headers.
    pub sent_bytes: u64,
    /// Symbols sent since the start.
    pub sent_symbols: u64,
    /// Whole blocks sent.
    pub sent_blocks: u64,
    /// Known hosts that have joined any of its channels.
    pub listeners: usize,
    /// More hosts are possible.
    pub more_listeners: bool,
    /// Some of the hosts.
    pub hosts: Vec<Host>,
    /// Joined channels of blocks.
    pub channels_joined: usize,
    /// Channels at full rate.
    pub channels_sending: usize,
    /// Channels that wait for their turn.
    pub channels_waiting: usize,
    /// Some of the channels.
    pub channels: Vec<JoinedChannel>,
}

/// The served version of a share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Content {
    /// Root hash.
    pub root: String,
    /// It grows with each version.
    pub generation: u64,
    /// Files in it.
    pub files: u64,
    /// Bytes of the files.
    pub bytes: u64,
    /// Entries that could not be read or shared, and are not in it.
    pub left_out: u64,
    /// Blocks, each with a channel.
    pub blocks: u64,
    /// Versions since the start, with this one.
    pub versions: u64,
    /// Seconds since it is served.
    pub changed_s: u64,
    /// Scans of the files for changes.
    pub rescans: u64,
}

/// A host that has joined.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Its interface.
    pub interface: String,
    /// Its link-local address.
    pub address: Ipv6Addr,
    /// Channels of blocks that it has joined.
    pub channels: usize,
}

/// A host that publishes other files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rival {
    /// Interface from which its records come.
    pub interface: String,
    /// Source address of its packets.
    pub address: Ipv6Addr,
    /// Root hash of its version.
    pub root: String,
    /// Generation of that version.
    pub generation: u64,
    /// Seconds since its last record.
    pub received_s: u64,
}

impl Rival {
    /// Describes the rival on this interface.
    #[must_use]
    pub fn of(rival: &rivals::Rival, interface: &str, now: Instant) -> Self {
        Self {
            interface: interface.to_owned(),
            address: rival.address,
            root: rival.root.to_string(),
            generation: rival.generation,
            received_s: now.saturating_duration_since(rival.received).as_secs(),
        }
    }
}

/// Remedy if two hosts publish different files.
#[must_use]
pub fn remedy(watched: &Watched) -> &'static str {
    match watched.signer {
        Some(_) => {
            "Stop one of them, or give it another key (lcsync keygen --sign) or another name"
        }
        None => "Stop one of them, or give it another key (lcsync keygen) or another name",
    }
}

/// A joined channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JoinedChannel {
    /// Its interface.
    pub interface: String,
    /// Its group.
    pub group: Ipv6Addr,
    /// Its progress.
    pub state: Progress,
    /// Symbols of its block.
    pub symbols: u32,
    /// Known hosts that have joined it.
    pub listeners: usize,
}

/// Returns the figures of a server of these shares; `interfaces` has the names of the watched ones.
pub fn status<'a>(
    server: &Server,
    watched: impl Iterator<Item = (&'a Watched, Option<&'a Vanished>)>,
    interfaces: &BTreeMap<u32, &str>,
    seed: bool,
    now: Instant,
) -> Status {
    let (limit_bps, capacity_bps) = server.limits();
    let mut shares: Vec<Share> = watched.map(|w| share(server, w, interfaces, now)).collect();
    shares.sort_by(|a, b| a.name.cmp(&b.name));
    Status {
        process: Process {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_s: server.uptime(now).as_secs(),
            seed,
            limit_bps,
            capacity_bps,
        },
        shares,
    }
}

fn share(
    server: &Server,
    (watched, vanished): (&Watched, Option<&Vanished>),
    interfaces: &BTreeMap<u32, &str>,
    now: Instant,
) -> Share {
    let served = server.share_of(watched.prefix.address());
    let history = server.history(watched.prefix);
    let content = served.zip(history).map(|(served, history)| Content {
        root: served.index.root.hash.to_string(),
        generation: served.generation,
        files: history.files,
        bytes: served.index.bytes(),
        left_out: served.index.scan.left_out() as u64,
        blocks: served.index.blocks() as u64,
        versions: history.versions,
        changed_s: now.saturating_duration_since(history.changed_at).as_secs(),
        rescans: history.rescans,
    });
    let only = &watched.interfaces;
    let names = interfaces.values().map(|name| (*name).to_owned());
    let traffic = server.traffic(watched.prefix);
    let (rate_bps, average_bps) = traffic.map_or((0, 0), |t| t.rates(now));
    let sent_symbols = traffic.map_or(0, |t| t.symbols());
    let mut share = Share {
        name: watched.name.clone(),
        path: watched.path.to_string_lossy().into_owned(),
        state: match content {
            Some(_) => State::Ready,
            None => State::Pending,
        },
        sealed: watched.key.is_some(),
        signed: watched.signer.is_some() || served.is_some_and(|s| !s.authentication.is_empty()),
        listed: watched.listed,
        interfaces: names
            .filter(|name| only.is_empty() || only.contains(name))
            .collect(),
        content,
        vanished: vanished.map(|v| format!("{}: {}", v.why, v.remedy())),
        rivals: Vec::new(),
        remedy: None,
        rate_bps,
        average_bps,
        limit_bps: watched.limit,
        sent_bytes: sent_symbols * SYMBOL_SIZE as u64,
        sent_symbols,
        sent_blocks: traffic.map_or(0, |t| t.blocks()),
        listeners: 0,
        more_listeners: false,
        hosts: Vec::new(),
        channels_joined: 0,
        channels_sending: 0,
        channels_waiting: 0,
        channels: Vec::new(),
    };
    add_listeners(&mut share, server, watched, interfaces);
    share
}

fn add_listeners(
    share: &mut Share,
    server: &Server,
    watched: &Watched,
    interfaces: &BTreeMap<u32, &str>,
) {
    let name_of = |index: u32| interfaces.get(&index).map_or("?", |name| *name).to_owned();
    let mut hosts: BTreeMap<(u32, Ipv6Addr), usize> = BTreeMap::new();
    for (interface, reporters) in server.followers(watched.prefix) {
        hosts.extend(reporters.known().map(|address| ((interface, address), 0)));
        share.more_listeners |= reporters.may_be_more();
    }
    for joined in server.joined_of(watched.prefix) {
        share.channels_joined += 1;
        match joined.progress {
            Progress::Awaited | Progress::Gathering | Progress::Waiting => {
                share.channels_waiting += 1;
            }
            Progress::Sending => share.channels_sending += 1,
            Progress::Trickling | Progress::Asked => {}
        }
        share.more_listeners |= joined.reporters.may_be_more();
        if share.channels_joined > MAX_LOOKED_AT {
            share.more_listeners = true;
            continue;
        }
        let interface = joined.channel.interface;
        for address in joined.reporters.known() {
            *hosts.entry((interface, address)).or_default() += 1;
        }
        if share.channels.len() < MAX_NAMED {
            share.channels.push(JoinedChannel {
                interface: name_of(interface),
                group: joined.channel.group,
                state: joined.progress,
                symbols: joined.symbols,
                listeners: joined.reporters.count(),
            });
        }
    }
    share.listeners = hosts.len();
    let named = hosts.into_iter().take(MAX_NAMED);
    share.hosts = named
        .map(|((interface, address), channels)| Host {
            interface: name_of(interface),
            address,
            channels,
        })
        .collect();
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use librecast::channel::{ROOT_CHANNEL, block_channel};
    use librecast::mld::Message;

    use super::*;
    use crate::index::{HashCache, Index};
    use crate::server::channel::{Rates, Terms};
    use crate::server::config::{ShareOptions, named};
    use crate::server::core::Output;
    use crate::server::hosted::Share as Served;

    const LAN: u32 = 3;

    fn host(n: u16) -> Ipv6Addr {
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n)
    }

    struct World {
        server: Server,
        watched: Watched,
        vanished: Option<Vanished>,
        now: Instant,
        _folder: tempfile::TempDir,
    }

    impl World {
        /// A server that watches one interface and has hashed nothing yet.
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("f"), vec![1; 90_000]).unwrap();
            let options = ShareOptions {
                path: folder.path().to_path_buf(),
                name: Some("photos".into()),
                bwlimit: Some(50_000_000),
                listed: true,
                ..ShareOptions::default()
            };
            let watched = named(&[options]).unwrap().remove(0);
            let rates = Rates {
                stretch: None,
                channel: 20_000_000,
                slow: 2_000_000,
                total: Some(30_000_000),
            };
            let now = Instant::now();
            let mut server = Server::new(7, rates, 1, now);
            server.set_interfaces(&BTreeMap::from([(LAN, host(99))]), now);
            let terms = Terms {
                limit: watched.limit,
                sealed: false,
            };
            server.set_terms(watched.prefix, terms, now);
            Self {
                server,
                watched,
                vanished: None,
                now,
                _folder: folder,
            }
        }

        /// Serves the present files; returns the channel of the first block.
        fn publish(&mut self, generation: u64) -> u64 {
            let index = Index::build(&self.watched.path, b"", &mut HashCache::default()).unwrap();
            let leaf = crate::block::BlockRef::of(&vec![1; 90_000]);
            let served = Served::unsigned(Arc::new(index), generation);
            self.server.set_share(self.watched.prefix, served, self.now);
            block_channel(b"", &leaf.hash.0, 0)
        }

        fn report(&mut self, from: u16, channel: u64, joins: bool) {
            let group = self.watched.prefix.group(channel);
            let kind = match joins {
                true => librecast::mld::RecordType::ChangeToExclude,
                false => librecast::mld::RecordType::ChangeToInclude,
            };
            let record = librecast::mld::Record::new(kind, group, Vec::new());
            let message = Message::Report(vec![record]);
            self.server
                .handle_message(LAN, host(from), message, self.now);
        }

        /// Lets time pass; returns the symbols sent.
        fn run(&mut self, span: Duration) -> u64 {
            let end = self.now + span;
            let mut symbols = 0;
            loop {
                while let Some(output) = self.server.poll_output(self.now) {
                    if let Output::Symbols { ids, .. } = output {
                        symbols += ids.len() as u64;
                    }
                }
                match self.server.next_timeout() {
                    Some(at) if at <= end => self.now = at.max(self.now),
                    _ => break,
                }
            }
            self.now = end;
            symbols
        }

        fn status(&self) -> Share {
            let names = BTreeMap::from([(LAN, "eth0")]);
            let watched = std::iter::once((&self.watched, self.vanished.as_ref()));
            let mut status = status(&self.server, watched, &names, false, self.now);
            assert_eq!(status.process.limit_bps, Some(30_000_000));
            let text = serde_json::to_string(&status).unwrap();
            assert_eq!(serde_json::from_str::<Status>(&text).unwrap(), status);
            status.shares.remove(0)
        }
    }

    #[test]
    fn a_share_is_pending_until_it_is_hashed_and_then_tells_its_versions() {
        let mut world = World::new();
        let pending = world.status();
        assert_eq!((pending.state, pending.content), (State::Pending, None));
        world.publish(7);
        world.server.handle_rescan(world.watched.prefix);
        world.run(Duration::from_secs(9));
        world.publish(8);
        world.run(Duration::from_secs(2));
        let ready = world.status();
        let content = ready.content.unwrap();
        assert_eq!((ready.state, content.generation), (State::Ready, 8));
        assert_eq!((content.files, content.bytes), (1, 90_000));
        let Content {
            versions,
            changed_s,
            rescans,
            ..
        } = content;
        assert_eq!((versions, changed_s, rescans), (2, 2, 1));
        assert!(ready.listed && !ready.sealed && !ready.signed);
        assert_eq!(ready.limit_bps, Some(50_000_000));
        assert_eq!(ready.interfaces, ["eth0"]);
        world.vanished = Some(Vanished {
            why: "it is gone".into(),
            file: Some("/state/1.origin".into()),
        });
        let vanished = world.status().vanished.unwrap();
        assert!(vanished.starts_with("it is gone: "), "{vanished}");
        assert!(vanished.ends_with("remove /state/1.origin"), "{vanished}");
        world.watched.interfaces = vec!["lc0".into()];
        assert!(world.status().interfaces.is_empty());
        world.server.remove_share(world.watched.prefix, world.now);
        assert_eq!(world.status().content, None);
    }

    #[test]
    fn who_asks_for_what_is_known_as_long_as_he_asks() {
        let mut world = World::new();
        let block = world.publish(1);
        assert_eq!(world.status().listeners, 0);
        world.report(1, ROOT_CHANNEL, true);
        world.report(2, ROOT_CHANNEL, true);
        world.report(2, block, true);
        let seen = world.status();
        let asks = |address, channels| Host {
            interface: "eth0".into(),
            address,
            channels,
        };
        assert_eq!(seen.hosts, [asks(host(1), 0), asks(host(2), 1)]);
        assert_eq!((seen.listeners, seen.more_listeners), (2, false));
        let channel = &seen.channels[0];
        assert_eq!(channel.group, world.watched.prefix.group(block));
        assert_eq!(channel.state, Progress::Gathering);
        assert_eq!((channel.symbols, channel.listeners), (88, 1));
        assert_eq!((seen.channels_joined, seen.channels_waiting), (1, 1));

        let sent = world.run(Duration::from_millis(80));
        let seen = world.status();
        assert_eq!((seen.channels_sending, seen.channels_waiting), (1, 0));
        assert_eq!((seen.sent_symbols, seen.sent_blocks), (sent, 1));
        assert_eq!(seen.sent_bytes, sent * SYMBOL_SIZE as u64);
        assert!(seen.rate_bps > 0 && seen.average_bps > 0);

        for channel in [block, ROOT_CHANNEL] {
            world.report(1, channel, false);
            world.report(2, channel, false);
        }
        world.run(Duration::from_secs(20));
        let seen = world.status();
        assert_eq!((seen.listeners, seen.channels_joined), (0, 0));
        assert_eq!((seen.rate_bps, seen.average_bps), (0, 0));
        assert!(seen.sent_symbols >= sent, "totals stay");
    }

    #[test]
    fn what_is_named_has_a_bound_and_what_is_counted_says_so() {
        let mut world = World::new();
        let block = world.publish(1);
        for n in 1..=200 {
            world.report(n, ROOT_CHANNEL, true);
            world.report(n + 200, block, true);
        }
        let seen = world.status();
        assert_eq!(seen.hosts.len(), MAX_NAMED);
        assert!(seen.listeners > MAX_NAMED && seen.more_listeners);
        let group = world.watched.prefix.group(ROOT_CHANNEL);
        let mut old = World::new();
        old.publish(1);
        let message = Message::ReportV1 { group };
        old.server.handle_message(LAN, host(1), message, old.now);
        assert!(old.status().more_listeners, "others keep silent");
    }
}
