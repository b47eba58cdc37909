//! Opening of datagrams on a receiver: sealed ones if the share has a key, else plain ones.
//!
//! Keys are for hosts: a page receives plain shares alone.

#[cfg(feature = "host")]
use std::sync::Arc;

use librecast::channel::ChannelId;
use librecast::time::Instant;

use crate::packet::{self, OpenError, Packet};
#[cfg(feature = "host")]
use crate::sealing::{ShareKey, Unsealer, group_key};

/// Counters of datagrams that were not opened, by reason.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct OpenDrops {
    /// They violate the format.
    pub malformed: u64,
    /// No record of their server has been opened yet.
    pub unknown_server: u64,
    /// Not sealed with the key, or damaged.
    pub forged: u64,
}

/// The receiver's way to read datagrams of one share.
#[derive(Debug, Default)]
pub struct Opener {
    #[cfg(feature = "host")]
    unsealer: Option<Unsealer>,
    drops: OpenDrops,
}

impl Opener {
    /// Starts without known servers. Without a key, the share is plain.
    #[cfg(feature = "host")]
    #[must_use]
    pub fn new(key: Option<Arc<ShareKey>>) -> Self {
        Self {
            unsealer: key.map(Unsealer::new),
            drops: OpenDrops::default(),
        }
    }

    /// The key from which names of shares and channels are derived.
    pub fn group_key(&self) -> &[u8] {
        #[cfg(feature = "host")]
        return group_key(self.unsealer.as_ref().map(Unsealer::key));
        #[cfg(not(feature = "host"))]
        b""
    }

    /// Datagrams that were not opened.
    pub fn drops(&self) -> OpenDrops {
        self.drops
    }

    /// Opens a datagram on `channel`, which must be sealed with the key, if any; checks each field.
    #[cfg_attr(
        not(feature = "host"),
        expect(unused_variables, reason = "for sealed ones")
    )]
    pub fn open<'a>(
        &'a mut self,
        channel: ChannelId,
        datagram: &'a [u8],
        now: Instant,
    ) -> Result<Packet<'a>, OpenError> {
        let drops = &mut self.drops;
        #[cfg(feature = "host")]
        let opened = match &mut self.unsealer {
            None => packet::decode(datagram).map_err(OpenError::Wire),
            Some(unsealer) => unsealer.open(channel, datagram, now),
        };
        #[cfg(not(feature = "host"))]
        let opened = packet::decode(datagram).map_err(OpenError::Wire);
        match &opened {
            Ok(_) => {}
            Err(OpenError::Wire(_)) => drops.malformed += 1,
            Err(OpenError::UnknownServer) => drops.unknown_server += 1,
            Err(OpenError::Forged) => drops.forged += 1,
        }
        opened
    }
}
