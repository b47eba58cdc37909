//! Datagrams of a share: symbols on the blocks' channels, records on the root channel.

use librecast::coding::{MAX_ESI, SYMBOL_SIZE, symbols_of};
use librecast::wire::{Reader, WireError, Writer};
use thiserror::Error;

use crate::catalogue::{self, Listed};
use crate::record::Record;

/// Version of all datagrams.
pub(crate) const VERSION: u8 = 1;
/// Type of a datagram, its second byte (docs/protocol.md §9): the state of a share.
const RECORD: u8 = 1;
/// Type: a symbol of a block.
const SYMBOL: u8 = 2;
/// Type: a record of a share with a key, see [`sealing`](crate::sealing).
pub(crate) const SEALED_RECORD: u8 = 3;
/// Type: a symbol of a share with a key.
pub(crate) const SEALED_SYMBOL: u8 = 4;
/// Type: a server's catalogue.
const CATALOGUE: u8 = 5;
/// Type: a server's catalogue of shares under one key.
pub(crate) const SEALED_CATALOGUE: u8 = 6;
/// Bytes of version, type and flags.
pub(crate) const HEADER: usize = 4;
/// Bytes of a symbol's header.
pub const SYMBOL_HEADER: usize = 28;
/// Bytes of a whole symbol datagram; with IPv6 and UDP 1,100.
pub const SYMBOL_PACKET: usize = SYMBOL_HEADER + SYMBOL_SIZE;

/// Bytes of a symbol on the wire, from the IPv6 header on.
pub const WIRE_SIZE: u64 = 40 + 8 + SYMBOL_PACKET as u64;

/// The same of a sealed symbol, which has a tag of AES-GCM.
pub(crate) const SEALED_WIRE_SIZE: u64 = WIRE_SIZE + 16;

// the least MTU of IPv6 (RFC 8200 §5): symbols are never fragmented
const _: () = assert!(WIRE_SIZE <= 1280);

/// A decoded datagram.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet<'a> {
    /// The state of the share.
    Record(Box<Record>),
    /// A symbol of a block.
    Symbol(Symbol<'a>),
    /// A part of a catalogue.
    Catalogue(Vec<Listed>),
}

/// A symbol of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Symbol<'a> {
    /// Number of the server, random at each start.
    pub server: u32,
    /// Counts this server's packets on this channel and interface, to detect losses.
    pub sequence: u32,
    /// Its channel (low 64 bits of the group).
    pub channel: u64,
    /// Bytes of the block.
    pub block_length: u32,
    /// Encoding symbol id: below K a source symbol, else a repair symbol.
    pub esi: u32,
    /// The symbol: [`SYMBOL_SIZE`] bytes.
    pub data: &'a [u8],
}

impl Symbol<'_> {
    /// Checks length and id for the decoder.
    pub(crate) fn check(&self) -> Result<(), WireError> {
        if symbols_of(self.block_length as usize).is_err() {
            return Err(WireError::Bad("block length"));
        }
        if self.esi > MAX_ESI {
            return Err(WireError::Bad("symbol id"));
        }
        Ok(())
    }

    /// Appends the 28 bytes before the data.
    pub fn write_header(&self, out: &mut Vec<u8>) {
        let mut w = Writer::new();
        w.u8(VERSION)
            .u8(SYMBOL)
            .u16(0)
            .u32(self.server)
            .u32(self.sequence);
        w.u64(self.channel).u32(self.block_length).u32(self.esi);
        out.extend_from_slice(w.as_slice());
    }
}

/// Encodes a record's datagram.
pub fn encode_record(record: &Record) -> Result<Vec<u8>, WireError> {
    let mut w = Writer::new();
    w.u8(VERSION).u8(RECORD).u16(0);
    record.write(&mut w)?;
    Ok(w.into_vec())
}

/// Encodes the datagram of a part of a catalogue.
#[must_use]
pub fn encode_catalogue(part: &[u8]) -> Vec<u8> {
    let mut w = Writer::new();
    w.u8(VERSION).u8(CATALOGUE).u16(0).put(part);
    w.into_vec()
}

/// Returns the type of the sealed form of a datagram.
pub(crate) fn sealed_type(datagram: &[u8]) -> Option<u8> {
    match *datagram.get(1)? {
        RECORD => Some(SEALED_RECORD),
        CATALOGUE => Some(SEALED_CATALOGUE),
        _ => None,
    }
}

/// Decodes a datagram and checks each field.
pub fn decode(datagram: &[u8]) -> Result<Packet<'_>, WireError> {
    let mut r = Reader::new(datagram);
    let kind = read_header(&mut r)?;
    let packet = match kind {
        RECORD => Packet::Record(Box::new(Record::read(&mut r)?)),
        SYMBOL => Packet::Symbol(read_symbol(&mut r)?),
        CATALOGUE => Packet::Catalogue(catalogue::read(&mut r)?),
        _ => return Err(WireError::Bad("packet type")),
    };
    r.finish()?;
    Ok(packet)
}

/// Returns the type of a datagram of this version.
pub(crate) fn read_header(r: &mut Reader<'_>) -> Result<u8, WireError> {
    r.version(VERSION)?;
    let kind = r.u8()?;
    // flags are for later versions; this one refuses datagrams with any
    if r.u16()? != 0 {
        return Err(WireError::Bad("flags"));
    }
    Ok(kind)
}

fn read_symbol<'a>(r: &mut Reader<'a>) -> Result<Symbol<'a>, WireError> {
    let symbol = Symbol {
        server: r.u32()?,
        sequence: r.u32()?,
        channel: r.u64()?,
        block_length: r.u32()?,
        esi: r.u32()?,
        data: r.take(SYMBOL_SIZE)?,
    };
    symbol.check()?;
    Ok(symbol)
}

/// Reason why a datagram was not opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OpenError {
    /// It violates the format.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// No record of its server has been opened yet.
    #[error("from a server not heard of yet")]
    UnknownServer,
    /// Not sealed with the key, or damaged.
    #[error("not sealed with this key")]
    Forged,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::records;
    use librecast::coding::MAX_BLOCK;
    use proptest::prelude::*;

    fn bytes_of(symbol: &Symbol<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        symbol.write_header(&mut out);
        out.extend_from_slice(symbol.data);
        out
    }

    #[test]
    fn symbol_bytes_are_frozen() {
        let data = [0xaa; SYMBOL_SIZE];
        let symbol = Symbol {
            server: 1,
            sequence: 2,
            channel: 3,
            block_length: 4,
            esi: 5,
            data: &data,
        };
        let bytes = bytes_of(&symbol);
        let expected = "0102000000000001000000020000000000000003\
                        0000000400000005";
        let hex: String = bytes[..SYMBOL_HEADER]
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(hex, expected);
        assert_eq!(bytes.len(), SYMBOL_PACKET);
    }

    #[test]
    fn catalogue_bytes_are_frozen() {
        let listed = Listed {
            name: "ab".to_owned(),
            root: crate::block::BlockHash([0xcc; 32]),
            generation: 1,
            bytes: 2,
            files: 3,
        };
        let parts = catalogue::parts(std::slice::from_ref(&listed)).unwrap();
        let bytes = encode_catalogue(&parts[0]);
        let numbers = [1_u64, 2, 3].map(u64::to_be_bytes).concat();
        let expected = [&[1, 5, 0, 0, 2, b'a', b'b'][..], &[0xcc; 32], &numbers].concat();
        assert_eq!(bytes, expected);
        assert_eq!(decode(&bytes), Ok(Packet::Catalogue(vec![listed])));
    }

    proptest! {
        #[test]
        fn symbol_round_trip(server: u32, sequence: u32, channel: u64, block_length in 1..=MAX_BLOCK as u32, esi in 0..=MAX_ESI, fill: u8) {
            let data = [fill; SYMBOL_SIZE];
            let symbol = Symbol { server, sequence, channel, block_length, esi, data: &data };
            let bytes = bytes_of(&symbol);
            prop_assert_eq!(decode(&bytes), Ok(Packet::Symbol(symbol)));
            prop_assert!(decode(&bytes[..bytes.len() - 1]).is_err());
        }

        #[test]
        fn symbols_out_of_range_are_refused(block_length in MAX_BLOCK as u32 + 1.., esi in MAX_ESI + 1..) {
            let data = [0; SYMBOL_SIZE];
            let good = Symbol { server: 0, sequence: 0, channel: 1, block_length: 1, esi: 0, data: &data };
            let bytes = bytes_of(&Symbol { block_length, ..good });
            prop_assert!(decode(&bytes).is_err());
            let bytes = bytes_of(&Symbol { block_length: 0, ..good });
            prop_assert!(decode(&bytes).is_err());
            let bytes = bytes_of(&Symbol { esi, ..good });
            prop_assert!(decode(&bytes).is_err());
        }

        #[test]
        fn record_round_trip(record in records()) {
            let bytes = encode_record(&record).unwrap();
            prop_assert!(40 + 8 + bytes.len() <= 1280);
            prop_assert_eq!(decode(&bytes), Ok(Packet::Record(Box::new(record))));
        }

        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..1400)) {
            let _ = decode(&bytes);
        }

        #[test]
        fn damaged_records_never_panic(record in records(), at: usize, value: u8) {
            let mut bytes = encode_record(&record).unwrap();
            let at = at % bytes.len();
            bytes[at] = value;
            let _ = decode(&bytes);
        }
    }
}
