//! Private prefixes: packets to their groups are sealed where they enter the network and opened
//! where they are delivered. Routers between carry them like any packet, and cannot read them.
//!
//! ```text
//! IPv6 header: source, group, traffic class as before; next header 253 (RFC 3692)
//! key number 16 | salt 48 | tag 128 | sealed { next header 8 | all bytes behind the IPv6 header }
//!
//! sender key  AES-128-GCM: first 128 bits of
//!             derive_key("lcroute 2026 sender", secret | origin 64 | incarnation 32 | salt)
//! nonce       0 48 | sequence 48; origin, incarnation and sequence are those of the data header
//! associated  bytes 12 to 30 of the data header | IPv6 header with hop limit 0
//! key number  first 16 bits of derive_key("lcroute 2026 key number", secret)
//! ```
//!
//! A segment is private as a whole: its groups are a prefix, and its packets from gateway to
//! gateway are sealed with the same key.
//!
//! A prefix is private by configuration: without a secret, none of its packets leaves or enters.

use std::collections::BTreeMap;
use std::net::Ipv6Addr;
use std::sync::Arc;

use bytes::Bytes;
use librecast::cert::GroupPrefix;
use librecast::id::{OriginId, derive};
use librecast::mapped;
use zeroize::Zeroizing;

use crate::classify::{CarriedScopes, Class, Flow};
use crate::drops::DropReason;
use crate::duplicate::Windows;
use crate::header::DataHeader;
use crate::segment_id::{SegmentId, segment_of};
use crate::services::{Aead, Services};

/// Next header of a sealed packet: the first of those for experiments (RFC 3692, section 3.2).
pub const SEALED: u8 = 253;
/// Bytes of a group's secret.
pub const SECRET_LEN: usize = 32;

/// Bytes of an IPv6 header.
const IPV6_HEADER_LEN: usize = 40;
/// Offset of the payload length in an IPv6 header (RFC 8200 §3).
const PAYLOAD_LEN_AT: usize = 4;
/// Offset of the next header.
const NEXT_HEADER_AT: usize = 6;
/// Offset of the hop limit.
const HOP_LIMIT_AT: usize = 7;
/// Bytes of a key's number.
const KEY_NUMBER_LEN: usize = 2;
/// Bytes of a salt.
const SALT_LEN: usize = 6;
/// Bytes of the authentication tag of AES-GCM.
const TAG_LEN: usize = 16;
/// Bytes between the IPv6 header and the sealed part.
const PREAMBLE_LEN: usize = KEY_NUMBER_LEN + SALT_LEN + TAG_LEN;
/// Bytes by which a packet grows when it is sealed: its next header goes inside.
pub const OVERHEAD: usize = PREAMBLE_LEN + 1;
/// Authenticated bytes of a data header: origin, incarnation, sequence. Routers change the rest.
const BOUND: std::ops::Range<usize> = 12..30;
/// Authenticated bytes beside the sealed part: those of the data header, and an IPv6 header.
const ASSOCIATED_LEN: usize = BOUND.end - BOUND.start + IPV6_HEADER_LEN;
/// Sender keys kept of an origin. Chosen: two secrets during a change, each for two runs.
const KEYS_PER_ORIGIN: usize = 4;

type Salt = [u8; SALT_LEN];

/// The secret that members of a group share; wiped from memory when dropped, never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<Zeroizing<[u8; SECRET_LEN]>>);

impl Secret {
    /// A secret of these bytes.
    pub fn new(bytes: [u8; SECRET_LEN]) -> Self {
        Self(Arc::new(Zeroizing::new(bytes)))
    }
}

librecast::debug_by_name!(Secret);

/// A prefix with sealed packets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrivatePrefix {
    /// Its groups; of several prefixes that contain a group the longest counts.
    pub prefix: GroupPrefix,
    /// The first seals, all open. Empty: no packet of the prefix leaves or enters this host.
    pub secrets: Vec<Secret>,
    /// Hosts of LANs send to these groups and receive them, in clear.
    pub lans: bool,
}

impl PrivatePrefix {
    /// The groups of a segment, in the network of the node with this address; its unicast is sealed
    /// as well.
    pub fn of_segment(node: Ipv6Addr, name: &str, secrets: Vec<Secret>) -> Self {
        Self {
            prefix: SegmentId::of(node, name).prefix(),
            secrets,
            lans: true,
        }
    }

    /// Whether it belongs to a segment.
    pub fn is_of_segment(&self) -> bool {
        SegmentId::is_group(self.prefix.addr())
    }
}

/// Whether this node can read packets to a group of a private prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Privacy {
    /// It holds a secret.
    Sealed,
    /// It holds none.
    NoKey,
}

#[derive(Debug)]
struct NumberedSecret {
    secret: Secret,
    /// Its number in packets.
    number: u16,
    /// Its id in this node's tables, the same after a new configuration.
    id: u64,
}

impl NumberedSecret {
    fn new(secret: Secret) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = derive("lcroute 2026 key number", &[&**secret.0]);
        Self {
            secret,
            number: u16::from_be_bytes([a, b]),
            id: u64::from_be_bytes([a, b, c, d, e, f, g, h]),
        }
    }

    fn sender_key(
        &self,
        origin: OriginId,
        incarnation: u32,
        salt: Salt,
        services: &dyn Services,
    ) -> Option<Box<dyn Aead>> {
        let (origin, incarnation) = (origin.0.to_be_bytes(), incarnation.to_be_bytes());
        let parts: [&[u8]; 4] = [&**self.secret.0, &origin, &incarnation, &salt];
        let derived = Zeroizing::new(derive("lcroute 2026 sender", &parts));
        let (key, _) = derived.split_first_chunk()?;
        services.aead(key)
    }
}

#[derive(Debug)]
struct Prefix {
    prefix: GroupPrefix,
    secrets: Vec<NumberedSecret>,
    lans: bool,
}

/// A key with which this node seals.
#[derive(Debug)]
struct SealingKey {
    secret: u64,
    incarnation: u32,
    aead: Box<dyn Aead>,
}

/// Key and duplicate windows of one run of a sender. Packets that do not verify leave no trace.
#[derive(Debug)]
struct OpeningKey {
    secret: u64,
    incarnation: u32,
    salt: Salt,
    aead: Box<dyn Aead>,
    passed: Windows,
}

/// Seals and opens packets of private prefixes.
#[derive(Debug)]
pub struct Private {
    /// The longest first.
    prefixes: Vec<Prefix>,
    salt: Salt,
    /// The highest sequence number used for sealing: none is used twice, whatever the caller does.
    sealed: u64,
    sealing: Vec<SealingKey>,
    opening: BTreeMap<OriginId, Vec<OpeningKey>>,
    max_origins: usize,
    window: u64,
    services: Arc<dyn Services>,
}

impl Private {
    /// Without prefixes. `seed` differs in each run; `window`: length of a duplicate window.
    pub fn new(seed: u64, max_origins: usize, window: u64, services: Arc<dyn Services>) -> Self {
        let random = derive("lcroute 2026 salt", &[&seed.to_be_bytes()]);
        let mut salt = Salt::default();
        salt.copy_from_slice(&random[..SALT_LEN]);
        Self {
            prefixes: Vec::new(),
            salt,
            sealed: 0,
            sealing: Vec::new(),
            opening: BTreeMap::new(),
            max_origins,
            window,
            services,
        }
    }

    /// Replaces the prefixes and secrets.
    pub fn configure(&mut self, prefixes: &[PrivatePrefix]) {
        let prefix = |p: &PrivatePrefix| Prefix {
            prefix: p.prefix,
            secrets: p.secrets.iter().cloned().map(NumberedSecret::new).collect(),
            lans: p.lans,
        };
        self.prefixes = prefixes.iter().map(prefix).collect();
        self.prefixes
            .sort_by_key(|p| std::cmp::Reverse(p.prefix.prefix_len()));
        self.sealing.clear();
        // keys of removed secrets must not stay in memory; the other keys keep their windows
        let known: Vec<u64> = self.secrets().map(|s| s.id).collect();
        self.opening.retain(|_, keys| {
            keys.retain(|key| known.contains(&key.secret));
            !keys.is_empty()
        });
    }

    fn secrets(&self) -> impl Iterator<Item = &NumberedSecret> {
        self.prefixes.iter().flat_map(|p| &p.secrets)
    }

    /// Index of the private prefix that contains a group; none for the name of an IPv4 group.
    pub fn of(&self, group: Ipv6Addr) -> Option<usize> {
        let at = self.prefixes.iter().position(|p| p.prefix.contains(group));
        at.filter(|_| !mapped::is_group_name(group))
    }

    /// Index of the private prefix of a packet: that of its segment, or of its group.
    pub fn of_packet(&self, group: Ipv6Addr, packet: &[u8]) -> Option<usize> {
        match segment_of(packet).filter(|_| !self.prefixes.is_empty()) {
            Some(segment) => self.of(segment.all()),
            None => self.of(group),
        }
    }

    /// Opens a packet of a segment to this node itself, if the segment is sealed. The error has a
    /// group of its segment, if that is known.
    pub fn open_unicast(
        &mut self,
        header: &DataHeader,
        flow: Flow,
        packet: Bytes,
    ) -> Result<Bytes, (DropReason, Option<Ipv6Addr>)> {
        if !is_sealed(&packet) {
            let all = segment_of(&packet).map(SegmentId::all);
            let is_private = all.is_some_and(|all| self.of(all).is_some());
            return match is_private {
                true => Err((DropReason::NotSealed, all)),
                false => Ok(packet),
            };
        }
        let mut result = Err((DropReason::NoGroupKey, None));
        for at in 0..self.prefixes.len() {
            let group = self.prefixes[at].prefix.addr();
            if !SegmentId::is_group(group) {
                continue;
            }
            match self.open(at, header, flow, &packet) {
                // the key of one segment opens none of another
                Ok(opened) if self.of_packet(flow.group, &opened) == Some(at) => return Ok(opened),
                Ok(_) => return Err((DropReason::NotAuthentic, Some(group))),
                // two numbers of keys are the same by chance
                Err(DropReason::NoGroupKey) => {}
                Err(reason) => result = Err((reason, Some(group))),
            }
        }
        result
    }

    /// Whether this node can read packets to a group; `None`: the group is not private.
    pub fn privacy(&self, group: Ipv6Addr) -> Option<Privacy> {
        let prefix = &self.prefixes[self.of(group)?];
        Some(match prefix.secrets.is_empty() {
            true => Privacy::NoKey,
            false => Privacy::Sealed,
        })
    }

    /// Whether a packet of a program, or of a host of a LAN, may be sealed.
    pub fn admit(&self, group: Ipv6Addr, is_lan: bool) -> Result<(), DropReason> {
        let Some(at) = self.of(group) else {
            return Ok(());
        };
        if is_lan && !self.prefixes[at].lans {
            return Err(DropReason::LanNotConfigured);
        }
        match self.prefixes[at].secrets.is_empty() {
            true => Err(DropReason::NoGroupKey),
            false => Ok(()),
        }
    }

    /// Whether packets of the group stay away from LANs.
    pub fn is_closed_to_lans(&self, group: Ipv6Addr) -> bool {
        self.of(group).is_some_and(|at| !self.prefixes[at].lans)
    }

    /// Seals a packet of this node that leaves with this data header. `at`: from [`Self::of`].
    pub fn seal(
        &mut self,
        at: usize,
        header: &DataHeader,
        packet: &[u8],
    ) -> Result<Bytes, DropReason> {
        let secret = self.prefixes.get(at).and_then(|p| p.secrets.first());
        let secret = secret.ok_or(DropReason::NoGroupKey)?;
        // a repeated number would reveal both packets
        if header.sequence <= self.sealed {
            return Err(DropReason::NoGroupKey);
        }
        let is_current =
            |k: &SealingKey| (k.secret, k.incarnation) == (secret.id, header.incarnation);
        let key = match self.sealing.iter().position(is_current) {
            Some(key) => key,
            None => {
                let (origin, incarnation) = (header.origin, header.incarnation);
                let aead =
                    secret.sender_key(origin, incarnation, self.salt, self.services.as_ref());
                self.sealing.retain(|key| key.incarnation == incarnation);
                self.sealing.push(SealingKey {
                    secret: secret.id,
                    incarnation,
                    aead: aead.ok_or(DropReason::NoGroupKey)?,
                });
                self.sealing.len() - 1
            }
        };
        let (ipv6, payload) = packet
            .split_first_chunk::<IPV6_HEADER_LEN>()
            .ok_or(DropReason::Malformed)?;
        let len = u16::try_from(OVERHEAD + payload.len()).map_err(|_| DropReason::TooBig)?;
        let mut sealed_ipv6 = *ipv6;
        sealed_ipv6[PAYLOAD_LEN_AT..NEXT_HEADER_AT].copy_from_slice(&len.to_be_bytes());
        sealed_ipv6[NEXT_HEADER_AT] = SEALED;
        let mut sealed = Vec::with_capacity(IPV6_HEADER_LEN + usize::from(len));
        sealed.extend_from_slice(&sealed_ipv6);
        sealed.extend_from_slice(&secret.number.to_be_bytes());
        sealed.extend_from_slice(&self.salt);
        let tag_at = sealed.len();
        sealed.extend_from_slice(&[0; TAG_LEN]);
        let text_at = sealed.len();
        sealed.push(ipv6[NEXT_HEADER_AT]);
        sealed.extend_from_slice(payload);
        self.sealed = header.sequence;
        let tag = self.sealing[key].aead.seal(
            nonce(header.sequence),
            &associated(header, &sealed_ipv6),
            &mut sealed[text_at..],
        );
        let tag = tag.ok_or(DropReason::NoGroupKey)?;
        sealed[tag_at..text_at].copy_from_slice(&tag);
        Ok(sealed.into())
    }

    /// Opens a packet that came with this data header. It accepts each number of a sender once, and
    /// notes only numbers of packets that verify. `at`: from [`Self::of`]; `flow`: the packet's.
    pub fn open(
        &mut self,
        at: usize,
        header: &DataHeader,
        flow: Flow,
        packet: &[u8],
    ) -> Result<Bytes, DropReason> {
        let sealed = Sealed::of(packet).ok_or(DropReason::NotSealed)?;
        let secrets = self.prefixes.get(at).map(|p| p.secrets.as_slice());
        let candidates = secrets.unwrap_or_default().iter();
        let candidates = candidates.filter(|secret| secret.number == sealed.key_number);
        let mut result = Err(DropReason::NoGroupKey);
        for secret in candidates {
            let known = self.opening.get_mut(&header.origin);
            let known = known.map(|keys| keys.as_mut_slice()).unwrap_or_default();
            let is_this = |key: &OpeningKey| {
                (key.secret, key.incarnation, key.salt)
                    == (secret.id, header.incarnation, sealed.salt)
            };
            result = match known.iter().position(is_this) {
                Some(key) => {
                    // the key used last is found first, and kept longest
                    known[..=key].rotate_right(1);
                    known[0].open(header, &sealed, self.window)
                }
                None => {
                    let (origin, incarnation) = (header.origin, header.incarnation);
                    let services = self.services.as_ref();
                    let aead = secret.sender_key(origin, incarnation, sealed.salt, services);
                    let mut key = OpeningKey {
                        secret: secret.id,
                        incarnation,
                        salt: sealed.salt,
                        aead: aead.ok_or(DropReason::NoGroupKey)?,
                        passed: Windows::default(),
                    };
                    let opened = key.open(header, &sealed, self.window);
                    if opened.is_ok() {
                        keep(&mut self.opening, origin, key, self.max_origins);
                    }
                    opened
                }
            };
            if result != Err(DropReason::NotAuthentic) {
                break;
            }
        }
        let opened = result?;
        // a packet that no router may bring to a host may not come sealed either
        match CarriedScopes::ON_LINKS.classify(&opened) {
            Class::Carried(inside) | Class::Unicast(inside) if inside == flow => Ok(opened),
            Class::Dropped(reason) => Err(reason),
            _ => Err(DropReason::LinkControl),
        }
    }
}

/// Keeps a key that has opened a packet, in place of the least recently used one.
fn keep(
    opening: &mut BTreeMap<OriginId, Vec<OpeningKey>>,
    origin: OriginId,
    key: OpeningKey,
    max_origins: usize,
) {
    if !opening.contains_key(&origin) && opening.len() >= max_origins {
        opening.pop_first();
    }
    let keys = opening.entry(origin).or_default();
    keys.truncate(KEYS_PER_ORIGIN - 1);
    keys.insert(0, key);
}

impl OpeningKey {
    fn open(
        &mut self,
        header: &DataHeader,
        sealed: &Sealed<'_>,
        window: u64,
    ) -> Result<Bytes, DropReason> {
        if !self.passed.would_accept(header.sequence, window) {
            return Err(DropReason::Duplicate);
        }
        // the text begins with the next header, where the last byte of the IPv6 header will be
        let text_at = IPV6_HEADER_LEN - 1;
        let mut packet = vec![0; text_at + sealed.text.len()];
        let is_authentic = self.aead.open(
            nonce(header.sequence),
            &associated(header, sealed.ipv6),
            sealed.text,
            sealed.tag,
            &mut packet[text_at..],
        );
        if !is_authentic {
            return Err(DropReason::NotAuthentic);
        }
        self.passed.accept(header.sequence, window);
        let next_header = packet[text_at];
        packet[..IPV6_HEADER_LEN].copy_from_slice(sealed.ipv6);
        packet[NEXT_HEADER_AT] = next_header;
        // shorter than the sealed packet, so it fits
        let len = (sealed.text.len() - 1) as u16;
        packet[PAYLOAD_LEN_AT..NEXT_HEADER_AT].copy_from_slice(&len.to_be_bytes());
        Ok(packet.into())
    }
}

/// The parts of a sealed packet.
struct Sealed<'a> {
    ipv6: &'a [u8; IPV6_HEADER_LEN],
    key_number: u16,
    salt: Salt,
    tag: &'a [u8; TAG_LEN],
    /// At least the next header.
    text: &'a [u8],
}

impl<'a> Sealed<'a> {
    fn of(packet: &'a [u8]) -> Option<Self> {
        if !is_sealed(packet) {
            return None;
        }
        let (ipv6, rest) = packet.split_first_chunk()?;
        let (number, rest) = rest.split_first_chunk()?;
        let (salt, rest) = rest.split_first_chunk()?;
        let (tag, text) = rest.split_first_chunk()?;
        (!text.is_empty()).then_some(Self {
            ipv6,
            key_number: u16::from_be_bytes(*number),
            salt: *salt,
            tag,
            text,
        })
    }
}

/// Whether a packet that was classified is sealed.
pub fn is_sealed(packet: &[u8]) -> bool {
    packet.get(NEXT_HEADER_AT) == Some(&SEALED)
}

fn nonce(sequence: u64) -> [u8; 12] {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&sequence.to_be_bytes());
    nonce
}

fn associated(header: &DataHeader, ipv6: &[u8; IPV6_HEADER_LEN]) -> [u8; ASSOCIATED_LEN] {
    let mut bytes = [0; ASSOCIATED_LEN];
    let (bound, packet) = bytes.split_at_mut(BOUND.end - BOUND.start);
    bound.copy_from_slice(&header.encode()[BOUND]);
    packet.copy_from_slice(ipv6);
    packet[HOP_LIMIT_AT] = 0;
    bytes
}

#[cfg(test)]
mod tests;
