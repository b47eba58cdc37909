//! A space: the key of its owner, and the key of its readers.

use std::net::Ipv6Addr;
use std::time::Duration;

use librecast::channel::{ASKING, transient_group};
use librecast::id::{PeerId, derive};
use zeroize::Zeroizing;

use crate::entry::AuthorId;

/// UDP port of the entry log.
pub const ENTRY_LOG_PORT: u16 = 14246;

/// Key that seals the packets of a space; readers and holders have it, relays do not.
#[derive(Clone)]
pub struct ReadKey(Zeroizing<[u8; 32]>);

impl ReadKey {
    /// Makes it from its 32 bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Its 32 bytes, for an invitation or a file.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

librecast::debug_by_name!(ReadKey);

/// First 32 bits of history groups. Chosen: beside those of asking groups.
const HISTORY: [u16; 2] = [ASKING[0], ASKING[1] + 1];

/// A space of the entry log.
#[derive(Debug, Clone)]
pub struct Space {
    owner: PeerId,
    read_key: Option<ReadKey>,
    ttl: Duration,
    /// None: it is its own family.
    family: Option<u32>,
}

/// The groups of a space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Groups {
    /// Of all members and readers.
    pub live: Ipv6Addr,
    /// Of the owner and holders: requests of readers. One of `ff1e:7570:FAMILY::/64`.
    pub asking: Ipv6Addr,
    /// Of holders, and of readers that lack entries. One of `ff1e:7571:FAMILY::/64`.
    pub history: Ipv6Addr,
}

impl Space {
    /// Describes the space of this owner's key. Without a read key, that suffices to read it.
    /// Entries are kept for at least `ttl`; zero is for ever. The owner's own log does not expire.
    #[must_use]
    pub fn new(owner: PeerId, read_key: Option<ReadKey>, ttl: Duration) -> Self {
        Self {
            owner,
            read_key,
            ttl,
            family: None,
        }
    }

    /// Makes it a space of a family: asking groups of all of them have their first 64 bits in
    /// common, and so have history groups. A prefix in a token covers them.
    #[must_use]
    pub fn in_family(mut self, family: u32) -> Self {
        self.family = Some(family);
        self
    }

    /// Its groups: they reveal nothing of the owner without the read key.
    pub fn groups(&self) -> Groups {
        let asking = self.derived("librecast 2026 log asking");
        let history = self.derived("librecast 2026 log history");
        let family = self.family.unwrap_or_else(|| {
            let hash = self.derived("librecast 2026 log family");
            u32::from_be_bytes(*hash.first_chunk().expect("a hash has 32 bytes"))
        });
        Groups {
            live: self.group(),
            asking: of_family(ASKING, family, &asking),
            history: of_family(HISTORY, family, &history),
        }
    }

    /// The key that grants.
    pub fn owner(&self) -> PeerId {
        self.owner
    }

    /// The key that seals packets, if they are sealed.
    pub fn read_key(&self) -> Option<&ReadKey> {
        self.read_key.as_ref()
    }

    /// Least time for which an entry is kept; zero for ever.
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// Sets the least time for which an entry is kept.
    pub(crate) fn set_ttl(&mut self, ttl: Duration) {
        self.ttl = ttl;
    }

    /// The live group: it reveals nothing of the owner without the read key.
    pub fn group(&self) -> Ipv6Addr {
        transient_group(&self.derived("librecast 2026 log group"))
    }

    /// The 64 bits that name it in packets.
    pub(crate) fn id(&self) -> u64 {
        let hash = self.derived("librecast 2026 log space");
        u64::from_be_bytes(*hash.first_chunk().expect("a hash has 32 bytes"))
    }

    /// The key of packets, if they are sealed.
    pub(crate) fn packet_key(&self) -> Option<Zeroizing<[u8; 32]>> {
        let key = self.read_key.as_ref()?;
        let derived = derive("librecast 2026 log packets", &[key.bytes()]);
        Some(Zeroizing::new(derived))
    }

    /// The short name of an author in this space.
    pub fn author(&self, key: &PeerId) -> AuthorId {
        AuthorId::of(&self.owner, key)
    }

    fn derived(&self, context: &str) -> [u8; 32] {
        match &self.read_key {
            Some(key) => derive(context, &[b"sealed", key.bytes()]),
            None => derive(context, &[b"public", self.owner.public_key()]),
        }
    }
}

/// `[first, second]:family 32:hash 64`
fn of_family([first, second]: [u16; 2], family: u32, hash: &[u8; 32]) -> Ipv6Addr {
    let low = u64::from_be_bytes(*hash.first_chunk().expect("a hash has 32 bytes"));
    let high = u64::from(first) << 48 | u64::from(second) << 32 | u64::from(family);
    Ipv6Addr::from_bits(u128::from(high) << 64 | u128::from(low))
}

#[cfg(test)]
mod tests {
    use librecast::channel::is_asking_group;
    use librecast::id::SecretKey;

    use super::*;

    #[test]
    fn asking_and_history_groups_of_a_family_have_prefixes_in_common() {
        let owner = SecretKey::from_seed(&[1; 32]).peer_id();
        let space = |n| Space::new(owner, Some(ReadKey::new([n; 32])), Duration::ZERO);
        let [a, b] = [1, 2].map(|n| space(n).in_family(0x0102_0304).groups());
        let groups = [a.live, a.asking, a.history, b.live, b.asking, b.history];
        let different: std::collections::BTreeSet<_> = groups.iter().collect();
        assert_eq!(different.len(), 6);
        for (one, other) in [(a.asking, b.asking), (a.history, b.history)] {
            assert_eq!(one.segments()[..4], other.segments()[..4]);
        }
        assert_eq!(a.asking.segments()[..4], [0xff1e, 0x7570, 0x0102, 0x0304]);
        assert_eq!(a.history.segments()[..2], [0xff1e, 0x7571]);
        assert!(is_asking_group(a.asking) && !is_asking_group(a.history));
        let alone = space(1).groups();
        assert_eq!(alone.live, a.live);
        assert_ne!(alone.asking, space(2).groups().asking);
    }

    #[test]
    fn group_of_a_sealed_space_depends_on_its_read_key_alone() {
        let owners = [1, 2].map(|n| SecretKey::from_seed(&[n; 32]).peer_id());
        let of = |owner, key: Option<u8>| {
            Space::new(owner, key.map(|k| ReadKey::new([k; 32])), Duration::ZERO).group()
        };
        assert_eq!(of(owners[0], Some(1)), of(owners[1], Some(1)));
        assert_ne!(of(owners[0], Some(1)), of(owners[0], Some(2)));
        assert_ne!(of(owners[0], None), of(owners[1], None));
        assert_eq!(of(owners[0], None).octets()[..2], [0xff, 0x1e]);
    }
}
