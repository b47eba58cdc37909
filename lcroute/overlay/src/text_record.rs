//! The record of a text: it brings holders of the text into the network that the text leads to.
//!
//! ```text
//! nonce 192 | secret box (XSalsa20-Poly1305) under the text's seal:
//!   version 8 (1: for leaves, 2: for members, 3: for members, by an issuer) | made 64 (unix seconds) | good until 64
//!   | attestation 512 of the text's key | token bytes16, for leaves or members | count 8 (at most 4) x { router 256 | count 8 (at most 8) x candidate }
//!   | ed25519 signature 512 over all above: of the network's key, in version 3 of the token's issuer
//! ```
//!
//! Everybody with the text can open and seal such a box. The attestation and the signature show that
//! the owner of the text has made its content ([`librecast::text_network`]). An issuer that the
//! network has certified signs where the owner of the text lacks the network's key.

use librecast::cert::Token;
use librecast::id::{PeerId, SecretKey};
use librecast::text_network::TextKey;
use librecast::time::UnixTime;
use librecast::wire::{Reader, WireError, Writer};

use crate::description::{Candidate, read_candidates, write_candidates};
use crate::drops::DropReason;
use crate::random::Random;
use crate::sealed;

/// Context of the signature (domain separation).
const CONTEXT: &str = "lcroute 2026 text record";
/// Version of the format with a token for leaves.
const LEAVES: u8 = 1;
/// Version of the format with a token for members.
const MEMBERS: u8 = 2;
/// Version of the format with a token for members, signed by the token's issuer.
const BY_ISSUER: u8 = 3;
/// Most routers in a record. Chosen: as many as a server tells a leaf.
const MAX_ROUTERS: usize = 4;
/// Most addresses of a router. Chosen: those of a host with several networks.
const MAX_ADDRESSES: usize = 8;
/// Longest validity of a record, in seconds. Chosen: addresses change, and clocks differ.
pub const TEXT_LIFETIME: u64 = 6 * 3_600;
/// Seconds by which a clock may be wrong.
const SKEW: u64 = 86_400;

/// Longest sealed record in bytes: a token with three URLs of 255 bytes, and the routers.
pub const MAX_TEXT_RECORD: usize = 2_304;

/// A network that a text leads to, and the way into it.
#[derive(Debug)]
pub struct TextRecord {
    /// Its creation time, in unix seconds.
    pub made: u64,
    /// End of its validity, in unix seconds: at most [`TEXT_LIFETIME`] later.
    pub until: u64,
    /// Statement of the text's key about the network.
    pub attestation: [u8; 64],
    /// An invitation for leaves, or for members.
    pub token: Token,
    /// Routers with their addresses.
    pub routers: Vec<(PeerId, Vec<Candidate>)>,
}

impl TextRecord {
    /// Signs and seals it. Routers and addresses beyond the bounds are left out.
    ///
    /// `signer`: the network's key, or that of the token's issuer.
    pub fn seal(&self, text: &TextKey, signer: &SecretKey, random: &mut Random) -> Vec<u8> {
        let mut w = Writer::new();
        let version = match self.is_for_leaves() {
            true => LEAVES,
            false if signer.peer_id() == self.token.network() => MEMBERS,
            false => BY_ISSUER,
        };
        w.u8(version).u64(self.made).u64(self.until);
        w.put(&self.attestation);
        let token = self.token.to_bytes();
        w.u16(token.len() as u16).put(&token);
        let routers = &self.routers[..self.routers.len().min(MAX_ROUTERS)];
        w.u8(routers.len() as u8);
        for (router, candidates) in routers {
            let candidates = &candidates[..candidates.len().min(MAX_ADDRESSES)];
            write_candidates(candidates, w.put(router.public_key()));
        }
        let signature = signer.sign(CONTEXT, w.as_slice());
        w.put(&signature);
        sealed::seal(&text.seal(), &random.array(), w.into_vec())
    }

    /// Returns whether it makes leaves of the network, rather than members.
    pub fn is_for_leaves(&self) -> bool {
        self.token.invitation().grant().leaf
    }

    /// Opens and checks a record at the time `time`. Three signatures are verified once `charge` has
    /// permitted it: without the text, nobody can seal.
    pub fn open_charged(
        text: &TextKey,
        sealed: &[u8],
        time: UnixTime,
        charge: impl FnOnce() -> bool,
    ) -> Result<Self, DropReason> {
        if sealed.len() > MAX_TEXT_RECORD || sealed.len() < sealed::OVERHEAD {
            return Err(DropReason::TextMalformed);
        }
        let bytes = sealed::open(&text.seal(), sealed).ok_or(DropReason::TextNotOpened)?;
        if !charge() {
            return Err(DropReason::TextLimited);
        }
        let read = read(&bytes).map_err(|_| DropReason::TextMalformed)?;
        let Read {
            record,
            version,
            signature,
            signed,
        } = read;
        let network = record.token.network();
        let signer = match version {
            BY_ISSUER => record.token.verified_issuer(time).ok(),
            _ => Some(network),
        };
        let is_signed = |signer: PeerId| signer.verify(CONTEXT, signed, &signature).is_ok();
        let is_signed = signer.is_some_and(is_signed);
        if !is_signed || !text.attests(&network, &record.attestation) {
            return Err(DropReason::TextForged);
        }
        let lifetime = record.until.checked_sub(record.made);
        let is_bounded = lifetime.is_some_and(|lifetime| lifetime <= TEXT_LIFETIME);
        if !is_bounded {
            return Err(DropReason::TextMalformed);
        }
        let now = time.as_secs();
        if record.until.saturating_add(SKEW) < now || record.made > now.saturating_add(SKEW) {
            return Err(DropReason::TextStale);
        }
        Ok(record)
    }
}

/// Opens a record whatever that costs.
#[cfg(test)]
impl TextRecord {
    fn open(text: &TextKey, sealed: &[u8], time: UnixTime) -> Result<Self, DropReason> {
        Self::open_charged(text, sealed, time, || true)
    }
}

/// Content of an opened box.
#[derive(Debug)]
struct Read<'a> {
    record: TextRecord,
    version: u8,
    signature: [u8; 64],
    signed: &'a [u8],
}

fn read(bytes: &[u8]) -> Result<Read<'_>, WireError> {
    let mut r = Reader::new(bytes);
    let version = r.u8()?;
    if !(LEAVES..=BY_ISSUER).contains(&version) {
        return Err(WireError::Version(version));
    }
    let (made, until, attestation) = (r.u64()?, r.u64()?, r.array()?);
    let token = Token::from_bytes(r.bytes16()?).map_err(|_| WireError::Bad("token"))?;
    let count = usize::from(r.u8()?);
    if count > MAX_ROUTERS {
        return Err(WireError::Bad("router count"));
    }
    let router = |_| {
        let router = PeerId::from_public_key(r.array()?).map_err(|_| WireError::Bad("router"))?;
        let candidates = read_candidates(&mut r)?;
        if candidates.len() > MAX_ADDRESSES {
            return Err(WireError::Bad("candidate count"));
        }
        Ok((router, candidates))
    };
    let routers = (0..count).map(router).collect::<Result<_, _>>()?;
    let signed = &bytes[..bytes.len() - r.rest().len()];
    let signature = r.array()?;
    r.finish()?;
    let record = TextRecord {
        made,
        until,
        attestation,
        token,
        routers,
    };
    if record.is_for_leaves() != (version == LEAVES) {
        return Err(WireError::Bad("token of this version"));
    }
    Ok(Read {
        record,
        version,
        signature,
        signed,
    })
}

#[cfg(test)]
mod tests {
    use librecast::cert::{Certificate, Grant, Kind};
    use librecast::text_network::attest;
    use proptest::prelude::*;

    use super::*;
    use crate::CandidateKind;
    use crate::tests::key;

    const NOW: u64 = 1_800_000_000;

    fn text() -> TextKey {
        TextKey::new(key(1).peer_id(), [2; 32])
    }

    fn token(leaf: bool, urls: usize) -> Token {
        let (network, issuer) = (key(3), key(4));
        let grant = Grant {
            core: true,
            ..Grant::new("", (NOW - 9, NOW + 9_999))
        };
        let issuer = (
            Certificate::sign(
                Kind::Issuer,
                network.peer_id(),
                issuer.peer_id(),
                grant,
                &network,
            ),
            issuer,
        );
        let grant = Grant {
            leaf,
            ..Grant::new("", (NOW - 9, NOW + 9_999))
        };
        let url = "w".repeat(255);
        let urls = vec![url; urls];
        Token::invite_with(&issuer.0.unwrap(), &issuer.1, key(5), grant, urls).unwrap()
    }

    fn record(routers: usize, urls: usize) -> TextRecord {
        let candidate = Candidate {
            kind: CandidateKind::Host,
            addr: "[2001:db8::7]:7000".parse().unwrap(),
        };
        TextRecord {
            made: NOW,
            until: NOW + TEXT_LIFETIME,
            attestation: attest(&key(1), &text(), &key(3).peer_id()),
            token: token(true, urls),
            routers: vec![(key(6).peer_id(), vec![candidate; MAX_ADDRESSES]); routers],
        }
    }

    fn seal(record: &TextRecord) -> Vec<u8> {
        record.seal(&text(), &key(3), &mut Random::new([7; 32]))
    }

    fn open(sealed: &[u8]) -> Result<TextRecord, DropReason> {
        TextRecord::open(&text(), sealed, UnixTime::from_secs(NOW))
    }

    #[test]
    fn a_record_comes_back_and_the_longest_one_is_within_the_bound() {
        let record = record(MAX_ROUTERS, 3);
        let sealed = seal(&record);
        assert!(sealed.len() <= MAX_TEXT_RECORD, "{}", sealed.len());
        let opened = open(&sealed).unwrap();
        assert_eq!(opened.routers, record.routers);
        assert_eq!(opened.token.to_bytes(), record.token.to_bytes());
        assert_eq!((opened.made, opened.until), (record.made, record.until));
    }

    #[test]
    fn nobody_but_the_owner_of_the_text_makes_one() {
        let is = |record: &TextRecord, network: &SecretKey, reason| {
            let sealed = record.seal(&text(), network, &mut Random::new([7; 32]));
            assert_eq!(open(&sealed).unwrap_err(), reason);
        };
        // a holder of the text can seal
        is(&record(1, 0), &key(9), DropReason::TextForged);
        let mut other = record(1, 0);
        other.attestation = attest(&key(9), &text(), &key(3).peer_id());
        is(&other, &key(3), DropReason::TextForged);
        let mut long = record(1, 0);
        long.until += 1;
        is(&long, &key(3), DropReason::TextMalformed);
        for shift in [-200_000_i64, 200_000] {
            let mut old = record(1, 0);
            old.made = NOW.saturating_add_signed(shift);
            old.until = old.made + 1;
            is(&old, &key(3), DropReason::TextStale);
        }
        let sealed = seal(&record(1, 0));
        let other = TextKey::new(key(1).peer_id(), [3; 32]);
        let opened = TextRecord::open(&other, &sealed, UnixTime::from_secs(NOW));
        assert_eq!(opened.unwrap_err(), DropReason::TextNotOpened);
        // of the owner's other text, sealed anew by somebody with both
        let again = record(1, 0).seal(&other, &key(3), &mut Random::new([7; 32]));
        let opened = TextRecord::open(&other, &again, UnixTime::from_secs(NOW));
        assert_eq!(opened.unwrap_err(), DropReason::TextForged);
    }

    #[test]
    fn the_version_says_whom_it_is_for() {
        let mut record = record(1, 0);
        assert!(open(&seal(&record)).unwrap().is_for_leaves());
        record.token = token(false, 0);
        assert!(!open(&seal(&record)).unwrap().is_for_leaves());
        // signed and sealed with the other version
        let mut w = Writer::new();
        let made = record.made;
        w.u8(LEAVES).u64(made).u64(record.until);
        w.put(&record.attestation);
        let bytes = record.token.to_bytes();
        w.u16(bytes.len() as u16).put(&bytes).u8(0);
        let signature = key(3).sign(CONTEXT, w.as_slice());
        w.put(&signature);
        assert!(matches!(
            read(w.as_slice()),
            Err(WireError::Bad("token of this version"))
        ));
    }

    #[test]
    fn an_issuer_of_the_network_signs_for_members_and_nobody_else() {
        let mut record = record(1, 1);
        record.token = token(false, 1);
        let seal =
            |record: &TextRecord, n| record.seal(&text(), &key(n), &mut Random::new([7; 32]));
        let opened = open(&seal(&record, 4)).unwrap();
        assert_eq!(opened.token.to_bytes(), record.token.to_bytes());
        assert_eq!(open(&seal(&record, 9)).unwrap_err(), DropReason::TextForged);
        // a member of the network that has certified itself
        let grant = Grant {
            core: true,
            ..Grant::new("", (NOW - 9, NOW + 9_999))
        };
        let network = key(3).peer_id();
        for (signer, kind) in [(9, Kind::Issuer), (3, Kind::Invitation)] {
            let own =
                Certificate::sign(kind, network, key(9).peer_id(), grant.clone(), &key(signer));
            let bytes = record.token.to_bytes();
            let mut forged = bytes[..64].to_vec();
            let own = own.unwrap();
            forged.extend((own.as_bytes().len() as u16).to_be_bytes());
            forged.extend(own.as_bytes());
            let length = usize::from(u16::from_be_bytes([bytes[64], bytes[65]]));
            forged.extend(&bytes[66 + length..]);
            let Ok(forged) = Token::from_bytes(&forged) else {
                assert_eq!(kind, Kind::Invitation, "no token has it for its issuer's");
                continue;
            };
            let mut other = super::tests::record(1, 1);
            other.token = forged;
            assert_eq!(open(&seal(&other, 9)).unwrap_err(), DropReason::TextForged);
        }
        // and not for leaves
        let leaves = super::tests::record(1, 1);
        assert_eq!(open(&seal(&leaves, 4)).unwrap_err(), DropReason::TextForged);
    }

    #[test]
    fn the_bytes_stay_as_they_are() {
        let sealed = seal(&record(1, 1));
        let hash = librecast::id::derive("golden", &[&sealed]);
        let shown: String = hash[..8].iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(shown, "35856b2a6631e2c3");
    }

    proptest! {
        #[test]
        fn any_bytes_are_dropped(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(open(&bytes).is_err());
            let _ = read(&bytes);
        }

        #[test]
        fn a_changed_byte_is_noticed(at in 0_usize..10_000, by in 1_u8..) {
            let mut sealed = seal(&record(2, 1));
            let at = at % sealed.len();
            sealed[at] ^= by;
            prop_assert!(open(&sealed).is_err());
        }
    }
}
