//! One certificate: a signed statement about one key, and its bytes.

use std::collections::BTreeMap;
use std::fmt;

use super::error::{CertError, Kind};
use super::member::{KeysAbove, MAX_PREVIOUS, SEGMENT};
use super::prefix::{GroupPrefix, SourcePrefix};
use super::text::{MAX_NAME, Terms, is_node_name};
use crate::id::{NetworkId, PeerId, SecretKey};
use crate::plain::is_name;
use crate::time::UnixTime;
use crate::wire::{Reader, WireError, Writer};

/// Context of signatures.
const CONTEXT: &str = "lcroute 2026 certificate";
/// Version of the format.
const VERSION: u8 = 2;
/// Longest certificate in bytes; a chain holds at most three.
pub const MAX_CERTIFICATE: usize = 2_048;
/// Most labels, and most prefixes, of one certificate.
pub const MAX_ENTRIES: usize = 16;
/// Clocks of members may differ by a day (seconds).
pub const CLOCK_SKEW: u64 = 86_400;
/// The subject may be the root of shared trees.
const FLAG_CORE: u8 = 1;
/// Keys of earlier certificates follow.
const FLAG_RENEWED: u8 = 2;

/// Source prefixes follow the group prefixes.
const FLAG_GATEWAY: u8 = 4;
/// The subject is a leaf: it receives and does not route.
const FLAG_LEAF: u8 = 8;

/// The rights that a certificate grants its subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Begin in Unix seconds.
    pub not_before: u64,
    /// End in Unix seconds.
    pub not_after: u64,
    /// Seconds that a renewed membership lasts, set by an invitation, or a node certificate that an
    /// issuer signed; 0: as long as this certificate.
    pub renew_for: u64,
    /// May be the root of shared trees.
    pub core: bool,
    /// A node's name, as of hosts ([`is_node_name`]); empty for issuers and invitations.
    pub name: String,
    /// Number of nodes that may join by an invitation; none: any. Invitations only.
    pub uses: Option<u32>,
    /// Labels that selectors can use.
    pub labels: BTreeMap<String, String>,
    /// Groups that the subject may send to; for a leaf, groups that it may join.
    pub prefixes: Vec<GroupPrefix>,
    /// Addresses of hosts without lcroute for which the subject may speak.
    pub gateway: Vec<SourcePrefix>,
    /// A leaf: it is no router, and sends nothing without `uplink`. Never with an issuer, `core` or
    /// `gateway`.
    pub leaf: bool,
    /// Leaves may send to asking groups. Invitations for leaves only.
    pub uplink: bool,
}

impl Grant {
    /// Grants sending to all groups between two Unix times; no labels, no rendezvous point.
    pub fn new(name: impl Into<String>, (not_before, not_after): (u64, u64)) -> Self {
        Self {
            not_before,
            not_after,
            renew_for: 0,
            core: false,
            name: name.into(),
            uses: None,
            labels: BTreeMap::new(),
            prefixes: vec![GroupPrefix::ALL],
            gateway: Vec::new(),
            leaf: false,
            uplink: false,
        }
    }
}

/// A signed statement about one key.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate {
    pub(super) kind: Kind,
    pub(super) network: NetworkId,
    pub(super) subject: PeerId,
    pub(super) grant: Grant,
    /// For a renewed node: the keys above its earlier certificates.
    pub(super) previous: KeysAbove,
    /// As received: signed bytes are never encoded anew.
    pub(super) bytes: Vec<u8>,
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
    /// Signs a certificate.
    ///
    /// # Errors
    /// [`WireError::Bad`] names the field of the grant that exceeds the format.
    pub fn sign(
        kind: Kind,
        network: NetworkId,
        subject: PeerId,
        grant: Grant,
        signer: &SecretKey,
    ) -> Result<Self, WireError> {
        Self::sign_with(kind, network, subject, grant, KeysAbove::default(), signer)
    }

    pub(super) fn sign_with(
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
        let entries = [
            grant.labels.len(),
            grant.prefixes.len(),
            grant.gateway.len(),
        ];
        if entries.iter().any(|n| *n > MAX_ENTRIES) {
            return Err(WireError::Bad("number of labels or prefixes (at most 16)"));
        }
        let gateway = if grant.gateway.is_empty() {
            0
        } else {
            FLAG_GATEWAY
        };
        check_leaf(kind, &grant)?;
        let leaf = if grant.leaf { FLAG_LEAF } else { 0 };
        let name = name_or_terms(kind, &grant)?;
        let mut w = Writer::new();
        w.u8(VERSION)
            .u8(kind as u8)
            .put(network.public_key())
            .put(subject.public_key());
        w.u64(grant.not_before)
            .u64(grant.not_after)
            .u64(grant.renew_for)
            .u8(core | renewed | gateway | leaf);
        w.text8(&name)?;
        w.u8(grant.labels.len() as u8);
        for (key, value) in &grant.labels {
            check_label(key)?;
            check_label(value)?;
            w.text8(key)?.text8(value)?;
        }
        w.u8(grant.prefixes.len() as u8);
        for prefix in &grant.prefixes {
            w.ipv6(prefix.addr()).u8(prefix.prefix_len());
        }
        if !grant.gateway.is_empty() {
            w.u8(grant.gateway.len() as u8);
            for prefix in &grant.gateway {
                w.ipv6(prefix.addr()).u8(prefix.prefix_len());
            }
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

    /// Decodes a certificate; [`Chain::verify`](super::Chain::verify) checks its signature.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        if bytes.len() > MAX_CERTIFICATE {
            return Err(WireError::Bad("length of the certificate"));
        }
        let mut r = Reader::new(bytes);
        r.version(VERSION)?;
        let kind = match r.u8()? {
            1 => Kind::Issuer,
            2 => Kind::Invitation,
            3 => Kind::Node,
            _ => return Err(WireError::Bad("certificate kind")),
        };
        let (network, subject) = (public_key(&mut r)?, public_key(&mut r)?);
        let (grant, renewed) = decode_grant(&mut r, kind)?;
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

    /// Returns the role of its subject.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the certified key.
    pub fn subject(&self) -> PeerId {
        self.subject
    }

    /// Returns time, name, labels and prefixes of the subject.
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// Returns its network.
    pub fn network(&self) -> NetworkId {
        self.network
    }

    /// Returns the signed bytes, at most [`MAX_CERTIFICATE`].
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Verifies that `signer` made it for `network`, and its time at `now` within `skew` seconds.
    pub(crate) fn verify_by(
        &self,
        signer: &PeerId,
        network: &NetworkId,
        now: UnixTime,
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
        let now = now.as_secs();
        if now > self.grant.not_after.saturating_add(skew) {
            return Err(CertError::Expired(self.kind));
        }
        if now.saturating_add(skew) < self.grant.not_before {
            return Err(CertError::NotYetValid(self.kind));
        }
        Ok(())
    }

    pub(super) fn narrows(&self, above: &Self) -> Result<(), CertError> {
        let by_issuer = above.kind == Kind::Issuer;
        let (own, above) = (&self.grant, &above.grant);
        let in_time = above.not_before <= own.not_before
            && own.not_before <= own.not_after
            && own.not_after <= above.not_after;
        let inside = |p: &GroupPrefix| above.prefixes.iter().any(|a| a.covers(p));
        let labels = above
            .labels
            .iter()
            .all(|(k, v)| own.labels.get(k) == Some(v));
        // only issuers give it: the holder of a token signs its own certificate
        let segment = by_issuer || own.labels.get(SEGMENT) == above.labels.get(SEGMENT);
        let core = !own.core || above.core;
        // an issuer has no LAN of its own, but grants gateways
        let covered = |p: &SourcePrefix| above.gateway.iter().any(|a| a.covers(p));
        let gateway = by_issuer || own.gateway.iter().all(covered);
        // an invitation for leaves makes no routers
        let leaf = own.leaf || !above.leaf;
        if in_time
            && own.prefixes.iter().all(inside)
            && core
            && labels
            && segment
            && gateway
            && leaf
        {
            Ok(())
        } else {
            Err(CertError::Widened(self.kind))
        }
    }
}

fn name_or_terms(kind: Kind, grant: &Grant) -> Result<String, WireError> {
    let Grant { uses, uplink, .. } = *grant;
    if uplink && !(kind == Kind::Invitation && grant.leaf) {
        return Err(WireError::Bad("uplink (of invitations for leaves only)"));
    }
    match (kind, uses) {
        (Kind::Node, None) => {
            check_name(&grant.name)?;
            Ok(grant.name.clone())
        }
        (Kind::Invitation, _) if grant.name.is_empty() => Terms { uses, uplink }.text(),
        (_, None) if grant.name.is_empty() => Ok(String::new()),
        (_, None) => Err(WireError::Bad("name (of nodes only)")),
        (_, Some(_)) => Err(WireError::Bad("number of uses (of invitations only)")),
    }
}

/// Checks that a leaf has no rights of routers.
fn check_leaf(kind: Kind, grant: &Grant) -> Result<(), WireError> {
    if grant.leaf && (kind == Kind::Issuer || grant.core || !grant.gateway.is_empty()) {
        return Err(WireError::Bad(
            "leaf (neither an issuer, nor core, nor a gateway)",
        ));
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), WireError> {
    if is_node_name(name) {
        Ok(())
    } else {
        Err(WireError::Bad(
            "name (letters, digits, - and dots; at most 63)",
        ))
    }
}

fn check_label(text: &str) -> Result<(), WireError> {
    if text.len() <= MAX_NAME && is_name(text) {
        Ok(())
    } else {
        Err(WireError::Bad("label (at most 63 visible bytes)"))
    }
}

fn public_key(r: &mut Reader<'_>) -> Result<PeerId, WireError> {
    PeerId::from_public_key(r.array()?).map_err(|_| WireError::Bad("public key"))
}

/// Decodes the keys behind the flag "renewed": at least one, none twice.
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

fn decode_grant(r: &mut Reader<'_>, kind: Kind) -> Result<(Grant, bool), WireError> {
    let (not_before, not_after, renew_for) = (r.u64()?, r.u64()?, r.u64()?);
    let flags = r.u8()?;
    if flags & !(FLAG_CORE | FLAG_RENEWED | FLAG_GATEWAY | FLAG_LEAF) != 0 {
        return Err(WireError::Bad("flags"));
    }
    let (core, renewed) = (flags & FLAG_CORE != 0, flags & FLAG_RENEWED != 0);
    let text = |r: &mut Reader<'_>| -> Result<String, WireError> {
        let text = r.text8()?;
        check_label(text)?;
        Ok(text.to_owned())
    };
    let name = r.text8()?;
    let (name, terms) = match kind {
        Kind::Node => {
            check_name(name)?;
            (name.to_owned(), Terms::default())
        }
        Kind::Invitation => {
            check_label(name)?;
            (String::new(), Terms::parse(name)?)
        }
        Kind::Issuer if name.is_empty() => Default::default(),
        Kind::Issuer => return Err(WireError::Bad("name (of nodes only)")),
    };
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
    let mut gateway = Vec::new();
    if flags & FLAG_GATEWAY != 0 {
        for _ in 0..count(r)? {
            gateway.push(SourcePrefix::new(r.ipv6()?, r.u8()?)?);
        }
        if gateway.is_empty() {
            return Err(WireError::Bad("count"));
        }
    }
    let grant = Grant {
        not_before,
        not_after,
        renew_for,
        core,
        name,
        uses: terms.uses,
        labels,
        prefixes,
        gateway,
        leaf: flags & FLAG_LEAF != 0,
        uplink: terms.uplink && flags & FLAG_LEAF != 0,
    };
    check_leaf(kind, &grant)?;
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

#[cfg(test)]
mod tests {
    use std::net::Ipv6Addr;

    use super::*;
    use proptest::prelude::*;

    use crate::cert::fixture::{NOW, grant, network};

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
            let name = if kind == Kind::Node { "x" } else { "" };
            Certificate::sign_with(kind, net, net, grant(name), previous, &n.key)
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

    /// Signs with any key, with this text in place of a node's name.
    fn with_text(kind: Kind, text: &[u8]) -> Result<Certificate, WireError> {
        let key = SecretKey::from_seed(&[5; 32]);
        let name = if kind == Kind::Node { "x" } else { "" };
        let made = Certificate::sign(kind, key.peer_id(), key.peer_id(), grant(name), &key)?;
        let at = 1 + 1 + 32 + 32 + 3 * 8 + 1;
        let after = at + 1 + name.len();
        let (before, rest) = (&made.bytes[..at], &made.bytes[after..]);
        Certificate::decode(&[before, &[text.len() as u8], text, rest].concat())
    }

    #[test]
    fn names_that_read_as_others_are_no_names() {
        for name in ["alpha", "node-1.example"] {
            assert_eq!(
                with_text(Kind::Node, name.as_bytes()).unwrap().grant.name,
                name
            );
        }
        for name in ["alpha\u{200b}\u{202e}", "\u{430}lpha", "", "two words"] {
            assert!(with_text(Kind::Node, name.as_bytes()).is_err(), "{name:?}");
            let node = SecretKey::generate();
            let signed = Certificate::sign(
                Kind::Node,
                node.peer_id(),
                node.peer_id(),
                grant(name),
                &node,
            );
            assert!(signed.is_err(), "{name:?}");
        }
        let label = |text: &str| {
            let mut labelled = grant("x");
            labelled.labels.insert(text.into(), text.into());
            let key = SecretKey::generate();
            Certificate::sign(Kind::Node, key.peer_id(), key.peer_id(), labelled, &key)
        };
        assert!(label("Z\u{fc}rich 2").is_ok());
        for hidden in ["a\u{200b}", "\u{202e}a", "a\u{2028}"] {
            assert!(label(hidden).is_err(), "{hidden:?}");
        }
    }

    #[test]
    fn an_invitation_says_for_how_many_nodes_it_is_and_older_programs_read_no_more_than_a_text() {
        let key = SecretKey::from_seed(&[5; 32]);
        let sign = |kind, grant| Certificate::sign(kind, key.peer_id(), key.peer_id(), grant, &key);
        let two = Grant {
            uses: Some(2),
            ..grant("")
        };
        let made = sign(Kind::Invitation, two.clone()).unwrap();
        assert_eq!(Certificate::decode(made.as_bytes()).unwrap(), made);
        assert_eq!(with_text(Kind::Invitation, b"uses=2").unwrap().grant, two);
        assert_eq!(with_text(Kind::Invitation, b"").unwrap().grant, grant(""));
        // a term of a later version
        assert_eq!(
            with_text(Kind::Invitation, b"leaf").unwrap().grant,
            grant("")
        );
        assert!(with_text(Kind::Invitation, b"uses=0").is_err());
        assert!(with_text(Kind::Issuer, b"uses=2").is_err());
        for uses in [0, super::super::MAX_USES + 1] {
            let wrong = Grant {
                uses: Some(uses),
                ..grant("")
            };
            assert!(sign(Kind::Invitation, wrong).is_err());
        }
        for kind in [Kind::Issuer, Kind::Node] {
            assert!(sign(kind, two.clone()).is_err());
        }
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
            uses: None,
            labels: BTreeMap::from([("k".into(), "v".into())]),
            prefixes: vec!["ff1e::/16".parse().unwrap()],
            gateway: vec!["fd00::/64".parse().unwrap()],
            leaf: false,
            uplink: false,
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
        golden.u64(1).u64(2).u64(3).u8(0b111);
        golden.put(b"\x01n\x01\x01k\x01v\x01");
        golden.ipv6("ff1e::".parse().unwrap()).u8(16);
        golden.u8(1).ipv6("fd00::".parse().unwrap()).u8(64);
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
    fn the_bytes_of_an_invitation_for_leaves_do_not_change() {
        let key = SecretKey::from_seed(&[1; 32]);
        let id = key.peer_id();
        let grant = Grant {
            prefixes: vec!["ff1e::/16".parse().unwrap()],
            leaf: true,
            ..Grant::new("", (1, 2))
        };
        let sign = |kind, grant| Certificate::sign(kind, id, id, grant, &key);
        let cert = sign(Kind::Invitation, grant.clone()).unwrap();
        let mut golden = Writer::new();
        golden.u8(2).u8(2).put(id.public_key()).put(id.public_key());
        golden.u64(1).u64(2).u64(0).u8(0b1000);
        golden.put(b"\x00\x00\x01");
        golden.ipv6("ff1e::".parse().unwrap()).u8(16);
        let (signed, _) = cert.as_bytes().split_last_chunk::<64>().unwrap();
        assert_eq!(signed, golden.as_slice());
        assert_eq!(Certificate::decode(cert.as_bytes()).unwrap(), cert);
        // rights of routers
        let core = Grant {
            core: true,
            ..grant.clone()
        };
        let gateway = Grant {
            gateway: vec![SourcePrefix::ANY],
            ..grant.clone()
        };
        for refused in [core, gateway] {
            assert!(sign(Kind::Invitation, refused).is_err());
        }
        // a term in place of the name
        let asking = Grant {
            uplink: true,
            ..grant.clone()
        };
        let asking = sign(Kind::Invitation, asking).unwrap();
        let text = 1 + 1 + 32 + 32 + 3 * 8 + 1;
        assert_eq!(&asking.as_bytes()[text..text + 7], b"\x06uplink");
        assert!(Certificate::decode(asking.as_bytes()).unwrap().grant.uplink);
        for (kind, leaf) in [(Kind::Invitation, false), (Kind::Node, true)] {
            let wrong = Grant {
                leaf,
                uplink: true,
                ..grant.clone()
            };
            assert!(sign(kind, wrong).is_err(), "{kind:?}");
        }
        assert!(sign(Kind::Issuer, grant).is_err());
        let mut core = cert.as_bytes().to_vec();
        let flags = 1 + 1 + 32 + 32 + 3 * 8;
        core[flags] |= FLAG_CORE;
        assert!(Certificate::decode(&core).is_err());
        core[flags] = 0b1_0000;
        assert_eq!(Certificate::decode(&core), Err(WireError::Bad("flags")));
    }

    #[test]
    fn the_bytes_of_an_ephemeral_invitation_do_not_change() {
        let key = SecretKey::from_seed(&[1; 32]);
        let id = key.peer_id();
        let (label, value) = super::super::EPHEMERAL;
        let grant = Grant {
            labels: BTreeMap::from([(label.into(), value.into())]),
            prefixes: vec!["ff1e::/16".parse().unwrap()],
            ..Grant::new("", (1, 2))
        };
        let cert = Certificate::sign(Kind::Invitation, id, id, grant, &key).unwrap();
        let mut golden = Writer::new();
        golden.u8(2).u8(2).put(id.public_key()).put(id.public_key());
        golden.u64(1).u64(2).u64(0).u8(0);
        golden.put(b"\x00\x01\x08lifetime\x09ephemeral\x01");
        golden.ipv6("ff1e::".parse().unwrap()).u8(16);
        let (signed, _) = cert.as_bytes().split_last_chunk::<64>().unwrap();
        assert_eq!(signed, golden.as_slice());
    }

    proptest! {
        #[test]
        fn certificates_survive_the_wire(
            name in "[a-zA-Z0-9]{1,9}(-[a-z0-9]{1,9})?(\\.[A-Z0-9]{1,20})?",
            labels in proptest::collection::btree_map("[a-zäöü]{1,8}", "[a-z0-9 ]{0,20}", 0..5),
            core: bool,
            not_after in NOW..NOW * 2,
            any_host: bool,
            lan in proptest::option::of(any::<u16>()),
        ) {
            let key = SecretKey::from_seed(&[5; 32]);
            let of_lan = |n| SourcePrefix::new(Ipv6Addr::new(0xfd00, 0, 0, n, 0, 0, 0, 0), 64).unwrap();
            let gateway = any_host.then_some(SourcePrefix::ANY).into_iter().chain(lan.map(of_lan)).collect();
            let grant = Grant { not_before: NOW, not_after, renew_for: 0, core, name, uses: None, labels, prefixes: vec![GroupPrefix::ALL], gateway, leaf: false, uplink: false };
            let cert = Certificate::sign(Kind::Node, key.peer_id(), key.peer_id(), grant, &key).unwrap();
            prop_assert_eq!(Certificate::decode(cert.as_bytes()).unwrap(), cert);
        }
    }
}
