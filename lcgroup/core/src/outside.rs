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
//! `network.rs` has the part that other members need; it is in the logs.

use std::collections::{BTreeMap, BTreeSet};

use librecast::cert::{Certificate, Grant, Kind};
use librecast::code::CodeKeys;
use librecast::id::{PeerId, SecretKey, derive};
use librecast::pair::PairSecret;
use librecast::text_network::{TextKey, attest};
use librecast::time::UnixTime;
use zeroize::Zeroizing;

use crate::SECOND;
use crate::body::kind;
use crate::event::{Log, NewEntry};
use crate::group::{Group, Standing};
use crate::network::{Certified, MAX_LINES, encode_lines};
use crate::vouch::{expiry, secret_of};

/// Life of a deputy's certificate in seconds. Chosen: below a third of the ten years that members'
/// certificates last, so a holder of a deputy's asks the owner for another one.
const DEPUTY_LIFE: u64 = 3 * 365 * 86_400;
/// Age in seconds at which the owner signs it anew.
const DEPUTY_RENEWED: u64 = 30 * 86_400;
/// Life of memberships in the network in seconds, as the founder's.
const MEMBER_LIFE: u64 = 10 * 365 * 86_400;
/// Keys of earlier appointments of a deputy that are expelled again. Chosen: nodes keep what was
/// expelled.
const MAX_SERIALS: u32 = 16;
/// Texts for devices that lead into the network at a time: of all persons, and of one.
pub const MAX_OPEN_DEVICES: usize = 4;
const OPEN_OF_PERSON: usize = 2;

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

/// A line that this participant has made in office.
#[derive(Debug)]
struct OwnLine {
    /// Key of the invitation in the network.
    key: PeerId,
    /// When it ends, in Unix seconds.
    end: u64,
    /// Authors that came by it.
    used: BTreeSet<PeerId>,
    withdrawn: bool,
}

/// Keys that are expelled from the network.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Expelled {
    /// At once.
    pub now: Vec<PeerId>,
    /// Of deputies whose right has ended and that are members: once nobody depends on them.
    pub ended: Vec<PeerId>,
}

/// The way into the network of a group, by its secret.
#[derive(Clone, PartialEq, Eq)]
pub struct NetworkSecret(pub Zeroizing<[u8; 32]>);

librecast::debug_by_name!(NetworkSecret);

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
            .filter(|kept| kept.left(now) > 0)
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
    pub fn former_members(&self) -> Vec<PeerId> {
        let former = self.owner.iter().flat_map(|owner| &owner.commits.former);
        former.map(|(author, _)| *author).collect()
    }

    /// Returns the key that stands in texts which lead into the network: of the one in office.
    pub fn text_owner(&self) -> Option<&SecretKey> {
        let in_office = self.owner.as_ref().map(|owner| &owner.key);
        in_office.or_else(|| self.group_key())
    }

    /// Returns the right of a deputy in office, once the owner has certified it.
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
    fn own_lines(&self) -> Vec<OwnLine> {
        let Some(owner) = &self.owner else {
            return Vec::new();
        };
        let key =
            |secret: &Zeroizing<[u8; 32]>| NetworkSecret(secret.clone()).invitation().peer_id();
        let kept = owner.invitations.values();
        let kept = kept.map(|kept| OwnLine {
            key: key(&kept.secret),
            end: kept.expires / SECOND,
            used: kept.used.clone(),
            withdrawn: kept.withdrawn,
        });
        let texts = self.network.texts.iter().filter_map(|(id, maker)| {
            let secret = secret_of(&owner.key, maker, *id)?;
            let used = self.devices.used.get(id).copied();
            Some(OwnLine {
                key: key(&secret),
                end: expiry(*id) / SECOND,
                used: used.into_iter().collect(),
                withdrawn: false,
            })
        });
        kept.chain(texts).collect()
    }

    /// Returns the keys that are expelled from the network: of former members, of the invitations by
    /// which they came, and of those that were withdrawn. Who came by none of this participant's own may have any of
    /// the others.
    pub fn expelled_from_network(&self) -> Expelled {
        let former = self.former_members();
        let own = self.own_lines();
        let mut now: Vec<PeerId> = own
            .iter()
            .filter(|line| line.withdrawn || line.used.iter().any(|author| former.contains(author)))
            .map(|line| line.key)
            .collect();
        let came_by_own = |author: &PeerId| own.iter().any(|line| line.used.contains(author));
        if !former.iter().all(came_by_own) {
            let stated = self.network.lines.values().flat_map(BTreeMap::keys);
            let others = stated.filter(|key| own.iter().all(|line| line.key != **key));
            now.extend(others.copied().collect::<BTreeSet<_>>());
        }
        // behind the invitations, so that members that came by one have no way back
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
        let own = self.own_lines().into_iter();
        let own = own.map(|line| (line.key, line.end));
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
            let mut known = self.network.deputies.iter();
            let known = known.find(|known| known.author == author);
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
            for body in self
                .network
                .deputies
                .iter()
                .map(Certified::encode)
                .collect::<Vec<_>>()
            {
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
        let [group, author] = [1, 3].map(|n| SecretKey::from_seed(&[n; 32]));
        let secret = NetworkSecret(Zeroizing::new([2; 32]));
        let all = [
            hex(&network_seed(&group)[..4]),
            hex(&mailboxes(&group).0[..4]),
            hex(&secret.text(group.peer_id()).secret()[..4]),
            hex(&secret.invitation().peer_id().public_key()[..4]),
            hex(&deputy_key(&group, &author.peer_id(), 1).unwrap().seed()[..4]),
        ];
        assert_eq!(
            all,
            ["d6436a95", "50f18591", "5d82e6ae", "22db8f18", "794f3da0"]
        );
        let own = deputy_key(&author, &group.peer_id(), 1).unwrap();
        assert_eq!(hex(&own.seed()[..4]), all[4]);
        assert!(deputy_key(&author, &group.peer_id(), 2).unwrap().seed() != own.seed());
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
