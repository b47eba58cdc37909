//! Who belongs to a network: certificates, chains and invitation tokens.
//!
//! ```text
//! network key --signs--> issuer --signs--> invitation --signs--> node
//!                              \----------signs----------------> node
//! ```
//!
//! A certificate narrows what the one above it allows: its time and its group prefixes lie inside, it is not
//! `core` unless the other is, labels only add up.
//!
//! Any issuer can renew a node ([`Chain::renew`]): the new certificate hangs directly under the issuer, lasts as
//! long as the invitation says ([`Grant::renew_for`]), and remembers the keys that the old one stood on, so that
//! who loses one of them loses the renewed ones too. A token holder signs node certificates as well: what would
//! favour the signer (earlier keys, how long renewals last) counts only where an issuer has signed it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::id::{NetworkId, NodeAddresses, PeerId, SecretKey};
use crate::wire::{Reader, WireError, Writer};

const CONTEXT: &str = "lcroute 2026 certificate";
const VERSION: u8 = 2;
/// Longest certificate in bytes; a chain holds at most three.
pub const MAX_CERTIFICATE: usize = 2_048;
/// Longest chain in bytes.
pub const MAX_CHAIN: usize = 3 * (MAX_CERTIFICATE + 2) + 1;
/// Most labels, and most prefixes, of one certificate.
pub const MAX_ENTRIES: usize = 16;
/// Longest node name and label in bytes.
pub const MAX_NAME: usize = 63;
/// Clocks of members may differ by a day (seconds).
pub const CLOCK_SKEW: u64 = 86_400;
/// Most keys that a renewed certificate remembers.
pub const MAX_PREVIOUS: usize = 8;
const FLAG_CORE: u8 = 1;
const FLAG_RENEWED: u8 = 2;

/// Why a certificate, a chain or a token is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CertError {
    /// The bytes are not a certificate of this version.
    #[error("malformed certificate: {0}")]
    Malformed(#[from] WireError),
    /// A certificate of another network.
    #[error("certificate of another network")]
    OtherNetwork,
    /// A signature does not verify, or the wrong key signed.
    #[error("forged certificate ({0:?} not signed by the one above it)")]
    Forged(Kind),
    /// The kinds do not follow one another.
    #[error("certificates in wrong order")]
    Order,
    /// Too late by the verifier's clock, the tolerance included.
    #[error("{0:?} certificate expired")]
    Expired(Kind),
    /// Too early by the verifier's clock, the tolerance included.
    #[error("{0:?} certificate not valid yet: is the clock right?")]
    NotYetValid(Kind),
    /// Grants more than the certificate above it.
    #[error("{0:?} certificate grants more than its issuer has")]
    Widened(Kind),
    /// The token's text is damaged.
    #[error("not a token: {0}")]
    BadToken(&'static str),
}

/// What a certificate makes of its subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// May invite and renew; signed by the network key.
    Issuer = 1,
    /// A bearer key that makes node certificates until it expires; signed by an issuer.
    Invitation = 2,
    /// A member; signed by an issuer or an invitation.
    Node = 3,
}

/// A range of group addresses, such as `ff1e::/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GroupPrefix {
    addr: Ipv6Addr,
    len: u8,
}

impl GroupPrefix {
    /// All groups: `ff00::/8`.
    pub const ALL: Self = Self {
        addr: Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0),
        len: 8,
    };

    /// A multicast prefix; bits behind its length must be zero.
    pub fn new(addr: Ipv6Addr, len: u8) -> Result<Self, WireError> {
        let ok =
            (8..=128).contains(&len) && addr.is_multicast() && addr.to_bits() & !mask(len) == 0;
        if ok {
            Ok(Self { addr, len })
        } else {
            Err(WireError::Bad("group prefix"))
        }
    }

    /// The first address.
    #[must_use]
    pub fn addr(&self) -> Ipv6Addr {
        self.addr
    }

    /// The length in bits, 8..=128.
    #[must_use]
    pub fn prefix_len(&self) -> u8 {
        self.len
    }

    /// Whether `group` lies inside.
    #[must_use]
    pub fn contains(&self, group: Ipv6Addr) -> bool {
        group.to_bits() & mask(self.len) == self.addr.to_bits()
    }

    /// Whether all of `other` lies inside.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        other.len >= self.len && self.contains(other.addr)
    }
}

fn mask(len: u8) -> u128 {
    u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0)
}

impl fmt::Display for GroupPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

impl FromStr for GroupPrefix {
    type Err = WireError;

    fn from_str(s: &str) -> Result<Self, WireError> {
        let bad = || WireError::Bad("group prefix: write it as ff1e::/16");
        let (addr, len) = s.split_once('/').unwrap_or((s, "128"));
        Self::new(
            addr.parse().map_err(|_| bad())?,
            len.parse().map_err(|_| bad())?,
        )
        .map_err(|_| bad())
    }
}

/// What a certificate grants its subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Unix seconds.
    pub not_before: u64,
    /// Unix seconds.
    pub not_after: u64,
    /// How many seconds a renewed membership lasts. An invitation says it, and node certificates that an issuer
    /// signed; 0: as long as this certificate.
    pub renew_for: u64,
    /// May be the root of shared trees.
    pub core: bool,
    /// A node's name; empty for issuers and invitations.
    pub name: String,
    /// Labels that selectors can use.
    pub labels: BTreeMap<String, String>,
    /// Groups that the subject may send to.
    pub prefixes: Vec<GroupPrefix>,
}

/// Keys that a membership stands on: whoever revokes one of them ends it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeysAbove {
    /// The chain's issuer first, then those of earlier certificates.
    pub issuers: Vec<PeerId>,
    /// The invitation, if there was one, and those of earlier certificates.
    pub invitations: Vec<PeerId>,
}

impl KeysAbove {
    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &PeerId> {
        self.into_iter()
    }

    /// Whether the membership of `peer` ends once `key` is revoked. The network's key can expel everyone; issuers
    /// (`by_network` is false) neither one another nor themselves.
    #[must_use]
    pub fn end_with(&self, peer: &PeerId, key: &PeerId, by_network: bool) -> bool {
        let node = peer == key || self.invitations.contains(key);
        if by_network {
            node || self.issuers.contains(key)
        } else {
            node && self.issuers.first() != Some(key)
        }
    }

    fn len(&self) -> usize {
        self.issuers.len() + self.invitations.len()
    }

    fn add(&mut self, kind: Kind, key: PeerId) {
        let list = match kind {
            Kind::Issuer => &mut self.issuers,
            Kind::Invitation => &mut self.invitations,
            Kind::Node => return,
        };
        if !list.contains(&key) {
            list.push(key);
        }
    }
}

impl<'a> IntoIterator for &'a KeysAbove {
    type Item = &'a PeerId;
    type IntoIter = std::iter::Chain<std::slice::Iter<'a, PeerId>, std::slice::Iter<'a, PeerId>>;

    fn into_iter(self) -> Self::IntoIter {
        self.issuers.iter().chain(&self.invitations)
    }
}

/// One signed statement about one key.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    kind: Kind,
    network: NetworkId,
    subject: PeerId,
    grant: Grant,
    /// Of a renewed node: what its earlier certificates stood on.
    previous: KeysAbove,
    /// As received: what was signed is never encoded anew.
    bytes: Vec<u8>,
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} certificate of {} ({:?})",
            self.kind, self.subject, self.grant
        )
    }
}

impl Certificate {
    /// Signs a certificate. Fails if the grant exceeds what the format holds.
    pub fn sign(
        kind: Kind,
        network: NetworkId,
        subject: PeerId,
        grant: Grant,
        signer: &SecretKey,
    ) -> Result<Self, WireError> {
        Self::sign_with(kind, network, subject, grant, KeysAbove::default(), signer)
    }

    fn sign_with(
        kind: Kind,
        network: NetworkId,
        subject: PeerId,
        grant: Grant,
        previous: KeysAbove,
        signer: &SecretKey,
    ) -> Result<Self, WireError> {
        if previous.len() > MAX_PREVIOUS {
            return Err(WireError::Bad("number of earlier keys (at most 8)"));
        }
        let core = if grant.core { FLAG_CORE } else { 0 };
        let renewed = if previous.len() > 0 { FLAG_RENEWED } else { 0 };
        if grant.labels.len() > MAX_ENTRIES || grant.prefixes.len() > MAX_ENTRIES {
            return Err(WireError::Bad("number of labels or prefixes (at most 16)"));
        }
        check_text(&grant.name, "name (at most 63 printable bytes)")?;
        let mut w = Writer::new();
        w.u8(VERSION)
            .u8(kind as u8)
            .put(network.public_key())
            .put(subject.public_key());
        w.u64(grant.not_before)
            .u64(grant.not_after)
            .u64(grant.renew_for)
            .u8(core | renewed);
        w.text8(&grant.name)?;
        w.u8(grant.labels.len() as u8);
        for (key, value) in &grant.labels {
            check_text(key, "label (at most 63 printable bytes)")?;
            check_text(value, "label (at most 63 printable bytes)")?;
            w.text8(key)?.text8(value)?;
        }
        w.u8(grant.prefixes.len() as u8);
        for prefix in &grant.prefixes {
            w.ipv6(prefix.addr).u8(prefix.len);
        }
        if previous.len() > 0 {
            w.u8(previous.len() as u8);
            let issuers = previous.issuers.iter().map(|key| (Kind::Issuer, key));
            let invitations = previous.invitations.iter();
            for (kind, key) in issuers.chain(invitations.map(|key| (Kind::Invitation, key))) {
                w.u8(kind as u8).put(key.public_key());
            }
        }
        let signature = signer.sign(CONTEXT, w.as_slice());
        w.put(&signature);
        if w.len() > MAX_CERTIFICATE {
            return Err(WireError::Bad("length of the certificate"));
        }
        Ok(Self {
            kind,
            network,
            subject,
            grant,
            previous,
            bytes: w.into_vec(),
        })
    }

    /// Reads a certificate; its signature is not checked here but by [`Chain::verify`].
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        if bytes.len() > MAX_CERTIFICATE {
            return Err(WireError::Bad("length of the certificate"));
        }
        let mut r = Reader::new(bytes);
        match r.u8()? {
            VERSION => {}
            version => return Err(WireError::Version(version)),
        }
        let kind = match r.u8()? {
            1 => Kind::Issuer,
            2 => Kind::Invitation,
            3 => Kind::Node,
            _ => return Err(WireError::Bad("certificate kind")),
        };
        let (network, subject) = (public_key(&mut r)?, public_key(&mut r)?);
        let (grant, renewed) = decode_grant(&mut r)?;
        let previous = match (renewed, kind) {
            (false, _) => KeysAbove::default(),
            (true, Kind::Node) => decode_previous(&mut r)?,
            (true, _) => return Err(WireError::Bad("flags")),
        };
        r.array::<64>()?;
        r.finish()?;
        Ok(Self {
            kind,
            network,
            subject,
            grant,
            previous,
            bytes: bytes.to_vec(),
        })
    }

    /// What it makes of its subject.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The key that the certificate speaks of.
    #[must_use]
    pub fn subject(&self) -> PeerId {
        self.subject
    }

    /// What it grants.
    #[must_use]
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// The network it belongs to.
    #[must_use]
    pub fn network(&self) -> NetworkId {
        self.network
    }

    /// The signed form.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// That `signer` made it for `network`, and that it is valid at `now`, give or take `skew` seconds.
    pub(crate) fn verify_by(
        &self,
        signer: &PeerId,
        network: &NetworkId,
        now: u64,
        skew: u64,
    ) -> Result<(), CertError> {
        if self.network != *network {
            return Err(CertError::OtherNetwork);
        }
        let (message, signature) = self
            .bytes
            .split_last_chunk::<64>()
            .ok_or(CertError::Malformed(WireError::Truncated))?;
        signer
            .verify(CONTEXT, message, signature)
            .map_err(|_| CertError::Forged(self.kind))?;
        if now > self.grant.not_after.saturating_add(skew) {
            return Err(CertError::Expired(self.kind));
        }
        if now.saturating_add(skew) < self.grant.not_before {
            return Err(CertError::NotYetValid(self.kind));
        }
        Ok(())
    }

    fn narrows(&self, above: &Grant) -> Result<(), CertError> {
        let own = &self.grant;
        let in_time = above.not_before <= own.not_before
            && own.not_before <= own.not_after
            && own.not_after <= above.not_after;
        let inside = |p: &GroupPrefix| above.prefixes.iter().any(|a| a.covers(p));
        let labels = above
            .labels
            .iter()
            .all(|(k, v)| own.labels.get(k) == Some(v));
        let core = !own.core || above.core;
        if in_time && own.prefixes.iter().all(inside) && core && labels {
            Ok(())
        } else {
            Err(CertError::Widened(self.kind))
        }
    }
}

/// Names and labels are shown in terminals: no control characters, bounded.
fn check_text(text: &str, what: &'static str) -> Result<(), WireError> {
    if text.len() <= MAX_NAME && !text.chars().any(char::is_control) {
        Ok(())
    } else {
        Err(WireError::Bad(what))
    }
}

fn public_key(r: &mut Reader<'_>) -> Result<PeerId, WireError> {
    PeerId::from_public_key(r.array()?).map_err(|_| WireError::Bad("public key"))
}

/// The keys behind the flag "renewed": at least one, none twice.
fn decode_previous(r: &mut Reader<'_>) -> Result<KeysAbove, WireError> {
    let mut previous = KeysAbove::default();
    let n = usize::from(r.u8()?);
    if !(1..=MAX_PREVIOUS).contains(&n) {
        return Err(WireError::Bad("count"));
    }
    for _ in 0..n {
        let kind = match r.u8()? {
            1 => Kind::Issuer,
            2 => Kind::Invitation,
            _ => return Err(WireError::Bad("kind of an earlier key")),
        };
        previous.add(kind, public_key(r)?);
    }
    if previous.len() == n {
        Ok(previous)
    } else {
        Err(WireError::Bad("earlier key given twice"))
    }
}

/// A grant, and whether the flag "renewed" is set.
fn decode_grant(r: &mut Reader<'_>) -> Result<(Grant, bool), WireError> {
    let (not_before, not_after, renew_for) = (r.u64()?, r.u64()?, r.u64()?);
    let flags = r.u8()?;
    if flags & !(FLAG_CORE | FLAG_RENEWED) != 0 {
        return Err(WireError::Bad("flags"));
    }
    let (core, renewed) = (flags & FLAG_CORE != 0, flags & FLAG_RENEWED != 0);
    let text = |r: &mut Reader<'_>| -> Result<String, WireError> {
        let text = r.text8()?;
        check_text(text, "text")?;
        Ok(text.to_owned())
    };
    let name = text(r)?;
    let mut labels = BTreeMap::new();
    for _ in 0..count(r)? {
        if labels.insert(text(r)?, text(r)?).is_some() {
            return Err(WireError::Bad("label given twice"));
        }
    }
    let mut prefixes = Vec::new();
    for _ in 0..count(r)? {
        prefixes.push(GroupPrefix::new(r.ipv6()?, r.u8()?)?);
    }
    let grant = Grant {
        not_before,
        not_after,
        renew_for,
        core,
        name,
        labels,
        prefixes,
    };
    Ok((grant, renewed))
}

fn count(r: &mut Reader<'_>) -> Result<usize, WireError> {
    let n = usize::from(r.u8()?);
    if n <= MAX_ENTRIES {
        Ok(n)
    } else {
        Err(WireError::Bad("count"))
    }
}

/// A verified node: what its chain proves of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Who it is.
    pub peer: PeerId,
    /// The name it gave itself.
    pub name: String,
    /// Labels of its certificate.
    pub labels: BTreeMap<String, String>,
    /// Groups it may send to.
    pub prefixes: Vec<GroupPrefix>,
    /// May be the root of shared trees.
    pub core: bool,
    /// Unix seconds: when its certificate ends, the first of its chain to do so.
    pub not_after: u64,
    /// Where it is.
    pub addresses: NodeAddresses,
    /// The keys that its membership stands on.
    pub keys: KeysAbove,
}

impl Member {
    /// Whether it holds an issuer certificate: may invite, renew and revoke. The chain begins with that
    /// certificate; keys of earlier certificates make nobody an issuer.
    #[must_use]
    pub fn is_issuer(&self) -> bool {
        self.keys.issuers.first() == Some(&self.peer)
    }

    /// Whether it is out once `key` is revoked: [`KeysAbove::end_with`].
    #[must_use]
    pub fn is_expelled_by(&self, key: &PeerId, by_network: bool) -> bool {
        self.keys.end_with(&self.peer, key, by_network)
    }
}

/// The certificates that lead from the network key to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chain(Vec<Certificate>);

impl Chain {
    /// From issuer to node, with or without an invitation between.
    pub fn new(certificates: Vec<Certificate>) -> Result<Self, CertError> {
        let kinds: Vec<_> = certificates.iter().map(|c| c.kind).collect();
        match kinds.as_slice() {
            [Kind::Issuer, Kind::Node] | [Kind::Issuer, Kind::Invitation, Kind::Node] => {
                Ok(Self(certificates))
            }
            _ => Err(CertError::Order),
        }
    }

    /// The certificate of the issuer.
    #[must_use]
    pub fn issuer(&self) -> &Certificate {
        // the constructor holds 2 or 3 certificates
        &self.0[0]
    }

    /// The certificate of the node.
    #[must_use]
    pub fn node(&self) -> &Certificate {
        // the constructor holds 2 or 3 certificates
        &self.0[self.0.len() - 1]
    }

    /// When the node's certificate was made: of two chains of a node the one issued later counts.
    #[must_use]
    pub fn issued(&self) -> u64 {
        self.node().grant.not_before
    }

    /// Unix seconds: when it ends. In a chain that verifies this is the earliest expiry.
    #[must_use]
    pub fn not_after(&self) -> u64 {
        self.node().grant.not_after
    }

    /// The invitation that the node signed itself in with; none: an issuer signed its certificate.
    #[must_use]
    pub fn invitation(&self) -> Option<&Certificate> {
        match self.0.as_slice() {
            [_, invitation, _] => Some(invitation),
            _ => None,
        }
    }

    /// For how many seconds a renewed membership lasts, as an issuer has signed it.
    #[must_use]
    pub fn life(&self) -> u64 {
        let grant = &self.invitation().unwrap_or(self.node()).grant;
        match grant.renew_for {
            0 => grant.not_after.saturating_sub(grant.not_before),
            life => life,
        }
    }

    /// The keys that it stands on; its issuer's is the first.
    fn keys(&self) -> KeysAbove {
        let mut keys = KeysAbove::default();
        for certificate in &self.0 {
            keys.add(certificate.kind, certificate.subject);
        }
        let previous = &self.node().previous;
        for key in &previous.issuers {
            keys.add(Kind::Issuer, *key);
        }
        for key in &previous.invitations {
            keys.add(Kind::Invitation, *key);
        }
        keys
    }

    /// Renews a node for `ttl` seconds from `now` with an issuer's key: the same name, labels, prefixes and
    /// `core`, directly under that issuer, and no longer than its certificate lasts. Refused for what has
    /// expired (a day of skew allowed) and for what that issuer could not grant.
    pub fn renew(
        &self,
        issuer: &Certificate,
        key: &SecretKey,
        now: u64,
        ttl: u64,
    ) -> Result<Self, CertError> {
        self.renew_as(&self.node().grant.name, issuer, key, now, ttl)
    }

    /// [`Self::renew`], with another name: two nodes of a network had the same.
    pub fn renew_as(
        &self,
        name: &str,
        issuer: &Certificate,
        key: &SecretKey,
        now: u64,
        ttl: u64,
    ) -> Result<Self, CertError> {
        if issuer.kind != Kind::Issuer || issuer.subject != key.peer_id() {
            return Err(CertError::Order);
        }
        let network = issuer.network;
        self.verify(&network, now)?;
        let old = self.node();
        // later than the old one whatever the clocks say: of two chains the later one counts
        let later = old.grant.not_before.saturating_add(1);
        let not_before = now.max(later).max(issuer.grant.not_before);
        let grant = Grant {
            not_before,
            not_after: not_before.saturating_add(ttl).min(issuer.grant.not_after),
            renew_for: self.life(),
            name: name.to_owned(),
            ..old.grant.clone()
        };
        let mut previous = self.keys();
        previous.issuers.retain(|key| *key != issuer.subject);
        let node = Certificate::sign_with(Kind::Node, network, old.subject, grant, previous, key)?;
        let renewed = Self::new(vec![issuer.clone(), node])?;
        renewed.verify(&network, now)?;
        Ok(renewed)
    }

    /// Binary form: count, then each certificate behind a two-byte length.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u8(self.0.len() as u8);
        for certificate in &self.0 {
            // a certificate is at most MAX_CERTIFICATE long
            w.u16(certificate.bytes.len() as u16)
                .put(&certificate.bytes);
        }
        w.into_vec()
    }

    /// Reads what [`Chain::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        if bytes.len() > MAX_CHAIN {
            return Err(WireError::Bad("length of the chain"));
        }
        let mut r = Reader::new(bytes);
        let n = r.u8()?;
        if !(2..=3).contains(&n) {
            return Err(WireError::Bad("number of certificates"));
        }
        let certificates = (0..n)
            .map(|_| Certificate::decode(r.bytes16()?))
            .collect::<Result<_, _>>()?;
        r.finish()?;
        Self::new(certificates).map_err(|_| WireError::Bad("order of certificates"))
    }

    /// Checks the whole chain against the network key at `now` (Unix seconds, a day of skew allowed).
    pub fn verify(&self, network: &NetworkId, now: u64) -> Result<Member, CertError> {
        // whoever holds a token signs the node's certificate: it could name keys that nobody may revoke
        if self.invitation().is_some() && self.node().previous.len() > 0 {
            return Err(CertError::Widened(Kind::Node));
        }
        let (mut signer, mut above) = (*network, None::<&Grant>);
        for certificate in &self.0 {
            certificate.verify_by(&signer, network, now, CLOCK_SKEW)?;
            if let Some(above) = above {
                certificate.narrows(above)?;
            }
            signer = certificate.subject;
            above = Some(&certificate.grant);
        }
        let grant = above.ok_or(CertError::Order)?;
        Ok(Member {
            peer: signer,
            name: grant.name.clone(),
            labels: grant.labels.clone(),
            prefixes: grant.prefixes.clone(),
            core: grant.core,
            not_after: grant.not_after,
            addresses: NodeAddresses::derive(network, &signer),
            keys: self.keys(),
        })
    }
}

/// A bearer invitation: who holds it can make itself a member until it expires.
pub struct Token {
    network: NetworkId,
    issuer: Certificate,
    invitation: Certificate,
    secret: SecretKey,
    /// Where to meet: `ws://HOST:PORT` or `wss://...`.
    pub signal: Vec<String>,
}

const TOKEN_PREFIX: &str = "lct1";
/// Most signalling URLs in a token, and their greatest length.
const MAX_URLS: u8 = 8;
/// Longest token in characters.
pub const MAX_TOKEN: usize = 8_192;

impl Token {
    /// Makes an invitation with an issuer's key; the grant's prefixes and `core` must lie inside the issuer's.
    pub fn invite(
        issuer: &Certificate,
        key: &SecretKey,
        grant: Grant,
        signal: Vec<String>,
    ) -> Result<Self, CertError> {
        if issuer.kind != Kind::Issuer || issuer.subject != key.peer_id() {
            return Err(CertError::Order);
        }
        if signal.len() > MAX_URLS.into() || signal.iter().any(|url| url.len() > 255) {
            return Err(CertError::BadToken(
                "at most 8 signalling URLs of at most 255 bytes",
            ));
        }
        let secret = SecretKey::generate();
        let network = issuer.network;
        let invitation =
            Certificate::sign(Kind::Invitation, network, secret.peer_id(), grant, key)?;
        invitation.narrows(&issuer.grant)?;
        Ok(Self {
            network,
            issuer: issuer.clone(),
            invitation,
            secret,
            signal,
        })
    }

    /// The network it leads to.
    #[must_use]
    pub fn network(&self) -> NetworkId {
        self.network
    }

    /// The invitation's certificate; its subject is the key that revoking the token revokes.
    #[must_use]
    pub fn invitation(&self) -> &Certificate {
        &self.invitation
    }

    /// Makes `node` a member called `name`; refused when the token has expired (no skew: this is the own clock).
    pub fn join(&self, node: PeerId, name: &str, now: u64) -> Result<Chain, CertError> {
        self.issuer
            .verify_by(&self.network, &self.network, now, CLOCK_SKEW)?;
        self.invitation
            .verify_by(&self.issuer.subject, &self.network, now, 0)
            .or_else(|e| match e {
                // issued moments ago by a clock that runs ahead of ours
                CertError::NotYetValid(_)
                    if self.invitation.grant.not_before <= now + CLOCK_SKEW =>
                {
                    Ok(())
                }
                e => Err(e),
            })?;
        let invited = &self.invitation.grant;
        // the inviting host's clock may run ahead of ours
        let not_before = now.max(invited.not_before);
        let not_after = match invited.renew_for {
            0 => invited.not_after,
            life => invited.not_after.min(not_before.saturating_add(life)),
        };
        let grant = Grant {
            name: name.to_owned(),
            not_before,
            not_after,
            ..invited.clone()
        };
        let node = Certificate::sign(Kind::Node, self.network, node, grant, &self.secret)?;
        Chain::new(vec![self.issuer.clone(), self.invitation.clone(), node])
    }

    /// One line of text, to be handed over secretly.
    #[must_use]
    pub fn encode(&self) -> Zeroizing<String> {
        let mut w = Writer::new();
        w.put(self.network.public_key())
            .put(self.secret.seed().as_slice());
        for certificate in [&self.issuer, &self.invitation] {
            w.u16(certificate.bytes.len() as u16)
                .put(&certificate.bytes);
        }
        w.u8(self.signal.len() as u8);
        for url in &self.signal {
            // the constructor and the decoder hold at most 255 bytes
            w.u8(url.len() as u8).put(url.as_bytes());
        }
        let bytes = Zeroizing::new(w.into_vec());
        Zeroizing::new(format!(
            "{TOKEN_PREFIX}{}",
            bs58::encode(bytes.as_slice()).with_check().into_string()
        ))
    }
}

impl FromStr for Token {
    type Err = CertError;

    fn from_str(text: &str) -> Result<Self, CertError> {
        let text = text.trim();
        if text.len() > MAX_TOKEN {
            return Err(CertError::BadToken("too long"));
        }
        let body = text
            .strip_prefix(TOKEN_PREFIX)
            .ok_or(CertError::BadToken("it starts with lct1"))?;
        let bytes = bs58::decode(body)
            .with_check(None)
            .into_vec()
            .map_err(|_| CertError::BadToken("damaged: was it copied whole?"))?;
        let bytes = Zeroizing::new(bytes);
        let mut r = Reader::new(&bytes);
        let network =
            PeerId::from_public_key(r.array()?).map_err(|_| CertError::BadToken("network key"))?;
        let secret = SecretKey::from_seed(&Zeroizing::new(r.array()?));
        let issuer = Certificate::decode(r.bytes16()?)?;
        let invitation = Certificate::decode(r.bytes16()?)?;
        let urls = r.u8()?;
        if urls > MAX_URLS {
            return Err(CertError::BadToken("too many URLs"));
        }
        let signal = (0..urls)
            .map(|_| r.text8().map(str::to_owned))
            .collect::<Result<_, _>>()?;
        r.finish()?;
        let right = issuer.kind == Kind::Issuer
            && invitation.kind == Kind::Invitation
            && invitation.subject == secret.peer_id();
        if !right {
            return Err(CertError::BadToken("its parts do not belong together"));
        }
        Ok(Self {
            network,
            issuer,
            invitation,
            secret,
            signal,
        })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token of network {}", self.network)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_800_000_000;
    const DAY: u64 = 86_400;

    fn grant(name: &str) -> Grant {
        Grant {
            not_before: NOW,
            not_after: NOW + 7 * DAY,
            renew_for: 0,
            core: false,
            name: name.to_owned(),
            labels: BTreeMap::new(),
            prefixes: vec![GroupPrefix::ALL],
        }
    }

    struct Network {
        key: SecretKey,
        issuer_key: SecretKey,
        issuer: Certificate,
    }

    fn network() -> Network {
        let (key, issuer_key) = (SecretKey::generate(), SecretKey::generate());
        let wide = Grant {
            not_after: NOW + 3_650 * DAY,
            renew_for: 0,
            core: true,
            ..grant("")
        };
        let issuer = Certificate::sign(
            Kind::Issuer,
            key.peer_id(),
            issuer_key.peer_id(),
            wide,
            &key,
        )
        .unwrap();
        Network {
            key,
            issuer_key,
            issuer,
        }
    }

    fn token(n: &Network, grant: Grant) -> Token {
        Token::invite(
            &n.issuer,
            &n.issuer_key,
            grant,
            vec!["ws://host:7117".into()],
        )
        .unwrap()
    }

    #[test]
    fn a_token_makes_a_member() {
        let n = network();
        let mut invited = grant("");
        invited.labels.insert("site".into(), "berlin".into());
        let text = token(&n, invited).encode();
        let token: Token = text.parse().unwrap();
        assert_eq!(token.signal, ["ws://host:7117"]);
        let node = SecretKey::generate().peer_id();
        let chain = token.join(node, "alpha", NOW + 5).unwrap();
        let chain = Chain::decode(&chain.encode()).unwrap();
        let member = chain.verify(&n.key.peer_id(), NOW + 10).unwrap();
        assert_eq!((member.peer, member.name.as_str()), (node, "alpha"));
        assert_eq!(member.labels["site"], "berlin");
        assert_eq!(member.not_after, NOW + 7 * DAY);
        assert_eq!(
            chain.verify(&SecretKey::generate().peer_id(), NOW),
            Err(CertError::OtherNetwork)
        );
    }

    #[test]
    fn expiry_counts_with_a_day_of_tolerance_but_a_token_without() {
        let n = network();
        let token = token(&n, grant(""));
        let chain = token
            .join(SecretKey::generate().peer_id(), "a", NOW)
            .unwrap();
        let net = n.key.peer_id();
        assert!(chain.verify(&net, NOW + 8 * DAY).is_ok());
        assert_eq!(
            chain.verify(&net, NOW + 8 * DAY + 1),
            Err(CertError::Expired(Kind::Invitation))
        );
        assert!(chain.verify(&net, NOW - DAY).is_ok());
        assert_eq!(
            chain.verify(&net, NOW - DAY - 1),
            Err(CertError::NotYetValid(Kind::Issuer))
        );
        let late = token.join(SecretKey::generate().peer_id(), "a", NOW + 7 * DAY + 1);
        assert_eq!(late, Err(CertError::Expired(Kind::Invitation)));
    }

    #[test]
    fn nobody_grants_more_than_he_has() {
        let n = network();
        let narrow = Grant {
            prefixes: vec!["ff1e::/16".parse().unwrap()],
            ..grant("")
        };
        let token = token(&n, narrow);
        let node = SecretKey::generate();
        let net = n.key.peer_id();
        let wide =
            Certificate::sign(Kind::Node, net, node.peer_id(), grant("x"), &token.secret).unwrap();
        let chain = Chain::new(vec![n.issuer.clone(), token.invitation.clone(), wide]).unwrap();
        assert_eq!(chain.verify(&net, NOW), Err(CertError::Widened(Kind::Node)));
        let core = Grant {
            core: true,
            ..token.invitation.grant.clone()
        };
        let core = Certificate::sign(Kind::Node, net, node.peer_id(), core, &token.secret).unwrap();
        let chain = Chain::new(vec![n.issuer.clone(), token.invitation.clone(), core]).unwrap();
        assert_eq!(chain.verify(&net, NOW), Err(CertError::Widened(Kind::Node)));
        // an issuer's invitation, too
        let issuer = Grant {
            prefixes: vec!["ff1e::/16".parse().unwrap()],
            ..n.issuer.grant.clone()
        };
        let issuer =
            Certificate::sign(Kind::Issuer, net, n.issuer_key.peer_id(), issuer, &n.key).unwrap();
        assert!(matches!(
            Token::invite(&issuer, &n.issuer_key, grant(""), vec![]),
            Err(CertError::Widened(Kind::Invitation))
        ));
    }

    #[test]
    fn forged_and_misplaced_certificates_are_refused() {
        let n = network();
        let net = n.key.peer_id();
        let stranger = SecretKey::generate();
        let node =
            Certificate::sign(Kind::Node, net, stranger.peer_id(), grant("x"), &stranger).unwrap();
        let chain = Chain::new(vec![n.issuer.clone(), node.clone()]).unwrap();
        assert_eq!(chain.verify(&net, NOW), Err(CertError::Forged(Kind::Node)));
        assert_eq!(Chain::new(vec![node.clone()]), Err(CertError::Order));
        assert_eq!(
            Chain::new(vec![node, n.issuer.clone()]),
            Err(CertError::Order)
        );
    }

    #[test]
    fn any_flipped_bit_is_noticed() {
        let n = network();
        let chain = token(&n, grant(""))
            .join(SecretKey::generate().peer_id(), "a", NOW)
            .unwrap();
        let bytes = chain.encode();
        for i in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[i] ^= 1;
            let verdict = Chain::decode(&bad).map(|c| c.verify(&n.key.peer_id(), NOW));
            assert!(!matches!(verdict, Ok(Ok(_))), "byte {i}");
        }
    }

    #[test]
    fn a_renewed_node_keeps_what_it_had_and_remembers_whom_it_owes_it() {
        let n = network();
        let net = n.key.peer_id();
        let mut invited = grant("");
        invited.labels.insert("site".into(), "berlin".into());
        let token = token(&n, invited);
        let node = SecretKey::generate().peer_id();
        // joined in the invitation's last minute: it was meant for a week all the same
        let chain = token.join(node, "alpha", NOW + 7 * DAY - 60).unwrap();
        assert_eq!(chain.life(), 7 * DAY);
        let later = NOW + 7 * DAY - 30;
        let renewed = chain
            .renew(&n.issuer, &n.issuer_key, later, chain.life())
            .unwrap();
        let renewed = Chain::decode(&renewed.encode()).unwrap();
        let (old, new) = (
            chain.verify(&net, later).unwrap(),
            renewed.verify(&net, later + 8 * DAY).unwrap(),
        );
        assert_eq!(new.not_after, later + 7 * DAY);
        assert_eq!(renewed.not_after(), new.not_after);
        assert!(renewed.issued() > chain.issued());
        assert_eq!(new.keys, old.keys);
        assert_eq!(new.keys.invitations, [token.invitation().subject()]);
        let without_time = |m: &Member| Member {
            not_after: 0,
            ..m.clone()
        };
        assert_eq!(without_time(&new), without_time(&old));
        // and once more, by another issuer
        let other_key = SecretKey::generate();
        let other = Certificate::sign(
            Kind::Issuer,
            net,
            other_key.peer_id(),
            n.issuer.grant.clone(),
            &n.key,
        )
        .unwrap();
        let again = renewed.renew(&other, &other_key, later + 5, 60).unwrap();
        let again = again.verify(&net, later + 5).unwrap();
        assert_eq!(
            again.keys.issuers,
            [other_key.peer_id(), n.issuer_key.peer_id()]
        );
        assert_eq!(again.keys.invitations, new.keys.invitations);
        // the clock of the one who renews runs behind: newer than the old one all the same
        let behind = renewed
            .renew(&n.issuer, &n.issuer_key, later - DAY / 2, DAY)
            .unwrap();
        assert!(behind.issued() > renewed.issued());
    }

    #[test]
    fn nobody_renews_what_he_could_not_grant_or_what_is_over() {
        let n = network();
        let net = n.key.peer_id();
        let chain = token(&n, grant(""))
            .join(SecretKey::generate().peer_id(), "a", NOW)
            .unwrap();
        let narrow = Grant {
            prefixes: vec!["ff1e::/16".parse().unwrap()],
            ..n.issuer.grant.clone()
        };
        let key = SecretKey::generate();
        let issuer = |grant: &Grant| {
            Certificate::sign(Kind::Issuer, net, key.peer_id(), grant.clone(), &n.key).unwrap()
        };
        assert_eq!(
            chain.renew(&issuer(&narrow), &key, NOW, DAY),
            Err(CertError::Widened(Kind::Node))
        );
        assert_eq!(
            chain.renew(&n.issuer, &key, NOW, DAY),
            Err(CertError::Order),
            "not its key"
        );
        let node = chain.node();
        assert_eq!(
            chain.renew(node, &key, NOW, DAY),
            Err(CertError::Order),
            "no issuer"
        );
        assert_eq!(
            chain.renew(&n.issuer, &n.issuer_key, NOW + 8 * DAY + 1, DAY),
            Err(CertError::Expired(Kind::Invitation))
        );
        let short = Grant {
            not_after: NOW + 60,
            ..n.issuer.grant.clone()
        };
        let renewed = chain.renew(&issuer(&short), &key, NOW, DAY).unwrap();
        assert_eq!(renewed.not_after(), NOW + 60, "no longer than the issuer");
        let other = network();
        assert_eq!(
            chain.renew(&other.issuer, &other.issuer_key, NOW, DAY),
            Err(CertError::OtherNetwork)
        );
    }

    #[test]
    fn issuers_expel_nodes_and_invitations_and_only_the_network_expels_issuers() {
        let n = network();
        let net = n.key.peer_id();
        let token = token(&n, grant(""));
        let node = SecretKey::generate().peer_id();
        let member = token
            .join(node, "a", NOW)
            .unwrap()
            .verify(&net, NOW)
            .unwrap();
        let (issuer, invitation) = (n.issuer_key.peer_id(), token.invitation().subject());
        for (key, by_issuer, by_network) in [
            (node, true, true),
            (invitation, true, true),
            (issuer, false, true),
            (SecretKey::generate().peer_id(), false, false),
        ] {
            assert_eq!(member.is_expelled_by(&key, false), by_issuer);
            assert_eq!(member.is_expelled_by(&key, true), by_network);
        }
        assert!(!member.is_issuer());
        // a founder: issuer and node with one key
        let founder =
            Certificate::sign(Kind::Node, net, issuer, grant("f"), &n.issuer_key).unwrap();
        let founder = Chain::new(vec![n.issuer.clone(), founder]).unwrap();
        let founder = founder.verify(&net, NOW).unwrap();
        assert!(founder.is_issuer());
        assert!(!founder.is_expelled_by(&issuer, false));
        assert!(founder.is_expelled_by(&issuer, true));
    }

    /// The chain of whoever holds `token` and signs what he likes.
    fn signed_by_the_holder(n: &Network, token: &Token, node: &Certificate) -> Chain {
        let all = vec![n.issuer.clone(), token.invitation.clone(), node.clone()];
        Chain::new(all).unwrap()
    }

    #[test]
    fn a_token_holder_names_no_earlier_keys() {
        let n = network();
        let (net, issuer) = (n.key.peer_id(), n.issuer_key.peer_id());
        let token = token(&n, grant(""));
        let (node, invitation) = (
            SecretKey::generate().peer_id(),
            token.invitation().subject(),
        );
        let immune = KeysAbove {
            issuers: vec![invitation, node],
            invitations: Vec::new(),
        };
        let forged = Certificate::sign_with(
            Kind::Node,
            net,
            node,
            grant("evil"),
            immune.clone(),
            &token.secret,
        );
        let forged = signed_by_the_holder(&n, &token, &forged.unwrap());
        let widened = Err(CertError::Widened(Kind::Node));
        assert_eq!(forged.verify(&net, NOW), widened);
        assert!(forged.renew(&n.issuer, &n.issuer_key, NOW, DAY).is_err());
        // even where an issuer has signed them, they make nobody an issuer and protect no node
        let lent = KeysAbove {
            invitations: vec![invitation],
            ..immune
        };
        let lent =
            Certificate::sign_with(Kind::Node, net, node, grant("m"), lent, &n.issuer_key).unwrap();
        let member = Chain::new(vec![n.issuer.clone(), lent]).unwrap();
        let member = member.verify(&net, NOW).unwrap();
        assert!(!member.is_issuer());
        assert!(member.is_expelled_by(&node, false) && member.is_expelled_by(&invitation, false));
        assert!(!member.is_expelled_by(&issuer, false) && member.is_expelled_by(&issuer, true));
    }

    #[test]
    fn what_a_token_made_stays_revocable_by_issuers_after_renewals() {
        let n = network();
        let net = n.key.peer_id();
        let token = token(&n, grant(""));
        let (node, invitation) = (
            SecretKey::generate().peer_id(),
            token.invitation().subject(),
        );
        let mut chain = token.join(node, "a", NOW).unwrap();
        for round in 0..3 {
            let member = chain.verify(&net, NOW + round).unwrap();
            for key in [node, invitation] {
                assert!(member.is_expelled_by(&key, false), "after {round} renewals");
            }
            chain = chain
                .renew(&n.issuer, &n.issuer_key, NOW + round, DAY)
                .unwrap();
        }
    }

    #[test]
    fn only_nodes_are_renewed_and_their_earlier_keys_are_bounded() {
        let n = network();
        let net = n.key.peer_id();
        let sign = |kind, keys: usize| {
            let issuers = (0..keys).map(|_| SecretKey::generate().peer_id()).collect();
            let previous = KeysAbove {
                issuers,
                invitations: Vec::new(),
            };
            Certificate::sign_with(kind, net, net, grant("x"), previous, &n.key)
        };
        let node = sign(Kind::Node, MAX_PREVIOUS).unwrap();
        assert_eq!(Certificate::decode(node.as_bytes()).unwrap(), node);
        assert!(sign(Kind::Node, MAX_PREVIOUS + 1).is_err());
        let invitation = sign(Kind::Invitation, 1).unwrap();
        assert_eq!(
            Certificate::decode(invitation.as_bytes()),
            Err(WireError::Bad("flags"))
        );
    }

    #[test]
    fn the_bytes_of_a_renewed_certificate_do_not_change() {
        let key = SecretKey::from_seed(&[1; 32]);
        let id = |seed: u8| SecretKey::from_seed(&[seed; 32]).peer_id();
        let grant = Grant {
            not_before: 1,
            not_after: 2,
            renew_for: 3,
            core: true,
            name: "n".into(),
            labels: BTreeMap::from([("k".into(), "v".into())]),
            prefixes: vec!["ff1e::/16".parse().unwrap()],
        };
        let previous = KeysAbove {
            issuers: vec![id(3)],
            invitations: vec![id(4)],
        };
        let cert = Certificate::sign_with(Kind::Node, id(1), id(2), grant, previous, &key).unwrap();
        let mut golden = Writer::new();
        golden
            .u8(2)
            .u8(3)
            .put(id(1).public_key())
            .put(id(2).public_key());
        golden.u64(1).u64(2).u64(3).u8(0b11);
        golden.put(b"\x01n\x01\x01k\x01v\x01");
        golden.ipv6("ff1e::".parse().unwrap()).u8(16);
        golden
            .u8(2)
            .u8(1)
            .put(id(3).public_key())
            .u8(2)
            .put(id(4).public_key());
        let (signed, _) = cert.as_bytes().split_last_chunk::<64>().unwrap();
        assert_eq!(signed, golden.as_slice());
        assert_eq!(Certificate::decode(cert.as_bytes()).unwrap(), cert);
    }

    #[test]
    fn damaged_tokens_say_so() {
        let n = network();
        let text = token(&n, grant("")).encode();
        assert!(text[..text.len() - 3].parse::<Token>().is_err());
        assert!("lct1".parse::<Token>().is_err());
        assert!("hello".parse::<Token>().is_err());
        assert!("1".repeat(100_000).parse::<Token>().is_err());
    }

    #[test]
    fn prefixes_are_multicast_and_clean() {
        let p: GroupPrefix = "ff1e::/16".parse().unwrap();
        assert!(p.contains("ff1e:1::9".parse().unwrap()));
        assert!(!p.contains("ff15::9".parse().unwrap()));
        assert!(GroupPrefix::ALL.covers(&p) && !p.covers(&GroupPrefix::ALL));
        for bad in [
            "::/0",
            "fe80::/16",
            "ff1e::1/16",
            "ff1e::/129",
            "ff1e::/x",
            "",
            "ff00::/7",
        ] {
            assert!(bad.parse::<GroupPrefix>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..3_000)) {
            let _ = Certificate::decode(&bytes);
            let _ = Chain::decode(&bytes);
            let text = format!("lct1{}", bs58::encode(&bytes).with_check().into_string());
            prop_assert!(text.parse::<Token>().is_err());
        }

        /// What a token holder signs is a membership only inside of what the token gives, and lasts no longer.
        #[test]
        fn a_token_holder_grants_himself_nothing(
            from in prop_oneof![Just(0), NOW - DAY..NOW + 20 * DAY, Just(u64::MAX)],
            until in prop_oneof![Just(0), NOW - DAY..NOW + 20 * DAY, Just(u64::MAX)],
            renew_for: u64,
            core: bool,
            at in NOW..NOW + 10 * DAY,
        ) {
            let n = network();
            let token = token(&n, Grant { renew_for: DAY, ..grant("") });
            let given = token.invitation.grant.clone();
            let greedy = Grant { not_before: from, not_after: until, renew_for, core, ..grant("x") };
            let node = SecretKey::generate().peer_id();
            let node = Certificate::sign(Kind::Node, n.key.peer_id(), node, greedy, &token.secret).unwrap();
            let chain = signed_by_the_holder(&n, &token, &node);
            if let Ok(member) = chain.verify(&n.key.peer_id(), at) {
                prop_assert!(member.not_after <= given.not_after && from >= given.not_before && !member.core);
                prop_assert_eq!(chain.life(), DAY);
            }
        }

        #[test]
        fn certificates_survive_the_wire(
            name in "[a-zA-Z0-9 äöü.-]{0,20}",
            labels in proptest::collection::btree_map("[a-z]{1,8}", "[a-z0-9]{0,20}", 0..5),
            core: bool,
            not_after in NOW..NOW * 2,
        ) {
            let key = SecretKey::from_seed(&[5; 32]);
            let grant = Grant { not_before: NOW, not_after, renew_for: 0, core, name, labels, prefixes: vec![GroupPrefix::ALL] };
            let cert = Certificate::sign(Kind::Node, key.peer_id(), key.peer_id(), grant, &key).unwrap();
            prop_assert_eq!(Certificate::decode(cert.as_bytes()).unwrap(), cert);
        }
    }
}
