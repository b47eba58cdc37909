//! The network of a group's own, and the texts that lead into it.
//!
//! ```text
//! network      seed derive("lcgroup 2026 network", the group's secret key)
//! text         derive("lcgroup 2026 network text", S), with the group as its public key
//! invitation   seed derive("lcgroup 2026 network invitation", S)
//! S            the secret in lcg1 or lcd1; for mailboxes derive("lcgroup 2026 network of mailboxes",
//!              the group's secret key), which lch1 has
//! deputy       seed derive("lcgroup 2026 network of a deputy", X25519 of group and author | serial 32)
//! ```
//!
//! Who has no more than the read key, and who was removed, can enter by none of them: the invitation
//! by which a removed member came is expelled with it.
//!
//! The owner certifies a deputy's key in the network as an issuer's. The deputy uses it in office.
//! What others need of that is in the logs with commits:
//!
//! ```text
//! owner's log, deputy (20): version 8 = 1 | author 256 | serial 32 | certificate; none: it has ended
//! all logs with commits, lines (21): version 8 = 1 | n x { invitation's key 256 | end 64 (unix seconds) }
//! own log, device text (10): sealed box to the one in office { version 8 = 1 | id 64 }
//! ```
//!
//! A deputy expels by the lines also those invitations that it has not made.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use librecast::cert::{Certificate, Grant, Kind};
use librecast::code::CodeKeys;
use librecast::id::{PeerId, SecretKey, derive};
use librecast::pair::PairSecret;
use librecast::text_network::{TextKey, attest};
use librecast::time::UnixTime;
use librecast::wire::{Reader, WireError, Writer};
use zeroize::Zeroizing;

use crate::body::kind;
use crate::event::{Log, NewEntry};
use crate::group::{Group, Standing};
use crate::offices::{MAX_DEPUTIES, Office};
use crate::vouch::{LONGEST_DEVICE_LIFE, expiry, peer, secret_of};
use crate::{DAY, SECOND};

/// Version of everything in this file.
const VERSION: u8 = 1;
/// Life of a deputy's certificate in seconds. Chosen: below a third of the ten years that members'
/// certificates last, so who has one of a deputy asks the owner for another one.
const DEPUTY_LIFE: u64 = 3 * 365 * 86_400;
/// Age in seconds at which the owner signs it anew.
const DEPUTY_RENEWED: u64 = 30 * 86_400;
/// Life of memberships in the network in seconds, as the founder's.
const MEMBER_LIFE: u64 = 10 * 365 * 86_400;
/// Keys of earlier appointments of a deputy that are expelled again. Chosen: nodes keep what was
/// expelled.
const MAX_SERIALS: u32 = 16;
/// Lines of one log: as many as an entry has room for, at 40 bytes each.
const MAX_LINES: usize = 24;
/// Texts for devices that are kept. Chosen: persons add some devices, and rarely.
const MAX_TEXTS: usize = 64;
/// Texts for devices that lead into the network at a time, and those of one person.
pub const MAX_OPEN_DEVICES: usize = 4;
const OPEN_OF_PERSON: usize = 2;

/// A deputy in the owner's last statement about it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Certified {
    author: PeerId,
    /// Counts its appointments.
    serial: u32,
    /// Empty: its right has ended.
    certificate: Vec<u8>,
}

/// What the logs say of the group's network.
#[derive(Debug, Default)]
pub(crate) struct Network {
    deputies: Vec<Certified>,
    /// Keys of invitations that may lead in, and their ends.
    lines: BTreeMap<Office, BTreeMap<PeerId, u64>>,
    /// Texts for devices, the newest last, and who made them; of the one in office.
    texts: VecDeque<(u64, PeerId)>,
}

impl Network {
    /// Whether a state has nothing of this.
    pub fn is_empty(&self) -> bool {
        self.deputies.is_empty() && self.lines.is_empty() && self.texts.is_empty()
    }

    /// Bytes of the state, about.
    pub fn bytes(&self) -> usize {
        let deputies: usize = self.deputies.iter().map(|d| d.certificate.len() + 64).sum();
        256 + deputies + self.lines.len() * (MAX_LINES * 40 + 64) + self.texts.len() * 40
    }

    pub fn put(&self, w: &mut Writer) {
        w.u8(self.deputies.len() as u8);
        for deputy in &self.deputies {
            let body = deputy.encode();
            w.u16(body.len() as u16).put(&body);
        }
        w.u8(self.lines.len() as u8);
        for (office, lines) in &self.lines {
            w.u8(office.is_some().into());
            if let Some(author) = office {
                w.put(author.public_key());
            }
            let body = encode_lines(lines);
            w.u16(body.len() as u16).put(&body);
        }
        w.u8(self.texts.len() as u8);
        for (id, maker) in &self.texts {
            w.u64(*id).put(maker.public_key());
        }
    }

    pub fn read(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let mut network = Self::default();
        for _ in 0..r.u8()? {
            network.set_deputy(Certified::decode(r.bytes16()?)?);
        }
        for _ in 0..r.u8()? {
            let office = match r.u8()? {
                0 => None,
                _ => Some(peer(r)?),
            };
            network.set_lines(office, decode_lines(r.bytes16()?)?);
        }
        for _ in 0..r.u8()? {
            network.texts.push_back((r.u64()?, peer(r)?));
        }
        Ok(network)
    }

    fn set_deputy(&mut self, new: Certified) {
        let mut known = self.deputies.iter_mut();
        match known.find(|known| known.author == new.author) {
            Some(known) => *known = new,
            None if self.deputies.len() < MAX_DEPUTIES => self.deputies.push(new),
            None => {}
        }
    }

    fn set_lines(&mut self, office: Office, lines: BTreeMap<PeerId, u64>) {
        if self.lines.len() <= MAX_DEPUTIES || self.lines.contains_key(&office) {
            self.lines.insert(office, lines);
        }
    }

    /// Reads an entry of a log with commits.
    pub fn note(&mut self, office: Office, kind: u8, body: &[u8]) {
        match kind {
            kind::NETWORK_DEPUTY if office.is_none() => {
                if let Ok(certified) = Certified::decode(body) {
                    self.set_deputy(certified);
                }
            }
            kind::NETWORK_LINES => {
                if let Ok(lines) = decode_lines(body) {
                    self.set_lines(office, lines);
                }
            }
            _ => {}
        }
    }

    /// Takes a text for a device that a member has made.
    pub fn take_text(&mut self, id: u64, maker: PeerId, now: UnixTime) {
        let ms = now.as_millis();
        // who came by a text may be removed as long as the text can be used again
        self.texts
            .retain(|(known, _)| *known != id && expiry(*known) + 2 * DAY > ms);
        if self.texts.len() >= MAX_TEXTS {
            self.texts.pop_front();
        }
        self.texts.push_back((id, maker));
    }

    fn certificate_of(&self, author: &PeerId) -> Option<(u32, Certificate)> {
        let known = self.deputies.iter().find(|known| known.author == *author)?;
        let certificate = Certificate::decode(&known.certificate).ok()?;
        Some((known.serial, certificate))
    }
}

impl Certified {
    fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u8(VERSION).put(self.author.public_key()).u32(self.serial);
        w.put(&self.certificate);
        w.into_vec()
    }

    fn decode(body: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(body);
        match r.u8()? {
            VERSION => {}
            other => return Err(WireError::Version(other)),
        }
        Ok(Self {
            author: peer(&mut r)?,
            serial: r.u32()?,
            certificate: r.rest().to_vec(),
        })
    }
}

fn encode_lines(lines: &BTreeMap<PeerId, u64>) -> Vec<u8> {
    let mut w = Writer::new();
    w.u8(VERSION);
    for (key, end) in lines.iter().take(MAX_LINES) {
        w.put(key.public_key()).u64(*end);
    }
    w.into_vec()
}

fn decode_lines(body: &[u8]) -> Result<BTreeMap<PeerId, u64>, WireError> {
    let mut r = Reader::new(body);
    match r.u8()? {
        VERSION => {}
        other => return Err(WireError::Version(other)),
    }
    let mut lines = BTreeMap::new();
    while !r.is_empty() && lines.len() < MAX_LINES {
        lines.insert(peer(&mut r)?, r.u64()?);
    }
    Ok(lines)
}

pub(crate) fn encode_text(id: u64) -> Vec<u8> {
    let mut w = Writer::new();
    w.u8(VERSION).u64(id);
    w.into_vec()
}

/// The id of a text for a device in what its maker says to the one in office, if its end is not
/// absurd.
pub(crate) fn decode_text(body: &[u8], now: UnixTime) -> Result<u64, WireError> {
    let mut r = Reader::new(body);
    match r.u8()? {
        VERSION => {}
        other => return Err(WireError::Version(other)),
    }
    let id = r.u64()?;
    r.finish()?;
    let ms = now.as_millis();
    match (ms..=ms + LONGEST_DEVICE_LIFE + DAY).contains(&expiry(id)) {
        true => Ok(id),
        false => Err(WireError::Bad("end of a text")),
    }
}

/// All decoders of this file.
pub(crate) fn decode_any(bytes: &[u8]) {
    let _ = Certified::decode(bytes);
    let _ = decode_lines(bytes);
    let _ = decode_text(bytes, UnixTime::from_millis(0));
    let _ = Network::read(&mut Reader::new(bytes));
}

/// The key of a deputy in the network, for the deputy and for the owner.
fn deputy_key(own: &SecretKey, other: &PeerId, serial: u32) -> Option<SecretKey> {
    let shared = PairSecret::agree(own, other).ok()?;
    let parts = [&shared.bytes()[..], &serial.to_be_bytes()];
    let seed = Zeroizing::new(derive("lcgroup 2026 network of a deputy", &parts));
    Some(SecretKey::from_seed(&seed))
}

/// The key and the certificate by which a deputy in office issues certificates of the network.
#[derive(Debug)]
pub struct NetworkOffice {
    /// Its key in the network.
    pub key: SecretKey,
    /// That of an issuer.
    pub certificate: Certificate,
}

/// Keys that are expelled from the network.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Expelled {
    /// At once.
    pub now: Vec<PeerId>,
    /// Of deputies whose right has ended, and who are members: once nobody depends on them.
    pub ended: Vec<PeerId>,
}

/// The way into the network of a group, by its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct NetworkSecret(pub Zeroizing<[u8; 32]>);

impl std::fmt::Debug for NetworkSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NetworkSecret")
    }
}

impl NetworkSecret {
    /// Returns the keys of the text of this group.
    #[must_use]
    pub fn text(&self, group: PeerId) -> TextKey {
        let secret = Zeroizing::new(derive("lcgroup 2026 network text", &[&self.0[..]]));
        TextKey::new(group, *secret)
    }

    /// Returns the key of the invitation in the network.
    #[must_use]
    pub fn invitation(&self) -> SecretKey {
        let seed = Zeroizing::new(derive("lcgroup 2026 network invitation", &[&self.0[..]]));
        SecretKey::from_seed(&seed)
    }
}

/// An invitation of the owner that leads into the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenInvitation {
    /// Its secret.
    pub secret: NetworkSecret,
    /// When it expires (ms since 1970).
    pub expires: u64,
}

/// Returns the seed of the network of a group with this key.
#[must_use]
pub fn network_seed(group: &SecretKey) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(derive("lcgroup 2026 network", &[&group.seed()[..]]))
}

/// Returns the secret by which mailboxes of a group with this key enter its network.
#[must_use]
pub fn mailboxes(group: &SecretKey) -> NetworkSecret {
    let secret = derive("lcgroup 2026 network of mailboxes", &[&group.seed()[..]]);
    NetworkSecret(Zeroizing::new(secret))
}

/// Returns the statement of a group with this key about its network.
#[must_use]
pub fn attestation(group: &SecretKey, text: &TextKey, network: &PeerId) -> [u8; 64] {
    attest(group, text, network)
}

impl Group {
    /// Returns the invitations of the one in office that somebody may use, the earliest end first.
    #[must_use]
    pub fn open_invitations(&self, now: UnixTime) -> Vec<OpenInvitation> {
        let kept = self
            .owner
            .iter()
            .flat_map(|owner| owner.invitations.values());
        let gone = self.former_members();
        let mut open: Vec<_> = kept
            .filter(|kept| kept.expires > now.as_millis() && kept.used.len() < kept.uses as usize)
            .filter(|kept| kept.used.iter().all(|author| !gone.contains(author)))
            .map(|kept| OpenInvitation {
                secret: NetworkSecret(kept.secret.clone()),
                expires: kept.expires,
            })
            .collect();
        open.sort_by_key(|open| open.expires);
        open
    }

    /// Returns the texts for devices that lead in, for the one in office: the newest ones, and first
    /// one of each person.
    #[must_use]
    pub fn open_device_texts(&self, now: UnixTime) -> Vec<OpenInvitation> {
        let Some(owner) = &self.owner else {
            return Vec::new();
        };
        let mut of_person: BTreeMap<PeerId, usize> = BTreeMap::new();
        let mut open = Vec::new();
        for (id, maker) in self.network.texts.iter().rev() {
            let is_member = *maker == self.author.peer_id() || self.authors.contains_key(maker);
            let is_used = self.devices.used.contains_key(id);
            if is_used || !is_member || expiry(*id) <= now.as_millis() {
                continue;
            }
            let Some(secret) = secret_of(&owner.key, maker, *id) else {
                continue;
            };
            let others = of_person.entry(self.person_of(maker)).or_default();
            *others += 1;
            let secret = NetworkSecret(secret);
            let expires = expiry(*id);
            open.push((*others, OpenInvitation { secret, expires }));
        }
        open.retain(|(nth, _)| *nth <= OPEN_OF_PERSON);
        // stable: the newest first among those of one place
        open.sort_by_key(|(nth, _)| *nth);
        let open = open.into_iter().take(MAX_OPEN_DEVICES);
        open.map(|(_, open)| open).collect()
    }

    /// Returns, for the one in office, the members that were removed or left.
    #[must_use]
    pub fn former_members(&self) -> Vec<PeerId> {
        let former = self.owner.iter().flat_map(|owner| &owner.commits.former);
        former.map(|(author, _)| *author).collect()
    }

    /// Returns the key that stands in texts which lead into the network: of the one in office.
    #[must_use]
    pub fn text_owner(&self) -> Option<&SecretKey> {
        let in_office = self.owner.as_ref().map(|owner| &owner.key);
        in_office.or_else(|| self.group_key())
    }

    /// Returns the right of a deputy in office, once the owner has certified it.
    #[must_use]
    pub fn network_office(&self) -> Option<NetworkOffice> {
        if self.owner.is_none() || self.is_owner() {
            return None;
        }
        let (serial, certificate) = self.network.certificate_of(&self.author.peer_id())?;
        let key = deputy_key(&self.author, &self.id, serial)?;
        (certificate.subject() == key.peer_id()).then_some(NetworkOffice { key, certificate })
    }

    /// Returns the keys of invitations in the network that this participant has made in office, with
    /// the authors that came by each.
    fn own_lines(&self) -> Vec<(PeerId, u64, BTreeSet<PeerId>)> {
        let Some(owner) = &self.owner else {
            return Vec::new();
        };
        let key = |secret: &Zeroizing<[u8; 32]>| {
            NetworkSecret(secret.clone()).invitation().peer_id()
        };
        let kept = owner.invitations.values();
        let kept = kept.map(|kept| (key(&kept.secret), kept.expires, kept.used.clone()));
        let texts = self.network.texts.iter().filter_map(|(id, maker)| {
            let secret = secret_of(&owner.key, maker, *id)?;
            let used = self.devices.used.get(id).copied();
            Some((key(&secret), expiry(*id), used.into_iter().collect()))
        });
        let all = kept.chain(texts);
        all.map(|(key, end, used)| (key, end / SECOND, used)).collect()
    }

    /// Returns the keys that are expelled from the network: of former members, and of the
    /// invitations by which they came. Who came by none of this participant's own may have any of
    /// the others.
    #[must_use]
    pub fn expelled_from_network(&self) -> Expelled {
        let former = self.former_members();
        let own = self.own_lines();
        let mut now: Vec<PeerId> = own
            .iter()
            .filter(|(_, _, used)| used.iter().any(|author| former.contains(author)))
            .map(|(key, ..)| *key)
            .collect();
        let came_by_own = |author: &PeerId| own.iter().any(|(_, _, used)| used.contains(author));
        if !former.iter().all(came_by_own) {
            let stated = self.network.lines.values().flat_map(BTreeMap::keys);
            let others = stated.filter(|key| own.iter().all(|(own, ..)| own != *key));
            now.extend(others.copied().collect::<BTreeSet<_>>());
        }
        // behind the invitations, so that who came by one has no way back
        now.extend(former);
        let mut ended = Vec::new();
        let Some(group) = self.group_key() else {
            return Expelled { now, ended };
        };
        for deputy in &self.network.deputies {
            let is_certified = !deputy.certificate.is_empty();
            let last = deputy.serial.saturating_sub(is_certified.into());
            let keys = (last.saturating_sub(MAX_SERIALS) + 1..=last)
                .filter_map(|serial| deputy_key(group, &deputy.author, serial))
                .map(|key| key.peer_id());
            match self.authors.contains_key(&deputy.author) {
                true => ended.extend(keys),
                false => now.extend(keys),
            }
        }
        Expelled { now, ended }
    }

    /// States in the own log with commits what others need of the network: certificates of deputies,
    /// and lines. Returns whether anything was new. For groups that have a network of their own.
    pub fn state_network(&mut self, now: UnixTime) -> bool {
        let is_ready = self.standing == Standing::Member && !self.is_held && !self.is_behind;
        if !is_ready || !self.offices.is_used() {
            return false;
        }
        let mut any = false;
        for new in self.due_certificates(now) {
            self.append_network(kind::NETWORK_DEPUTY, new.encode());
            self.network.set_deputy(new);
            any = true;
        }
        if self.owner.is_none() {
            return any;
        }
        let office = self.own_office();
        let stated = self.network.lines.get(&office).cloned().unwrap_or_default();
        let time = now.as_secs();
        let own = self.own_lines().into_iter().map(|(key, end, _)| (key, end));
        let mut lines: Vec<_> = stated.clone().into_iter().chain(own).collect();
        lines.retain(|(_, end)| *end > time);
        lines.sort_by_key(|(key, end)| (std::cmp::Reverse(*end), *key));
        lines.dedup();
        lines.truncate(MAX_LINES);
        let lines: BTreeMap<_, _> = lines.into_iter().collect();
        // those that have ended harm nobody until the next change
        if lines.iter().any(|line| stated.get(line.0) != Some(line.1)) {
            self.append_network(kind::NETWORK_LINES, encode_lines(&lines));
            self.network.set_lines(office, lines);
            any = true;
        }
        any
    }

    /// Returns the owner's statements about deputies that are due.
    fn due_certificates(&self, now: UnixTime) -> Vec<Certified> {
        let Some(group) = self.group_key() else {
            return Vec::new();
        };
        let keys = CodeKeys::of_random(&network_seed(group));
        let time = now.as_secs();
        let is_new = |certificate: &Certificate| {
            let made = certificate.grant().not_before;
            // a clock that was set back makes none of each minute
            made.abs_diff(time) < DEPUTY_RENEWED
        };
        let due = self.offices.list.iter().filter_map(|deputy| {
            let author = deputy.author;
            let known = self.network.deputies.iter();
            let known = known.clone().find(|known| known.author == author);
            let present = self.network.certificate_of(&author);
            let serial = known.map_or(0, |known| known.serial);
            if !deputy.is_named() {
                let certificate = Vec::new();
                return present.is_some().then_some(Certified {
                    author,
                    serial,
                    certificate,
                });
            }
            if present.as_ref().is_some_and(|(_, known)| is_new(known)) {
                return None;
            }
            let serial = serial + u32::from(present.is_none());
            let subject = deputy_key(group, &author, serial)?.peer_id();
            let grant = Grant {
                renew_for: MEMBER_LIFE,
                core: true,
                ..Grant::new("", (time, time + DEPUTY_LIFE))
            };
            let network = keys.network();
            let made = Certificate::sign(Kind::Issuer, network.peer_id(), subject, grant, network);
            Some(Certified {
                author,
                serial,
                certificate: made.ok()?.as_bytes().to_vec(),
            })
        });
        due.collect()
    }

    /// States all of it again, behind entries that were dropped.
    pub(crate) fn append_network_again(&mut self) {
        if self.is_owner() {
            for body in self.network.deputies.iter().map(Certified::encode).collect::<Vec<_>>() {
                self.append_network(kind::NETWORK_DEPUTY, body);
            }
        }
        if let Some(lines) = self.network.lines.get(&self.own_office()) {
            let body = encode_lines(lines);
            self.append_network(kind::NETWORK_LINES, body);
        }
    }

    fn append_network(&mut self, kind: u8, body: Vec<u8>) {
        self.append(Log::Owner, NewEntry::Body { kind, body });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|b| format!("{b:02x}")).collect()
    }

    #[test]
    fn derivations_are_frozen() {
        let group = SecretKey::from_seed(&[1; 32]);
        let secret = NetworkSecret(Zeroizing::new([2; 32]));
        let all = [
            hex(&network_seed(&group)[..4]),
            hex(&mailboxes(&group).0[..4]),
            hex(&secret.text(group.peer_id()).secret()[..4]),
            hex(&secret.invitation().peer_id().public_key()[..4]),
        ];
        assert_eq!(all, ["d6436a95", "50f18591", "5d82e6ae", "22db8f18"]);
    }

    #[test]
    fn the_group_states_its_network_for_each_text() {
        let group = SecretKey::from_seed(&[1; 32]);
        let network = SecretKey::from_seed(&network_seed(&group)).peer_id();
        let [one, other] = [2, 3].map(|n| NetworkSecret(Zeroizing::new([n; 32])));
        let [one, other] = [one, other].map(|secret| secret.text(group.peer_id()));
        let stated = attestation(&group, &one, &network);
        assert!(one.attests(&network, &stated) && !other.attests(&network, &stated));
    }
}
