//! Ids of local interfaces, and sets of them.

/// A local interface: its position in outgoing interface lists, 0 to 31.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct LocalInterfaceId(pub u8);

impl LocalInterfaceId {
    /// The part of a table of size `max` for senders of this interface: half of it for LAN hosts.
    pub fn part_of(self, max: usize) -> usize {
        match self {
            LC0 => max,
            _ => max / 2,
        }
    }
}

/// The interface of this host's own programs.
pub const LC0: LocalInterfaceId = LocalInterfaceId(0);

/// Most local interfaces.
pub const MAX_LOCAL_INTERFACES: usize = 32;

/// The local part of an outgoing interface list: one bit for each interface.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LocalInterfaces(u32);

impl LocalInterfaces {
    /// Adds an interface.
    pub fn insert(&mut self, interface: LocalInterfaceId) {
        self.0 |= 1 << interface.0;
    }

    /// Whether the set is empty.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether the set contains an interface.
    pub fn contains(self, interface: LocalInterfaceId) -> bool {
        self.0 & 1 << interface.0 != 0
    }

    /// Whether the set contains a LAN.
    pub fn has_lans(self) -> bool {
        self.0 & !(1 << LC0.0) != 0
    }

    /// The set without LANs.
    #[must_use]
    pub fn without_lans(self) -> Self {
        Self(self.0 & 1 << LC0.0)
    }

    /// The set without lc0.
    #[must_use]
    pub fn without_lc0(self) -> Self {
        Self(self.0 & !(1 << LC0.0))
    }

    /// The LANs of the set, in order.
    pub fn lans(self) -> impl Iterator<Item = LocalInterfaceId> {
        let all = (1..MAX_LOCAL_INTERFACES as u8).map(LocalInterfaceId);
        all.filter(move |interface| self.contains(*interface))
    }
}
