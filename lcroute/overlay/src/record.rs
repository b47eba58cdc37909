//! Presence records: a node's addresses, for carriers without replies: a LAN, a folder, a pasted
//! text.
//!
//! ```text
//! nonce 192 | secret box (XSalsa20-Poly1305) under the day's key:
//!   version 8 = 1 | node 256 | made 64 (unix seconds) | good until 64
//!   | count 8 | count x candidate (as in a description)
//!   | ed25519 signature 512 over the network's key and all above | zeros to 216 or 472 bytes
//! ```
//!
//! Two nodes that have each other's record send connection requests straight to these addresses,
//! which opens firewalls and NATs on both sides. Anybody with the epoch's secret can make a record:
//! present members, those of the epoch, and holders of a member token. In epoch 0 the network's
//! public key is enough, which leaf tokens contain too. A record proves no more than a server's
//! presence message; links are always authenticated.
//!
//! The key comes from the network's public key, the day of `made` and the secret of the network's
//! epoch. The epoch changes when a node is expelled ([`librecast::epoch`]), and begins with the
//! first token for leaves; epoch 0 has no secret. The carrier sees sealed bytes of two lengths, and
//! a name that changes daily ([`Rendezvous::name`]).

use librecast::epoch::EpochSecret;
use librecast::id::{NetworkId, PeerId, SecretKey, derive};
use librecast::time::UnixTime;
use librecast::wire::{Reader, WireError, Writer};

use crate::description::{Candidate, read_candidates, write_candidates};
use crate::drops::DropReason;
use crate::random::Random;
use crate::sealed;

/// Context of the signature (domain separation).
const CONTEXT: &str = "lcroute 2026 presence record";
/// Version of the format.
const VERSION: u8 = 1;
/// Lengths of the sealed content: for few addresses, and for many.
const LENGTHS: [usize; 2] = [256 - sealed::OVERHEAD, 512 - sealed::OVERHEAD];
/// Seconds of a day.
const DAY: u64 = 86_400;
/// Maximum validity of a record in seconds.
pub const RECORD_LIFETIME: u64 = DAY;

/// Maximum length of a sealed record in bytes.
pub const MAX_RECORD: usize = 512;

/// The addresses of a node, by its own account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PresenceRecord {
    /// The node.
    pub node: PeerId,
    /// Its creation time, in unix seconds.
    pub made: u64,
    /// End of its validity, in unix seconds: at most [`RECORD_LIFETIME`] later.
    pub until: u64,
    /// Its addresses.
    pub candidates: Vec<Candidate>,
}

/// The values by which nodes of a network find each other: its key, and its epoch's secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendezvous {
    network: NetworkId,
    /// None: epoch 0, in which only the network's key is needed.
    secret: Option<EpochSecret>,
}

/// The epochs by which a node finds other nodes: it publishes under the newest, and searches all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RendezvousEpochs {
    newest: Rendezvous,
    /// Earlier epochs, the latest first.
    former: Vec<Rendezvous>,
}

impl RendezvousEpochs {
    /// Returns the epochs of a network that has expelled no node.
    #[must_use]
    pub fn new(network: NetworkId) -> Self {
        Self {
            newest: Rendezvous::new(network),
            former: Vec::new(),
        }
    }

    /// Returns the epochs with these secrets, the newest first; epoch 0 follows.
    #[must_use]
    pub fn with(network: NetworkId, secrets: impl Iterator<Item = EpochSecret>) -> Self {
        let secrets = secrets.map(Some).chain([None]);
        let mut all = secrets.map(|secret| Rendezvous { network, secret });
        Self {
            newest: all.next().unwrap_or(Rendezvous::new(network)),
            former: all.collect(),
        }
    }

    /// Returns the epoch under which this node publishes.
    pub fn newest(&self) -> &Rendezvous {
        &self.newest
    }

    /// Returns the epochs of members that were away since an expulsion, the latest first.
    pub fn former(&self) -> &[Rendezvous] {
        &self.former
    }

    /// Opens and checks a record at the time `time`; true: of a former epoch, which expelled nodes
    /// know.
    pub fn open(
        &self,
        sealed: &[u8],
        time: UnixTime,
    ) -> Result<(PresenceRecord, bool), DropReason> {
        let newest = self.newest.open(sealed, time);
        if newest != Err(DropReason::PresenceNotOpened) {
            return newest.map(|record| (record, false));
        }
        let mut former = self.former.iter().map(|epoch| epoch.open(sealed, time));
        let opened = former.find(|opened| *opened != Err(DropReason::PresenceNotOpened));
        let opened = opened.unwrap_or(Err(DropReason::PresenceNotOpened));
        opened.map(|record| (record, true))
    }
}

impl Rendezvous {
    /// Returns epoch 0 of this network.
    #[must_use]
    pub fn new(network: NetworkId) -> Self {
        Self {
            network,
            secret: None,
        }
    }

    /// Returns the name of a node's record on the day of `time`. Without the network's key, names
    /// reveal neither the node nor the names of other days.
    pub fn name(&self, node: &PeerId, time: UnixTime) -> [u8; 32] {
        let secret = self.name_secret(time);
        // a PeerId is a point of the curve
        node.blinded(&secret).unwrap_or(secret)
    }

    /// Returns the secret that blinds names of the day of `time`.
    pub(crate) fn name_secret(&self, time: UnixTime) -> [u8; 32] {
        self.secret("lcroute 2026 record names", time.as_secs() / DAY)
    }

    pub(crate) fn network(&self) -> &NetworkId {
        &self.network
    }

    /// Signs and seals a record. Addresses that do not fit are left out.
    pub fn seal(&self, record: &PresenceRecord, key: &SecretKey, random: &mut Random) -> Vec<u8> {
        let mut w = Writer::new();
        w.u8(VERSION)
            .put(record.node.public_key())
            .u64(record.made)
            .u64(record.until);
        write_candidates(&record.candidates, &mut w);
        let signature = key.sign(CONTEXT, &self.signed(w.as_slice()));
        w.put(&signature);
        let mut bytes = w.into_vec();
        let fits = LENGTHS.into_iter().find(|length| bytes.len() <= *length);
        bytes.resize(fits.unwrap_or(bytes.len()), 0);
        sealed::seal(&self.seal_key(record.made / DAY), &random.array(), bytes)
    }

    /// Opens and checks a record at the time `time`.
    pub fn open(&self, sealed: &[u8], time: UnixTime) -> Result<PresenceRecord, DropReason> {
        if !LENGTHS.contains(&sealed.len().saturating_sub(sealed::OVERHEAD)) {
            return Err(DropReason::PresenceMalformed);
        }
        let today = time.as_secs() / DAY;
        // clocks may differ by a day, and a record be of yesterday; beyond that, the wrong clock is
        // reported
        let days = [
            today,
            today.wrapping_sub(1),
            today + 1,
            today.wrapping_sub(2),
            today + 2,
        ];
        let open = |day| Some((day, sealed::open(&self.seal_key(day), sealed)?));
        let opened = days.into_iter().find_map(open);
        let (day, bytes) = opened.ok_or(DropReason::PresenceNotOpened)?;
        let (record, signature, signed) =
            read(&bytes).map_err(|_| DropReason::PresenceMalformed)?;
        let lifetime = record.until.checked_sub(record.made);
        if lifetime.is_none_or(|lifetime| lifetime > RECORD_LIFETIME) || record.made / DAY != day {
            return Err(DropReason::PresenceMalformed);
        }
        // the clock may be a day ahead or behind
        if record.until.saturating_add(DAY) < time.as_secs() {
            return Err(DropReason::PresenceStale);
        }
        let verified = record
            .node
            .verify(CONTEXT, &self.signed(signed), &signature);
        verified.map_err(|_| DropReason::PresenceForged)?;
        Ok(record)
    }

    fn signed(&self, bytes: &[u8]) -> Vec<u8> {
        [self.network.public_key(), bytes].concat()
    }

    fn secret(&self, purpose: &str, day: u64) -> [u8; 32] {
        let (network, day) = (self.network.public_key(), day.to_be_bytes());
        match &self.secret {
            None => derive(purpose, &[network, &day]),
            Some(secret) => derive(purpose, &[network, &day, secret.bytes()]),
        }
    }

    fn seal_key(&self, day: u64) -> [u8; 32] {
        self.secret("lcroute 2026 record seal", day)
    }
}

fn read(bytes: &[u8]) -> Result<(PresenceRecord, [u8; 64], &[u8]), WireError> {
    let mut r = Reader::new(bytes);
    r.version(VERSION)?;
    let node = PeerId::from_public_key(r.array()?).map_err(|_| WireError::Bad("node"))?;
    let (made, until) = (r.u64()?, r.u64()?);
    let candidates = read_candidates(&mut r)?;
    let signed = &bytes[..bytes.len() - r.rest().len()];
    let signature = r.array()?;
    if r.rest().iter().any(|byte| *byte != 0) {
        return Err(WireError::Bad("padding"));
    }
    let record = PresenceRecord {
        node,
        made,
        until,
        candidates,
    };
    Ok((record, signature, signed))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::description::tests::description;
    use crate::tests::key;

    const NOW: u64 = 1_800_000_000;

    fn rendezvous(n: u8) -> Rendezvous {
        Rendezvous::new(key(n).peer_id())
    }

    fn record(candidates: Vec<Candidate>) -> PresenceRecord {
        PresenceRecord {
            node: key(1).peer_id(),
            made: NOW,
            until: NOW + RECORD_LIFETIME,
            candidates,
        }
    }

    fn sealed(record: &PresenceRecord) -> Vec<u8> {
        rendezvous(9).seal(record, &key(1), &mut Random::new([3; 32]))
    }

    proptest! {
        #[test]
        fn a_record_comes_back_and_shows_two_lengths_only(d in description()) {
            let record = record(d.candidates);
            let sealed = sealed(&record);
            prop_assert!([256, 512].contains(&sealed.len()));
            for time in [NOW - 2 * DAY, NOW - DAY, NOW, NOW + DAY, NOW + 2 * DAY] {
                let opened = rendezvous(9).open(&sealed, UnixTime::from_secs(time));
                prop_assert_eq!(opened.as_ref(), Ok(&record));
            }
            let late = rendezvous(9).open(&sealed, UnixTime::from_secs(NOW + 2 * DAY + 1));
            prop_assert!(late.is_err());
            let other = rendezvous(8).open(&sealed, UnixTime::from_secs(NOW));
            prop_assert_eq!(other, Err(DropReason::PresenceNotOpened));
        }

        #[test]
        fn a_changed_byte_is_noticed(at in 0_usize..256, by in 1_u8..) {
            let mut sealed = sealed(&record(Vec::new()));
            sealed[at] ^= by;
            let opened = rendezvous(9).open(&sealed, UnixTime::from_secs(NOW));
            prop_assert_eq!(opened, Err(DropReason::PresenceNotOpened));
        }

        #[test]
        fn arbitrary_bytes_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(rendezvous(9).open(&bytes, UnixTime::from_secs(NOW)).is_err());
        }
    }

    #[test]
    fn a_member_cannot_speak_for_another() {
        let forged = rendezvous(9).seal(&record(Vec::new()), &key(2), &mut Random::new([3; 32]));
        let opened = rendezvous(9).open(&forged, UnixTime::from_secs(NOW));
        assert_eq!(opened, Err(DropReason::PresenceForged));
    }

    #[test]
    fn a_record_is_good_for_a_day_at_most() {
        let mut long = record(Vec::new());
        long.until += 1;
        let opened = rendezvous(9).open(&sealed(&long), UnixTime::from_secs(NOW));
        assert_eq!(opened, Err(DropReason::PresenceMalformed));
        long.until = long.made - 1;
        let opened = rendezvous(9).open(&sealed(&long), UnixTime::from_secs(NOW));
        assert_eq!(opened, Err(DropReason::PresenceMalformed));
    }

    #[test]
    fn names_of_a_node_change_daily_and_differ_between_networks() {
        let node = key(1).peer_id();
        let names = [
            rendezvous(9).name(&node, UnixTime::from_secs(NOW)),
            rendezvous(9).name(&node, UnixTime::from_secs(NOW + DAY)),
            rendezvous(8).name(&node, UnixTime::from_secs(NOW)),
            rendezvous(9).name(&key(2).peer_id(), UnixTime::from_secs(NOW)),
        ];
        let different: std::collections::BTreeSet<_> = names.iter().collect();
        assert_eq!(different.len(), names.len());
        let later = NOW - NOW % DAY + DAY - 1;
        assert_eq!(
            rendezvous(9).name(&node, UnixTime::from_secs(later)),
            names[0]
        );
    }

    #[test]
    fn an_epoch_changes_names_and_seals_and_former_ones_are_opened_as_such() {
        let network = key(9).peer_id();
        let secret = |byte| EpochSecret::new([byte; 32]);
        let with = |bytes: &[u8]| RendezvousEpochs::with(network, bytes.iter().map(|b| secret(*b)));
        let (zero, first, third) = (with(&[]), with(&[1]), with(&[3, 2, 1]));
        assert_eq!(zero, RendezvousEpochs::new(network));
        let record = record(Vec::new());
        let seal = |by: &RendezvousEpochs| {
            by.newest()
                .seal(&record, &key(1), &mut Random::new([3; 32]))
        };
        let opened = |by: &RendezvousEpochs, sealed: &[u8]| {
            by.open(sealed, UnixTime::from_secs(NOW))
                .map(|(_, old)| old)
        };
        assert_eq!(opened(&third, &seal(&third)), Ok(false));
        assert_eq!(opened(&third, &seal(&first)), Ok(true));
        assert_eq!(opened(&third, &seal(&zero)), Ok(true));
        let not_opened = Err(DropReason::PresenceNotOpened);
        assert_eq!(opened(&first, &seal(&third)), not_opened);
        assert_eq!(opened(&zero, &seal(&first)), not_opened);
        let name = |by: &RendezvousEpochs| {
            by.newest()
                .name(&key(1).peer_id(), UnixTime::from_secs(NOW))
        };
        assert!(name(&zero) != name(&first) && name(&first) != name(&third));
        let shown = name(&first).map(|b| format!("{b:02x}"));
        assert_eq!(shown[..8].concat(), "a31b8667a8ac2b0e");
        // errors are reported for records of any epoch
        let mut long = record.clone();
        long.until += 1;
        let sealed = first
            .newest()
            .seal(&long, &key(1), &mut Random::new([3; 32]));
        assert_eq!(opened(&third, &sealed), Err(DropReason::PresenceMalformed));
    }

    #[test]
    fn the_bytes_stay_as_they_are() {
        let candidate = Candidate {
            kind: crate::CandidateKind::Host,
            addr: "192.0.2.7:7000".parse().unwrap(),
        };
        let sealed = sealed(&record(vec![candidate]));
        let hash = librecast::id::derive("golden", &[&sealed]);
        let shown: String = hash[..8].iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(shown, "550e476bd24d45ca");
        let name = rendezvous(9).name(&key(1).peer_id(), UnixTime::from_secs(NOW));
        let shown: String = name[..8].iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(shown, "2d49ac0bbfb7dd5f");
    }
}
