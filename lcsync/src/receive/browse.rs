//! `lcsync ls`: lists the shares in catalogues of servers.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv6Addr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use librecast::channel::ROOT_CHANNEL;
use librecast_program::cli::{Exit, note};
use librecast_program::interrupt;
use librecast_program::keyfile::SharedKey;
use librecast_program::units::count;
use serde_json::json;

use super::network::Network;
use crate::block::BlockHash;
use crate::catalogue::{self, Listed};
use crate::opener::Opener;
use crate::packet::Packet;
use crate::progress::{human_bytes, print_line};
use crate::sealing::{ShareKey, group_key};

/// Most shares stored, as a liar can name any number.
const MAX_SHARES: usize = 10_000;
/// Most servers named for each.
const MAX_SERVERS: usize = 64;
/// Time without news after which a catalogue is complete: servers send all of it each second.
const SETTLED: Duration = Duration::from_millis(1_300);

/// Time after which the wait is explained.
const SILENT: Duration = Duration::from_secs(2);

/// Explains the wait.
fn waiting(on: &str, left: Duration) -> String {
    let left = left.as_secs_f64();
    format!("listening on {on} for servers that list what they share: {left:.0} s more")
}

/// Options of the command line.
#[derive(Debug)]
pub struct Options {
    /// Interfaces; empty for all.
    pub interfaces: Vec<String>,
    /// Key of the listed shares.
    pub keyfile: Option<PathBuf>,
    /// Longest time of listening.
    pub timeout: Duration,
    /// One JSON document.
    pub json: bool,
}

/// One version of one share, and its servers.
#[derive(Debug)]
struct Found {
    listed: Listed,
    servers: BTreeSet<(Ipv6Addr, u32)>,
}

/// Received catalogues.
#[derive(Debug, Default)]
struct Catalogue {
    shares: BTreeMap<(String, BlockHash), Found>,
    /// When the last new share was received.
    changed: Option<Instant>,
    left_out: usize,
}

impl Catalogue {
    fn take(&mut self, listed: Listed, server: (Ipv6Addr, u32), now: Instant) {
        let full = self.shares.len() >= MAX_SHARES;
        let found = match self.shares.entry((listed.name.clone(), listed.root)) {
            Entry::Vacant(_) if full => {
                self.left_out += 1;
                return;
            }
            Entry::Vacant(place) => place.insert(Found {
                listed,
                servers: BTreeSet::new(),
            }),
            Entry::Occupied(place) => place.into_mut(),
        };
        if found.servers.len() < MAX_SERVERS && found.servers.insert(server) {
            self.changed = Some(now);
        }
    }

    fn is_settled(&self, now: Instant) -> bool {
        self.changed
            .is_some_and(|at| now.saturating_duration_since(at) >= SETTLED)
    }
}

/// Joins the catalogue, listens and prints.
pub fn browse(options: &Options) -> anyhow::Result<Exit> {
    interrupt::exit_on_interrupt(|| ())?;
    let shared = options
        .keyfile
        .as_deref()
        .map(SharedKey::load)
        .transpose()?;
    let key = shared.map(|k| Arc::new(ShareKey::new(Arc::new(k), catalogue::NAME)));
    let prefix = catalogue::prefix(group_key(key.as_deref()));
    let mut opener = Opener::new(key);
    let mut network = Network::open(prefix, &options.interfaces).context("receiving socket")?;
    let started = Instant::now();
    let until = started + options.timeout;
    network.join(ROOT_CHANNEL);
    network.apply_changes(started);
    let mut heard = Catalogue::default();
    let mut told = false;
    loop {
        let now = Instant::now();
        if now >= until || heard.is_settled(now) {
            break;
        }
        if now >= started + SILENT && !std::mem::replace(&mut told, true) {
            note(waiting(&network.interface_names(), until - now));
        }
        network.refresh_interfaces(now)?;
        network.apply_changes(now);
        network.wait(until.min(now + Duration::from_millis(100)))?;
        network.receive(|channel, datagram| {
            let server = (datagram.source, datagram.interface);
            match opener.open(channel, datagram.payload, now) {
                Ok(Packet::Catalogue(all)) if channel == ROOT_CHANNEL => {
                    for listed in all {
                        heard.take(listed, server, now);
                    }
                }
                Ok(_) => tracing::debug!("from {}: no catalogue", datagram.source),
                Err(e) => tracing::debug!("packet from {}: {e}", datagram.source),
            }
        })?;
    }
    let interfaces = network.interfaces();
    if options.json {
        print_line(&as_json(&heard, interfaces).to_string());
    } else {
        lines(&heard, interfaces).iter().for_each(|l| print_line(l));
        if heard.shares.is_empty() {
            let on = network.interface_names();
            note(format_args!(
                "nothing is listed on {on}: a server lists what it shares with --listed"
            ));
        }
    }
    if heard.left_out > 0 {
        tracing::warn!("more than {MAX_SHARES} shares are listed: others are left out");
    }
    Ok(Exit::Ok)
}

fn name_of(interfaces: &BTreeMap<u32, String>, index: u32) -> &str {
    interfaces.get(&index).map_or("?", String::as_str)
}

/// Formats a line for each share, with the name in the first column for scripts.
fn lines(heard: &Catalogue, interfaces: &BTreeMap<u32, String>) -> Vec<String> {
    let shares = || heard.shares.values();
    let width = shares().map(|f| f.listed.name.chars().count()).max();
    let width = width.unwrap_or(0) + 3;
    let line = |found: &Found| {
        let Listed {
            name,
            root,
            bytes,
            files,
            ..
        } = &found.listed;
        let name = format!("lc:{name}");
        let (size, files) = (human_bytes(*bytes), count(*files as usize, "file"));
        let on: BTreeSet<&str> = found
            .servers
            .iter()
            .map(|(_, index)| name_of(interfaces, *index))
            .collect();
        let on = on.into_iter().collect::<Vec<_>>().join(",");
        let servers = count(found.servers.len(), "server");
        format!("{name:width$}  {size:>11}  {files:>10}  {servers} on {on}  {root}")
    };
    shares().map(line).collect()
}

fn as_json(heard: &Catalogue, interfaces: &BTreeMap<u32, String>) -> serde_json::Value {
    let share = |found: &Found| {
        let servers = found.servers.iter().map(|(address, index)| {
            json!({ "address": address.to_string(), "interface": name_of(interfaces, *index) })
        });
        let listed = &found.listed;
        json!({
            "name": listed.name, "root": listed.root.to_string(), "generation": listed.generation,
            "bytes": listed.bytes, "files": listed.files, "servers": servers.collect::<Vec<_>>(),
        })
    };
    heard.shares.values().map(share).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_names_where_it_listens_and_how_long_it_lasts() {
        let told = waiting("eth0, lc0", Duration::from_millis(3_040));
        assert_eq!(
            told,
            "listening on eth0, lc0 for servers that list what they share: 3 s more"
        );
    }

    #[test]
    fn what_liars_name_is_bounded_and_versions_are_told_apart() {
        let mut heard = Catalogue::default();
        let now = Instant::now();
        let listed = |name: String, root| Listed {
            name,
            root: BlockHash([root; 32]),
            generation: 1,
            bytes: 1_000_000,
            files: 1,
        };
        for n in 0..3_u16 {
            let from = (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, n), 2);
            heard.take(listed("b".into(), u8::from(n > 0)), from, now);
        }
        heard.take(
            listed("longer".into(), 7),
            (Ipv6Addr::LOCALHOST, 1),
            now + SETTLED / 2,
        );
        assert!(!heard.is_settled(now + SETTLED) && heard.is_settled(now + SETTLED * 2));
        let interfaces = BTreeMap::from([(2, "eth0".to_owned())]);
        let lines = lines(&heard, &interfaces);
        assert!(lines[0].starts_with("lc:b       ") && lines[0].contains("  1 server on eth0  "));
        assert!(lines[1].contains("  2 servers on eth0  ") && lines[2].contains(" on ?  "));
        for n in 0..2 * MAX_SHARES {
            heard.take(listed(format!("n{n}"), 0), (Ipv6Addr::LOCALHOST, 1), now);
        }
        assert!(heard.shares.len() == MAX_SHARES && heard.left_out == MAX_SHARES + 3);
        assert_eq!(
            as_json(&heard, &interfaces).as_array().unwrap().len(),
            MAX_SHARES
        );
    }
}
