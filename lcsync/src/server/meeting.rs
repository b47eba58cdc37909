//! Sockets and keys with which servers of one share meet: see [`rivals`](super::rivals).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Instant;

use librecast::channel::{LCSYNC_PORT, SharePrefix, channel_of};
use librecast::socket::ReceiveSockets;

use super::channel::Channel;
use super::rescan::Watched;
use super::rivals::{MEET_INTERVAL, Rival, Rivals, SERVERS_CHANNEL};
use crate::block::BlockHash;
use crate::opener::Opener;
use crate::packet::Packet;
use crate::signature::Trust;

/// A share with provable records.
#[derive(Debug)]
struct Member {
    rivals: Rivals,
    opener: Opener,
    trust: Option<Trust>,
}

/// All shares of a server with provable records, and the sockets on which their servers meet.
#[derive(Debug)]
pub struct Meeting {
    members: BTreeMap<SharePrefix, Member>,
    /// Only while a share has members.
    sockets: Option<ReceiveSockets>,
    joined: BTreeSet<Channel>,
    next: Instant,
}

impl Meeting {
    pub fn new(now: Instant) -> Self {
        Self {
            members: BTreeMap::new(),
            sockets: None,
            joined: BTreeSet::new(),
            next: now,
        }
    }

    /// Notes a version of a share that the server publishes. `earlier` is the highest generation of
    /// earlier runs. Without it, replayed records look like rivals, so the share takes no part.
    pub fn publish(
        &mut self,
        watched: &Watched,
        earlier: Option<u64>,
        (generation, root): (u64, BlockHash),
        now: Instant,
    ) {
        if watched.key.is_none() && watched.signer.is_none() {
            return;
        }
        if let (Some(earlier), false) = (earlier, self.members.contains_key(&watched.prefix)) {
            let signer = watched.signer.as_ref();
            let trust = signer.map(|key| Trust::new(key.peer_id(), &watched.name, now));
            let member = Member {
                rivals: Rivals::new(earlier),
                opener: Opener::new(watched.key.as_ref().map(Arc::clone)),
                trust,
            };
            self.members.insert(watched.prefix, member);
        }
        if let Some(member) = self.members.get_mut(&watched.prefix) {
            member.rivals.publish(generation, root);
        }
    }

    /// Stops taking part for a share.
    pub fn remove(&mut self, share: SharePrefix) {
        self.members.remove(&share);
    }

    /// Returns rivals that publish under the key of a share.
    pub fn rivals(&self, share: SharePrefix, now: Instant) -> impl Iterator<Item = &Rival> {
        let member = self.members.get(&share).into_iter();
        member.flat_map(move |member| member.rivals.known(now))
    }

    /// Joins the servers' channels of all shares with these root channels. Returns channels on
    /// which this server must send its record now.
    pub fn follow(&mut self, roots: impl Iterator<Item = Channel>, now: Instant) -> Vec<Channel> {
        let members = &self.members;
        let places = roots.filter_map(|root| {
            let share = SharePrefix::of_group(root.group)?;
            let group = share.group(SERVERS_CHANNEL);
            members
                .contains_key(&share)
                .then_some(Channel { group, ..root })
        });
        let wanted: BTreeSet<Channel> = places.collect();
        let new = self.set_joined(&wanted);
        if now < self.next {
            return new;
        }
        self.next = now + MEET_INTERVAL;
        self.joined.iter().copied().collect()
    }

    fn set_joined(&mut self, wanted: &BTreeSet<Channel>) -> Vec<Channel> {
        if wanted.is_empty() {
            self.sockets = None;
            self.joined.clear();
            return Vec::new();
        }
        let sockets = match self.sockets.take() {
            Some(sockets) => Ok(sockets),
            None => ReceiveSockets::open(LCSYNC_PORT),
        };
        let sockets = match sockets {
            Ok(sockets) => self.sockets.insert(sockets),
            Err(e) => {
                tracing::debug!("other servers are not heard: {e}");
                self.joined.clear();
                return Vec::new();
            }
        };
        for gone in self.joined.difference(wanted) {
            sockets.leave(gone.group, gone.interface);
        }
        let mut new = Vec::new();
        for channel in wanted {
            if self.joined.contains(channel) {
                continue;
            }
            match sockets.join(channel.group, channel.interface) {
                Ok(()) => new.push(*channel),
                // the interface may have gone; the next look notices
                Err(e) => tracing::debug!("joining on interface {}: {e}", channel.interface),
            }
        }
        self.joined.retain(|channel| wanted.contains(channel));
        self.joined.extend(&new);
        new
    }

    /// Receives records of other servers, up to a bound. Returns new rivals with their share.
    pub fn receive(&mut self, now: Instant) -> io::Result<Vec<(SharePrefix, Rival)>> {
        let (members, mut found) = (&mut self.members, Vec::new());
        let Some(sockets) = &mut self.sockets else {
            return Ok(found);
        };
        sockets.receive(|datagram| {
            let share = SharePrefix::of_group(datagram.group);
            let member = share.and_then(|share| Some((share, members.get_mut(&share)?)));
            if let Some((share, member)) = member
                && channel_of(datagram.group) == SERVERS_CHANNEL
            {
                let from = (datagram.interface, datagram.source);
                let rival = member.handle(datagram.payload, from, now);
                found.extend(rival.map(|rival| (share, rival)));
            }
        })?;
        for member in members.values_mut() {
            member.rivals.forget(now);
        }
        Ok(found)
    }
}

impl Member {
    fn handle(&mut self, payload: &[u8], from: (u32, Ipv6Addr), now: Instant) -> Option<Rival> {
        // a record without a proof does not count, as anybody can make it
        let Ok(Packet::Record(record)) = self.opener.open(SERVERS_CHANNEL, payload, now) else {
            return None;
        };
        let trust = self.trust.as_mut();
        if trust.is_some_and(|trust| !trust.accepts(&record, now)) {
            return None;
        }
        self.rivals.handle(&record, from, now)
    }
}
