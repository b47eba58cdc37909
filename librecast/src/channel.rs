//! Group addresses and UDP ports of our programs and of others, derived by BLAKE3 from names.

use std::net::{IpAddr, Ipv6Addr};

use crate::id::{PeerId, derive};
use crate::plain::is_name;

/// UDP destination port of lcsync's channels.
pub const LCSYNC_PORT: u16 = 14242;
/// UDP destination port of lcagent's channels.
pub const LCAGENT_PORT: u16 = 14243;
/// UDP port of nodes' traffic reports for observers of the network.
pub const REPORT_PORT: u16 = 14245;
/// UDP port, at both ends, of streams between nodes.
pub const STREAM_PORT: u16 = 14247;
/// Default UDP port of `lcroute listen` and `lcroute say`.
pub const TALK_PORT: u16 = 14244;

/// Longest name of a program's channel, in bytes. Chosen: as of a protocol.
pub const MAX_CHANNEL_NAME: usize = 255;

/// Transient multicast groups of global scope (RFC 4291 §2.7).
const TRANSIENT_GLOBAL: [u8; 2] = [0xff, 0x1e];

/// First 32 bits of asking groups: `ff1e`, and "up" in ASCII.
pub const ASKING: [u16; 2] = [0xff1e, 0x7570];

/// The /64 of a share, with all its channels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SharePrefix([u8; 8]);

/// A channel of a share: the low 64 bits of its group. 0 is the root channel.
pub type ChannelId = u64;

/// Bits of a channel behind the number of a receiver that passes blocks on.
pub const CARRIER_BITS: u32 = 48;
/// The channel that carries the root record.
pub const ROOT_CHANNEL: ChannelId = 0;

impl SharePrefix {
    /// Returns the prefix of `lc:NAME`; `key` is the share's symmetric key, empty if it has none.
    pub fn of_name(key: &[u8], name: &str) -> Self {
        let hash = derive("lcsync 2026 name", &[key, &[0], name.as_bytes()]);
        let mut prefix = [0; 8];
        prefix[..2].copy_from_slice(&TRANSIENT_GLOBAL);
        prefix[2..].copy_from_slice(&hash[..6]);
        Self(prefix)
    }

    /// Returns the prefix of `group`, if it has the form of a share's.
    pub fn of_group(group: Ipv6Addr) -> Option<Self> {
        let prefix = *group.octets().first_chunk::<8>()?;
        (prefix[..2] == TRANSIENT_GLOBAL).then_some(Self(prefix))
    }

    /// Returns the group of one channel.
    pub fn group(self, channel: ChannelId) -> Ipv6Addr {
        let mut octets = [0; 16];
        octets[..8].copy_from_slice(&self.0);
        octets[8..].copy_from_slice(&channel.to_be_bytes());
        Ipv6Addr::from(octets)
    }

    /// Returns the groups on which the receiver at `address` passes blocks on, as for an announcement:
    /// an address and the number of its first bits.
    pub fn of_carrier(self, address: Ipv6Addr) -> (Ipv6Addr, u8) {
        let first = u64::from(carrier_number(address)) << CARRIER_BITS;
        (self.group(first), 128 - CARRIER_BITS as u8)
    }

    /// Returns the first address of the /64, as for an announcement.
    pub fn address(self) -> Ipv6Addr {
        self.group(ROOT_CHANNEL)
    }
}

/// Returns the number of the receiver at this address in channels on which it passes blocks on: their
/// first 16 bits. Never 0.
pub fn carrier_number(address: Ipv6Addr) -> u16 {
    let segments = address.segments();
    let folded = segments[4..].iter().fold(0, |all, part| all ^ part);
    folded.max(1)
}

/// Returns the channel of a group, in any share.
pub fn channel_of(group: Ipv6Addr) -> ChannelId {
    let [.., a, b, c, d, e, f, g, h] = group.octets();
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// Returns the channel of a block: layer 0 is the normal rate. Never the root channel.
pub fn block_channel(key: &[u8], block_hash: &[u8; 32], layer: u8) -> ChannelId {
    let hash = derive("lcsync 2026 block", &[key, &[0], block_hash, &[layer]]);
    hash.chunks_exact(8)
        .map(|c| c.iter().fold(0, |n, b| n << 8 | u64::from(*b)))
        .find(|c| *c != ROOT_CHANNEL)
        .unwrap_or(1)
}

/// Returns the group of a program's channel; none if no channel can have this name.
///
/// A group's address (`ff1e::42`) stands for itself, a PeerId for the group of this key. Any other
/// text is a name. A group proves nothing: each member of the network may send to it.
///
/// ```
/// use librecast::channel::program_group;
///
/// assert_eq!(program_group("ff1e::42"), "ff1e::42".parse().ok());
/// assert_ne!(program_group("example.org/time"), program_group("example.org/date"));
/// assert_eq!(program_group("192.0.2.1"), None);
/// ```
pub fn program_group(name: &str) -> Option<Ipv6Addr> {
    if name.is_empty() || name.len() > MAX_CHANNEL_NAME || !is_name(name) {
        return None;
    }
    match name.parse() {
        Ok(IpAddr::V6(group)) => return group.is_multicast().then_some(group),
        Ok(IpAddr::V4(_)) => return None,
        Err(_) => {}
    }
    let hash = match name.parse::<PeerId>() {
        Ok(key) => derive("librecast 2026 key channel", &[key.public_key()]),
        Err(_) => derive("librecast 2026 named channel", &[name.as_bytes()]),
    };
    Some(transient_group(&hash))
}

/// Returns the group of an lcagent channel.
pub fn agent_group(name: &str) -> Ipv6Addr {
    transient_group(&derive("lcagent 2026 channel", &[name.as_bytes()]))
}

/// Returns the group on which agents answer an operator, its only member.
pub fn agent_answers(operator: &PeerId) -> Ipv6Addr {
    transient_group(&derive("lcagent 2026 answers", &[operator.public_key()]))
}

/// Returns the group of nodes' traffic reports, sent while an observer announces [`look_group`].
pub fn report_group() -> Ipv6Addr {
    transient_group(&derive("lcroute 2026 report", &[]))
}

/// Returns the group that observers announce. It has no packets: no observer becomes their RP.
pub fn look_group() -> Ipv6Addr {
    transient_group(&derive("lcroute 2026 look", &[]))
}

/// Returns whether this is an asking group, to which leaves may send: one of `ff1e:7570::/32`.
pub fn is_asking_group(group: Ipv6Addr) -> bool {
    let [first, second, ..] = group.segments();
    [first, second] == ASKING
}

/// Returns a transient group of global scope (`ff1e::/16`) that begins with this hash.
pub fn transient_group(hash: &[u8; 32]) -> Ipv6Addr {
    let mut octets = [0; 16];
    octets[..2].copy_from_slice(&TRANSIENT_GLOBAL);
    octets[2..].copy_from_slice(&hash[..14]);
    Ipv6Addr::from(octets)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::SecretKey;

    #[test]
    fn channels_of_a_share_lie_in_its_prefix() {
        let share = SharePrefix::of_name(b"", "photos");
        let channel = block_channel(b"", &[7; 32], 0);
        let group = share.group(channel);
        assert_eq!(group.segments()[0], 0xff1e);
        assert_eq!(SharePrefix::of_group(group), Some(share));
        assert_eq!(channel_of(group), channel);
        assert_eq!(channel_of(share.address()), ROOT_CHANNEL);
        assert_eq!(SharePrefix::of_group("ff02::16".parse().unwrap()), None);
    }

    #[test]
    fn name_key_hash_and_layer_all_count() {
        assert_ne!(
            SharePrefix::of_name(b"", "a"),
            SharePrefix::of_name(b"", "b")
        );
        assert_ne!(
            SharePrefix::of_name(b"", "a"),
            SharePrefix::of_name(b"k", "a")
        );
        assert_ne!(
            block_channel(b"", &[1; 32], 0),
            block_channel(b"", &[2; 32], 0)
        );
        assert_ne!(
            block_channel(b"", &[1; 32], 0),
            block_channel(b"", &[1; 32], 1)
        );
        assert_ne!(
            block_channel(b"", &[1; 32], 0),
            block_channel(b"k", &[1; 32], 0)
        );
    }

    #[test]
    fn derivations_are_frozen() {
        let share = SharePrefix::of_name(b"", "photos");
        assert_eq!(share.address().to_string(), "ff1e:27fd:1b0e:a9cb::");
        assert_eq!(block_channel(b"", &[7; 32], 0), 0xdfc9_98ae_e83a_d4a8);
    }

    #[test]
    fn a_channel_of_a_program_has_a_name_a_key_or_an_address() {
        let key = SecretKey::from_seed(&[1; 32]).peer_id().to_string();
        let groups = ["weather", "Weather", &key].map(|name| program_group(name).unwrap());
        assert!(groups.iter().all(|group| group.segments()[0] == 0xff1e));
        assert!(groups[0] != groups[1] && groups[1] != groups[2]);
        let longest = "x".repeat(MAX_CHANNEL_NAME);
        assert!(program_group(&longest).is_some());
        let longer = longest + "x";
        for bad in ["", "a\nb", "fe80::1", "192.0.2.1", "224.0.0.1", &longer] {
            assert_eq!(program_group(bad), None, "{bad}");
        }
    }

    #[test]
    fn each_operator_has_a_group_of_his_own() {
        let group = |seed| agent_answers(&SecretKey::from_seed(&[seed; 32]).peer_id());
        assert_eq!(group(1).segments()[0], 0xff1e);
        assert_eq!(group(1), group(1));
        assert_ne!(group(1), group(2));
        assert_ne!(agent_group("ops"), agent_group("dev"));
    }
}
