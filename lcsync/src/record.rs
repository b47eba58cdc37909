//! The root record: a share's present state, in a datagram that repeats on the root channel.

use librecast::wire::{Reader, WireError, Writer};

use crate::block::{BlockHash, BlockRef};
use crate::carrying::{Carries, Progress};
use crate::tree::{ROOT_SIZE, Stream};

/// Most channels in a record's list of those being sent, so that it fits one datagram.
pub const MAX_SENDING: usize = 64;
/// Most bytes of authentication in a record.
const MAX_AUTHENTICATION: usize = 256;

/// A server's description of its share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Random at each start of the server.
    pub server: u32,
    /// Grows with each version of the share: milliseconds since 1970 when it was published.
    pub generation: u64,
    /// The root node; its hash is the root hash.
    pub root: BlockRef,
    /// Modes and times. Not covered by the root hash.
    pub metadata: Stream,
    /// Kilobits per second of each channel (IP packets with all headers).
    pub channel_rate: u32,
    /// The same for the channels of layer 1, 0 if there are none.
    pub slow_rate: u32,
    /// Kilobits per second over all channels, 0 if unlimited.
    pub total_rate: u32,
    /// Most channels that a receiver may hold.
    pub max_channels: u16,
    /// A receiver that carries, on the overlay from which the record comes.
    pub carries: Option<Carries>,
    /// Public key and signature of the version (see `signature`), or empty.
    pub authentication: Vec<u8>,
    /// Channels that are sent now: joining them costs the server least.
    pub sending: Vec<Sending>,
}

/// The part of a record that describes the version, equal for all its servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    /// When it was published.
    pub generation: u64,
    /// Hash and length of the root node: the version.
    pub root: BlockRef,
    /// Stream of modes and times.
    pub metadata: Stream,
}

/// A channel that is being sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sending {
    /// Low 64 bits of its group.
    pub channel: u64,
    /// Symbols to come without a further JOIN.
    pub left: u16,
}

impl Record {
    /// Returns the version of the record.
    #[must_use]
    pub fn version(&self) -> Version {
        Version {
            generation: self.generation,
            root: self.root,
            metadata: self.metadata,
        }
    }

    /// Appends the record.
    pub fn write(&self, w: &mut Writer) -> Result<(), WireError> {
        if self.authentication.len() > MAX_AUTHENTICATION || self.sending.len() > MAX_SENDING {
            return Err(WireError::Bad("length"));
        }
        w.u32(self.server).u64(self.generation);
        w.put(&self.root.hash.0).u32(self.root.length);
        self.metadata.write(w);
        w.u32(self.channel_rate)
            .u32(self.slow_rate)
            .u32(self.total_rate)
            .u16(self.max_channels)
            .u8(self.carries.map_or(0, |carries| carries.width));
        if let Some(Carries { progress, .. }) = self.carries {
            w.u32(progress.below).put(&progress.after.to_be_bytes());
        }
        w.bytes16(&self.authentication)?;
        w.u8(self.sending.len() as u8);
        for sending in &self.sending {
            w.u64(sending.channel).u16(sending.left);
        }
        Ok(())
    }

    /// Reads a record.
    pub fn read(r: &mut Reader<'_>) -> Result<Self, WireError> {
        let (server, generation) = (r.u32()?, r.u64()?);
        let root = BlockRef {
            hash: BlockHash(r.array()?),
            length: r.u32()?,
        };
        if root.length as usize != ROOT_SIZE {
            return Err(WireError::Bad("length of root node"));
        }
        let metadata = Stream::read(r)?;
        let (channel_rate, slow_rate) = (r.u32()?, r.u32()?);
        let (total_rate, max_channels) = (r.u32()?, r.u16()?);
        let carries = match r.u8()? {
            0 => None,
            width => {
                let (below, after) = (r.u32()?, u128::from_be_bytes(r.array()?));
                let progress = Progress { below, after };
                Some(Carries { width, progress })
            }
        };
        if channel_rate == 0 || slow_rate > channel_rate || max_channels == 0 {
            return Err(WireError::Bad("rate"));
        }
        let authentication = r.bytes16()?;
        if authentication.len() > MAX_AUTHENTICATION {
            return Err(WireError::Bad("authentication"));
        }
        let count = usize::from(r.u8()?);
        if count > MAX_SENDING {
            return Err(WireError::Bad("number of channels"));
        }
        let sending = (0..count)
            .map(|_| {
                Ok(Sending {
                    channel: r.u64()?,
                    left: r.u16()?,
                })
            })
            .collect::<Result<_, WireError>>()?;
        Ok(Self {
            server,
            generation,
            root,
            metadata,
            channel_rate,
            slow_rate,
            total_rate,
            max_channels,
            carries,
            authentication: authentication.to_vec(),
            sending,
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A record of least length.
    pub(crate) fn record(server: u32, generation: u64) -> Record {
        Record {
            server,
            generation,
            root: BlockRef {
                hash: BlockHash::default(),
                length: ROOT_SIZE as u32,
            },
            metadata: Stream::default(),
            channel_rate: 1,
            slow_rate: 0,
            total_rate: 0,
            max_channels: 1,
            carries: None,
            authentication: Vec::new(),
            sending: Vec::new(),
        }
    }

    /// Any valid record.
    pub(crate) fn records() -> impl Strategy<Value = Record> {
        let rates = (1..u32::MAX, 0..=10_u32, any::<u32>(), 1..u16::MAX);
        let lists = (
            proptest::collection::vec(any::<u8>(), 0..=MAX_AUTHENTICATION),
            proptest::collection::vec(any::<(u64, u16)>(), 0..=MAX_SENDING),
        );
        (
            any::<u32>(),
            any::<u64>(),
            any::<([u8; 32], u8, u32, u128)>(),
            rates,
            lists,
            0..1000u32,
        )
            .prop_map(
                |(
                    server,
                    generation,
                    (hash, width, below, after),
                    (channel_rate, slow, total_rate, max_channels),
                    (authentication, sending),
                    meta,
                )| {
                    let leaves: Vec<BlockRef> = (0..meta % 4)
                        .map(|n| BlockRef::of(&[n as u8; 28]))
                        .collect();
                    Record {
                        server,
                        generation,
                        root: BlockRef {
                            hash: BlockHash(hash),
                            length: ROOT_SIZE as u32,
                        },
                        metadata: Stream::build(&leaves).0,
                        channel_rate,
                        slow_rate: channel_rate / 10 * slow,
                        total_rate,
                        max_channels,
                        carries: (width > 0).then_some(Carries {
                            width,
                            progress: Progress { below, after },
                        }),
                        authentication,
                        sending: sending
                            .into_iter()
                            .map(|(channel, left)| Sending { channel, left })
                            .collect(),
                    }
                },
            )
    }
}
