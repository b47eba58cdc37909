//! Fields of a state as bytes, common to its parts.

use librecast::id::PeerId;
use librecast::wire::{Reader, WireError, Writer};

/// Bytes of an MLS state, and length of a list: far above the needs of 1,000 members (0.5 MB).
pub(crate) const MAX_FIELD: usize = 16 * 1_024 * 1_024;

/// Writes bytes behind their length.
pub(crate) fn long(w: &mut Writer, bytes: &[u8]) {
    w.u32(bytes.len() as u32).put(bytes);
}

pub(crate) fn field<'a>(r: &mut Reader<'a>) -> Result<&'a [u8], WireError> {
    let n = r.u32()? as usize;
    if n > MAX_FIELD {
        return Err(WireError::Bad("length"));
    }
    r.take(n)
}

/// Reads the length of a list.
pub(crate) fn count(r: &mut Reader<'_>, most: usize) -> Result<usize, WireError> {
    let n = r.u32()? as usize;
    (n <= most).then_some(n).ok_or(WireError::Bad("count"))
}

pub(crate) fn flag(r: &mut Reader<'_>) -> Result<bool, WireError> {
    match r.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(WireError::Bad("flag")),
    }
}

pub(crate) fn peer(r: &mut Reader<'_>) -> Result<PeerId, WireError> {
    PeerId::from_public_key(r.array()?).map_err(|_| WireError::Bad("key"))
}

pub(crate) fn put_peers<'a>(w: &mut Writer, peers: impl ExactSizeIterator<Item = &'a PeerId>) {
    w.u32(peers.len() as u32);
    for peer in peers {
        w.put(peer.public_key());
    }
}
