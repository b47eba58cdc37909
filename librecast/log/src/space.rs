//! A space: the key of its owner, and the key of its readers.

use std::fmt;
use std::net::Ipv6Addr;
use std::time::Duration;

use librecast::channel::transient_group;
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
    #[must_use]
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for ReadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReadKey")
    }
}

/// A space of the entry log.
#[derive(Debug, Clone)]
pub struct Space {
    owner: PeerId,
    read_key: Option<ReadKey>,
    ttl: Duration,
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
        }
    }

    /// The key that grants.
    #[must_use]
    pub fn owner(&self) -> PeerId {
        self.owner
    }

    /// The key that seals packets, if they are sealed.
    #[must_use]
    pub fn read_key(&self) -> Option<&ReadKey> {
        self.read_key.as_ref()
    }

    /// Least time for which an entry is kept; zero for ever.
    #[must_use]
    pub fn ttl(&self) -> Duration {
        self.ttl
    }

    /// The group of its packets: it reveals nothing of the owner without the read key.
    #[must_use]
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
    #[must_use]
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

#[cfg(test)]
mod tests {
    use librecast::id::SecretKey;

    use super::*;

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
