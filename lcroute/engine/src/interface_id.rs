//! Names of local interfaces, and sets of them.

/// A local interface: its place in outgoing interface lists, 0 to 31.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct LocalInterfaceId(pub u8);

impl LocalInterfaceId {
    /// How far senders of this interface may fill a table of so many: hosts of LANs leave half to this host's programs.
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

    /// Whether there is none.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether this one is among them.
    pub fn contains(self, interface: LocalInterfaceId) -> bool {
        self.0 & 1 << interface.0 != 0
    }

    /// Whether there is one beside lc0.
    pub fn has_lans(self) -> bool {
        self.0 & !(1 << LC0.0) != 0
    }

    /// The same without LANs.
    #[must_use]
    pub fn without_lans(self) -> Self {
        Self(self.0 & 1 << LC0.0)
    }

    /// The same without lc0.
    #[must_use]
    pub fn without_lc0(self) -> Self {
        Self(self.0 & !(1 << LC0.0))
    }

    /// Those but lc0, in order.
    pub fn lans(self) -> impl Iterator<Item = LocalInterfaceId> {
        let all = (1..MAX_LOCAL_INTERFACES as u8).map(LocalInterfaceId);
        all.filter(move |interface| self.contains(*interface))
    }
}
